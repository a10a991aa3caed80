//! Rows of one kind as columns that fit: the same table for a verb's answer, for `--watch` and for `isobar top`.
//!
//! A column says how important it is. What does not fit is left out, the least important first, and the reader is told
//! which; a name is cut before the last of them goes. Colour repeats what the text says already.

use std::cmp::Ordering;
use telemetry::views::safe;

/// How a cell looks. The terminal and the full screen each have their own colours for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shade {
    Plain,
    Dim,
    Good,
    Warn,
    Bad,
    Head,
}

impl Shade {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "1;31",
            Self::Head => "1",
        }
    }
}

pub(crate) fn paint(text: &str, shade: Shade, color: bool) -> String {
    match shade.code() {
        code if color && !code.is_empty() && !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
        _ => text.to_owned(),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) shade: Shade,
}

impl Cell {
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), shade: Shade::Plain }
    }

    pub(crate) fn shaded(text: impl Into<String>, shade: Shade) -> Self {
        Self { text: text.into(), shade }
    }

    /// Not known, or there is no such thing.
    pub(crate) fn none() -> Self {
        Self::shaded("-", Shade::Dim)
    }

    /// Names come from outside: a terminal obeys what they say.
    pub(crate) fn name(text: &str) -> Self {
        if text.is_empty() { Self::none() } else { Self::plain(safe(text, 60)) }
    }
}

/// What a column is sorted by. What is not known comes last, either way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Key {
    Text(String),
    Number(Option<f64>),
}

/// One column of rows `R`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column<R> {
    pub(crate) title: &'static str,
    pub(crate) right: bool,
    /// 0 always stays; of the others the highest goes first.
    pub(crate) rank: u8,
    pub(crate) cell: fn(&R) -> Cell,
    pub(crate) key: fn(&R) -> Key,
}

/// Sorted by a column; what the reader looks for (the most, the worst) comes first unless `reverse`.
pub(crate) fn sort<R>(rows: &mut [R], column: &Column<R>, reverse: bool) {
    rows.sort_by(|a, b| match ((column.key)(a), (column.key)(b)) {
        (Key::Number(None), Key::Number(None)) => Ordering::Equal,
        (Key::Number(None), _) => Ordering::Greater,
        (_, Key::Number(None)) => Ordering::Less,
        (Key::Number(Some(a)), Key::Number(Some(b))) => {
            if reverse {
                a.total_cmp(&b)
            } else {
                b.total_cmp(&a)
            }
        }
        (Key::Text(a), Key::Text(b)) => {
            if reverse {
                b.cmp(&a)
            } else {
                a.cmp(&b)
            }
        }
        (Key::Text(_), Key::Number(_)) => Ordering::Less,
        (Key::Number(_), Key::Text(_)) => Ordering::Greater,
    });
}

/// The column of a name as people type it.
pub(crate) fn find<R>(columns: &[Column<R>], name: &str) -> Result<usize, String> {
    let name = name.trim().to_uppercase();
    let titles = || columns.iter().map(|it| it.title.to_lowercase()).collect::<Vec<_>>().join(", ");
    let found = columns.iter().position(|it| it.title == name);
    found.ok_or_else(|| format!("there is no column `{}`; there are {}", name.to_lowercase(), titles()))
}

/// Columns that fit, with their widths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// By column; `None` is left out.
    pub(crate) widths: Vec<Option<usize>>,
    pub(crate) hidden: Vec<&'static str>,
}

pub(crate) const GAP: usize = 2;
/// A name is not cut below this.
const NAME_MIN: usize = 8;

pub(crate) fn wide(text: &str) -> usize {
    text.chars().count()
}

/// Which columns fit into `width` (all of them into `None`). A column in which no row has anything is left out, too.
pub(crate) fn fit<R>(columns: &[Column<R>], rows: &[Vec<Cell>], width: Option<usize>) -> Fit {
    let widest =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|it| wide(&it.text)).max().unwrap_or(0);
    let is_empty =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).all(|it| it.text == "-" || it.text.is_empty());
    let mut widths: Vec<Option<usize>> = columns
        .iter()
        .enumerate()
        .map(|(at, it)| (it.rank == 0 || !is_empty(at)).then(|| widest(at).max(wide(it.title))))
        .collect();
    let mut hidden = Vec::new();
    let Some(width) = width else { return Fit { widths, hidden } };
    let total = |widths: &[Option<usize>]| {
        let shown = widths.iter().flatten();
        shown.clone().sum::<usize>() + GAP * shown.count().saturating_sub(1)
    };
    while total(&widths) > width {
        let shown = |it: &(usize, &Column<R>)| it.1.rank > 0 && widths[it.0].is_some();
        let Some((at, column)) = columns.iter().enumerate().filter(shown).max_by_key(|it| it.1.rank) else {
            break;
        };
        hidden.push(column.title);
        widths[at] = None;
    }
    // Names give what is still missing, the widest first.
    while total(&widths) > width {
        let names =
            widths.iter_mut().zip(columns).filter(|(_, it)| !it.right).filter_map(|(it, _)| it.as_mut());
        let Some(most) = names.max().filter(|it| **it > NAME_MIN) else { break };
        *most -= 1;
    }
    Fit { widths, hidden }
}

