import { expect, test } from "vitest";
import { sample, type Point } from "./curve";

test("points are evenly spaced and end where the path ends", () => {
  const path: Point[] = [[0, 0], [40, 0], [60, 80], [100, 80], [140, 80], [160, 0], [200, 0]];
  const { points, length } = sample(path, 17);
  expect(points[0]).toEqual([0, 0]);
  expect(points[16]![0]).toBeCloseTo(200, 6);
  const gaps = points.slice(1).map((p, i) => Math.hypot(p[0] - points[i]![0], p[1] - points[i]![1]));
  for (const gap of gaps) expect(Math.abs(gap - length / 16)).toBeLessThan(length * 0.005);
});

test("an empty path is nothing, and a point is a point", () => {
  expect(sample([], 4)).toEqual({ points: [], length: 0 });
  expect(sample([[3, 4]], 2).points).toEqual([[3, 4], [3, 4]]);
});
