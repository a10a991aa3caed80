// The page as it stands in `web/dist` in front of an isobar that already runs: for working on the page without building
// anything else. What is not the page goes through, WebSockets included.
//   node web/tests/front.mjs http://127.0.0.1:PORT [OWN PORT]
import { readFileSync } from "node:fs";
import { createServer, request as ask } from "node:http";
import { connect } from "node:net";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";

const named = process.env.ISOBAR_FRONT ?? "";
const DIST = named.includes("/") ? named : fileURLToPath(new URL("../dist/", import.meta.url));
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css" };
// As the `ui` crate has it.
const POLICY = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const isPage = (path) => /^\/(table|traces|act)?$/.test(path) || /^\/(assets|service|trace)\//.test(path);

/** Resolves with its address and a way to end it. */
export async function front(behind, port = 0) {
  // A function says it anew for each request: isobar may be another one by then.
  const to = () => {
    const { hostname, port } = new URL(typeof behind === "function" ? behind() : behind);
    return { host: hostname, port };
  };
  const server = createServer((request, response) => {
    const path = new URL(request.url, "http://x").pathname;
    if (!isPage(path)) {
      const through = ask({ ...to(), method: request.method, path: request.url, headers: request.headers }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      });
      through.on("error", () => response.destroy());
      response.on("close", () => through.destroy());
      request.pipe(through);
      return;
    }
    try {
      const name = path.startsWith("/assets/") ? path.slice(1) : "index.html";
      response.setHeader("Content-Type", TYPES[extname(name)] ?? "application/octet-stream");
      response.setHeader("Content-Security-Policy", POLICY);
      response.end(readFileSync(join(DIST, name)));
    } catch {
      response.statusCode = 404;
      response.end("no such file\n");
    }
  });
  server.on("upgrade", (request, socket, head) => {
    const { host, port } = to();
    const through = connect(Number(port), host, () => {
      const headers = request.rawHeaders.reduce((all, word, at) => all + word + (at % 2 === 0 ? ": " : "\r\n"), "");
      through.write(`${request.method} ${request.url} HTTP/1.1\r\n${headers}\r\n`);
      through.write(head);
      through.pipe(socket);
      socket.pipe(through);
    });
    for (const [one, other] of [[through, socket], [socket, through]]) {
      one.on("error", () => other.destroy());
      one.on("close", () => other.destroy());
    }
  });
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    end() {
      server.close();
      server.closeAllConnections();
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { url } = await front(process.argv[2], Number(process.argv[3] ?? 8198));
  console.error(url);
}
