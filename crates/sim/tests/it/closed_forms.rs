//! Forecasts of the world against what queueing theory says.

use crate::common::{plan, run};
use sim::{Options, stats};
use units::Nanos;

#[test]
fn first_light() {
    let plan = plan(
        r#"
isobar: 1
network: {in-zone: {rtt: 0, jitter: 0%}}
services:
  api:
    concurrency: 1
    queue: unbounded
    operations:
      read: {work: exponential(mean 1ms)}
traffic:
  users: {to: api "read", rate: 800/s}
"#,
    );
    let options = Options {
        duration: Some(Nanos::from_secs(60)),
        warm_up: Some(Nanos::from_secs(5)),
        threads: 2,
        ..Options::default()
    };
    let forecast = run(&plan, &options);
    let means: Vec<f64> =
        forecast.runs.iter().map(|it| it.meters.loads[0].requests.latency.mean().unwrap()).collect();
    println!("{:?} se {} {:?}", means, stats::standard_error(&means), forecast.total.loads[0]);
    println!("{:?}", forecast.runs[0].tally);
}
