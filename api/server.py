"""The api's process: uvicorn on every configured address, and the dispatcher beside it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from api.app import create_app
from api.dispatch import Dispatcher
from api.listen import BACKLOG, bind
from api.services import open_services
from stagely.logs import get_logger
from stagely.settings import Settings

SHUTDOWN_TIMEOUT_S = 3  # Followers of logs never leave by themselves.

log = get_logger()


class Api:
    """Serves on `settings.api_listen` until `stop`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: _Server | None = None
        self._is_stopping = False
        self.listening = asyncio.Event()
        self.addresses: list[tuple[str, int]] = []

    def stop(self) -> None:
        self._is_stopping = True
        if self._server is not None:
            self._server.should_exit = True

    async def run(self) -> None:
        sockets = bind(self._settings.api_listen)
        self.addresses = [one.getsockname()[:2] for one in sockets]
        async with open_services(self._settings) as services:
            dispatcher = Dispatcher(services)
            app = create_app(services, dispatcher)
            config = uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                backlog=BACKLOG,
                timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
            )
            self._server = _Server(config, self.listening)
            self._server.should_exit = self._is_stopping
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(dispatcher.run())
                log.info("api listening", addresses=self.addresses)
                await self._server.serve(sockets)
                sending.cancel()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would raise the signal again at the end and cut our own clean-up off."""

    def __init__(self, config: uvicorn.Config, listening: asyncio.Event) -> None:
        super().__init__(config)
        self._listening = listening

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening.set()


async def serve(settings: Settings) -> None:
    """Run one api until SIGTERM or SIGINT."""
    api = Api(settings)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, api.stop)
    await api.run()
