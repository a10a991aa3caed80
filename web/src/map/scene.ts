// The picture as numbers: a pure function of (view, records, what is chosen). The renderers only copy these arrays;
// particles are a function of time in the shader, so the same inputs and the same clock draw the same pixels.

import type { EdgeRecord, NodeRecord } from "../lib/protocol";
import type { Records, View } from "../lib/view";
import { NODE_FLAG } from "../lib/protocol";
import { sample } from "./curve";
import { health, type Health } from "./palette";

/** Points along each edge; the longest way around others, drawn with this many, has no corners that one sees. */
export const EDGE_POINTS = 31;

/** Floats of one node: x, y, half width, half height; health, saturation, shape, flags; share of the newest version, and three to spare. */
export const NODE_FLOATS = 12;

/** Floats of one edge's row: width, health, opacity, dashes; phase, speed, density, errors. */
export const EDGE_FLOATS = 8;

export const HEALTHS: Health[] = ["idle", "ok", "warn", "bad"];

export const SHAPES = { box: 0, pill: 1, drum: 2, hexagon: 3, diamond: 4, stack: 5 } as const;

const SHAPE_OF_KIND: Record<string, number> = {
  http: SHAPES.box,
  grpc: SHAPES.box,
  tcp: SHAPES.box,
  cache: SHAPES.hexagon,
  store: SHAPES.drum,
  queue: SHAPES.pill,
  external: SHAPES.diamond,
  gateway: SHAPES.pill,
  group: SHAPES.stack,
};

export interface Geometry {
  view: View;
  /** EDGE_POINTS × 2 floats for each edge. */
  edgePoints: Float32Array;
  edgeLengths: Float32Array;
  bounds: { left: number; top: number; right: number; bottom: number };
}

/** What does not change between two revisions of the map. */
export function geometry(view: View): Geometry {
  const edgePoints = new Float32Array(view.edges.length * EDGE_POINTS * 2);
  const edgeLengths = new Float32Array(view.edges.length);
  view.edges.forEach((edge, row) => {
    const { points, length } = sample(edge.path, EDGE_POINTS);
    edgeLengths[row] = length;
    points.forEach(([x, y], k) => {
      edgePoints[(row * EDGE_POINTS + k) * 2] = x;
      edgePoints[(row * EDGE_POINTS + k) * 2 + 1] = y;
    });
  });
  if (view.nodes.length === 0) return { view, edgePoints, edgeLengths, bounds: { left: 0, top: 0, right: 1, bottom: 1 } };
  const bounds = { left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity };
  const hold = (x: number, y: number, halfWidth: number, halfHeight: number) => {
    bounds.left = Math.min(bounds.left, x - halfWidth);
    bounds.right = Math.max(bounds.right, x + halfWidth);
    bounds.top = Math.min(bounds.top, y - halfHeight);
    bounds.bottom = Math.max(bounds.bottom, y + halfHeight);
  };
  for (const box of [...view.nodes, ...view.frames]) hold(box.x, box.y, box.width / 2, box.height / 2);
  // A line may go around everything.
  for (let at = 0; at < edgePoints.length; at += 2) hold(edgePoints[at]!, edgePoints[at + 1]!, 0, 0);
  return { view, edgePoints, edgeLengths, bounds };
}

export interface Choice {
  /** Things drawn in full; everything else is dimmed. `null`: no filter. */
  bright: Set<number> | null;
  /** Calls drawn in full; `null`: those between bright things. */
  brightEdges: Set<number> | null;
  selected: number | null;
  hovered: number | null;
}

export interface Scene {
  nodes: Float32Array;
  edges: Float32Array;
  /** Rows of edges in drawing order: the worst last, so that they are never hidden. */
  order: Uint32Array;
  /** The worst edges, for labels that are always shown. */
  worst: number[];
}

const WORST_LABELS = 6;

/** Shorter edges have fewer dots, or their dots would be a line. */
const DENSE_LENGTH = 700;

