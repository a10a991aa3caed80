// What happens to a page that stays open: the file changes, isobar becomes another, the window, the colours, the paper.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { front } from "../front.mjs";
import { browse, browserPath, drawn, live, open, pixels, seen, until, up } from "./harness.mjs";

if (!browserPath) {
  console.error("skipped: no chromium is installed");
  process.exit(0);
}

let isobar;
let browser;
const pages = [];
const undo = [];

async function look(path, { of = isobar, ...options } = {}) {
  const page = await open(browser, of.url + path, options);
  pages.push(page);
  return page;
}

/** A file that may be written again, in a folder of its own. */
function file(text) {
  const folder = mkdtempSync(join(tmpdir(), "isobar-states-"));
  undo.push(() => rmSync(folder, { recursive: true, force: true }));
  const write = (now) => writeFileSync(join(folder, "isobar.yaml"), now);
  write(text);
  return { folder, write };
}

const service = (name, calls = []) => `  ${name}: {operations: {"GET /": {work: 1ms, calls: [${calls.join(", ")}]}}}\n`;
const system = (name, services) => `isobar: 1\nsystem: ${name}\nservices:\n${services.join("")}`;
const names = async (page) => (await seen(page)).map((row) => row.name).sort().join();
const settled = (of) => until("a settled system", async () => (await of.ask("/v1/status")).body.settled, (it) => it, 30_000);

before(async () => {
  [isobar, browser] = await Promise.all([up(), browse()]);
  await settled(isobar);
});

afterEach(async () => {
  const complaints = [];
  for (const page of pages.splice(0)) {
    complaints.push(...page.complaints);
    await page.context().close().catch(() => {});
  }
  for (const each of undo.splice(0).reverse()) await each();
  assert.deepEqual(complaints, []);
});

after(async () => {
  await browser?.close();
  await isobar?.down();
});

