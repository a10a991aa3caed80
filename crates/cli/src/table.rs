//! Numbers in columns, and lines of eight heights: what a terminal can show of a report.

/// Columns of text. Numbers are told by their first character and stand right.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).to_vec()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() <= 1
    }

    /// Each line indented by two, the first one dim when `color`.
    pub(crate) fn text(&self, color: bool) -> String {
        self.text_within(color, usize::MAX, &[])
    }

    /// The same in lines of at most `width`, as far as leaving out these columns, the first first, can make it so.
    pub(crate) fn text_within(&self, color: bool, width: usize, spare: &[usize]) -> String {
        let mut kept: Vec<usize> = (0..self.rows.iter().map(Vec::len).max().unwrap_or(0)).collect();
        let needs = |kept: &[usize]| {
            let widest = |column: &usize| {
                self.rows.iter().filter_map(|row| row.get(*column)).map(|it| wide(it)).max().unwrap_or(0)
            };
            kept.iter().map(|it| widest(it) + 2).sum::<usize>()
        };
        for column in spare {
            if needs(&kept) <= width {
                break;
            }
            kept.retain(|it| it != column);
        }
        let rows = self.rows.iter().map(|row| kept.iter().filter_map(|it| row.get(*it).cloned()).collect());
        Self { rows: rows.collect() }.drawn(color)
    }

    fn drawn(&self, color: bool) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|it| wide(it)).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let right: Vec<bool> = (0..columns)
            .map(|column| {
                let mut cells =
                    self.rows.iter().skip(1).filter_map(|row| row.get(column)).filter(|it| !it.is_empty());
                cells.clone().next().is_some()
                    && cells.all(|it| it.starts_with(|c: char| c.is_ascii_digit() || "-+–<$±".contains(c)))
            })
            .collect();
        let mut text = String::new();
        for (n, row) in self.rows.iter().enumerate() {
            let mut line = String::from("  ");
            for (column, cell) in row.iter().enumerate() {
                let room = " ".repeat(widths[column] - wide(cell));
                let gap = if column == 0 { "" } else { "  " };
                line.push_str(gap);
                line.push_str(&if right[column] { format!("{room}{cell}") } else { format!("{cell}{room}") });
            }
            let line = line.trim_end();
            text.push_str(&if n == 0 && color {
                format!("\x1b[2m{line}\x1b[0m\n")
            } else {
                format!("{line}\n")
            });
        }
        text
    }
}

/// Columns a text takes: one a character is right for everything we write ourselves; names are the user's and may be off.
fn wide(text: &str) -> usize {
    text.chars().count()
}

/// Values as a line of blocks, the largest filling a cell; a gap where nothing is known.
pub(crate) fn spark(values: &[Option<f64>], width: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if values.is_empty() || width == 0 {
        return String::new();
    }
    // Several values share a cell: the largest is the one that would be missed.
    let cell = |n: usize| {
        let from = n * values.len() / width;
        let to = ((n + 1) * values.len() / width).max(from + 1).min(values.len());
        values[from..to]
            .iter()
            .flatten()
            .copied()
            .fold(None, |most: Option<f64>, it| Some(most.map_or(it, |most| most.max(it))))
    };
    let cells: Vec<Option<f64>> = (0..width.min(values.len()))
        .map(|n| if values.len() < width { values[n] } else { cell(n) })
        .collect();
    let top = cells.iter().flatten().copied().fold(0.0, f64::max);
    cells
        .iter()
        .map(|it| match it {
            None => ' ',
            Some(value) if top > 0.0 => BLOCKS[((value / top * 7.0).round() as usize).min(7)],
            Some(_) => BLOCKS[0],
        })
        .collect()
}

/// Three significant digits, as people write them.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    match size {
        _ if size == 0.0 => "0".to_owned(),
        _ if size >= 1e9 => format!("{value:.2e}"),
        _ if size >= 1e6 => format!("{}M", number(value / 1e6)),
        _ if size >= 1e5 => format!("{}k", number(value / 1e3)),
        _ if size >= 99.95 => format!("{value:.0}"),
        _ if size >= 9.995 => format!("{value:.1}"),
        _ if size >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.1e}"),
    }
}

/// Seconds as a duration.
pub(crate) fn seconds(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".to_owned(),
        0.0 => "0".to_owned(),
        size if size < 1e-3 => format!("{}us", number(value * 1e6)),
        size if size < 10.0 => format!("{}ms", number(value * 1e3)),
        _ => format!("{}s", number(value)),
    }
}

/// A share with as many digits as its distance from a whole needs: 99.995 % is not 100 %.
pub(crate) fn share(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let percent = value * 100.0;
    let off = (100.0 - percent).abs().min(percent.abs());
    match off {
        0.0 => format!("{percent:.0}%"),
        off if off >= 10.0 => format!("{percent:.0}%"),
        off if off >= 1.0 => format!("{percent:.1}%"),
        off if off >= 0.1 => format!("{percent:.2}%"),
        off if off >= 0.001 => format!("{percent:.3}%"),
        _ => format!("{percent:.5}%"),
    }
}

pub(crate) fn dollars(value: f64) -> String {
    if value != 0.0 && value.abs() < 10.0 { format!("${value:.2}") } else { format!("${value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_numbers_stand_right() {
        let mut table = Table::new(["service", "rate"]);
        table.row(["web".to_owned(), "200".to_owned()]);
        table.row(["catalog".to_owned(), "5".to_owned()]);
        assert_eq!(table.text(false), "  service  rate\n  web       200\n  catalog     5\n");
    }

    #[test]
    fn sparks_keep_the_peak() {
        assert_eq!(spark(&[Some(0.0), Some(7.0), None, Some(3.5)], 4), "▁█ ▅");
        let values: Vec<Option<f64>> = (0..100).map(|n| Some(if n == 55 { 9.0 } else { 1.0 })).collect();
        assert!(spark(&values, 10).contains('█'));
        assert_eq!(spark(&[], 10), "");
    }

    #[test]
    fn numbers_for_people() {
        for (got, expected) in [
            (number(0.0), "0"),
            (number(1234.5), "1234"),
            (number(99.96), "100"),
            (number(2.345), "2.35"),
            (seconds(0.0000125), "12.5us"),
            (seconds(0.25), "250ms"),
            (seconds(12.0), "12.0s"),
            (share(1.0), "100%"),
            (share(0.99995), "99.995%"),
            (share(0.5), "50%"),
            (dollars(3.2), "$3.20"),
            (number(f64::NAN), "–"),
        ] {
            assert_eq!(got, expected);
        }
    }
}
