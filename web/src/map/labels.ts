// Text over the picture: names, numbers and signs, where they can be read. Drawn only when something changed. Nothing here
// is markup: a name is letters on a canvas, whatever it says.

import { millis, rate, share } from "../lib/format";
import { HEALTH_MARK, type Said } from "../lib/words";
import type { Records } from "../lib/view";
import { SCALE_EDGES, SCALE_INSTANCES, toScreen, type Camera, type Size } from "./camera";
import { css, type Palette, type Rgb } from "./palette";
import { edgeHealth, EDGE_POINTS, type Geometry, type Scene } from "./scene";
import type { InstanceNow } from "../lib/view";

export interface Paper {
  context: CanvasRenderingContext2D;
  camera: Camera;
  size: Size;
  ratio: number;
  palette: Palette;
}

export interface Shown {
  geo: Geometry;
  scene: Scene;
  now: Records;
  said: Map<number, Said>;
  bright: Set<number> | null;
  /** Calls of it are labelled whatever the scale. */
  focus: number | null;
  /** By service of the map; known only where instances are in sight. */
  instances: Map<number, InstanceNow[]>;
}

const FONT = "system-ui, sans-serif";
/** Labels of calls on one picture: more would cover it. */
const EDGE_LABELS_MAX = 60;

interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export function drawLabels(paper: Paper, shown: Shown): void {
  const { context, size, ratio, camera, palette } = paper;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, size.width, size.height);
  context.textBaseline = "middle";
  context.lineWidth = 1;
  for (const frame of shown.geo.view.frames) {
    const [x, y] = toScreen(camera, size, frame.x - frame.width / 2, frame.y - frame.height / 2);
    context.strokeStyle = css(palette.faint, 0.7);
    context.setLineDash([6, 4]);
    context.beginPath();
    context.roundRect(x, y, frame.width * camera.scale, frame.height * camera.scale, 10);
    context.stroke();
    context.setLineDash([]);
    context.fillStyle = css(palette.faint);
    context.textAlign = "start";
    context.font = `600 ${Math.min(14, Math.max(10, 13 * camera.scale))}px ${FONT}`;
    context.fillText(cut(context, frame.name, frame.width * camera.scale - 16), x + 10, y + 11 * Math.min(1, Math.max(0.7, camera.scale)));
  }
  const taken: Box[] = [];
  for (const node of shown.geo.view.nodes) {
    const [x, y] = toScreen(camera, size, node.x, node.y);
    const [halfWidth, halfHeight] = [(node.width * camera.scale) / 2, (node.height * camera.scale) / 2];
    if (x < -halfWidth || y < -halfHeight || x > size.width + halfWidth || y > size.height + halfHeight) continue;
    taken.push({ left: x - halfWidth, top: y - halfHeight, right: x + halfWidth, bottom: y + halfHeight });
    if (halfWidth < 17) continue;
    const said = shown.said.get(node.id);
    context.globalAlpha = shown.bright !== null && !shown.bright.has(node.id) ? 0.3 : 1;
    node: {
      const detailed = halfHeight > 15 && said !== undefined;
      const sign = said?.signs[0];
      const lines = !detailed ? 1 : sign !== undefined && halfHeight > 21 ? 3 : 2;
      // All lines keep clear of the rim.
      const font = Math.min(15, Math.max(9, Math.min(halfHeight * 0.5, (halfHeight * 2 - 10) / (lines * 1.2))));
      // Pointed shapes have less room.
      const pointed = node.kind === "cache" || node.kind === "external";
      const room = halfWidth * 2 - (pointed ? halfHeight * 1.1 : 16);
      context.textAlign = "center";
      context.fillStyle = css(palette.text);
      context.font = `600 ${font}px ${FONT}`;
      const line = font * 1.18;
      const first = y - ((lines - 1) * line) / 2;
      context.fillText(node.version === null ? cut(context, node.name, room) : cutBefore(context, node.name, room), x, first);
      if (!detailed) break node;
      context.fillStyle = css(palette.faint);
      context.font = `${font * 0.84}px ${FONT}`;
      const mark = said.health === "ok" || said.health === "idle" ? "" : `${HEALTH_MARK[said.health]} `;
      const errors = said.errors === "–" || said.errors === "0%" ? "" : ` · ${said.errors} err`;
      const latency = said.p99 === "–" ? "" : ` · ${said.p99}`;
      // What does not fit is left out whole, the least important first.
      const told = lines === 2 && sign !== undefined ? [`${mark}${said.rate} · ${sign}`, `${mark}${said.rate}${errors}`] : [`${mark}${said.rate}${errors}${latency}`, `${mark}${said.rate}${errors}`];
      const fits = told.find((text) => context.measureText(text).width <= room) ?? `${mark}${said.rate}`;
      context.fillText(cut(context, fits, room), x, first + line);
      if (lines === 3 && sign !== undefined) {
        context.fillStyle = css(said.health === "bad" ? palette.bad : said.health === "warn" ? palette.warn : palette.faint);
        const more = said.signs.length > 1 ? ` +${said.signs.length - 1}` : "";
        context.fillText(cut(context, sign + more, room), x, first + 2 * line);
      }
    }
    if (camera.scale > SCALE_INSTANCES) instancesOf(paper, shown, node.members, x, y + halfHeight, halfWidth);
  }
  context.globalAlpha = 1;
  callLabels(paper, shown, taken);
}

