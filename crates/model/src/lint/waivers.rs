//! Rules about the waivers themselves: a risk that was accepted is looked at again.
//!
//! They run last, when every other rule has asked what was accepted.

use super::report::{Report, Tell};
use super::{Facts, rule};

/// L041. The day has passed; the risk is reported again, and so is the promise to remove it.
pub(super) fn expired(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (at, waiver) in facts.system.waivers.iter().enumerate() {
        if !report.expired(at) || rule(&waiver.code.value).is_none() {
            continue;
        }
        let (year, month, day) = waiver.until.value;
        report
            .push(
                waiver.until.span,
                format!(
                    "the waiver of {} (\"{}\") ended on {year}-{month:02}-{day:02}",
                    waiver.code.value, waiver.reason.value
                ),
            )
            .say("this day has passed")
            .fix("remove the risk and the waiver, or accept it again with a later day");
    }
}

/// L042. A waiver that matches nothing hides the next risk that it does match.
pub(super) fn nothing(facts: &Facts<'_>, report: &mut Report<'_>) {
    for (at, waiver) in facts.system.waivers.iter().enumerate() {
        if report.matched(at) {
            continue;
        }
        let code = &waiver.code.value;
        let Some(waived) = rule(code) else { continue }; // Resolving refuses codes that no rule has.
        if report.expired(at) {
            continue; // Told as expired; one line is enough.
        }
        report
            .push(waiver.code.span, format!("this waiver of {code} ({}) waives nothing", waived.summary))
            .say("no such finding")
            .fix("remove it: the risk is gone, or `on` names the wrong place");
    }
}
