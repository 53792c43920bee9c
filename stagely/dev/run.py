"""`stagely dev`: one installation from the first check to the last child's end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import cast

from stagely.dev import docker
from stagely.dev.addresses import Addresses, external_parts, own_listeners
from stagely.dev.console import Console
from stagely.dev.folder import StateFolder, write_json
from stagely.dev.namespaces import refuse_root_without_namespaces
from stagely.dev.ports import Ports, refuse_taken, taken
from stagely.dev.refusal import EXIT_REFUSED, Refused, StartFailed
from stagely.dev.setup_record import load
from stagely.dev.supervisor import Supervisor
from stagely.dev.system import System
from stagely.dev.words import count

OLD_RUN_TIMEOUT_S = 10.0  # Children of a killed run end by themselves within a second or two.
PORT_POLL_S = 0.1
EXIT_FAILED = 1


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What the person asked for. `state` may be relative; `port_base` None: as last time, or the usual one."""

    state: Path
    port_base: int | None


def run(options: DevOptions, console: Console) -> int:
    """Run until Ctrl-C or SIGTERM. The exit code: 0 stopped, 1 a part failed, 2 it cannot start as things are."""
    try:
        with StateFolder(options.state).lock():
            return asyncio.run(_Dev(options, console, os.environ).main())
    except Refused as refused:
        console.plain(f"stagely dev: {refused}")
        return EXIT_REFUSED


class _Dev:
    def __init__(self, options: DevOptions, console: Console, environ: Mapping[str, str]) -> None:
        self._folder = StateFolder(options.state)
        self._ports = Ports.of(self._folder.port_base(options.port_base))
        self._console = console
        self._environ = environ
        self._stop = asyncio.Event()

    async def main(self) -> int:
        began = time.monotonic()
        addresses, supervisor = await self._prepare(), Supervisor(self._folder.logs, self._console)
        system = System(supervisor, addresses, load(self._environ), self._console)
        with self._signals(supervisor):
            try:
                async with supervisor.running():
                    code = await self._serve(system, addresses, began)
                    self._console.say("stopping")
            finally:
                self._folder.dev_json.unlink(missing_ok=True)
        await self._leave(addresses)
        return code

    async def _prepare(self) -> Addresses:
        """Check all that can be checked before anything starts. Raises Refused."""
        installation = self._folder.open()
        record = load(self._environ)
        await self._refuse_taken_ports()
        await docker.refuse_missing_engine(record.vm_image)
        await refuse_root_without_namespaces(external_parts(self._environ))
        network = await docker.ensure_network(self._folder, installation)
        self._folder.remember_port_base(self._ports.base)
        return Addresses(self._folder, installation, self._ports, network, dict(self._environ))

    async def _refuse_taken_ports(self) -> None:
        """A dev.json means that the last run was killed: its children get a moment to end."""
        wanted = own_listeners(self._ports, self._environ)
        patience_s = OLD_RUN_TIMEOUT_S if self._folder.dev_json.exists() else 0.0
        deadline = time.monotonic() + patience_s
        while (name := taken(self._ports, wanted)) is not None:
            if time.monotonic() >= deadline:
                raise refuse_taken(self._ports, name)
            await asyncio.sleep(PORT_POLL_S)

    async def _serve(self, system: System, addresses: Addresses, began: float) -> int:
        """Start everything and wait for the signal to stop; a stop during the start ends the start."""
        failed: StartFailed | None = None
        try:
            async with asyncio.TaskGroup() as group:
                stopping = group.create_task(self._stop.wait())
                starting = group.create_task(system.start())
                await asyncio.wait([stopping, starting], return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    starting.cancel()
                elif starting.exception() is None:
                    self._announce(addresses, time.monotonic() - began)
        except* StartFailed as failures:
            failed = cast("StartFailed", failures.exceptions[0])  # The group holds nothing else.
        if failed is None:
            return 0
        self._console.plain(f"stagely dev: {failed}")
        return EXIT_FAILED

    def _announce(self, addresses: Addresses, took_s: float) -> None:
        write_json(self._folder.dev_json, dev_record(addresses))
        for line in summary(addresses, took_s):
            self._console.plain(line)

    @contextlib.contextmanager
    def _signals(self, supervisor: Supervisor) -> Iterator[None]:
        def stop() -> None:
            if self._stop.is_set():
                supervisor.kill()
            self._stop.set()

        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def _leave(self, addresses: Addresses) -> None:
        """VMs of living environments stay, so that the next start goes on with them; a network without any goes."""
        try:
            found = await docker.labelled(addresses.installation)
            if found.containers:
                self._console.say(
                    f"{count(len(found.containers), 'VM')} of living environments kept running; the next "
                    f"stagely dev goes on with them. Remove them: stagely clean --state {self._folder.root}"
                )
            else:
                await docker.remove(found)
        except (docker.DockerFailed, Refused) as error:
            self._console.warn(f"could not look for VMs: {error}")


def dev_record(addresses: Addresses) -> dict[str, object]:
    """What dev.json holds: all that the CLI needs to reach this installation."""
    return {
        "installation": addresses.installation,
        "pid": os.getpid(),
        "version": metadata.version("stagely"),
        "started_at": time.time(),
        "port_base": addresses.ports.base,
        "ports": addresses.ports.named(),
        "network": {"name": addresses.network.name, "gateway": addresses.network.gateway},
        "preview_url": addresses.preview_url,
        "urls": addresses.urls(),
    }


def read_record(folder: StateFolder) -> dict[str, object] | None:
    """dev.json of a running `stagely dev`, or None."""
    try:
        found = json.loads(folder.dev_json.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def summary(addresses: Addresses, took_s: float) -> list[str]:
    """The block of URLs at the end of the start."""
    urls = addresses.urls()
    shown = [
        ("previews", addresses.preview_url.format(label="<hash>")),
        ("api", urls["docs"]),
        ("forge", urls["forge"]),
        *([("Temporal", urls["temporal_ui"])] if "temporal_ui" in urls else []),
        ("state", str(addresses.folder.root)),
    ]
    option = "" if str(addresses.folder.root) == ".stagely" else f" --state {addresses.folder.root}"
    lines = [f"  {name:<9} {value}" for name, value in shown]
    return [
        "",
        f"Stagely is up ({took_s:.1f} s).",
        *lines,
        f"  next      stagely up PATH{option}   (Ctrl-C here stops everything)",
        "",
    ]
