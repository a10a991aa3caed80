//! A run allocates while it grows to its size and never again: twice the simulated time, the same allocations.

#![allow(unsafe_code, reason = "counting allocations needs an allocator of our own, and the trait is unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use units::Nanos;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed to the system's allocator unchanged; counting touches no memory it gave out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System.alloc` above with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as for `dealloc`, and the caller keeps the contract on `size`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const MESH: &str = r#"
isobar: 1
places: {north: {zones: [a, b, c]}}
services:
  web:
    replicas: 3
    concurrency: 32
    operations:
      "GET /":
        work: "lognormal(p50 2ms, p99 9ms)"
        calls:
          - cart "read"
          - all: [items "read", {call: ads "read", optional: true}]
        response: 8KiB
  cart: {replicas: 3, concurrency: 16, operations: {read: {work: "gamma(mean 2ms, cv 0.7)", errors: 1%}}}
  items: {replicas: 3, concurrency: 16, kind: cache, cache: {hit_rate: 90%}, operations: {read: {work: 1ms, calls: [db "read"]}}}
  ads: {replicas: 2, concurrency: 8, operations: {read: exponential(mean 3ms)}}
  db: {replicas: 3, concurrency: 8, kind: store, store: {copies: 3, consistency: quorum}, operations: {read: 2ms}}
edges:
  default:
    timeout: 200ms
    retry: {attempts: 3, per_try: 50ms, budget: 20%, on: [5xx, timeout]}
    breaker: {errors: 50%, requests: 20, window: 10s}
  web -> cart: {hedge: {after: 20ms}}
gateways:
  edge: {listen: "127.0.0.1:8080", routes: [{path: /, to: web}]}
traffic:
  shoppers: {to: edge "GET /", rate: 300/s}
"#;

fn allocations_of(seconds: u64) -> (u64, u64) {
    let loaded = model::load::load_str(MESH);
    let system = loaded.system().expect("the file of this test is a good one");
    let plan = sim::compile(system, &|_| Ok(Vec::new())).expect("it records nothing");
    let options = sim::Options {
        runs: 1,
        duration: Some(Nanos::from_secs(seconds)),
        warm_up: Some(Nanos::from_secs(20)),
        ..sim::Options::default()
    };
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let forecast = sim::forecast(&plan, &options, &|_| true).expect("it is stable");
    (ALLOCATIONS.load(Ordering::Relaxed) - before, forecast.total.events)
}

#[test]
fn longer_runs_allocate_no_more_than_shorter_ones() {
    let (short, few) = allocations_of(20);
    let (long, many) = allocations_of(60);
    let more = long.saturating_sub(short);
    let events = many - few;
    assert!(events > 100_000, "too little was simulated to tell: {events} events");
    // A queue may still reach a length it never had, and a histogram an octave; nothing may follow the events.
    assert!(more < 200, "{more} allocations in {events} events");
}
