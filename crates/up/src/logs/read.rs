//! The finding side: merging by time, filtering, following. It only reads files, so it works while isobar runs, after
//! it ended, and when it was killed.

use super::Record;
use super::write::{numbers, segment};
use regex::Regex;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Which lines are wanted. All conditions hold together.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Empty: all services. `web#1` means one instance.
    pub services: Vec<String>,
    pub since_unix_nanos: u64,
    pub grep: Option<Regex>,
    /// A trace id or request id: lines that hold this text.
    pub id: Option<String>,
}

impl Query {
    fn wants_service(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|it| it.split('#').next() == Some(service))
    }

    fn wants(&self, record: &Record) -> bool {
        record.unix_nanos >= self.since_unix_nanos
            && self.grep.as_ref().is_none_or(|it| it.is_match(&record.text))
            && self.id.as_ref().is_none_or(|it| record.text.contains(it.as_str()))
            && (self.services.is_empty()
                || self.services.iter().any(|it| match it.split_once('#') {
                    Some((service, index)) => {
                        service == record.service && index == record.instance.to_string()
                    }
                    None => *it == record.service,
                }))
    }
}

/// All kept lines that are wanted, merged in the order of time.
pub fn read(folder: &Path, query: &Query) -> io::Result<impl Iterator<Item = Record> + use<>> {
    let mut fronts = Vec::new();
    for service in services(folder)? {
        if query.wants_service(&service) {
            let mut walk = Walk::new(folder.join(&service), service);
            if let Some(first) = walk.next() {
                fronts.push((first, walk));
            }
        }
    }
    let query = query.clone();
    Ok(std::iter::from_fn(move || {
        loop {
            let at = fronts
                .iter()
                .enumerate()
                .min_by(|(_, (a, _)), (_, (b, _))| {
                    (a.unix_nanos, &a.service).cmp(&(b.unix_nanos, &b.service))
                })
                .map(|(at, _)| at)?;
            let record = match fronts[at].1.next() {
                Some(next) => std::mem::replace(&mut fronts[at].0, next),
                None => fronts.swap_remove(at).0,
            };
            if query.wants(&record) {
                return Some(record);
            }
        }
    }))
}

/// Of the end of a file, at first. Ordinary lines are a hundred bytes long, so this holds what a page shows.
const NEWEST_BYTES: u64 = 64 << 10;
/// Of the end of a file, at most: a page asks every second, and shall not read a flood each time.
const NEWEST_BYTES_MAX: u64 = 1 << 20;

/// A service's last lines, newest first, as far as they lie near the end. A service nobody heard of has said nothing.
/// It costs the same however much was said before.
pub fn newest(folder: &Path, service: &str, max: usize) -> Vec<Record> {
    let here = folder.join(service);
    let mut found = Vec::new();
    for number in numbers(&here).into_iter().rev() {
        // A file that cannot be read, or was thrown away since we looked, is simply the past.
        let Ok(mut file) = File::open(segment(&here, number)) else { continue };
        let mut lines = Vec::new();
        for bytes in [NEWEST_BYTES, NEWEST_BYTES_MAX] {
            let Ok((read, whole)) = end_of(&mut file, bytes) else { break };
            lines = read;
            if whole || found.len() + lines.len() > max {
                break;
            }
        }
        let records = lines.iter().rev().filter_map(|line| Record::decode(service, line));
        found.extend(records.take(max - found.len()));
        if found.len() >= max {
            break;
        }
    }
    found
}

/// The whole lines in the last `bytes` of a file, and whether that is all of it.
fn end_of(file: &mut File, bytes: u64) -> io::Result<(Vec<String>, bool)> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(bytes);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    let text = String::from_utf8_lossy(&end);
    let lines = text.lines().skip(usize::from(from > 0)).map(str::to_owned).collect();
    Ok((lines, from == 0))
}

fn services(folder: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(folder)?
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// One service's lines, file after file.
#[derive(Debug)]
struct Walk {
    folder: PathBuf,
    service: String,
    numbers: std::vec::IntoIter<u64>,
    reader: Option<BufReader<File>>,
}

impl Walk {
    fn new(folder: PathBuf, service: String) -> Self {
        let numbers = numbers(&folder).into_iter();
        Self { folder, service, numbers, reader: None }
    }
}

impl Iterator for Walk {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let mut line = Vec::new();
        loop {
            let Some(reader) = &mut self.reader else {
                // A file that was thrown away since we looked is simply the past.
                let number = self.numbers.next()?;
                self.reader = File::open(segment(&self.folder, number)).ok().map(BufReader::new);
                continue;
            };
            line.clear();
            match reader.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => self.reader = None,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line);
                    if let Some(record) = Record::decode(&self.service, text.trim_end_matches('\n')) {
                        return Some(record);
                    }
                }
            }
        }
    }
}

