"""The CA of `stagely dev`: made once, and followed by the next one in time."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stagely.dev.folder import StateFolder
from stagely.dev.refusal import StartFailed
from stagely.dev.vm_ca import ensure_vm_ca
from stagely.vm_ca import VmCa

NOW = datetime.now(UTC)


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    made = StateFolder(tmp_path)
    ensure_vm_ca(made, NOW)
    return made


def test_the_key_is_its_owners_alone_and_the_certificate_is_trusted(folder: StateFolder) -> None:
    assert stat.S_IMODE(folder.vm_ca.stat().st_mode) == 0o600
    assert folder.vm_ca.read_text().endswith(folder.vm_ca_trusted.read_text())


def test_the_next_start_keeps_it(folder: StateFolder) -> None:
    before = folder.vm_ca.read_text()

    ensure_vm_ca(folder, NOW + timedelta(days=300))

    assert folder.vm_ca.read_text() == before


def test_one_that_ends_soon_is_followed_by_another_and_stays_trusted(folder: StateFolder) -> None:
    first = folder.vm_ca_trusted.read_text()

    ensure_vm_ca(folder, NOW + timedelta(days=340))

    assert VmCa(folder.vm_ca).ends_at() > NOW + timedelta(days=700)
    assert folder.vm_ca_trusted.read_text().endswith(first)
    assert folder.vm_ca_trusted.read_text().count("BEGIN CERTIFICATE") == 2


def test_one_that_has_ended_is_trusted_no_longer(folder: StateFolder) -> None:
    first = folder.vm_ca_trusted.read_text()

    ensure_vm_ca(folder, NOW + timedelta(days=366))

    assert first not in folder.vm_ca_trusted.read_text()


def test_a_start_that_died_between_the_two_files_is_made_good_by_the_next(folder: StateFolder) -> None:
    folder.vm_ca.unlink()

    ensure_vm_ca(folder, NOW)

    assert folder.vm_ca.read_text().partition("-----BEGIN CERT")[2][:500] in folder.vm_ca_trusted.read_text()


def test_damaged_trust_ends_the_start_that_would_add_to_it_and_is_named(folder: StateFolder) -> None:
    folder.vm_ca_trusted.write_text("damaged")

    with pytest.raises(StartFailed, match=r"vm-ca\.crt must hold certificates, PEM .*; remove it"):
        ensure_vm_ca(folder, NOW + timedelta(days=340))


def test_a_damaged_one_ends_the_start_and_is_named(folder: StateFolder) -> None:
    folder.vm_ca.write_text("damaged")

    with pytest.raises(StartFailed, match=r"STAGELY_VM_CA_FILE=.*vm-ca\.pem must hold a private key"):
        ensure_vm_ca(folder, NOW)
