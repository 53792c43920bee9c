"""`stagely-agent doctor`: what a person on this machine would look at first, in one table.

It changes nothing and needs no running agent. Every check says what it saw and, when that is bad, what to do.
"""

from __future__ import annotations

import asyncio
import enum
import json
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from agent import certificate
from agent.config import Config, ConfigError, load
from agent.engine import Engine, EngineError
from agent.health import disk_free_bytes
from agent.identity import OPENSSL, CredentialStore, IdentityError, kept_session
from agent.protocol import VERSION, Hello
from agent.run import Program, TookTooLong, capture

CORE_TIMEOUT_S = 10.0
TOOL_TIMEOUT_S = 10.0
LITTLE_DISK_BYTES = 2 * 1024**3  # An ordinary image with its layers unpacked.
SPOOL_WORTH_A_LOOK_BYTES = 16 * 1024**2  # Half an hour of a busy build that nobody has confirmed.
_MIB = 1024**2


class Verdict(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table. `remedy` is "" when nothing is to be done."""

    check: str
    verdict: Verdict
    seen: str
    remedy: str = ""


Check = Callable[[Config], Awaitable[Finding]]


async def examine(path: Path) -> list[Finding]:
    """Every finding about this machine; only the first when its settings cannot be read."""
    try:
        config = load(path)
    except ConfigError as error:
        return [Finding("settings", Verdict.FAILED, str(error))]
    others = await asyncio.gather(*(check(config) for check in _CHECKS))
    return [_settings(path, config), *others]


def exit_code(findings: Iterable[Finding]) -> int:
    """0 without a failure, 1 with one; a warning is none."""
    return int(any(finding.verdict is Verdict.FAILED for finding in findings))


def table(findings: Iterable[Finding]) -> str:
    """For people: verdict, check and what was seen, and beneath a bad one what to do."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.verdict:<8} {finding.check:<9} {finding.seen}")
        if finding.remedy:
            lines.append(f"{'':<18} -> {finding.remedy}")
    return "\n".join(lines)


def as_json(findings: Iterable[Finding]) -> str:
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def _settings(path: Path, config: Config) -> Finding:
    """Only the owner may read the file: it holds the token of the first contact."""
    seen = f"{path}: agent {config.agent_id}, protocol {VERSION}"
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Finding("settings", Verdict.FAILED, f"{seen}; others may read it", f"chmod 600 {path}")
    return Finding("settings", Verdict.OK, seen)


async def _enrolment(config: Config) -> Finding:
    try:
        kept = kept_session(config.state_dir)
    except IdentityError as error:
        return Finding("enrolment", Verdict.FAILED, str(error), "stagely redeploy orders another VM")
    if kept is not None and kept[0]:
        return Finding("enrolment", Verdict.OK, "the core has welcomed this agent")
    remedy = "journalctl -u stagely-agent says why; a token is good for one machine and a limited time"
    return Finding("enrolment", Verdict.WARNING, "the core has never welcomed this agent", remedy)


async def _certificate(config: Config) -> Finding:
    """What the ingress shows; the edge refuses one that has ended."""
    path = config.state_dir / certificate.FILE
    if not path.exists():
        return Finding("identity", Verdict.OK, "no certificate: a builder, or an ingress without TLS")
    argv = (OPENSSL, "x509", "-in", str(path), "-noout", "-enddate", "-checkend", "0")
    try:
        ran = await capture(Program(argv, TOOL_TIMEOUT_S))
    except (OSError, TookTooLong) as error:
        return Finding("identity", Verdict.FAILED, f"{path}: {error}", "look at the check of openssl")
    ends = ran.stdout.partition("\n")[0].removeprefix("notAfter=")
    if ran.exit_code:
        remedy = "the core sends the next one: look at the check of the core, and at the worker's log"
        return Finding("identity", Verdict.FAILED, f"the ingress's certificate ended {ends or 'or is damaged'}", remedy)
    return Finding("identity", Verdict.OK, f"the ingress shows a certificate until {ends}")


