// A picture of every view, light and dark, on a desk and on a telephone, of the shop as it runs: to be looked at.
//   ISOBAR=... node web/tests/shots.mjs FOLDER [WORD]      only those whose name holds the word
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { browse, browserPath, live, open, until, up } from "./e2e/harness.mjs";

const [folder = "target/shots", only = ""] = process.argv.slice(2);
if (!browserPath) {
  console.error("skipped: no chromium is installed");
  process.exit(0);
}
mkdirSync(folder, { recursive: true });
const VIEWS = [
  ["map", "/"], ["selected", "/?at=web"], ["around", "/?focus=cart&at=web-%3Ecart"], ["filter", "/?q=team%3Apayments"], ["zones", "/?group=zone"], ["regions", "/?group=region"], ["teams", "/?group=team"],
  ["team-open", "/?group=team&open=payments"], ["versions", "/?group=version"], ["table", "/table"], ["service", "/service/web"], ["cart", "/service/cart"], ["traces", "/traces"], ["act", "/act"],
];
const SIZES = { desk: { width: 1440, height: 900 }, phone: { width: 390, height: 844 } };

const isobar = await up(fileURLToPath(new URL("../../examples/shop", import.meta.url)));
const browser = await browse();
try {
  await until("a settled system", async () => (await isobar.ask("/v1/status")).body.settled, (settled) => settled, 30_000);
  await new Promise((resolve) => setTimeout(resolve, 12_000));
  const traces = (await isobar.ask("/api/v2/traces?limit=50")).body.sort((a, b) => b.length - a.length);
  if (traces[0]) VIEWS.push(["trace", `/trace/${traces[0][0].traceId}`]);
  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const colorScheme of ["light", "dark"]) {
      for (const [name, path] of VIEWS) {
        const file = `${name}-${size}-${colorScheme}`;
        if (!file.includes(only)) continue;
        const page = await open(browser, isobar.url + path, { viewport, colorScheme });
        if (!/^\/(service|trace|traces|act)/.test(path)) await live(page);
        await page.waitForTimeout(1_500);
        await page.screenshot({ path: `${folder}/${file}.png` });
        if (page.complaints.length > 0) console.error(file, page.complaints);
        await page.context().close();
      }
    }
  }
  const page = await open(browser, isobar.url, { toured: false, viewport: SIZES.desk });
  await live(page);
  await page.screenshot({ path: `${folder}/tour.png` });
} finally {
  await browser.close();
  await isobar.down();
}
