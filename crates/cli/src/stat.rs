//! `isobar stat`: every service in one line: how much, how well, how fast, and what its policies do about it.

use crate::answer::{self, FILTER_HELP, Question, Shown};
use crate::columns::{self, Cell, Column, Key, Shade};
use crate::exit;
use crate::measured::{self, saturation, worst};
use crate::output::Terminal;
use control::views::{Condition, SloState, Stat, StatRow};
use telemetry::views::{percent, safe};
use units::Nanos;

const EXAMPLES: &str = "\
For example:
  isobar stat                              every service, the last 30 seconds
  isobar stat 'errors>1%' --watch          who fails, every second
  isobar stat service:cart --by version    the new release beside the old one
  isobar stat --by zone --sort success     which zone is ill
  isobar stat --json | jq '.rows[] | select(.ejected > 0)'";

/// Show how services fare: rate, success, latency, retries, breakers, saturation
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{FILTER_HELP}"))]
pub(crate) struct Args {
    #[command(flatten)]
    question: Question,

    /// Behind every rate and percentile, from 1s to 15min
    #[arg(long, default_value = "30s")]
    window: Nanos,

    /// A line for each of these
    #[arg(long, value_enum, default_value_t = By::Service)]
    by: By,

    /// A column; the most, or the worst, comes first
    #[arg(long, value_name = "COLUMN", value_parser = sort_word)]
    sort: Option<usize>,

    /// Again every second, until ctrl-c
    #[arg(short, long)]
    watch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum By {
    Service,
    Version,
    Zone,
    Team,
    Instance,
}

impl By {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Version => "version",
            Self::Zone => "zone",
            Self::Team => "team",
            Self::Instance => "instance",
        }
    }
}

fn sort_word(text: &str) -> Result<usize, String> {
    columns::find(&COLUMNS, text)
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    let filter = answer::filter_text(&args.question.filter)?;
    let found = args.question.which.find()?;
    let by = if args.by == By::Service { "" } else { args.by.word() };
    let path = format!(
        "/v1/stat{}",
        answer::query(&[("filter", &filter), ("window", &args.window.to_string()), ("by", by)])
    );
    answer::show(args.question.json, args.watch, terminal, || {
        let (mut stat, way) = answer::fetch::<Stat>(&found, &path)?;
        if let Some(column) = args.sort {
            columns::sort(&mut stat.rows, &COLUMNS[column], false);
        }
        let mut shown = Shown::table(&COLUMNS, &stat.rows, stat.about.rows_in_all, terminal);
        shown.words.extend(Some(ills(stat.rows.iter())).filter(|it| !it.is_empty()));
        shown.words.push(format!(
            "{}; {}",
            answer::age_line(&stat.about, way),
            answer::page_of(
                &found,
                "table",
                &[("q", &filter), ("group", group(args.by)), ("sort", args.sort.map_or("", page_column))]
            )
        ));
        shown.json = serde_json::to_string(&stat)?;
        Ok(shown)
    })?;
    Ok(exit::OK)
}

/// The page's name of what a line is for; it has no lines for instances.
fn group(by: By) -> &'static str {
    match by {
        By::Service | By::Instance => "",
        By::Version | By::Zone | By::Team => by.word(),
    }
}

/// The page's name of a column of ours; empty where it has none.
fn page_column(column: usize) -> &'static str {
    match COLUMNS[column].title {
        "SERVICE" => "name",
        "RATE" => "rate",
        "SUCCESS" => "errors",
        "P50" => "p50",
        "P99" => "p99",
        "BUSY" => "concurrency",
        "READY" => "healthy",
        "BREAKERS" => "breakers",
        _ => "",
    }
}

