//! `isobar edges`: every call of one service by another in one line.

use crate::answer::{self, FILTER_HELP, Question, Shown};
use crate::columns::{self, Cell, Column, Key};
use crate::exit;
use crate::measured;
use crate::output::Terminal;
use control::views::{EdgeRow, Edges};
use units::Nanos;

const EXAMPLES: &str = "\
For example:
  isobar edges                        every call, the last 30 seconds
  isobar edges from:web               whom web calls, and how that goes
  isobar edges has:breaker --watch    where a breaker is open, every second
  isobar edges 'retries>5%'           who retries much";

/// Show how calls between services fare: rate, success, latency, retries, breakers
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{FILTER_HELP}"))]
pub(crate) struct Args {
    #[command(flatten)]
    question: Question,

    /// Behind every rate and percentile, from 1s to 15min
    #[arg(long, default_value = "30s")]
    window: Nanos,

    /// A column; the most, or the worst, comes first
    #[arg(long, value_name = "COLUMN", value_parser = sort_word)]
    sort: Option<usize>,

    /// Again every second, until ctrl-c
    #[arg(short, long)]
    watch: bool,
}

fn sort_word(text: &str) -> Result<usize, String> {
    columns::find(&COLUMNS, text)
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    let filter = answer::filter_text(&args.question.filter)?;
    let found = args.question.which.find()?;
    let path =
        format!("/v1/edges{}", answer::query(&[("filter", &filter), ("window", &args.window.to_string())]));
    answer::show(args.question.json, args.watch, terminal, || {
        let (mut edges, way) = answer::fetch::<Edges>(&found, &path)?;
        if let Some(column) = args.sort {
            columns::sort(&mut edges.rows, &COLUMNS[column], false);
        }
        let mut shown = Shown::table(&COLUMNS, &edges.rows, edges.about.rows_in_all, terminal);
        shown.words.push(format!(
            "{}; {}",
            answer::age_line(&edges.about, way),
            answer::page(&found, "table", &filter)
        ));
        shown.json = serde_json::to_string(&edges)?;
        Ok(shown)
    })?;
    Ok(exit::OK)
}

pub(crate) const COLUMNS: [Column<EdgeRow>; 15] = [
    Column {
        title: "FROM",
        right: false,
        rank: 0,
        cell: |it| Cell::name(&it.from),
        key: |it| Key::Text(it.from.clone()),
    },
    Column { title: "TO", right: false, rank: 0, cell: to, key: |it| Key::Text(it.to.clone()) },
    measured::rate(0),
    measured::success(0),
    measured::p50(3),
    measured::p90(8),
    measured::p99(1),
    measured::retries(2),
    measured::breakers(2),
    measured::ejected(4),
    measured::busy(6),
    measured::slo(5),
    measured::hands_on(4),
    measured::trend(9),
    Column {
        title: "NEED",
        right: false,
        rank: 10,
        cell: |it| if it.optional { Cell::shaded("optional", columns::Shade::Dim) } else { Cell::none() },
        key: |it| Key::Text(if it.optional { "optional".to_owned() } else { String::new() }),
    },
];

/// Where a call goes wrong is said where it goes.
fn to(it: &EdgeRow) -> Cell {
    let mut cell = Cell::name(&it.to);
    if it.condition.breakers_open > 0 || it.measures.success.is_some_and(|it| it < 0.99) {
        cell.shade = columns::Shade::Bad;
    }
    cell
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(from: &str, to: &str) -> EdgeRow {
        let it = crate::stat::tests::ill(to);
        EdgeRow {
            from: from.to_owned(),
            to: to.to_owned(),
            optional: true,
            measures: it.measures,
            condition: it.condition,
            kind: it.kind,
            ..EdgeRow::default()
        }
    }

    #[test]
    fn an_edge_is_a_line() {
        let (lines, _) = columns::table(&COLUMNS, &[row("web", "cart"), row("edge", "web")], None, false);
        assert_eq!(
            lines,
            [
                "FROM  TO    RATE  SUCCESS     P50     P90     P99  RETRIES     BREAKERS  EJECTED       BUSY  SLO    TREND  NEED",
                "web   cart   180   95.00%  2.00ms  8.00ms  24.0ms   12.00%  1 of 6 open   1 of 3  100%+25%q  BURNS  ▂▅█    optional",
                "edge  web    180   95.00%  2.00ms  8.00ms  24.0ms   12.00%  1 of 6 open   1 of 3  100%+25%q  BURNS  ▂▅█    optional",
            ]
        );
        let (lines, _) = columns::table(&COLUMNS, &[row("web", "cart")], Some(80), false);
        assert!(columns::wide(&lines[0]) <= 80 && lines[0].contains("BREAKERS"), "{lines:?}");
    }
}
