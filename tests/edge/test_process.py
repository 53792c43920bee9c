"""The program itself: what it imports, what it refuses to start with, and how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

from edge.config import BadSetting, read_settings
from tests.edge.conftest import ROOT, STOP_TIMEOUT_S, run_edge, start_edge


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_program_with_code_0(redis_url: str, sign: signal.Signals) -> None:
    edge = start_edge(redis_url)

    edge.process.send_signal(sign)

    assert edge.process.wait(STOP_TIMEOUT_S) == 0


def test_bad_setting_ends_the_program_with_code_2_and_a_reason() -> None:
    code, event = run_edge(STAGELY_EDGE_LISTEN="8080")

    assert (code, event["event"]) == (2, "setting refused")
    assert event["error"] == "STAGELY_EDGE_LISTEN must be host:port, several divided by commas, got '8080'"


def test_address_in_use_ends_the_program_with_code_2_and_a_remedy(redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, event = run_edge(STAGELY_EDGE_LISTEN=address, STAGELY_REDIS_URL=redis_url)

    assert (code, event["event"]) == (2, "edge cannot listen")
    assert event["remedy"] == "free the address or set another in STAGELY_EDGE_LISTEN, _TLS_LISTEN or _METRICS_LISTEN"


def test_program_loads_nothing_of_ours_but_itself_and_only_its_two_packages() -> None:
    code = "import sys, edge.proxy, uvloop; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    ours = {"stagely", "agent", "api", "providers", "activities", "workflows", "pydantic", "structlog", "fastapi"}
    assert set(loaded.split()) & ours == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STAGELY_EDGE_LISTEN", "127.0.0.1:70000"),
        ("STAGELY_EDGE_LISTEN", ":80"),
        ("STAGELY_REDIS_URL", "http://127.0.0.1"),
        ("STAGELY_REDIS_URL", "redis://127.0.0.1:port"),
        ("STAGELY_DOMAIN", ".localhost"),
        ("STAGELY_DOMAIN", "localhost:8080"),
        ("STAGELY_EDGE_RATE_LIMIT", "-1"),
        ("STAGELY_EDGE_ACCESS_LOG", "yes"),
        ("STAGELY_EDGE_DRAIN_S", "soon"),
        ("STAGELY_EDGE_WORKERS", "0"),
        ("STAGELY_EDGE_WORKERS", "many"),
        ("STAGELY_EDGE_LISTEN", ""),
        ("STAGELY_EDGE_TLS_LISTEN", "8443"),
        ("STAGELY_EDGE_TLS_LISTEN", "127.0.0.1:8443"),
        ("STAGELY_EDGE_REDIRECT", "no"),
        ("STAGELY_EDGE_HTTPS_PORT", "65536"),
        ("STAGELY_EDGE_MAX_CONNECTIONS_PER_CLIENT", "many"),
        ("STAGELY_EDGE_WORKERS", "257"),
        ("STAGELY_EDGE_METRICS_LISTEN", "9090"),
        ("STAGELY_EDGE_METRICS_LISTEN", "127.0.0.1:65536"),
    ],
)
def test_bad_value_is_named_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=name):
        read_settings({name: value})


def test_password_in_a_bad_redis_url_is_not_repeated() -> None:
    with pytest.raises(BadSetting) as caught:
        read_settings({"STAGELY_REDIS_URL": "http://user:hunter2@redis"})

    assert "hunter2" not in str(caught.value)


def test_help_names_every_variable_that_is_read() -> None:
    class Noting(dict[str, str]):
        def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
            asked.append(name)
            return default

    asked: list[str] = []
    read_settings(Noting())
    help_shown = subprocess.run([sys.executable, "-m", "edge", "--help"], cwd=ROOT, capture_output=True, text=True)

    assert help_shown.returncode == 0
    assert [name for name in asked if name not in help_shown.stdout] == []


def test_several_addresses_can_be_listened_on() -> None:
    settings = read_settings({"STAGELY_EDGE_LISTEN": "127.0.0.1:80, [::1]:80"})

    assert settings.listen == (("127.0.0.1", 80), ("::1", 80))