/// What a person would be woken for, the worst first; empty when all is well.
pub(crate) fn ills<'a>(rows: impl Iterator<Item = &'a StatRow>) -> String {
    const NAMED_MAX: usize = 4;
    let mut ills: Vec<(u32, String)> = rows
        .filter_map(|it| {
            let (measures, now) = (&it.measures, &it.condition);
            let (weight, what) = match measures.success {
                _ if now.instances > 0 && now.healthy == 0 => (5, "nobody is ready".to_owned()),
                Some(share) if share < 0.99 => (4, format!("{} success", percent(share))),
                _ if now.slo == Some(SloState::Burns) => (3, "its SLO burns".to_owned()),
                _ if now.breakers_open > 0 => {
                    (2, format!("{} of {} breakers open", now.breakers_open, now.breakers))
                }
                _ if saturation(now).is_some_and(|it| it >= 1.0) => (2, "full".to_owned()),
                _ if now.healthy < now.instances => {
                    (1, format!("{} of {} ready", now.healthy, now.instances))
                }
                _ if now.ejected > 0 => (1, format!("{} of {} ejected", now.ejected, now.instances)),
                _ if it.hands_on.is_some_and(|it| !it.ok()) => (0, "does not hand on traces".to_owned()),
                _ => return None,
            };
            let name = it
                .part
                .as_deref()
                .filter(|_| it.service.is_empty() || it.state.is_some())
                .unwrap_or(&it.service);
            Some((weight, format!("{} ({what})", safe(name, 40))))
        })
        .collect();
    ills.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    let more = ills.len().saturating_sub(NAMED_MAX);
    let named: Vec<String> = ills.into_iter().take(NAMED_MAX).map(|(_, words)| words).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    if named.is_empty() { String::new() } else { format!("ill: {}{more}", named.join(", ")) }
}

pub(crate) const COLUMNS: [Column<StatRow>; 17] = [
    Column {
        title: "SERVICE",
        right: false,
        rank: 0,
        cell: service,
        key: |it| Key::Text(it.service.clone()),
    },
    Column {
        title: "PART",
        right: false,
        rank: 1,
        cell: |it| Cell::name(it.part.as_deref().unwrap_or("")),
        key: |it| Key::Text(it.part.clone().unwrap_or_default()),
    },
    measured::rate(0),
    measured::success(0),
    measured::p50(3),
    measured::p90(8),
    measured::p99(1),
    measured::retries(4),
    measured::breakers(4),
    measured::ejected(5),
    Column {
        title: "READY",
        right: true,
        rank: 2,
        cell: |it| ready(&it.condition),
        key: |it| worst(ready_share(&it.condition)),
    },
    measured::busy(6),
    measured::slo(3),
    measured::hands_on(4),
    measured::trend(9),
    Column {
        title: "ZONE",
        right: false,
        rank: 10,
        cell: |it| zone(&it.zones),
        key: |it| Key::Text(it.zones.join(",")),
    },
    Column {
        title: "WHY",
        right: false,
        rank: 1,
        cell: why,
        key: |it| Key::Text(it.why.clone().unwrap_or_default()),
    },
];

fn service(it: &StatRow) -> Cell {
    let mut cell = Cell::name(&it.service);
    if it.condition.slo == Some(SloState::Burns) || it.measures.success.is_some_and(|it| it < 0.99) {
        cell.shade = Shade::Bad;
    }
    cell
}

fn ready_share(it: &Condition) -> Option<f64> {
    (it.instances > 0).then(|| f64::from(it.healthy) / f64::from(it.instances))
}

fn ready(it: &Condition) -> Cell {
    let shade = match (it.healthy, it.instances) {
        (_, 0) => return Cell::none(),
        (0, _) => Shade::Bad,
        (healthy, all) if healthy < all => Shade::Warn,
        _ => Shade::Plain,
    };
    Cell::shaded(format!("{}/{}", it.healthy, it.instances), shade)
}

/// One zone is named; several are what a service is expected to have.
fn zone(zones: &[String]) -> Cell {
    match zones {
        [] => Cell::none(),
        [only] => Cell::name(only),
        several => Cell::shaded(format!("{} zones", several.len()), Shade::Dim),
    }
}

