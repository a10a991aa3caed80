// Zipkin v2 spans as a waterfall: a tree in time order, self time, and the path that made it slow. Pure and linear, because
// traces of ten thousand spans are where other pages stop.

import type { Row as FilterRow } from "./filter";

export interface ZipkinSpan {
  traceId: string;
  id: string;
  parentId?: string;
  kind?: "CLIENT" | "SERVER" | "PRODUCER" | "CONSUMER";
  name?: string;
  timestamp?: number;
  duration?: number;
  localEndpoint?: { serviceName?: string };
  remoteEndpoint?: { serviceName?: string };
  tags?: Record<string, string>;
  annotations?: { timestamp: number; value: string }[];
  shared?: boolean;
}

export interface Row {
  span: ZipkinSpan;
  depth: number;
  /** Microseconds from the trace's beginning. */
  start: number;
  length: number;
  error: boolean;
  critical: boolean;
  children: number;
  service: string;
  /** Tries that this call took; 1 if nothing says otherwise. */
  attempts: number;
  /** Microseconds it waited before anything was sent: in a queue, for a connection. */
  waited: number;
}

export interface Waterfall {
  rows: Row[];
  /** Microseconds in all. */
  length: number;
  began: number;
  services: string[];
  errors: number;
}

export function waterfall(spans: readonly ZipkinSpan[]): Waterfall {
  const began = spans.reduce((least, span) => Math.min(least, span.timestamp ?? Infinity), Infinity);
  const origin = Number.isFinite(began) ? began : 0;
  const key = (span: ZipkinSpan) => `${span.id}${span.shared === true ? "/s" : ""}`;
  const unique = new Map<string, ZipkinSpan>();
  for (const span of spans) if (!unique.has(key(span))) unique.set(key(span), span);

  const children = new Map<string, ZipkinSpan[]>();
  const roots: ZipkinSpan[] = [];
  for (const span of unique.values()) {
    // A shared server hangs under the client of the same id; others prefer the shared server of their parent's id.
    const parent =
      span.shared === true && unique.has(span.id) ? span.id
      : span.parentId !== undefined && unique.has(`${span.parentId}/s`) && `${span.parentId}/s` !== key(span) ? `${span.parentId}/s`
      : span.parentId !== undefined && unique.has(span.parentId) && span.parentId !== span.id ? span.parentId
      : undefined;
    if (parent === undefined) roots.push(span);
    else children.set(parent, [...(children.get(parent) ?? []), span]);
  }
  const byTime = (a: ZipkinSpan, b: ZipkinSpan) => (a.timestamp ?? Infinity) - (b.timestamp ?? Infinity);
  roots.sort(byTime);
  for (const list of children.values()) list.sort(byTime);

  const rows: Row[] = [];
  const seen = new Set<string>();
  const visit = (from: ZipkinSpan[]) => {
    const stack: [ZipkinSpan, number][] = from.map((span): [ZipkinSpan, number] => [span, 0]).reverse();
    while (stack.length > 0) {
      const [span, depth] = stack.pop()!;
      if (seen.has(key(span))) continue;
      seen.add(key(span));
      const below = children.get(key(span)) ?? [];
      rows.push({
        span,
        depth,
        start: (span.timestamp ?? origin) - origin,
        length: span.duration ?? 0,
        error: span.tags?.["error"] !== undefined,
        critical: false,
        children: below.length,
        service: span.localEndpoint?.serviceName ?? "unknown",
        attempts: Math.max(1, count(span.tags?.["isobar.attempt"])),
        waited: Math.min(span.duration ?? 0, count(span.tags?.["isobar.queue_wait_us"]) + count(span.tags?.["isobar.pool_wait_us"])),
      });
      for (let i = below.length - 1; i >= 0; i -= 1) stack.push([below[i]!, depth + 1]);
    }
  };
  visit(roots);
  // What is left forms loops; it is shown rather than lost.
  visit([...unique.values()].filter((span) => !seen.has(key(span))));

  markCritical(rows);
  const length = rows.reduce((most, row) => Math.max(most, row.start + row.length), 1);
  const services = [...new Set(rows.map((row) => row.service))].sort();
  return { rows, length, began: origin, services, errors: rows.filter((row) => row.error).length };
}

const count = (text: string | undefined): number => {
  const value = Number(text ?? 0);
  return Number.isFinite(value) && value > 0 ? value : 0;
};

/** A whole trace, as the filter language sees it. */
export function traceRow(id: string, fall: Waterfall): FilterRow {
  const tags = (key: string) => fall.rows.flatMap(({ span }) => span.tags?.[key] ?? []);
  return {
    words(key) {
      switch (key) {
        case "any":
          return [id, ...fall.services, ...new Set(fall.rows.map(({ span }) => span.name ?? ""))];
        case "service":
          return fall.services;
        case "from":
          return fall.rows.filter(({ span }) => span.kind === "CLIENT").map((row) => row.service);
        case "to":
          return fall.rows.flatMap(({ span }) => (span.kind === "CLIENT" ? (span.remoteEndpoint?.serviceName ?? []) : []));
        case "operation":
          return [...new Set(fall.rows.map(({ span }) => span.name ?? ""))];
        case "trace":
          return [id];
        case "version":
          return tags("service.version");
        case "zone":
          return tags("cloud.availability_zone");
        case "instance":
          return tags("service.instance.id");
        case "has":
          return [
            ...(fall.errors > 0 ? ["error"] : []), ...(fall.rows.some((row) => row.attempts > 1) ? ["retry"] : []),
            ...(tags("isobar.fault").length > 0 ? ["fault"] : []), ...(tags("isobar.breaker").length > 0 ? ["breaker"] : []),
            ...(tags("isobar.hedge").length > 0 ? ["hedge"] : []), ...(tags("isobar.canary").length > 0 ? ["canary"] : []),
          ];
        default:
          return key.startsWith("tag.") ? tags(key.slice(4)) : [];
      }
    },
    number(key) {
      switch (key) {
        case "duration":
          return fall.length / 1e6;
        case "spans":
          return fall.rows.length;
        case "attempts":
          return Math.max(1, ...fall.rows.slice(0, 1_000).map((row) => row.attempts));
        case "status": {
          const status = Number(fall.rows.find(({ span }) => span.tags?.["http.response.status_code"] !== undefined)?.span.tags?.["http.response.status_code"]);
          return Number.isFinite(status) ? status : null;
        }
        default:
          return null;
      }
    },
    edges: () => fall.rows.flatMap(({ span, service }): [string, string][] => (span.kind === "CLIENT" && span.remoteEndpoint?.serviceName !== undefined ? [[service, span.remoteEndpoint.serviceName]] : [])),
  };
}

/** From each end backwards: the last child to finish before that point is what the parent waited for. */
function markCritical(rows: Row[]): void {
  if (rows.length === 0) return;
  const below: number[][] = rows.map(() => []);
  const stack: number[] = [];
  rows.forEach((row, i) => {
    while (stack.length > 0 && rows[stack[stack.length - 1]!]!.depth >= row.depth) stack.pop();
    const parent = stack[stack.length - 1];
    if (parent !== undefined) below[parent]!.push(i);
    stack.push(i);
  });
  const work = [0];
  while (work.length > 0) {
    const at = work.pop()!;
    const row = rows[at]!;
    row.critical = true;
    let end = row.start + row.length;
    const ends = below[at]!.map((i) => ({ i, end: rows[i]!.start + rows[i]!.length })).sort((a, b) => b.end - a.end);
    for (const child of ends) {
      if (child.end > end) continue;
      work.push(child.i);
      end = rows[child.i]!.start;
    }
  }
}
