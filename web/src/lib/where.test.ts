import { describe, expect, test } from "vitest";
import { command, parse, print } from "./where.svelte";

describe("an address", () => {
  test.each(["/", "/table", "/service/web", "/trace/4bf92f", "/traces?q=status%3E%3D500", "/?group=team", "/table?q=p99%3E10ms&group=zone", "/?group=team&open=a%2Cb&focus=web&at=web-%3Ecart", "/service/a%2Fb", "/?camera=120%2C-40%2C0.75", "/table?sort=-p99", "/traces?service=cart&slower=12.5&failed=", "/traces?q=spans%3E20&failed=", "/trace/4bf92f?at=00f067aa"])("%s goes there and back", (address) => {
    const [path = "", query = ""] = address.split("?");
    expect(print(parse(path, query))).toBe(address);
  });

  test("that is nonsense leads to the map", () => {
    expect(parse("/%E0%A4%A/../..", "group=nobody")).toMatchObject({ view: "map", group: "auto" });
  });
});

test("pages name only commands that exist", () => {
  expect(command(parse("/service/web", ""))).toBe("isobar stat --by instance service:web");
  expect(command(parse("/service/it's", ""))).toBe("isobar stat --by instance 'service:it'\\''s'");
  expect(command(parse("/", ""))).toBe("isobar edges");
  expect(command(parse("/", "at=web"))).toBe("isobar edges service:web");
  expect(command(parse("/", "focus=web&at=web-%3Ecart&q=errors>1%25"))).toBe("isobar edges 'errors>1% service:web->cart service:web'");
  expect(command(parse("/", "group=region&at=eu"))).toBe("isobar stat --by zone");
  expect(command(parse("/", "q=-x"))).toBe("isobar edges -- '-x'");
  expect(command(parse("/table", "group=version&sort=errors"))).toBe("isobar stat --by version --sort success");
  expect(command(parse("/table", "sort=-p99"))).toBe("isobar stat");
  expect(command(parse("/table", "sort=constructor"))).toBe("isobar stat");
  expect(command(parse("/table", "q=errors>1%25 zone:b"))).toBe("isobar stat 'errors>1% zone:b'");
  expect(command(parse("/traces", "q=service:cart"))).toBe("isobar trace --slowest service:cart");
  expect(command(parse("/traces", "service=cart&slower=12.5&failed="))).toBe("isobar trace --slowest --service cart --min-duration 12.5ms --error");
  expect(command(parse("/traces", "slower=-3"))).toBe("isobar trace --slowest");
  expect(command(parse("/traces", "slower=much"))).toBe("isobar trace --slowest");
  expect(command(parse("/trace/4bf92f", ""))).toBe("isobar trace 4bf92f");
  expect(command(parse("/act", ""))).toBe("");
});
