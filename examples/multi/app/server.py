"""Answers with what it was given: a build argument, an env_file value, and what the one-shot job left in the store."""

import json
import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def motto() -> str:
    with socket.create_connection((os.environ["STORE_HOST"], 6379), timeout=3) as connection:
        connection.sendall(b"GET motto\r\n")
        length, _, text = connection.recv(4096).decode().partition("\r\n")
        return text.rstrip("\r\n") if length.startswith("$") else ""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, "ok\n")
            return
        answer = {
            "greeting": os.environ.get("GREETING", ""),
            "release": os.environ.get("RELEASE", ""),
            "motto": motto(),
            "url": os.environ.get("STAGELY_URL", ""),
        }
        self._send(200, json.dumps(answer) + "\n")

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    ThreadingHTTPServer(("", 5000), Handler).serve_forever()
