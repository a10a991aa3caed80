// A real `isobar up`, a real browser, and what tests ask of both. Nothing here knows what the page looks like.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { inflateSync } from "node:zlib";
import { chromium } from "playwright-core";
import { front } from "../front.mjs";

/** Names that lead to this machine and are not this machine's: what a browser elsewhere sees. */
const FLAGS = ["--host-resolver-rules=MAP *.test 127.0.0.1", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"];

export const browserPath = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => existsSync(path));

let runs = 0;

/** Starts a system with its traffic; resolves once it says where its map is. With ISOBAR_FRONT the page is today's `web/dist`, and not the binary's own. */
export async function up(file = fileURLToPath(new URL("system.yaml", import.meta.url)), more = ["--load"], { watch = false } = {}) {
  const binary = process.env.ISOBAR;
  if (!binary) throw new Error("ISOBAR names no binary: run `cargo xtask ui test --browser`");
  const state = mkdtempSync(join(tmpdir(), "isobar-e2e-"));
  const env = { ...process.env, ISOBAR_STATE: state };
  const name = `e2e-${process.pid}-${(runs += 1)}`;
  const child = spawn(binary, ["up", file, "--name", name, ...(watch ? [] : ["--no-watch"]), ...more], { env, stdio: ["ignore", "pipe", "pipe"] });
  const said = [];
  const own = await new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`isobar did not say where its map is:\n${said.join("\n")}`)), 30_000);
    const line = (text) => {
      said.push(text);
      const found = /^map\s+\S+\s+(http\S+)/.exec(text.trim());
      if (found) {
        clearTimeout(late);
        resolve(found[1].replace(/\/$/, ""));
      }
    };
    createInterface({ input: child.stdout }).on("line", line);
    createInterface({ input: child.stderr }).on("line", (text) => said.push(text));
    child.on("exit", (code) => reject(new Error(`isobar ended with ${code}:\n${said.join("\n")}`)));
  });
  const shown = process.env.ISOBAR_FRONT ? await front(own) : null;
  const url = shown?.url ?? own;
  const ask = async (path, init) => {
    const answer = await fetch(url + path, init);
    const text = await answer.text();
    return { status: answer.status, body: text === "" ? null : JSON.parse(text) };
  };
  return {
    url,
    /** What people on another machine are asked for. */
    token: () => JSON.parse(readFileSync(join(state, name, "run.json"), "utf8")).token,
    ask,
    /** A command as the page prints it, in a shell: what it says on both streams, and its exit. */
    shell: (command) => new Promise((resolve) => {
      const shell = spawn("sh", ["-c", `isobar() { "$ISOBAR" "$@"; }; ${command}`], { env: { ...env, ISOBAR: binary, NO_COLOR: "1" }, stdio: ["ignore", "pipe", "pipe"] });
      const heard = { out: "", words: "" };
      shell.stdout.on("data", (bytes) => (heard.out += bytes));
      shell.stderr.on("data", (bytes) => (heard.words += bytes));
      shell.on("close", (code) => resolve({ ...heard, code }));
    }),
    pid: async () => (await ask("/v1/status")).body.pid,
    async down() {
      shown?.end();
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      const hard = setTimeout(() => child.kill("SIGKILL"), 10_000);
      await ended;
      clearTimeout(hard);
      rmSync(state, { recursive: true, force: true });
    },
  };
}

export const browse = () => chromium.launch({ executablePath: browserPath, headless: true, args: FLAGS });

/** A page that has toured, and that remembers everything it complained about. */
export async function open(browser, address, { toured = true, init = null, refused = [], ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1024, height: 640 }, ...options });
  if (toured) await context.addInitScript(() => localStorage.setItem("isobar.toured", "1"));
  if (init) await context.addInitScript(init);
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && !refused.some((part) => message.text().includes(part))) complaints.push(message.text());
  });
  page.complaints = complaints;
  await page.goto(address);
  return page;
}

/** What the map draws, in its own words. */
export const seen = (page) => page.evaluate(() => globalThis.isobar.seen());

/** Asks again until it holds; the message says what was there last. */
export async function until(what, ask, holds, patience = 5_000) {
  const end = Date.now() + patience;
  let last;
  for (;;) {
    last = await ask();
    if (holds(last)) return last;
    if (Date.now() > end) throw new Error(`${what} did not come about in ${patience} ms; last seen: ${JSON.stringify(last)?.slice(0, 600)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export const live = (page) => until("a live picture", () => seen(page), (rows) => rows.some((row) => row.rate !== "–" && row.rate !== "0/s"), 15_000);

/** Width, height and bytes (RGB or RGBA) of a screenshot. Eight bits, not interlaced: what browsers write. */
export function pixels(png) {
  const width = png.readUInt32BE(16);
  const height = png.readUInt32BE(20);
  const channels = png[25] === 6 ? 4 : 3;
  const parts = [];
  for (let at = 8; at < png.length; ) {
    const length = png.readUInt32BE(at);
    if (png.toString("latin1", at + 4, at + 8) === "IDAT") parts.push(png.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  const raw = inflateSync(Buffer.concat(parts));
  const stride = width * channels;
  const out = Buffer.alloc(stride * height);
  for (let y = 0; y < height; y += 1) {
    const filter = raw[y * (stride + 1)];
    for (let x = 0; x < stride; x += 1) {
      const left = x >= channels ? out[y * stride + x - channels] : 0;
      const up = y > 0 ? out[(y - 1) * stride + x] : 0;
      const corner = x >= channels && y > 0 ? out[(y - 1) * stride + x - channels] : 0;
      const guess = left + up - corner;
      const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
      const paeth = a <= b && a <= c ? left : b <= c ? up : corner;
      const add = [0, left, up, (left + up) >> 1, paeth][filter] ?? 0;
      out[y * stride + x] = (raw[y * (stride + 1) + 1 + x] + add) & 255;
    }
  }
  return { width, height, channels, bytes: out };
}

/** The variance of brightness, and the number of colours: a blank canvas has neither. */
export function variety(png) {
  const { channels, bytes } = pixels(png);
  let [sum, squares, count] = [0, 0, 0];
  const colours = new Set();
  for (let at = 0; at < bytes.length; at += channels) {
    const value = (bytes[at] + bytes[at + 1] + bytes[at + 2]) / 3;
    sum += value;
    squares += value * value;
    count += 1;
    if (count % 7 === 0) colours.add((bytes[at] << 16) | (bytes[at + 1] << 8) | bytes[at + 2]);
  }
  return { variance: squares / count - (sum / count) ** 2, colours: colours.size };
}

/** What the canvas shows where no button lies over it: blank, it has no variance at all. */
export async function picture(page) {
  const { x, y, width, height } = await page.locator("canvas.picture").boundingBox();
  return variety(await page.screenshot({ clip: { x: x + 8, y: y + 64, width: width - 72, height: height - 128 } }));
}

/** Waits for the first frame that was drawn; the numbers may be there before it. */
export const drawn = (page, within = 8_000) =>
  until("a picture", () => picture(page), ({ variance, colours }) => variance > 20 && colours > 20, within);
