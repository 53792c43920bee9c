"""The fault suite's figures: lines of {scenario, target, metric, value, unit}, printed and, with --json FILE, kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from tests.faults.stage import Stage, stage

Note = Callable[[str, str, float, str], None]
"""(scenario, metric, value, unit)."""

_LINES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known only when this folder is named on the command line, as `make test-faults` does."""
    parser.addoption("--json", default=None, help="where the figures of the fault suite are written, a line each")


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Add a figure to the suite's."""
    lines = request.config.stash.setdefault(_LINES, [])

    def add(scenario: str, metric: str, value: float, unit: str) -> None:
        line = {"scenario": scenario, "target": "stagely", "metric": metric, "value": value, "unit": unit}
        lines.append(json.dumps(line))
        print(lines[-1], flush=True)

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_LINES, [])
    if lines:
        terminalreporter.section("figures of the fault suite")
        terminalreporter.write("\n".join(lines) + "\n")
    if path := config.getoption("--json", None):
        Path(path).write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
async def here(temporal_client: Client, engine: AsyncEngine, redis: Redis) -> AsyncIterator[Stage]:
    async with stage(temporal_client, engine, redis) as made:
        yield made
