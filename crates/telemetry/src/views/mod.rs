//! Data as lines of text, for the terminal: pure functions, so that a test reads what a person will.
//!
//! Colour is a flag and not a guess: the caller knows whether it writes to a terminal and what `NO_COLOR` says. Every
//! name is made safe first: telemetry is hostile text, and a terminal obeys escape codes.

mod tables;
mod tap;
mod waterfall;

pub use tables::{EdgeRow, StatRow, edges, filter_rows, rollup, stat};
pub use tap::{TapEvent, tap_line};
pub use waterfall::waterfall;

use std::fmt::Write;
use units::Nanos;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Red,
    Yellow,
    Green,
    Dim,
    Bold,
}

pub(crate) fn paint(text: &str, colour: Option<Colour>, on: bool) -> String {
    let code = match colour {
        Some(colour) if on => match colour {
            Colour::Red => "31",
            Colour::Yellow => "33",
            Colour::Green => "32",
            Colour::Dim => "2",
            Colour::Bold => "1",
        },
        _ => return text.to_owned(),
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Control characters become `·`; long names are cut with `…`.
pub fn safe(text: &str, max: usize) -> String {
    let clean = |letter: char| if letter.is_control() || is_invisible(letter) { '·' } else { letter };
    let mut out: String = text.chars().take(max).map(clean).collect();
    if text.chars().nth(max).is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// Marks that reorder or hide what follows.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Three digits and a unit: `1.23ms`, `45.6ms`, `789ms`, `12.0s`.
pub fn duration(time: Nanos) -> String {
    let (value, unit) = match time.0 {
        0 => return "0".into(),
        1..1_000 => return format!("{}ns", time.0),
        1_000..999_500 => (time.0 as f64 / 1e3, "us"),
        999_500..999_500_000 => (time.0 as f64 / 1e6, "ms"),
        999_500_000..600_000_000_000 => (time.0 as f64 / 1e9, "s"),
        _ => return format!("{}min", time.0 / 60_000_000_000),
    };
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$}{unit}")
}

/// Three digits: `0.50`, `12.3`, `456`, `7.8k`, `1.2M`.
pub fn count(value: f64) -> String {
    match value {
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value if value < 999.5 => format!("{value:.0}"),
        value if value < 999_500.0 => format!("{:.1}k", value / 1e3),
        value => format!("{:.1}M", value / 1e6),
    }
}

/// A share whose digits matter at its ends: 99.95 % is not 100 %.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if share == 1.0 || share == 0.0 {
        return format!("{percent:.0}%");
    }
    let distance = percent.min(100.0 - percent);
    if distance < 0.1 { format!("{percent:.3}%") } else { format!("{percent:.2}%") }
}

/// One cell: its text and whether it is painted.
pub(crate) type CellText = (String, Option<Colour>);

/// Columns as wide as their widest cell; the first `left` ones lean left, the others right.
pub(crate) fn table(head: &[&str], rows: &[Vec<CellText>], left: usize, colour: bool) -> Vec<String> {
    let mut widths: Vec<usize> = head.iter().map(|title| title.len()).collect();
    for row in rows {
        for (width, (text, _)) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = CellText>| {
        let mut line = String::new();
        for (at, (text, shade)) in cells.enumerate() {
            let width = widths.get(at).copied().unwrap_or(0);
            let room = " ".repeat(width.saturating_sub(text.chars().count()));
            let gap = if at > 0 { "  " } else { "" };
            let painted = paint(&text, shade, colour);
            let _ = if at < left {
                write!(line, "{gap}{painted}{room}")
            } else {
                write!(line, "{gap}{room}{painted}")
            };
        }
        line.trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().map(|title| ((*title).to_owned(), Some(Colour::Bold))))];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().cloned())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (nanos, text) in [
            (0, "0"),
            (999, "999ns"),
            (1_234, "1.23us"),
            (999_499, "999us"),
            (999_500, "1.00ms"),
            (45_600_000, "45.6ms"),
            (9_999_000, "10.0ms"),
            (789_000_000, "789ms"),
            (12_000_000_000, "12.0s"),
            (660_000_000_000, "11min"),
        ] {
            assert_eq!(duration(Nanos(nanos)), text);
        }
        assert_eq!(
            [0.5, 12.34, 456.0, 7_800.0, 1_200_000.0].map(count),
            ["0.50", "12.3", "456", "7.8k", "1.2M"]
        );
        assert_eq!(
            [1.0, 0.0, 0.9995, 0.9, 0.99999].map(percent),
            ["100%", "0%", "99.950%", "90.00%", "99.999%"]
        );
    }

    #[test]
    fn hostile_names_cannot_talk_to_the_terminal() {
        assert_eq!(safe("a\x1b[31mb\n\u{202e}c", 40), "a·[31mb··c");
        assert_eq!(safe("abcdefgh", 5), "abcd…");
        assert_eq!(safe("abcde", 5), "abcde");
    }
}
