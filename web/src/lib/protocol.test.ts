import { describe, expect, test } from "vitest";
import { applyFrame, decodeFrame, emptyState } from "./protocol";

interface Sketch {
  kind?: number;
  sequence?: number;
  stride?: number;
  nodes?: number[][];
  edges?: number[][];
}

/** Builds the bytes of docs/live.md by hand, so that the decoder is held against the page and not against itself. */
function bytes({ kind = 1, sequence = 1, stride = 40, nodes = [], edges = [] }: Sketch): ArrayBuffer {
  const buffer = new ArrayBuffer(40 + (nodes.length + edges.length) * stride);
  const view = new DataView(buffer);
  [..."ISO1"].forEach((letter, i) => view.setUint8(i, letter.charCodeAt(0)));
  view.setUint8(4, kind);
  view.setUint16(6, stride, true);
  view.setUint32(8, sequence, true);
  view.setUint32(12, 3, true);
  view.setFloat64(16, 1250, true);
  view.setFloat64(24, 1.8e12, true);
  view.setUint32(32, nodes.length, true);
  view.setUint32(36, edges.length, true);
  [...nodes, ...edges].forEach(([id = 0, rate = 0], i) => {
    view.setUint32(40 + i * stride, id, true);
    view.setFloat32(44 + i * stride, rate, true);
    view.setUint16(40 + i * stride + 30, 4, true);
  });
  return buffer;
}

describe("a frame", () => {
  test("is read as the page says", () => {
    const frame = decodeFrame(bytes({ nodes: [[7, 120.5]], edges: [[9, 60]] }));
    expect(frame).toMatchObject({ keyframe: true, sequence: 1, revision: 3, time: 1250 });
    expect(frame.nodes[0]).toMatchObject({ id: 7, rate: 120.5, instances: 4 });
    expect(frame.edges[0]).toMatchObject({ id: 9, rate: 60, breakers: 4 });
  });

  test("from a newer server, with longer records, is read all the same", () => {
    const frame = decodeFrame(bytes({ stride: 56, nodes: [[1, 1], [2, 2]] }));
    expect(frame.nodes.map((node) => node.rate)).toEqual([1, 2]);
  });

  test.each([
    ["no header", new ArrayBuffer(12), /no header/],
    ["another format", new ArrayBuffer(64), /does not begin/],
    ["short records", bytes({ stride: 40 }).slice(0), /./],
    ["cut off", bytes({ nodes: [[1, 1]] }).slice(0, 60), /needs 80 bytes/],
  ])("refused: %s", (name, input, words) => {
    if (name === "short records") new DataView(input).setUint16(6, 8, true);
    expect(() => decodeFrame(input)).toThrow(words);
  });
});

describe("the state", () => {
  test("takes a keyframe, then deltas in order, and asks again after a gap", () => {
    const first = applyFrame(emptyState(), decodeFrame(bytes({ sequence: 5, nodes: [[1, 10], [2, 20]] })));
    expect(first?.nodes.size).toBe(2);
    const second = applyFrame(first!, decodeFrame(bytes({ kind: 2, sequence: 6, nodes: [[2, 25]] })));
    expect(second?.nodes.get(1)?.rate).toBe(10);
    expect(second?.nodes.get(2)?.rate).toBe(25);
    expect(applyFrame(second!, decodeFrame(bytes({ kind: 2, sequence: 8 })))).toBeNull();
  });

  test("forgets on a keyframe what is no longer there", () => {
    const first = applyFrame(emptyState(), decodeFrame(bytes({ sequence: 5, nodes: [[1, 10]] })));
    const second = applyFrame(first!, decodeFrame(bytes({ sequence: 9, nodes: [[2, 1]] })));
    expect([...second!.nodes.keys()]).toEqual([2]);
  });
});
