"""A WSGI application that notes every request and answers with it; served by gunicorn, or run itself by waitress."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

RECORD = os.open(os.environ["RECORD"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)


def app(environ: Any, start_response: Any) -> list[bytes]:  # WSGI's own types are dicts of anything.
    body = environ["wsgi.input"].read()
    target = environ.get("RAW_URI") or environ["REQUEST_URI"]
    seen = f"{environ['REQUEST_METHOD']} {target} HTTP/1.1\t{len(body)}\n".encode("latin-1")
    os.write(RECORD, seen)
    start_response("200 OK", [("X-Body-Length", str(len(body))), ("Content-Length", str(len(seen)))])
    return [seen]


if __name__ == "__main__":
    waitress: Any = importlib.import_module("waitress")  # Debian's package: unknown to this repository.
    waitress.serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=4)
