"""Target `bare`: runs bare.sh and reads what it says."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.poll import first_200
from bench.repository import Repository

SCRIPT = Path(__file__).with_name("bare.sh")
RUN_LIMIT_S = 300.0  # 12 to 13 s on an idle machine with 2 cores.
WEB_PORT = 3000  # Published by the example's Compose file.


class BareFailed(Exception):
    """The script ended with an error; the text has its last lines."""


@dataclass(frozen=True, slots=True)
class Place:
    """What both targets share. `folder` is for seeds of VMs."""

    image: str
    network: str
    registry: str
    mirror: str
    forge_for_vms: str
    token: str
    folder: Path


class Bare:
    """One pull request by hand. `first` is the moment of the first right answer, `phases` what the script measured."""

    def __init__(self, place: Place, name: str) -> None:
        self._name = name
        self._place = place
        self._folder = place.folder / name
        self._address: asyncio.Future[str] | None = None

    async def run(self, verb: str, repository: Repository, wanted: str) -> tuple[float, Mapping[str, float]]:
        """Seconds until the first right answer, and seconds by phase. `verb` is open or push. Raises BareFailed."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._address is None:
            self._address = asyncio.get_running_loop().create_future()
        began = time.time()
        async with asyncio.timeout(RUN_LIMIT_S), asyncio.TaskGroup() as group:
            script = group.create_task(self._script(verb, repository))
            answered = group.create_task(self._answered(wanted))
        return answered.result() - began, script.result()

    async def close(self) -> None:
        process = await asyncio.create_subprocess_exec(SCRIPT, "close", env=self._environment(""))
        async with asyncio.timeout(RUN_LIMIT_S):
            await process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _script(self, verb: str, repository: Repository) -> Mapping[str, float]:
        process = await asyncio.create_subprocess_exec(
            SCRIPT,
            verb,
            repository.sha,
            env=self._environment(f"{self._place.forge_for_vms}/{repository.full_name}.git"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.TaskGroup() as group:
            said = group.create_task(self._read(process.stdout))
            complaints = group.create_task(process.stderr.read())
        if await process.wait() != 0:
            tail = complaints.result().decode(errors="replace")[-2000:]
            raise BareFailed(f"bare.sh {verb} ended with {process.returncode}:\n{tail}")
        return said.result()

    async def _read(self, output: asyncio.StreamReader) -> Mapping[str, float]:
        phases: dict[str, float] = {}
        async for line in output:
            kind, _, rest = line.decode().strip().partition(" ")
            if kind == "address" and self._address is not None and not self._address.done():
                self._address.set_result(rest)
            elif kind == "phase":
                name, _, seconds = rest.rpartition(" ")
                phases[name] = float(seconds)
        return phases

    async def _answered(self, wanted: str) -> float:
        assert self._address is not None
        ip = await asyncio.shield(self._address)
        return await first_200((ip, WEB_PORT), f"{ip}:{WEB_PORT}", wanted, RUN_LIMIT_S)

    def _environment(self, repository: str) -> dict[str, str]:
        place = self._place
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "BARE_NAME": self._name,
            "BARE_IMAGE": place.image,
            "BARE_NETWORK": place.network,
            "BARE_REGISTRY": place.registry,
            "BARE_MIRROR": place.mirror,
            "BARE_REPO": repository or "unused",
            "BARE_TOKEN": place.token,
            "BARE_FOLDER": str(self._folder),
        }