describe("a page that stays open", () => {
  test("follows the file without a reload, and moves nothing that stays", async () => {
    const { folder, write } = file(system("edited", [service("front", ["middle"]), service("middle", ["back"]), service("back")]));
    const own = await up(folder, [], { watch: true });
    undo.push(() => own.down());
    await settled(own);
    const page = await look("/?at=middle", { of: own });
    await page.evaluate(() => (globalThis.same = true));
    await until("three", () => names(page), (now) => now === "back,front,middle", 10_000);
    const doc = async () => new Map((await own.ask("/v1/map")).body.nodes.map((node) => [node.name, [node.x, node.y]]));
    const first = await doc();
    write(system("edited", [service("front", ["middle", "more"]), service("middle", ["back"]), service("back"), service("more")]));
    await until("one more", () => names(page), (now) => now === "back,front,middle,more", 15_000);
    const second = await doc();
    for (const name of ["front", "middle", "back"]) assert.equal(second.get(name)[0], first.get(name)[0], `${name} left its column`);
    const order = (of) => ["middle", "more"].map((name) => of.get(name)[1]);
    write(system("edited", [service("front", ["central", "more"]), service("central", ["back"]), service("back"), service("more")]));
    await until("another name", () => names(page), (now) => now === "back,central,front,more", 15_000);
    const third = await doc();
    for (const name of ["front", "back", "more"]) assert.deepEqual(third.get(name), second.get(name), `${name} moved when another was renamed`);
    assert.deepEqual([third.get("central")[1], third.get("more")[1]], order(second));
    // What was chosen is gone, and says nothing false.
    assert.equal(await page.locator("aside").count(), 0);
    write(system("edited", [service("front", ["more"]), service("more")]));
    await until("two", () => names(page), (now) => now === "front,more", 15_000);
    // A mistake changes nothing.
    write("isobar: 1\nsystem: [");
    await page.getByRole("button", { name: "table" }).click();
    await until("the table of two", () => page.locator("tbody tr[data-node]").count(), (count) => count === 2);
    assert.equal(await page.evaluate(() => globalThis.same), true, "no reload");
  });

  test("sees that isobar is another one with another file", async () => {
    const [one, other] = [file(system("one", [service("a", ["b"]), service("b")])), file(system("other", [service("b"), service("c", ["b"])]))];
    let behind = await up(one.folder, []);
    undo.push(() => behind.down());
    const shown = await front(() => behind.url);
    undo.push(() => shown.end());
    const refused = ["WebSocket", "ERR_"];
    const views = await Promise.all(["/?at=a", "/table?sort=name", "/service/b", "/traces", "/act"].map((path) => look(path, { of: shown, refused })));
    const [map, table, page] = views;
    await until("the first", () => names(map), (now) => now === "a,b", 10_000);
    await behind.down();
    for (const view of views) await until("stale, in each view", () => view.locator(".age").textContent(), (text) => text.includes("stale"), 15_000);
    assert.equal(await table.locator(".table.stale").count(), 1, "the table is grey");
    behind = await up(other.folder, []);
    await until("the other's", () => names(map), (now) => now === "b,c", 20_000);
    for (const view of views) {
      await until("fresh", () => view.locator(".age").textContent(), (text) => /\d\.\d s old/.test(text), 15_000);
      await until("its name", () => view.locator(".system").textContent(), (text) => text === "other");
    }
    assert.equal(await map.locator("aside").count(), 0, "what was chosen is gone");
    await until("the other's rows", () => table.locator("tbody .name").allTextContents(), (rows) => rows.join() === "b,c");
    await until("the service's page", () => page.locator("h1").textContent(), (text) => text === "b");
    assert.equal(await page.locator("[role=alert]").count(), 0);
  });

  test("asks for nothing while nobody looks, and is up to date at once when somebody does", async () => {
    const page = await look("/");
    await live(page);
    const hide = (hidden) => page.evaluate((to) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => to });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
    await hide(true);
    let asked = 0;
    page.on("request", () => (asked += 1));
    const frames = () => page.evaluate(() => globalThis.isobar.frames());
    const before = await frames();
    await until("frames that nobody sees", frames, (now) => now >= before + 12, 20_000);
    assert.equal(asked, 0, "a hidden page asks for nothing");
    await hide(false);
    await until("a young picture", () => page.locator(".age").textContent(), (text) => /^\s*[01]\.\d s old/.test(text));
    await drawn(page);
  });

  test("agrees with another about what was done", async () => {
    const [one, two] = [await look("/act"), await look("/act", { refused: ["422"] })];
    await one.locator(".service", { hasText: "catalog" }).getByRole("button", { name: "restart" }).click();
    await one.getByRole("alertdialog").getByRole("textbox").fill("Ada");
    await one.getByRole("button", { name: "Do it" }).click();
    const done = (page) => page.locator("ul").last().innerText();
    await until("the same on both", async () => [await done(one), await done(two)], ([here, there]) => here === there && here.includes("Ada: restart catalog"));
    // What cannot be is refused in words, asked for once and recorded with who asked.
    await two.getByRole("spinbutton", { name: "instances of catalog" }).fill("5000");
    await two.locator(".service", { hasText: "catalog" }).getByRole("button", { name: "scale" }).click();
    await two.getByRole("alertdialog").getByRole("textbox").fill("Grace");
    await two.getByRole("button", { name: "Do it" }).click();
    const word = await until("the refusal", () => two.locator("p[role=status]").first().textContent(), (text) => text !== null && text !== "");
    await until("its record on both", async () => [await done(one), await done(two)], (both) => both.every((text) => text.includes("Grace: scale catalog to 5000 — refused") && text.includes(word)));
  });
});

