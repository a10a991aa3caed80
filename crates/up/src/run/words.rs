//! What a person who watches is told.

use crate::logs::News;
use crate::supervisor::{How, Notice};
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
        Notice::Crashed { instance, how, detail, pause, attempt } => {
            let what = match how {
                How::NeverRan => format!("could not be started: {detail}"),
                How::Ended => format!("ended by itself ({detail})"),
                How::PutDown => format!("was ended, being {detail}"),
            };
            format!("{instance} {what}; attempt {} in {}", attempt + 1, short(*pause))
        }
        Notice::GaveUp { instance, detail, attempts, .. } => {
            let service = instance.split('#').next().unwrap_or(instance);
            // A job that ends well is done, so this one was meant to stay.
            let meant = if detail == "exit status 0" {
                "; a service stays in the foreground, and what should end is a `job`"
            } else {
                ""
            };
            format!(
                "{instance} is given up after {attempts} attempts ({detail}{meant}); `isobar restart {service}` tries again"
            )
        }
        Notice::Completed { job } => format!("{job} is completed"),
        Notice::Stopped { instance, hard: true } => format!("{instance} did not stop and was killed"),
        Notice::Stopped { instance, hard: false } => format!("{instance} stopped"),
    }
}

/// What an instance that ended had left behind.
pub(super) fn of_strays(instance: &str, strays: usize) -> String {
    if strays == 1 {
        format!("{instance} left a process behind, which was ended")
    } else {
        format!("{instance} left {strays} processes behind, which were ended")
    }
}

/// Lines of whose logs, and what became of them.
pub(super) fn of_lost_lines(news: News) -> (String, String) {
    match news {
        News::Lost { service, lines, why } => {
            let text =
                format!("lines of logs are lost: {why} ({lines} of {service} so far); the system goes on");
            (service, text)
        }
        News::KeptAgain { service, lines } => {
            let text = format!("logs of {service} are kept again; {lines} lines were lost");
            (service, text)
        }
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
