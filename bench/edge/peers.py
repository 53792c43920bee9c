"""The programs under test: what each needs, and how it is started."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.edge import configs, heads
from bench.edge.configs import Files, Ports

DIRECT, STAGELY, GO, LUA, NGINX, HAPROXY, CADDY = "direct", "stagely", "go", "nginx-lua", "nginx", "haproxy", "caddy"
UNCOUNTED = "uncounted"
_SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/go/bin"])
_LUA_FILES = (
    "/usr/share/nginx/modules-available/mod-http-lua.conf",
    "/usr/share/lua/5.1/nginx/redis.lua",
    "/usr/share/lua/5.1/ngx/balancer.lua",
)


class PeerMissing(Exception):
    """A program that is not installed; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, beyond the caller's environment."""

    argv: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peer:
    """command: makes its configuration in `Files.folder`. Raises PeerMissing."""

    name: str
    command: Callable[[Ports, Files], Command]


def program(name: str, install: str) -> str:
    """The program's path. Raises PeerMissing."""
    found = shutil.which(name, path=_SYSTEM_PATH)
    if found is None:
        raise PeerMissing(f"{name} is not installed: {install}")
    return found


def upstream_command(folder: Path, port: int) -> Command:
    big = folder / "big"
    big.write_bytes(os.urandom(1 << 20))
    return _nginx_command(str(folder), configs.upstream(str(folder), port, str(big)))


def stagely(ports: Ports, files: Files, workers: int = 1) -> Command:
    """Our edge with every check on; the limit of requests per host is lifted, because one host takes them all here."""
    environment = {
        "STAGELY_EDGE_LISTEN": f"127.0.0.1:{ports.http}",
        "STAGELY_EDGE_TLS_LISTEN": f"127.0.0.1:{ports.tls}",
        "STAGELY_TLS_CERT": files.certificate,
        "STAGELY_TLS_KEY": files.key,
        "STAGELY_EDGE_REDIRECT": "0",
        "STAGELY_REDIS_URL": f"redis://127.0.0.1:{ports.redis}/0",
        "STAGELY_DOMAIN": heads.DOMAIN,
        "STAGELY_EDGE_WORKERS": str(workers),
        "STAGELY_EDGE_RATE_LIMIT": "0",
    }
    return Command([sys.executable, "-m", "edge"], environment)


def _uncounted(ports: Ports, files: Files) -> Command:
    return Command([sys.executable, "-m", "bench.edge.uncounted"], stagely(ports, files).environment)


def _go(ports: Ports, files: Files) -> Command:
    addresses = [f"127.0.0.1:{port}" for port in (ports.http, ports.tls)]
    tool = go_tool(Path(files.folder).parent)
    arguments = [*addresses, files.certificate, files.key, f"127.0.0.1:{ports.redis}"]
    return Command([tool, "proxy", *arguments], {"GOMAXPROCS": "1"})


def go_tool(folder: Path) -> str:
    """The program made from bench/edge/go. Raises PeerMissing."""
    built = folder / "bench-edge"
    if not built.exists():
        raise PeerMissing("the peer in Go is not built: install Go 1.19 or later (apt-get install golang-go)")
    return str(built)


def go_build(folder: Path) -> Command:
    """Builds what `go_tool` gives. Raises PeerMissing."""
    go = program("go", "apt-get install golang-go")
    source = Path(__file__).parent / "go"
    return Command([go, "build", "-C", str(source), "-o", str(folder / "bench-edge"), "."], {"GOFLAGS": "-mod=mod"})


def _nginx(ports: Ports, files: Files) -> Command:
    return _nginx_command(files.folder, configs.nginx(ports, files))


def _nginx_lua(ports: Ports, files: Files) -> Command:
    install = "apt-get install nginx-light libnginx-mod-http-lua lua-nginx-redis lua-cjson"
    for file in _LUA_FILES:
        if not Path(file).exists():
            raise PeerMissing(f"{file} is missing: {install}")
    return _nginx_command(files.folder, configs.nginx_lua(ports, files))


def _nginx_command(folder: str, config: str) -> Command:
    file = _written(folder, "nginx.conf", config)
    return Command([program("nginx", "apt-get install nginx-light"), "-e", "stderr", "-c", file])


def _haproxy(ports: Ports, files: Files) -> Command:
    haproxy = program("haproxy", "apt-get install haproxy")
    return Command([haproxy, "-db", "-f", _written(files.folder, "haproxy.cfg", configs.haproxy(ports, files))])


def _caddy(ports: Ports, files: Files) -> Command:
    file = _written(files.folder, "Caddyfile", configs.caddy(ports, files))
    caddy = program("caddy", "apt-get install caddy")
    environment = {"GOMAXPROCS": "1", "HOME": files.folder, "XDG_DATA_HOME": files.folder}
    return Command([caddy, "run", "--adapter", "caddyfile", "--config", file], environment)


def _written(folder: str, name: str, text: str) -> str:
    path = Path(folder) / name
    path.write_text(text)
    return str(path)


PEERS = (
    Peer(NGINX, _nginx),
    Peer(LUA, _nginx_lua),
    Peer(HAPROXY, _haproxy),
    Peer(CADDY, _caddy),
    Peer(GO, _go),
    Peer(STAGELY, stagely),
)
COUNTING = (Peer(UNCOUNTED, _uncounted), Peer(STAGELY, stagely))
