//! What lies between two places: the built-in tables, then the file's `network`, key by key.
//!
//! One table for all: a forecast charges it to every call, and a run with `--places` makes the proxy add it, so that
//! the two can be laid side by side. It knows no traffic: how long bytes queue on a line is not said here.

use crate::system::{LinkSettings, Place, RegionId, System, Zone};
use units::{Bytes, Id, Money, Nanos, Percent};

/// Round trips in milliseconds between the regions whose names a cloud gave them (measured in 2017).
const REGION_RTT_MS: [(&str, &str, u64); 15] = [
    ("us-east-1", "us-west-2", 87),
    ("us-east-1", "eu-west-1", 81),
    ("us-east-1", "eu-central-1", 89),
    ("us-east-1", "ap-southeast-1", 217),
    ("us-east-1", "ap-southeast-2", 230),
    ("us-west-2", "eu-west-1", 137),
    ("us-west-2", "eu-central-1", 160),
    ("us-west-2", "ap-southeast-1", 161),
    ("us-west-2", "ap-southeast-2", 162),
    ("eu-west-1", "eu-central-1", 20),
    ("eu-west-1", "ap-southeast-1", 239),
    ("eu-west-1", "ap-southeast-2", 310),
    ("eu-central-1", "ap-southeast-1", 326),
    ("eu-central-1", "ap-southeast-2", 324),
    ("ap-southeast-1", "ap-southeast-2", 175),
];

/// A gigabyte that leaves for the internet, at a big cloud's list price.
pub const INTERNET_PRICE_PER_GB: Money = Money(90_000);

/// Ten gigabits inside a region and one between regions, for one flow; prices are a big cloud's list prices, one way.
const IN_ZONE: Line = Line {
    rtt: Nanos::from_micros(200),
    jitter: Percent::from_whole(10),
    loss: Percent::ZERO,
    bytes_per_second: Bytes(1_250_000_000),
    price_per_gb: Money(0),
};
const BETWEEN_ZONES: Line = Line { rtt: Nanos::from_millis(1), price_per_gb: Money(20_000), ..IN_ZONE };
const BETWEEN_REGIONS: Line = Line {
    rtt: Nanos::from_millis(90),
    jitter: Percent::from_whole(5),
    loss: Percent::ZERO,
    bytes_per_second: Bytes(125_000_000),
    price_per_gb: Money(20_000),
};

/// Users at home: a hundred megabits, and the way to the nearest region of a big cloud.
const INTERNET: Line = Line {
    rtt: Nanos::from_millis(40),
    jitter: Percent::from_whole(20),
    loss: Percent::ZERO,
    bytes_per_second: Bytes(12_500_000),
    price_per_gb: INTERNET_PRICE_PER_GB,
};

/// Somewhere: a zone, a region as a whole (no zone), or everywhere (no region).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    /// The place of the region in the file.
    pub region: Option<u16>,
    /// The place of the zone in its region.
    pub zone: Option<u16>,
}

/// What one flow meets on its way from one place to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// The round trip; one way is half of it.
    pub rtt: Nanos,
    pub jitter: Percent,
    pub loss: Percent,
    pub bytes_per_second: Bytes,
    pub price_per_gb: Money,
}

impl Spot {
    /// By name; an empty zone is the region as a whole, an empty or unknown region is everywhere.
    pub fn named(system: &System, region: &str, zone: &str) -> Self {
        let Some((at, region)) = system.regions.iter().enumerate().find(|(_, it)| it.name.value == region)
        else {
            return Self::default();
        };
        let zone = region.zones.iter().position(|it| it.value == zone);
        Self { region: u16::try_from(at).ok(), zone: zone.and_then(|it| u16::try_from(it).ok()) }
    }

    /// Is this within `place`?
    pub fn is_in(self, place: Place) -> bool {
        let in_region = |region: RegionId| self.region.map(u32::from) == Some(region.as_u32());
        match place {
            Place::Region(region) => in_region(region),
            Place::Zone(Zone { region, zone }) => in_region(region) && self.zone.map(u32::from) == Some(zone),
        }
    }
}

