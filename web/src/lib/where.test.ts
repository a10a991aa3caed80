import { describe, expect, test } from "vitest";
import { command, parse, print } from "./where.svelte";

describe("an address", () => {
  test.each(["/", "/table", "/service/web", "/trace/4bf92f", "/traces?q=status%3E%3D500", "/?group=team", "/table?q=p99%3E10ms&group=zone", "/?group=team&open=a%2Cb&focus=web&at=web-%3Ecart", "/service/a%2Fb", "/?camera=120%2C-40%2C0.75", "/table?sort=-p99", "/trace/4bf92f?at=00f067aa"])("%s goes there and back", (address) => {
    const [path = "", query = ""] = address.split("?");
    expect(print(parse(path, query))).toBe(address);
  });

  test("that is nonsense leads to the map", () => {
    expect(parse("/%E0%A4%A/../..", "group=nobody")).toMatchObject({ view: "map", group: "auto" });
  });
});

test("pages name only commands that exist", () => {
  expect(command(parse("/service/web", ""))).toBe("isobar stat service:web --by instance");
  expect(command(parse("/service/it's", ""))).toBe("isobar stat 'service:it'\\''s' --by instance");
  expect(command(parse("/", ""))).toBe("isobar edges");
  expect(command(parse("/table", "q=errors>1%25 zone:b"))).toBe("isobar stat 'errors>1% zone:b'");
  expect(command(parse("/traces", "q=service:cart"))).toBe("isobar trace service:cart");
  expect(command(parse("/trace/4bf92f", ""))).toBe("isobar trace 4bf92f");
  expect(command(parse("/act", ""))).toBe("");
});
