// Serves web/dist and a made-up system that moves, in the formats of docs/live.md: for looking at the page and for measuring
// it without a running isobar. No test of what isobar does may use it.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";

const DIST = new URL("../dist/", import.meta.url).pathname;
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };

/** A layered system of `count` services: enough like a real one to look at. */
export function system(count, edgesPerNode = 4) {
  const kinds = ["gateway", "http", "http", "http", "grpc", "http", "cache", "store", "queue", "external"];
  const layers = Math.max(3, Math.ceil(Math.sqrt(count / 4)));
  const perLayer = Math.ceil(count / layers);
  const nodes = Array.from({ length: count }, (_, id) => {
    const layer = Math.floor(id / perLayer);
    const row = id % perLayer;
    const kind = id === 0 ? "gateway" : layer === layers - 1 ? kinds[6 + (id % 4)] : kinds[1 + (id % 5)];
    return {
      id, name: id === 1 ? "<b>bold</b> & 😀" : `${kind}-${id}`, kind, team: id % 3, x: layer * 260, y: (row - perLayer / 2) * 84, width: 140, height: 52,
      versions: ["v1.2.3"], slo: null, lints: [], instances: Array.from({ length: 3 }, (_, i) => ({ id: `${id}-${i}`, zone: i, version: 0 })),
    };
  });
  const edges = [];
  for (const node of nodes) {
    for (let k = 1; k <= edgesPerNode; k += 1) {
      const to = node.id + perLayer - ((node.id * 7 + k * 13) % 5) + k;
      const target = nodes[to];
      if (!target || target.x <= node.x) continue;
      const [x0, x1] = [node.x + 70, target.x - 70];
      const middle = (x0 + x1) / 2;
      edges.push({ id: edges.length, from: node.id, to, optional: k === 3, path: [[x0, node.y], [middle, node.y], [middle, target.y], [x1, target.y]] });
    }
  }
  const teams = ["storefront", "payments", "platform"].map((name) => ({ name, contact: `#${name}`, oncall: null }));
  return { version: 1, revision: 1, system: "made-up", read_only: true, teams, zones: ["eu/a", "eu/b", "eu/c"], scenarios: [], traffic: [], nodes, edges };
}

export function frame(doc, sequence, time) {
  const bytes = Buffer.alloc(40 + (doc.nodes.length + doc.edges.length) * 40);
  bytes.write("ISO1", 0, "latin1");
  bytes.writeUInt8(1, 4);
  bytes.writeUInt16LE(40, 6);
  bytes.writeUInt32LE(sequence, 8);
  bytes.writeUInt32LE(doc.revision, 12);
  bytes.writeDoubleLE(time, 16);
  bytes.writeDoubleLE(Date.now(), 24);
  bytes.writeUInt32LE(doc.nodes.length, 32);
  bytes.writeUInt32LE(doc.edges.length, 36);
  const wave = (n) => 0.5 + 0.5 * Math.sin(time / 3000 + n);
  const errors = (id) => (id % 17 === 5 ? 0.08 * wave(id) : id % 7 === 3 ? 0.008 : 0);
  let at = 40;
  for (const { id } of doc.nodes) {
    bytes.writeUInt32LE(id, at);
    [200 / (1 + (id % 9)), errors(id), 3 + (id % 11), 20 + 30 * wave(id), 0.2 + 0.6 * wave(id * 3), id % 17 === 5 ? 0.4 : 0].forEach((v, i) => bytes.writeFloatLE(v, at + 4 + 4 * i));
    bytes.writeUInt16LE(id % 17 === 5 ? 2 : 3, at + 28);
    bytes.writeUInt16LE(3, at + 30);
    at += 40;
  }
  for (const { id, to } of doc.edges) {
    bytes.writeUInt32LE(id, at);
    [200 / (1 + (id % 23)), errors(to), 4, 30, 0.02, 0.9].forEach((v, i) => bytes.writeFloatLE(v, at + 4 + 4 * i));
    bytes.writeUInt16LE(to % 17 === 5 ? 1 : 0, at + 28);
    bytes.writeUInt16LE(3, at + 30);
    const speed = 0.15 + 0.3 * ((id % 5) / 5);
    bytes.writeFloatLE(((time / 1000) * speed) % 1, at + 32);
    bytes.writeFloatLE(speed, at + 36);
    at += 40;
  }
  return bytes;
}

/** One unmasked WebSocket message. */
function message(payload, opcode) {
  const head = payload.length < 126 ? Buffer.from([0x80 | opcode, payload.length]) : payload.length < 65536 ? Buffer.from([0x80 | opcode, 126, payload.length >> 8, payload.length & 255]) : Buffer.concat([Buffer.from([0x80 | opcode, 127, 0, 0, 0, 0]), (() => { const b = Buffer.alloc(4); b.writeUInt32BE(payload.length); return b; })()]);
  return Buffer.concat([head, payload]);
}

export function serve(doc, port, every = 250) {
  const server = createServer((request, response) => {
    const path = normalize(new URL(request.url, "http://x").pathname);
    if (path.startsWith("/v1/") && path !== "/v1/map") {
      response.statusCode = 404;
      response.end("{}");
      return;
    }
    if (path === "/v1/map") {
      response.setHeader("Content-Type", "application/json");
      response.end(JSON.stringify(doc));
      return;
    }
    const file = extname(path) === "" ? "index.html" : path.slice(1);
    try {
      const body = readFileSync(join(DIST, file));
      response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
      response.setHeader("Content-Security-Policy", "default-src 'self'; img-src 'self' data:");
      response.end(body);
    } catch {
      response.statusCode = 404;
      response.end("no such file\n");
    }
  });
  const began = Date.now();
  let sequence = 0;
  const sockets = new Set();
  server.on("upgrade", (request, socket) => {
    const key = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${key}\r\n\r\n`);
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => sockets.delete(socket));
    socket.on("data", () => {});
  });
  const timer = setInterval(() => {
    sequence += 1;
    const bytes = message(frame(doc, sequence, Date.now() - began), 2);
    for (const socket of sockets) {
      socket.write(bytes);
      if (sequence % 4 === 0) socket.write(message(Buffer.from(JSON.stringify({ marker: sequence })), 1));
    }
  }, every);
  server.listen(port, "127.0.0.1");
  return () => {
    clearInterval(timer);
    for (const socket of sockets) socket.destroy();
    server.close();
  };
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const [count = "24", port = "8199"] = process.argv.slice(2);
  serve(system(Number(count)), Number(port));
  console.error(`http://127.0.0.1:${port}/`);
}