/// The line from one place to another: what the file says, the most specific entry first, then the tables.
pub fn line(system: &System, from: Spot, to: Spot) -> Line {
    let network = &system.network;
    let (defaults, general, table) = match (from.region, to.region) {
        (Some(a), Some(b)) if a != b => {
            let name = |region: u16| system.regions[Id::new(u32::from(region))].name.value.as_str();
            (BETWEEN_REGIONS, network.between_regions, region_rtt(name(a), name(b)))
        }
        (Some(_), Some(_)) if from.zone.is_some() && to.zone.is_some() && from.zone != to.zone => {
            (BETWEEN_ZONES, network.between_zones, None)
        }
        // A region as a whole and a place that is everywhere are as near as the next rack.
        _ => (IN_ZONE, network.in_zone, None),
    };
    // The most specific entry that says a key wins; the entries come most specific first.
    let entries: Vec<&LinkSettings> = network
        .pairs
        .iter()
        .filter(|it| from.is_in(it.from) && to.is_in(it.to))
        .map(|it| &it.settings)
        .collect();
    fn said<T>(entries: &[&LinkSettings], of: impl Fn(&LinkSettings) -> Option<T>) -> Option<T> {
        entries.iter().copied().find_map(of)
    }
    Line {
        rtt: said(&entries, |it| it.rtt).or(table).or(general.rtt).unwrap_or(defaults.rtt),
        jitter: said(&entries, |it| it.jitter).or(general.jitter).unwrap_or(defaults.jitter),
        loss: said(&entries, |it| it.loss).or(general.loss).unwrap_or(defaults.loss),
        bytes_per_second: said(&entries, |it| it.bytes_per_second)
            .or(general.bytes_per_second)
            .unwrap_or(defaults.bytes_per_second),
        price_per_gb: said(&entries, |it| it.price_per_gb)
            .or(general.price_per_gb)
            .unwrap_or(defaults.price_per_gb),
    }
}

/// The line between any place and users who are in none.
pub fn internet(system: &System) -> Line {
    let said = system.network.internet;
    Line {
        rtt: said.rtt.unwrap_or(INTERNET.rtt),
        jitter: said.jitter.unwrap_or(INTERNET.jitter),
        loss: said.loss.unwrap_or(INTERNET.loss),
        bytes_per_second: said.bytes_per_second.unwrap_or(INTERNET.bytes_per_second),
        price_per_gb: system.network.internet_price_per_gb.unwrap_or(INTERNET.price_per_gb),
    }
}

fn region_rtt(a: &str, b: &str) -> Option<Nanos> {
    let known = REGION_RTT_MS.iter().find(|(x, y, _)| (*x, *y) == (a, b) || (*x, *y) == (b, a));
    known.map(|(_, _, ms)| Nanos::from_millis(*ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The round trip between two places written `region/zone`, given what the file says.
    #[track_caller]
    fn check(network: &str, from: &str, to: &str, expected: &str) {
        let text = format!(
            "isobar: 1\nplaces: {{eu-west-1: {{zones: [a, b]}}, us-east-1: {{zones: [a]}}, here: {{}}}}\n{network}services: {{web: {{}}}}\n"
        );
        let system = crate::load::load_str(&text).into_system().expect("a good file");
        let spot = |place: &str| {
            let (region, zone) = place.split_once('/').unwrap_or((place, ""));
            Spot::named(&system, region, zone)
        };
        assert_eq!(line(&system, spot(from), spot(to)).rtt.to_string(), expected, "{from} to {to}");
    }

    #[test]
    fn the_most_specific_entry_wins_and_tables_fill_the_rest() {
        check("", "eu-west-1/a", "eu-west-1/a", "200us");
        check("", "eu-west-1/a", "eu-west-1/b", "1ms");
        check("", "eu-west-1/a", "eu-west-1", "200us");
        check("", "eu-west-1/a", "us-east-1/a", "81ms");
        check("", "us-east-1/a", "here/a", "90ms");
        check("", "nowhere", "here/a", "200us");
        let said = "network: {between-regions: {rtt: 50ms}, eu-west-1 <-> here: {rtt: 7ms}, eu-west-1/b -> here: {rtt: 9ms}}\n";
        check(said, "us-east-1/a", "here/a", "50ms");
        check(said, "eu-west-1/a", "here/a", "7ms");
        check(said, "eu-west-1/b", "here/a", "9ms");
        check(said, "here/a", "eu-west-1/b", "7ms");
        // What was measured between clouds' regions is nearer to the truth than a rule for all of them.
        check(said, "eu-west-1/a", "us-east-1/a", "81ms");
    }
}
