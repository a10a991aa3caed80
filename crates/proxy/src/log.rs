//! The access log: one JSON line for each request, written by a thread of its own.
//!
//! A worker collects lines and hands them over a few times a second, or when it has many. If the writer is behind, for
//! example because nobody reads our standard output, lines are dropped and counted; a request never waits for its log.

use crate::stats::WorkerCells;
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// How much the control side says on stderr about what it does. It can be changed while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Error,
    /// And what changes: health, names, certificates.
    Info,
    /// And each request that failed, up to a hundred a second.
    Debug,
}

const LEVELS: [(Level, &str); 3] = [(Level::Error, "error"), (Level::Info, "info"), (Level::Debug, "debug")];

impl Level {
    pub fn name(self) -> &'static str {
        LEVELS[self as usize].1
    }

    pub fn of(name: &str) -> Option<Self> {
        LEVELS.iter().find(|(_, it)| *it == name).map(|(level, _)| *level)
    }
}

#[derive(Debug)]
pub(crate) struct Voice(AtomicU8);

impl Voice {
    pub(crate) fn new(level: Level) -> Self {
        Self(AtomicU8::new(level as u8))
    }

    pub(crate) fn level(&self) -> Level {
        LEVELS.get(usize::from(self.0.load(Relaxed))).map_or(Level::Error, |(level, _)| *level)
    }

    pub(crate) fn set(&self, level: Level) {
        self.0.store(level as u8, Relaxed);
    }

    pub(crate) fn say(&self, level: Level, words: std::fmt::Arguments<'_>) {
        if level <= self.level() {
            // Nobody is left to tell when stderr is gone.
            let _ = writeln!(std::io::stderr(), "isobar: {words}");
        }
    }
}

/// Lines are handed over in batches of about this many bytes.
const BATCH_BYTES: usize = 32 << 10;

#[derive(Debug, Default)]
pub(crate) struct Batch {
    lines: Vec<u8>,
    count: u64,
    writer: Option<crossbeam_channel::Sender<Vec<u8>>>,
}

impl Batch {
    pub(crate) fn new(writer: crossbeam_channel::Sender<Vec<u8>>) -> Self {
        Self { lines: Vec::new(), count: 0, writer: Some(writer) }
    }

    /// Adds the line that `write` writes.
    pub(crate) fn line(&mut self, cells: &WorkerCells, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.lines);
        self.lines.push(b'\n');
        self.count += 1;
        if self.lines.len() >= BATCH_BYTES {
            self.flush(cells);
        }
    }

    pub(crate) fn flush(&mut self, cells: &WorkerCells) {
        if self.count == 0 {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        let sent = self.writer.as_ref().is_some_and(|writer| writer.try_send(lines).is_ok());
        if !sent {
            cells.log_dropped.add(self.count);
        }
        self.count = 0;
    }
}

/// Starts the thread that writes. It ends when the last worker has.
pub(crate) fn start_writer(batches_max: usize) -> std::io::Result<crossbeam_channel::Sender<Vec<u8>>> {
    let (sender, receiver) = crossbeam_channel::bounded::<Vec<u8>>(batches_max.max(1));
    std::thread::Builder::new().name("isobar-log".into()).spawn(move || {
        let mut out = std::io::stdout();
        for lines in receiver {
            // Nobody can be told that the log cannot be written, except by the log.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
        }
    })?;
    Ok(sender)
}

/// Writes `text` as a JSON string: what a peer sent must not be able to end the line or the string.
pub(crate) fn write_json_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0x20..0x7F => out.push(*byte),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&crate::identity::hex_16(u64::from(*byte))[14..]);
            }
        }
    }
    out.push(b'"');
}
