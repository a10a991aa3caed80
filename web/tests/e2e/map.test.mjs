// The page, with a real system behind it. One isobar and one browser serve all tests; each test has a page of its own.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { browse, browserPath, drawn, live, open, pixels, seen, until, up } from "./harness.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SERVICES = ["ads", "cart", "carts", "catalog", "edge", "sick", "web"];

if (!browserPath) {
  console.error("skipped: no chromium is installed");
  process.exit(0);
}

let isobar;
let browser;
const pages = [];

async function look(path, options) {
  const page = await open(browser, isobar.url + path, options);
  pages.push(page);
  return page;
}

const row = async (page, name) => (await seen(page)).find((each) => each.name === name);
const act = (body, headers = { "X-Isobar-Act": "1" }) => isobar.ask("/v1/act", { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) });
const command = (path, method = "POST") => isobar.ask(path, { method });

before(async () => {
  [isobar, browser] = await Promise.all([up(), browse()]);
  await until("a settled system", async () => (await isobar.ask("/v1/status")).body.settled, (settled) => settled, 20_000);
});

afterEach(async () => {
  // No test may leave a complaint behind: a broken script, a file that is not there, a breach of the page's own policy.
  for (const page of pages.splice(0)) {
    const complaints = page.complaints;
    await page.context().close().catch(() => {});
    assert.deepEqual(complaints, []);
  }
});

after(async () => {
  await browser?.close();
  await isobar?.down();
});

