// Knows what things cost. No package needed.
const http = require("node:http");

const prices = { pencil: 1.2, notebook: 3.5, eraser: 0.8 };

const server = http.createServer((request, response) => {
  const known = { "/healthz": { ok: true }, "/prices": prices };
  const value = known[request.url];
  response.writeHead(value ? 200 : 404, { "content-type": "application/json" });
  response.end(JSON.stringify(value ?? { error: "only /prices is here" }) + "\n");
});

server.listen(Number(process.env.PORT), "127.0.0.1", () =>
  console.log(JSON.stringify({ level: "info", message: `${process.env.ISOBAR_INSTANCE} listens` })),
);

// Finish what is in progress; connections that only wait are closed.
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
