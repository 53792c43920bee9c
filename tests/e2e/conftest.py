"""One running system for all end-to-end tests of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stagely.cli.demo import system as systems
from stagely.cli.progress import Progress
from stagely.dev.clean import clean
from stagely.dev.console import Console
from tests.e2e.system import System

PORT_BASE = 26000  # Beside `stagely dev` (8000), the demo (18000) and the benchmark (28000).


@pytest.fixture
def system(running_system: System) -> Iterator[System]:
    """The running system, with no environment before and after each test."""
    yield running_system
    running_system.close_all()


@pytest.fixture(scope="session")
def running_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("e2e")
    state = folder / "state"
    (folder / "repositories").mkdir()
    running = System(systems.start(state, PORT_BASE, keep=False, progress=Progress()), folder / "repositories")
    try:
        yield running
    finally:
        running.dev.stop()
        clean(state, Console())
