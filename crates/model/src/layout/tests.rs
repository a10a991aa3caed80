use proptest::prelude::*;
use units::Rng;

use super::*;

/// A system as people build them: a few entries, layers of services, popular stores, an occasional cycle.
fn system(services: usize, calls: usize, groups: usize, seed: u64) -> Graph {
    let mut rng = Rng::from_seed(seed);
    let mut graph = Graph::default();
    for _ in 0..groups {
        graph.add_group(None, 90.0);
    }
    for node in 0..services {
        let group = (groups > 0).then(|| (node * 7919 + node / 3) % groups);
        graph.add_node(110.0 + (node % 5) as f64 * 12.0, 40.0, group, Hold::Free);
    }
    // Call graphs are shallow however many services there are: about ten tiers.
    let tier = services.div_ceil(10).max(1) as u64;
    let last = services as u64 - 1;
    for call in 0..calls as u64 {
        let from = if call <= last { call } else { rng.below(services as u64) };
        // Mostly to the next tier; sometimes anywhere, sometimes to a popular one at the end.
        let next = (from / tier + 1) * tier;
        let to = match rng.below(20) {
            0 => rng.below(services as u64),
            1..=3 => last - rng.below(tier.min(last + 1)),
            _ => (next + rng.below(tier)).min(last),
        };
        graph.add_edge(from as usize, to as usize);
    }
    graph
}

fn boxes(graph: &Graph, picture: &Picture) -> Vec<Rect> {
    let around = |(node, at): (&Node, &Point)| Rect {
        left: at.x - node.width / 2.0,
        top: at.y - node.height / 2.0,
        right: at.x + node.width / 2.0,
        bottom: at.y + node.height / 2.0,
    };
    graph.nodes.iter().zip(&picture.nodes).map(around).collect()
}

fn overlap(a: &Rect, b: &Rect) -> bool {
    const TOUCH: f64 = 1e-3;
    a.left + TOUCH < b.right
        && b.left + TOUCH < a.right
        && a.top + TOUCH < b.bottom
        && b.top + TOUCH < a.bottom
}

fn contains(outer: &Rect, inner: &Rect) -> bool {
    const TOUCH: f64 = 1e-3;
    outer.left <= inner.left + TOUCH
        && outer.top <= inner.top + TOUCH
        && inner.right <= outer.right + TOUCH
        && inner.bottom <= outer.bottom + TOUCH
}

/// What every picture owes its reader.
#[track_caller]
fn assert_sound(graph: &Graph, picture: &Picture) {
    let boxes = boxes(graph, picture);
    for (a, rect) in boxes.iter().enumerate() {
        assert!(contains(&picture.bounds, rect), "node {a} is cut off");
        for (b, other) in boxes.iter().enumerate().skip(a + 1) {
            assert!(!overlap(rect, other), "nodes {a} and {b} cover each other: {rect:?} {other:?}");
        }
        for (group, frame) in picture.groups.iter().enumerate() {
            if graph.ancestors(graph.nodes[a].group).any(|it| it == group) {
                assert!(contains(frame, rect), "node {a} sticks out of its group {group}");
            } else {
                assert!(!overlap(frame, rect), "group {group} swallows the stranger {a}");
            }
        }
    }
    for (edge, route) in graph.edges.iter().zip(&picture.edges) {
        assert!(route.points.len() >= 4 && route.points.len() % 3 == 1, "an arrow is whole curves");
        let touches = |point: &Point, rect: &Rect| {
            (point.x - rect.left).abs().min((point.x - rect.right).abs()) < 1e-6
                && rect.top <= point.y
                && point.y <= rect.bottom
        };
        assert!(touches(&route.points[0], &boxes[edge.from]), "an arrow starts at its caller's side");
        assert!(touches(&route.points[route.points.len() - 1], &boxes[edge.to]), "and ends at its target's");
        assert!(route.points.iter().all(|it| it.x.is_finite() && it.y.is_finite()));
    }
}

#[test]
fn nothing_is_drawn_of_nothing() {
    let picture = Graph::default().lay_out();
    assert_eq!((picture.nodes.len(), picture.bounds), (0, Rect::default()));
}

