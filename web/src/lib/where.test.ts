import { describe, expect, test } from "vitest";
import { command, parse, print } from "./where.svelte";

describe("an address", () => {
  test.each(["/", "/table", "/service/web", "/trace/4bf92f", "/traces?q=status%3E%3D500", "/?group=team", "/table?q=p99%3E10ms&group=zone", "/?group=team&open=a%2Cb&focus=web&at=web-%3Ecart", "/service/a%2Fb"])("%s goes there and back", (address) => {
    const [path = "", query = ""] = address.split("?");
    expect(print(parse(path, query))).toBe(address);
  });

  test("that is nonsense leads to the map", () => {
    expect(parse("/%E0%A4%A/../..", "group=nobody")).toMatchObject({ view: "map", group: "auto" });
  });
});

test("pages name only commands that exist", () => {
  expect(command(parse("/service/web", ""))).toBe("isobar logs web -f");
  expect(command(parse("/service/it's", ""))).toBe("isobar logs 'it'\\''s' -f");
  expect(command(parse("/", ""))).toBe("isobar ps");
  expect(command(parse("/traces", ""))).toBe("");
});
