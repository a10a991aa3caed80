//! Files to texts: the root file, what it includes, and nothing outside its folder.
//!
//! Reading goes through a [`Loader`], so that tests and the fuzzer need no disk and a server can serve a model from
//! memory. An include is a path relative to the file that names it, with `*`, `?` and `**`; it may not leave the root
//! file's folder, not even through a symbolic link, because `isobar check` is run on other people's files too.
//!
//! **Bounded:** bytes, files, folder entries looked at, and depth of includes ([`Limits`](crate::text::Limits) bounds
//! the trees). Going beyond is a mistake with a place, like any other.

use crate::check;
use crate::diagnostic::{Diagnostic, Severity};
use crate::resolve::{self, File};
use crate::span::{Origins, Source, Sources, Span};
use crate::system::System;
use crate::text::{Limits, Node, Tags, parse};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Component, Path, PathBuf};

/// All texts of one system together.
const BYTES_MAX: usize = 64 << 20;
const FILES_MAX: usize = 1_000;
const INCLUDE_DEPTH_MAX: usize = 16;
/// Folder entries looked at while matching patterns: `**` in the wrong folder must not walk a whole disk.
const LISTED_MAX: usize = 100_000;

/// Where files come from.
pub trait Loader {
    /// At most `max + 1` bytes of a file: one more than allowed tells that it is too long.
    fn read(&self, path: &Path, max: usize) -> io::Result<Vec<u8>>;

    /// What stands in a folder, in any order.
    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>>;

    /// The one true path of a file: absolute, without `.`, `..` and symbolic links.
    fn true_path(&self, path: &Path) -> io::Result<PathBuf>;

    fn is_folder(&self, path: &Path) -> bool;
}

#[derive(Clone, Debug)]
pub struct Listed {
    pub name: String,
    pub folder: bool,
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Loader for Disk {
    fn read(&self, path: &Path, max: usize) -> io::Result<Vec<u8>> {
        use io::Read;
        let mut bytes = Vec::new();
        let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in std::fs::read_dir(folder)?.take(LISTED_MAX + 1) {
            let entry = entry?;
            // A name that is not UTF-8 cannot have been meant by a pattern, which is.
            if let Ok(name) = entry.file_name().into_string() {
                // Follows links, as opening would; a dangling one is neither file nor folder.
                let kind = std::fs::metadata(entry.path());
                listed.push(Listed { name, folder: kind.is_ok_and(|it| it.is_dir()) });
            }
        }
        Ok(listed)
    }

    fn true_path(&self, path: &Path) -> io::Result<PathBuf> {
        path.canonicalize()
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.is_dir()
    }
}

/// Files in memory, by path. Paths are taken as written; there are no links.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Memory {
    pub fn new(files: impl IntoIterator<Item = (&'static str, &'static str)>) -> Self {
        let files = files.into_iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec()));
        Self { files: files.collect() }
    }
}

impl Loader for Memory {
    fn read(&self, path: &Path, max: usize) -> io::Result<Vec<u8>> {
        let bytes = self.files.get(&plain(path)).ok_or(io::ErrorKind::NotFound)?;
        Ok(bytes[..bytes.len().min(max.saturating_add(1))].to_vec())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>> {
        let folder = plain(folder);
        let mut names: BTreeMap<String, bool> = BTreeMap::new();
        for path in self.files.keys() {
            let Ok(rest) = path.strip_prefix(&folder) else { continue };
            let mut parts = rest.components();
            if let Some(Component::Normal(name)) = parts.next()
                && let Some(name) = name.to_str()
            {
                let is_folder = parts.next().is_some();
                *names.entry(name.to_owned()).or_default() |= is_folder;
            }
        }
        Ok(names.into_iter().map(|(name, folder)| Listed { name, folder }).collect())
    }

    fn true_path(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(plain(path))
    }

    fn is_folder(&self, path: &Path) -> bool {
        let path = plain(path);
        self.files.keys().any(|file| file.starts_with(&path) && *file != path)
    }
}

/// Without `.`.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|it| !matches!(it, Component::CurDir)).collect()
}