export function scene(geo: Geometry, now: Records, choice: Choice): Scene {
  const { view } = geo;
  const nodes = new Float32Array(view.nodes.length * NODE_FLOATS);
  view.nodes.forEach((node, row) => {
    const record = now.nodes.get(node.id);
    const dim = choice.bright !== null && !choice.bright.has(node.id);
    const flags =
      (dim ? 1 : 0) + (choice.selected === node.id ? 2 : 0) + (choice.hovered === node.id ? 4 : 0) +
      (record && (record.flags & NODE_FLAG.fault) !== 0 ? 8 : 0);
    const at = row * NODE_FLOATS;
    nodes[at] = node.x;
    nodes[at + 1] = node.y;
    nodes[at + 2] = node.width / 2;
    nodes[at + 3] = node.height / 2;
    nodes[at + 4] = HEALTHS.indexOf(nodeHealth(record));
    nodes[at + 5] = saturation(record);
    nodes[at + 6] = SHAPE_OF_KIND[node.kind] ?? SHAPES.box;
    nodes[at + 7] = flags;
    nodes[at + 8] = record && node.version === null && Number.isFinite(record.newest) ? record.newest : -1;
  });

  const top = peak(now);
  const edges = new Float32Array(view.edges.length * EDGE_FLOATS);
  const badness = new Float32Array(view.edges.length);
  const focus = choice.hovered ?? choice.selected;
  view.edges.forEach((edge, row) => {
    const record = now.edges.get(edge.id);
    const bright =
      choice.brightEdges !== null ? choice.brightEdges.has(edge.id)
      : choice.bright === null || (choice.bright.has(edge.from) && choice.bright.has(edge.to));
    const near = focus !== null && (edge.from === focus || edge.to === focus);
    badness[row] = record ? known(record.errors) * Math.log1p(known(record.rate)) + (record.open > 0 ? 1 : 0) : 0;
    const sick = record !== undefined && edgeHealth(record) === "bad";
    const at = row * EDGE_FLOATS;
    edges[at] = width(record, top);
    edges[at + 1] = HEALTHS.indexOf(edgeHealth(record));
    // The worst is drawn whatever is looked for: dimmed less, never gone.
    edges[at + 2] = !bright ? (sick ? 0.45 : 0.1) : near ? 1 : focus !== null ? 0.45 : 0.75;
    edges[at + 3] = edge.optional ? 1 : 0;
    edges[at + 4] = record?.phase ?? 0;
    edges[at + 5] = record?.speed ?? 0;
    edges[at + 6] = density(record, top) * Math.min(1, (geo.edgeLengths[row] ?? 0) / DENSE_LENGTH);
    edges[at + 7] = known(record?.errors ?? 0);
  });
  const order = Uint32Array.from(view.edges.keys()).sort((a, b) => badness[a]! - badness[b]! || a - b);
  const worst = [...order.subarray(-WORST_LABELS)].reverse().filter((row) => badness[row]! > 0.005);
  return { nodes, edges, order, worst };
}

/** A number in 0..1 for each whole number, always the same one; the shader has the same. */
export function unit(n: number): number {
  let x = (Math.imul(n, 747796405) + 2891336453) >>> 0;
  x = Math.imul((x >>> ((x >>> 28) + 4)) ^ x, 277803737) >>> 0;
  return (((x >>> 22) ^ x) >>> 0) / 4294967295;
}

/** How many particles one edge may have. */
export const particleSlots = (budget: number, edges: number): number => Math.max(1, Math.min(48, Math.floor(budget / Math.max(1, edges))));

/** The numbers of the particles that are drawn; number ÷ slots is the edge. Which ones stays the same while the rates do. */
export function particles(rows: Float32Array, edges: number, slots: number): Uint32Array {
  const shown = new Uint32Array(edges * slots);
  let count = 0;
  for (let row = 0; row < edges; row += 1) {
    // Dimmed calls have none.
    if (rows[row * EDGE_FLOATS + 2]! <= 0.3) continue;
    const density = rows[row * EDGE_FLOATS + 6]!;
    for (let i = row * slots; i < (row + 1) * slots; i += 1) if (unit(i * 3 + 1) < density) shown[count++] = i;
  }
  return shown.slice(0, count);
}

/** The busiest edge's rate; widths and dots are shares of it, on a logarithmic scale. */
export function peak(now: Records): number {
  let most = 1;
  for (const edge of now.edges.values()) if (edge.rate > most) most = edge.rate;
  return most;
}

export function nodeHealth(record: NodeRecord | undefined): Health {
  if (!record) return "idle";
  if (record.instances > 0 && record.healthy === 0) return "bad";
  const byErrors = health(record.rate, record.errors);
  const short = record.healthy < record.instances || (record.flags & NODE_FLAG.slo) !== 0;
  return short && (byErrors === "ok" || byErrors === "idle") ? "warn" : byErrors;
}

export function edgeHealth(record: EdgeRecord | undefined): Health {
  if (!record) return "idle";
  const byErrors = health(record.rate, record.errors);
  if (record.open === 0) return byErrors;
  return record.open >= record.breakers ? "bad" : byErrors === "bad" ? "bad" : "warn";
}

/** What is not known (NaN) is drawn as nothing; the words beside it say that it is unknown. */
const known = (value: number): number => (Number.isFinite(value) ? value : 0);

export const saturation = (record: NodeRecord | undefined): number =>
  record ? Math.max(known(record.concurrency), known(record.queue)) : 0;

/** Quiet edges stay visible: width grows with the logarithm of the share of the busiest edge (the legend says so). */
export function width(record: EdgeRecord | undefined, peak: number): number {
  if (!record || !(record.rate > 0)) return 1;
  return 1 + 4 * share(record.rate, peak);
}

/** Share of an edge's particle slots that are filled. */
export function density(record: EdgeRecord | undefined, peak: number): number {
  if (!record || !(record.rate > 0)) return 0;
  return 0.08 + 0.92 * share(record.rate, peak);
}

/** 0..1 on a logarithmic scale of three decades below the busiest. */
const share = (rate: number, peak: number): number => Math.min(1, Math.max(0, 1 + Math.log10(rate / peak) / 3));
