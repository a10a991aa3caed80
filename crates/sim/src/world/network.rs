//! The way between two places: how long a message takes, what it costs, and when it never arrives.

use super::*;
use units::Purpose;

/// What faults add to one link. Counts, because two faults may overlap and end apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct LinkFault {
    pub(super) cut: u32,
    pub(super) delay: Nanos,
    /// Survival of a packet is multiplied: two losses of 10 % are one of 19 %.
    pub(super) passes: Passes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Passes(pub(super) f64);

impl Default for Passes {
    fn default() -> Self {
        Self(1.0)
    }
}

/// The least time a transport waits before it sends a lost packet again.
const RETRANSMIT_MIN: Nanos = Nanos::from_millis(200);
/// Losses in a row after which a packet is taken as through: each wait is twice the one before, so by then minutes are gone.
const RETRANSMITS_MAX: u32 = 8;
/// When a transport stops sending again and calls the connection broken.
pub(super) const GIVE_UP: Nanos = Nanos::from_secs(120);

impl World<'_> {
    /// The time one message takes, or `None` if it cannot arrive. Its bytes are counted either way: they were sent.
    ///
    /// Loss is felt as delay, because the transport sends again: at least 200 ms, doubling.
    pub(super) fn transit(&mut self, from: u16, to: u16, bytes: u64, draw: Draw) -> Option<Nanos> {
        let index = from as usize * self.plan.locations.len() + to as usize;
        let link = &self.plan.links[index];
        self.meters.bytes[index] += bytes;
        let mut way = link.one_way;
        let mut loss = link.loss;
        if self.any_link_fault {
            let fault = &self.link_faults[index];
            if fault.cut > 0 {
                return None;
            }
            way += fault.delay;
            loss = 1.0 - (1.0 - loss) * fault.passes.0;
        }
        if link.jitter > 0.0 {
            let spread = 2.0 * draw.for_purpose(Purpose::Network).unit() - 1.0;
            way = way.mul_f64(1.0 + link.jitter * spread);
        }
        if link.nanos_per_byte > 0.0 && bytes > 0 {
            way += Nanos((bytes as f64 * link.nanos_per_byte) as u64);
        }
        if loss > 0.0 {
            let mut wait = RETRANSMIT_MIN.max(link.one_way * 4);
            for n in 0..RETRANSMITS_MAX {
                if draw.child(u64::from(n)).for_purpose(Purpose::Fault).unit() >= loss {
                    break;
                }
                way += wait;
                wait = wait * 2;
            }
        }
        Some(way)
    }

    /// Whether a message sent now would arrive.
    pub(super) fn reaches(&self, from: u16, to: u16) -> bool {
        !self.any_link_fault
            || self.link_faults[from as usize * self.plan.locations.len() + to as usize].cut == 0
    }
}
