import { describe, expect, it } from "vitest";
import cases from "../../../crates/telemetry/src/filter_cases.json";
import { parse, type Row } from "./filter";

// The row that the table's first line describes.
const EDGE: Row = {
  words: (key) =>
    ({
      any: ["web", "cart", "GET /cart"], service: ["web", "cart"], from: ["web"], to: ["cart"], operation: ["GET /cart"],
      version: ["v1.3"], zone: ["b"], has: ["retry"], "tag.http.Route": ["/x"],
    })[key as string] ?? [],
  number: (key) => ({ status: 503, p99: 0.25, rate: 12, errors: 0.02 })[key as string] ?? null,
  edges: () => [["web", "cart"]],
};

describe("the terminal's filter language", () => {
  it.each(cases.terms as [string, boolean][])("%j is %s of the row", (text, expected) => {
    const { filter, mistake } = parse(text);
    expect(mistake).toBeNull();
    expect(filter?.matches(EDGE)).toBe(expected);
  });

  it.each(cases.mistakes as [string, number, string][])("%j is wrong at %i", (text, at, part) => {
    const { mistake } = parse(text);
    expect(`${mistake?.message}; ${mistake?.hint}`).toContain(part);
    expect(mistake?.at).toBe(at);
  });

  it("is bounded", () => {
    expect(parse("a ".repeat(65)).mistake?.message).toContain("more than 64");
    expect(parse("a".repeat(5000)).mistake?.message).toContain("at most");
  });
});