/// Follows the files as they grow.
#[derive(Debug)]
pub struct Tail {
    folder: PathBuf,
    query: Query,
    /// For each service: the file we are in, and how far.
    places: BTreeMap<String, (u64, u64)>,
}

impl Tail {
    /// Begins after what is there now.
    pub fn from_end(folder: &Path, query: Query) -> io::Result<Self> {
        let mut places = BTreeMap::new();
        for service in services(folder)? {
            let here = folder.join(&service);
            if let Some(newest) = numbers(&here).last() {
                let length = std::fs::metadata(segment(&here, *newest)).map_or(0, |it| it.len());
                places.insert(service, (*newest, length));
            }
        }
        Ok(Self { folder: folder.to_owned(), query, places })
    }

    /// What came since the last time, in the order of time.
    pub fn poll(&mut self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for service in services(&self.folder)? {
            if !self.query.wants_service(&service) {
                continue;
            }
            let folder = self.folder.join(&service);
            let (mut at, mut offset) = self.places.get(&service).copied().unwrap_or((0, 0));
            let from = at;
            for number in numbers(&folder).into_iter().filter(|it| *it >= from) {
                if number != at {
                    (at, offset) = (number, 0);
                }
                let Ok(mut file) = File::open(segment(&folder, number)) else { continue };
                file.seek(SeekFrom::Start(offset))?;
                let mut reader = BufReader::new(file);
                let mut line = Vec::new();
                loop {
                    line.clear();
                    let read = reader.read_until(b'\n', &mut line)?;
                    // A line still being written is read whole the next time.
                    if read == 0 || line.last() != Some(&b'\n') {
                        break;
                    }
                    offset += read as u64;
                    let text = String::from_utf8_lossy(&line);
                    records.extend(
                        Record::decode(&service, text.trim_end_matches('\n'))
                            .filter(|it| self.query.wants(it)),
                    );
                }
            }
            self.places.insert(service, (at, offset));
        }
        records.sort_by(|a, b| (a.unix_nanos, &a.service).cmp(&(b.unix_nanos, &b.service)));
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, News, Stream, Writer};
    use super::*;

    fn texts(folder: &Path, query: &Query) -> Vec<String> {
        read(folder, query)
            .expect("a folder")
            .map(|it| format!("{}#{} {}", it.service, it.instance, it.text))
            .collect()
    }

    fn fill(folder: &Path) -> Writer {
        let mut writer = Writer::open(folder, Limits::default()).expect("a folder");
        writer.write(10, "web", 0, Stream::Out, "one");
        writer.write(20, "cart", 1, Stream::Err, "{\"level\":\"error\",\"trace_id\":\"abc\"}");
        writer.write(30, "web", 1, Stream::Isobar, "three");
        // The clock was set back.
        writer.write(5, "cart", 0, Stream::Out, "four");
        writer.flush();
        writer
    }

    #[test]
    fn lines_are_merged_by_time_and_filtered() {
        let folder = tempfile::tempdir().expect("a folder");
        let _writer = fill(folder.path());
        #[track_caller]
        fn check(folder: &Path, query: Query, expected: &[&str]) {
            assert_eq!(texts(folder, &query), expected);
        }
        let all =
            ["web#0 one", "cart#1 {\"level\":\"error\",\"trace_id\":\"abc\"}", "cart#0 four", "web#1 three"];
        check(folder.path(), Query::default(), &all);
        check(
            folder.path(),
            Query { services: vec!["web".into()], ..Query::default() },
            &["web#0 one", "web#1 three"],
        );
        check(folder.path(), Query { services: vec!["web#1".into()], ..Query::default() }, &["web#1 three"]);
        check(
            folder.path(),
            Query { since_unix_nanos: 30, ..Query::default() },
            &["cart#0 four", "web#1 three"],
        );
        check(
            folder.path(),
            Query { grep: Regex::new("^t|f").ok(), ..Query::default() },
            &["cart#0 four", "web#1 three"],
        );
        check(folder.path(), Query { id: Some("abc".into()), ..Query::default() }, &all[1..2]);
    }

    #[test]
    fn json_is_recognised() {
        let folder = tempfile::tempdir().expect("a folder");
        let _writer = fill(folder.path());
        let query = Query { services: vec!["cart".into()], ..Query::default() };
        let records: Vec<Record> = read(folder.path(), &query).expect("a folder").collect();
        assert_eq!(records[0].to_json()["fields"]["level"], "error");
        assert_eq!(records[1].to_json().get("fields"), None);
    }

