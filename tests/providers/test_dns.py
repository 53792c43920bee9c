"""One contract for all DNS providers, each against a fake that its own API description judges."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.dns import catalog, hetzner
from providers.dns.base import DnsZone, relative_name
from providers.dns.digitalocean import DigitalOceanZone
from providers.dns.hetzner import HetznerZone
from providers.dns.route53 import Route53Zone
from providers.errors import CredentialsRejected, DnsRejected, ProviderUnavailable
from stagely.settings import Settings
from tests.fakes.dns.digitalocean import FakeDigitalOcean
from tests.fakes.dns.hetzner import FakeHetzner
from tests.fakes.dns.rest import TOKEN
from tests.fakes.dns.route53 import KEY_ID, SECRET, FakeRoute53
from tests.fakes.dns.server import FakeDns

ZONE = "example.com"
NAME = "_acme-challenge.preview.example.com"
KINDS: tuple[type[FakeDns], ...] = (FakeDigitalOcean, FakeHetzner, FakeRoute53)
RESTS = (FakeDigitalOcean, FakeHetzner)


def zone_of(fake: FakeDns, zone: str = ZONE, token: str = TOKEN) -> DnsZone:
    if isinstance(fake, FakeRoute53):
        return Route53Zone(zone, fake.url)
    return (DigitalOceanZone if isinstance(fake, FakeDigitalOcean) else HetznerZone)(zone, token, fake.url)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS credentials of the tests and nothing of this machine's; actions that end at once are asked for at once."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(hetzner, "ACTION_POLL_S", 0.01)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def fake(request: pytest.FixtureRequest) -> Iterator[FakeDns]:
    with request.param(ZONE) as made:
        yield made


@pytest.fixture(params=RESTS, ids=lambda kind: kind.__name__)
def rest(request: pytest.FixtureRequest) -> Iterator[FakeDigitalOcean | FakeHetzner]:
    with request.param(ZONE) as made:
        yield made


async def test_two_values_stand_beside_each_other_and_go_one_by_one(fake: FakeDns) -> None:
    zone = zone_of(fake)
    await zone.put_txt(NAME, "first")
    await zone.put_txt(NAME, "second")
    assert sorted(fake.txt[NAME]) == ["first", "second"]

    await zone.remove_txt(NAME, "first")
    assert fake.txt[NAME] == ["second"]

    await zone.remove_txt(NAME, "second")
    assert fake.txt == {}
    await zone.aclose()


async def test_second_put_and_second_remove_change_nothing(fake: FakeDns) -> None:
    zone = zone_of(fake)
    await zone.put_txt(NAME, "first")
    await zone.put_txt(NAME, "first")
    assert fake.txt == {NAME: ["first"]}

    await zone.remove_txt(NAME, "first")
    await zone.remove_txt(NAME, "first")
    assert fake.txt == {}
    await zone.aclose()


async def test_values_of_others_are_left_alone(fake: FakeDns) -> None:
    theirs = zone_of(fake)
    await theirs.put_txt(NAME, "theirs")
    await theirs.put_txt("_acme-challenge.zz.example.com", "elsewhere")
    zone = zone_of(fake)

    await zone.put_txt(NAME, "ours")
    await zone.remove_txt(NAME, "ours")

    assert fake.txt == {NAME: ["theirs"], "_acme-challenge.zz.example.com": ["elsewhere"]}
    await theirs.aclose()
    await zone.aclose()


async def test_value_of_the_zone_itself_is_put(fake: FakeDns) -> None:
    zone = zone_of(fake)

    await zone.put_txt(ZONE, "first")

    assert fake.txt == {ZONE: ["first"]}
    await zone.aclose()


async def test_put_whose_reply_was_lost_is_not_made_twice(fake: FakeDns) -> None:
    zone = zone_of(fake)
    fake.lose_reply_of("POST")
    with pytest.raises(ProviderUnavailable):
        await zone.put_txt(NAME, "first")

    await zone.put_txt(NAME, "first")
    await zone.put_txt(NAME, "second")

    assert sorted(fake.txt[NAME]) == ["first", "second"]
    await zone.aclose()


async def test_revoked_credentials_are_for_a_person(fake: FakeDns) -> None:
    zone = zone_of(fake)
    fake.is_revoked = True

    with pytest.raises(CredentialsRejected):
        await zone.put_txt(NAME, "first")

    assert fake.txt == {}
    await zone.aclose()


async def test_zone_that_the_account_has_not_is_for_a_person(fake: FakeDns) -> None:
    zone = zone_of(fake, "example.org")

    with pytest.raises(DnsRejected, match=r"no (public hosted zone|domain|zone) example\.org"):
        await zone.put_txt("_acme-challenge.example.org", "first")

    await zone.aclose()


async def test_name_outside_of_the_zone_is_never_sent(fake: FakeDns) -> None:
    zone = zone_of(fake)

    with pytest.raises(DnsRejected, match="STAGELY_DNS_ZONE"):
        await zone.put_txt("_acme-challenge.notexample.com", "first")

    assert fake.journal == []
    await zone.aclose()


async def test_server_error_is_tried_again(fake: FakeDns) -> None:
    zone = zone_of(fake)
    fake.answer_next(503)

    with pytest.raises(ProviderUnavailable):
        await zone.put_txt(NAME, "first")

    await zone.aclose()


async def test_rate_limit_says_when_to_come_back(rest: FakeDigitalOcean | FakeHetzner) -> None:
    zone = zone_of(rest)
    rest.answer_next(429, Retry_After="17")

    with pytest.raises(ProviderUnavailable) as told:
        await zone.put_txt(NAME, "first")

    assert told.value.retry_after_s == 17
    await zone.aclose()


async def test_token_that_may_only_read_is_for_a_person(rest: FakeDigitalOcean | FakeHetzner) -> None:
    zone = zone_of(rest)
    rest.is_readonly = True

    with pytest.raises(CredentialsRejected, match="STAGELY_DNS_TOKEN_FILE"):
        await zone.put_txt(NAME, "first")

    await zone.aclose()


async def test_action_that_fails_at_hetzner_is_tried_again() -> None:
    with FakeHetzner(ZONE) as fake:
        zone = zone_of(fake)
        fake.fails_next_action = True
        with pytest.raises(ProviderUnavailable, match="action 1 failed"):
            await zone.put_txt(NAME, "first")

        await zone.put_txt(NAME, "first")

        assert fake.txt == {NAME: ["first"]}
        await zone.aclose()


async def test_set_that_somebody_changed_meanwhile_is_not_overwritten() -> None:
    with FakeRoute53(ZONE) as fake:
        zone = zone_of(fake)
        await zone.put_txt(NAME, "first")
        fake.before_change = lambda: fake.sets.update({f"{NAME}.": (60, ['"theirs"'])})

        with pytest.raises(ProviderUnavailable, match="InvalidChangeBatch"):
            await zone.put_txt(NAME, "second")

        assert fake.sets == {f"{NAME}.": (60, ['"theirs"'])}
        await zone.aclose()


async def test_set_of_others_keeps_its_time_to_live() -> None:
    with FakeRoute53(ZONE) as fake:
        fake.sets[f"{NAME}."] = (3600, ['"theirs"'])
        zone = zone_of(fake)
        await zone.put_txt(NAME, "first")
        with_ours = dict(fake.sets)
        await zone.remove_txt(NAME, "first")

        assert with_ours == {f"{NAME}.": (3600, ['"theirs"', '"first"'])}
        assert fake.sets == {f"{NAME}.": (3600, ['"theirs"'])}
        await zone.aclose()


async def test_alias_where_our_value_belongs_is_for_a_person() -> None:
    with FakeRoute53(ZONE) as fake:
        fake.aliases.add(f"{NAME}.")
        zone = zone_of(fake)

        with pytest.raises(DnsRejected, match=f"an alias at TXT {NAME}"):
            await zone.put_txt(NAME, "first")

        await zone.aclose()


async def test_alias_is_nothing_of_ours_that_would_have_to_be_removed() -> None:
    with FakeRoute53(ZONE) as fake:
        fake.aliases.add(f"{NAME}.")
        zone = zone_of(fake)

        await zone.remove_txt(NAME, "first")

        await zone.aclose()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "Unable to locate credentials"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "Partial credentials found in env"),
        ({"AWS_PROFILE": "nobodys"}, r"profile \(nobodys\) could not be found"),
    ],
    ids=["none", "half", "unknown-profile"],
)
async def test_machine_without_aws_credentials_says_so(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, str], told: str
) -> None:
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    zone = Route53Zone(ZONE, "http://127.0.0.1:1")

    with pytest.raises(CredentialsRejected, match=told):
        await zone.put_txt(NAME, "first")

    await zone.aclose()


@pytest.mark.parametrize(
    "zone",
    [
        Route53Zone(ZONE, "http://127.0.0.1:1"),
        HetznerZone(ZONE, TOKEN, "http://127.0.0.1:1"),
        DigitalOceanZone(ZONE, TOKEN, "http://127.0.0.1:1"),
    ],
    ids=lambda zone: type(zone).__name__,
)
async def test_provider_that_does_not_answer_is_tried_again(zone: DnsZone) -> None:
    with pytest.raises(ProviderUnavailable):
        await zone.put_txt(NAME, "first")

    await zone.aclose()


@pytest.mark.parametrize("name", catalog.NAMES)
async def test_every_provider_is_made_from_settings(name: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    settings = Settings(
        certificate_domain="preview.example.com", dns_zone=ZONE, dns_provider=name, dns_token_file=token
    )

    zone = catalog.load(settings)

    assert type(zone).__module__ == f"providers.dns.{name}"
    await zone.aclose()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Settings(dns_provider="bind"), "STAGELY_DNS_PROVIDER is 'bind'"),
        (Settings(dns_provider="hetzner"), "STAGELY_DNS_TOKEN_FILE is not set"),
    ],
)
def test_setting_that_is_missing_or_wrong_is_named(settings: Settings, told: str) -> None:
    with pytest.raises(RuntimeError, match=told):
        catalog.load(settings)


@pytest.mark.parametrize(
    ("name", "relative"), [(NAME, "_acme-challenge.preview"), (ZONE, "@"), ("a.example.com", "a")]
)  # fmt: skip
def test_names_are_seen_from_inside_the_zone(name: str, relative: str) -> None:
    assert relative_name(name, ZONE) == relative