fn why(it: &StatRow) -> Cell {
    let (Some(state), why) = (&it.state, it.why.as_deref().unwrap_or("")) else { return Cell::none() };
    let why = why.lines().next().unwrap_or("");
    match (state.as_str(), it.condition.ejected) {
        ("ready", 0) => Cell::none(),
        ("ready", _) => Cell::shaded(format!("ejected: {why}"), Shade::Warn),
        (state, _) if why.is_empty() => Cell::shaded(state, Shade::Warn),
        (state, _) => Cell::shaded(format!("{state}: {why}"), Shade::Warn),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use control::views::{HandsOn, Measures};

    pub(crate) fn row(service: &str, rate: f64) -> StatRow {
        StatRow {
            service: service.to_owned(),
            kind: "http".to_owned(),
            measures: Measures {
                rate: Some(rate),
                success: (rate > 0.0).then_some(1.0),
                p50_ms: (rate > 0.0).then_some(2.0),
                p90_ms: (rate > 0.0).then_some(8.0),
                p99_ms: (rate > 0.0).then_some(24.0),
                retries: (rate > 0.0).then_some(0.0),
                ..Measures::default()
            },
            condition: Condition { healthy: 3, instances: 3, ..Condition::default() },
            ..StatRow::default()
        }
    }

    pub(crate) fn ill(service: &str) -> StatRow {
        let mut row = row(service, 180.0);
        row.measures.success = Some(0.95);
        row.measures.retries = Some(0.12);
        row.measures.spark = vec![1.0, 4.0, 8.0];
        row.condition = Condition {
            healthy: 2,
            instances: 3,
            ejected: 1,
            breakers_open: 1,
            breakers: 6,
            concurrency: Some(1.0),
            queue: Some(0.25),
            slo: Some(SloState::Burns),
        };
        row
    }

    #[test]
    fn a_service_is_a_line() {
        let (lines, hidden) =
            columns::table(&COLUMNS, &[row("web", 200.0), ill("cart"), row("ads", 0.0)], None, false);
        assert_eq!(
            lines,
            [
                "SERVICE  RATE  SUCCESS     P50     P90     P99  RETRIES     BREAKERS  EJECTED  READY       BUSY  SLO    TREND",
                "web       200     100%  2.00ms  8.00ms  24.0ms        0            -        0    3/3          -  -      -",
                "cart      180   95.00%  2.00ms  8.00ms  24.0ms   12.00%  1 of 6 open   1 of 3    2/3  100%+25%q  BURNS  ▂▅█",
                "ads         0        -       -       -       -        -            -        0    3/3          -  -      -",
            ]
        );
        assert!(hidden.is_empty());
    }

    #[test]
    fn a_narrow_terminal_shows_what_matters_most() {
        let rows = [row("web", 200.0), ill("cart")];
        for width in [100, 80, 60, 40] {
            let (lines, hidden) = columns::table(&COLUMNS, &rows, Some(width), false);
            assert!(lines.iter().all(|it| columns::wide(it) <= width), "{width}: {lines:#?}");
            assert!(lines[0].contains("SUCCESS") && lines[0].contains("RATE"), "{width}: {lines:#?}");
            assert_eq!(hidden.contains(&"TREND"), width < 112, "{width}: {hidden:?}");
        }
    }

    #[test]
    fn the_worst_is_found_by_any_column() {
        let worst = |column: &str| {
            let mut rows = vec![row("web", 200.0), ill("cart"), row("ads", 0.0)];
            columns::sort(&mut rows, &COLUMNS[sort_word(column).expect("a column")], false);
            rows[0].service.clone()
        };
        for column in ["success", "retries", "breakers", "ejected", "ready", "busy", "slo"] {
            assert_eq!(worst(column), "cart", "{column}");
        }
        assert_eq!(worst("rate"), "web");
        assert_eq!(worst("service"), "ads");
    }

    #[test]
    fn what_wakes_people_is_said_first() {
        let told = |rows: &[StatRow]| ills(rows.iter());
        assert_eq!(told(&[row("web", 200.0), row("ads", 0.0)]), "");
        let mut down = row("ads", 0.0);
        down.condition.healthy = 0;
        let mut ejected = row("web", 5.0);
        ejected.condition.ejected = 1;
        assert_eq!(
            told(&[ejected.clone(), ill("cart"), down]),
            "ill: ads (nobody is ready), cart (95.00% success), web (1 of 3 ejected)"
        );
        assert!(told(&vec![ejected; 9]).ends_with("and 5 more"));
        let mut forgets = row("web", 200.0);
        forgets.hands_on = Some(HandsOn { calls: 40, joined: 10, inferred: 3 });
        assert_eq!(told(std::slice::from_ref(&forgets)), "ill: web (does not hand on traces)");
        let (lines, _) = columns::table(&COLUMNS, &[forgets, row("ads", 1.0)], None, false);
        assert!(lines[0].contains("HANDS ON") && lines[1].contains("25.00%"), "{lines:?}");
    }

    #[test]
    fn an_instance_says_why() {
        let instance = |state: &str, ejected, why: Option<&str>| {
            let mut row = row("web", 1.0);
            (row.part, row.state, row.why) =
                (Some("web#0".into()), Some(state.into()), why.map(str::to_owned));
            row.condition.ejected = ejected;
            super::why(&row).text
        };
        assert_eq!(instance("ready", 0, Some("fine")), "-");
        assert_eq!(instance("ready", 1, Some("5 of 5 failed")), "ejected: 5 of 5 failed");
        assert_eq!(instance("starting", 0, None), "starting");
        assert_eq!(instance("failed", 0, Some("exit 1\nmore")), "failed: exit 1");
    }
}
