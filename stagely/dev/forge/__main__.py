"""`python -m stagely.dev.forge --state DIR --listen HOST:PORT[,HOST:PORT] --webhook-url URL`: the local forge.

Keys and secrets are read from the state folder, where `stagely dev` puts them: `github-token` (admin token),
`webhook-secret` and `github-app-key.pub.pem`. It keeps its own state in `forge/` there. SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
from pathlib import Path
from types import FrameType

import uvicorn

from stagely.dev.forge.app import create_app
from stagely.dev.forge.config import ForgeConfig
from stagely.logs import configure, get_logger

STOP_TIMEOUT_S = 5  # A fetch that still runs then is cut; git fetches again.
BACKLOG = 512


def main() -> None:
    flags = _parser().parse_args()
    configure(os.environ.get("STAGELY_LOG_FORMAT", "console"), "forge")
    addresses = [_address(text) for text in flags.listen.split(",")]
    sockets = [socket.create_server(a, family=_family(a), backlog=BACKLOG) for a in addresses]
    app = create_app(_config(flags, addresses[0]))
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=STOP_TIMEOUT_S
        )
    )
    get_logger().info("forge listens", addresses=flags.listen)
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, _asked_to_end)
    asyncio.run(server.serve(sockets=sockets))


def _asked_to_end(_number: int, _frame: FrameType | None) -> None:
    """uvicorn stops at the signal and raises it once more afterwards; by then everything is closed: exit 0."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stagely.dev.forge", description="GitHub, as far as Stagely uses it"
    )
    parser.add_argument("--state", type=Path, default=Path(".stagely"), help="state folder of stagely dev")
    parser.add_argument("--listen", default="127.0.0.1:8002", help="host:port, several with commas")
    parser.add_argument("--webhook-url", default="", help="where webhooks go; empty keeps them unsent")
    parser.add_argument("--url", default="", help="base URL for people (default: the first listen address)")
    parser.add_argument("--clone-url", default="", help="base URL for git in VMs (default: --url)")
    parser.add_argument("--app-id", type=int, default=1, help="id of the GitHub App")
    parser.add_argument("--app-public-key", type=Path, help="PEM file (default: STATE/github-app-key.pub.pem)")
    parser.add_argument("--admin-token-file", type=Path, help="default: STATE/github-token")
    parser.add_argument("--webhook-secret-file", type=Path, help="default: STATE/webhook-secret")
    return parser


def _config(flags: argparse.Namespace, first: tuple[str, int]) -> ForgeConfig:
    state: Path = flags.state
    url = (flags.url or f"http://{first[0]}:{first[1]}").rstrip("/")
    return ForgeConfig(
        folder=state / "forge",
        url=url,
        clone_url=(flags.clone_url or url).rstrip("/"),
        webhook_url=flags.webhook_url,
        app_id=flags.app_id,
        app_public_key=_secret(flags.app_public_key or state / "github-app-key.pub.pem", "--app-public-key"),
        admin_token=_secret(flags.admin_token_file or state / "github-token", "--admin-token-file"),
        webhook_secret=_secret(flags.webhook_secret_file or state / "webhook-secret", "--webhook-secret-file"),
    )


def _secret(path: Path, flag: str) -> str:
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise SystemExit(
            f"forge: cannot read {path}: {error.strerror}. Start stagely dev once, or pass {flag}."
        ) from error
    if not text:
        raise SystemExit(f"forge: {path} is empty. Remove it and start stagely dev, or pass {flag}.")
    return text


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.strip().rpartition(":")
    if not host or not port.isdecimal():
        raise SystemExit(f"forge: --listen must be host:port, got {text!r}.")
    return host.strip("[]"), int(port)


def _family(address: tuple[str, int]) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


if __name__ == "__main__":
    main()
