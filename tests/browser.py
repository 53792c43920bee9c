"""Debian's Chromium, driven by its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.asyncio.client import ClientConnection, connect

from tests.services import child

START_TIMEOUT_S = 60.0
STEP_TIMEOUT_S = 90.0
_FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-gpu",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-dev-shm-usage",  # A container's /dev/shm has 64 MiB.
)
_DOMAINS = ("Page", "Runtime", "Log", "Network", "DOM")
Fields = dict[str, Any]  # Any: the JSON of a command or an event.


def chromium_program() -> str:
    """The browser; Debian's name for it, or that of others."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise RuntimeError("no Chromium: run `apt-get install --no-install-recommends chromium`")


def key_digest(certificate: Path) -> str:
    """What `--ignore-certificate-errors-spki-list` takes: the SHA-256 of the public key, in base64."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    public = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(public).digest()).decode()


@dataclass(slots=True)
class Wire:
    """The connection to the browser: commands with their answers, events to the page they are about."""

    connection: ClientConnection
    pages: dict[str, Page] = field(default_factory=dict)
    downloads: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _waiting: dict[int, asyncio.Future[Fields]] = field(default_factory=dict)

    async def call(self, method: str, session: str = "", **parameters: Any) -> Fields:
        """Send a command and wait for its result. Raises AssertionError for what the browser refuses."""
        number = next(self._numbers)
        answered = self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters}
        await self.connection.send(json.dumps(message | ({"sessionId": session} if session else {})))
        async with asyncio.timeout(STEP_TIMEOUT_S):
            answer = await answered
        assert "error" not in answer, f"{method}: {answer['error']}"
        result = answer["result"]
        assert isinstance(result, dict)
        return result

    async def read(self) -> None:
        """Hand out what arrives until the connection ends."""
        async for raw in self.connection:
            message = json.loads(raw)
            if "id" in message:
                self._waiting.pop(message["id"]).set_result(message)
            elif page := self.pages.get(message.get("sessionId", "")):
                page.note(message["method"], message["params"])
            elif message["method"] == "Browser.downloadProgress" and message["params"]["state"] != "inProgress":
                self.downloads.put_nowait(message["params"]["state"])


@dataclass(slots=True)
class Page:
    """One tab. `complaints`: what the console said in anger and what did not load. `statuses`: URL to HTTP status."""

    wire: Wire
    session: str
    complaints: list[str] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    _loads: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    _loader: str = ""

    async def call(self, method: str, **parameters: Any) -> Fields:
        return await self.wire.call(method, self.session, **parameters)

    async def open(self, url: str) -> None:
        """Go there and wait until all that the page names has loaded."""
        self._loader = (await self.call("Page.navigate", url=url)).get("loaderId", "")
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while await self._loads.get() != self._loader:
                pass

    async def reloaded(self) -> None:
        """Wait until the page that the present one turned into has loaded."""
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while (loader := await self._loads.get()) == self._loader:
                pass
        self._loader = loader

    async def run(self, script: str) -> Any:
        """The JSON value of an expression, or of the promise that it is. Any: whatever the script gives."""
        done = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, json.dumps(done["exceptionDetails"], indent=1)
        return done["result"].get("value")

    async def choose_file(self, selector: str, file: Path) -> None:
        """What a person does with the file dialogue of an input."""
        root = (await self.call("DOM.getDocument"))["root"]["nodeId"]
        node = (await self.call("DOM.querySelector", nodeId=root, selector=selector))["nodeId"]
        await self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    async def look(self, *, width: int, height: int, scheme: str) -> None:
        """Be a screen of that size whose person prefers that colour scheme, light or dark."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=width < 600
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self.call("Emulation.setEmulatedMedia", features=[feature])

    async def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode((await self.call("Page.captureScreenshot"))["data"]))

    def note(self, event: str, about: Fields) -> None:
        if event == "Page.lifecycleEvent" and about["name"] == "load":
            self._loads.put_nowait(about["loaderId"])
        elif event == "Network.responseReceived":
            self.statuses[about["response"]["url"]] = about["response"]["status"]
        elif event == "Network.loadingFailed" and not about.get("canceled"):
            self.complaints.append(f"{about['type']} did not load: {about['errorText']}")
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(about["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(about["args"]))
        elif event == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")


@dataclass(slots=True)
class Browser:
    """A running browser with a profile of its own; downloads go to `downloads`."""

    wire: Wire
    downloads: Path

    async def page(self) -> Page:
        """A new tab."""
        target = (await self.wire.call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.wire.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = self.wire.pages[session] = Page(self.wire, session)
        for domain in _DOMAINS:
            await page.call(f"{domain}.enable")
        await page.call("Page.setLifecycleEventsEnabled", enabled=True)
        return page

    async def downloaded(self) -> str:
        """Wait until a download has ended; how: completed or canceled."""
        async with asyncio.timeout(STEP_TIMEOUT_S):
            return await self.wire.downloads.get()


@asynccontextmanager
async def chromium(folder: Path, *flags: str) -> AsyncIterator[Browser]:
    """A browser whose profile, log and downloads are in `folder`."""
    profile, downloads = folder / "profile", folder / "downloads"
    downloads.mkdir(parents=True)
    as_root = ("--no-sandbox",) if os.geteuid() == 0 else ()  # Chromium has no sandbox for root.
    argv = [chromium_program(), *_FLAGS, *as_root, f"--user-data-dir={profile}", *flags, "about:blank"]
    with child(argv, folder / "chromium.log") as process:
        address = await _address(profile / "DevToolsActivePort", process)
        async with connect(address, proxy=None, max_size=None, compression=None) as connection:
            wire = Wire(connection)
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(wire.read())
                await wire.call(
                    "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads), eventsEnabled=True
                )
                yield Browser(wire, downloads)
                reading.cancel()


async def _address(file: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the browser takes commands. It writes a file with the port and the path once it does."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while not (file.exists() and len(lines := file.read_text().split()) == 2):
            assert process.poll() is None, f"Chromium ended with {process.returncode}; its log is beside {file.parent}"
            await asyncio.sleep(0.02)
    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
