import { expect, test } from "vitest";
import { millis, number, rate, share } from "./format";

test.each([
  [number(0), "0"], [number(1.234), "1.23"], [number(10), "10"], [number(100), "100"], [number(99.96), "100"], [number(12_345), "12.3k"],
  [number(Number.NaN), "–"], [rate(250), "250/s"], [rate(Number.NaN), "–"], [share(0), "0%"], [share(0.00001), "<0.01%"], [share(0.0123), "1.2%"],
  [share(0.5), "50%"], [share(1), "100%"], [millis(0.42), "420µs"], [millis(250), "250ms"], [millis(12_000), "12s"], [millis(0), "–"],
])("%s is printed as %s", (got, expected) => expect(got).toBe(expected));
