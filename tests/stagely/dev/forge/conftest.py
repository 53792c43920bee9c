from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stagely.dev.forge.running import RunningForge, Work, make_work, running_forge


@pytest.fixture
async def forge(tmp_path: Path) -> AsyncIterator[RunningForge]:
    """Every REST call of the test is checked against GitHub's OpenAPI description when it ends."""
    async with running_forge(tmp_path / "forge") as running:
        yield running


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return make_work(tmp_path / "work")