describe("any window", () => {
  const PATHS = ["/?at=web", "/?group=zone", "/table", "/service/cart", "/traces", "/act"];

  test("from 320 to 3840 wide, enlarged, and dense", async () => {
    const page = await look("/", { reducedMotion: "reduce" });
    // The widest is drawn by software here: a few looks at it are enough.
    for (const [width, height, paths] of [[320, 568, PATHS], [720, 450, PATHS], [3840, 2160, ["/table", "/act"]]]) {
      await page.setViewportSize({ width, height });
      for (const path of paths) {
        await page.goto(isobar.url + path);
        await until(`${path} at ${width}`, () => page.evaluate(() => document.querySelectorAll("canvas.picture, section.page h1, tbody tr[data-node]").length), (count) => count > 0, 10_000);
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${path} is wider than ${width}`);
      }
      await page.goto(`${isobar.url}/`);
      await live(page);
      for (const name of ["web", "sick", "ads"]) {
        const [x, y] = (await page.evaluate((of) => globalThis.isobar.spots(of), name))[0];
        assert.ok(x > 0 && x < width && y > 0 && y < height, `${name} is at ${x},${y} of ${width}x${height}`);
      }
    }
    const dense = await look("/", { viewport: { width: 390, height: 844 }, deviceScaleFactor: 3 });
    await live(dense);
    assert.equal(await dense.evaluate(() => document.querySelectorAll("canvas")[1].width / document.querySelectorAll("canvas")[1].clientWidth), 3, "text is as sharp as the screen");
  });

  test("has the same picture without WebGL", async () => {
    const shot = async (path) => {
      const page = await look(path, { viewport: { width: 800, height: 500 }, reducedMotion: "reduce" });
      await live(page);
      await drawn(page);
      // A picture that stands still, of the same moment of nothing: boxes, and lines without dots.
      await page.evaluate(() => globalThis.isobar.pause(true));
      await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
      return { picture: pixels(await page.locator("canvas.picture").screenshot()), spots: await page.evaluate(() => globalThis.isobar.spots("web")) };
    };
    const [gl, plain] = [await shot("/"), await shot("/?canvas")];
    assert.deepEqual(gl.spots, plain.spots);
    // Coarse blocks: numbers and health may have changed between the two, boxes and lines may not.
    const ink = ({ width, height, channels, bytes }) => {
      const blocks = new Map();
      const paper = bytes.subarray(0, channels);
      for (let y = 0; y < height; y += 1) {
        for (let x = 0; x < width; x += 1) {
          const at = (y * width + x) * channels;
          if (Math.abs(bytes[at] - paper[0]) + Math.abs(bytes[at + 1] - paper[1]) + Math.abs(bytes[at + 2] - paper[2]) < 24) continue;
          const block = `${x >> 4},${y >> 4}`;
          blocks.set(block, (blocks.get(block) ?? 0) + 1);
        }
      }
      return new Set([...blocks].filter(([, count]) => count > 12).map(([block]) => block));
    };
    const [one, other] = [ink(gl.picture), ink(plain.picture)];
    const both = [...one].filter((block) => other.has(block)).length;
    assert.ok(both > 60 && both / Math.max(one.size, other.size) > 0.85, `${both} of ${one.size} and ${other.size} blocks`);
  });

  test("says what is pressed where the system chooses the colours", async () => {
    for (const colorScheme of ["light", "dark"]) {
      const page = await look("/", { forcedColors: "active", colorScheme });
      await live(page);
      const look_of = (name) => page.getByRole("button", { name, exact: true }).evaluate((it) => `${getComputedStyle(it).backgroundColor} ${getComputedStyle(it).color}`);
      assert.notEqual(await look_of("services"), await look_of("zones"));
      assert.notEqual(await look_of("map"), await look_of("table"));
      await drawn(page);
    }
  });

  test("goes onto paper whole", async () => {
    for (const path of ["/service/cart", "/table", "/traces", "/act"]) {
      const page = await look(path, { viewport: { width: 1024, height: 300 } });
      await until(path, () => page.evaluate(() => document.querySelectorAll("section.page h2, tbody tr, caption").length), (count) => count > 1, 10_000);
      await page.emulateMedia({ media: "print" });
      const cut = await page.evaluate(() => [...document.querySelectorAll(".page, .table")].filter((it) => it.scrollHeight > it.clientHeight + 1).length);
      assert.equal(cut, 0, `${path} is cut`);
      assert.ok(await page.evaluate(() => document.documentElement.scrollHeight >= document.querySelector(".page, .table").scrollHeight), `${path} ends with the window`);
      assert.equal(await page.locator("nav").isVisible(), false);
    }
  });

  test("shows where the focus is, at every stop, and has a name for each", async () => {
    for (const path of [...PATHS, "/?at=catalog-%3Esick"]) {
      const page = await look(path);
      await until(path, () => page.evaluate(() => document.querySelectorAll("canvas.picture, section.page h1, tbody tr[data-node]").length), (count) => count > 0, 10_000);
      let stops = 0;
      for (; stops < 60; stops += 1) {
        await page.keyboard.press("Tab");
        const stop = await page.evaluate(() => {
          const it = document.activeElement;
          if (it === null || it === document.body) return null;
          const { outlineStyle, outlineWidth } = getComputedStyle(it);
          const name = it.getAttribute("aria-label") ?? it.labels?.[0]?.textContent ?? it.textContent ?? "";
          return { html: it.outerHTML.slice(0, 160), outlined: outlineStyle !== "none" && Number.parseFloat(outlineWidth) > 0, named: name.trim() !== "", seen: it.getBoundingClientRect().width > 0 };
        });
        if (stop === null) break;
        assert.ok(stop.outlined && stop.named && stop.seen, `${path}: ${JSON.stringify(stop)}`);
      }
      assert.ok(stops >= 8, `${path} has ${stops} stops`);
    }
  });
});
