"""Recommends what is cheap. Standard library only."""

import json
import os
import signal
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PRICES = os.environ["PRICES_URL"]
STOCK = os.environ["STOCK_URL"]
# What a request hands on to the calls it makes.
CONTEXT = ("x-request-id", "traceparent", "tracestate", "baggage", "isobar-deadline", "isobar-version", "isobar-priority")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/healthz":
            return self.answer(200, {"ok": True})
        if self.path != "/recommend":
            return self.answer(404, {"error": "only /recommend is here"})
        try:
            prices = json.loads(self.ask(PRICES + "/prices"))
        except OSError as error:
            return self.answer(500, {"error": f"no prices: {error}"})
        try:
            self.ask(STOCK + "/stock")
            in_stock = True
        except OSError:
            in_stock = None
        cheapest = min(prices, key=prices.get)
        self.answer(200, {"recommend": cheapest, "price": prices[cheapest], "in_stock": in_stock})

    def ask(self, url):
        headers = {name: self.headers[name] for name in CONTEXT if self.headers[name]}
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as response:
            return response.read()

    def answer(self, status, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form, *values):
        print(json.dumps({"level": "info", "message": form % values}), flush=True)


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print(json.dumps({"level": "info", "message": f"{os.environ['ISOBAR_INSTANCE']} listens"}), flush=True)
server.serve_forever()
sys.exit(0)
