// Edges are chains of cubic Bézier segments; the renderer wants them as evenly spaced points.

export type Point = [number, number];

function cubic(a: Point, b: Point, c: Point, d: Point, t: number): Point {
  const s = 1 - t;
  const w0 = s * s * s;
  const w1 = 3 * s * s * t;
  const w2 = 3 * s * t * t;
  const w3 = t * t * t;
  return [w0 * a[0] + w1 * b[0] + w2 * c[0] + w3 * d[0], w0 * a[1] + w1 * b[1] + w2 * c[1] + w3 * d[1]];
}

const FINE = 24;

/** `count` points at equal distances along the path, the first and last exactly its ends. */
export function sample(path: readonly Point[], count: number): { points: Point[]; length: number } {
  const start = path[0];
  if (!start) return { points: [], length: 0 };
  const fine: Point[] = [start];
  for (let i = 0; i + 3 < path.length; i += 3) {
    const [a, b, c, d] = [path[i]!, path[i + 1]!, path[i + 2]!, path[i + 3]!];
    for (let k = 1; k <= FINE; k += 1) fine.push(cubic(a, b, c, d, k / FINE));
  }
  const along = [0];
  for (let i = 1; i < fine.length; i += 1) {
    along.push(along[i - 1]! + Math.hypot(fine[i]![0] - fine[i - 1]![0], fine[i]![1] - fine[i - 1]![1]));
  }
  const length = along[along.length - 1]!;
  const points: Point[] = [];
  let at = 0;
  for (let k = 0; k < count; k += 1) {
    const wanted = count > 1 ? (length * k) / (count - 1) : 0;
    while (at + 2 < fine.length && along[at + 1]! < wanted) at += 1;
    const from = fine[at]!;
    const to = fine[at + 1] ?? from;
    const gap = (along[at + 1] ?? along[at]!) - along[at]!;
    const share = gap > 0 ? Math.min(1, (wanted - along[at]!) / gap) : 0;
    points.push([from[0] + (to[0] - from[0]) * share, from[1] + (to[1] - from[1]) * share]);
  }
  return { points, length };
}
