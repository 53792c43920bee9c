"""The key file: what it may hold, what is said about one that is wrong, and that a rotation needs no restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from stagely.keyring import KeyFileInvalid, KeyRing, KeyUnknown, new_line, open_keyring
from tests.encryption import key_file

OLD, NEW = "old:" + "aa" * 32, "new:" + "bb" * 32


def test_the_first_line_encrypts_and_every_line_decrypts(tmp_path: Path) -> None:
    keys = KeyRing(key_file(tmp_path, NEW, "", OLD))

    assert keys.newest().id == "new"
    assert keys.find("old").secret == b"\xaa" * 32


def test_a_made_line_is_taken(tmp_path: Path) -> None:
    assert KeyRing(key_file(tmp_path, new_line("k1"))).newest().id == "k1"


def test_a_key_never_prints_its_secret(tmp_path: Path) -> None:
    assert repr(KeyRing(key_file(tmp_path, OLD)).newest()) == "Key(id='old')"


def test_a_key_added_on_top_is_found_by_a_process_that_read_the_old_file(tmp_path: Path) -> None:
    keys = KeyRing(key_file(tmp_path, OLD))
    key_file(tmp_path, NEW, OLD)

    found = keys.find("new")

    assert found.id == "new"
    assert keys.newest().id == "new"


def test_an_unknown_key_is_named_with_the_file_and_what_to_do(tmp_path: Path) -> None:
    keys = KeyRing(key_file(tmp_path, NEW))

    with pytest.raises(
        KeyUnknown, match=r"no key 'old' in .*encryption-key \(it holds new\). Put the line of that key"
    ):
        keys.find("old")


def test_a_setting_that_is_missing_is_named_with_the_command_that_makes_a_file() -> None:
    with pytest.raises(KeyFileInvalid, match=r"STAGELY_ENCRYPTION_KEY_FILE is not set.*openssl rand -hex 32"):
        open_keyring(None)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileInvalid, match=r"STAGELY_ENCRYPTION_KEY_FILE=.*/none cannot be read: No such file"):
        open_keyring(tmp_path / "none")


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, OLD)
    path.chmod(0o640)

    with pytest.raises(KeyFileInvalid, match=r"has mode 0640.*Run: chmod 600"):
        KeyRing(path)


@pytest.mark.parametrize("line", ["ccdd" * 16, "a b:" + "cd" * 32, "k:" + "cd" * 31, "k:" + "zz" * 32, ":" + "cd" * 32])
def test_a_malformed_line_is_named_by_its_number_and_not_shown(tmp_path: Path, line: str) -> None:
    path = key_file(tmp_path, OLD, line)

    with pytest.raises(KeyFileInvalid, match=r"line 2 must be KEY_ID:64_HEX_DIGITS") as refused:
        KeyRing(path)

    assert "cd" * 16 not in str(refused.value)


def test_two_keys_of_one_id_are_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, OLD, "old:" + "cc" * 32)

    with pytest.raises(KeyFileInvalid, match="line 2 repeats key id old"):
        KeyRing(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileInvalid, match="holds no key"):
        KeyRing(key_file(tmp_path))
