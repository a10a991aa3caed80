//! Events to tree, without recursion, so that no input can exhaust the stack.
//!
//! After a syntax error the scanner cannot go on. We can: the next line that begins in the column of a mapping that
//! is still open, and looks like a key, starts a fresh scan, whose entries join that mapping. Every mapping that was
//! open gets [`Map::hole`]. A file with three unrelated slips thus reports three, not one.

use super::tree::{Entry, Map, Node, Scalar, Value};
use super::words::explain;
use crate::diagnostic::Diagnostic;
use crate::span::Span;
use granit_parser::{Event, Parser, ScalarStyle, StructureStyle};
use std::collections::HashMap;

/// What a tree may cost. One value is used up by all files of one system together.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Scalars, lists and mappings left to spend, after aliases were expanded.
    pub nodes: usize,
    /// Bytes of text that aliases may still multiply.
    pub alias_bytes: usize,
    /// Levels of nesting.
    pub depth: usize,
    /// Syntax errors reported before a file is given up.
    pub syntax_errors: usize,
}

impl Default for Limits {
    /// A node costs about 100 bytes, so this bounds a tree to some 400 MB; a system of 10,000 services and 100,000
    /// calls needs a tenth of it.
    fn default() -> Self {
        Self { nodes: 4_000_000, alias_bytes: 64 << 20, depth: 64, syntax_errors: 20 }
    }
}

/// What to do with `!tags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tags {
    Refuse,
    /// Other people's formats use them (`!reset` in compose files): listed in [`Parsed::tags`].
    Collect,
}

/// The outcome: as much of a tree as could be read.
#[derive(Debug, Default)]
pub struct Parsed {
    /// `None` for a text without content.
    pub root: Option<Node>,
    pub tags: Vec<(Span, String)>,
    pub diagnostics: Vec<Diagnostic>,
    /// A limit was reached and the rest was not read: nothing may be concluded from what the tree lacks.
    pub gave_up: bool,
}

/// Mistakes kept for one text; a file of a hundred thousand double keys is one mistake of its author's.
const MISTAKES_MAX: usize = 10_000;

/// Parses one text. `file` becomes the file of every span.
pub fn parse(file: u32, text: &str, tags: Tags, limits: &mut Limits) -> Parsed {
    let mut builder = Builder::new(file, text, tags, limits);
    builder.run();
    builder.finish()
}

struct Builder<'t> {
    file: u32,
    text: &'t str,
    tag_policy: Tags,
    limits: &'t mut Limits,
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Anchored>,
    out: Parsed,
    /// Where the next node must come from, should the scanner fail: the end of the last event.
    read_to: usize,
    /// After a syntax error anchors may be lost, so an unknown alias says nothing.
    recovering: bool,
    syntax_errors_left: usize,
    /// The column in which the line of the last syntax error begins, if that is below the line of the last key.
    error_column: Option<usize>,
    /// A budget ran out, or a second document began: no more is read.
    stopped: bool,
}

struct Anchored {
    node: Node,
    cost: Cost,
}

/// What a subtree holds, so that an alias can be paid for before it is copied.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

struct Open {
    start: usize,
    /// Column in bytes, for block mappings: where its keys begin.
    column: Option<usize>,
    anchor: usize,
    cost: Cost,
    holds: Holds,
}

enum Holds {
    Seq(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(Box<str>, Span)>, merges: Vec<Node>, odd_key: bool, hole: bool },
}

impl<'t> Builder<'t> {
    fn new(file: u32, text: &'t str, tag_policy: Tags, limits: &'t mut Limits) -> Self {
        Self {
            file,
            text,
            tag_policy,
            syntax_errors_left: limits.syntax_errors,
            error_column: None,
            limits,
            open: Vec::new(),
            root: None,
            anchors: HashMap::new(),
            out: Parsed::default(),
            read_to: 0,
            recovering: false,
            stopped: false,
        }
    }

    fn span(&self, start: usize, end: usize) -> Span {
        let clamp = |at: usize| u32::try_from(at.min(self.text.len())).unwrap_or(u32::MAX);
        Span { file: self.file, start: clamp(start), end: clamp(end.max(start)) }
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        if self.out.diagnostics.len() < MISTAKES_MAX {
            self.out.diagnostics.push(diagnostic);
        }
    }