async def _spool(config: Config) -> Finding:
    """What was said and is not confirmed; segments leave the disk when it is."""
    waiting = sum(path.stat().st_size for path in config.state_dir.rglob("*.frames"))
    seen = f"{waiting / _MIB:.1f} MiB wait for the core's confirmation"
    if waiting > SPOOL_WORTH_A_LOOK_BYTES:
        return Finding("spool", Verdict.WARNING, seen, "the core is away or slow: look at the check of the core")
    return Finding("spool", Verdict.OK, seen)


async def _disk(config: Config) -> Finding:
    place = next(path for path in (config.work_dir, *config.work_dir.parents) if path.exists())
    free = disk_free_bytes(place)
    seen = f"{free / 1024**3:.1f} GiB free at {place}"
    if free < LITTLE_DISK_BYTES:
        return Finding("disk", Verdict.FAILED, seen, "order a larger size in stagely.yaml (preview.size, build size)")
    return Finding("disk", Verdict.OK, seen)


async def _engine(config: Config) -> Finding:
    try:
        version = await Engine(config.docker_socket).get("/version")
    except EngineError as error:
        return Finding("engine", Verdict.FAILED, str(error), "systemctl status docker")
    return Finding("engine", Verdict.OK, f"Docker Engine {version.get('Version', 'of an unknown version')}")


async def _openssl(config: Config) -> Finding:
    """Whether it can do all that an agent needs of it, tried on a key that nobody uses."""
    with TemporaryDirectory() as folder:
        store = CredentialStore(Path(folder), Path(folder))
        try:
            await store.open()
            await store.signed(Hello("doctor", "", "", "doctor", "", ""), "")
        except IdentityError as error:
            remedy = f"the machine's image needs {OPENSSL} 3.0 or newer, with Ed25519"
            return Finding("openssl", Verdict.FAILED, str(error), remedy)
    return Finding("openssl", Verdict.OK, f"{OPENSSL} makes Ed25519 keys and signs")


def _tool(name: str, *argv: str) -> Check:
    """A program that builds and deploys cannot do without."""

    async def check(config: Config) -> Finding:
        remedy = f"the machine's image lacks it: {' '.join(argv)} must work"
        if shutil.which(argv[0]) is None:
            return Finding(name, Verdict.FAILED, f"there is no {argv[0]}", remedy)
        try:
            ran = await capture(Program(argv, TOOL_TIMEOUT_S))
        except TookTooLong as error:
            return Finding(name, Verdict.FAILED, str(error), remedy)
        said = (ran.stdout or ran.stderr).strip().partition("\n")[0][:100]
        return Finding(name, Verdict.FAILED, said, remedy) if ran.exit_code else Finding(name, Verdict.OK, said)

    return check


async def _core(config: Config) -> Finding:
    """Whether the gateway answers this machine; no session is opened, so a running agent is not disturbed."""
    parts = urlsplit(config.core_url)
    host, is_tls = parts.hostname or "", parts.scheme == "wss"
    port = parts.port or (443 if is_tls else 80)
    remedy = f"name, firewall or certificate: this machine must reach {host}:{port} outbound"
    try:
        async with asyncio.timeout(CORE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=is_tls or None)
            writer.write(f"GET /healthz HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
            status = (await reader.readline()).decode("latin-1").strip()
            writer.close()
    except TimeoutError:
        return Finding("core", Verdict.FAILED, f"{host}:{port} did not answer within {CORE_TIMEOUT_S:g} s", remedy)
    except OSError as error:
        return Finding("core", Verdict.FAILED, f"{host}:{port}: {error.strerror or error}", remedy)
    if " 200" not in status:
        return Finding("core", Verdict.WARNING, f"{host}:{port} answered {status[:100]!r}", "look at the gateway's log")
    return Finding("core", Verdict.OK, f"{host}:{port} is well{' over TLS' if is_tls else ', without TLS'}")


_CHECKS: tuple[Check, ...] = (
    _enrolment,
    _core,
    _engine,
    _tool("compose", "docker", "compose", "version", "--short"),
    _tool("buildx", "docker", "buildx", "version"),
    _tool("git", "git", "--version"),
    _openssl,
    _certificate,
    _disk,
    _spool,
)
