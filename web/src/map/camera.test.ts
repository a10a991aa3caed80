import { describe, expect, test } from "vitest";
import { isUpright, upright, type View } from "../lib/view";
import { fit, parseCamera, printCamera, toScreen, zoomAt } from "./camera";

const BOUNDS = { left: -100, top: 0, right: 900, bottom: 400 };

describe("a camera", () => {
  test("that sees all leaves free what stands over the picture", () => {
    const size = { width: 1000, height: 700 };
    for (const inset of [{ top: 0, right: 0, bottom: 0 }, { top: 40, right: 300, bottom: 0 }, { top: 0, right: 0, bottom: 350 }]) {
      const camera = fit(BOUNDS, size, inset);
      const [left, top] = toScreen(camera, size, BOUNDS.left, BOUNDS.top);
      const [right, bottom] = toScreen(camera, size, BOUNDS.right, BOUNDS.bottom);
      expect(left).toBeGreaterThanOrEqual(0);
      expect(top).toBeGreaterThanOrEqual(inset.top);
      expect(right).toBeLessThanOrEqual(size.width - inset.right);
      expect(bottom).toBeLessThanOrEqual(size.height - inset.bottom);
    }
  });

  test("zooms around the point it is given", () => {
    const size = { width: 800, height: 600 };
    const before = fit(BOUNDS, size);
    const after = zoomAt(before, size, 200, 100, 1.7);
    const world = [(200 - 400) / before.scale + before.x, (100 - 300) / before.scale + before.y] as const;
    const [x, y] = toScreen(after, size, ...world);
    expect(x).toBeCloseTo(200);
    expect(y).toBeCloseTo(100);
  });

  test("goes into an address and comes back", () => {
    expect(parseCamera(printCamera({ x: 123.4, y: -56, scale: 0.33333 }))).toEqual({ x: 123, y: -56, scale: 0.333 });
    for (const wrong of ["", "1,2", "1,2,3,4", "a,b,c", "1,2,0", "1,2,-1", "1e99,0,1", "NaN,0,1", "0,Infinity,1"]) expect(parseCamera(wrong)).toBeNull();
    expect(parseCamera("0,0,1000")?.scale).toBe(6);
  });
});

describe("a drawing from the top to the bottom", () => {
  const box = (id: number, x: number, y: number) => ({ id, name: `n${id}`, kind: "http", members: [id], zones: [], version: null, x, y, width: 180, height: 58 });
  const view: View = {
    revision: 1, by: "service", kept_closed: [],
    nodes: [box(0, 0, 0), box(1, 260, -40), box(2, 260, 40), box(3, 520, 0)],
    edges: [
      { id: 0, from: 0, to: 1, optional: false, members: [0], path: [[90, -8], [120, -8], [140, -40], [170, -40]] },
      { id: 1, from: 3, to: 0, optional: false, members: [1], path: [[430, 0], [300, 90], [200, 90], [90, 0]] },
    ],
    frames: [{ name: "f", x: 260, y: 0, width: 200, height: 150 }],
  };
  const turned = upright(view);

  test("has layers below each other, and nothing on top of anything", () => {
    expect(turned.nodes[0]!.y).toBeLessThan(turned.nodes[1]!.y);
    expect(turned.nodes[1]!.y).toBe(turned.nodes[2]!.y);
    for (const a of turned.nodes) {
      for (const b of turned.nodes) {
        if (a.id < b.id) expect(Math.abs(a.x - b.x) >= 180 || Math.abs(a.y - b.y) >= 58).toBe(true);
      }
    }
  });

  test("fills a tall screen, with rows at most twice as far apart", () => {
    const tall = (of: View) => Math.max(...of.nodes.map((node) => node.y)) - Math.min(...of.nodes.map((node) => node.y));
    expect(tall(upright(view, { width: 390, height: 20 }))).toBeCloseTo(tall(turned));
    const fuller = tall(upright(view, { width: 390, height: 600 }));
    expect(fuller).toBeGreaterThan(tall(turned));
    expect(fuller).toBeLessThanOrEqual(2 * tall(turned) + 1e-6);
    expect(tall(upright(view, { width: 390, height: 9_000 }))).toBeCloseTo(2 * tall(turned));
  });

  test("has lines beside a box that stands alone in its layer", () => {
    const alone: View = { ...view, nodes: [box(0, 0, 0), box(1, 300, 0), box(2, 600, 0)], frames: [], edges: [{ id: 0, from: 0, to: 2, optional: false, members: [], path: [[90, 0], [150, 0], [150, -74], [210, -74], [270, -74], [330, -74], [390, -74], [450, -74], [450, 0], [510, 0]] }] };
    expect(Math.abs(upright(alone).edges[0]!.path[4]![0])).toBeGreaterThan(90);
  });

  test("has what left a box below leave it at its side", () => {
    const places: View = { ...view, edges: [{ id: 0, from: 1, to: 2, optional: false, members: [], path: [[288, -11], [288, -4], [288, 4], [288, 11]] }] };
    const [edge] = upright(places).edges;
    const [from, to] = [upright(places).nodes[1]!, upright(places).nodes[2]!];
    expect(edge!.path[0]![0]).toBeCloseTo(from.x + from.width / 2);
    expect(edge!.path[3]![0]).toBeCloseTo(to.x - to.width / 2);
  });

  test("has lines that begin and end at the borders of their boxes", () => {
    for (const edge of turned.edges) {
      for (const [end, id] of [[0, edge.from], [edge.path.length - 1, edge.to]] as const) {
        const [x, y] = edge.path[end]!;
        const node = turned.nodes[id]!;
        expect(Math.abs(y - node.y)).toBeCloseTo(node.height / 2);
        expect(Math.abs(x - node.x)).toBeLessThanOrEqual(node.width / 2);
      }
    }
    // Forward leaves at the foot and arrives at the head.
    expect(turned.edges[0]!.path[0]![1]).toBeGreaterThan(turned.nodes[0]!.y);
    expect(turned.edges[0]!.path[3]![1]).toBeLessThan(turned.nodes[1]!.y);
  });

  test("still has its frames around what they hold, and is only for tall screens", () => {
    const [frame] = turned.frames;
    for (const node of turned.nodes.slice(1, 3)) expect(Math.abs(node.x - frame!.x)).toBeLessThan(frame!.width / 2);
    expect(isUpright({ width: 390, height: 700 })).toBe(true);
    expect(isUpright({ width: 1440, height: 860 })).toBe(false);
    expect(upright({ ...view, nodes: [], edges: [], frames: [] }).nodes).toEqual([]);
  });
});
