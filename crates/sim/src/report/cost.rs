//! What it would cost for a month: instance hours, and bytes that leave a zone.

use super::View;
use crate::plan::StationKind;

const HOURS_PER_MONTH: f64 = 730.0;
const SECONDS_PER_MONTH: f64 = HOURS_PER_MONTH * 3_600.0;

/// Dollars a month at the load that was forecast.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    pub per_month: f64,
    pub instances: f64,
    pub transfer: f64,
    /// The dearest ways first.
    pub transfers: Vec<Transfer>,
}

/// Bytes from one place to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    pub from: String,
    pub to: String,
    pub gigabytes_per_month: f64,
    pub per_month: f64,
}

pub(super) fn of(view: &View<'_>) -> Cost {
    let plan = view.plan;
    let runs = view.forecast.runs.len().max(1) as f64;
    let count = plan.locations.len();
    let mut transfers = Vec::new();
    for (index, link) in plan.links.iter().enumerate() {
        let bytes = view.forecast.total.bytes[index] as f64 / runs / view.seconds;
        let gigabytes = bytes * SECONDS_PER_MONTH / 1e9;
        let per_month = gigabytes * link.price_per_gb.dollars();
        if per_month > 0.0 {
            transfers.push(Transfer {
                from: plan.locations[index / count].name.clone(),
                to: plan.locations[index % count].name.clone(),
                gigabytes_per_month: gigabytes,
                per_month,
            });
        }
    }
    transfers.sort_by(|a, b| b.per_month.total_cmp(&a.per_month));
    let instances: f64 = (0..plan.stations.len() as u32).map(|it| of_station(view, it)).sum();
    let transfer: f64 = transfers.iter().map(|it| it.per_month).sum();
    Cost { per_month: instances + transfer, instances, transfer, transfers }
}

/// The instances of one service, by the time they stood.
pub(super) fn of_station(view: &View<'_>, station: u32) -> f64 {
    let station = &view.plan.stations[station as usize];
    if station.kind == StationKind::Users {
        return 0.0;
    }
    let up: u128 = station.instances.iter().map(|it| view.forecast.total.instances[it as usize].up).sum();
    let runs = view.forecast.runs.len().max(1) as f64;
    up as f64 / 1e9 / runs / view.seconds * HOURS_PER_MONTH * station.price_per_hour.dollars()
}
