"""Greets by name. Of all pages in a browser only the front end's may ask."""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADMITTED_ORIGIN = os.environ.get("STAGELY_URL_WEB", "http://localhost:3003")
MAX_BODY = 4096


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, {"status": "ok"})
        else:
            self._send(404, {"error": "no such page"})

    def do_OPTIONS(self) -> None:
        self.send_response(204)
        self._allow_the_front_end()
        self.end_headers()

    def do_POST(self) -> None:
        body = self._body()
        if self.path != "/greetings":
            self._send(404, {"error": "no such page"})
        elif name := _name_in(body):
            self._send(200, {"greeting": f"Hello {name}, this is the api"})
        else:
            self._send(400, {"error": 'the api needs a "name"'})

    def _body(self) -> bytes:
        """At most MAX_BODY bytes. What is longer is not read, and ends the connection."""
        length = int(self.headers.get("Content-Length") or 0)
        if 0 <= length <= MAX_BODY:
            return self.rfile.read(length)
        self.close_connection = True
        return b""

    def _send(self, status: int, answer: dict[str, str]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self._allow_the_front_end()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _allow_the_front_end(self) -> None:
        self.send_header("Access-Control-Allow-Origin", ADMITTED_ORIGIN)
        self.send_header("Access-Control-Allow-Headers", "Content-Type")


def _name_in(body: bytes) -> str:
    try:
        asked = json.loads(body)
    except ValueError:
        return ""
    name = asked.get("name") if isinstance(asked, dict) else None
    return name.strip() if isinstance(name, str) else ""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()