/// What became of a file: the texts, the system, and everything that is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    pub sources: Sources,
    /// Complete only if [`Loaded::is_good`]; otherwise full of holes, and good for nothing but guessing.
    system: System,
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    pub fn is_good(&self) -> bool {
        self.diagnostics.iter().all(|it| it.severity != Severity::Error)
    }

    /// The system, if nothing is wrong with its file.
    pub fn system(&self) -> Option<&System> {
        self.is_good().then_some(&self.system)
    }

    pub fn into_system(self) -> Option<System> {
        self.is_good().then_some(self.system)
    }
}

/// Reads a file, or `isobar.yaml` in a folder, and all it includes.
pub fn load(loader: &dyn Loader, path: &Path) -> Loaded {
    let path = if loader.is_folder(path) { path.join("isobar.yaml") } else { path.to_owned() };
    let mut reader = Reader::new(loader, &path);
    match loader.read(&path, BYTES_MAX) {
        Ok(bytes) => reader.root(&path, bytes),
        Err(error) => {
            let file = reader.source(&path, String::new());
            let help = match error.kind() {
                io::ErrorKind::NotFound => {
                    "is the name right? Give a file, or a folder that holds `isobar.yaml`"
                }
                _ => "is it a readable file?",
            };
            reader.diagnostics.push(
                Diagnostic::error(
                    "E0001",
                    whole(file),
                    format!("cannot read {}: {}", path.display(), reason(&error)),
                )
                .help(help),
            );
        }
    }
    reader.finish(&path)
}

/// Reads a text that came from elsewhere (standard input, a test, a request) under the given name. Its includes are
/// looked for beside it.
pub fn load_text(loader: &dyn Loader, path: &Path, bytes: Vec<u8>) -> Loaded {
    let mut reader = Reader::new(loader, path);
    reader.root(path, bytes);
    reader.finish(path)
}

/// A text without includes: for tests and for whoever has just written one.
pub fn load_str(text: &str) -> Loaded {
    load_text(&Memory::default(), Path::new("isobar.yaml"), text.as_bytes().to_vec())
}

/// The operating system's words without its error number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or("").to_lowercase()
}

fn whole(file: u32) -> Span {
    Span { file, start: 0, end: 0 }
}

struct Reader<'l> {
    loader: &'l dyn Loader,
    /// The root file's folder, as written and truly.
    root_folder: PathBuf,
    true_root: Option<PathBuf>,
    sources: Sources,
    files: Vec<File>,
    diagnostics: Vec<Diagnostic>,
    limits: Limits,
    bytes_left: usize,
    listed_left: usize,
    /// A text went beyond a limit.
    gave_up: bool,
    /// An include was not read.
    incomplete: bool,
    /// True paths of all files read, and of those being read now (for loops).
    seen: HashSet<PathBuf>,
    within: Vec<PathBuf>,
}

impl<'l> Reader<'l> {
    fn new(loader: &'l dyn Loader, path: &Path) -> Self {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        let true_root = loader.true_path(shown).ok();
        Self {
            loader,
            root_folder: folder,
            true_root,
            sources: Sources::default(),
            files: Vec::new(),
            diagnostics: Vec::new(),
            limits: Limits::default(),
            bytes_left: BYTES_MAX,
            listed_left: LISTED_MAX,
            gave_up: false,
            incomplete: false,
            seen: HashSet::new(),
            within: Vec::new(),
        }
    }

    fn source(&mut self, path: &Path, text: String) -> u32 {
        self.sources.files.push(Source { path: path.to_owned(), text });
        (self.sources.files.len() - 1) as u32
    }

    fn root(&mut self, path: &Path, bytes: Vec<u8>) {
        let true_path = self.loader.true_path(path).unwrap_or_else(|_| path.to_owned());
        self.seen.insert(true_path.clone());
        self.within.push(true_path);
        self.read(path, bytes);
    }

