"""The certificate's folder: private files, replaced at once, and only by what fits."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from stagely.certificates import CertificateFolder, names_of
from stagely.retry_after import seconds_of
from stagely.txt import TxtRecord
from tests.workflows.certificates import signed_by_itself

NAMES = names_of("preview.example.com")


@pytest.fixture
def folder(tmp_path: Path) -> CertificateFolder:
    return CertificateFolder(tmp_path / "deep" / "certificates")


def test_installed_file_is_certificate_and_key_in_one(folder: CertificateFolder) -> None:
    installed = folder.install(signed_by_itself(folder.next_key(), NAMES))

    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder.certificate, folder.certificate)
    assert folder.validity() == installed
    assert installed.names == {"preview.example.com", "*.preview.example.com"}
    assert installed.renew_at - installed.begins_at == pytest.approx(60 * 86400)


def test_only_the_owner_may_read_what_is_there(folder: CertificateFolder) -> None:
    folder.account_key()
    folder.note_challenges([TxtRecord("_acme-challenge.preview.example.com", "value")])
    folder.next_key()

    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.path.iterdir()} == {
        "account.pem": 0o600,
        "challenges.json": 0o600,
        "next-key.pem": 0o600,
    }


def test_keys_stay_the_same_until_a_certificate_is_installed(folder: CertificateFolder) -> None:
    account, key = folder.account_key(), folder.next_key()
    assert (folder.account_key(), folder.next_key()) == (account, key)

    folder.install(signed_by_itself(key, NAMES))

    assert folder.account_key() == account
    assert folder.next_key() != key


def test_certificate_of_another_key_changes_nothing(folder: CertificateFolder, tmp_path: Path) -> None:
    folder.install(signed_by_itself(folder.next_key(), NAMES))
    before = folder.certificate.read_bytes()
    other = CertificateFolder(tmp_path / "other").next_key()

    with pytest.raises(ValueError, match="another key"):
        folder.install(signed_by_itself(other, NAMES))

    assert folder.certificate.read_bytes() == before


def test_draft_of_a_process_that_died_is_no_obstacle(folder: CertificateFolder) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / ".certificate.pem.new").write_text("half of a certific")

    folder.install(signed_by_itself(folder.next_key(), NAMES))

    assert folder.validity() is not None
    assert sorted(path.name for path in folder.path.iterdir()) == ["certificate.pem"]


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_file_that_cannot_be_read_counts_as_none(folder: CertificateFolder, content: str) -> None:
    folder.path.mkdir(parents=True)
    folder.certificate.write_text(content)

    assert folder.validity() is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        ("Thu, 26 Nov 2026 08:00:00 GMT", 3600.0),
        ("Thu, 26 Nov 2026 06:00:00 GMT", 0.0),
        ("31536000", 7 * 86400.0),
        ("9" * 400, 7 * 86400.0),
        ("Thu, 26 Nov 2099 08:00:00 GMT", 7 * 86400.0),
        ("Thu, 26 Nov 2026 08:00:00 +99999999999999999999", None),
        ("soon", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert seconds_of(header, now=1795676400.0) == seconds
