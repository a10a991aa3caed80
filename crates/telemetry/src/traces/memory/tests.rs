use super::super::Order;
use super::*;
use crate::ids::SpanId;
use crate::tree::tests::trace;

const SECOND: u64 = 1_000_000_000;

fn store(change: impl FnOnce(&mut TraceSettings)) -> MemoryTraces {
    let mut settings = TraceSettings::default();
    change(&mut settings);
    MemoryTraces::new(settings)
}

/// The spans of `lines` under trace `id`.
fn of(id: u128, lines: &str) -> Vec<Span> {
    let mut spans = trace(lines);
    spans.iter_mut().for_each(|span| span.trace_id = TraceId::new(id).unwrap());
    spans
}

fn id(id: u128) -> TraceId {
    TraceId::new(id).unwrap()
}

fn at(seconds: f64) -> Nanos {
    Nanos::from_secs_f64(seconds)
}

const CALL: &str =
    "1 SERVER web->- @1000000 +100 \n 2<1 CLIENT web->cart @1000010 +80 \n 3<2 SERVER cart->- @1000020 +60";

#[test]
fn a_trace_is_there_at_once_and_decided_when_its_root_completed() {
    let mut traces = store(|it| it.keep.share = 0.0);
    let spans = of(7, CALL);
    // Three calls make up the slowest of their edges; those come first.
    for warm in 100..103 {
        traces.add(
            &of(warm, &CALL.replace("+100", "+900").replace("+80", "+800").replace("+60", "+700")),
            at(1.0),
        );
    }
    traces.tick(at(4.0));
    traces.add(&spans[1..], at(5.0));
    traces.tick(at(8.0));
    assert!(traces.trace(id(7)).is_some(), "no root yet");
    traces.add(&spans[..1], at(8.0));
    assert_eq!(traces.trace(id(7)).unwrap().len(), 3);
    traces.tick(at(9.9));
    assert!(traces.trace(id(7)).is_some(), "within grace");
    traces.tick(at(10.1));
    assert_eq!(traces.trace(id(7)), None, "nothing special, and no share is kept");
    assert_eq!(traces.add(&spans[..1], at(11.0)), Added { stored: 0, too_late: 1, too_many: 0 });
    assert_eq!((traces.usage().kept, traces.usage().not_kept), (3, 1));
}

#[test]
fn what_matters_is_kept_with_its_reason_and_weight() {
    let mut traces = store(|it| (it.keep.share, it.keep.slowest) = (0.5, 0));
    let mut retried = of(2, CALL);
    retried[1].set_tag(crate::span::tag::ATTEMPT, 2);
    traces.add(&of(1, &format!("{CALL} error")), at(1.0));
    traces.add(&retried, at(1.0));
    let plain: Vec<TraceId> = (10..60).map(id).collect();
    for id in &plain {
        traces.add(&of(id.get(), CALL), at(1.0));
    }
    traces.tick(at(4.0));
    assert_eq!(traces.reasons(id(1)), Some((Reasons::ERROR, 1.0)));
    assert_eq!(traces.reasons(id(2)), Some((Reasons::RETRY, 1.0)));
    let kept: Vec<_> = plain.iter().filter_map(|id| traces.reasons(*id)).collect();
    assert!((10..40).contains(&kept.len()), "{}", kept.len());
    assert!(kept.iter().all(|kept| *kept == (Reasons::SHARE, 2.0)));
    let failed = |service: &str| traces.causes(service, Nanos::ZERO, 9, Span::failed);
    assert_eq!(failed("cart"), [id(1)]);
    assert_eq!((failed("nobody"), failed("web")), (vec![], vec![]));
    let slow = |span: &Span| span.duration >= Some(Nanos::from_micros(80));
    assert_eq!(traces.causes("Cart", Nanos::ZERO, 3, slow).len(), 3, "its caller's span says so");
}

#[test]
fn silence_decides_where_no_root_comes() {
    let mut traces = store(|it| (it.keep.share, it.keep.slowest) = (0.0, 0));
    traces.add(&of(1, "2<1 SERVER cart->- @1000 +5"), at(1.0));
    traces.tick(at(10.0));
    assert!(traces.trace(id(1)).is_some());
    traces.tick(at(11.1));
    assert!(traces.trace(id(1)).is_none());
    assert_eq!(traces.usage().undecided, 0);
}

