//! Who is refused first when there is too little for all.
//!
//! ```text
//! Sheddable up to 60 % of the limit, SheddablePlus up to 80 %, Critical up to 95 %, CriticalPlus up to 100 %
//! ```
//! The rising thresholds have one law: whenever a class is refused, every lower class is refused as well. So a class
//! loses only after all lower ones have lost everything. Priority is set where the request enters and inherited by the
//! calls it makes ([`inherit`]): a callee must not think a critical request unimportant because of who forwarded it,
//! nor may a batch job promote itself half-way.

use crate::settings::Priority;

/// May a request of this priority start when `in_flight` of `limit` are running?
pub const fn admits(priority: Priority, in_flight: u32, limit: u32) -> bool {
    let percent = match priority {
        Priority::Sheddable => 60,
        Priority::SheddablePlus => 80,
        Priority::Critical => 95,
        Priority::CriticalPlus => 100,
    };
    // Rounded up, so that a limit of one is a limit of one for everybody and not zero.
    (in_flight as u64) < (limit as u64 * percent).div_ceil(100)
}

/// The priority of a call made while serving a request: that of the request, unless the edge says less.
pub fn inherit(request: Priority, edge: Option<Priority>) -> Priority {
    edge.map_or(request, |edge| edge.min(request))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLASSES: [Priority; 4] =
        [Priority::Sheddable, Priority::SheddablePlus, Priority::Critical, Priority::CriticalPlus];

    #[test]
    fn thresholds() {
        let highest = |priority, limit| (0..=limit).find(|it| !admits(priority, *it, limit)).unwrap();
        assert_eq!(CLASSES.map(|it| highest(it, 100)), [60, 80, 95, 100]);
        assert_eq!(CLASSES.map(|it| highest(it, 1)), [1, 1, 1, 1]);
        assert_eq!(CLASSES.map(|it| highest(it, 0)), [0, 0, 0, 0]);
        assert_eq!(inherit(Priority::Sheddable, Some(Priority::CriticalPlus)), Priority::Sheddable);
        assert_eq!(inherit(Priority::Critical, Some(Priority::Sheddable)), Priority::Sheddable);
        assert_eq!(inherit(Priority::Critical, None), Priority::Critical);
    }

    proptest! {
        #[test]
        fn a_class_loses_only_after_all_lower_ones(in_flight: u32, limit: u32) {
            let admitted = CLASSES.map(|it| admits(it, in_flight, limit));
            prop_assert!(admitted.is_sorted(), "{admitted:?}");
            prop_assert_eq!(admitted[3], in_flight < limit);
        }
    }
}
