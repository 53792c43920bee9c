"""The settings file."""

import json
from pathlib import Path

import pytest

from agent.config import Config, ConfigError, load


def written(folder: Path, **settings: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(settings))
    return path


def test_settings_have_defaults_and_the_address_gets_its_path(tmp_path: Path) -> None:
    path = written(tmp_path, agent_id="a1", token="t", core_url="ws://10.0.0.1:8001", job_id="j")

    assert load(path) == Config("a1", "ws://10.0.0.1:8001/v1/agent/connect", "t", "j")


def test_a_whole_address_and_other_places_are_taken_as_they_are(tmp_path: Path) -> None:
    path = written(
        tmp_path, agent_id="a1", core_url="wss://core/x", state_dir="/s", silence_limit_s=5, added_by_a_later_version=1
    )

    assert load(path) == Config("a1", "wss://core/x", state_dir=Path("/s"), silence_limit_s=5.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"core_url": "ws://x"}, '"agent_id" is missing'),
        ({"agent_id": "a", "core_url": "http://x"}, '"core_url" must be ws://HOST'),
        ({"agent_id": 1, "core_url": "ws://x"}, '"agent_id" must be a string, got int'),
        ({"agent_id": "a", "core_url": "ws://x", "silence_limit_s": "1"}, '"silence_limit_s" must be a number'),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(written(tmp_path, **settings))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        load(tmp_path / "config.json")


def test_the_token_is_not_printed() -> None:
    assert "hush" not in repr(Config("a", "ws://x", token="hush"))
