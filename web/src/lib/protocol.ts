// What the server says, decoded. Formats are in docs/live.md; nothing here touches a socket or the page, so that
// the same bytes can be replayed from a file.

export interface MapDoc {
  version: number;
  revision: number;
  system: string;
  read_only: boolean;
  teams: Team[];
  zones: string[];
  scenarios: Scenario[];
  traffic: Traffic[];
  nodes: MapNode[];
  edges: MapEdge[];
}

export interface Team {
  name: string;
  contact: string | null;
  oncall: string | null;
}

export interface Scenario {
  name: string;
  description: string | null;
  lasts_ms: number | null;
}

export interface Traffic {
  name: string;
  to: string;
  /** Null when it has none: users who wait, a recording. */
  rate_per_second: number | null;
  running: boolean;
}

export type Kind = "http" | "grpc" | "tcp" | "cache" | "store" | "queue" | "external" | "gateway";

export interface MapNode {
  id: number;
  name: string;
  kind: Kind;
  team: number | null;
  x: number;
  y: number;
  width: number;
  height: number;
  versions: string[];
  slo: { availability: number | null; latency: [number, number][] } | null;
  lints: Lint[];
  instances: Instance[];
}

export interface Lint {
  code: string;
  severity: string;
  message: string;
}

export interface Instance {
  id: string;
  zone: number | null;
  version: number | null;
}

export interface MapEdge {
  id: number;
  from: number;
  to: number;
  optional: boolean;
  /** A start, then three points for each cubic segment. */
  path: [number, number][];
}

export const NODE_FLAG = { slo: 1, fault: 2, starting: 4 } as const;

export interface NodeRecord {
  id: number;
  rate: number;
  errors: number;
  p50: number;
  p99: number;
  concurrency: number;
  queue: number;
  healthy: number;
  instances: number;
  ejected: number;
  flags: number;
  newest: number;
}

export interface EdgeRecord {
  id: number;
  rate: number;
  errors: number;
  p50: number;
  p99: number;
  retries: number;
  budget: number;
  open: number;
  breakers: number;
  phase: number;
  speed: number;
}

export interface Frame {
  keyframe: boolean;
  replay: boolean;
  paused: boolean;
  sequence: number;
  revision: number;
  time: number;
  wall: number;
  nodes: NodeRecord[];
  edges: EdgeRecord[];
}

const HEADER_BYTES = 40;
const RECORD_BYTES = 40;

/** Reads one frame; throws a `RangeError` naming what is wrong, and reads nothing beyond what the header promised. */
export function decodeFrame(bytes: ArrayBuffer): Frame {
  if (bytes.byteLength < HEADER_BYTES) throw new RangeError(`a frame of ${bytes.byteLength} bytes has no header`);
  const view = new DataView(bytes);
  const magic = view.getUint32(0, false);
  if (magic !== 0x49534f31) throw new RangeError("not a frame: it does not begin with ISO1");
  const kind = view.getUint8(4);
  const flags = view.getUint8(5);
  const stride = view.getUint16(6, true);
  if (stride < RECORD_BYTES) throw new RangeError(`records of ${stride} bytes are too short`);
  const nodeCount = view.getUint32(32, true);
  const edgeCount = view.getUint32(36, true);
  const expected = HEADER_BYTES + (nodeCount + edgeCount) * stride;
  if (bytes.byteLength < expected) {
    throw new RangeError(`a frame of ${nodeCount} nodes and ${edgeCount} edges needs ${expected} bytes, got ${bytes.byteLength}`);
  }
  const frame: Frame = {
    keyframe: kind === 1,
    replay: (flags & 1) !== 0,
    paused: (flags & 2) !== 0,
    sequence: view.getUint32(8, true),
    revision: view.getUint32(12, true),
    time: view.getFloat64(16, true),
    wall: view.getFloat64(24, true),
    nodes: new Array<NodeRecord>(nodeCount),
    edges: new Array<EdgeRecord>(edgeCount),
  };
  let at = HEADER_BYTES;
  for (let i = 0; i < nodeCount; i += 1, at += stride) {
    frame.nodes[i] = {
      id: view.getUint32(at, true),
      rate: view.getFloat32(at + 4, true),
      errors: view.getFloat32(at + 8, true),
      p50: view.getFloat32(at + 12, true),
      p99: view.getFloat32(at + 16, true),
      concurrency: view.getFloat32(at + 20, true),
      queue: view.getFloat32(at + 24, true),
      healthy: view.getUint16(at + 28, true),
      instances: view.getUint16(at + 30, true),
      ejected: view.getUint16(at + 32, true),
      flags: view.getUint16(at + 34, true),
      newest: view.getFloat32(at + 36, true),
    };
  }
  for (let i = 0; i < edgeCount; i += 1, at += stride) {
    frame.edges[i] = {
      id: view.getUint32(at, true),
      rate: view.getFloat32(at + 4, true),
      errors: view.getFloat32(at + 8, true),
      p50: view.getFloat32(at + 12, true),
      p99: view.getFloat32(at + 16, true),
      retries: view.getFloat32(at + 20, true),
      budget: view.getFloat32(at + 24, true),
      open: view.getUint16(at + 28, true),
      breakers: view.getUint16(at + 30, true),
      phase: view.getFloat32(at + 32, true),
      speed: view.getFloat32(at + 36, true),
    };
  }
  return frame;
}

/** The state after a sequence of frames: what the map, the table and the pages all draw from. */
export interface LiveState {
  sequence: number;
  revision: number;
  time: number;
  wall: number;
  replay: boolean;
  paused: boolean;
  nodes: Map<number, NodeRecord>;
  edges: Map<number, EdgeRecord>;
}

export function emptyState(): LiveState {
  return { sequence: 0, revision: 0, time: 0, wall: 0, replay: false, paused: false, nodes: new Map(), edges: new Map() };
}

/** Returns the next state, or `null` when a delta does not follow: the caller must ask for a keyframe. */
export function applyFrame(state: LiveState, frame: Frame): LiveState | null {
  if (!frame.keyframe && frame.sequence !== state.sequence + 1) return null;
  const nodes = frame.keyframe ? new Map<number, NodeRecord>() : state.nodes;
  const edges = frame.keyframe ? new Map<number, EdgeRecord>() : state.edges;
  for (const node of frame.nodes) nodes.set(node.id, node);
  for (const edge of frame.edges) edges.set(edge.id, edge);
  const { sequence, revision, time, wall, replay, paused } = frame;
  return { sequence, revision, time, wall, replay, paused, nodes, edges };
}
