//! What a person who watches is told.

use crate::supervisor::Notice;
use std::time::Duration;
use units::Nanos;

/// One notice as a line.
pub(super) fn sentence(notice: &Notice) -> String {
    match notice {
        Notice::Waiting { instance, on } => {
            let on: Vec<String> = on.iter().map(ToString::to_string).collect();
            format!("{instance} waits for {}", on.join(" and for "))
        }
        Notice::Building { service } => format!("{service} is being built"),
        Notice::BuildFailed { service, detail, kept } => {
            let kept = if *kept { "; what runs stays" } else { "" };
            format!("{service} was not built: {detail}{kept}")
        }
        Notice::Ready { instance, after } => format!("{instance} is ready after {}", short(*after)),
        Notice::Unhealthy { instance, detail } => format!("{instance} is unhealthy: {detail}"),
        Notice::Recovered { instance } => format!("{instance} is healthy again"),
        Notice::Crashed { instance, detail, pause, attempt } => {
            format!("{instance} ended by itself ({detail}); attempt {} in {}", attempt + 1, short(*pause))
        }
        Notice::GaveUp { instance, detail, attempts, .. } => {
            format!(
                "{instance} is given up after {attempts} attempts ({detail}); `isobar restart` tries again"
            )
        }
        Notice::Completed { job } => format!("{job} is completed"),
        Notice::Stopped { instance, hard: true } => format!("{instance} did not stop and was killed"),
        Notice::Stopped { instance, hard: false } => format!("{instance} stopped"),
    }
}

pub(super) fn short(duration: Nanos) -> String {
    let duration = Duration::from_nanos(duration.as_u64());
    if duration >= Duration::from_secs(10) {
        format!("{:.0} s", duration.as_secs_f64())
    } else if duration >= Duration::from_secs(1) {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} ms", duration.as_millis())
    }
}
