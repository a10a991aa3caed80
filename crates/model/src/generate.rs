//! A large system as a text, for measuring: the same text for the same numbers on every machine.
//!
//! It looks like what people write (teams, several kinds, operations with paths and laws, calls in block and flow
//! form, some policy), so that a speed measured on it means something. Calls only go to later services, so it has no
//! circle and no mistake.

use std::fmt::Write;
use units::Rng;

/// A valid file of so many services with about so many calls between them.
pub fn system(services: u32, calls: u32) -> String {
    let mut rng = Rng::from_seed(u64::from(services));
    let mut text = String::with_capacity(calls as usize * 64 + services as usize * 400);
    let teams = (services / 20).max(1);
    text.push_str("isobar: 1\nsystem: generated\nteams:\n");
    for team in 0..teams {
        let _ = writeln!(
            text,
            "  team-{team}: {{contact: \"#team-{team}\", oncall: https://oncall.example/{team}}}"
        );
    }
    text.push_str("places:\n  eu-west-1: {zones: [a, b, c]}\n  us-east-1: {zones: [a, b, c]}\nservices:\n");
    let each = calls / services.max(1);
    let mut left = calls;
    for service in 0..services {
        let later = services - service - 1;
        let own = if later == 0 {
            0
        } else {
            left.min(each + u32::from(left % services.max(1) > service)).min(later)
        };
        one(&mut text, &mut rng, service, teams, own, later);
        left -= own;
    }
    text.push_str(
        "edges:\n  default: {timeout: 1s, retry: {attempts: 2, budget: 20%}, balance: peak-ewma}\n",
    );
    for service in (0..services.saturating_sub(1)).step_by(10) {
        let _ = writeln!(
            text,
            "  service-{service} -> *: {{timeout: 800ms, breaker: {{failures: 5, pause: 1s}}}}"
        );
    }
    text.push_str(
        "gateways:\n  edge:\n    listen: \"127.0.0.1:8080\"\n    routes: [{path: /, to: service-0}]\n",
    );
    text.push_str("traffic:\n  users: {to: edge \"GET /items\", rate: 10/s}\n");
    text
}

fn one(text: &mut String, rng: &mut Rng, service: u32, teams: u32, calls: u32, later: u32) {
    let store = later < 5;
    let (name, team) = (service, service % teams);
    let _ = writeln!(
        text,
        "  service-{name}:\n    team: team-{team}\n    replicas: {{eu-west-1: 3, us-east-1: 3}}"
    );
    if store {
        text.push_str(
            "    kind: store\n    operations: {read: \"lognormal(p50 1ms, p99 8ms)\", write: 2ms}\n",
        );
        return;
    }
    text.push_str(
        "    health: {path: /healthz, every: 2s}\n    concurrency: 64\n    queue: 128\n    operations:\n",
    );
    let _ = writeln!(
        text,
        "      \"GET /items\":\n        work: lognormal(p50 2ms, p99 9ms)\n        response: 8KiB"
    );
    if calls > 0 {
        text.push_str("        calls:\n");
    }
    for call in 0..calls {
        // Mostly near neighbours, as in real systems, with some far ones.
        let reach = if rng.below(10) == 0 { later } else { later.min(200) };
        let callee = service + 1 + rng.below(u64::from(reach)) as u32;
        let operation = if later + service - callee < 5 { "read" } else { "GET /items" };
        match call % 5 {
            4 => {
                let _ = writeln!(
                    text,
                    "          - {{call: service-{callee} \"{operation}\", optional: true, fallback: empty, chance: 10%}}"
                );
            }
            _ => {
                let _ = writeln!(text, "          - service-{callee} \"{operation}\"");
            }
        }
    }
    text.push_str("    slo: {availability: 99.9%, latency: {p99: 250ms}}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::load_str;

    #[test]
    fn what_is_generated_is_valid_and_always_the_same() {
        for (services, calls) in [(1, 0), (10, 30), (300, 3_000)] {
            let text = system(services, calls);
            assert_eq!(text, system(services, calls));
            let loaded = load_str(&text);
            assert!(loaded.is_good(), "{:?}", loaded.diagnostics);
            let system = loaded.system().expect("it is good");
            assert_eq!(system.services.len(), services as usize);
        }
        assert_eq!(system(300, 3_000).matches("          - ").count(), 3_000);
    }
}
