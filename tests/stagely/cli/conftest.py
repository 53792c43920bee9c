"""The CLI's surroundings: a real local forge, and a small api that speaks api/schemas.py and plays a given story."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stagely.dev.folder import StateFolder, make_app_key, write_json
from tests.fakes.api import TOKEN, FakeApi
from tests.services import child, free_port
from tests.stagely.cli.running import Place, commit, git

FORGE_TIMEOUT_S = 30.0


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as running:
        yield running


@pytest.fixture
def place(tmp_path: Path, api: FakeApi) -> Iterator[Place]:
    folder = StateFolder(tmp_path / "state")
    folder.open()
    folder.token.write_text(TOKEN)
    make_app_key(folder)
    port = free_port()
    urls = {
        "api": api.url,
        "forge": f"http://127.0.0.1:{port}",
        "forge_for_vms": f"http://127.0.0.1:{port}",
        "registry": "http://127.0.0.1:1",
    }
    record = {"installation": folder.installation(), "pid": os.getpid(), "ports": {"edge": 1}, "urls": urls}
    write_json(folder.dev_json, record)
    listen = ["--state", str(folder.root), "--listen", f"127.0.0.1:{port}", "--webhook-url", f"{api.url}/webhook"]
    with child([sys.executable, "-m", "stagely.dev.forge", *listen], tmp_path / "forge.log"):
        api.wait_for_port(port, FORGE_TIMEOUT_S)
        yield Place(folder.root, api)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with one commit that holds a Compose file."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "compose.yaml").write_text("services: {web: {image: busybox}}\n")
    git(folder, "init", "--quiet", "--initial-branch=work")
    commit(folder, "First")
    return folder
