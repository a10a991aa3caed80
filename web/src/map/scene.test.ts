import { describe, expect, test } from "vitest";
import { EDGE_FLOATS, EDGE_POINTS, particles, particleSlots, unit } from "./scene";
import { edgeStride, edgeTriangles } from "./gl";

describe("triangles of edges", () => {
  test("join every point of an edge to the next, in drawing order", () => {
    for (const [scale, edges] of [[1, 3], [1, 4_000], [0.5, 3], [0.3, 3], [0.1, 3]] as const) {
      const stride = edgeStride(scale, edges);
      const triangles = edgeTriangles(Uint32Array.of(2, 0), stride);
      const pieces = (EDGE_POINTS - 1) / stride;
      expect(Number.isInteger(pieces)).toBe(true);
      expect(triangles.length).toBe(2 * pieces * 6);
      // The vertex tells edge, point and side by its number.
      const told = (vertex: number) => [Math.floor(vertex / (2 * EDGE_POINTS)), Math.floor(vertex / 2) % EDGE_POINTS];
      expect(told(triangles[0]!)).toEqual([2, 0]);
      expect(told(triangles[pieces * 6 - 1]!)).toEqual([2, EDGE_POINTS - 1]);
      expect(told(triangles[pieces * 6]!)).toEqual([0, 0]);
      expect(told(triangles.at(-1)!)).toEqual([0, EDGE_POINTS - 1]);
    }
  });
});

describe("particles", () => {
  const row = (opacity: number, density: number) => Object.assign(new Float32Array(EDGE_FLOATS), { 2: opacity, 6: density });
  const rows = (...all: Float32Array[]) => Float32Array.from(all.flatMap((each) => [...each]));

  test("are as many as the rate wants, the same ones each time, none where nothing flows or all is dimmed", () => {
    const three = rows(row(1, 0), row(1, 0.5), row(0.1, 1));
    const shown = particles(three, 3, 48);
    expect([...new Set([...shown].map((i) => Math.floor(i / 48)))]).toEqual([1]);
    expect(shown.length).toBeGreaterThan(12);
    expect(shown.length).toBeLessThan(36);
    expect(particles(three, 3, 48)).toEqual(shown);
    const busier = particles(rows(row(1, 0), row(1, 0.8), row(0.1, 1)), 3, 48);
    for (const i of shown) expect(busier).toContain(i);
  });

  test("keep to their budget", () => {
    for (const [budget, edges, slots] of [[12_000, 10, 48], [4_000, 4_000, 1], [4_000, 400, 10], [100, 4_000, 1], [100, 0, 48]] as const) expect(particleSlots(budget, edges)).toBe(slots);
  });

  test("are placed by numbers that lie in 0..1 and differ", () => {
    const all = Array.from({ length: 1_000 }, (_, n) => unit(n));
    expect(all.every((value) => value >= 0 && value <= 1)).toBe(true);
    expect(new Set(all).size).toBe(1_000);
  });
});
