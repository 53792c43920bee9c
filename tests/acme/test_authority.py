"""What an authority says when it does not give a certificate, and whether to come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from providers.acme import AcmeAuthority
from providers.errors import AuthorityBusy, AuthorityRefused, ProviderError
from stagely.certificates import CertificateFolder, names_of
from tests.acme.pebble import Dns, pebble_server
from tests.fakes.acme import OverloadedAuthority

NAMES = names_of("preview.example.com")


@pytest.fixture
def folder(tmp_path: Path) -> CertificateFolder:
    return CertificateFolder(tmp_path / "certificates")


def authority_of(folder: CertificateFolder, directory: str) -> AcmeAuthority:
    return AcmeAuthority(directory, "", "default", folder.account_key)


@pytest.mark.parametrize(
    ("status", "kind", "header", "error", "seconds"),
    [
        (429, "rateLimited", "7200", AuthorityBusy, 7200.0),
        (429, "rateLimited", None, AuthorityBusy, 3600.0),
        (503, "rateLimited", "60", AuthorityBusy, 60.0),
        (500, "serverInternal", None, AuthorityBusy, None),
        (403, "unauthorized", None, AuthorityRefused, None),
        (400, "badCSR", None, AuthorityRefused, None),
    ],
)
async def test_refusal_says_whether_and_when_to_come_back(
    folder: CertificateFolder,
    status: int,
    kind: str,
    header: str | None,
    error: type[ProviderError],
    seconds: float | None,
) -> None:
    with (
        OverloadedAuthority(status=status, kind=kind, retry_after=header) as busy,
        pytest.raises(error, match="too many orders") as told,
    ):
        await authority_of(folder, busy.directory).place(NAMES, folder.next_key())

    assert told.value.retry_after_s == seconds


async def test_authority_that_does_not_answer_is_tried_again(folder: CertificateFolder) -> None:
    with pytest.raises(AuthorityBusy):
        await authority_of(folder, "http://127.0.0.1:1/dir").place(NAMES, folder.next_key())


async def test_authority_whose_tls_is_not_trusted_gets_no_order(
    folder: CertificateFolder, tmp_path: Path, dns: Dns
) -> None:
    with (
        pebble_server(tmp_path / "pebble", dns) as pebble,
        pytest.raises(AuthorityBusy, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        await authority_of(folder, pebble.directory).place(NAMES, folder.next_key())


async def test_nonces_that_are_all_refused_are_tried_again_later(
    folder: CertificateFolder, tmp_path: Path, dns: Dns, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pebble_server(tmp_path / "pebble", dns, WFE_NONCEREJECT=100) as pebble:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pebble.ca_file))
        with pytest.raises(AuthorityBusy, match="badNonce"):
            await authority_of(folder, pebble.directory).place(NAMES, folder.next_key())


async def test_order_that_the_authority_forgot_is_refused(
    folder: CertificateFolder, tmp_path: Path, dns: Dns, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pebble_server(tmp_path / "pebble", dns, WFE_NONCEREJECT=0) as pebble:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pebble.ca_file))
        gone = pebble.directory.replace("/dir", "/my-order/gone")
        with pytest.raises(AuthorityRefused):
            await authority_of(folder, pebble.directory).finish(gone, NAMES, folder.next_key())


async def test_account_is_found_again_by_its_key(
    folder: CertificateFolder, tmp_path: Path, dns: Dns, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pebble_server(tmp_path / "pebble", dns, WFE_NONCEREJECT=0) as pebble:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pebble.ca_file))
        authority = authority_of(folder, pebble.directory)
        first = await authority.place(NAMES, folder.next_key())
        second = await authority.place(NAMES, folder.next_key())
        log = pebble.log.read_text()

    assert {record.name for record in first.records + second.records} == {"_acme-challenge.preview.example.com"}
    assert len({record.value for record in first.records}) == 2
    assert log.count("There are now 1 accounts in memory") == 1
    assert "There are now 2 accounts in memory" not in log
