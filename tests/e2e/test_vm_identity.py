"""The hop from the edge to the VM, on the real parts: TLS by the environment's identity, and nothing in clear."""

from __future__ import annotations

import http.client
import socket
import ssl
from urllib.parse import urlsplit

import pytest
from redis import Redis

from edge.routes import Route, decode, key_of, vm_name
from stagely.dev.folder import StateFolder
from tests.e2e.system import ROOT, System, get

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(600)]


def route_of(system: System, url: str) -> Route:
    label = urlsplit(url).netloc.partition(".")[0]
    with Redis.from_url(system.installation.urls["redis"]) as redis:
        raw = redis.get(key_of(label))
    assert isinstance(raw, bytes)
    return decode(raw)


def ask_in_clear(route: Route) -> None:
    connection = http.client.HTTPConnection(route.ip, route.port, timeout=10)
    connection.request("GET", "/")
    connection.getresponse()


def test_a_preview_is_reached_by_its_identity_alone(system: System) -> None:
    opened = system.run("up", str(system.repository(ROOT / "examples" / "single")))
    assert (opened.code, opened.data["state"]) == (0, "ready")
    (url,) = opened.data["urls"].values()
    route = route_of(system, url)
    trusted = ssl.create_default_context(cafile=str(StateFolder(system.state).vm_ca_trusted))

    with socket.create_connection((route.ip, route.port), timeout=10) as tcp:
        name = vm_name(opened.data["environment"])
        with trusted.wrap_socket(tcp, server_hostname=name) as tls:
            shown = (tls.version(), tls.getpeercert()["subjectAltName"])  # type: ignore[index]
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        ask_in_clear(route)

    assert route.tls
    assert shown == ("TLSv1.3", (("DNS", name),))
    assert get(url).status == 200
