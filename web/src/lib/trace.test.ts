import { describe, expect, test } from "vitest";
import { waterfall, type ZipkinSpan } from "./trace";

const span = (id: string, parentId: string | undefined, timestamp: number, duration: number, more: Partial<ZipkinSpan> = {}): ZipkinSpan => ({
  traceId: "1", id, ...(parentId === undefined ? {} : { parentId }), timestamp, duration, name: id, ...more,
});

/** "name depth*": the star marks the critical path. */
const sketch = (spans: ZipkinSpan[]) => waterfall(spans).rows.map((row) => `${row.span.id} ${row.depth}${row.critical ? "*" : ""}`);

describe("a waterfall", () => {
  test("is a tree in time order with what it waited for", () => {
    expect(sketch([span("a", undefined, 0, 100), span("c", "a", 50, 45), span("b", "a", 5, 40), span("d", "a", 10, 20)])).toEqual(["a 0*", "b 1*", "d 1", "c 1*"]);
  });

  test("keeps duplicates once, orphans and loops", () => {
    expect(sketch([span("a", "gone", 0, 10), span("a", "gone", 0, 10), span("x", "y", 1, 1), span("y", "x", 1, 1)])).toEqual(["a 0*", "x 0", "y 1"]);
  });

  test("hangs a shared server under its client and grandchildren under the server", () => {
    const spans = [span("a", undefined, 0, 100, { kind: "CLIENT" }), span("a", undefined, 10, 80, { kind: "SERVER", shared: true }), span("b", "a", 20, 10)];
    expect(waterfall(spans).rows.map((row) => `${row.span.kind ?? "-"} ${row.depth}`)).toEqual(["CLIENT 0", "SERVER 1", "- 2"]);
  });

  test("of ten thousand spans in one chain does not overflow", () => {
    const chain = Array.from({ length: 10_000 }, (_, i) => span(`s${i}`, i === 0 ? undefined : `s${i - 1}`, i, 20_000 - 2 * i));
    const made = waterfall(chain);
    expect(made.rows.length).toBe(10_000);
    expect(made.rows[9_999]!.depth).toBe(9_999);
  });

  test("of nothing is nothing", () => expect(waterfall([]).rows).toEqual([]));
});