describe("the map", () => {
  test("draws the running system", async () => {
    const page = await look("/");
    const rows = await live(page);
    assert.deepEqual(rows.map((each) => each.name).sort(), SERVICES);
    await drawn(page);
    assert.match(await page.locator(".age").textContent(), /\d\.\d s old/);
  });

  test("draws in two dimensions where there is no WebGL", async () => {
    const page = await look("/?canvas");
    await live(page);
    await drawn(page);
  });

  test("comes back when the browser takes the context away and gives it back", async () => {
    const page = await look("/", { refused: ["CONTEXT_LOST"] });
    await live(page);
    await drawn(page);
    await page.evaluate(() => {
      const gl = document.querySelector("canvas.picture").getContext("webgl2");
      globalThis.lose = gl.getExtension("WEBGL_lose_context");
      globalThis.lose.loseContext();
    });
    await page.waitForTimeout(600);
    await page.evaluate(() => globalThis.lose.restoreContext());
    await drawn(page);
    // With its lines, which were in the context that went.
    const spots = await page.evaluate(() => globalThis.isobar.spots("web->cart"));
    const { width, channels, bytes } = pixels(await page.screenshot());
    const [x, y] = spots[15].map(Math.round);
    const near = [-2, -1, 0, 1, 2].map((by) => [...bytes.subarray(((y + by) * width + x) * channels, ((y + by) * width + x) * channels + 3)]);
    assert.ok(near.some(([r, g, b]) => Math.max(r, g, b) - Math.min(r, g, b) > 25), JSON.stringify(near));
  });

  test("is the same picture for the same data and time", async () => {
    const page = await look("/", { reducedMotion: "reduce" });
    await live(page);
    await page.evaluate(() => globalThis.isobar.pause(true));
    const shot = async () => pixels(await page.locator(".map").screenshot()).bytes;
    const first = await until("a first picture", shot, () => true);
    await page.waitForTimeout(600);
    assert.ok(first.equals(await shot()), "a held picture moved");
    await page.evaluate(() => globalThis.isobar.pause(false));
    await until("a picture that goes on", shot, (next) => !first.equals(next));
  });

  test("shows a fault as failing within two seconds, and its end", async () => {
    const page = await look("/");
    await live(page);
    await until("a healthy start", () => row(page, "cart"), (it) => it.health === "ok", 10_000);
    await command("/v1/services/cart/stop");
    const began = Date.now();
    await until("cart in red", () => row(page, "cart"), (it) => it.health === "bad", 10_000);
    const took = Date.now() - began;
    try {
      assert.ok(took < 2_000, `it took ${took} ms`);
      await until("the caller in red", () => row(page, "web"), (it) => it.health === "bad", 5_000);
      const magenta = ({ bytes, channels }) => {
        let count = 0;
        for (let at = 0; at < bytes.length; at += channels) if (bytes[at] > 150 && bytes[at + 1] < 60 && bytes[at + 2] > 60 && bytes[at + 2] < 130) count += 1;
        return count;
      };
      assert.ok(magenta(pixels(await page.locator("canvas.picture").screenshot())) > 200, "the words say failing, the picture does not");
      await until("a sentence for those who do not see", () => page.locator("p[aria-live=polite]").textContent(), (text) => /failing: .*cart/.test(text), 10_000);
    } finally {
      await command("/v1/services/cart/start");
    }
    await until("cart as before", () => row(page, "cart"), (it) => it.health === "ok", 15_000);
  });

  test("draws each call where it belongs, and in red when it fails", async () => {
    const page = await look("/?at=cart", { reducedMotion: "reduce", viewport: { width: 1200, height: 700 } });
    await live(page);
    await until("a healthy start", () => row(page, "cart"), (it) => it.health === "ok", 10_000);
    const spots = (name) => page.evaluate((of) => globalThis.isobar.spots(of), name);
    // The strongest colour within two pixels: lines are thin, and their borders are smooth.
    const colours = async (points) => {
      const { width, channels, bytes } = pixels(await page.screenshot());
      return points.map(([x, y]) => {
        let strongest = [0, 0, 0];
        for (let dy = -2; dy <= 2; dy += 1) {
          for (let dx = -2; dx <= 2; dx += 1) {
            const at = ((Math.round(y) + dy) * width + Math.round(x) + dx) * channels;
            const colour = [...bytes.subarray(at, at + 3)];
            if (Math.max(...colour) - Math.min(...colour) > Math.max(...strongest) - Math.min(...strongest)) strongest = colour;
          }
        }
        return strongest;
      });
    };
    const teal = ([r, g, b]) => g > r + 25 && b > r + 15;
    const magenta = ([r, g, b]) => r > g + 40 && b > g;
    const inner = (points) => [6, 15, 24].map((at) => points[at]);
    const check = async (name, holds, words) => {
      const points = inner(await spots(name));
      assert.equal(points.length, 3, `${name} is on the map`);
      const found = await colours(points);
      assert.ok(found.every(holds), `${name} ${words}: ${JSON.stringify(found)} at ${JSON.stringify(points)}`);
    };
    await check("web->cart", teal, "is drawn");
    await check("cart->carts", teal, "is drawn");
    const [[x, y]] = await spots("cart");
    const [beside] = await colours([[x, y + 150]]);
    assert.ok(!teal(beside) && !magenta(beside), `nothing is drawn where nothing is: ${beside}`);
    // Kept between frames, and drawn anew when the window is another.
    await page.waitForTimeout(2_500);
    await check("web->cart", teal, "is still drawn");
    await page.setViewportSize({ width: 900, height: 640 });
    await page.waitForTimeout(700);
    await check("web->cart", teal, "is drawn in another window");
    await command("/v1/services/cart/stop");
    try {
      await until("cart in red", () => row(page, "cart"), (it) => it.health === "bad", 10_000);
      await until("a red line", async () => (await colours(inner(await spots("web->cart")))).every(magenta), (red) => red, 5_000);
    } finally {
      await command("/v1/services/cart/start");
    }
    await until("cart as before", () => row(page, "cart"), (it) => it.health === "ok", 15_000);
    await until("a line as before", async () => (await colours(inner(await spots("web->cart")))).every(teal), (fine) => fine, 5_000);
  });

  test("moves nothing for those who asked for less motion", async () => {
    const init = () => {
      globalThis.points = 0;
      const draw = WebGL2RenderingContext.prototype.drawElements;
      WebGL2RenderingContext.prototype.drawElements = function (mode, ...rest) {
        if (mode === this.POINTS) globalThis.points += 1;
        draw.call(this, mode, ...rest);
      };
    };
    const moves = async (reducedMotion) => {
      const page = await look("/", { init, reducedMotion });
      await live(page);
      await page.waitForTimeout(1_000);
      return page.evaluate(() => globalThis.points);
    };
    assert.equal(await moves("reduce"), 0);
    assert.ok((await moves("no-preference")) > 3, "the count counts nothing");
  });

  test("says which breakers are open, and always names the worst call", async () => {
    const page = await look("/");
    await live(page);
    const sick = await until("an open breaker", () => row(page, "sick"), (it) => /^[1-9]\d* open of \d+$/.test(it.breakers), 15_000);
    assert.ok(sick.signs.some((sign) => sign.includes("breakers open")), sick.signs.join());
    assert.equal((await row(page, "cart")).breakers, "–", "who has none has none");
    await page.getByRole("button", { name: "zoom out" }).click();
    await page.goto(`${isobar.url}/?at=catalog-%3Esick`);
    await until("the call's breakers", () => page.locator("aside dl").innerText(), (text) => /[1-9]\d* open of \d+/.test(text));
  });

  test("has every scale, each with an address", async () => {
    const cases = [
      ["/?group=region", ["eu", "gateways", "us"]],
      ["/?group=zone", ["eu/a", "eu/b", "gateways", "us/a"]],
      ["/?group=team", ["goods", "nobody's", "storefront"]],
      ["/?group=team&open=storefront", ["cart", "carts", "edge", "goods", "nobody's", "web"]],
      ["/?group=version", ["ads", "cart v1.2.3", "cart v1.3.0", "carts", "catalog", "edge", "sick", "web"]],
    ];
    for (const [path, names] of cases) {
      const page = await look(path);
      const rows = await live(page);
      assert.deepEqual(rows.map((each) => each.name).sort(), names, path);
      await until(`traffic at every place of ${path}`, () => seen(page), (all) => all.filter((each) => each.rate !== "0/s" && each.rate !== "–").length >= names.length - 1, 10_000);
      await page.context().close();
    }
  });

  test("goes from far to near and back by the wheel", async () => {
    const page = await look("/");
    await live(page);
    const group = () => new URL(page.url()).searchParams.get("group");
    const turn = async (by, wanted) => {
      await page.mouse.move(512, 600);
      await until(`the scale ${wanted}`, async () => {
        await page.mouse.wheel(0, by);
        await page.waitForTimeout(60);
        return group();
      }, (now) => now === wanted);
      await page.waitForTimeout(800);
    };
    await turn(300, "zone");
    await turn(300, "region");
    assert.deepEqual((await seen(page)).map((each) => each.name).sort(), ["eu", "gateways", "us"]);
    await page.goBack();
    assert.equal(group(), "zone");
  });

  test("shows instances with their health when near", async () => {
    const page = await look("/?at=cart");
    await live(page);
    await until("cart's instances in the panel", () => page.locator("aside li").allTextContents(), (lines) => lines.filter((line) => /● cart#\d/.test(line)).length === 3);
  });
});

describe("finding", () => {
  test("takes the terminal's filter and says what is wrong with one", async () => {
    const page = await look("/table");
    await live(page);
    const names = () => page.locator("tbody tr[data-node]").evaluateAll((rows) => rows.map((each) => each.getAttribute("data-node")).sort());
    const cases = [["service:cart*", ["cart", "carts"]], ["team:storefront -kind:gateway", ["cart", "carts", "web"]], ["zone:us/a kind:store", ["carts"]], ["from:web", ["ads", "cart", "catalog", "web"]], ["service:web->c*", ["cart", "catalog", "web"]], ["version:v1.3.0", ["cart"]], ["rate>1000/s", []]];
    for (const [filter, expected] of cases) {
      await page.getByRole("searchbox").fill(filter);
      await until(filter, names, (now) => JSON.stringify(now) === JSON.stringify(expected));
      assert.equal(new URL(page.url()).searchParams.get("q"), filter);
    }
    await page.getByRole("searchbox").fill("servcie:cart");
    await until("a hint", () => page.locator("#mistake").textContent(), (text) => text.includes("did you mean `service`?"));
  });

  test("opens any view by its address, and back goes back", async () => {
    const page = await look("/?focus=cart&at=web-%3Ecart");
    await live(page);
    await until("the call's panel", () => page.locator("aside h2").textContent(), (text) => text === "web → cart");
    assert.match(await page.locator(".find .chip").textContent(), /around cart/);
    await page.locator("aside").getByRole("button", { name: "cart", exact: true }).click();
    await page.getByRole("button", { name: "open page" }).click();
    await until("the service's page", () => page.locator("h1").textContent(), (text) => text === "cart");
    assert.equal(new URL(page.url()).pathname, "/service/cart");
    await page.goBack();
    await until("the map again", () => page.locator("canvas.picture").count(), (count) => count === 1);
    for (const [path, heading] of [["/service/web", "web"], ["/traces", "traces"], ["/act", "act"]]) {
      await page.goto(isobar.url + path);
      await until(path, () => page.locator("h1").first().textContent(), (text) => text === heading);
    }
  });

  test("has what is looked for among traces in its address, and back goes back", async () => {
    const page = await look("/traces");
    const form = page.locator("form:not(.find)");
    const shown = async () => ({ service: await form.locator("select").inputValue(), slower: await form.locator("input[type=number]").inputValue(), failed: await form.locator("input[type=checkbox]").isChecked() });
    await until("the services", () => form.locator("option").allTextContents(), (names) => names.includes("sick"));
    await form.locator("select").selectOption("sick");
    await until("an answer of its own", () => page.locator("tbody td:nth-child(5)").allTextContents(), (rows) => rows.length > 0 && rows.every((services) => services.includes("sick")), 10_000);
    await form.locator("input[type=checkbox]").check();
    await form.locator("input[type=number]").fill("0.001");
    await until("its address", () => page.evaluate(() => location.search), (search) => search === "?service=sick&slower=0.001&failed=");
    assert.equal(await page.locator(".command").textContent(), "isobar trace --slowest --service sick --min-duration 0.001ms --error");
    const all = { service: "sick", slower: "0.001", failed: true };
    await page.reload();
    await until("the same again", shown, (now) => JSON.stringify(now) === JSON.stringify(all));
    await until("the same traces", () => page.locator("tbody td.bad").count(), (count) => count > 0, 10_000);
    await page.locator("tbody button").first().click();
    await until("a trace", () => new URL(page.url()).pathname, (path) => path.startsWith("/trace/"));
    await page.goBack();
    await until("the same after a look at one", shown, (now) => JSON.stringify(now) === JSON.stringify(all));
    await page.goBack();
    await until("one step before", shown, (now) => now.service === "sick" && !now.failed);
    await page.goForward();
    await until("and again", shown, (now) => JSON.stringify(now) === JSON.stringify(all));
    await form.locator("input[type=number]").fill("3600000");
    await until("none", () => page.locator("section.page").innerText(), (text) => text.includes("kept traces fits"), 10_000);
    // A service nobody has heard of is still what the address says.
    await page.goto(`${isobar.url}/traces?service=nobody&slower=-1`);
    await until("the odd one", shown, (now) => now.service === "nobody" && now.slower === "-1");
  });

  test("has commands that work, and those have addresses that show the same", async () => {
    const page = await look("/");
    const steps = [
      ["/", SERVICES.filter((name) => name !== "edge")], ["/?at=web", ["web", "cart", "ads"]], ["/?at=catalog-%3Esick", ["catalog", "sick"]], ["/?focus=cart", ["cart", "carts"]], ["/?group=zone", ["eu/a", "us/a"]], ["/?group=version&q=service%3Acart", ["v1.2.3", "v1.3.0"]], ["/?q=-odd", []],
      ["/table", SERVICES], ["/table?q=team%3Agoods&sort=rate", ["catalog", "sick"]], ["/table?group=team", ["storefront", "goods"]], ["/table?q=errors%3E50%25%20team%3Agoods", ["sick"]],
      ["/service/cart", ["cart#0", "cart#2"]], ["/traces?service=sick&slower=0.01&failed=", ["sick"]], ["/traces?q=service%3Acart%20spans%3E2", ["cart"]],
    ];
    for (const [address, words] of steps) {
      await page.goto(isobar.url + address);
      const command = await until(`the command at ${address}`, () => page.locator(".command").textContent(), (text) => text.startsWith("isobar "));
      const { out, words: said, code } = await isobar.shell(command);
      assert.equal(code, 0, `${command}: ${said}`);
      for (const word of words) assert.ok(out.includes(word), `${command} says nothing of ${word}:\n${out}${said}`);
      // Where it sends a reader is the same view, with what is looked for.
      const sent = /http:\S+/.exec(said)?.[0];
      if (sent === undefined) continue;
      const [there, here] = [new URL(sent), new URL(address, isobar.url)];
      for (const key of ["service", "slower", "sort"]) assert.equal(there.searchParams.get(key) ?? "", here.searchParams.get(key) ?? "", `${command}: ${sent}`);
      assert.equal(there.searchParams.has("failed"), here.searchParams.has("failed"), sent);
      if (/^\/(table|traces)/.test(address)) assert.deepEqual([there.pathname, there.searchParams.get("q") ?? "", there.searchParams.get("group") ?? ""], [here.pathname, here.searchParams.get("q") ?? "", here.searchParams.get("group") ?? ""], sent);
    }
    const [trace] = (await isobar.ask("/api/v2/traces?limit=1")).body;
    await page.goto(`${isobar.url}/trace/${trace[0].traceId}`);
    const { out, code } = await isobar.shell(await until("its command", () => page.locator(".command").textContent(), (text) => text.includes(trace[0].traceId)));
    assert.equal(code, 0);
    assert.ok(out.includes(trace[0].localEndpoint.serviceName), out);
  });

  test("survives a reload and the way back and forth in every view", async () => {
    const steps = ["/?q=team%3Agoods", "/?group=zone", "/?group=team&open=goods", "/?focus=web&at=cart", "/?group=version&camera=100%2C20%2C1.5", "/table?q=team%3Agoods&sort=-p99", "/table?group=zone&at=eu%2Fa", "/service/cart", "/traces?q=spans%3E2&service=web&failed=", "/act"];
    // What a person sees of where they are.
    const told = (page) => page.evaluate(() => JSON.stringify({
      find: document.querySelector("input[type=search]").value, nav: document.querySelector("nav [aria-current]")?.textContent, heading: document.querySelector("h1")?.textContent ?? "", command: document.querySelector(".command")?.textContent ?? "",
      pressed: [...document.querySelectorAll("[aria-pressed=true]")].map((it) => it.textContent), chips: [...document.querySelectorAll(".chip")].map((it) => it.textContent), panel: document.querySelector("aside h2")?.textContent ?? "",
      sorted: [...document.querySelectorAll("th[aria-sort]:not([aria-sort=none])")].map((it) => it.textContent), chosen: document.querySelector("tr.selected")?.getAttribute("data-node") ?? "",
    }));
    const page = await look(steps[0]);
    const before = [];
    for (const step of steps) {
      if (step !== steps[0]) await page.evaluate((to) => { history.pushState(null, "", to); dispatchEvent(new PopStateEvent("popstate")); }, step);
      await until(`${step} is there`, () => page.evaluate(() => document.querySelectorAll("canvas.picture, section.page h1, tbody tr[data-node]").length > 0 && !document.querySelector("[aria-busy=true]")), (there) => there, 10_000);
      await page.waitForFunction(() => document.querySelector("aside h2, tr.selected") !== null || !/[?&]at=/.test(location.search));
      before.push(await told(page));
    }
    assert.equal(new Set(before).size, steps.length, "each looks different");
    await page.reload();
    await until("the last after a reload", () => told(page), (now) => now === before.at(-1), 10_000);
    for (let at = steps.length - 2; at >= 0; at -= 1) {
      await page.goBack();
      await until(`back to ${steps[at]}`, () => told(page), (now) => now === before[at], 10_000);
      assert.equal(new URL(page.url()).pathname + new URL(page.url()).search, steps[at]);
    }
    for (let at = 1; at < steps.length; at += 1) {
      await page.goForward();
      await until(`forward to ${steps[at]}`, () => told(page), (now) => now === before[at], 10_000);
    }
    for (const [at, step] of steps.entries()) {
      await page.goto(isobar.url + step);
      await until(`${step} as a link`, () => told(page), (now) => now === before[at], 10_000);
    }
  });

  test("has where one looks, how the table is sorted and what is chosen in its address", async () => {
    const page = await look("/?camera=200%2C40%2C2");
    await live(page);
    const spot = async () => (await page.evaluate(() => globalThis.isobar.spots("web")))[0].map(Math.round);
    const there = await spot();
    await page.reload();
    await live(page);
    assert.deepEqual(await spot(), there);
    await page.getByRole("application").focus();
    await page.keyboard.press("ArrowRight");
    const camera = await until("another camera", () => new URL(page.url()).searchParams.get("camera"), (text) => text !== "200,40,2");
    assert.match(camera, /^230,40,2$/);
    await page.keyboard.press("0");
    await until("no camera for all of it", () => new URL(page.url()).searchParams.get("camera"), (text) => text === null);
    await page.goto(`${isobar.url}/table?sort=-name`);
    const names = () => page.locator("tbody tr[data-node]").evaluateAll((rows) => rows.map((each) => each.getAttribute("data-node")));
    await until("the table from behind", names, (now) => JSON.stringify(now) === JSON.stringify([...SERVICES].reverse()), 10_000);
    assert.equal(await page.locator("th[aria-sort=descending]").textContent().then((text) => text.trim().split(" ")[0]), "service");
    await page.getByRole("button", { name: "rate" }).click();
    assert.equal(new URL(page.url()).searchParams.get("sort"), "rate");
    await page.getByRole("button", { name: "rate" }).click();
    assert.equal(new URL(page.url()).searchParams.get("sort"), "-rate");
    const [trace] = await until("a trace", async () => (await isobar.ask("/api/v2/traces?limit=20")).body, (all) => all.some((spans) => spans.length > 2), 10_000).then((all) => all.filter((spans) => spans.length > 2));
    const span = trace.find((each) => each.parentId !== undefined);
    await page.goto(`${isobar.url}/trace/${trace[0].traceId}?at=${span.id}`);
    await until("the span's details", () => page.locator("aside p").first().textContent(), (text) => text.includes(span.id), 10_000);
  });

  test("needs no mouse", async () => {
    const page = await look("/");
    await live(page);
    await page.keyboard.press("/");
    await page.keyboard.type("service:catalog");
    await page.keyboard.press("Enter");
    await until("catalog selected", () => new URL(page.url()).searchParams.get("at"), (at) => at === "catalog");
    await page.getByRole("application").focus();
    await page.keyboard.press("Enter");
    await until("its page", () => page.locator("h1").textContent(), (text) => text === "catalog");
    await page.goto(isobar.url);
    await live(page);
    await page.getByRole("application").focus();
    for (const key of ["+", "ArrowLeft", "0", "n", "n"]) await page.keyboard.press(key);
    assert.ok(SERVICES.includes(new URL(page.url()).searchParams.get("at")));
    await page.keyboard.press("Escape");
    assert.equal(new URL(page.url()).searchParams.get("at"), null);
    // By tabbing alone: the table, and a service from it.
    await page.goto(isobar.url);
    await live(page);
    const focused = () => page.evaluate(() => document.activeElement?.textContent?.trim() ?? "");
    const tabTo = (text) => until(`the focus on ${text}`, async () => {
      await page.keyboard.press("Tab");
      return focused();
    }, (now) => now === text);
    await tabTo("table");
    await page.keyboard.press("Enter");
    await until("the table", () => page.locator("tbody tr").count(), (count) => count === SERVICES.length);
    await tabTo("carts");
    await page.keyboard.press("Enter");
    await until("its page", () => page.locator("h1").textContent(), (text) => text === "carts");
  });
});

test("the table says what the map says", async () => {
  for (const path of ["/", "/?group=team", "/?group=zone", "/?group=version"]) {
    const page = await look(path);
    await live(page);
    await page.waitForTimeout(1_200);
    await page.evaluate(() => globalThis.isobar.pause(true));
    await page.waitForTimeout(100);
    const words = (rows) => rows.map((it) => [it.name, it.team, it.health, it.rate, it.errors, it.p50, it.p99, it.busy, it.queue, it.healthy, it.breakers].join("|")).sort();
    const drawn = words(await seen(page));
    await page.getByRole("button", { name: "table" }).click();
    const health = { idle: "idle", ok: "ok", warning: "warn", failing: "bad" };
    const table = () => page.locator("tbody tr[data-node]").evaluateAll((rows) => rows.map((each) => [...each.children].map((cell) => cell.textContent.trim())));
    const told = await until("a full table", table, (rows) => rows.length === drawn.length);
    const lines = told.map(([name, team, state, ...rest]) => [name, team, health[state.split(" ")[1]], ...rest].join("|")).sort();
    // Numbers between places are asked for anew by each view; the names and the columns of frames must be equal.
    if (path.endsWith("zone") || path.endsWith("version")) assert.deepEqual(lines.map((line) => line.split("|")[0]), drawn.map((line) => line.split("|")[0]));
    else assert.deepEqual(lines, drawn, path);
  }
});

describe("a service's page", () => {
  test("has everything, and its heatmap opens traces", async () => {
    const page = await look("/service/web");
    await until("seconds of signals", () => page.locator("figcaption").first().textContent(), (text) => /rate \d/.test(text), 10_000);
    await until("an example", () => page.locator(".doors button").count(), (count) => count > 0, 15_000);
    const text = await page.locator("section.page").innerText();
    for (const part of ["requests", "errors", "latency", "cart", "web#0", "99.9% is promised", "budget left", "in use", "policy in force", "system.yaml:", "oncall.example", "last words", "changes"]) assert.ok(text.toLowerCase().includes(part.toLowerCase()), `no ${part} in:\n${text.slice(0, 3_000)}`);
    assert.ok(!/undefined|NaN|\[object/.test(text), text.slice(0, 3_000));
    await page.locator(".doors button").first().click();
    await until("a trace", () => page.locator("[role=option]").count(), (count) => count > 0, 10_000);
    assert.match(page.url(), /\/trace\/[0-9a-f]{16,32}/);
  });

  test("says so when nobody is called so", async () => {
    const page = await look("/service/nobody", { refused: ["404"] });
    await until("words", () => page.locator("[role=alert]").textContent(), (text) => text.includes("no service is called nobody"));
  });
});

describe("traces", () => {
  test("are found and drawn", async () => {
    const page = await look("/traces?q=service:cart%20spans%3E2");
    await until("some", () => page.locator("tbody tr").count(), (count) => count > 3, 10_000);
    await page.locator("tbody button").first().click();
    const services = () => page.locator("[role=option] .name").allTextContents();
    await until("a waterfall", services, (names) => names.some((name) => name.startsWith("edge")) && names.some((name) => name.startsWith("cart")));
    await page.getByRole("listbox").focus();
    await page.keyboard.press("ArrowDown");
    await until("a span's details", () => page.locator("aside dl").count(), (count) => count === 1);
  });

  test("of ten thousand spans scroll like ten", async () => {
    const trace = "abcdefabcdefabcd";
    const now = Date.now() * 1000;
    const id = (n) => (n + 1).toString(16).padStart(16, "0");
    const spans = Array.from({ length: 10_000 }, (_, n) => ({
      traceId: trace, id: id(n), ...(n > 0 ? { parentId: id((n - 1) >> 2) } : {}), kind: "SERVER", name: `step ${n}`, timestamp: now + n * 10, duration: Math.max(1, 200_000 - n * 20), localEndpoint: { serviceName: `s${n % 20}` },
      ...(n === 7 ? { tags: { "isobar.attempt": "3", "isobar.queue_wait_us": "5000" } } : {}),
    }));
    for (let at = 0; at < spans.length; at += 1_000) {
      const sent = await fetch(`${isobar.url}/api/v2/spans`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(spans.slice(at, at + 1_000)) });
      assert.equal(sent.status, 202);
    }
    const page = await look(`/trace/${trace}`);
    await until("its rows", () => page.locator("h1 + span").textContent(), (text) => text?.includes("10000 spans"), 10_000);
    const rows = await page.locator("[role=option]").count();
    assert.ok(rows > 5 && rows < 120, `${rows} rows are in the document`);
    await page.getByRole("listbox").evaluate((list) => (list.scrollTop = list.scrollHeight));
    await until("the last row", () => page.locator("[role=option]").last().textContent(), (text) => /s\d+/.test(text));
    assert.ok((await page.locator("[role=option]").count()) < 120);
  });
});

describe("acts", () => {
  test("are asked for once, done, and remembered", async () => {
    const page = await look("/act");
    await page.getByRole("spinbutton", { name: "instances of catalog" }).fill("4");
    const before = (await isobar.ask("/v1/acts")).body.length;
    await page.locator(".service", { hasText: "catalog" }).getByRole("button", { name: "scale" }).click();
    const ask = page.getByRole("alertdialog");
    assert.match(await ask.innerText(), /Scale catalog to 4\?/);
    assert.equal((await isobar.ask("/v1/acts")).body.length, before, "nothing happens before the answer");
    await ask.getByRole("button", { name: "Do it" }).click();
    await until("a fourth instance", async () => (await isobar.ask("/v1/status")).body.services.find((it) => it.name === "catalog").instances.filter((it) => it.state === "ready").length, (count) => count === 4, 10_000);
    await until("its record", () => page.locator("ul li").first().textContent(), (text) => text.includes("scale catalog to 4"));
    await act({ do: "scale", service: "catalog", to: 3 });
  });

  test("run a scenario, show it on the map, and stop it", async () => {
    const page = await look("/act");
    const scenario = page.locator("article", { hasText: "ads-lost" });
    await until("the scenario", () => scenario.count(), (count) => count === 1);
    // Asked once; no means no, and the focus comes back.
    await scenario.getByRole("button").focus();
    await page.keyboard.press("Enter");
    const ask = page.getByRole("alertdialog");
    assert.match(await ask.innerText(), /Run ads-lost\?.*guard/s);
    await page.keyboard.press("Escape");
    await until("no question", () => ask.count(), (count) => count === 0);
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "run ads-lost");
    const running = async () => (await isobar.ask("/v1/status")).body.scenario;
    assert.equal(await running(), null);
    await page.keyboard.press("Enter");
    await ask.getByRole("textbox").fill("Ada");
    await ask.getByRole("button", { name: "Do it" }).click();
    await until("its countdown", () => page.locator(".running").innerText(), (text) => /ads-lost.*undone by itself in \d+ s/s.test(text));
    // On the map, within two seconds of its being in force.
    await page.getByRole("button", { name: "map" }).click();
    await until("the fault in force", running, (it) => it !== null && it.in_force.length > 0, 10_000);
    const began = Date.now();
    await until("the fault on the map", () => row(page, "ads"), (it) => it.health === "bad" && it.signs.some((sign) => sign.includes("fault")), 10_000);
    assert.ok(Date.now() - began < 2_000, `it took ${Date.now() - began} ms`);
    await until("the map says that it runs", () => page.locator(".strip").innerText(), (text) => /ads-lost runs: undone by itself in \d+ s/.test(text));
    await page.getByRole("button", { name: "act", exact: true }).click();
    await page.getByRole("button", { name: /Stop All/ }).click();
    await until("nothing running", running, (it) => it === null, 10_000);
    await page.getByRole("button", { name: "map" }).click();
    await until("ads as before", () => row(page, "ads"), (it) => it.health !== "bad" && !it.signs.some((sign) => sign.includes("fault")), 15_000);
    await page.getByRole("button", { name: "act", exact: true }).click();
    await until("who did it", () => page.locator("ul").last().innerText(), (text) => /Ada: scenario ads-lost/.test(text) && /Ada: stop all/.test(text));
    const { body: history } = await isobar.ask("/v1/history");
    assert.ok(JSON.stringify(history).includes("Ada"), "the history says who, too");
  });

  test("end by themselves when a guard breaks, and say why", async () => {
    const page = await look("/act");
    const watching = await look("/table");
    const running = async () => (await isobar.ask("/v1/status")).body.scenario;
    await page.getByRole("button", { name: "run too-far" }).click();
    await page.getByRole("alertdialog").getByRole("textbox").fill("Grace");
    await page.getByRole("button", { name: "Do it" }).click();
    const guard = /stopped by its guard: `web availability >= 99%` is far from holding/;
    // Of sixty seconds only those it takes to see: nobody stops it.
    await until("it in force", running, (it) => it !== null && it.in_force.length > 0, 10_000);
    const record = () => page.locator("ul li", { hasText: "too-far" }).first().innerText();
    await until("its end and why", record, (text) => guard.test(text) && /Grace: scenario too-far — ended/.test(text), 30_000);
    assert.equal(await running(), null, "nothing of it is left");
    await until("the same on another page", () => watching.locator(".strip.broken").innerText(), (text) => guard.test(text));
    await watching.getByRole("button", { name: "read", exact: true }).click();
    assert.equal(await watching.locator(".strip").count(), 0);
    const { body: history } = await isobar.ask("/v1/history");
    const told = history.changes.filter((it) => it.kind === "scenario" && it.subject === "too-far");
    assert.match(told.at(-1).text, guard);
    assert.deepEqual([told[0].who, told[0].text, told.at(-1).who], ["Grace", "starts", "isobar"]);
    assert.ok(told.some((it) => it.text.startsWith("undone: ")), "what it did is undone");
    await until("carts as before", () => row(watching, "cart"), (it) => it.health !== "bad" && it.signs.length <= 1, 20_000);
  });

  test("change the load and restart, asking once each", async () => {
    const page = await look("/act");
    const ask = page.getByRole("alertdialog");
    const done = () => page.locator("ul").last().innerText();
    const rate = async () => (await isobar.ask("/v1/status")).body.traffic.find((it) => it.name === "shoppers").rate_per_second;
    const before = await rate();
    await page.getByRole("button", { name: "×2 shoppers" }).click();
    assert.match(await ask.innerText(), new RegExp(`Change shoppers from ${before}/s to ${2 * before}/s\\?`));
    assert.equal(await rate(), before);
    await ask.getByRole("button", { name: "Do it" }).click();
    await until("twice the load", rate, (now) => now === 2 * before);
    await act({ do: "load", traffic: "shoppers", rate_per_second: before });
    await page.locator(".service", { hasText: "catalog" }).getByRole("button", { name: "restart" }).click();
    assert.match(await ask.innerText(), /Restart catalog/);
    await ask.getByRole("button", { name: "Do it" }).click();
    await until("its record", done, (text) => text.includes("restart catalog") && text.includes("shoppers at"));
  });

  test("are refused to other sites", async () => {
    const body = { do: "restart", service: "web" };
    assert.equal((await act(body, {})).status, 403, "without the header");
    assert.equal((await act(body, { "X-Isobar-Act": "1", Origin: "https://evil.example" })).status, 403, "from elsewhere");
    const page = await look("/act");
    await page.route("**/v1/map", async (route) => {
      const answer = await route.fetch();
      await route.fulfill({ json: { ...(await answer.json()), read_only: true } });
    });
    await page.reload();
    await until("words", () => page.locator(".only").count(), (count) => count === 1);
    assert.equal(await page.locator("section.page button:enabled").count(), 0, "nothing can be pressed in read-only mode");
  });
});

describe("from another machine", () => {
  const far = () => isobar.url.replace("127.0.0.1", "isobar.test");
  const api = (path, headers, init = {}) => new Promise((resolve, reject) => {
    // `fetch` does not let anybody say another Host.
    const { hostname, port } = new URL(isobar.url);
    const asked = request({ hostname, port, path, method: init.method ?? "GET", headers: { host: "isobar.test", ...headers } }, (answer) => {
      answer.resume();
      resolve({ status: answer.statusCode, headers: answer.headers });
    });
    asked.on("error", reject);
    asked.end(init.body);
  });

  test("the page asks for the token once, and keeps it where no script reads it", async () => {
    const page = await open(browser, `${far()}/`, { refused: ["401", "HTTP Authentication failed"] });
    pages.push(page);
    const field = page.getByLabel("token");
    await until("the question", () => field.count(), (count) => count === 1);
    assert.equal((await seen(page)).length, 0, "nothing is told before");
    await field.fill("0".repeat(32));
    await page.keyboard.press("Enter");
    await until("a refusal", () => page.locator("[role=alert]").textContent(), (text) => text.includes("not the token"));
    await field.fill(isobar.token());
    await page.keyboard.press("Enter");
    await live(page);
    const [cookie] = await page.context().cookies();
    assert.deepEqual([cookie.name, cookie.httpOnly, cookie.sameSite, cookie.path], ["isobar-session", true, "Strict", "/"]);
    assert.ok(!cookie.value.includes(isobar.token()) && cookie.value.length >= 32, "a session's id, and not the token");
    assert.ok(cookie.expires * 1000 - Date.now() > 11 * 3_600_000 && cookie.expires * 1000 - Date.now() <= 12 * 3_600_000, "for half a day");
    assert.equal(await page.evaluate((token) => document.cookie.includes(token) || JSON.stringify({ ...localStorage, ...sessionStorage }).includes(token) || location.href.includes(token), isobar.token()), false);
    await page.goto(`${far()}/table`);
    await live(page);
    await page.goto(`${far()}/act`);
    await page.getByRole("spinbutton", { name: "instances of ads" }).fill("2");
    await page.locator(".service", { hasText: "ads" }).getByRole("button", { name: "scale" }).click();
    await page.getByRole("alertdialog").getByRole("button", { name: "No" }).click();
    // Out: the page shows nothing more, and the cookie is worth nothing to whoever copied it.
    await page.getByRole("button", { name: "log out" }).click();
    await until("the question again", () => field.count(), (count) => count === 1);
    assert.equal((await seen(page)).length, 0, "nothing is told after");
    assert.equal((await page.context().cookies()).length, 0);
    assert.equal((await api("/v1/map", { cookie: `${cookie.name}=${cookie.value}` })).status, 401);
  });

  test("whoever guesses waits, and keeps nobody else out", async () => {
    const from = (address) => ({ "x-forwarded-for": address, "content-type": "application/json" });
    const login = (address, token) => api("/v1/login", from(address), { method: "POST", body: JSON.stringify({ token }) });
    const answers = [];
    for (let guess = 0; guess < 7; guess += 1) answers.push((await login("192.0.2.1", `guess ${guess}`)).status);
    assert.deepEqual(answers, [401, 401, 401, 401, 401, 429, 429]);
    assert.equal((await login("192.0.2.1", isobar.token())).status, 429, "the right one has to wait, too");
    const others = await login("192.0.2.2", isobar.token());
    assert.equal(others.status, 204);
    const [cookie] = others.headers["set-cookie"][0].split(";");
    assert.equal((await api("/v1/map", { cookie, "x-forwarded-for": "192.0.2.1" })).status, 200, "who is in stays in");
    await until("its turn", () => login("192.0.2.1", isobar.token()), ({ status }) => status === 204, 10_000);
    const metrics = await (await fetch(`${isobar.url}/metrics`)).text();
    const counted = (name) => Number(new RegExp(`^${name}(?:_total)? (\\d+)`, "m").exec(metrics)?.[1]);
    assert.ok(counted("isobar_tokens_wrong") >= 5 && counted("isobar_tokens_unheard") >= 3 && counted("isobar_logins") >= 2, metrics.split("\n").filter((line) => line.includes("token") || line.includes("login")).join("\n"));
    // From this machine, but through a front that says for whom.
    assert.equal((await api("/v1/map", { host: "127.0.0.1", "x-forwarded-for": "192.0.2.3" })).status, 401);
  });

  test("nothing is told without it, and another site's page cannot use it", async () => {
    for (const path of ["/v1/map", "/v1/status", "/metrics", "/api/v2/traces"]) assert.equal((await api(path, {})).status, 401, path);
    assert.equal((await api("/", {})).status, 200, "the page itself is no secret");
    const given = await api("/v1/login", { "content-type": "application/json" }, { method: "POST", body: JSON.stringify({ token: isobar.token() }) });
    const [cookie] = given.headers["set-cookie"][0].split(";");
    assert.equal((await api("/v1/map", { cookie })).status, 200);
    for (const wrong of ["wrong", "", isobar.token()]) assert.equal((await api("/v1/map", { cookie: `isobar-session=${wrong}` })).status, 401);
    const body = JSON.stringify({ do: "restart", service: "web" });
    for (const origin of ["http://evil.test", "null"]) {
      assert.equal((await api("/v1/act", { cookie, origin, "x-isobar-act": "1" }, { method: "POST", body })).status, 403);
      assert.equal((await api("/v1/services/web/restart", { cookie, origin }, { method: "POST" })).status, 403);
      assert.equal((await api("/v1/login", { origin, "content-type": "application/json" }, { method: "POST", body: JSON.stringify({ token: isobar.token() }) })).status, 403);
    }
  });
});

test("a system that may only be looked at says so, and obeys only its owner", async () => {
  const folder = mkdtempSync(join(tmpdir(), "isobar-look-"));
  writeFileSync(join(folder, "isobar.yaml"), "isobar: 1\nsystem: glass\nservices:\n  one: {operations: {\"GET /\": {work: 1ms}}}\nscenarios:\n  gone: {at: 1s, do: [stop one], lasts: 5s}\n");
  const glass = await up(folder, ["--read-only"]);
  try {
    const page = await open(browser, `${glass.url}/act`);
    pages.push(page);
    await until("the word", () => page.locator("header .read-only").count(), (count) => count === 1);
    await until("words", () => page.locator(".only").count(), (count) => count === 1);
    assert.equal(await page.locator("section.page button:enabled").count(), 0, "nothing can be pressed");
    const post = (path, headers = {}) => fetch(glass.url + path, { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: "{}" }).then((answer) => answer.status);
    assert.equal(await post("/v1/act", { "X-Isobar-Act": "1" }), 403);
    assert.equal(await post("/v1/services/one/restart"), 403);
    assert.equal(await post("/v1/services/one/restart", { Authorization: `Bearer ${glass.token()}` }), 200, "the owner's commands still do");
    await page.context().close();
  } finally {
    await glass.down();
    rmSync(folder, { recursive: true, force: true });
  }
});

describe("hostile words", () => {
  const NAMES = ["<img src=x onerror=alert(1)>", "😀".repeat(60), "x".repeat(200), "\u202Eevil\u202C שלום", "a]]>&amp;\"'`${1}"];

  test("are letters on every view", async () => {
    const taken = () => {
      globalThis.alert = () => (document.title = "taken");
    };
    const page = await look("/", { init: taken });
    await page.route("**/v1/map", async (route) => {
      const doc = await (await route.fetch()).json();
      doc.nodes.forEach((node, at) => (node.name = NAMES[at % NAMES.length] + (at >= NAMES.length ? at : "")));
      doc.teams.forEach((team) => (team.name = NAMES[0]));
      await route.fulfill({ json: doc });
    });
    await page.reload();
    await live(page);
    const drawn = (await seen(page)).map((each) => each.name);
    for (const name of NAMES) assert.ok(drawn.includes(name), name);
    await page.getByRole("button", { name: "table" }).click();
    const told = await until("the table", () => page.locator("tbody .name").allTextContents(), (names) => names.length === drawn.length);
    assert.deepEqual([...told].sort(), [...drawn].sort());
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "a long name made the page wider");
    assert.equal(await page.locator("tbody img, main script").count(), 0);
    assert.notEqual(await page.title(), "taken");
  });

  test("from applications and files are letters, too", async () => {
    const now = Date.now() * 1000;
    const spans = NAMES.map((name, at) => ({ traceId: "bad0bad0bad0bad0", id: `000000000000000${at + 1}`, ...(at > 0 ? { parentId: "0000000000000001" } : {}), name, timestamp: now, duration: 1000, localEndpoint: { serviceName: name }, tags: { [name]: name } }));
    assert.equal((await fetch(`${isobar.url}/api/v2/spans`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(spans) })).status, 202);
    const page = await look("/trace/bad0bad0bad0bad0", { refused: ["404"] });
    await until("its spans", () => page.locator("[role=option]").count(), (count) => count === NAMES.length);
    await page.locator("[role=option]").first().click();
    assert.equal(await page.locator("main img, main script").count(), 0);
    await page.goto(`${isobar.url}/service/web`);
    await until("the description", () => page.locator("section.page").innerText(), (text) => text.includes("<script>document.title = 'taken'</script>"));
    await page.goto(`${isobar.url}/service/catalog`);
    await until("the contact", () => page.locator("section.page").innerText(), (text) => text.includes("<img src=x onerror=alert(1)>"));
    assert.notEqual(await page.title(), "taken");
    await page.goto(`${isobar.url}/service/${encodeURIComponent(NAMES[0])}?q=%22&group=%3Cb%3E`);
    await until("words", () => page.locator("main [role=alert]").textContent(), (text) => text.includes(`no service is called ${NAMES[0]}`));
  });
});