/// One line's pieces, padded to their columns; the gaps stand before each piece but the first.
pub(crate) fn pieces<R>(columns: &[Column<R>], fit: &Fit, cells: &[Cell]) -> Vec<(String, Shade)> {
    let shown = columns
        .iter()
        .zip(&fit.widths)
        .zip(cells)
        .filter_map(|((column, width), cell)| Some((column, (*width)?, cell)));
    shown
        .enumerate()
        .map(|(n, (column, width, cell))| {
            let text = safe(&cell.text, width);
            let room = " ".repeat(width.saturating_sub(wide(&text)));
            let gap = " ".repeat(if n == 0 { 0 } else { GAP });
            let text = if column.right { format!("{gap}{room}{text}") } else { format!("{gap}{text}{room}") };
            (text, cell.shade)
        })
        .collect()
}

pub(crate) fn head<R>(columns: &[Column<R>]) -> Vec<Cell> {
    columns.iter().map(|it| Cell::shaded(it.title, Shade::Head)).collect()
}

pub(crate) fn cells<R>(columns: &[Column<R>], rows: &[R]) -> Vec<Vec<Cell>> {
    rows.iter().map(|row| columns.iter().map(|it| (it.cell)(row)).collect()).collect()
}

/// The whole table as lines, and the columns that were left out.
pub(crate) fn table<R>(
    columns: &[Column<R>],
    rows: &[R],
    width: Option<usize>,
    color: bool,
) -> (Vec<String>, Vec<&'static str>) {
    let cells = cells(columns, rows);
    let fit = fit(columns, &cells, width);
    let line = |cells: &[Cell]| {
        let pieces = pieces(columns, &fit, cells);
        let last = pieces.len().saturating_sub(1);
        let text: String = pieces
            .iter()
            .enumerate()
            // Nothing at the ends of lines: people copy them.
            .map(|(at, (text, shade))| paint(if at == last { text.trim_end() } else { text }, *shade, color))
            .collect();
        if color { text } else { text.trim_end().to_owned() }
    };
    let lines = std::iter::once(line(&head(columns))).chain(cells.iter().map(|it| line(it))).collect();
    (lines, fit.hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (&'static str, Option<f64>, &'static str);

    const COLUMNS: [Column<Row>; 3] = [
        Column {
            title: "NAME",
            right: false,
            rank: 0,
            cell: |it| Cell::name(it.0),
            key: |it| Key::Text(it.0.to_owned()),
        },
        Column {
            title: "RATE",
            right: true,
            rank: 0,
            cell: |it| it.1.map_or(Cell::none(), |it| Cell::plain(format!("{it}"))),
            key: |it| Key::Number(it.1),
        },
        Column {
            title: "NOTE",
            right: false,
            rank: 3,
            cell: |it| Cell::name(it.2),
            key: |it| Key::Text(it.2.to_owned()),
        },
    ];

    const ROWS: [Row; 3] =
        [("web", Some(2.0), "a longer note"), ("catalogue", None, ""), ("ads", Some(12.5), "b")];

    #[track_caller]
    fn check(width: Option<usize>, expected: &[&str]) {
        let (lines, hidden) = table(&COLUMNS, &ROWS, width, false);
        assert_eq!(lines, expected, "{width:?}");
        assert_eq!(hidden.is_empty(), lines[0].contains("NOTE"));
        assert!(lines.iter().all(|it| width.is_none_or(|width| wide(it) <= width)));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_names_are_cut() {
        check(
            None,
            &[
                "NAME       RATE  NOTE",
                "web           2  a longer note",
                "catalogue     -  -",
                "ads        12.5  b",
            ],
        );
        check(
            Some(30),
            &[
                "NAME       RATE  NOTE",
                "web           2  a longer note",
                "catalogue     -  -",
                "ads        12.5  b",
            ],
        );
        check(Some(20), &["NAME       RATE", "web           2", "catalogue     -", "ads        12.5"]);
        check(Some(14), &["NAME      RATE", "web          2", "catalog…     -", "ads       12.5"]);
        let (lines, _) = table(&COLUMNS, &ROWS, Some(3), false);
        assert_eq!(lines[0], "NAME      RATE", "nothing is cut to nothing");
    }

    #[test]
    fn a_column_of_nothing_takes_no_room() {
        let rows: [Row; 1] = [("web", Some(1.0), "")];
        assert_eq!(table(&COLUMNS, &rows, None, false).0, ["NAME  RATE", "web      1"]);
        assert_eq!(table(&COLUMNS, &[], None, false).0, ["NAME  RATE"]);
    }

    #[test]
    fn the_most_comes_first_and_the_unknown_last() {
        let names = |column: &str, reverse| {
            let mut rows = ROWS;
            sort(&mut rows, &COLUMNS[find(&COLUMNS, column).expect("a column")], reverse);
            rows.map(|it| it.0)
        };
        assert_eq!(names("rate", false), ["ads", "web", "catalogue"]);
        assert_eq!(names("rate", true), ["web", "ads", "catalogue"]);
        assert_eq!(names("Name", false), ["ads", "catalogue", "web"]);
        assert_eq!(names("name", true), ["web", "catalogue", "ads"]);
        assert!(find(&COLUMNS, "speed").unwrap_err().contains("name, rate, note"));
    }

    #[test]
    fn colour_adds_nothing_that_a_grep_would_miss() {
        let (plain, colored) = (table(&COLUMNS, &ROWS, None, false).0, table(&COLUMNS, &ROWS, None, true).0);
        assert!(colored[0].starts_with("\x1b[1mNAME"));
        for (plain, colored) in plain.iter().zip(&colored) {
            let mut text = String::new();
            for (at, part) in colored.split("\x1b[").enumerate() {
                text.push_str(if at == 0 { part } else { part.split_once('m').map_or("", |it| it.1) });
            }
            assert_eq!(text.trim_end(), plain);
        }
    }
}
