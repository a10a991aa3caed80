//! Locations and what lies between them, as a simulation charges it. The tables are the model's: a run uses them, too.

use super::{Link, Location};
use model::network::{Line, Spot, internet, line};
use model::system::{Place, System};
use units::{Money, Nanos};

pub(super) use model::network::INTERNET_PRICE_PER_GB;

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
    let it = match (from.outside, to.outside) {
        (false, false) => line(system, from.spot(), to.spot()),
        // Only what leaves is paid for.
        (false, true) => internet(system),
        (true, false) => Line { price_per_gb: Money::ZERO, ..internet(system) },
        (true, true) => {
            let none = Link {
                one_way: Nanos::ZERO,
                jitter: 0.0,
                loss: 0.0,
                nanos_per_byte: 0.0,
                price_per_gb: Money::ZERO,
            };
            return none;
        }
    };
    Link {
        one_way: it.rtt / 2,
        jitter: it.jitter.fraction().min(1.0),
        loss: it.loss.fraction().min(1.0),
        nanos_per_byte: 1e9 / it.bytes_per_second.0.max(1) as f64,
        price_per_gb: it.price_per_gb,
    }
}

impl Location {
    fn spot(&self) -> Spot {
        Spot { region: self.region, zone: self.zone }
    }
}

pub(crate) fn is_in(location: &Location, place: Place) -> bool {
    location.spot().is_in(place)
}
