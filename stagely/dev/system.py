"""The whole system on one machine: what starts beside what, and in which order."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stagely.dev import engines, postgres
from stagely.dev.addresses import DATABASE, Addresses
from stagely.dev.child import ChildSpec
from stagely.dev.console import Console
from stagely.dev.folder import make_app_key
from stagely.dev.programs import core_specs, forge_spec
from stagely.dev.refusal import StartFailed
from stagely.dev.setup_record import SetupRecord
from stagely.dev.supervisor import Supervisor
from stagely.dev.vm_ca import ensure_vm_ca

DATABASE_TIMEOUT_S = 30.0
MIGRATE_TIMEOUT_S = 120.0  # 2 s on an idle machine, nearly all of it imports.
UPSTREAM = "https://registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class System:
    """Starts every part under one supervisor."""

    supervisor: Supervisor
    addresses: Addresses
    record: SetupRecord
    console: Console

    async def start(self) -> None:
        """Engines and forge side by side, then what needs them. Raises StartFailed of the first part that fails."""
        settings = self.addresses.settings(self.record)
        try:
            async with asyncio.TaskGroup() as first:
                first.create_task(self._database(settings))
                first.create_task(self._start_own("valkey"))
                first.create_task(self._start_own("temporal"))
                first.create_task(self._start_own("registry"))
                first.create_task(self._start_own("mirror"))
                first.create_task(self._forge())
                first.create_task(asyncio.to_thread(ensure_vm_ca, self.addresses.folder))
            async with asyncio.TaskGroup() as second:
                for spec in core_specs(self.addresses, settings):
                    second.create_task(self._start_timed(spec))
        except* StartFailed as failures:
            raise failures.exceptions[0] from None

    async def _database(self, settings: Mapping[str, str]) -> None:
        if "postgres" not in self.addresses.external:
            try:
                await self._postgres()
            except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:  # TimeoutError is an OSError.
                raise StartFailed(f"postgres could not be prepared: {error or 'it did not answer in time'}") from error
        await migrate(settings, self.addresses.folder.token)

    async def _postgres(self) -> None:
        folder = self.addresses.folder.root.absolute() / "postgres"
        await asyncio.to_thread(postgres.initialise, folder)
        await self._start_timed(engines.postgres_spec(folder, self.addresses.ports))
        await postgres.ensure_database(self.addresses.ports.postgres, DATABASE, DATABASE_TIMEOUT_S)

    async def _start_own(self, part: str) -> None:
        """Start an engine, unless the environment gives its address."""
        if part in self.addresses.external:
            self.console.say(f"{part}: using the one that the environment names")
            return
        await self._start_timed(self._engine(part))

    def _engine(self, part: str) -> ChildSpec:
        root, ports = self.addresses.folder.root.absolute(), self.addresses.ports
        if part == "valkey":
            return engines.valkey_spec(root / "valkey", ports)
        if part == "temporal":
            codec_token = self.addresses.folder.codec_token.read_text().strip()
            return engines.temporal_spec(self.record.temporal, root / "temporal.db", ports, codec_token)
        return self._registry(part, root / part / "config.yml")

    def _registry(self, part: str, config: Path) -> ChildSpec:
        """The store of built images, or the mirror of public ones; both listen only where VMs reach them."""
        address, port = self.addresses.network.gateway, self.addresses.ports.named()[part]
        if part == "registry":
            secret = self.addresses.folder.signing_key.read_text().strip()
            text = engines.store_config(config.parent / "store", address, port, secret)
        else:
            upstream = UPSTREAM if self.record.mirror == "pull-through" else ""
            text = engines.mirror_config(self.record.mirror_storage, address, port, upstream)
        engines.write_registry_config(config, text)
        return engines.registry_spec(part, self.record.registry, config, address, port)

    async def _forge(self) -> None:
        await asyncio.to_thread(make_app_key, self.addresses.folder)
        await self._start_timed(forge_spec(self.addresses))

    async def _start_timed(self, spec: ChildSpec) -> None:
        began = time.monotonic()
        await self.supervisor.start(spec)
        self.console.say(f"{spec.name} is up ({time.monotonic() - began:.1f} s)")


async def migrate(settings: Mapping[str, str], token: Path) -> None:
    """Bring the schema up to date and let the API token in. Raises StartFailed with the program's last lines."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stagely.dev.database",
        str(token),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **settings},
    )
    try:
        async with asyncio.timeout(MIGRATE_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        raise StartFailed(f"the database's migrations did not end within {MIGRATE_TIMEOUT_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise StartFailed(f"the database's migrations failed:\n{output.decode(errors='replace')[-2000:]}")