    #[test]
    fn lines_survive_a_restart_and_are_followed_across_files() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(fill(folder.path()));
        let mut tail = Tail::from_end(folder.path(), Query::default()).expect("a folder");
        assert_eq!(tail.poll().expect("files"), []);
        let limits = Limits { segment_bytes: 100, segments: 3, last_lines: 2 };
        let mut writer = Writer::open(folder.path(), limits).expect("a folder");
        let mut followed = Vec::new();
        for n in 0..50u64 {
            writer.write(100 + n, "web", 0, Stream::Out, &format!("line {n}"));
            writer.flush();
            followed.extend(tail.poll().expect("files").into_iter().map(|it| it.text));
        }
        assert_eq!(followed, (0..50).map(|n| format!("line {n}")).collect::<Vec<_>>());
        assert_eq!(writer.last_lines("web", 0), ["line 48", "line 49"]);
        assert_eq!(numbers(&folder.path().join("web")).len(), 3, "the oldest files are gone");
        let kept = texts(folder.path(), &Query::default());
        assert!(kept.contains(&"cart#0 four".to_owned()), "a flood pushes out only its own past: {kept:?}");
        assert_eq!(kept.last().map(String::as_str), Some("web#0 line 49"));
    }

    #[test]
    fn the_newest_lines_are_read_from_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = Limits { segment_bytes: 2 << 20, segments: 3, last_lines: 2 };
        let mut writer = Writer::open(folder.path(), limits).expect("a folder");
        #[track_caller]
        fn check(folder: &Path, max: usize, expected: impl Iterator<Item = u64>) {
            let found: Vec<String> = newest(folder, "web", max).into_iter().map(|it| it.text).collect();
            let expected: Vec<String> = expected.map(|n| format!("line {n}")).collect();
            assert_eq!(found, expected);
        }
        let mut say = |from: u64, to: u64| {
            for n in from..to {
                writer.write(n, "web", 0, Stream::Out, &format!("line {n}"));
            }
            writer.flush();
        };
        check(folder.path(), 10, 0..0);
        say(0, 3);
        check(folder.path(), 10, (0..3).rev());
        check(folder.path(), 2, (1..3).rev());
        // More than the first reading holds, then more than one file.
        say(3, 10_000);
        check(folder.path(), 9_000, (1_000..10_000).rev());
        say(10_000, 200_000);
        check(folder.path(), 100, (199_900..200_000).rev());
        assert!(numbers(&folder.path().join("web")).len() > 1);
        let many = newest(folder.path(), "web", usize::MAX);
        assert!(many.len() < 120_000, "only what lies near the ends: {}", many.len());
        assert_eq!(newest(folder.path(), "nobody", 10), []);
    }

    #[test]
    fn a_file_cut_short_loses_one_line() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(fill(folder.path()));
        let path = segment(&folder.path().join("web"), 1);
        std::fs::write(&path, "10 0 o one\n20 0 o tw").expect("a file");
        std::fs::write(segment(&folder.path().join("web"), 2), "garbage\n30 0 o three\n").expect("a file");
        let query = Query { services: vec!["web".into()], ..Query::default() };
        assert_eq!(texts(folder.path(), &query), ["web#0 one", "web#0 tw", "web#0 three"]);
    }

    #[test]
    fn what_cannot_be_kept_is_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = Writer::open(folder.path(), Limits::default()).expect("a folder");
        // A file stands where the service's folder should be: no line of it can be kept.
        std::fs::write(folder.path().join("web"), "").expect("a file");
        writer.write(1, "web", 0, Stream::Out, "a");
        writer.write(2, "web", 0, Stream::Out, "b");
        writer.write(3, "cart", 0, Stream::Out, "c");
        writer.flush();
        let lost = |news: &[News]| match news {
            [News::Lost { service, lines, why }] if !why.is_empty() => Some((service.clone(), *lines)),
            _ => None,
        };
        let news = writer.news();
        assert_eq!(lost(&news), Some(("web".to_owned(), 2)), "{news:?}");
        let more = |writer: &mut Writer, times: usize| {
            (0..times).for_each(|_| writer.write(4, "web", 0, Stream::Out, "more"));
            writer.flush();
        };
        more(&mut writer, 17);
        assert_eq!(writer.news(), [], "said once, and again when it is ten times as much");
        more(&mut writer, 1);
        assert_eq!(lost(&writer.news()), Some(("web".to_owned(), 20)));
        std::fs::remove_file(folder.path().join("web")).expect("it is there");
        writer.write(5, "web", 0, Stream::Out, "d");
        writer.flush();
        assert_eq!(writer.news(), [News::KeptAgain { service: "web".into(), lines: 20 }]);
        assert_eq!(texts(folder.path(), &Query::default()), ["cart#0 c", "web#0 d"]);
        assert_eq!(
            writer.last_lines("web", 0).last().map(String::as_str),
            Some("d"),
            "a crash can still show them"
        );
    }
}