#[test]
fn a_chain_is_a_straight_line() {
    let mut graph = Graph::default();
    let nodes: Vec<usize> = (0..6).map(|_| graph.add_node(100.0, 40.0, None, Hold::Free)).collect();
    nodes.windows(2).for_each(|pair| {
        graph.add_edge(pair[0], pair[1]);
    });
    let picture = graph.lay_out();
    assert_sound(&graph, &picture);
    for pair in picture.nodes.windows(2) {
        assert!(pair[0].x < pair[1].x && (pair[0].y - pair[1].y).abs() < 0.5, "{:?}", picture.nodes);
    }
}

#[test]
fn a_cycle_has_one_backward_arrow_and_a_self_call_is_a_loop() {
    let mut graph = Graph::default();
    let [a, b, c] = [(); 3].map(|()| graph.add_node(100.0, 40.0, None, Hold::Free));
    for (from, to) in [(a, b), (b, c), (c, a), (b, b)] {
        graph.add_edge(from, to);
    }
    let picture = graph.lay_out();
    assert_sound(&graph, &picture);
    let backward: Vec<bool> = picture.edges.iter().map(|it| it.backward).collect();
    assert_eq!(backward, [false, false, true, false]);
}

#[test]
fn nodes_that_are_alike_share_a_column_even_if_they_call_each_other() {
    let mut graph = Graph::default();
    let nodes: Vec<usize> = (0..4).map(|_| graph.add_node(100.0, 40.0, None, Hold::Free)).collect();
    for &it in &nodes[..3] {
        graph.set_alike(it, 0);
        graph.add_edge(it, nodes[3]);
    }
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        graph.add_edge(nodes[from], nodes[to]);
    }
    let picture = graph.lay_out();
    assert_sound(&graph, &picture);
    assert!(picture.nodes[..3].iter().all(|it| it.x == picture.nodes[0].x && it.x < picture.nodes[3].x));
}

#[test]
fn arrows_do_not_cross_where_they_need_not() {
    // Two chains written interleaved and upside down.
    let mut graph = Graph::default();
    let nodes: Vec<usize> = (0..6).map(|_| graph.add_node(100.0, 40.0, None, Hold::Free)).collect();
    for (from, to) in [(0, 3), (1, 2), (3, 4), (2, 5)] {
        graph.add_edge(nodes[from], nodes[to]);
    }
    let picture = graph.lay_out();
    let above = |a: usize, b: usize| picture.nodes[a].y < picture.nodes[b].y;
    assert!(above(0, 1) == above(3, 2) && above(3, 2) == above(4, 5), "{:?}", picture.nodes);
}

#[test]
fn many_that_nobody_calls_fill_a_block_not_a_column() {
    let mut graph = Graph::default();
    (0..40).for_each(|_| {
        graph.add_node(120.0, 40.0, None, Hold::Free);
    });
    let picture = graph.lay_out();
    assert_sound(&graph, &picture);
    let shape = picture.bounds.width() / picture.bounds.height();
    assert!((0.8..3.0).contains(&shape), "{shape}");
}

#[test]
fn nested_groups_are_nested_frames() {
    let mut graph = Graph::default();
    let region = graph.add_group(None, 60.0);
    let zones = [graph.add_group(Some(region), 40.0), graph.add_group(Some(region), 40.0)];
    let other = graph.add_group(None, 300.0);
    let mut add = |group| graph.add_node(100.0, 40.0, group, Hold::Free);
    let nodes = [add(Some(zones[0])), add(Some(zones[1])), add(Some(zones[0])), add(Some(other)), add(None)];
    for (from, to) in [(0, 1), (1, 2), (0, 2), (3, 2), (4, 3), (4, 0), (4, 2)] {
        graph.add_edge(nodes[from], nodes[to]);
    }
    let picture = graph.lay_out();
    assert_sound(&graph, &picture);
    assert!(zones.iter().all(|&it| contains(&picture.groups[region], &picture.groups[it])));
    assert!(!overlap(&picture.groups[zones[0]], &picture.groups[zones[1]]));
    assert!(!overlap(&picture.groups[region], &picture.groups[other]));
    assert!(picture.groups[other].width() > 299.9, "its label fits");
}