    /// One file's bytes to a tree, then its includes, depth first, so that files stay in reading order.
    fn read(&mut self, path: &Path, bytes: Vec<u8>) {
        if bytes.len() > self.bytes_left {
            let file = self.source(path, String::new());
            let limit = BYTES_MAX >> 20;
            self.diagnostics.push(
                Diagnostic::error(
                    "E0003",
                    whole(file),
                    format!("more than {limit} MiB of text: {}", path.display()),
                )
                .label("too large")
                .help("a system of 10,000 services takes about 10 MiB; is this the right file?"),
            );
            return;
        }
        self.bytes_left -= bytes.len();
        let Some(file) = self.decode(path, bytes) else { return };
        let index = file as usize;
        let text = std::mem::take(&mut self.sources.files[index].text);
        let parsed = parse(file, &text, Tags::Refuse, &mut self.limits);
        let blank = parsed.root.is_none() && parsed.diagnostics.is_empty();
        self.sources.files[index].text = text;
        self.diagnostics.extend(parsed.diagnostics);
        if blank {
            self.diagnostics.push(
                Diagnostic::error("E0212", whole(file), format!("{} is empty", path.display()))
                    .label("nothing here")
                    .help("the smallest file is `isobar: 1` and a `services:` with one name"),
            );
        }
        self.gave_up |= parsed.gave_up;
        let Some(root) = parsed.root else { return };
        let at = self.files.len();
        self.files.push(File { root });
        // Taken out while its includes are read, because reading them adds to the same list.
        let include = self.files[at].root.as_map().and_then(|map| map.get("include")).cloned();
        if let Some(include) = include {
            self.includes(path, &include);
        }
    }

