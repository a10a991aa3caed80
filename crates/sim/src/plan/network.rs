//! Locations and what lies between them: the built-in tables, then the file's `network`, key by key.

use super::{Link, Location};
use model::system::{LinkSettings, Place, RegionId, System, Zone};
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

struct Defaults {
    rtt: Nanos,
    jitter: Percent,
    bytes_per_second: Bytes,
    price_per_gb: Money,
}

/// Ten gigabits inside a region and one between regions, for one flow; prices are a big cloud's list prices, one way.
const IN_ZONE: Defaults = Defaults {
    rtt: Nanos::from_micros(200),
    jitter: Percent::from_whole(10),
    bytes_per_second: Bytes(1_250_000_000),
    price_per_gb: Money(0),
};
const BETWEEN_ZONES: Defaults = Defaults {
    rtt: Nanos::from_millis(1),
    jitter: Percent::from_whole(10),
    bytes_per_second: Bytes(1_250_000_000),
    price_per_gb: Money(20_000),
};
const BETWEEN_REGIONS: Defaults = Defaults {
    rtt: Nanos::from_millis(90),
    jitter: Percent::from_whole(5),
    bytes_per_second: Bytes(125_000_000),
    price_per_gb: Money(20_000),
};

pub(super) const INTERNET_PRICE_PER_GB: Money = Money(90_000);

/// All zones in the file's order, then each region as a whole, then everywhere, then outside.
pub(super) fn locations(system: &System) -> Vec<Location> {
    let mut locations = Vec::new();
    for (index, region) in system.regions.iter().enumerate() {
        for (zone, name) in region.zones.iter().enumerate() {
            locations.push(Location {
                name: format!("{}/{}", region.name.value, name.value),
                region: Some(index as u16),
                zone: Some(zone as u16),
                zone_name: name.value.clone(),
                outside: false,
            });
        }
    }
    for (index, region) in system.regions.iter().enumerate() {
        locations.push(Location {
            name: region.name.value.clone(),
            region: Some(index as u16),
            zone: None,
            zone_name: "*".to_owned(),
            outside: false,
        });
    }
    for (name, outside) in [("everywhere", false), ("outside", true)] {
        let name = name.to_owned();
        locations.push(Location { name, region: None, zone: None, zone_name: "*".to_owned(), outside });
    }
    locations
}

pub(super) fn links(system: &System, locations: &[Location]) -> Vec<Link> {
    let mut links = Vec::with_capacity(locations.len() * locations.len());
    for from in locations {
        for to in locations {
            links.push(link(system, from, to));
        }
    }
    links
}

fn link(system: &System, from: &Location, to: &Location) -> Link {
    let network = &system.network;
    let internet = network.internet_price_per_gb.unwrap_or(INTERNET_PRICE_PER_GB);
    if from.outside || to.outside {
        // What users feel of the internet is theirs: a forecast is of what the system adds. Its bytes are paid for.
        let price_per_gb = if to.outside { internet } else { Money::ZERO };
        return Link { one_way: Nanos::ZERO, jitter: 0.0, loss: 0.0, nanos_per_byte: 0.0, price_per_gb };
    }
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
        .filter(|it| is_in(from, it.from) && is_in(to, it.to))
        .map(|it| &it.settings)
        .collect();
    let said = |rtt: &dyn Fn(&LinkSettings) -> bool| entries.iter().copied().find(|it| rtt(it)).copied();
    let rtt =
        said(&|it| it.rtt.is_some()).and_then(|it| it.rtt).or(table).or(general.rtt).unwrap_or(defaults.rtt);
    let jitter = said(&|it| it.jitter.is_some())
        .and_then(|it| it.jitter)
        .or(general.jitter)
        .unwrap_or(defaults.jitter);
    let loss = said(&|it| it.loss.is_some()).and_then(|it| it.loss).or(general.loss).unwrap_or(Percent::ZERO);
    let bytes_per_second = said(&|it| it.bytes_per_second.is_some())
        .and_then(|it| it.bytes_per_second)
        .or(general.bytes_per_second)
        .unwrap_or(defaults.bytes_per_second);
    let price_per_gb = said(&|it| it.price_per_gb.is_some())
        .and_then(|it| it.price_per_gb)
        .or(general.price_per_gb)
        .unwrap_or(defaults.price_per_gb);
    Link {
        one_way: rtt / 2,
        jitter: jitter.fraction().min(1.0),
        loss: loss.fraction().min(1.0),
        nanos_per_byte: 1e9 / bytes_per_second.0.max(1) as f64,
        price_per_gb,
    }
}

fn region_rtt(a: &str, b: &str) -> Option<Nanos> {
    let known = REGION_RTT_MS.iter().find(|(x, y, _)| (*x, *y) == (a, b) || (*x, *y) == (b, a));
    known.map(|(_, _, ms)| Nanos::from_millis(*ms))
}

pub(crate) fn is_in(location: &Location, place: Place) -> bool {
    let in_region = |region: RegionId| location.region.map(u32::from) == Some(region.as_u32());
    match place {
        Place::Region(region) => in_region(region),
        Place::Zone(Zone { region, zone }) => in_region(region) && location.zone.map(u32::from) == Some(zone),
    }
}
