"""Whole runs against a real authority: issued, renewed, refused, stopped half-way; and what is left in the DNS."""

from __future__ import annotations

import asyncio
import ssl
import time
from datetime import UTC
from pathlib import Path

import pytest
from cryptography import x509
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter

from stagely.ids import mint
from stagely.txt import TxtRecord
from tests.acme.conftest import Site, Unseeing, site_of
from tests.acme.pebble import BLOCKED, DAY_S, Dns, Pebble, pebble_server
from tests.fakes.acme import OverloadedAuthority
from tests.fakes.dns.rest import TOKEN
from tests.secrecy import is_in
from workflows import attributes
from workflows.certificate import CertificateWorkflow
from workflows.issuance import CertificateInput, CertificateState
from workflows.messages import WORKFLOW_QUEUE

DEADLINE_S = 60.0

Run = WorkflowHandle[CertificateWorkflow, CertificateState]


def installed(site: Site) -> x509.Certificate:
    return x509.load_pem_x509_certificate(site.folder.certificate.read_bytes())


async def begun(site: Site) -> Run:
    return await site.client.start_workflow(
        CertificateWorkflow.run, CertificateInput(site.domain), id=mint("certificate"), task_queue=WORKFLOW_QUEUE
    )


async def proving(site: Site) -> Run:
    """A run whose TXT values stand in the DNS and are not seen there."""
    handle = await begun(site)
    async with asyncio.timeout(DEADLINE_S):
        while len(site.provider.txt.get(site.challenge, ())) < 2:  # noqa: ASYNC110  # A fake in another thread.
            await asyncio.sleep(0.02)
    return handle