describe("when isobar is away", () => {
  test("the picture grows old aloud, and comes back by itself", async () => {
    const page = await look("/");
    await live(page);
    const pid = await isobar.pid();
    process.kill(pid, "SIGSTOP");
    try {
      await until("the word stale", () => page.locator(".age").textContent(), (text) => text.includes("stale"), 12_000);
      assert.match(await page.locator("[role=status]").first().textContent(), /stale/);
      assert.equal(await page.locator(".map.stale").count(), 1, "the picture is grey");
    } finally {
      process.kill(pid, "SIGCONT");
    }
    await until("a fresh picture", () => page.locator(".age").textContent(), (text) => /^\s*[01]\.\d s old/.test(text), 10_000);
    assert.equal(await page.locator(".map.stale").count(), 0);
  });

  test("a broken connection is mended with what was missed", async () => {
    const init = () => {
      const Real = globalThis.WebSocket;
      globalThis.sockets = [];
      globalThis.WebSocket = class extends Real {
        constructor(...args) {
          super(...args);
          globalThis.sockets.push(this);
        }
      };
    };
    const page = await look("/", { init });
    await live(page);
    await page.evaluate(() => globalThis.sockets.at(-1).close());
    await until("another connection", () => page.evaluate(() => globalThis.sockets.length), (count) => count === 2);
    await until("a fresh picture", () => page.locator(".age").textContent(), (text) => /^\s*[01]\.\d s old/.test(text));
  });

  test("events do where no WebSocket can be opened", async () => {
    const init = () => {
      globalThis.WebSocket = class extends EventTarget {
        static OPEN = 1;
        readyState = 3;
        constructor() {
          super();
          setTimeout(() => this.onclose?.(), 5);
        }
        close() {}
      };
    };
    const page = await look("/", { init });
    await live(page);
    const before = (await row(page, "web")).rate;
    await until("another number", () => row(page, "web"), (it) => it.rate !== before, 15_000);
  });
});