#[test]
fn memory_is_bounded_and_the_oldest_trace_goes_first() {
    let mut traces = store(|it| it.bytes_max = 400_000);
    let mut most = 0;
    for number in 1..=3_000u128 {
        traces.add(&of(number, CALL), at(number as f64 / 100.0));
        if number % 50 == 0 {
            traces.tick(at(number as f64 / 100.0));
        }
        most = most.max(traces.bytes + traces.names.bytes());
    }
    assert!(most <= 400_000, "{most}");
    let usage = traces.usage();
    assert!(usage.traces > 300 && usage.pushed_out > 0, "{usage:?}");
    assert!(traces.trace(id(3_000)).is_some() && traces.trace(id(1)).is_none());
    assert!(traces.by_arrival.len() < 5_000 && traces.undecided.len() < 5_000);
    // Everything pushed out still counts.
    let links = traces.links(Nanos::ZERO, at(1e6));
    assert_eq!(links.iter().map(|link| link.calls).sum::<u64>(), 3_000, "{links:?}");
    let counted: usize = traces.slots.iter().flatten().map(Entry::bytes).sum();
    assert_eq!(counted, traces.bytes, "the account is exact");
}

#[test]
fn traces_that_end_alike_are_few_and_their_calls_still_count() {
    let mut traces = store(|_| ());
    let alike = |number: u128| number << 64 | 7;
    for number in 1..=1_000 {
        traces.add(&of(alike(number), CALL), at(1.0));
    }
    let held: Vec<u128> = (1..=1_000).filter(|it| traces.holds(id(alike(*it)))).collect();
    assert_eq!(held, (985..=1_000).collect::<Vec<_>>(), "the newest stay");
    assert_eq!((traces.usage().traces, traces.usage().pushed_out), (16, 984));
    traces.tick(at(60.0));
    // Those that are here are one trace for links, as two lengths of one id are; the others were each their own.
    let calls: u64 = traces.links(Nanos::ZERO, at(1e6)).iter().map(|link| link.calls).sum();
    assert!((985..=1_000).contains(&calls), "{calls}");
}

#[test]
fn made_up_tag_keys_do_not_hide_services() {
    let mut traces = store(|it| it.bytes_max = 4 << 20);
    for number in 0..200u128 {
        let mut spans = of(number + 1, "1 SERVER web->- @1000000 +100");
        for key in 0..100 {
            spans[0].set_tag(&format!("key-{number}-{key}"), 1);
        }
        traces.add(&spans, at(1.0));
    }
    assert!(traces.usage().names_refused > 0, "the table is full of keys");
    traces.add(&of(900, "1 SERVER late->- @1000000 +100 \n 2<1 CLIENT late->later @1000010 +80"), at(2.0));
    traces.tick(at(60.0));
    assert_eq!(traces.services(), ["late", "web"]);
    assert_eq!(traces.remote_services("late"), ["later"]);
    let query = TraceQuery::from_zipkin(&crate::http::Query::parse("serviceName=late"), at(60.0), at(3600.0));
    assert_eq!(traces.search(&query.unwrap()).len(), 1);
    let links = traces.links(Nanos::ZERO, at(1e6));
    assert!(links.iter().any(|it| (&*it.parent, &*it.child, it.calls) == ("late", "later", 1)), "{links:?}");
}

#[test]
fn a_trace_of_very_many_services_is_found_by_each() {
    let mut traces = store(|_| ());
    let mut spans = Vec::new();
    for number in 1..=1_000u64 {
        let mut span = of(7, "1 SERVER web->- @1000000 +100").remove(0);
        span.id = SpanId::new(number).unwrap();
        span.local.service = format!("s{number}").into();
        spans.push(span);
    }
    traces.add(&spans, at(1.0));
    for (name, found) in [("s1", 1), ("s256", 1), ("s257", 1), ("s1000", 1), ("s1001", 0)] {
        let query = crate::http::Query::parse(&format!("serviceName={name}"));
        let query = TraceQuery::from_zipkin(&query, at(60.0), at(3600.0)).unwrap();
        assert_eq!(traces.search(&query).len(), found, "{name}");
    }
    let longest = traces.slots.iter().flatten().map(|it| it.services.len()).max();
    assert_eq!(longest, Some(SERVICES_PER_TRACE_MAX + 1));
}

#[test]
fn names_and_pairs_that_never_repeat_stay_within_the_budget() {
    let mut traces = store(|it| it.bytes_max = 4 << 20);
    for number in 1..=30_000u64 {
        let mut spans = of(u128::from(number), CALL);
        spans[0].name = format!("get /user/{number}").into();
        spans[1].remote = crate::span::Endpoint::named(&format!("db-{number}"));
        spans[0].set_tag(crate::span::tag::VERSION, &*"v".repeat(10_000));
        traces.add(&spans, at(number as f64 / 100.0));
        traces.count_calls(at(number as f64), "web", &format!("shard-{}", number % 7), 1, 0);
        if number % 100 == 0 {
            traces.tick(at(number as f64 / 100.0));
            assert!(traces.offered.bytes <= (4 << 20) / 16, "{}", traces.offered.bytes);
        }
    }
    assert!(traces.usage().names_refused > 0, "said, not hidden");
    assert!(traces.tag_values(crate::span::tag::VERSION).is_empty(), "nobody chooses among such values");
    assert_eq!(traces.gone.counted(), traces.gone.len(), "the account is exact");
    assert!(traces.services().contains(&"cart".to_owned()), "what is known is still offered");
}

