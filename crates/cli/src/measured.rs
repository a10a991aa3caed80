//! Columns of whatever was measured: services, their parts and edges show the same numbers in the same way.
//!
//! How important a column is differs with what it stands beside, so its rank is its table's to say.

use crate::columns::{Cell, Column, Key, Shade};
use control::views::{Condition, HandsOn, Measures, SloState};
use telemetry::views::{count, duration, percent};
use units::Nanos;

/// A row that has numbers.
pub(crate) trait Measured {
    fn measures(&self) -> &Measures;
    fn condition(&self) -> &Condition;
    fn hands_on(&self) -> Option<HandsOn>;
}

impl Measured for control::views::StatRow {
    fn measures(&self) -> &Measures {
        &self.measures
    }

    fn condition(&self) -> &Condition {
        &self.condition
    }

    fn hands_on(&self) -> Option<HandsOn> {
        self.hands_on
    }
}

impl Measured for control::views::EdgeRow {
    fn measures(&self) -> &Measures {
        &self.measures
    }

    fn condition(&self) -> &Condition {
        &self.condition
    }

    fn hands_on(&self) -> Option<HandsOn> {
        self.hands_on
    }
}

const fn number<R>(title: &'static str, rank: u8, cell: fn(&R) -> Cell, key: fn(&R) -> Key) -> Column<R> {
    Column { title, right: true, rank, cell, key }
}

const fn words<R>(title: &'static str, rank: u8, cell: fn(&R) -> Cell, key: fn(&R) -> Key) -> Column<R> {
    Column { title, right: false, rank, cell, key }
}

pub(crate) const fn rate<R: Measured>(rank: u8) -> Column<R> {
    number("RATE", rank, |it| rate_cell(it.measures()), |it| Key::Number(it.measures().rate))
}

pub(crate) const fn success<R: Measured>(rank: u8) -> Column<R> {
    number("SUCCESS", rank, |it| success_cell(it.measures()), |it| worst(it.measures().success))
}

pub(crate) const fn p50<R: Measured>(rank: u8) -> Column<R> {
    number("P50", rank, |it| latency(it.measures().p50_ms), |it| Key::Number(it.measures().p50_ms))
}

pub(crate) const fn p90<R: Measured>(rank: u8) -> Column<R> {
    number("P90", rank, |it| latency(it.measures().p90_ms), |it| Key::Number(it.measures().p90_ms))
}

pub(crate) const fn p99<R: Measured>(rank: u8) -> Column<R> {
    number("P99", rank, |it| latency(it.measures().p99_ms), |it| Key::Number(it.measures().p99_ms))
}

pub(crate) const fn retries<R: Measured>(rank: u8) -> Column<R> {
    number("RETRIES", rank, |it| retries_cell(it.measures()), |it| Key::Number(it.measures().retries))
}

pub(crate) const fn breakers<R: Measured>(rank: u8) -> Column<R> {
    let open = |it: &R| Key::Number(Some(f64::from(it.condition().breakers_open)));
    number("BREAKERS", rank, |it| breakers_cell(it.condition()), open)
}

pub(crate) const fn ejected<R: Measured>(rank: u8) -> Column<R> {
    let many = |it: &R| Key::Number(Some(f64::from(it.condition().ejected)));
    number("EJECTED", rank, |it| ejected_cell(it.condition()), many)
}

pub(crate) const fn busy<R: Measured>(rank: u8) -> Column<R> {
    number("BUSY", rank, |it| busy_cell(it.condition()), |it| Key::Number(saturation(it.condition())))
}

pub(crate) const fn slo<R: Measured>(rank: u8) -> Column<R> {
    let burns =
        |it: &R| Key::Number(it.condition().slo.map(|it| if it == SloState::Burns { 1.0 } else { 0.0 }));
    words("SLO", rank, |it| slo_cell(it.condition().slo), burns)
}

pub(crate) const fn hands_on<R: Measured>(rank: u8) -> Column<R> {
    let share = |it: &R| worst(it.hands_on().and_then(HandsOn::share));
    number("HANDS ON", rank, |it| hands_on_cell(it.hands_on()), share)
}

