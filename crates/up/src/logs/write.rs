//! The keeping side: one open file for each service, turned over when it is full, the oldest thrown away.

use super::{Record, Stream};
use crate::environment::os_words;
use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub segment_bytes: u64,
    /// Files kept for each service.
    pub segments: usize,
    /// Lines kept in memory for each instance, to be shown when it crashes.
    pub last_lines: usize,
}

impl Default for Limits {
    /// 64 MiB for each service: a day of an ordinary one, half a minute of one that does nothing but write.
    fn default() -> Self {
        Self { segment_bytes: 8 << 20, segments: 8, last_lines: 20 }
    }
}

/// Writes what instances say. Lines wait in memory until [`flush`](Self::flush); the edge calls it when it runs dry.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    limits: Limits,
    services: HashMap<String, Kept>,
    last: HashMap<(String, u32), VecDeque<String>>,
    newest: u64,
}

/// What became of lines that could not be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// So many so far, and more until it is said otherwise.
    Lost { service: String, lines: u64, why: String },
    /// It is over, after so many in all.
    KeptAgain { service: String, lines: u64 },
}

#[derive(Debug)]
struct Kept {
    file: Option<File>,
    number: u64,
    bytes: u64,
    pending: String,
    /// Lines since keeping them began to fail; how many of them were told; the reason.
    lost: u64,
    told: u64,
    why: String,
    /// Lines that were lost until it worked again, to be told.
    over: Option<u64>,
}

impl Writer {
    /// Goes on where the last run stopped.
    pub fn open(folder: &Path, limits: Limits) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            limits,
            services: HashMap::new(),
            last: HashMap::new(),
            newest: 0,
        })
    }

    pub fn write(&mut self, unix_nanos: u64, service: &str, instance: u32, stream: Stream, text: &str) {
        // The clock may be set back while we run; the order of what happened may not.
        self.newest = self.newest.max(unix_nanos);
        // A line end inside would become a line of its own that nobody wrote.
        let text = text.replace('\n', " ");
        let last = self.last.entry((service.to_owned(), instance)).or_default();
        if last.len() >= self.limits.last_lines {
            last.pop_front();
        }
        last.push_back(text.clone());
        self.keep(service, instance, stream, text);
    }

    /// Isobar's own sentence about an instance: kept among its lines, but none of its last words.
    pub fn note(&mut self, unix_nanos: u64, service: &str, instance: u32, text: &str) {
        self.newest = self.newest.max(unix_nanos);
        self.keep(service, instance, Stream::Isobar, text.replace('\n', " "));
    }

    fn keep(&mut self, service: &str, instance: u32, stream: Stream, text: String) {
        let record = Record { unix_nanos: self.newest, service: service.to_owned(), instance, stream, text };
        let folder = self.folder.join(service);
        let kept = self.services.entry(service.to_owned()).or_insert_with(|| Kept {
            file: None,
            number: numbers(&folder).last().map_or(1, |newest| newest + 1),
            bytes: 0,
            pending: String::new(),
            lost: 0,
            told: 0,
            why: String::new(),
            over: None,
        });
        record.encode(&mut kept.pending);
        // A flood must not wait in memory for its turn.
        if kept.pending.len() > 256 << 10 {
            self.flush();
        }
    }

    /// Its folder is not the one that it began with: what comes now goes to new files.
    pub fn begin_anew(&mut self) {
        for kept in self.services.values_mut() {
            (kept.file, kept.number, kept.bytes) = (None, kept.number + 1, 0);
        }
    }

    /// What this instance said last.
    pub fn last_lines(&self, service: &str, instance: u32) -> Vec<String> {
        self.last
            .get(&(service.to_owned(), instance))
            .map(|it| it.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// What a person should know by now: that lines begin to be lost, that ten times as many are, that it is over. A
    /// disk stays full for hours, and saying so twice a second helps nobody.
    pub fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for (service, kept) in &mut self.services {
            if let Some(lines) = kept.over.take() {
                news.push(News::KeptAgain { service: service.clone(), lines });
            }
            if kept.lost > 0 && (kept.told == 0 || kept.lost >= kept.told.saturating_mul(10)) {
                kept.told = kept.lost;
                let why = kept.why.clone();
                news.push(News::Lost { service: service.clone(), lines: kept.lost, why });
            }
        }
        news
    }

    pub fn flush(&mut self) {
        for (service, kept) in &mut self.services {
            if kept.pending.is_empty() {
                continue;
            }
            let pending = std::mem::take(&mut kept.pending);
            match kept.append(&self.folder.join(service), &pending, self.limits) {
                Ok(()) if kept.lost > 0 => {
                    kept.over = Some(kept.over.unwrap_or(0) + kept.lost);
                    (kept.lost, kept.told) = (0, 0);
                }
                Ok(()) => {}
                // A full disk is no reason to stop a system: the lines are lost, and counted.
                Err(error) => {
                    kept.lost += pending.lines().count() as u64;
                    kept.why = os_words(&error);
                    kept.file = None;
                }
            }
        }
    }
}

impl Kept {
    fn append(&mut self, folder: &Path, text: &str, limits: Limits) -> io::Result<()> {
        if self.file.is_some() && self.bytes >= limits.segment_bytes {
            self.file = None;
            self.number += 1;
            self.bytes = 0;
        }
        if self.file.is_none() {
            std::fs::create_dir_all(folder)?;
            let path = segment(folder, self.number);
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            self.bytes = file.metadata()?.len();
            self.file = Some(file);
            let numbers = numbers(folder);
            for old in numbers.iter().rev().skip(limits.segments) {
                std::fs::remove_file(segment(folder, *old))?;
            }
        }
        if let Some(file) = &mut self.file {
            if let Err(error) = file.write_all(text.as_bytes()) {
                // As much as there was room for: half a line would spoil the one that follows it.
                let _ = file.set_len(self.bytes);
                return Err(error);
            }
            self.bytes += text.len() as u64;
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}

pub(super) fn segment(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.log"))
}

/// The numbers of a service's files, ascending.
pub(super) fn numbers(folder: &Path) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut numbers: Vec<u64> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}