#[test]
fn one_trace_cannot_take_everything() {
    let mut traces = store(|it| (it.spans_per_trace_max, it.bytes_per_trace_max) = (50_000, 4 << 20));
    let spans: Vec<Span> = (1..=60_000u64)
        .map(|number| {
            let mut span = Span::new(id(1), SpanId::new(number).unwrap());
            span.local = crate::span::Endpoint::named("web");
            span
        })
        .collect();
    let added = traces.add(&spans, at(1.0));
    assert_eq!((added.stored, added.too_many), (50_000, 10_000));
    assert_eq!(traces.trace(id(1)).unwrap().len(), 50_000);
    let mut fat = Span::new(id(2), SpanId::new(1).unwrap());
    fat.set_tag("stack", &*"x".repeat(1 << 20));
    let added = traces.add(&vec![fat; 10], at(1.0));
    assert_eq!((added.stored, added.too_many), (4, 6));
}

#[test]
fn hostile_names_do_not_fill_the_tables() {
    let mut traces = store(|it| (it.bytes_max, it.span_names_per_service_max) = (4 << 20, 50));
    for number in 1..=20_000u128 {
        let line = format!("1 SERVER svc-{}->- @{} +5 op-{number}", number % 3, number * 1000);
        traces.add(&of(number, &line), at(1.0));
    }
    assert!(traces.usage().bytes <= 5 << 20, "{:?}", traces.usage());
    assert_eq!(traces.span_names("svc-1").len(), 50);
    assert!(traces.usage().names_refused > 0);
    // A name that found the table full is found all the same.
    let mut query = TraceQuery::between(Nanos::ZERO, at(1e6), 10);
    traces.add(&of(99_999, "1 SERVER newcomer->- @5000000 +5"), at(1.0));
    query.service = Some("newcomer".into());
    assert_eq!(traces.search(&query).len(), 1);
}

#[test]
fn searches_use_the_index_and_keep_their_order() {
    let mut traces = store(|_| ());
    for number in 1..=100u128 {
        let line = format!("1 SERVER web->- @{} +{}", number * 1_000_000, number * 7 % 100 + 1);
        traces.add(&of(number, &line), at(200.0));
    }
    let mut query = TraceQuery::between(at(10.0), at(50.0), 5);
    let ids = |query: &TraceQuery| -> Vec<u128> {
        traces.search(query).iter().map(|spans| spans[0].trace_id.get()).collect()
    };
    assert_eq!(ids(&query), [50, 49, 48, 47, 46]);
    query.min_duration = Some(Nanos::from_micros(95));
    assert_eq!(ids(&query), [42, 28, 14], "99, 97, 99 us");
    query.order = Order::Slowest;
    (query.min_duration, query.limit) = (None, 2);
    assert_eq!(ids(&query), [14, 28], "99, 97; 42 has 95");
    query.service = Some("cart".into());
    assert_eq!(ids(&query), [0u128; 0]);
}

#[test]
fn both_lengths_of_an_id_are_strict_in_look_ups_and_one_in_links() {
    let mut traces = store(|_| ());
    traces.add(&of(1 << 64 | 5, "1 CLIENT web->cart @1000 +5"), at(1.0));
    traces.add(&of(5, "2<1 SERVER cart->- @1001 +3"), at(1.0));
    assert_eq!(traces.trace(id(5)).unwrap().len(), 1);
    assert_eq!(traces.trace(id(1 << 64 | 5)).unwrap().len(), 1);
    let links = traces.links(Nanos::ZERO, at(1.0));
    assert_eq!(links.len(), 1);
    assert_eq!((links[0].calls, &*links[0].parent, &*links[0].child), (1, "web", "cart"));
    // Removing one half leaves the other reachable.
    let slot = traces.find(id(1 << 64 | 5)).unwrap();
    traces.drop_trace(slot, None);
    assert!(traces.trace(id(5)).is_some());
}

#[test]
fn names_are_offered_until_nobody_used_them_for_long() {
    let mut traces = store(|it| it.names_live = Nanos(10 * SECOND));
    let mut spans = of(1, CALL);
    spans[0].set_tag(crate::span::tag::VERSION, "v1");
    spans[0].name = "GET /".into();
    traces.add(&spans, at(1.0));
    assert_eq!(traces.services(), ["cart", "web"]);
    assert_eq!(traces.span_names("WEB"), ["get /"]);
    assert_eq!(traces.remote_services("web"), ["cart"]);
    assert_eq!(traces.tag_values(crate::span::tag::VERSION), ["v1"]);
    traces.tick(at(2.0));
    traces.add(&of(2, "1 SERVER web->- @1 +1"), at(70.0));
    traces.tick(at(70.0));
    assert_eq!(traces.services(), ["web"]);
    assert_eq!(traces.remote_services("web"), [""; 0]);
}
