//! Five thousand routes: what the last of them costs, and how long a change of one takes.

use crate::peers::peer;
use crate::process::{Paths, completed, cpu_us, median, start};
use crate::{BACK_H1, FRONT, Fallible, cases::wrk};
use proxy::config::{Config, Edge, Listener, PathMatch, Route, Service};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The last of 5,000 routes against the first: processor time per request, the median of alternating rounds.
pub(crate) fn last_route(paths: &Paths, rounds: usize, seconds: u32) -> Fallible<f64> {
    let running = start(peer("isobar", "routes", paths).ok_or("ourselves")?, FRONT)?;
    let pid = running.0.id();
    let mut samples = [Vec::new(), Vec::new()];
    for at in 0..rounds * 2 + 2 {
        let url = ["http://127.0.0.1:19100/r/0000", "http://127.0.0.1:19100/r/4999"][at % 2];
        let before = cpu_us(pid)?;
        let output = wrk(seconds, url, &[]).output()?;
        let used = cpu_us(pid)? - before;
        let count = completed(&String::from_utf8_lossy(&output.stdout)).ok_or("no requests")?;
        // The first of each warms up.
        if at >= 2 {
            samples[at % 2].push(used as f64 / count as f64);
        }
    }
    let [mut first, mut last] = samples;
    Ok(median(&mut last) / median(&mut first))
}

/// From the call that changes one of 5,000 routes until every worker runs it, under load: median and p99 in
/// milliseconds, and requests that failed meanwhile.
pub(crate) fn reloads() -> Fallible<(f64, f64, u64)> {
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut routes: Vec<Arc<Route>> = (0..5_000)
        .map(|n| {
            Arc::new(Route::forward(&format!("r{n}"), PathMatch::Prefix(format!("/r/{n:04}")), "edge->api"))
        })
        .collect();
    let mut listener = Listener::http("edge", address(FRONT), Vec::new());
    listener.routes.clone_from(&routes);
    let mut config = Config {
        services: vec![Arc::new(Service::http1("api", &[address(BACK_H1)]))],
        edges: vec![Arc::new(Edge::new("edge", "api", policy::settings::EdgeSettings::default()))],
        listeners: vec![Arc::new(listener.clone())],
        ..Config::default()
    };
    let options = proxy::Options { workers: 1, admin: None, seed: 1, ..Default::default() };
    let proxy = proxy::Proxy::start(config.clone(), options)?;
    let load = wrk(6, "http://127.0.0.1:19100/r/0007", &[]).stdout(Stdio::piped()).spawn()?;
    std::thread::sleep(Duration::from_millis(500));
    let mut took = Vec::new();
    for n in 0..200 {
        let mut route = (*routes[4_321]).clone();
        route.rewrite.request.set = vec![("x-change".into(), n.to_string())];
        routes[4_321] = Arc::new(route);
        listener.routes.clone_from(&routes);
        config.listeners[0] = Arc::new(listener.clone());
        let began = Instant::now();
        proxy.reload(config.clone())?;
        while !proxy.is_applied() {
            // Looking without a pause would take the core from the worker that is waited for.
            std::thread::sleep(Duration::from_micros(100));
        }
        took.push(began.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(15));
    }
    let output = load.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses: ")?.parse().ok())
        .unwrap_or(0);
    took.sort_by(f64::total_cmp);
    Ok((took[took.len() / 2], took[took.len() * 99 / 100], failed))
}