/** Below a node, when we are near: each instance with its health as colour and shape, and its own numbers. */
function instancesOf({ context, camera, palette }: Paper, shown: Shown, members: number[], x: number, top: number, halfWidth: number): void {
  if (members.length !== 1) return;
  const all = shown.instances.get(members[0]!) ?? [];
  const line = Math.min(15, 6.5 * camera.scale);
  // The words about those who are left out need a line, too, and the next box begins below.
  const room = Math.max(1, Math.min(7, Math.floor((22 * camera.scale) / line)));
  const shownMax = all.length > room ? room - 1 : room;
  context.font = `${line * 0.78}px ${FONT}`;
  all.slice(0, shownMax).forEach((it, i) => {
    const y = top + line * (i + 0.8);
    const color: Rgb = !it.healthy ? palette.bad : it.ejected ? palette.warn : palette.ok;
    context.fillStyle = css(color);
    context.textAlign = "start";
    const words = `${!it.healthy ? "◆" : it.ejected ? "▲" : "●"} ${it.id ?? ""} ${it.state ?? ""}${it.ejected ? ", ejected" : ""}`;
    context.fillText(cut(context, words, halfWidth * 1.2), x - halfWidth, y);
    context.fillStyle = css(palette.faint);
    context.textAlign = "end";
    context.fillText(cut(context, `${rate(it.rate ?? NaN)} ${millis(it.p99 ?? NaN)}`, halfWidth * 0.8), x + halfWidth, y);
  });
  if (all.length > shownMax) {
    context.fillStyle = css(palette.faint);
    context.textAlign = "start";
    context.fillText(`and ${all.length - shownMax} more`, x - halfWidth, top + line * (shownMax + 0.8));
  }
}

