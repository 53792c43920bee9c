"""Files of the agent, and the folder that only one agent may hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.files import held


def test_folder_is_held_by_one(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(BlockingIOError), held(tmp_path):
        pass


def test_folder_that_was_let_go_is_held_again(tmp_path: Path) -> None:
    with held(tmp_path / "state"):
        pass

    with held(tmp_path / "state"):
        assert (tmp_path / "state" / "lock").exists()


def test_second_agent_on_a_machine_says_so_and_ends(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps({"agent_id": "vm-1", "core_url": "ws://127.0.0.1:1", "state_dir": str(tmp_path / "state")})
    )

    with held(tmp_path / "state"):
        argv = [sys.executable, "-m", "agent", "--config", str(config)]
        second = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)

    assert second.returncode == 2
    assert "another agent runs here already" in second.stderr
