"""What a look at the certificate says, and what its activities do when they are run twice or stopped."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import structlog.testing
from temporalio.testing import ActivityEnvironment

from activities.certificates import CertificateActivities
from providers.errors import AuthorityRefused, DnsRejected, ProviderUnavailable
from stagely.certificates import CertificateFolder, names_of
from stagely.txt import TxtRecord
from tests.workflows.certificates import Town, signed_by_itself
from workflows.issuance import CertificateInput, CertificateOrder, CertificateState

DOMAIN = "preview.example.com"
ORDER = CertificateInput(DOMAIN)
CHALLENGE = f"_acme-challenge.{DOMAIN}"


@pytest.fixture
def folder(tmp_path: Path) -> CertificateFolder:
    return CertificateFolder(tmp_path / "certificates")


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def activities(folder: CertificateFolder, town: Town) -> CertificateActivities:
    return CertificateActivities(folder, town, lambda: town, town)


def aged(folder: CertificateFolder, days: float, domain: str = DOMAIN) -> None:
    """Put a certificate of 90 days that is so old into the folder."""
    age = datetime.timedelta(days=days)
    folder.install(signed_by_itself(folder.next_key(), names_of(domain), age=age))


async def inspected(activities: CertificateActivities) -> tuple[CertificateState, tuple[str, str]]:
    with structlog.testing.capture_logs() as logs:
        state = await ActivityEnvironment().run(activities.inspect_certificate, ORDER)
    return state, (logs[0]["log_level"], logs[0]["event"])


async def test_empty_folder_wants_a_certificate_and_says_so(activities: CertificateActivities) -> None:
    assert await inspected(activities) == (CertificateState(is_due=True), ("warning", "no certificate yet"))


@pytest.mark.parametrize(
    ("days", "is_due", "told"),
    [
        (59.9, False, ("info", "certificate valid")),
        (60.1, True, ("info", "certificate valid")),
        (76.0, True, ("warning", "certificate ends soon")),
        (91.0, True, ("error", "certificate expired")),
    ],
)
async def test_age_of_the_certificate_decides_what_is_done_and_how_loud(
    activities: CertificateActivities, folder: CertificateFolder, days: float, is_due: bool, told: tuple[str, str]
) -> None:
    aged(folder, days)

    state, said = await inspected(activities)

    assert (state.is_due, said) == (is_due, told)


async def test_certificate_of_another_domain_is_due_at_once(
    activities: CertificateActivities, folder: CertificateFolder
) -> None:
    aged(folder, 1.0, "old.example.com")

    state, _ = await inspected(activities)

    assert state.is_due


async def test_records_are_noted_before_they_are_put(
    activities: CertificateActivities, folder: CertificateFolder, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Town, name: str, value: str) -> None:
        raise ProviderUnavailable("the reply was lost")

    monkeypatch.setattr(Town, "put_txt", fail)
    order = CertificateOrder(DOMAIN, "https://authority.test/1", (TxtRecord(CHALLENGE, "value"),))

    with pytest.raises(ProviderUnavailable):
        await ActivityEnvironment().run(activities.publish_challenges, order)

    assert folder.challenges() == (TxtRecord(CHALLENGE, "value"),)


async def test_records_of_an_earlier_order_are_withdrawn_with_those_of_this_one(
    activities: CertificateActivities, folder: CertificateFolder, town: Town
) -> None:
    earlier = CertificateOrder(DOMAIN, "https://authority.test/1", (TxtRecord(CHALLENGE, "earlier"),))
    later = CertificateOrder(DOMAIN, "https://authority.test/2", (TxtRecord(CHALLENGE, "later"),))
    await ActivityEnvironment().run(activities.publish_challenges, earlier)
    await ActivityEnvironment().run(activities.publish_challenges, later)
    assert town.txt == {CHALLENGE: ["earlier", "later"]}

    await ActivityEnvironment().run(activities.withdraw_challenges, ORDER)
    await ActivityEnvironment().run(activities.withdraw_challenges, ORDER)

    assert (town.txt, folder.challenges()) == ({CHALLENGE: []}, ())


async def test_record_that_cannot_be_removed_keeps_no_other_in_the_dns(
    activities: CertificateActivities, folder: CertificateFolder, town: Town
) -> None:
    elsewhere, ours = TxtRecord("_acme-challenge.preview.example.org", "old"), TxtRecord(CHALLENGE, "value")
    folder.note_challenges([elsewhere, ours])
    town.txt = {CHALLENGE: ["value"]}
    town.foreign.add(elsewhere.name)

    with pytest.raises(DnsRejected, match=r"example\.org"):
        await ActivityEnvironment().run(activities.withdraw_challenges, ORDER)

    assert (town.txt, folder.challenges()) == ({CHALLENGE: []}, (elsewhere,))


async def test_folder_that_takes_no_file_costs_no_order(town: Town, tmp_path: Path) -> None:
    (tmp_path / "certificates").write_text("a file where the folder should be")
    activities = CertificateActivities(CertificateFolder(tmp_path / "certificates"), town, lambda: town, town)

    with pytest.raises(OSError, match="certificates"):
        await ActivityEnvironment().run(activities.place_order, ORDER)

    assert town.orders == 0


async def test_finishing_twice_installs_the_same_certificate(
    activities: CertificateActivities, folder: CertificateFolder, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = signed_by_itself(folder.next_key(), names_of(DOMAIN))

    async def finish(self: Town, url: str, names: tuple[str, ...], key: bytes) -> str:
        return chain

    monkeypatch.setattr(Town, "finish", finish)
    order = CertificateOrder(DOMAIN, "https://authority.test/1")
    first = await ActivityEnvironment().run(activities.finish_order, order)
    content = folder.certificate.read_bytes()

    second = await ActivityEnvironment().run(activities.finish_order, order)

    assert (first, folder.certificate.read_bytes()) == (second, content)


async def test_certificate_of_a_key_that_was_lost_is_refused(
    activities: CertificateActivities, folder: CertificateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = signed_by_itself(folder.next_key(), names_of(DOMAIN))
    (folder.path / "next-key.pem").unlink()

    async def finish(self: Town, url: str, names: tuple[str, ...], key: bytes) -> str:
        return chain

    monkeypatch.setattr(Town, "finish", finish)

    with pytest.raises(AuthorityRefused, match=r"of another key than the one in next-key\.pem; order another"):
        await ActivityEnvironment().run(activities.finish_order, CertificateOrder(DOMAIN, "https://authority.test/1"))

    assert not folder.certificate.exists()
