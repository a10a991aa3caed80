//! What the verbs that answer about a running system share: the filter and its mistakes, asking, watching, and the line
//! that says how old an answer is and where the page shows the same.

use crate::client::{self, Which};
use crate::columns::{self, Column, Shade, paint};
use crate::output::{self, Terminal};
use control::views::About;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use telemetry::filter::{Filter, FilterError};
use telemetry::views::duration;
use units::Nanos;
use up::state::Found;

/// Which rows, and how they are told. The same in every verb that has them.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Question {
    /// Terms that all must hold, such as service:cart or "p99>200ms"; --help lists them
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Vec<String>,

    #[command(flatten)]
    pub(crate) which: Which,

    /// JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// Shown by `--help` of every verb with a filter.
pub(crate) const FILTER_HELP: &str = "\
A filter is terms separated by spaces; all must hold. Quote it: a shell reads > and * itself.
  service:cart  service:web->cart  from:web  to:cart  team:storefront  zone:b  version:v1.3  cart* a,b
  rate>10/s  errors>1%  retries>5%  p50>20ms  p99>0.2s  status:5xx  status>=500  duration>200ms
  has:error  has:retry  has:breaker  has:timeout  has:fault   a bare word: anywhere in a name
  zone!:b is `not in zone b`";

/// A filter with its mistake underlined.
#[derive(Debug)]
struct WrongFilter {
    text: String,
    error: FilterError,
}

impl std::fmt::Display for WrongFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let before = self.text.get(..self.error.at).unwrap_or("").chars().count();
        let under = self.text.get(self.error.at..).unwrap_or("").chars().take(self.error.len).count().max(1);
        writeln!(f, "{}", self.error.message)?;
        writeln!(f, "  {}", self.text)?;
        write!(f, "  {}{}", " ".repeat(before), "^".repeat(under))?;
        match &self.error.hint {
            Some(hint) => write!(f, " {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for WrongFilter {}

/// One line from the words of a command line, checked here, so that a mistake needs no running system to be told.
pub(crate) fn filter_text(words: &[String]) -> anyhow::Result<String> {
    let text = words.iter().map(|it| requote(it)).collect::<Vec<_>>().join(" ");
    match Filter::parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(WrongFilter { text, error }.into()),
    }
}

/// A shell takes the quotes of `operation:"GET /cart"` away, and an operation always has a space.
fn requote(word: &str) -> String {
    match word.split_once(':') {
        Some((key, value))
            if key.trim_start_matches('-').eq_ignore_ascii_case("operation")
                && value.contains(' ')
                && !value.contains(['"', ':', '<', '>', '=']) =>
        {
            format!("{key}:\"{value}\"")
        }
        _ => word.to_owned(),
    }
}

/// `?a=b&c=d` of what is there.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        text.push_str(&percent_encode(value));
    }
    text
}

pub(crate) fn percent_encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// An answer, and the most that its way here may have added to its age.
pub(crate) fn fetch<T: serde::de::DeserializeOwned>(
    found: &Found,
    path: &str,
) -> anyhow::Result<(T, Duration)> {
    use anyhow::Context;
    // The clock is read to say how old an answer is, which is what a person asks of it.
    #[allow(clippy::disallowed_methods)]
    let asked = Instant::now();
    let body = client::ask(found, "GET", path, None)?;
    let answer = serde_json::from_str(&body)
        .with_context(|| format!("the answer to {path} is not what this isobar understands"))?;
    Ok((answer, asked.elapsed()))
}

/// The same view on the page.
pub(crate) fn page(found: &Found, view: &str, filter: &str) -> String {
    page_of(found, view, &[("q", filter)])
}

/// The same with more that the page's address can say (the page's `where.svelte.ts` reads it).
pub(crate) fn page_of(found: &Found, view: &str, says: &[(&str, &str)]) -> String {
    format!("{}/{view}{}", found.api, query(says))
}

/// `30s window, 0.12s old, percentiles within 1.1%`.
pub(crate) fn age_line(about: &About, way: Duration) -> String {
    let mut line = if about.covered_ms < about.window_ms {
        format!("last {} (of {} asked)", rounded(about.covered_ms), rounded(about.window_ms))
    } else {
        format!("last {}", rounded(about.window_ms))
    };
    line += &format!(", {}", age_words(about.age_ms, way));
    if about.percentile_error > 0.0 {
        line += &format!(", percentiles within {:.1}%", about.percentile_error * 100.0);
    }
    line
}

/// `125ms old`: when it was written, and the way here.
pub(crate) fn age_words(age_ms: f64, way: Duration) -> String {
    let ms = age_ms.max(0.0) + way.as_secs_f64() * 1e3;
    format!("{} old", duration(Nanos((ms * 1e6) as u64)))
}

fn rounded(ms: u64) -> String {
    if ms < 10_000 { format!("{:.1}s", ms as f64 / 1e3) } else { format!("{}s", ms / 1_000) }
}

/// How wide a table may be: the terminal's width, or `$COLUMNS`; without end when it goes elsewhere.
pub(crate) fn width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return std::env::var("COLUMNS").ok().and_then(|it| it.parse().ok()).filter(|it| *it >= 20);
    }
    ratatui::crossterm::terminal::size().ok().map(|(width, _)| usize::from(width)).filter(|it| *it > 0)
}

fn height() -> usize {
    ratatui::crossterm::terminal::size().map_or(24, |(_, height)| usize::from(height))
}