    fn decode(&mut self, path: &Path, bytes: Vec<u8>) -> Option<u32> {
        let utf16 = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
        match String::from_utf8(bytes) {
            Ok(mut text) => {
                if text.starts_with('\u{FEFF}') {
                    text.drain(..'\u{FEFF}'.len_utf8());
                }
                Some(self.source(path, text))
            }
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let bytes = error.into_bytes();
                let byte = bytes[at];
                let mut text = String::from_utf8_lossy(&bytes[..at]).into_owned();
                text.push('\u{FFFD}');
                let file = self.source(path, text);
                let start = u32::try_from(at).unwrap_or(u32::MAX);
                let span = Span { file, start, end: start.saturating_add(3) };
                self.diagnostics.push(
                    Diagnostic::error("E0002", span, format!("{} is not UTF-8 text", path.display()))
                        .label(format!("the byte 0x{byte:02X} is no part of any character"))
                        .help(if utf16 {
                            "it looks like UTF-16; save it as UTF-8"
                        } else {
                            "save it as UTF-8"
                        }),
                );
                None
            }
        }
    }

    fn includes(&mut self, from: &Path, include: &Node) {
        let items = match include.as_seq() {
            Some(items) => items,
            None if include.is_null() || include.is_broken() => return,
            None => std::slice::from_ref(include),
        };
        for item in items {
            let Some(pattern) = item.as_str().filter(|it| !it.is_empty()) else {
                if !item.is_broken() {
                    self.diagnostics.push(
                        Diagnostic::error("E0203", item.span, "`include` lists files: `[teams/*.yaml]`")
                            .label(format!("{} is no file's name", item.describe())),
                    );
                }
                continue;
            };
            if self.within.len() > INCLUDE_DEPTH_MAX {
                self.refuse(
                    item,
                    "E0104",
                    "files include each other too deeply".to_owned(),
                    "one level too many",
                );
                continue;
            }
            self.include(from, pattern, item);
        }
    }

    fn refuse(&mut self, item: &Node, code: &'static str, message: String, label: &str) {
        self.incomplete = true;
        self.diagnostics.push(Diagnostic::error(code, item.span, message).label(label));
    }

    fn include(&mut self, from: &Path, pattern: &str, item: &Node) {
        let outside =
            Path::new(pattern).components().any(|it| !matches!(it, Component::Normal(_) | Component::CurDir));
        if outside || pattern.contains('\0') {
            self.incomplete = true;
            self.diagnostics.push(
                Diagnostic::error("E0102", item.span, format!("`{pattern}` leads out of the file's folder"))
                    .label("outside")
                    .help("includes are relative paths within the root file's folder, without `..`"),
            );
            return;
        }
        let folder = from.parent().unwrap_or(Path::new("")).to_owned();
        let is_pattern = pattern.contains(['*', '?']);
        let found = if is_pattern {
            let segments: Vec<&str> = pattern.split('/').filter(|it| !it.is_empty() && *it != ".").collect();
            let mut found = Vec::new();
            self.matches(&folder, &segments, 0, &mut found);
            if self.listed_left == 0 {
                self.refuse(
                    item,
                    "E0104",
                    format!("`{pattern}` looks at too many files"),
                    "too wide a pattern",
                );
                return;
            }
            found.sort();
            found.dedup();
            found
        } else {
            vec![folder.join(pattern)]
        };
        if found.is_empty() {
            self.incomplete = true;
            self.diagnostics.push(
                Diagnostic::error("E0101", item.span, format!("no file matches `{pattern}`"))
                    .label("matches nothing")
                    .help(format!("looked in {}", shown(&folder))),
            );
        }
        for path in found {
            self.include_file(&path, item, is_pattern);
        }
    }

    fn include_file(&mut self, path: &Path, item: &Node, by_pattern: bool) {
        let true_path = match self.loader.true_path(path) {
            Ok(it) => it,
            Err(error) => return self.unreadable(path, &error, item),
        };
        if self.true_root.as_ref().is_none_or(|root| !true_path.starts_with(root)) {
            self.diagnostics.push(
                Diagnostic::error(
                    "E0102",
                    item.span,
                    format!("{} leads out of the root file's folder", path.display()),
                )
                .label("outside, through a link")
                .help(format!("only files under {} are included", shown(&self.root_folder))),
            );
            return;
        }
        if self.seen.contains(&true_path) {
            // `include: ["*.yaml"]` finds the file itself and what others included before; that is no mistake.
            if by_pattern {
                return;
            }
            let loops = self.within.contains(&true_path);
            let message = if loops {
                format!("{} includes itself in the end", path.display())
            } else {
                format!("{} is included already", path.display())
            };
            return self.refuse(
                item,
                "E0103",
                message,
                if loops { "closes a loop" } else { "included twice" },
            );
        }
        if self.sources.files.len() >= FILES_MAX {
            return self.refuse(item, "E0104", format!("more than {FILES_MAX} files"), "too many");
        }
        if self.loader.is_folder(&true_path) {
            return self.refuse(item, "E0101", format!("{} is a folder", path.display()), "not a file");
        }
        match self.loader.read(&true_path, self.bytes_left) {
            Ok(bytes) => {
                self.seen.insert(true_path.clone());
                self.within.push(true_path);
                self.read(path, bytes);
                self.within.pop();
            }
            Err(error) => self.unreadable(path, &error, item),
        }
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error, item: &Node) {
        self.incomplete = true;
        self.diagnostics.push(
            Diagnostic::error(
                "E0101",
                item.span,
                format!("cannot include {}: {}", path.display(), reason(error)),
            )
            .label("not readable"),
        );
    }

    /// Files under `folder` that fit the rest of a pattern. `*` and `?` stay within a name and pass over names that
    /// begin with a dot; `**` is any folders.
    fn matches(&mut self, folder: &Path, segments: &[&str], depth: usize, found: &mut Vec<PathBuf>) {
        let Some((segment, rest)) = segments.split_first() else { return };
        if depth > INCLUDE_DEPTH_MAX || self.listed_left == 0 || found.len() > FILES_MAX {
            return;
        }
        if !segment.contains(['*', '?']) {
            let path = folder.join(segment);
            if !rest.is_empty() {
                self.matches(&path, rest, depth + 1, found);
            } else if self.loader.true_path(&path).is_ok() {
                found.push(path);
            }
            return;
        }
        if *segment == "**" {
            self.matches(folder, rest, depth + 1, found);
        }
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let Ok(mut listed) = self.loader.list(here) else { return };
        self.listed_left = self.listed_left.saturating_sub(listed.len());
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in listed {
            if entry.name.starts_with('.') {
                continue;
            }
            let path = folder.join(&entry.name);
            if *segment == "**" {
                if entry.folder {
                    self.matches(&path, segments, depth + 1, found);
                }
            } else if fits(segment.as_bytes(), entry.name.as_bytes()) {
                if rest.is_empty() && !entry.folder {
                    found.push(path);
                } else if !rest.is_empty() && entry.folder {
                    self.matches(&path, rest, depth + 1, found);
                }
            }
        }
    }

    /// A file of data, beside the file that names it and under the same rule of staying inside.
    fn data(&mut self, file: u32, name: &str) -> Result<String, String> {
        let inside =
            Path::new(name).components().all(|it| matches!(it, Component::Normal(_) | Component::CurDir));
        if !inside || name.contains('\0') {
            return Err(format!("`{name}` leads out of the file's folder"));
        }
        let from = self.sources.files.get(file as usize).map(|it| it.path.clone()).unwrap_or_default();
        let path = from.parent().unwrap_or(Path::new("")).join(name);
        let cannot = |error: &io::Error| format!("cannot read {}: {}", path.display(), reason(error));
        let true_path = self.loader.true_path(&path).map_err(|error| cannot(&error))?;
        if self.true_root.as_ref().is_none_or(|root| !true_path.starts_with(root)) {
            return Err(format!("{} leads out of the root file's folder", path.display()));
        }
        let bytes = self.loader.read(&true_path, self.bytes_left).map_err(|error| cannot(&error))?;
        if bytes.len() > self.bytes_left {
            return Err(format!("{} is too large", path.display()));
        }
        self.bytes_left -= bytes.len();
        String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))
    }

    fn finish(mut self, path: &Path) -> Loaded {
        let mut system = System::default();
        // Half a tree would only give half-true mistakes.
        if !self.files.is_empty() && !self.gave_up {
            let name = self.default_name(path);
            let files = std::mem::take(&mut self.files);
            let incomplete = self.incomplete || files.len() < self.sources.files.len();
            let mut read_data = |file: u32, name: &str| self.data(file, name);
            let (resolved, diagnostics) = resolve::resolve(&files, &name, incomplete, &mut read_data);
            system = resolved;
            self.diagnostics.extend(diagnostics);
            self.diagnostics.extend(check::check(&system));
        }
        // An anchor's mistake shows at every alias; it is one mistake. And the reader goes through the file once,
        // from top to bottom, so the list does too.
        let mut seen = HashSet::new();
        self.diagnostics.retain(|it| seen.insert((it.code, it.span, it.message.clone())));
        self.diagnostics.sort_by_key(|it| (it.span.file, it.span.start, it.severity));
        system.origins = Origins::new(&self.sources);
        Loaded { sources: self.sources, system, diagnostics: self.diagnostics }
    }

    /// The file's own name, or its folder's if it is called `isobar.yaml`.
    fn default_name(&self, path: &Path) -> String {
        let stem = path.file_stem().and_then(|it| it.to_str()).unwrap_or("");
        let folder = self.true_root.as_ref().and_then(|it| it.file_name()).and_then(|it| it.to_str());
        let name = if matches!(stem, "isobar" | "" | "-") { folder.unwrap_or("") } else { stem };
        if resolve::is_name(name) { name.to_owned() } else { "system".to_owned() }
    }
}

fn shown(folder: &Path) -> String {
    if folder.as_os_str().is_empty() { "this folder".to_owned() } else { folder.display().to_string() }
}

/// Whether a name fits a pattern of `*` and `?`, in time proportional to their product at worst.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, n));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == name[n] || pattern[p] == b'?') {
            p += 1;
            n += 1;
        } else if let Some((star_p, star_n)) = star {
            (p, n) = (star_p + 1, star_n + 1);
            star = Some((star_p, star_n + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|it| *it == b'*')
}