pub(crate) const fn trend<R: Measured>(rank: u8) -> Column<R> {
    words("TREND", rank, |it| trend_cell(it.measures()), |it| Key::Number(it.measures().rate))
}

/// Low first: what is least is what is looked for.
pub(crate) fn worst(value: Option<f64>) -> Key {
    Key::Number(value.map(|it| -it))
}

fn rate_cell(it: &Measures) -> Cell {
    match it.rate {
        None => Cell::none(),
        Some(0.0) => Cell::shaded("0", Shade::Dim),
        Some(rate) => Cell::plain(count(rate)),
    }
}

fn success_cell(it: &Measures) -> Cell {
    let Some(share) = it.success else { return Cell::none() };
    let shade = match share {
        share if share < 0.99 => Shade::Bad,
        share if share < 0.999 => Shade::Warn,
        _ => Shade::Plain,
    };
    Cell::shaded(percent(share), shade)
}

pub(crate) fn latency(ms: Option<f64>) -> Cell {
    ms.map_or(Cell::none(), |ms| Cell::plain(duration(Nanos((ms.max(0.0) * 1e6) as u64))))
}

fn retries_cell(it: &Measures) -> Cell {
    match it.retries {
        None => Cell::none(),
        Some(0.0) => Cell::shaded("0", Shade::Dim),
        // A budget is a fifth by default; whoever is near it is in trouble.
        Some(share) => Cell::shaded(percent(share), if share >= 0.1 { Shade::Bad } else { Shade::Warn }),
    }
}

fn breakers_cell(it: &Condition) -> Cell {
    match (it.breakers_open, it.breakers) {
        (_, 0) => Cell::none(),
        (0, all) => Cell::shaded(format!("0 of {all}"), Shade::Dim),
        (open, all) => Cell::shaded(format!("{open} of {all} open"), Shade::Bad),
    }
}

fn ejected_cell(it: &Condition) -> Cell {
    match it.ejected {
        0 if it.instances == 0 => Cell::none(),
        0 => Cell::shaded("0", Shade::Dim),
        some => Cell::shaded(format!("{some} of {}", it.instances), Shade::Warn),
    }
}

/// Work in progress of what may be, and beyond a whole what waits: a full queue is 200 %.
pub(crate) fn saturation(it: &Condition) -> Option<f64> {
    it.concurrency.map(|busy| busy + it.queue.unwrap_or(0.0))
}

/// Nothing is to be said of those who hand on all of it: a column of hundreds is a column nobody reads.
fn hands_on_cell(it: Option<HandsOn>) -> Cell {
    match it.and_then(|it| Some((it.share()?, it.ok()))) {
        None => Cell::none(),
        Some((share, true)) if share >= 0.995 => Cell::none(),
        Some((share, ok)) => Cell::shaded(percent(share), if ok { Shade::Warn } else { Shade::Bad }),
    }
}

fn busy_cell(it: &Condition) -> Cell {
    let Some(busy) = it.concurrency else { return Cell::none() };
    // Less than a hundredth is nothing to read.
    let waiting = it.queue.filter(|it| *it >= 0.005);
    let text = match waiting {
        Some(queue) => format!("{:.0}%+{:.0}%q", busy * 100.0, queue * 100.0),
        None => format!("{:.0}%", busy * 100.0),
    };
    let shade = match saturation(it).unwrap_or(0.0) {
        full if full >= 1.0 => Shade::Bad,
        high if high >= 0.8 => Shade::Warn,
        _ => Shade::Plain,
    };
    Cell::shaded(text, shade)
}

fn slo_cell(it: Option<SloState>) -> Cell {
    match it {
        None => Cell::none(),
        Some(SloState::Kept) => Cell::shaded("ok", Shade::Good),
        Some(SloState::Burns) => Cell::shaded("BURNS", Shade::Bad),
    }
}

fn trend_cell(it: &Measures) -> Cell {
    const CELLS: usize = 15;
    if it.spark.iter().all(|it| *it == 0.0) {
        return Cell::none();
    }
    let values: Vec<Option<f64>> = it.spark.iter().map(|it| Some(*it)).collect();
    Cell::plain(crate::table::spark(&values, CELLS))
}
