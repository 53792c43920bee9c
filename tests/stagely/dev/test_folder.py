"""The state folder: made once, private, and used by one `stagely dev` at a time."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from stagely.dev.folder import StateFolder, make_app_key
from stagely.dev.refusal import Refused


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_opening_twice_keeps_id_and_secrets(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    first = folder.open()
    token = folder.token.read_text()

    assert folder.open() == first
    assert folder.token.read_text() == token
    assert len(first) == 8


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    folder.open()
    make_app_key(folder)

    files = [folder.token, folder.github_token, folder.webhook_secret, folder.signing_key, folder.app_key]
    files += [folder.encryption_key, folder.codec_token]
    assert {mode(path) for path in files} == {0o600}
    assert mode(folder.vms) == 0o700


def test_second_holder_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)

    with folder.lock():
        holder = folder.holder()
        with pytest.raises(Refused, match=r"Another stagely dev \(process \d+\) runs on"), StateFolder(tmp_path).lock():
            pass

    assert holder is not None
    assert folder.holder() is None


def test_state_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "format").write_text("9\n")

    with pytest.raises(Refused, match=r"another version of Stagely \(format 9, this one reads 1\)"):
        StateFolder(tmp_path).open()


def test_folder_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(Refused, match="cannot be used: No such file or directory"), StateFolder(Path("/proc/x")).lock():
        pass


def test_port_base_is_remembered(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)

    before = folder.port_base(None)
    folder.remember_port_base(9000)

    assert before == 8000
    assert folder.port_base(None) == 9000
    assert folder.port_base(7000) == 7000
