import { describe, expect, test } from "vitest";
import { parse } from "./filter";
import { emptyState, type EdgeRecord, type MapDoc, type NodeRecord } from "./protocol";
import { edgeRow, neighbours, nodeRow, plain, records, seen, type View, type Zoom } from "./view";
import { say, sayAll, summary } from "./words";
import { geometry, scene } from "../map/scene";

const node = (id: number, name: string, kind: "http" | "gateway", team: number | null, versions: string[] = []) => ({
  id, name, kind, team, x: id * 200, y: 0, width: 150, height: 58, versions, slo: null, lints: [],
  instances: [{ id: `${name}#0`, zone: 0, version: 0 }, { id: `${name}#1`, zone: 1, version: versions.length > 1 ? 1 : 0 }],
});
const edge = (id: number, from: number, to: number) => ({ id, from, to, optional: false, path: [[0, 0], [1, 0], [2, 0], [3, 0]] as [number, number][] });
const DOC: MapDoc = {
  version: 1, revision: 5, system: "s", read_only: false, teams: [{ name: "front", contact: null, oncall: null }, { name: "back", contact: null, oncall: null }],
  zones: ["eu/a", "eu/b"], scenarios: [], traffic: [],
  nodes: [node(0, "edge", "gateway", 0), node(1, "web", "http", 0), node(2, "cart", "http", 1, ["v1", "v2"]), node(3, "store", "http", 1)],
  edges: [edge(0, 0, 1), edge(1, 1, 2), edge(2, 1, 3), edge(3, 2, 3)],
};
const nodeNow = (id: number, rate: number, errors: number, more: Partial<NodeRecord> = {}): NodeRecord => ({
  id, rate, errors, p50: 1, p99: 10 * (id + 1), concurrency: 0.1 * id, queue: NaN, healthy: 2, instances: 2, ejected: 0, flags: 0, newest: NaN, ...more,
});
const edgeNow = (id: number, rate: number, errors: number, more: Partial<EdgeRecord> = {}): EdgeRecord => ({
  id, rate, errors, p50: 1, p99: 5 + id, retries: 0, budget: NaN, open: 0, breakers: 0, phase: 0.5, speed: 0.2, ...more,
});
const STATE = {
  ...emptyState(),
  nodes: new Map([nodeNow(0, 100, 0), nodeNow(1, 100, 0), nodeNow(2, 60, 0.5, { healthy: 1 }), nodeNow(3, 100, 0)].map((it) => [it.id, it])),
  edges: new Map([edgeNow(0, 100, 0), edgeNow(1, 60, 0.5, { open: 1, breakers: 3 }), edgeNow(2, 40, 0), edgeNow(3, 60, 0)].map((it) => [it.id, it])),
};
const shown = (id: number, name: string, members: number[], more = {}) => ({ id, name, kind: "group", members, zones: [], version: null, x: id * 300, y: 0, width: 200, height: 76, ...more });
const TEAMS: View = {
  revision: 5, by: "team", frames: [], kept_closed: [],
  nodes: [shown(0, "front", [0, 1]), shown(1, "back", [2, 3])],
  edges: [{ id: 0, from: 0, to: 1, optional: false, members: [1, 2], path: [[0, 0], [1, 0], [2, 0], [3, 0]] }],
};

describe("groups", () => {
  test("have the numbers of the calls that enter them, and say at most where percentiles do not add up", () => {
    const now = records(DOC, TEAMS, STATE, null);
    expect(now.edges.get(0)).toMatchObject({ rate: 100, errors: 0.3, p99: 7, open: 1, breakers: 3 });
    expect(now.nodes.get(1)).toMatchObject({ rate: 100, errors: 0.3, healthy: 3, instances: 4 });
    expect(now.nodes.get(0)).toMatchObject({ rate: 100, errors: 0 });
    expect(say(DOC, TEAMS.nodes[1]!, now)).toMatchObject({ p99: "≤7ms", healthy: "3 of 4", breakers: "1 open of 3", health: "bad" });
  });

  test("by zone have what went there, and only that is drawn", () => {
    const places: View = { ...TEAMS, by: "zone", nodes: [shown(0, "eu/a", [1, 2], { zones: [0] }), shown(1, "eu/b", [1, 2], { zones: [1] }), shown(2, "gateways", [0], { kind: "gateway" })], edges: [{ ...TEAMS.edges[0]!, members: [] }, { ...TEAMS.edges[0]!, id: 1, from: 1, to: 0, members: [] }, { ...TEAMS.edges[0]!, id: 2, from: 2, to: 0, members: [] }] };
    const row = (from: number | null, to: number, rate: number, errors: number) => ({ from, to, rate, errors, p50: 1, p99: 9 });
    const zoom: Zoom = { at: 0, revision: 5, versions: [], zones: [row(null, 0, 10, 0), row(0, 0, 5, 0), row(0, 1, 5, 0.2)], instances: [{ node: 1, zone: 0, healthy: true, ejected: false }, { node: 1, zone: 1, healthy: false, ejected: false }] };
    const now = records(DOC, places, STATE, zoom);
    expect(now.nodes.get(0)).toMatchObject({ rate: 15, instances: 1, healthy: 1 });
    expect(now.nodes.get(1)).toMatchObject({ rate: 5, errors: 0.2, instances: 1, healthy: 0 });
    expect(seen(places, now).edges.map((it) => it.id)).toEqual([0, 2]);
  });
});

describe("what is looked for", () => {
  const view = plain(DOC);
  const now = records(DOC, view, STATE, null);
  test.each([
    ["zone:b", ["cart", "edge", "store", "web"]], ["zone:eu/a team:back", ["cart", "store"]], ["errors>10%", ["cart"]], ["has:breaker", ["cart"]], ["p99>30ms", ["store"]],
    ["version:v2", ["cart"]], ["kind:gateway", ["edge"]], ["instance:web#1", ["web"]], ["status:5xx", []],
  ])("%s", (text, names) => {
    const { filter } = parse(text);
    expect(view.nodes.filter((it) => filter!.matches(nodeRow(DOC, it, now))).map((it) => it.name).sort()).toEqual(names);
  });

  test("calls have ends", () => {
    const { filter } = parse("service:web->c* errors>10%");
    expect(view.edges.filter((it) => filter!.matches(edgeRow(view, it, now))).map((it) => it.id)).toEqual([1]);
  });

  test("neighbours are one call away", () => {
    expect([...neighbours(view, "cart")!].sort()).toEqual([1, 2, 3]);
    expect(neighbours(view, "nobody")).toBeNull();
  });
});

test("the same data gives the same picture, and the worst call is drawn last", () => {
  const view = plain(DOC);
  const now = records(DOC, view, STATE, null);
  const choice = { bright: new Set([3]), brightEdges: null, selected: null, hovered: null };
  const [one, other] = [scene(geometry(view), now, choice), scene(geometry(view), now, choice)];
  expect(one).toEqual(other);
  expect(one.order.at(-1)).toBe(1);
  expect(one.worst).toEqual([1]);
  expect(one.edges[1 * 8 + 2]).toBeGreaterThan(one.edges[0 * 8 + 2]!);
});

test("the whole in a sentence", () => {
  const view = plain(DOC);
  expect(summary(sayAll(DOC, view, records(DOC, view, STATE, null)))).toBe("4 drawn; 1 failing: cart.");
});