async def next_attempt_at(handle: Run) -> float:
    """When the run's activity, which failed once, is tried again; Unix seconds."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            for waiting in (await handle.describe()).raw_description.pending_activities:
                if waiting.attempt == 2:
                    return waiting.next_attempt_schedule_time.ToDatetime(UTC).timestamp()
            await asyncio.sleep(0.05)


async def test_certificate_of_the_domain_and_its_previews_is_issued(site: Site) -> None:
    handle = await begun(site)
    state = await handle.result()

    names = installed(site).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {site.domain, f"*.{site.domain}"}
    ends_at = installed(site).not_valid_after_utc
    assert (state.expires_at, state.is_due, state.has_leftovers) == (ends_at.timestamp(), False, False)
    assert state.renew_at == pytest.approx(ends_at.timestamp() - 30 * DAY_S, abs=1)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(site.folder.certificate)
    assert {path.name: path.stat().st_mode & 0o777 for path in site.folder.path.iterdir()} == {
        "account.pem": 0o600, "certificate.pem": 0o600, "challenges.json": 0o600
    }  # fmt: skip
    assert (site.provider.txt, site.folder.challenges()) == ({}, ())
    assert len([call for call in site.provider.journal if call.endswith("add_records")]) == 2
    shown = (await handle.describe()).typed_search_attributes
    assert (shown.get(attributes.STATE), shown.get(attributes.EXPIRES_AT)) == ("valid", ends_at)


async def test_certificate_is_renewed_with_a_new_key_when_a_third_of_its_life_is_left(site: Site) -> None:
    await site.look()
    first, calls = installed(site), len(site.provider.journal)
    account = (site.folder.path / "account.pem").read_bytes()
    site.ahead_s[0] = 59.9 * DAY_S
    young = await site.look()
    assert (young.is_due, installed(site), len(site.provider.journal)) == (False, first, calls)
    site.ahead_s[0] = 60.0 * DAY_S

    await site.look()

    assert installed(site).serial_number != first.serial_number
    assert installed(site).public_key() != first.public_key()
    assert (site.folder.path / "account.pem").read_bytes() == account
    assert site.provider.txt == {}


async def test_certificate_of_six_days_is_renewed_after_four(
    temporal_client: Client, tmp_path: Path, dns: Dns, pebble: Pebble, trusted: None
) -> None:
    async with (
        site_of(temporal_client, tmp_path, dns, pebble.directory, profile="shortlived") as site,
        site.working(),
    ):
        state = await site.look()
        first = installed(site).serial_number
        site.ahead_s[0] = 3.9 * DAY_S
        await site.look()
        after_less = installed(site).serial_number
        site.ahead_s[0] = 4.1 * DAY_S
        await site.look()

    assert state.expires_at == pytest.approx(time.time() + 6 * DAY_S, abs=300)
    assert after_less == first
    assert installed(site).serial_number != first


async def test_checks_that_passed_lately_want_no_records(
    temporal_client: Client, tmp_path: Path, dns: Dns, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pebble_server(tmp_path / "pebble", dns, AUTHZREUSE=100) as pebble:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pebble.ca_file))
        async with site_of(temporal_client, tmp_path, dns, pebble.directory) as site, site.working():
            await site.look()
            first, calls = installed(site).serial_number, len(site.provider.journal)
            site.ahead_s[0] = 60.0 * DAY_S

            await site.look()

    assert installed(site).serial_number != first
    assert len(site.provider.journal) == calls


# --- refused


async def test_wrong_dns_token_fails_the_look_and_the_next_one_succeeds(site: Site) -> None:
    site.provider.is_revoked = True

    code, sentence = await site.failed_look()

    assert code == "credentials_rejected"
    assert "Put a token that may write DNS where STAGELY_DNS_TOKEN_FILE says" in sentence
    assert site.folder.validity() is None
    site.provider.is_revoked = False
    await site.look()
    assert site.folder.validity() is not None
    assert (site.provider.txt, site.folder.challenges()) == ({}, ())


async def test_authority_that_forbids_the_name_is_quoted(
    temporal_client: Client, tmp_path: Path, dns: Dns, pebble: Pebble, trusted: None
) -> None:
    async with site_of(temporal_client, tmp_path, dns, pebble.directory, domain=BLOCKED) as site, site.working():
        code, sentence = await site.failed_look()

    assert code == "authority_refused"
    assert "rejectedIdentifier" in sentence
    assert site.provider.journal == []


async def test_check_that_fails_is_quoted_and_leaves_nothing_in_the_dns(
    temporal_client: Client, tmp_path: Path, dns: Dns, pebble: Pebble, trusted: None
) -> None:
    async with site_of(temporal_client, tmp_path, dns, pebble.directory, publishes=False) as site, site.working():
        code, sentence = await site.failed_look()

    assert code == "authority_refused"
    assert "urn:ietf:params:acme:error:unauthorized" in sentence
    assert (site.provider.txt, site.folder.challenges()) == ({}, ())
    assert len([call for call in site.provider.journal if call.endswith("add_records")]) == 2


async def test_rate_limit_is_waited_out_for_as_long_as_the_authority_says(
    temporal_client: Client, tmp_path: Path, dns: Dns
) -> None:
    with OverloadedAuthority(retry_after="7200") as authority:
        async with site_of(temporal_client, tmp_path, dns, authority.directory) as site, site.working():
            handle = await begun(site)
            until = await next_attempt_at(handle)
            await handle.terminate("seen")

    assert until == pytest.approx(time.time() + 7200, abs=60)
    assert authority.orders == 1


# --- stopped half-way


async def test_cancelled_run_takes_its_records_out_of_the_dns(
    temporal_client: Client, tmp_path: Path, dns: Dns, pebble: Pebble, trusted: None
) -> None:
    async with site_of(temporal_client, tmp_path, dns, pebble.directory, sees=Unseeing()) as site, site.working():
        handle = await proving(site)
        await handle.cancel()
        with pytest.raises(Exception, match="Workflow execution failed"):
            await handle.result()

    assert (site.provider.txt, site.folder.challenges()) == ({}, ())


async def test_records_of_a_terminated_run_are_removed_by_the_next_one(
    temporal_client: Client, tmp_path: Path, dns: Dns, pebble: Pebble, trusted: None
) -> None:
    sees = Unseeing()
    async with site_of(temporal_client, tmp_path, dns, pebble.directory, sees=sees) as site, site.working():
        handle = await proving(site)
        await handle.terminate("by an operator")
        assert len(site.folder.challenges()) == 2
        sees.is_blind = False

        await site.look()

    assert site.folder.validity() is not None
    assert (site.provider.txt, site.folder.challenges()) == ({}, ())


async def test_records_that_cannot_be_removed_now_are_removed_by_the_next_look(site: Site) -> None:
    site.provider.refuses_removal = True
    await site.look()
    assert site.folder.validity() is not None
    assert len(site.provider.txt[site.challenge]) == 2

    site.provider.refuses_removal = False
    await site.look()

    assert (site.provider.txt, site.folder.challenges()) == ({}, ())


async def test_record_of_a_former_zone_stays_noted_and_stops_no_renewal(site: Site) -> None:
    elsewhere = TxtRecord("_acme-challenge.preview.example.org", "left by a run that was stopped")
    site.folder.note_challenges([elsewhere])

    state = await site.look()

    assert (state.is_due, state.has_leftovers) == (False, True)
    assert site.folder.validity() is not None
    assert (site.provider.txt, site.folder.challenges()) == ({}, (elsewhere,))
    code, sentence = await site.failed_look()  # Nothing else is to be done now: somebody should read this.
    assert code == "dns_rejected"
    assert "preview.example.org does not lie in the zone example.com" in sentence


# --- what people see


async def test_no_secret_is_in_the_history_or_in_the_log(
    temporal_client: Client,
    tmp_path: Path,
    dns: Dns,
    pebble: Pebble,
    trusted: None,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The log is structlog's, on stdout here, and that of the libraries, down to what they say to who debugs them."""
    target = temporal_client.service_client.config.target_host
    open_client = await Client.connect(target, data_converter=pydantic_data_converter)
    caplog.set_level("DEBUG")
    async with site_of(open_client, tmp_path, dns, pebble.directory) as site, site.working():
        handle = await begun(site)
        await handle.result()
        history = b"".join([event.SerializeToString() async for event in handle.fetch_history_events()])

    own, libraries = capsys.readouterr().out, caplog.text
    account, key = ((site.folder.path / name).read_text() for name in ("account.pem", "certificate.pem"))
    second_lines = [pem.splitlines()[2] for pem in (account, key)]
    assert is_in(f"_acme-challenge.{site.domain}", history)
    assert "certificate ordered" in own
    assert "Sending POST request" in libraries
    told = history + own.encode() + libraries.encode()
    assert [secret for secret in (TOKEN, *second_lines) if is_in(secret, told)] == []
