//! Where a service's instances stand, counted by zone: instance *i* stands in zone *i* modulo its region's zones,
//! unless the file pins them to one zone.

use crate::system::{Placement, Service, System, Zone};
use units::Id;

/// Instances in each zone that has any, in the file's order. Empty for services that stand in no zone.
pub(super) fn instances_by_zone(system: &System, service: &Service) -> Vec<(Zone, u32)> {
    let mut found: Vec<(Zone, u32)> = Vec::new();
    if service.placement != Placement::Zones {
        return found;
    }
    let mut next_instance = 0u64;
    for (region, count) in service.replicas.per_region.iter().enumerate() {
        let region = Id::from_usize(region);
        let Some(zones) = system.regions.get(region).map(|it| it.zones.len() as u64) else { continue };
        let pinned = service.replicas.pinned.get(region.index()).copied().flatten();
        if let Some(zone) = pinned.filter(|_| *count > 0) {
            found.push((Zone { region, zone }, *count));
            next_instance += u64::from(*count);
            continue;
        }
        for zone in 0..zones {
            // The first instance of this region that lands in this zone, then every `zones`-th.
            let skip = (zone + zones - next_instance % zones) % zones;
            let here = (u64::from(*count) + zones - 1).saturating_sub(skip) / zones;
            if here > 0 {
                found.push((Zone { region, zone: zone as u32 }, here as u32));
            }
        }
        next_instance += u64::from(*count);
    }
    found
}

/// `eu-west/a`.
pub(super) fn zone_name(system: &System, zone: Zone) -> String {
    let region = &system.regions[zone.region];
    format!("{}/{}", region.name.value, region.zones[zone.zone as usize].value)
}