/// One answer as it is shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// Data: for stdout.
    pub(crate) lines: Vec<String>,
    /// Words about it: age, page, what is missing.
    pub(crate) words: Vec<String>,
    /// The same for programs, on one line.
    pub(crate) json: String,
}

impl Shown {
    /// A table, with a sentence instead of it when the filter took everything away.
    pub(crate) fn table<R>(columns: &[Column<R>], rows: &[R], in_all: usize, terminal: Terminal) -> Self {
        let (lines, hidden) = columns::table(columns, rows, width(), terminal.color_stdout);
        let mut shown = Self { lines, ..Self::default() };
        if rows.is_empty() && in_all > 0 {
            shown.words.push(format!("nothing matches; {in_all} without a filter"));
        }
        if !hidden.is_empty() {
            let hidden = hidden.join(", ").to_lowercase();
            shown.words.push(format!("no room for {hidden}; a wider terminal or --json has them"));
        }
        shown
    }
}

/// Shows an answer once, or every second until ctrl-c.
pub(crate) fn show(
    json: bool,
    watch: bool,
    terminal: Terminal,
    mut ask: impl FnMut() -> anyhow::Result<Shown>,
) -> anyhow::Result<()> {
    let on_screen = watch && !json && std::io::stdout().is_terminal();
    let mut first = true;
    loop {
        let shown = ask()?;
        let dim = |words: &[String], color: bool| {
            words.iter().map(|it| paint(it, Shade::Dim, color) + "\n").collect::<String>()
        };
        if json {
            output::print(&format!("{}\n", shown.json))?;
        } else if on_screen {
            output::print(&screen(&shown, height(), first, terminal.color_stdout))?;
        } else {
            output::print(&shown.lines.iter().map(|it| format!("{it}\n")).collect::<String>())?;
            output::words(&dim(&shown.words, terminal.color_stderr));
        }
        if !watch {
            return Ok(());
        }
        first = false;
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// One picture over the last one: no flicker, and what is left on the screen at ctrl-c can be copied.
fn screen(shown: &Shown, height: usize, first: bool, color: bool) -> String {
    let mut text = String::from(if first { "\x1b[2J\x1b[H" } else { "\x1b[H" });
    // The last line stays free: a newline there would scroll.
    let room = height.saturating_sub(shown.words.len() + 2).max(1);
    for line in shown.lines.iter().take(room) {
        text.push_str(&format!("{line}\x1b[K\n"));
    }
    if let Some(more) = shown.lines.len().checked_sub(room).filter(|it| *it > 0) {
        text.push_str(&format!("... and {more} more: a narrower filter, --sort, or isobar top\x1b[K\n"));
    }
    for line in &shown.words {
        text.push_str(&format!("{}\x1b[K\n", paint(line, Shade::Dim, color)));
    }
    text.push_str("\x1b[J");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(words: &[&str], expected: Result<&str, &str>) {
        let words: Vec<String> = words.iter().map(|it| (*it).to_owned()).collect();
        match (filter_text(&words), expected) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected),
            (Err(error), Err(expected)) => assert_eq!(error.to_string(), expected),
            (got, _) => panic!("{words:?}: {got:?}"),
        }
    }

    #[test]
    fn words_become_one_filter_and_mistakes_are_underlined() {
        check(&[], Ok(""));
        check(&["service:cart", "p99>200ms"], Ok("service:cart p99>200ms"));
        check(&["service:cart status>=500"], Ok("service:cart status>=500"));
        check(&["operation:GET /cart"], Ok("operation:\"GET /cart\""));
        check(&["operation:\"GET /cart\""], Ok("operation:\"GET /cart\""));
        check(
            &["zone:b", "sevice:cart"],
            Err(
                "`sevice` is nothing to filter by\n  zone:b sevice:cart\n         ^^^^^^^^^^^ did you mean `service`?",
            ),
        );
        check(
            &["p99>200"],
            Err(
                "`p99` wants a duration: `200` is a number without its unit; a duration needs one of ns, us, ms, s, min, h, d, for example `250ms`\n  p99>200\n  ^^^^^^^",
            ),
        );
    }

    #[test]
    fn addresses_carry_any_filter() {
        assert_eq!(
            query(&[("filter", "service:web->cart p99>1s"), ("by", "")]),
            "?filter=service%3Aweb-%3Ecart%20p99%3E1s"
        );
        assert_eq!(query(&[("by", "")]), "");
        assert_eq!(telemetry::http::percent_decode(&percent_encode("ö & +?=#/")), "ö & +?=#/");
    }

    #[test]
    fn an_answer_says_its_age_and_what_is_missing() {
        let about = About {
            window_ms: 30_000,
            covered_ms: 30_000,
            age_ms: 120.0,
            percentile_error: 0.0109,
            ..About::default()
        };
        let way = Duration::from_millis(5);
        assert_eq!(age_line(&about, way), "last 30s, 125ms old, percentiles within 1.1%");
        let about = About { covered_ms: 3_250, ..about };
        assert_eq!(age_line(&about, way), "last 3.2s (of 30s asked), 125ms old, percentiles within 1.1%");
    }

    #[test]
    fn a_screen_never_scrolls() {
        let shown = Shown {
            lines: (0..100).map(|it| it.to_string()).collect(),
            words: vec!["old".into()],
            json: String::new(),
        };
        let text = screen(&shown, 10, false, false);
        assert_eq!(text.matches('\n').count(), 9, "{text}");
        assert!(text.contains("... and 93 more") && text.starts_with("\x1b[H") && text.ends_with("\x1b[J"));
    }
}
