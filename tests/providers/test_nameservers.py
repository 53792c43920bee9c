"""A zone's own name servers, as real DNS over UDP, on addresses of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dns.asyncresolver
import dns.message
import dns.rrset
import pytest

from providers.dns import nameservers
from providers.dns.nameservers import Nameservers, Server, servers_of
from providers.errors import ProviderUnavailable
from stagely.txt import TxtRecord

NAME = "_acme-challenge.preview.example.com"
FIRST, SECOND = TxtRecord(NAME, "first"), TxtRecord(NAME, "second")


class NameServer(asyncio.DatagramProtocol):
    """Answers with the records it holds, (name, type) to their texts; `is_silent`: not at all."""

    transport: asyncio.DatagramTransport

    def __init__(self, records: dict[tuple[str, str], list[str]]) -> None:
        self.records = records
        self.is_silent = False
        self.asked: list[str] = []

    def datagram_received(self, data: bytes, addr: Server) -> None:
        query = dns.message.from_wire(data)
        (question,) = query.question
        name, kind = str(question.name).rstrip("."), question.rdtype.name
        self.asked.append(f"{kind} {name}")
        if self.is_silent:
            return
        answer = dns.message.make_response(query)
        if texts := self.records.get((name, kind)):
            answer.answer.append(dns.rrset.from_text_list(question.name, 60, "IN", kind, texts))
        self.transport.sendto(answer.to_wire(), addr)


@asynccontextmanager
async def serving(
    records: dict[tuple[str, str], list[str]], host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[tuple[NameServer, Server]]:
    made = NameServer(records)
    loop = asyncio.get_running_loop()
    made.transport, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=(host, port))
    try:
        yield made, made.transport.get_extra_info("sockname")
    finally:
        made.transport.close()


def txt(*values: str) -> dict[tuple[str, str], list[str]]:
    return {(NAME, "TXT"): [f'"{value}"' for value in values]}


async def test_every_server_must_have_every_value() -> None:
    async with serving(txt("first", "second")) as (_, one), serving(txt("first")) as (late, other):
        both = Nameservers("example.com", [one, other], poll_s=0.01)
        waiting = asyncio.ensure_future(both.wait_for([FIRST, SECOND], 30))
        while len(late.asked) < 3:  # noqa: ASYNC110  # Until it was asked again, and again.
            await asyncio.sleep(0.01)
        was_waiting = not waiting.done()
        late.records = txt("second", "first", "of somebody else")
        await waiting

    assert was_waiting


async def test_value_that_is_not_seen_in_time_is_named_with_its_server() -> None:
    async with serving(txt("other")) as (_, server):
        with pytest.raises(ProviderUnavailable, match=rf"not seen within 0 s: TXT {NAME} at 127\.0\.0\.1$"):
            await Nameservers("example.com", [server], poll_s=0.01).wait_for([FIRST], 0)


async def test_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameservers, "QUERY_LIMIT_S", 0.1)
    async with serving(txt("first")) as (server, address):
        server.is_silent = True
        with pytest.raises(ProviderUnavailable, match=r"at 127\.0\.0\.1 \(The DNS operation timed out"):
            await Nameservers("example.com", [address], poll_s=0.01).wait_for([FIRST], 0)


async def test_servers_of_the_zone_itself_are_found_and_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.2 and .3 are the zone's; what the resolver says of TXT, which may be old, plays no part."""
    known = {
        ("example.com", "NS"): ["a.ns.example.", "b.ns.example."],
        ("a.ns.example", "A"): ["127.0.0.2"],
        ("b.ns.example", "A"): ["127.0.0.3"],
    }
    async with (
        serving(known) as (resolving, at),
        serving(txt("first"), "127.0.0.2") as (one, (_, port)),
        serving(txt("first"), "127.0.0.3", port) as (other, _),
    ):
        monkeypatch.setattr(nameservers, "PORT", port)
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = [at[0]], at[1]

        await Nameservers("example.com", resolver=resolver).wait_for([FIRST], 5)

    assert (one.asked, other.asked) == ([f"TXT {NAME}"], [f"TXT {NAME}"])
    assert sorted(resolving.asked) == ["A a.ns.example", "A b.ns.example", "NS example.com"]


@pytest.mark.parametrize("others", [["127.0.0.2"], []], ids=["another-has-one", "none-has-any"])
async def test_server_without_an_address_is_left_out(monkeypatch: pytest.MonkeyPatch, others: list[str]) -> None:
    known = {("example.com", "NS"): ["a.ns.example.", "b.ns.example."], ("b.ns.example", "A"): others}
    async with serving(known) as (_, at), serving(txt("first"), "127.0.0.2") as (one, (_, port)):
        monkeypatch.setattr(nameservers, "PORT", port)
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = [at[0]], at[1]
        waiting = Nameservers("example.com", resolver=resolver).wait_for([FIRST], 5)

        if others:
            await waiting
        else:
            with pytest.raises(ProviderUnavailable, match=r"has an IPv4 address: a\.ns\.example\., b\.ns\.example"):
                await waiting

    assert one.asked == [f"TXT {NAME}"] * len(others)


async def test_zone_without_name_servers_is_named() -> None:
    async with serving({}) as (_, at):
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = [at[0]], at[1]

        with pytest.raises(ProviderUnavailable, match=r"the name servers of example\.com were not found"):
            await Nameservers("example.com", resolver=resolver).wait_for([FIRST], 5)


def test_setting_lists_hosts_with_ports() -> None:
    assert servers_of(" 192.0.2.1:53, 192.0.2.2:5353") == [("192.0.2.1", 53), ("192.0.2.2", 5353)]
    assert servers_of("") == []


@pytest.mark.parametrize("text", ["192.0.2.1", ":53", "192.0.2.1:dns"])
def test_setting_without_a_port_is_refused(text: str) -> None:
    with pytest.raises(RuntimeError, match="STAGELY_DNS_NAMESERVERS must be host:port"):
        servers_of(text)
