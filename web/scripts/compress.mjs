// Writes `.br` and `.gz` beside every built file that gains from it, so that serving is copying bytes.
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const TEXT = /\.(html|js|css|svg|json|txt|map)$/;
let raw = 0;
let compressed = 0;

function walk(folder) {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) walk(path);
    else if (TEXT.test(name)) compress(path);
  }
}

function compress(path) {
  const bytes = readFileSync(path);
  const br = brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } });
  const gz = gzipSync(bytes, { level: 9 });
  if (br.length < bytes.length) writeFileSync(`${path}.br`, br);
  if (gz.length < bytes.length) writeFileSync(`${path}.gz`, gz);
  raw += bytes.length;
  compressed += Math.min(br.length, bytes.length);
}

const LIMIT_KIB = 250;
walk(process.argv[2] ?? "dist");
const kib = (compressed / 1024).toFixed(1);
console.error(`the map: ${(raw / 1024).toFixed(1)} KiB, ${kib} KiB compressed (limit ${LIMIT_KIB})`);
if (compressed > LIMIT_KIB * 1024) process.exit(1);