#[test]
fn what_a_person_pinned_stays_exactly() {
    let mut graph = system(30, 60, 3, 5);
    let picture = graph.lay_out();
    for (node, at) in picture.nodes.iter().enumerate() {
        graph.nodes[node].hold = Hold::Near(*at);
    }
    let wanted = Point { x: picture.nodes[4].x + 31.0, y: picture.nodes[4].y - 400.0 };
    graph.nodes[4].hold = Hold::Pinned(wanted);
    assert_eq!(graph.lay_out().nodes[4], wanted);
}

/// Lays out, holds on to every position, adds one leaf, lays out again: how many of the old
/// nodes moved aside, and how many up or down?
fn moved_by_a_leaf(mut graph: Graph, caller: usize) -> (usize, usize) {
    let before = graph.lay_out();
    for (node, at) in before.nodes.iter().enumerate() {
        graph.nodes[node].hold = Hold::Near(*at);
    }
    let leaf = graph.add_node(110.0, 40.0, graph.nodes[caller].group, Hold::Free);
    graph.add_edge(caller, leaf);
    let after = graph.lay_out();
    assert_sound(&graph, &after);
    let moved = |by: fn(&Point, &Point) -> f64| {
        before.nodes.iter().zip(&after.nodes).filter(|(a, b)| by(a, b).abs() > 0.5).count()
    };
    (moved(|a, b| a.x - b.x), moved(|a, b| a.y - b.y))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_picture_is_sound_and_repeatable(
        services in 1usize..60,
        calls_per_service in 0usize..4,
        groups in 0usize..6,
        seed in any::<u64>(),
    ) {
        let graph = system(services, services * calls_per_service, groups, seed);
        let picture = graph.lay_out();
        assert_sound(&graph, &picture);
        prop_assert_eq!(&picture, &graph.lay_out());
    }

    #[test]
    fn holding_every_position_changes_nothing(services in 2usize..60, groups in 0usize..4, seed in any::<u64>()) {
        let mut graph = system(services, services * 2, groups, seed);
        let before = graph.lay_out();
        for (node, at) in before.nodes.iter().enumerate() {
            graph.nodes[node].hold = Hold::Near(*at);
        }
        let after = graph.lay_out();
        for (a, b) in before.nodes.iter().zip(&after.nodes) {
            prop_assert!((a.x - b.x).abs() < 1.0 && (a.y - b.y).abs() < 1.0, "{:?} moved to {:?}", a, b);
        }
    }

    #[test]
    fn one_more_leaf_disturbs_nobody(services in 10usize..120, groups in 0usize..4, seed in any::<u64>()) {
        let graph = system(services, services * 2, groups, seed);
        let (aside, down) = moved_by_a_leaf(graph, (seed % services as u64) as usize);
        prop_assert_eq!(aside, 0, "columns stay");
        // A group without room grows, and those below it move down; without groups there is always room.
        prop_assert!(down == 0 || groups > 0, "{} of {} moved", down, services);
    }
}

/// Bends, and with them time, grow about as the system does. Four times the services make layers somewhat more
/// numerous too; what must not happen is a bend for each call and layer, which would be sixty times as many.
#[test]
fn work_grows_with_the_system() {
    let items = |services: usize| {
        let graph = system(services, services * 3, services / 20, 11);
        let layers = layers::assign(&graph);
        let mut ladder = order::Ladder::new(&graph, &layers);
        ladder.arrange(&graph);
        ladder.items.len()
    };
    let (small, large) = (items(250), items(1_000));
    assert!(large <= small * 20, "{small} items for 250 services, {large} for 1000");
}

#[test]
fn bends_are_bounded() {
    // A chain of 2,000 in which everything also calls everything 40 steps on, and the start calls all.
    let mut graph = Graph::default();
    let nodes: Vec<usize> = (0..2_000).map(|_| graph.add_node(50.0, 20.0, None, Hold::Free)).collect();
    for at in 1..nodes.len() {
        graph.add_edge(nodes[at - 1], nodes[at]);
        graph.add_edge(nodes[0], nodes[at]);
        graph.add_edge(nodes[at - 1], nodes[(at + 40).min(nodes.len() - 1)]);
    }
    let picture = graph.lay_out();
    assert!(picture.edges.iter().map(|it| it.points.len()).sum::<usize>() < 20 * BENDS_MAX);
}