    /// Reports that a limit is reached; what follows is not read.
    fn give_up(&mut self, diagnostic: Diagnostic) {
        if !self.out.gave_up {
            self.report(diagnostic);
        }
        self.stopped = true;
        self.out.gave_up = true;
    }

    fn run(&mut self) {
        if let Some(at) = self.text.bytes().position(|b| b == 0) {
            let span = self.span(at, at + 1);
            self.report(
                Diagnostic::error("E0013", span, "a NUL byte: this is not a text file")
                    .label("a byte of value 0")
                    .help("was a binary file given by mistake, or a text saved as UTF-16?"),
            );
            return;
        }
        let (mut from, mut to) = (0, self.text.len());
        loop {
            self.scan(from, to);
            if self.stopped || self.syntax_errors_left == 0 {
                self.out.gave_up |= self.syntax_errors_left == 0;
                return;
            }
            // On from the last line that was understood, and at least one line further than before.
            let search_from = if self.read_to < to { self.read_to.max(from + 1) } else { to };
            match self.restart(search_from) {
                Some((next, until)) if next > from => (from, to) = (next, until),
                _ => return,
            }
        }
    }

    /// Reads events of `text[from..to]` until their end or the first syntax error.
    fn scan(&mut self, from: usize, to: usize) {
        let options = granit_parser::options! {
            emit_comments: false,
            emit_unresolved_aliases: true,
            disallow_directives: true,
            // Ours is checked as well, but the scanner must give up first on what never becomes an event.
            flow_nesting_limit: 200,
            block_nesting_limit: 200,
        };
        let mut joining = !self.open.is_empty();
        let mut documents = 0;
        // Anchor numbers restart with each parser.
        self.anchors.clear();
        for event in Parser::new_from_str_with_options(&self.text[from..to], options) {
            if self.stopped {
                return;
            }
            let (event, at) = match event {
                Ok(it) => it,
                Err(error) => {
                    let at = from + error.marker().byte_offset().unwrap_or(0);
                    self.syntax_error(error.kind(), at);
                    return;
                }
            };
            let start = from + at.start.byte_offset().unwrap_or(0);
            let end = (from + at.end.byte_offset().unwrap_or(0)).max(start);
            if !matches!(event, Event::DocumentStart(..) | Event::DocumentEnd | Event::StreamEnd) {
                self.read_to = end;
            }
            if let Some(tag) = event.tag().filter(|tag| !tag.is_yaml_core_schema()) {
                let span = at.tag_span().unwrap_or(at);
                let tag_start = from + span.start.byte_offset().unwrap_or(0);
                let tag_end = from + span.end.byte_offset().unwrap_or(0);
                let span = self.span(tag_start, tag_end);
                match self.tag_policy {
                    Tags::Collect => self.out.tags.push((span, tag.original())),
                    Tags::Refuse => self.report(
                        Diagnostic::error("E0014", span, "YAML tags are not used in this file")
                            .label("remove this tag")
                            .help("a text that begins with `!` needs quotes"),
                    ),
                }
            }
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        let span = self.span(start, end);
                        self.report(
                            Diagnostic::error("E0009", span, "a second document begins here")
                                .label("only the first is read")
                                .help("one file holds one document; put the rest into a file of its own and `include` it"),
                        );
                        self.stopped = true;
                    }
                }
                Event::Scalar(text, style, anchor, _) => {
                    self.scalar(&text, style, anchor, start, end);
                }
                Event::SequenceStart(_, anchor, _) => {
                    self.push_open(start, None, anchor, Holds::Seq(Vec::new()));
                }
                Event::MappingStart(style, anchor, _) => {
                    if std::mem::take(&mut joining) {
                        continue; // Its entries join the mapping that a syntax error interrupted.
                    }
                    let column = (style == StructureStyle::Block).then(|| self.column(start));
                    let holds = Holds::Map {
                        entries: Vec::new(),
                        key: None,
                        merges: Vec::new(),
                        odd_key: false,
                        hole: false,
                    };
                    self.push_open(start, column, anchor, holds);
                }
                // The end of a joined mapping leaves it open: more of it may follow, and `finish` closes it.
                Event::SequenceEnd | Event::MappingEnd if self.open.len() > self.joined_depth(from) => {
                    self.close(end);
                }
                Event::Alias(id) => self.alias(id, start, end),
                Event::UnresolvedAlias(name) => {
                    let span = self.span(start, end);
                    if !self.recovering {
                        let mut diagnostic = Diagnostic::error(
                            "E0010",
                            span,
                            format!("no anchor `&{name}` comes before this alias"),
                        )
                        .label("alias of nothing");
                        diagnostic =
                            diagnostic.help("a text that begins with `*` needs quotes: `\"* -> db\"`");
                        self.report(diagnostic);
                    }
                    self.place(Node::broken(span), Cost { nodes: 1, ..Cost::default() });
                }
                _ => {}
            }
        }
    }

    /// How many frames were open when the scan that began at `from` joined them.
    fn joined_depth(&self, from: usize) -> usize {
        self.open.iter().take_while(|it| it.start < from).count()
    }

    fn column(&self, at: usize) -> usize {
        at - self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    fn spend(&mut self, cost: Cost, start: usize, end: usize, aliased: bool) -> bool {
        let span = self.span(start, end);
        if self.limits.nodes < cost.nodes {
            let message = if aliased {
                "aliases make this file too large to read"
            } else {
                "this file has too many values"
            };
            let help = "at most 4,000,000 values in all, each alias counted as what it stands for";
            self.give_up(Diagnostic::error("E0005", span, message).label("goes past the limit").help(help));
            return false;
        }
        if aliased && self.limits.alias_bytes < cost.bytes {
            self.give_up(
                Diagnostic::error("E0005", span, "aliases make this file too large to read")
                    .label("goes past the limit")
                    .help("aliases may repeat 64 MiB of text in all"),
            );
            return false;
        }
        if self.open.len() + cost.depth > self.limits.depth {
            let levels = self.limits.depth;
            self.give_up(
                Diagnostic::error("E0004", span, "this is nested too deeply")
                    .label(format!("more than {levels} levels"))
                    .help(
                        "no isobar file needs more than a dozen levels; is this file generated by mistake?",
                    ),
            );
            return false;
        }
        self.limits.nodes -= cost.nodes;
        if aliased {
            self.limits.alias_bytes -= cost.bytes;
        }
        true
    }

    fn push_open(&mut self, start: usize, column: Option<usize>, anchor: usize, holds: Holds) {
        if self.spend(Cost { nodes: 1, bytes: 0, depth: 1 }, start, start + 1, false) {
            let cost = Cost { nodes: 1, bytes: 0, depth: 1 };
            self.open.push(Open { start, column, anchor, cost, holds });
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, start: usize, end: usize) {
        let cost = Cost { nodes: 1, bytes: text.len(), depth: 0 };
        if !self.spend(cost, start, end, false) {
            return;
        }
        // The scanner's end of a block text includes the line break; nobody wants that underlined.
        let end = start + self.text[start..end.min(self.text.len())].trim_end().len();
        let span = self.span(start, end);
        let plain = style == ScalarStyle::Plain;
        let node = Node { span, value: Value::Scalar(Scalar { text: text.into(), plain }) };
        self.remember(anchor, &node, cost, start, end);
        self.place(node, cost);
    }

    fn remember(&mut self, anchor: usize, node: &Node, cost: Cost, start: usize, end: usize) {
        // The copy is paid for like an alias: nested anchors would otherwise copy quadratically.
        if anchor != 0 && self.spend(Cost { depth: 0, ..cost }, start, end, true) {
            self.anchors.insert(anchor, Anchored { node: node.clone(), cost });
        }
    }

    fn alias(&mut self, id: usize, start: usize, end: usize) {
        let span = self.span(start, end);
        let Some(cost) = self.anchors.get(&id).map(|it| it.cost) else {
            self.report(
                Diagnostic::error("E0015", span, "this alias stands inside what it stands for")
                    .label("would never end"),
            );
            self.place(Node::broken(span), Cost { nodes: 1, ..Cost::default() });
            return;
        };
        if self.spend(cost, start, end, true) {
            let node = self.anchors[&id].node.clone();
            self.place(node, cost);
        }
    }

    /// Puts a finished node where it belongs: a list's next item, a mapping's next key or value, or the root.
    fn place(&mut self, node: Node, cost: Cost) {
        let file = self.file;
        let Some(open) = self.open.last_mut() else {
            self.root.get_or_insert(node);
            return;
        };
        open.cost.nodes += cost.nodes;
        open.cost.bytes += cost.bytes;
        open.cost.depth = open.cost.depth.max(cost.depth + 1);
        match &mut open.holds {
            Holds::Seq(items) => items.push(node),
            Holds::Map { entries, key, merges, odd_key, .. } => {
                if std::mem::take(odd_key) {
                    return; // The value of a key that was reported.
                }
                match key.take() {
                    Some((text, _)) if &*text == "<<" => merges.push(node),
                    Some((text, key_span)) => entries.push(Entry { key: text, key_span, value: node }),
                    None => match node.value {
                        Value::Scalar(scalar) => *key = Some((scalar.text, Span { file, ..node.span })),
                        _ => {
                            *odd_key = true;
                            if !node.is_broken() {
                                self.report(
                                    Diagnostic::error("E0012", node.span, "a key must be a text")
                                        .label("used as a key")
                                        .help("a key that begins with `{` or `[` needs quotes"),
                                );
                            }
                        }
                    },
                }
            }
        }
    }

    fn close(&mut self, end: usize) {
        let Some(open) = self.open.pop() else { return };
        let (start, anchor, mut cost) = (open.start, open.anchor, open.cost);
        let own_file = self.tag_policy == Tags::Refuse;
        let flow = own_file && matches!(self.text.as_bytes().get(start), Some(b'{' | b'['));
        let node = match open.holds {
            Holds::Seq(mut items) => {
                if flow {
                    self.cut_items(&mut items);
                }
                let last = items.last().map_or(end, |it| self.end_of(it));
                Node { span: self.span(start, last.max(self.flow_end(end))), value: Value::Seq(items) }
            }
            Holds::Map { mut entries, key, merges, hole, .. } => {
                if let Some((key, key_span)) = key {
                    entries.push(Entry { key, key_span, value: Node::broken(key_span) });
                }
                if flow {
                    self.cut_entries(&mut entries);
                }
                let entries = self.unique(entries);
                let (entries, added) = self.merge(entries, merges);
                cost.nodes += added;
                let last =
                    entries.last().map_or(end, |it| self.end_of(&it.value).max(it.key_span.end as usize));
                let span = self.span(start, last.max(self.flow_end(end)));
                Node { span, value: Value::Map(Map { entries, hole }) }
            }
        };
        self.remember(anchor, &node, cost, start, end);
        self.place(node, cost);
    }

    fn end_of(&self, node: &Node) -> usize {
        // An alias's node lies where its anchor is, perhaps after nothing of this collection.
        node.span.end as usize
    }

    /// A flow collection ends with its bracket; a block collection's end event lies somewhere in the white space
    /// after it and says nothing.
    fn flow_end(&self, end: usize) -> usize {
        match self.text.as_bytes().get(end.wrapping_sub(1)) {
            Some(b']' | b'}') => end,
            _ => 0,
        }
    }

    /// `{work: uniform(1ms, 5ms)}` is, to YAML, the key `work` and the key `5ms)`. Everybody falls into this once, so
    /// it is told as what it is, one mistake.
    fn cut_entries(&mut self, entries: &mut Vec<Entry>) {
        let mut at = 0;
        while at < entries.len() {
            if is_cut(&entries[at].value) {
                let closes = |it: &Entry| it.key.ends_with(')') && it.value.is_null();
                let pieces =
                    entries[at + 1..].iter().take(4).take_while(|it| it.value.is_null()).position(closes);
                if let Some(pieces) = pieces {
                    let last = at + 1 + pieces;
                    let span = Span { end: entries[last].key_span.end, ..entries[at].value.span };
                    self.report_cut(span);
                    entries[at].value = Node::broken(span);
                    entries.drain(at + 1..=last);
                }
            }
            at += 1;
        }
    }

    fn cut_items(&mut self, items: &mut Vec<Node>) {
        let mut at = 0;
        while at < items.len() {
            if is_cut(&items[at]) {
                let closes =
                    |it: &Node| it.as_str().is_some_and(|text| text.ends_with(')') && !text.contains('('));
                if let Some(pieces) = items[at + 1..].iter().take(4).position(closes) {
                    let last = at + 1 + pieces;
                    let span = Span { end: items[last].span.end, ..items[at].span };
                    self.report_cut(span);
                    items[at] = Node::broken(span);
                    items.drain(at + 1..=last);
                }
            }
            at += 1;
        }
    }

    fn report_cut(&mut self, span: Span) {
        let text = &self.text[span.start as usize..span.end as usize];
        let quoted = format!("\"{text}\"");
        self.report(
            Diagnostic::error("E0016", span, "inside brackets a `,` ends the value")
                .label("needs quotes")
                .help(format!("write {quoted}"))
                .replacement(quoted),
        );
    }

    /// Reports keys written twice and keeps the first of each.
    fn unique(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let twice = |first: &Entry, second: &Entry| {
            Diagnostic::error("E0008", second.key_span, format!("the key `{}` is written twice", second.key))
                .label("again here")
                .related(first.key_span, "first here")
                .help("a mapping holds each key once; remove one or merge the two")
        };
        let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
        if entries.len() <= 12 {
            for entry in entries {
                match kept.iter().find(|it| it.key == entry.key) {
                    Some(first) => {
                        let diagnostic = twice(first, &entry);
                        self.report(diagnostic);
                    }
                    None => kept.push(entry),
                }
            }
            return kept;
        }
        let mut seen: HashMap<Box<str>, usize> = HashMap::with_capacity(entries.len());
        for entry in entries {
            match seen.get(&entry.key) {
                Some(first) => {
                    let diagnostic = twice(&kept[*first], &entry);
                    self.report(diagnostic);
                }
                None => {
                    seen.insert(entry.key.clone(), kept.len());
                    kept.push(entry);
                }
            }
        }
        kept
    }

    /// `<<: *defaults`: keys that the mapping itself does not have, earlier merges first.
    fn merge(&mut self, mut entries: Vec<Entry>, merges: Vec<Node>) -> (Vec<Entry>, usize) {
        let mut added = 0;
        for merge in merges {
            let sources = match merge.value {
                Value::Map(map) => vec![map],
                Value::Seq(items) if items.iter().all(|it| it.as_map().is_some()) => {
                    let maps = items.into_iter().filter_map(|it| match it.value {
                        Value::Map(map) => Some(map),
                        _ => None,
                    });
                    maps.collect()
                }
                Value::Broken => Vec::new(),
                _ => {
                    self.report(
                        Diagnostic::error("E0011", merge.span, "`<<` merges a mapping or a list of mappings")
                            .label("neither")
                            .help("write `<<: *name`, where `&name` marks a mapping"),
                    );
                    Vec::new()
                }
            };
            for entry in sources.into_iter().flat_map(|map| map.entries) {
                if !entries.iter().any(|it| it.key == entry.key) {
                    added += 1;
                    entries.push(entry);
                }
            }
        }
        (entries, added)
    }

    fn syntax_error(&mut self, kind: &granit_parser::ErrorKind, at: usize) {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let rest = self.text[at..].lines().next().unwrap_or("");
        let words = explain(kind, rest);
        // Underline the word that stands there: one character is easy to overlook.
        let word = rest.find(|c: char| c.is_whitespace() || ",]}".contains(c)).unwrap_or(rest.len());
        let width = word.max(rest.chars().next().map_or(0, char::len_utf8));
        let span = self.span(at, at + width);
        let mut diagnostic = Diagnostic::error(words.code, span, words.message).label(words.label);
        diagnostic.help = words.help.map(str::to_owned);
        if let Some(open) = self.open.last()
            && matches!(self.text.as_bytes().get(open.start), Some(b'{' | b'['))
        {
            diagnostic.related.push((self.span(open.start, open.start + 1), "opened here".to_owned()));
        }
        if words.code == "E0004" {
            self.give_up(diagnostic);
        } else {
            self.report(diagnostic);
        }
        self.recovering = true;
        self.syntax_errors_left = self.syntax_errors_left.saturating_sub(1);
        let line = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let indent = self.text[line..].len() - self.text[line..].trim_start_matches(' ').len();
        self.error_column = (line > self.read_to).then_some(indent);
        for open in &mut self.open {
            if let Holds::Map { hole, .. } = &mut open.holds {
                *hole = true;
            }
        }
    }

    /// The next line at or after `from` (never the line `from` is on, unless it begins there) that looks like a key
    /// and begins in the column of an open block mapping; and where that mapping must end. Closes what lies deeper.
    fn restart(&mut self, from: usize) -> Option<(usize, usize)> {
        if !self.recovering || (self.open.is_empty() && self.root.is_some()) {
            return None;
        }
        let mut at = from.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        if at > 0 && !self.text[..at].ends_with('\n') {
            at += self.text[at..].find('\n')? + 1;
        }
        // A key whose value began with the error: lines like the error's belong to a mapping that is not open yet.
        let mut unopened = match self.open.last() {
            Some(Open { column: Some(column), holds: Holds::Map { key: Some(_), .. }, .. }) => {
                self.error_column.filter(|it| it > column)
            }
            _ => None,
        };
        loop {
            let line = self.text[at..].split('\n').next()?;
            let column = line.len() - line.trim_start_matches(' ').len();
            let wanted = if self.open.is_empty() {
                column == 0
            } else {
                self.open.iter().any(|it| it.column == Some(column))
            };
            if unopened == Some(column) && looks_like_key(&line[column..]) {
                let holds = Holds::Map {
                    entries: Vec::new(),
                    key: None,
                    merges: Vec::new(),
                    odd_key: false,
                    hole: true,
                };
                self.push_open(at, Some(column), 0, holds);
                return (!self.stopped).then(|| (at, self.block_end(at, column)));
            }
            if wanted && looks_like_key(&line[column..]) {
                while self.open.last().is_some_and(|it| it.column != Some(column)) {
                    self.close(at);
                }
                if let Some(Open { holds: Holds::Map { entries, key, odd_key, .. }, .. }) =
                    self.open.last_mut()
                {
                    *odd_key = false;
                    if let Some((key, key_span)) = key.take() {
                        entries.push(Entry { key, key_span, value: Node::broken(key_span) });
                    }
                }
                return Some((at, self.block_end(at, column)));
            }
            if unopened.is_some_and(|it| column < it) && !line.trim().is_empty() {
                unopened = None; // Whatever stands in that column further down belongs to another key.
            }
            at += line.len() + 1;
            if at >= self.text.len() {
                return None;
            }
        }
    }

    /// The first line after `at` that is indented less than `column` and is neither blank nor a comment.
    fn block_end(&self, at: usize, column: usize) -> usize {
        let mut end = at;
        for line in self.text[at..].split_inclusive('\n') {
            let content = line.trim_start_matches(' ');
            let blank = content.trim().is_empty() || content.starts_with('#');
            if !blank && line.len() - content.len() < column {
                return end;
            }
            end += line.len();
        }
        self.text.len()
    }

    fn finish(mut self) -> Parsed {
        let end = self.read_to;
        while !self.open.is_empty() {
            self.close(end);
        }
        self.out.root = self.root;
        self.out
    }
}

/// A plain text with a parenthesis that it does not close.
fn is_cut(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar(it) if it.plain && it.text.contains('(') && !it.text.contains(')'))
}

/// `name:`, `"quoted name":` or `web -> ads: {...}`.
fn looks_like_key(line: &str) -> bool {
    let line = line.trim_end();
    let begins = line.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '"' | '\'' | '_' | '<'));
    begins && (line.ends_with(':') || line.contains(": "))
}
