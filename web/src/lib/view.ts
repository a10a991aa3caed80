// What is drawn: the map itself, or the map at another scale (docs/live.md, /v1/map/view). Which things stand for which, and
// where they stand, is isobar's word; their numbers are added up here, from the same frame as everything else. Pure: the
// same map, view and frame give the same drawing.

import type { EdgeRecord, LiveState, MapDoc, NodeRecord } from "./protocol";
import type { Row } from "./filter";

export type By = "service" | "team" | "name" | "kind" | "zone" | "region" | "version";

export interface Drawn {
  id: number;
  name: string;
  kind: string;
  members: number[];
  zones: number[];
  version: number | null;
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface DrawnEdge {
  id: number;
  from: number;
  to: number;
  optional: boolean;
  members: number[];
  path: [number, number][];
}

export interface View {
  revision: number;
  by: By;
  nodes: Drawn[];
  edges: DrawnEdge[];
  frames: { name: string; x: number; y: number; width: number; height: number }[];
  kept_closed: string[];
}

/** Numbers that only some scales show (/v1/zoom). */
export interface Zoom {
  at: number;
  revision: number;
  zones: Between[];
  versions: (Between & { edge: number })[];
  instances: InstanceNow[];
}

export interface Between {
  from: number | null;
  to: number | null;
  rate: number | null;
  errors: number | null;
  p50: number | null;
  p99: number | null;
}

export interface InstanceNow {
  node: number;
  id?: string;
  zone: number | null;
  version?: number | null;
  state?: string;
  healthy: boolean;
  ejected: boolean;
  in_flight?: number | null;
  rate?: number | null;
  errors?: number | null;
  p99?: number | null;
}

/** Above so many, services are drawn in groups unless every one is asked for. */
export const VISIBLE_MAX = 400;

/** The map as it stands: each service is itself. */
export function plain(doc: MapDoc): View {
  return {
    revision: doc.revision,
    by: "service",
    nodes: doc.nodes.map(({ id, name, kind, x, y, width, height }) => ({ id, name, kind, x, y, width, height, members: [id], zones: [], version: null })),
    edges: doc.edges.map((edge) => ({ ...edge, members: [edge.id] })),
    frames: [],
    kept_closed: [],
  };
}

export interface Records {
  nodes: Map<number, NodeRecord>;
  edges: Map<number, EdgeRecord>;
  /** Breakers on the calls into a thing: open and all. */
  breakers: Map<number, [number, number]>;
  /** Numbers of several services together: a percentile is then the largest of theirs, and said to be "at most". */
  together: boolean;
}

const NOTHING: Omit<NodeRecord, "id"> = {
  rate: NaN, errors: NaN, p50: NaN, p99: NaN, concurrency: NaN, queue: NaN, healthy: 0, instances: 0, ejected: 0, flags: 0, newest: NaN,
};

const most = (values: number[]): number => values.reduce((max, value) => (value > max || Number.isNaN(max) ? value : max), NaN);
const sum = (values: number[]): number => values.reduce((all, value) => all + (Number.isFinite(value) ? value : 0), 0);

/** Rate and errors of many flows as one. Percentiles cannot be added: the largest bounds them all. */
function merged(flows: { rate: number; errors: number; p99: number }[]): { rate: number; errors: number; p99: number } {
  const rate = sum(flows.map((flow) => flow.rate));
  const failed = sum(flows.map((flow) => flow.rate * (Number.isFinite(flow.errors) ? flow.errors : 0)));
  return { rate, errors: rate > 0 ? failed / rate : NaN, p99: most(flows.map((flow) => flow.p99)) };
}

const flow = (row: Between) => ({ rate: row.rate ?? 0, errors: row.errors ?? NaN, p99: row.p99 ?? NaN });

export function records(doc: MapDoc, view: View, state: LiveState, zoom: Zoom | null): Records {
  const breakers = new Map<number, [number, number]>();
  const count = (node: number, record: EdgeRecord | undefined) => {
    if (!record || record.breakers === 0) return;
    const [open, all] = breakers.get(node) ?? [0, 0];
    breakers.set(node, [open + record.open, all + record.breakers]);
  };
  if (view.by === "service") {
    for (const edge of doc.edges) count(edge.to, state.edges.get(edge.id));
    return { nodes: state.nodes, edges: state.edges, breakers, together: false };
  }
  const edges = new Map<number, EdgeRecord>();
  const places = view.by === "zone" || view.by === "region";
  for (const edge of view.edges) {
    const parts = edge.members.flatMap((id) => state.edges.get(id) ?? []);
    let flows: { rate: number; errors: number; p99: number }[] = parts;
    if (places) flows = (zoom?.zones ?? []).filter((row) => stands(view.nodes[edge.from]!, row.from) && stands(view.nodes[edge.to]!, row.to)).map(flow);
    else if (view.by === "version") {
      const [from, to] = [view.nodes[edge.from]!, view.nodes[edge.to]!];
      if (from.version !== null || to.version !== null) {
        flows = (zoom?.versions ?? []).filter((row) => row.edge === edge.members[0] && (row.from ?? 0) === (from.version ?? 0) && (row.to ?? 0) === (to.version ?? 0)).map(flow);
      }
    }
    const one = parts.length === 1 && flows === parts ? parts[0]! : null;
    const speeding = parts.length > 0 ? parts.reduce((busy, part) => (part.rate > busy.rate ? part : busy)) : null;
    const { rate, errors, p99 } = merged(flows);
    const record: EdgeRecord = {
      id: edge.id, rate, errors, p99,
      p50: one?.p50 ?? NaN,
      retries: one?.retries ?? NaN,
      budget: parts.reduce((least, part) => (part.budget < least || Number.isNaN(least) ? part.budget : least), NaN),
      open: sum(parts.map((part) => part.open)),
      breakers: sum(parts.map((part) => part.breakers)),
      // Between places nobody carries a phase forward; a constant speed needs none.
      phase: speeding?.phase ?? ((state.time / 1000) * PLACE_SPEED) % 1,
      speed: rate > 0 ? (speeding?.speed ?? PLACE_SPEED) : 0,
    };
    edges.set(edge.id, record);
    count(edge.to, record);
  }
  const nodes = new Map<number, NodeRecord>();
  const into = new Map<number, EdgeRecord[]>();
  for (const edge of view.edges) into.set(edge.to, [...(into.get(edge.to) ?? []), edges.get(edge.id)!]);
  for (const node of view.nodes) {
    const parts = node.members.flatMap((id) => state.nodes.get(id) ?? []);
    if (parts.length === 1 && !places && node.version === null) {
      nodes.set(node.id, { ...parts[0]!, id: node.id });
      continue;
    }
    const record: NodeRecord = { ...NOTHING, id: node.id };
    if (node.kind === "gateway" && places) {
      Object.assign(record, merged(parts));
    } else if (places) {
      Object.assign(record, merged((zoom?.zones ?? []).filter((row) => stands(node, row.to)).map(flow)));
      const here = (zoom?.instances ?? []).filter((it) => it.zone !== null && node.zones.includes(it.zone));
      record.instances = here.length;
      record.healthy = here.filter((it) => it.healthy).length;
      record.ejected = here.filter((it) => it.ejected).length;
    } else {
      // What comes in from outside: calls within a group are its own business.
      const entering = into.get(node.id) ?? [];
      const doors = node.members.flatMap((id) => (doc.nodes[id]?.kind === "gateway" ? (state.nodes.get(id) ?? []) : []));
      Object.assign(record, merged([...entering, ...doors]));
      record.concurrency = most(parts.map((part) => part.concurrency));
      record.queue = most(parts.map((part) => part.queue));
      const here = node.version === null ? null : (doc.nodes[node.members[0]!]?.instances ?? []).filter((it) => (it.version ?? 0) === node.version);
      record.instances = here ? here.length : sum(parts.map((part) => part.instances));
      record.healthy = here ? Math.min(here.length, sum(parts.map((part) => part.healthy))) : sum(parts.map((part) => part.healthy));
      record.ejected = here ? 0 : sum(parts.map((part) => part.ejected));
      record.flags = parts.reduce((flags, part) => flags | part.flags, 0);
    }
    nodes.set(node.id, record);
  }
  return { nodes, edges, breakers, together: true };
}

const PLACE_SPEED = 0.25;

/** A gateway stands in no zone: null. */
const stands = (node: Drawn, zone: number | null): boolean => (zone === null ? node.kind === "gateway" : node.zones.includes(zone));

/** Between places only what was seen is drawn: everybody could call everybody. */
export function seen(view: View, now: Records): View {
  if (view.by !== "zone" && view.by !== "region") return view;
  return { ...view, edges: view.edges.filter((edge) => (now.edges.get(edge.id)?.rate ?? 0) > 0) };
}

const NARROW = 1.25;

/** Whether a picture from the top to the bottom fills this screen better than one from left to right. */
export const isUpright = (size: { width: number; height: number }): boolean => size.height > size.width * NARROW;

/** The same drawing from the top to the bottom: layers become rows. Boxes keep their size, so that names stay readable. */
export function upright(view: View, room: { width: number; height: number } = { width: 1, height: 0 }): View {
  const pitch = (values: number[], least: number): number => {
    const sorted = [...new Set(values.map(Math.round))].sort((a, b) => a - b);
    return sorted.slice(1).reduce((gap, value, at) => Math.min(gap, Math.max(least, value - sorted[at]!)), Infinity);
  };
  const [width, height] = [Math.max(1, ...view.nodes.map((node) => node.width)), Math.max(1, ...view.nodes.map((node) => node.height))];
  const columns = new Map<number, number[]>();
  for (const node of view.nodes) columns.set(Math.round(node.x), [...(columns.get(Math.round(node.x)) ?? []), node.y]);
  const between = Math.min(...[...columns.values()].map((rows) => pitch(rows, height)));
  const along = pitch([...columns.keys()], width / 2);
  // With one box a layer only lines lie beside it; they pass it at some distance from its foot, and then of its side.
  const across = Number.isFinite(between) ? (width + 24) / between : (width + 40) / (height + 90);
  const closest = Number.isFinite(along) ? (height + 70) / along : 1;
  const down = closest * looseness(view, { width, height, across, down: closest }, room);
  const turn = (x: number, y: number): [number, number] => [y * across, x * down];
  const boxes = view.nodes.map((node) => {
    const [x, y] = turn(node.x, node.y);
    return { ...node, x, y };
  });
  const edges = view.edges.map((edge) => {
    const path = edge.path.map(([x, y]) => turn(x, y));
    const ends = [[0, 1, edge.from], [path.length - 1, path.length - 2, edge.to]] as const;
    for (const [end, beside, id] of ends) {
      const [was, now, from] = [view.nodes[id], boxes[id], edge.path[end]];
      if (!was || !now || !from || !path[beside]) continue;
      if (Math.abs(Math.abs(from[1] - was.y) - was.height / 2) < 1) {
        // What left at the foot leaves at the right.
        const y = now.y + ((from[0] - was.x) / (was.width / 2)) * (now.height / 2) * 0.8;
        path[end] = [now.x + (Math.sign(from[1] - was.y) * now.width) / 2, y];
        path[beside] = [path[beside][0], y];
        continue;
      }
      // What left at the right leaves at the foot, as far from the middle as before.
      const side = from[0] >= was.x ? 1 : -1;
      const x = now.x + ((from[1] - was.y) / (was.height / 2)) * (now.width / 2) * 0.8;
      path[end] = [x, now.y + (side * now.height) / 2];
      path[beside] = [x, path[beside][1]];
    }
    return { ...edge, path };
  });
  const frames = view.frames.map((frame) => {
    const [x, y] = turn(frame.x, frame.y);
    return { ...frame, x, y, width: frame.height * across, height: frame.width * down };
  });
  return { ...view, nodes: boxes, edges, frames };
}

/** A wide drawing on a tall screen leaves most of it empty: its rows may stand so much further apart. */
const LOOSEST = 2;

function looseness(view: View, by: { width: number; height: number; across: number; down: number }, room: { width: number; height: number }): number {
  const extent = (values: number[]) => Math.max(...values) - Math.min(...values);
  if (view.nodes.length === 0) return 1;
  const wide = extent(view.nodes.map((node) => node.y)) * by.across + by.width;
  const between = extent(view.nodes.map((node) => node.x)) * by.down;
  return between > 0 ? Math.min(LOOSEST, Math.max(1, ((wide * room.height) / room.width - by.height) / between)) : 1;
}

/** A thing that is drawn, as the filter language sees it. */
export function nodeRow(doc: MapDoc, node: Drawn, now: Records): Row {
  const record = now.nodes.get(node.id);
  const parts = node.members.flatMap((id) => doc.nodes[id] ?? []);
  const breaker = now.breakers.get(node.id);
  return {
    words(key) {
      switch (key) {
        case "any":
          return [node.name, ...(parts.length > 1 ? parts.map((part) => part.name) : [])];
        case "service":
        case "to":
          return parts.map((part) => part.name);
        case "kind":
          return parts.map((part) => part.kind);
        case "team":
          return parts.flatMap((part) => (part.team === null ? [] : (doc.teams[part.team]?.name ?? [])));
        case "version":
          return parts.flatMap((part) => part.versions);
        case "instance":
          return parts.flatMap((part) => part.instances.map((it) => it.id));
        case "zone": {
          const zones = new Set(parts.flatMap((part) => part.instances.flatMap((it) => (it.zone === null ? [] : (doc.zones[it.zone] ?? [])))));
          // `eu-west/a` by its whole name or by its last part.
          return [...zones].flatMap((zone) => [zone, zone.slice(zone.lastIndexOf("/") + 1)]);
        }
        case "has":
          return [
            ...(record && record.errors > 0 ? ["error"] : []), ...(breaker && breaker[0] > 0 ? ["breaker"] : []),
            ...(record && (record.flags & 2) !== 0 ? ["fault"] : []),
          ];
        default:
          return [];
      }
    },
    number(key) {
      if (!record) return null;
      switch (key) {
        case "rate":
          return record.rate;
        case "errors":
          return record.errors;
        case "p50":
          return record.p50 / 1000;
        case "p99":
          return record.p99 / 1000;
        default:
          return null;
      }
    },
  };
}

export function edgeRow(view: View, edge: DrawnEdge, now: Records): Row {
  const record = now.edges.get(edge.id);
  const [from, to] = [view.nodes[edge.from]?.name ?? "", view.nodes[edge.to]?.name ?? ""];
  return {
    words(key) {
      switch (key) {
        case "any":
        case "service":
          return [from, to];
        case "from":
          return [from];
        case "to":
          return [to];
        case "has":
          return [
            ...(record && record.errors > 0 ? ["error"] : []), ...(record && record.retries > 0 ? ["retry"] : []),
            ...(record && record.open > 0 ? ["breaker"] : []),
          ];
        default:
          return [];
      }
    },
    number(key) {
      if (!record) return null;
      switch (key) {
        case "rate":
          return record.rate;
        case "errors":
          return record.errors;
        case "retries":
          return record.retries;
        case "p50":
          return record.p50 / 1000;
        case "p99":
          return record.p99 / 1000;
        default:
          return null;
      }
    },
    edges: () => [[from, to]],
  };
}

/** The thing itself, whom it calls and who calls it. */
export function neighbours(view: View, name: string): Set<number> | null {
  const middle = view.nodes.find((node) => node.name === name);
  if (!middle) return null;
  const near = new Set([middle.id]);
  for (const edge of view.edges) {
    if (edge.from === middle.id) near.add(edge.to);
    if (edge.to === middle.id) near.add(edge.from);
  }
  return near;
}
