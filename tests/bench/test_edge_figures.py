"""From the load's output to figures, verdicts and tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.edge import report
from bench.edge.configs import Files, Ports, caddy, haproxy, nginx, nginx_lua
from bench.edge.load import LoadFailed, parse
from bench.edge.verdicts import BARS, added, two_by_one
from bench.gateway.verdicts import ratios, verdicts
from bench.measures import Measure

PORTS = Ports(8001, 8002, 9001, 9002, 6379)
FILES = Files("/folder", "/c.pem", "/k.pem", "/both.pem")


def speed(scenario: str, target: str, value: float) -> Measure:
    return Measure(scenario, target, "requests_per_s", value, "1/s")


def test_figures_are_in_the_last_line() -> None:
    assert parse('Running 1s test\n{"requests": 7, "errors": 0}\n') == {"requests": 7, "errors": 0}


@pytest.mark.parametrize("output", ["", "unable to connect", '{"requests": ', "7"])
def test_output_without_figures_is_a_failure_that_quotes_it(output: str) -> None:
    with pytest.raises(LoadFailed, match="no figures in"):
        parse(output)


def test_edge_is_held_against_three_peers_on_one_shape() -> None:
    found = [
        speed("one", "go", 100),
        speed("one", "nginx-lua", 200),
        speed("one", "nginx", 700),
        speed("one", "stagely", 290),
    ]

    assert [(v.text, v.holds) for v in verdicts(found, BARS)] == [
        ("one: requests_per_s 2.9 x of go's, at least 2.5 x", True),
        ("one: requests_per_s 1.45 x of nginx-lua's, at least 1.5 x", False),
        ("one: requests_per_s 0.414 x of nginx's, at least 0.5 x", False),
    ]
    assert [m.value for m in ratios(found, BARS)] == [2.9, 1.45, 0.414]


def test_two_processes_are_held_against_one() -> None:
    found = two_by_one([speed("processes", "stagely-1", 100), speed("processes", "stagely-2", 171)])

    assert [(v.text, v.holds) for v in verdicts(found, BARS)] == [
        ("processes: two_by_one 1.71 x, at least 1.7 x", True)
    ]


def test_without_both_there_is_nothing_to_hold() -> None:
    assert two_by_one([speed("processes", "stagely-2", 171)]) == []


def test_added_latency_is_what_the_direct_way_does_not_have() -> None:
    found = added([Measure("latency", "direct", "p99", 0.2, "ms"), Measure("latency", "go", "p99", 1.5, "ms")])

    assert found == [Measure("latency", "go", "added_p99", 1.3, "ms")]


def test_table_has_a_row_per_target_with_its_ratio_to_go() -> None:
    text = report.tables([speed("one", "go", 100), speed("one", "stagely", 290)])

    assert [line.split() for line in text.splitlines()] == [
        ["one", "requests_per_s,", "1/s", "by", "go"],
        ["go", "100.0", "1.00x"],
        ["stagely", "290.0", "2.90x"],
    ]


@pytest.mark.parametrize("config", [nginx, nginx_lua, haproxy, caddy])
def test_every_peer_listens_where_it_is_told(config: Callable[[Ports, Files], str]) -> None:
    text = config(PORTS, FILES)

    assert "8001" in text
    assert "8002" in text


def test_lua_finds_its_routes_in_redis_and_the_static_peers_know_their_origin() -> None:
    assert "6379" in nginx_lua(PORTS, FILES)
    assert "9001" not in nginx_lua(PORTS, FILES)
    assert all("9001" in config(PORTS, FILES) for config in (nginx, haproxy, caddy))