describe("everyone", () => {
  test("finds no serious barrier on any view, in light and dark", async () => {
    for (const colorScheme of ["light", "dark"]) {
      for (const path of ["/?at=web", "/?group=team", "/table", "/service/web", "/traces", "/act"]) {
        const page = await look(path, { colorScheme });
        await page.waitForTimeout(800);
        await page.evaluate(AXE);
        // In the dark only colours differ.
        const only = colorScheme === "dark" ? { runOnly: ["color-contrast"] } : {};
        const { violations } = await page.evaluate((options) => globalThis.axe.run(options), only);
        const serious = violations.filter((each) => each.impact === "serious" || each.impact === "critical");
        assert.deepEqual(serious.map((each) => `${path} ${colorScheme}: ${each.id} at ${each.nodes.slice(0, 3).map((node) => node.html).join(" ")}`), []);
      }
    }
  });

  test("can use it on a telephone", async () => {
    for (const path of ["/?at=web", "/table", "/service/web", "/traces", "/act"]) {
      const page = await look(path, { viewport: { width: 390, height: 844 } });
      await page.waitForTimeout(1_000);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth + 1), `${path} is wider than the screen`);
    }
  });

  test("is shown around once", async () => {
    const page = await look("/", { toured: false });
    const tour = page.getByRole("dialog", { name: "tour" });
    await until("the first step", () => tour.innerText(), (text) => text.includes("1 of 4"));
    for (let step = 2; step <= 4; step += 1) {
      await tour.getByRole("button", { name: "next" }).click();
      assert.match(await tour.innerText(), new RegExp(`${step} of 4`));
    }
    await tour.getByRole("button", { name: "look around" }).click();
    await page.reload();
    await live(page);
    assert.equal(await tour.count(), 0);
  });
});
