// Zipkin v2 spans as a waterfall: a tree in time order, self time, and the path that made it slow. Pure and linear, because
// traces of ten thousand spans are where other pages stop.

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
