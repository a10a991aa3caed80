//! EC2 simple scaling: one adjustment, then nothing until the activity has ended **and** the cooldown after it is over.

use super::alarm::{Alarm, AlarmState};
use super::{Advice, Because, Fleet, Reading, adjusted, steady};
use crate::settings::scale;
use units::Nanos;

#[derive(Clone, Debug)]
pub(super) struct AwsSimple {
    policies: Vec<(Alarm, scale::SimplePolicy)>,
    /// The cooldown of the last adjustment; it starts when its instances are in service.
    pending: Option<Nanos>,
    quiet_until: Nanos,
}

impl AwsSimple {
    pub(super) fn new(rule: &scale::AwsSimple) -> Self {
        let policies = rule.policies.iter().map(|it| (Alarm::new(&it.alarm), it.clone())).collect();
        Self { policies, pending: None, quiet_until: Nanos::ZERO }
    }

    pub(super) fn tick(&self) -> Nanos {
        self.policies.iter().map(|(alarm, _)| alarm.period()).min().unwrap_or(Nanos::from_secs(60))
    }

    pub(super) fn observe(&mut self, now: Nanos, reading: &Reading) {
        self.policies.iter_mut().for_each(|(alarm, _)| alarm.observe(now, reading));
    }

    pub(super) fn decide(&mut self, now: Nanos, fleet: Fleet) -> Advice {
        let mut wanted = None;
        for (alarm, policy) in &mut self.policies {
            if alarm.state(now) == AlarmState::Alarm {
                let magnitude = policy.min_adjustment_magnitude;
                let desired =
                    adjusted(policy.adjustment_type, policy.scaling_adjustment, fleet.desired, magnitude);
                // Of two alarms at once the one that keeps more wins.
                wanted = wanted.max(Some((desired, policy.cooldown)));
            }
        }
        let active = fleet.ready != fleet.desired;
        if let Some(cooldown) = self.pending.filter(|_| !active) {
            self.pending = None;
            self.quiet_until = now + cooldown;
        }
        match wanted {
            None => steady(fleet),
            Some((desired, _)) if desired == fleet.desired => steady(fleet),
            Some(_) if active || self.pending.is_some() || now < self.quiet_until => {
                Advice { desired: fleet.desired, because: Because::Cooldown }
            }
            Some((desired, cooldown)) => {
                self.pending = Some(cooldown);
                Advice { desired, because: Because::Rule }
            }
        }
    }
}
