//! An hour (or `--seconds N`) of everything at once: requests, spans of strangers with names and ids that never repeat,
//! searches, scrapes. Nothing may grow that has no budget.
//!
//! `cargo xtask soak telemetry`. What is stored fills its budgets by design, some for hours, and says how large it is; so
//! what is watched is the rest: the process' memory less what its stores account for. That rest is flat once caches are
//! warm, or somebody keeps something nobody counts. Prints a line every ten seconds and exits 1 if a store is over its
//! budget or the rest grows.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

#[allow(dead_code, reason = "the bench needs the rest of it")]
mod house;

use house::{Fallible, clock, house, instance, load};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use telemetry::exposition::Format;
use telemetry::ids::{SpanId, TraceId};
use telemetry::span::{Annotation, Endpoint, Span, SpanKind};
use telemetry::traces::{TraceQuery, TraceStore};
use units::{Nanos, Rng};

/// The trace store's budget with what it remembers beside traces (names on offer, links of what is gone), and the
/// numbers' at their stated retention.
const TRACE_BYTES_MAX: usize = 80 << 20;
const MEASURE_BYTES_MAX: usize = 300 << 20;
/// How much the rest may grow from the third quarter of the run to the last: an allocator's own moods. Before, the
/// trace store fills for the first time, which takes a minute or two.
const GROWTH_MAX: f64 = 1.05;
const GROWTH_MAX_BYTES: f64 = 4e6;

fn resident() -> Fallible<usize> {
    let pages: usize =
        std::fs::read_to_string("/proc/self/statm")?.split(' ').nth(1).unwrap_or("0").parse()?;
    Ok(pages * page_size()?)
}

fn page_size() -> Fallible<usize> {
    // As the kernel says for this very process: `KernelPageSize` of its first mapping.
    let maps = std::fs::read_to_string("/proc/self/smaps")?;
    let line = maps.lines().find_map(|it| it.strip_prefix("KernelPageSize:")).ok_or("no page size")?;
    let kib: usize = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

/// A trace as strangers send it: ids, names and values that nobody saw before.
fn strange(rng: &mut Rng, at: Nanos) -> Vec<Span> {
    let id = TraceId::new(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64() | 1));
    let Some(id) = id else { return Vec::new() };
    (0..8u64)
        .filter_map(|n| {
            let mut span = Span::new(id, SpanId::new(rng.next_u64() | 1)?);
            span.kind = Some(if n % 2 == 0 { SpanKind::Server } else { SpanKind::Client });
            span.name = format!("get /user/{}", rng.next_u64()).into();
            span.local = Endpoint::named(&format!("app-{}", rng.below(2_000)));
            span.remote = Endpoint::named(&format!("db-{}", rng.next_u64() % 100_000));
            span.start = Some(at);
            span.duration = Some(Nanos::from_micros(rng.below(100_000)));
            span.set_tag(&format!("key-{}", rng.next_u64()), &*format!("{:x}", rng.next_u64()));
            span.set_tag("service.version", &*format!("v{}", rng.next_u64()));
            span.annotations.push(Annotation { at, value: "note".into() });
            Some(span)
        })
        .collect()
}

/// The binary's own: what another one does with the same requests is another one's matter.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> Fallible<()> {
    let seconds: u64 =
        std::env::args().skip_while(|it| it != "--seconds").nth(1).map_or(Ok(3_600), |it| it.parse())?;
    let house = house(instance()?, true)?;
    let watched = Arc::clone(&house.watched);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    load(house.door, 16, Duration::from_millis(2), Arc::clone(&stop), Arc::clone(&done))?;
    let marker_door = house.proxy.address(control::compile::MARKER).ok_or("no door for markers")?;
    let marked = Arc::clone(&watched);
    house::thread("markers", move || async move {
        control::marker::send(marked, marker_door).await;
        Ok(())
    })?;
    let mut rng = Rng::from_seed(1);
    let began = clock();
    let mut rest = Vec::new();
    println!("seconds  requests  resident MB  traces MB  numbers MB  the rest MB  traces  series");
    for second in 1..=seconds {
        let unix = watched.clocks.unix();
        for _ in 0..50 {
            let spans = strange(&mut rng, unix);
            watched.traces.lock().map_err(|_| "a thread panicked")?.add(&spans, unix);
        }
        // Whoever looks costs as well: a page, a search, the links.
        let page = control::exports::page(&watched, Format::negotiate(""));
        let (usage, found) = {
            let traces = watched.traces.lock().map_err(|_| "a thread panicked")?;
            let found = traces.search(&TraceQuery::between(Nanos::ZERO, unix, 10)).len();
            let _ = traces.links(unix.saturating_sub(Nanos::from_secs(60)), unix);
            (traces.usage(), found)
        };
        let (numbers, series) = {
            let measures = watched.measures.lock().map_err(|_| "a thread panicked")?;
            (measures.bytes(), measures.series_count())
        };
        if page.is_empty() || found == 0 {
            return Err("nothing is there to be seen".into());
        }
        let resident = resident()?;
        let left = resident.saturating_sub(usage.bytes + numbers);
        rest.push(left as f64);
        if usage.bytes > TRACE_BYTES_MAX || numbers > MEASURE_BYTES_MAX {
            return Err(format!("over its budget: traces {} B, numbers {numbers} B", usage.bytes).into());
        }
        if second % 10 == 0 || second == seconds {
            let mb = |bytes: usize| bytes as f64 / 1e6;
            println!(
                "{second:>7}  {:>8}  {:>11.1}  {:>9.1}  {:>10.1}  {:>11.1}  {:>6}  {series:>6}",
                done.load(Relaxed),
                mb(resident),
                mb(usage.bytes),
                mb(numbers),
                mb(left),
                usage.traces,
            );
        }
        std::thread::sleep(Duration::from_secs(second).saturating_sub(began.elapsed()));
    }
    stop.store(true, Relaxed);
    house.proxy.stop();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
    let quarter = rest.len() / 4;
    let (early, late) = (mean(&rest[2 * quarter..3 * quarter]), mean(&rest[3 * quarter..]));
    println!("the rest: {:.1} MB in the third quarter, {:.1} MB in the last", early / 1e6, late / 1e6);
    let grows = late > early * GROWTH_MAX && late > early + GROWTH_MAX_BYTES;
    if grows { Err("something grows that nobody accounts for".into()) } else { Ok(()) }
}
