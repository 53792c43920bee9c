"""The guestbook's api: entries as JSON for programs, and as pieces of HTML for the front end."""

import html
import json
import os
import pathlib
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

from store import Store

VERSION = pathlib.Path(__file__).with_name("VERSION").read_text().strip()
STORE = Store(os.environ.get("STORE_HOST", "localhost"))
MAX_BODY = 4096


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        try:
            self._answer_get()
        except OSError as error:
            self._json(503, {"error": f"the store is away: {error}"})

    def do_POST(self) -> None:
        if self.path != "/api/entries":
            self._json(404, {"error": "no such page"})
            return
        try:
            self._add_entry()
        except OSError as error:
            self._json(503, {"error": f"the store is away: {error}"})

    def _answer_get(self) -> None:
        if self.path == "/health":
            STORE.ping()
            self._send(200, "text/plain", "ok\n")
        elif self.path == "/api/version":
            self._json(200, {"version": VERSION})
        elif self.path == "/api/entries":
            self._json(200, {"entries": STORE.entries()})
        elif self.path == "/parts/version":
            self._send(200, "text/html", html.escape(VERSION))
        elif self.path == "/parts/entries":
            items = [f"      <li>{html.escape(entry)}</li>\n" for entry in reversed(STORE.entries())]
            self._send(200, "text/html", "".join(items))
        else:
            self._json(404, {"error": "no such page"})

    def _add_entry(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= MAX_BODY:
            self.close_connection = True
            self._json(413, {"error": f"an entry has 1 to {MAX_BODY} bytes"})
            return
        body = self.rfile.read(length).decode("utf-8", "replace")
        is_json = self.headers.get_content_type() == "application/json"
        text = _text_of_json(body) if is_json else parse_qs(body).get("text", [""])[0]
        if not text.strip():
            self._json(400, {"error": 'the entry needs a "text"'})
            return
        STORE.add(text.strip())
        if is_json:
            self._json(201, {"text": text.strip()})
        else:
            self._send(303, "text/plain", "thank you\n", {"Location": "/"})

    def _json(self, status: int, answer: object) -> None:
        self._send(status, "application/json", json.dumps(answer) + "\n")

    def _send(self, status: int, kind: str, text: str, headers: dict[str, str] | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        if self.path != "/health":
            print(f"{self.address_string()} {format % arguments}")


def _text_of_json(body: str) -> str:
    try:
        entry = json.loads(body)
    except ValueError:
        return ""
    text = entry.get("text") if isinstance(entry, dict) else None
    return text if isinstance(text, str) else ""


def _stop(number: int, frame: object) -> None:
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)  # Python as the first process would ignore it and be killed 10 s later.
    print(f"guestbook api {VERSION} listens on port 8000", flush=True)
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()
