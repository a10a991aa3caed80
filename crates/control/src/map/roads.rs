//! Lines between places: around what stands between them, so that no line seems to end at, or to come from, somebody
//! it only passes. Places stand in columns; a line leaves at the side it goes to and passes a column between its boxes.

use super::round;
use super::view::Shown;

/// Between two lines of opposite ways, half of it.
const LANE: f64 = 7.0;
/// Of a box's height: how far from its middle lines to others than its neighbour leave it.
const PORTS: f64 = 0.28;
/// How far beside a column a line along it swings, and how much more for each box it passes.
const SWING: (f64, f64) = (44.0, 26.0);
/// Above and below a column.
const MARGIN: f64 = 45.0;

type Point = (f64, f64);

/// Cubic pieces: the start, then three points a piece.
pub(crate) fn road(from: &Shown, to: &Shown, all: &[Shown]) -> Vec<Point> {
    let points = if from.x == to.x { along(from, to, all) } else { across(from, to, all) };
    points.into_iter().map(|(x, y)| (round(x), round(y))).collect()
}

/// Within a column: straight to the next box, aside of all others. Down on the right, up on the left.
fn along(from: &Shown, to: &Shown, all: &[Shown]) -> Vec<Point> {
    let way = (to.y - from.y).signum();
    let passed = all.iter().filter(|it| it.x == from.x && (it.y - from.y) * (it.y - to.y) < 0.0).count();
    if passed == 0 {
        let x = from.x + way * 4.0 * LANE;
        let (start, end) = (from.y + way * from.height / 2.0, to.y - way * to.height / 2.0);
        return vec![
            (x, start),
            (x, start + (end - start) * 0.4),
            (x, start + (end - start) * 0.6),
            (x, end),
        ];
    }
    let swing = way * (SWING.0 + SWING.1 * passed as f64);
    let (start, end) = (from.x + way * from.width / 2.0, to.x + way * to.width / 2.0);
    let (leaves, comes) = (from.y + way * LANE, to.y - way * LANE);
    vec![(start, leaves), (start + swing, leaves), (end + swing, comes), (end, comes)]
}

fn across(from: &Shown, to: &Shown, all: &[Shown]) -> Vec<Point> {
    let way = (to.x - from.x).signum();
    let lane = -way * LANE;
    // Those that go far up leave near the top, and come in from below: lines to many rows do not lie on each other.
    let steep = ((to.y - from.y) / (2.0 * (from.height + 2.0 * MARGIN))).clamp(-1.0, 1.0);
    let start = (from.x + way * from.width / 2.0, from.y + steep * PORTS * from.height + lane);
    let end = (to.x - way * to.width / 2.0, to.y - steep * PORTS * to.height + lane);
    let mut points = vec![start];
    let mut between: Vec<f64> =
        all.iter().map(|it| it.x).filter(|x| (x - from.x) * (x - to.x) < 0.0).collect();
    between.sort_by(|a, b| (way * a).total_cmp(&(way * b)));
    between.dedup();
    for x in between {
        let column: Vec<&Shown> = all.iter().filter(|it| it.x == x).collect();
        let wanted = start.1 + (end.1 - start.1) * (x - start.0) / (end.0 - start.0);
        let gap = gaps(&column).into_iter().min_by(|a, b| {
            // Of two as near the upper one to the right, and the lower one back.
            let far = |gap: f64| (gap - wanted).abs();
            far(*a).total_cmp(&far(*b)).then(if way > 0.0 { a.total_cmp(b) } else { b.total_cmp(a) })
        });
        let y = gap.map_or(wanted, |gap| gap + 2.0 * lane + (to.y - gap).clamp(-MARGIN, MARGIN) * 0.2);
        let half = column.iter().map(|it| it.width).fold(0.0, f64::max) / 2.0;
        reach(&mut points, (x - way * half, y));
        reach(&mut points, (x + way * half, y));
    }
    reach(&mut points, end);
    points
}

/// The middles of what is free in a column, and lines above and below it.
fn gaps(column: &[&Shown]) -> Vec<f64> {
    let mut boxes: Vec<(f64, f64)> =
        column.iter().map(|it| (it.y - it.height / 2.0, it.y + it.height / 2.0)).collect();
    boxes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let between = boxes.windows(2).map(|it| (it[0].1 + it[1].0) / 2.0);
    let above = boxes.first().map(|it| it.0 - MARGIN);
    above.into_iter().chain(between).chain(boxes.last().map(|it| it.1 + MARGIN)).collect()
}

/// Leaves and comes level.
fn reach(points: &mut Vec<Point>, to: Point) {
    let from = points[points.len() - 1];
    let middle = (from.0 + to.0) / 2.0;
    points.extend([(middle, from.1), (middle, to.1), to]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(x: f64, y: f64) -> Shown {
        Shown { x, y, width: 200.0, height: 76.0, ..Shown::default() }
    }

    /// Gateways, two regions of three zones, and one of two.
    fn places() -> Vec<Shown> {
        let mut all = vec![place(0.0, 166.0)];
        for column in [420.0, 840.0] {
            all.extend([0.0, 166.0, 332.0].map(|y| place(column, y)));
        }
        all.extend([83.0, 249.0].map(|y| place(1260.0, y)));
        all
    }

    fn at(path: &[Point], piece: usize, t: f64) -> Point {
        let [a, b, c, d] = [0, 1, 2, 3].map(|it| path[3 * piece + it]);
        let s = 1.0 - t;
        let mix = |a: f64, b: f64, c: f64, d: f64| {
            s * s * s * a + 3.0 * s * s * t * b + 3.0 * s * t * t * c + t * t * t * d
        };
        (mix(a.0, b.0, c.0, d.0), mix(a.1, b.1, c.1, d.1))
    }

    fn walk(path: &[Point]) -> Vec<Point> {
        assert_eq!(path.len() % 3, 1, "whole pieces");
        (0..path.len() / 3)
            .flat_map(|piece| (0..=20).map(move |k| at(path, piece, f64::from(k) / 20.0)))
            .collect()
    }

    #[test]
    fn no_line_passes_behind_a_box_or_lies_on_the_way_back() {
        let all = places();
        for (i, from) in all.iter().enumerate() {
            for (k, to) in all.iter().enumerate().filter(|(k, _)| *k != i) {
                let path = road(from, to, &all);
                let points = walk(&path);
                for it in &all {
                    let inside = |p: &&Point| {
                        (p.0 - it.x).abs() < it.width / 2.0 - 0.1
                            && (p.1 - it.y).abs() < it.height / 2.0 - 0.1
                    };
                    assert_eq!(points.iter().find(inside), None, "{i} to {k} crosses a box: {path:?}");
                }
                let touches = |p: Point, it: &Shown| {
                    let (x, y) = ((p.0 - it.x).abs(), (p.1 - it.y).abs());
                    (x - it.width / 2.0).abs() < 0.2 && y <= it.height / 2.0
                        || (y - it.height / 2.0).abs() < 0.2 && x <= it.width / 2.0
                };
                assert!(touches(path[0], from) && touches(path[path.len() - 1], to), "{i} to {k}: {path:?}");
                let mut back = road(to, from, &all);
                back.reverse();
                assert_ne!(path, back, "{i} to {k}");
            }
        }
    }
}
