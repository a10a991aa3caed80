//! `isobar tap`: requests as they end, one a line.

use crate::answer::{self, FILTER_HELP};
use crate::client::{self, Which};
use crate::exit;
use crate::output::{self, Terminal};
use anyhow::Context;
use control::views::tap::{PER_SECOND, Tally, TapLine, Tapped};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use telemetry::views::{count, safe, tap_line};

const EXAMPLES: &str = "\
For example:
  isobar tap                                  everything, at most 100 a second
  isobar tap --status 5xx                     what fails
  isobar tap --edge 'web->cart' --limit 20    twenty calls of one edge
  isobar tap 'duration>200ms' has:retry       slow, and tried twice
  isobar tap --json | jq -c 'select(.line == \"request\")'";

/// Watch requests as they end
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\nA path is shown without its query, and what looks like a token or an address in it is left out.\n\n{FILTER_HELP}"))]
pub(crate) struct Args {
    /// Terms that all must hold, such as service:cart or "duration>200ms"; --help lists them
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,

    #[command(flatten)]
    which: Which,

    /// 5xx, 503, or none for no answer
    #[arg(long)]
    status: Option<String>,

    /// Either end of the call
    #[arg(long)]
    service: Option<String>,

    /// One call: 'web->cart'
    #[arg(long)]
    edge: Option<String>,

    /// A part of the operation or path
    #[arg(long)]
    path: Option<String>,

    /// End after so many
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: Option<u32>,

    /// At most so many a second; the others are counted
    #[arg(long, default_value_t = PER_SECOND as u32, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    per_second: u32,

    /// One JSON object a line: requests, and once a second how many there were
    #[arg(long)]
    json: bool,
}

/// The flags are terms of the filter, so that what one can say the other can.
fn words(args: &Args) -> Vec<String> {
    let mut words = args.filter.clone();
    words.extend(args.status.as_ref().map(|it| format!("status:{it}")));
    words.extend(args.service.as_ref().map(|it| format!("service:{it}")));
    words.extend(args.edge.as_ref().map(|it| format!("service:{it}")));
    words.extend(args.path.as_ref().map(|it| format!("operation:\"*{}*\"", it.replace(['"', '*'], ""))));
    words
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    if let Some(edge) = args.edge.as_deref().filter(|it| !it.contains("->")) {
        anyhow::bail!("`{edge}` is no edge; it is written 'web->cart', in quotes, for > is the shell's");
    }
    let filter = answer::filter_text(&words(args))?;
    let found = args.which.find()?;
    let limit = args.limit.map(|it| it.to_string()).unwrap_or_default();
    let pairs =
        [("filter", filter.as_str()), ("limit", &limit), ("per_second", &args.per_second.to_string())];
    let mut lines = client::Lines::open(&found, &format!("/v1/tap{}", answer::query(&pairs)))?;
    if !args.json {
        let page = answer::page(&found, "traces", &filter);
        output::words(&format!(
            "requests as they end, at most {} a second; ctrl-c ends; {page}\n",
            args.per_second
        ));
    }
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    let hang_up = lines.hang_up()?;
    std::thread::spawn(move || {
        if client::wait_for_signals() {
            INTERRUPTED.store(true, Relaxed);
            hang_up();
        }
    });
    let (mut shown, mut tally) = (0u64, None);
    while let Some(line) = lines.next().transpose()? {
        if INTERRUPTED.load(Relaxed) {
            break;
        }
        let read: TapLine =
            serde_json::from_str(&line).context("a line of the tap is not what this isobar understands")?;
        if args.json {
            output::print(&format!("{line}\n"))?;
        }
        match read {
            TapLine::Request(it) => {
                shown += 1;
                if !args.json {
                    output::print(&format!("{}\n", request_line(&it, terminal.color_stdout)))?;
                }
            }
            TapLine::Tally(it) => tally = Some(it),
        }
    }
    let interrupted = INTERRUPTED.load(Relaxed);
    if !args.json {
        output::words(&format!("{}\n", tally_words(shown, tally)));
    }
    let whole = interrupted || args.limit.is_some_and(|it| shown >= u64::from(it));
    if whole {
        return Ok(if interrupted { exit::INTERRUPTED } else { exit::OK });
    }
    Err(client::Unreachable(format!("`{}` ended while it was tapped", found.name)).into())
}

fn request_line(it: &Tapped, color: bool) -> String {
    let mut line = tap_line(&it.event(), color);
    if !it.path.is_empty() && !it.operation.ends_with(&it.path) {
        line += &format!("  {}", safe(&it.path, 60));
    }
    if let Some(why) = &it.why {
        line += &format!("  ({})", safe(why, 40));
    }
    line
}

fn tally_words(shown: u64, tally: Option<Tally>) -> String {
    let Some(it) = tally else { return format!("{shown} shown") };
    let mut words = format!(
        "{shown} shown of {} that matched, {} ended",
        count_of(it.matched.max(shown)),
        count_of(it.ended)
    );
    if it.sampled_out > 0 {
        words +=
            &format!("; {} left out at {} a second (--per-second)", count_of(it.sampled_out), it.per_second);
    }
    if it.dropped > 0 {
        words += &format!("; {} lost because this terminal was slow", count_of(it.dropped));
    }
    words
}

fn count_of(count_of: u64) -> String {
    if count_of < 10_000 { count_of.to_string() } else { count(count_of as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[track_caller]
    fn check(line: &[&str], expected: &str) {
        let line = Line::try_parse_from(["tap"].iter().chain(line)).expect("a command line");
        assert_eq!(answer::filter_text(&words(&line.args)).expect("a filter"), expected);
    }

    #[test]
    fn flags_are_terms() {
        check(&["--status", "5xx"], "status:5xx");
        check(
            &["zone:b", "--service", "cart", "--path", "/cart"],
            "zone:b service:cart operation:\"*/cart*\"",
        );
        check(&["--edge", "web->cart", "duration>200ms"], "duration>200ms service:web->cart");
    }

    #[test]
    fn a_line_has_what_the_operation_leaves_out() {
        let it = Tapped {
            from: "web".into(),
            to: "cart".into(),
            operation: "GET /cart/{id}".into(),
            path: "/cart/17".into(),
            status: Some(503),
            duration_ms: 12.5,
            attempts: 1,
            why: Some("breaker-open".into()),
            marks: vec!["breaker".into()],
            ..Tapped::default()
        };
        assert_eq!(
            request_line(&it, false),
            "00:00:00.000 503 12.5ms  web → cart          GET /cart/{id}     [breaker]  /cart/17  (breaker-open)"
        );
    }

    #[test]
    fn what_was_not_shown_is_said() {
        let tally =
            Tally { ended: 120_000, matched: 50, shown: 40, sampled_out: 8, dropped: 2, per_second: 10 };
        assert_eq!(
            tally_words(40, Some(tally)),
            "40 shown of 50 that matched, 120.0k ended; 8 left out at 10 a second (--per-second); 2 lost because this terminal was slow"
        );
        assert_eq!(tally_words(3, None), "3 shown");
    }
}