/** The worst calls are named whatever the scale; the others when we are near enough, where there is room. */
function callLabels(paper: Paper, shown: Shown, taken: Box[]): void {
  const { context, camera, size, palette } = paper;
  const { geo, scene, now } = shown;
  const worst = new Set(scene.worst);
  const near = camera.scale >= SCALE_EDGES;
  const rows = [...scene.worst];
  for (let i = scene.order.length - 1; i >= 0 && rows.length < 4 * EDGE_LABELS_MAX; i -= 1) {
    const row = scene.order[i]!;
    const edge = geo.view.edges[row]!;
    if (!worst.has(row) && (near || edge.from === shown.focus || edge.to === shown.focus)) rows.push(row);
  }
  let drawn = 0;
  for (const row of rows) {
    if (drawn >= EDGE_LABELS_MAX) break;
    const edge = geo.view.edges[row]!;
    const record = now.edges.get(edge.id);
    if (!record || !(record.rate > 0 || record.open > 0)) continue;
    if (shown.bright !== null && !(shown.bright.has(edge.from) && shown.bright.has(edge.to)) && !worst.has(row)) continue;
    const bad = worst.has(row);
    const breaker = record.open > 0 ? ` · ${record.open} of ${record.breakers} breakers open` : "";
    const errors = record.errors > 0 ? ` · ${share(record.errors)} err` : "";
    const p99 = Number.isFinite(record.p99) ? ` · ${now.together && edge.members.length > 1 ? "≤" : ""}${millis(record.p99)}` : "";
    const text = bad && !near ? `◆ ${share(record.errors)} errors${breaker}` : `${bad ? "◆ " : ""}${rate(record.rate)}${errors}${p99}${breaker}`;
    context.font = `${bad ? "600 " : ""}11px ${FONT}`;
    const width = context.measureText(text).width + 10;
    const middle = (row * EDGE_POINTS + Math.floor(EDGE_POINTS / 2)) * 2;
    // The middle of the line, or a third of it either way if something stands there.
    const spot = [0, -8, 8, -12, 12]
      .map((by) => toScreen(camera, size, geo.edgePoints[middle + by * 2] ?? 0, geo.edgePoints[middle + by * 2 + 1] ?? 0))
      .map(([x, y]): Box => ({ left: x - width / 2, top: y - 9, right: x + width / 2, bottom: y + 9 }))
      .find((box) => box.right > 0 && box.left < size.width && box.bottom > 0 && box.top < size.height && !taken.some((other) => box.left < other.right && box.right > other.left && box.top < other.bottom && box.bottom > other.top));
    if (!spot) continue;
    taken.push(spot);
    drawn += 1;
    context.fillStyle = css(palette.panel, 0.93);
    context.strokeStyle = css(bad ? (edgeHealth(record) === "bad" ? palette.bad : palette.warn) : palette.line);
    context.beginPath();
    context.roundRect(spot.left, spot.top, width, 18, 5);
    context.fill();
    context.stroke();
    context.fillStyle = css(palette.text);
    context.textAlign = "center";
    context.fillText(text, (spot.left + spot.right) / 2, (spot.top + spot.bottom) / 2 + 0.5);
  }
}

/** `cart v1.3.0` as `ca… v1.3.0`: versions beside each other differ at the end. */
function cutBefore(context: CanvasRenderingContext2D, text: string, room: number): string {
  const at = text.lastIndexOf(" ");
  const [name, version] = [text.slice(0, at), text.slice(at)];
  const left = room - context.measureText(version).width;
  if (at < 0 || context.measureText(text).width <= room) return cut(context, text, room);
  return left < context.measureText("…").width ? cut(context, version.trim(), room) : cut(context, name, left) + version;
}

const widths = new Map<string, string>();
const WIDTHS_MAX = 4_000;

/** Cut with an ellipsis so that no name leaves its node. Remembered, for the same words come four times a second. */
function cut(context: CanvasRenderingContext2D, text: string, room: number): string {
  const key = `${context.font}|${Math.round(room)}|${text}`;
  const known = widths.get(key);
  if (known !== undefined) return known;
  let shown = text;
  if (context.measureText(text).width > room) {
    const letters = [...text].slice(0, 200);
    let [low, high] = [0, letters.length];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (context.measureText(`${letters.slice(0, middle).join("")}…`).width <= room) low = middle;
      else high = middle - 1;
    }
    shown = low === 0 ? "" : `${letters.slice(0, low).join("")}…`;
  }
  if (widths.size >= WIDTHS_MAX) widths.clear();
  widths.set(key, shown);
  return shown;
}
