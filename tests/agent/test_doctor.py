"""What a person on the machine is told, and that looking changes nothing."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.doctor import Finding, Verdict, as_json, examine, exit_code, table
from tests.certificates import certified_machine, new_authority

ENVIRONMENT = "env-1"
HEALTHY = b"HTTP/1.1 200 OK\r\n\r\nok\n"


@dataclass(slots=True)
class Core:
    """A gateway as far as its /healthz goes."""

    port: int = 0
    answer: bytes = HEALTHY
    asked: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer)
        writer.close()


@pytest.fixture
async def core() -> AsyncIterator[Core]:
    made = Core()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


def settings(tmp_path: Path, port: int, socket: Path | None = None) -> Path:
    path = tmp_path / "config.json"
    wanted = {
        "agent_id": "vm-1",
        "core_url": f"ws://127.0.0.1:{port}",
        "token": "tok-secret",
        "state_dir": str(tmp_path / "state"),
        "work_dir": str(tmp_path / "state" / "work"),
        "docker_socket": str(socket or tmp_path / "none.sock"),
    }
    path.write_text(json.dumps(wanted))
    path.chmod(0o600)
    return path


async def found(path: Path) -> dict[str, Finding]:
    return {finding.check: finding for finding in await examine(path)}


async def test_a_well_machine_has_no_failure_for_core_settings_and_disk(tmp_path: Path, core: Core) -> None:
    (tmp_path / "state").mkdir()
    kept = {"session": "5a" * 32, "next_session": "a5" * 32}
    (tmp_path / "state" / "session.json").write_text(json.dumps(kept))

    seen = await found(settings(tmp_path, core.port))

    assert {name: seen[name].verdict for name in ("settings", "core", "enrolment", "disk", "spool")} == dict.fromkeys(
        ("settings", "core", "enrolment", "disk", "spool"), Verdict.OK
    )
    assert core.asked == [f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{core.port}\r\nConnection: close\r\n\r\n".encode()]


async def test_looking_changes_nothing(tmp_path: Path, core: Core) -> None:
    path = settings(tmp_path, core.port)
    before = sorted(tmp_path.rglob("*"))

    await examine(path)

    assert sorted(tmp_path.rglob("*")) == before


async def test_a_core_that_refuses_is_named_with_what_to_do(tmp_path: Path, core: Core) -> None:
    path = settings(tmp_path, 1)

    seen = (await found(path))["core"]

    assert seen.verdict is Verdict.FAILED
    assert "127.0.0.1:1" in seen.seen
    assert "outbound" in seen.remedy


async def test_a_core_that_is_not_well_is_a_warning(tmp_path: Path, core: Core) -> None:
    core.answer = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"

    seen = (await found(settings(tmp_path, core.port)))["core"]

    assert (seen.verdict, "503" in seen.seen) == (Verdict.WARNING, True)


async def test_an_engine_that_is_away_is_a_failure(tmp_path: Path, core: Core) -> None:
    findings = await examine(settings(tmp_path, core.port))

    assert {one.check: one.verdict for one in findings}["engine"] is Verdict.FAILED
    assert exit_code(findings) == 1


async def test_settings_that_others_may_read_are_a_failure_and_no_secret_is_shown(tmp_path: Path, core: Core) -> None:
    path = settings(tmp_path, core.port)
    path.chmod(0o644)

    findings = await examine(path)

    assert findings[0].remedy == f"chmod 600 {path}"
    assert "tok-secret" not in table(findings) + as_json(findings)


async def test_much_that_is_unconfirmed_is_worth_a_look(tmp_path: Path, core: Core) -> None:
    spool = tmp_path / "state" / "spool" / "boot"
    spool.mkdir(parents=True)
    with (spool / "00000000000000000001.frames").open("wb") as file:
        file.truncate(17 * 1024**2)

    assert (await found(settings(tmp_path, core.port)))["spool"].verdict is Verdict.WARNING


def test_a_machine_without_settings_says_so_and_ends_with_1(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "agent", "--config", str(tmp_path / "none.json"), "doctor", "--json"]

    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    (finding,) = json.loads(ran.stdout)
    assert (ran.returncode, finding["check"], finding["verdict"]) == (1, "settings", "failed")
    assert "none.json" in finding["seen"]


async def test_a_certificate_is_shown_with_its_end(core: Core, tmp_path: Path) -> None:
    certified_machine(tmp_path / "state", new_authority(tmp_path), ENVIRONMENT)

    seen = (await found(settings(tmp_path, core.port)))["identity"]

    assert seen.verdict is Verdict.OK
    assert re.fullmatch(r"the ingress shows a certificate until \w+ .* GMT", seen.seen)


async def test_a_certificate_that_has_ended_is_a_failure(core: Core, tmp_path: Path) -> None:
    two_days_ago = datetime.now(UTC) - timedelta(days=2)
    certified_machine(tmp_path / "state", new_authority(tmp_path), ENVIRONMENT, two_days_ago)

    seen = (await found(settings(tmp_path, core.port)))["identity"]

    assert (seen.verdict, "ended" in seen.seen) == (Verdict.FAILED, True)


async def test_a_machine_without_a_certificate_is_well(core: Core, tmp_path: Path) -> None:
    assert (await found(settings(tmp_path, core.port)))["identity"].verdict is Verdict.OK
