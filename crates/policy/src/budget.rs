//! Retry budget: how many retries may ride on real traffic.
//!
//! "Three attempts each" triples load exactly when a backend is sick. A budget ties retries to first attempts:
//!
//! ```text
//! retries in the window ≤ ratio · first attempts in the window + floor · window
//! ```
//!
//! holds whenever a retry is granted, so an outage cannot feed itself. Over a long time, load is at most `1 + ratio + floor/λ` of what users sent. The floor
//! lets a caller with little traffic retry at all; it belongs to the service, so it is divided among `holders` (the
//! proxies that call it): a hundred proxies with ten a second each would be a thousand a second whatever the ratio.
//!
//! All in millionths of a retry. Budgets that withdraw a whole number of deposits (`1 / ratio`, truncated) turn a ratio
//! of 60 or 70 % into 100 %. It does not choose *what* is safe to retry; [`crate::retry`] does.
//!
//! ```
//! use units::{Nanos, Percent, Rate};
//! let settings = policy::settings::Budget { ratio: Percent::from_whole(10), floor: Rate::ZERO, window: Nanos::from_secs(10) };
//! let mut budget = policy::Budget::new(&settings, 1);
//! (0..20).for_each(|_| budget.on_request(Nanos::ZERO));
//! assert_eq!((0..9).filter(|_| budget.withdraw(Nanos::ZERO)).count(), 2);
//! ```

use crate::settings;
use crate::window::Window;
use units::Nanos;

const RETRY: u64 = 1_000_000;

/// One budget per caller and callee, for all their operations together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Deposits and withdrawals, in millionths of a retry.
    window: Window<10, 2>,
    deposit: u64,
    reserve: u64,
    refused: u64,
}

impl Budget {
    /// `holders` share the floor; at least one.
    pub fn new(settings: &settings::Budget, holders: u32) -> Self {
        let floor = settings.floor.per_second() * settings.window.as_secs_f64() / f64::from(holders.max(1));
        Self {
            window: Window::new(settings.window),
            deposit: settings.ratio.millionths(),
            reserve: (floor * RETRY as f64) as u64,
            refused: 0,
        }
    }

    /// A first attempt was sent.
    pub fn on_request(&mut self, now: Nanos) {
        self.window.add(now, [self.deposit, 0]);
    }

    /// Takes one retry. False: the budget is empty, and the refusal has been counted.
    pub fn withdraw(&mut self, now: Nanos) -> bool {
        if self.left(now) < 1 {
            self.refused += 1;
            return false;
        }
        self.window.add(now, [0, RETRY]);
        true
    }

    /// Whole retries left at this moment; reads only.
    pub fn left(&self, now: Nanos) -> u64 {
        let [deposits, withdrawals] = self.window.peek(now);
        deposits.saturating_add(self.reserve).saturating_sub(withdrawals) / RETRY
    }

    /// Millionths of a retry that are left, and that the recent past allows in all; reads only.
    pub fn level(&self, now: Nanos) -> (u64, u64) {
        let [deposits, withdrawals] = self.window.peek(now);
        let allowed = deposits.saturating_add(self.reserve);
        (allowed.saturating_sub(withdrawals), allowed)
    }

    /// Retries refused since the beginning.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use units::{Percent, Rate};

    fn settings(ratio: u64, floor: u64) -> settings::Budget {
        settings::Budget {
            ratio: Percent::from_whole(ratio),
            floor: Rate::per_second_whole(floor),
            window: Nanos::from_secs(10),
        }
    }

    /// Every request fails and asks for `asks` retries; what share is granted after 60 s at `rate` a second?
    fn amplification(settings: &settings::Budget, holders: u32, rate: u64, asks: u32) -> f64 {
        let mut budget = Budget::new(settings, holders);
        let (mut sent, mut requests) = (0u64, 0u64);
        for n in 0..60 * rate {
            let now = Nanos(n * 1_000_000_000 / rate);
            budget.on_request(now);
            requests += 1;
            sent += 1 + (0..asks).filter(|_| budget.withdraw(now)).count() as u64;
        }
        sent as f64 / requests as f64
    }

    #[test]
    fn ratios_are_exact_where_others_round() {
        for ratio in [1, 10, 20, 33, 50, 60, 70, 90, 100, 150] {
            let seen = amplification(&settings(ratio, 0), 1, 1_000, 3);
            let expected = 1.0 + ratio as f64 / 100.0;
            assert!((seen - expected).abs() < 0.002, "{ratio} %: {seen} against {expected}");
        }
    }

    #[test]
    fn the_floor_is_divided_among_its_holders() {
        // 1 + ratio + floor / rate
        for (ratio, floor, holders, rate, expected) in
            [(20, 10, 1, 100, 1.3), (20, 10, 10, 100, 1.21), (0, 10, 1, 10, 2.0), (20, 3, 1, 1, 4.0)]
        {
            let seen = amplification(&settings(ratio, floor), holders, rate, 3);
            assert!((seen - expected).abs() < 0.01 * expected, "{ratio} % + {floor}/{holders}: {seen}");
        }
    }

    #[test]
    fn refusals_are_counted_and_old_traffic_forgotten() {
        let mut budget = Budget::new(&settings(20, 0), 1);
        (0..5).for_each(|_| budget.on_request(Nanos::ZERO));
        assert!(budget.withdraw(Nanos::from_secs(1)));
        assert!(!budget.withdraw(Nanos::from_secs(1)));
        assert_eq!(budget.refused(), 1);
        (0..5).for_each(|_| budget.on_request(Nanos::from_secs(5)));
        assert_eq!(budget.left(Nanos::from_secs(5)), 1);
        assert_eq!(budget.level(Nanos::from_secs(5)), (RETRY, 2 * RETRY));
        assert_eq!(budget.left(Nanos::from_secs(16)), 0);
        assert_eq!(budget.level(Nanos::from_secs(16)), (0, 0));
    }

    proptest! {
        #[test]
        fn a_budget_is_never_exceeded(
            ratio in 0u64..200,
            floor in 0u64..20,
            steps in prop::collection::vec((0u64..2_000, 0u64..4, 0u64..9), 1..300),
        ) {
            let mut budget = Budget::new(&settings(ratio, floor), 1);
            let (mut now, mut log) = (Nanos::ZERO, Vec::new());
            for (wait_ms, requests, asks) in steps {
                now += Nanos::from_millis(wait_ms);
                (0..requests).for_each(|_| budget.on_request(now));
                let retries = (0..asks).filter(|_| budget.withdraw(now)).count() as u64;
                log.push((now, requests, retries));
                // The last ten slots of a second, the one in progress included.
                let recent = log.iter().filter(|(at, ..)| at.0 / 1_000_000_000 + 10 > now.0 / 1_000_000_000);
                let (all, again) = recent.fold((0, 0), |(r, a), (_, requests, retries)| (r + requests, a + retries));
                // Traffic is forgotten before the retries it paid for, so the law is about the moment of granting.
                let lawful = 100 * again <= ratio * all + 100 * floor * 10;
                prop_assert!(retries == 0 || lawful, "{again} retries on {all} requests");
            }
        }
    }
}
