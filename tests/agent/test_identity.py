"""The agent's key and session: made once, kept on disk before they are used, signed by the real openssl."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent import identity
from agent.identity import CredentialStore, IdentityError, kept_session
from agent.protocol import Hello, signed_bytes

NONCE = "0123456789abcdef" * 2


def store(folder: Path, openssl: str = identity.OPENSSL) -> CredentialStore:
    return CredentialStore(folder / "state", folder / "run", openssl)


async def opened(folder: Path) -> CredentialStore:
    made = store(folder)
    await made.open()
    return made


def hello(of: CredentialStore) -> Hello:
    shown = of.current
    return Hello("vm-1", shown.public_key, "", "boot-1", shown.session, shown.next_session)


def script(folder: Path, text: str) -> str:
    path = folder / "openssl"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def test_a_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    first, second = await opened(tmp_path), await opened(tmp_path)

    assert second.current == first.current
    assert (tmp_path / "state" / "agent.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state" / "session.json").stat().st_mode & 0o777 == 0o600


async def test_what_openssl_signs_is_verified_by_another_library(tmp_path: Path) -> None:
    made = await opened(tmp_path)

    signed = await made.signed(hello(made), NONCE)

    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signed.public_key))
    key.verify(bytes.fromhex(signed.signature), signed_bytes(signed, NONCE))
    with pytest.raises(InvalidSignature):
        key.verify(bytes.fromhex(signed.signature), signed_bytes(signed, NONCE[::-1]))
    assert list((tmp_path / "run").iterdir()) == []  # The message holds the session.


def test_the_signed_bytes_name_everything_that_counts_one_to_a_line() -> None:
    said = Hello("vm-1", "aa", "not signed", "boot-1", "bb", "cc", "not signed either")

    assert signed_bytes(said, NONCE).decode().split("\n") == [
        "stagely agent hello v1", NONCE, "vm-1", "boot-1", "aa", "bb", "cc",
    ]  # fmt: skip


async def test_a_welcome_moves_the_session_on_and_a_restart_keeps_it(tmp_path: Path) -> None:
    made = await opened(tmp_path)
    before = made.current

    made.rotate()

    assert made.current.session == before.next_session
    assert made.current.next_session not in (before.session, before.next_session)
    assert (await opened(tmp_path)).current == made.current


async def test_on_a_disk_that_takes_nothing_the_last_session_is_shown_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = await opened(tmp_path)
    before = made.current
    blocked = tmp_path / "state" / ".session.json.new"
    blocked.mkdir()  # As a full disk: the new file cannot be written, also not by root.

    made.rotate()
    shown = made.current
    blocked.rmdir()
    made.rotate()

    assert shown == before
    assert "the session is not renewed" in caplog.text
    assert made.current.session == before.next_session
    assert kept_session(tmp_path / "state") == (made.current.session, made.current.next_session)


async def test_without_a_disk_nothing_is_shown_and_a_later_dial_finds_it_mended(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    made = store(tmp_path)

    with pytest.raises(IdentityError, match="cannot be used"):
        await made.open()
    (tmp_path / "state").unlink()
    await made.open()

    assert made.current.session == ""


async def test_a_key_without_a_session_begins_one_as_after_a_kill_between_the_two(tmp_path: Path) -> None:
    before = (await opened(tmp_path)).current
    (tmp_path / "state" / "session.json").unlink()

    after = (await opened(tmp_path)).current

    assert (after.public_key, after.session) == (before.public_key, "")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"session": "", "next_session": ""}', '{"session": 1}'])
async def test_a_damaged_session_is_named_and_never_replaced(tmp_path: Path, text: str) -> None:
    await opened(tmp_path)
    kept = tmp_path / "state" / "session.json"
    kept.write_text(text)

    with pytest.raises(IdentityError, match=r"session\.json is damaged"):
        await opened(tmp_path)

    assert kept.read_text() == text


async def test_a_session_file_that_is_no_text_is_damaged_too(tmp_path: Path) -> None:
    await opened(tmp_path)
    (tmp_path / "state" / "session.json").write_bytes(b'{"session": "\xff')

    with pytest.raises(IdentityError, match=r"session\.json is damaged"):
        await opened(tmp_path)


async def test_a_machine_without_openssl_says_so(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"/none/openssl cannot be run .* install openssl 3\.0 or newer"):
        await store(tmp_path, "/none/openssl").open()

    assert not (tmp_path / "state" / "agent.key").exists()


async def test_an_openssl_that_fails_is_quoted(tmp_path: Path) -> None:
    failing = script(tmp_path, 'echo "Algorithm ed25519 not found" >&2; exit 1')

    with pytest.raises(IdentityError, match=r"`.*openssl genpkey` ended with 1: Algorithm ed25519 not found"):
        await store(tmp_path, failing).open()


async def test_an_openssl_that_hangs_holds_up_nothing_for_longer_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "OPENSSL_TIMEOUT_S", 0.2)
    hanging = script(tmp_path, "exec sleep 60")
    turns = 0

    opening = asyncio.ensure_future(store(tmp_path, hanging).open())
    while not opening.done():
        await asyncio.sleep(0)
        turns += 1

    with pytest.raises(IdentityError, match=r"took longer than 0\.2 s"):
        await opening
    assert turns > 100


async def test_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    process = await asyncio.create_subprocess_exec(
        "openssl", "genpkey", "-algorithm", "x25519", "-out", os.fspath(tmp_path / "state" / "agent.key")
    )
    assert await process.wait() == 0

    with pytest.raises(IdentityError, match=r"agent\.key is no Ed25519 key"):
        await opened(tmp_path)


async def test_the_kept_session_is_what_the_file_says(tmp_path: Path) -> None:
    made = await opened(tmp_path)

    kept = json.loads((tmp_path / "state" / "session.json").read_text())

    assert kept == {"session": "", "next_session": made.current.next_session}
