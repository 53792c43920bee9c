"""The limits a run must hold. Pure."""

from __future__ import annotations

from bench.edge.peers import CADDY, GO, LUA, NGINX, UNCOUNTED
from bench.edge.quota import ONE, TWO
from bench.gateway.verdicts import Bar
from bench.measures import Measure

_SHAPES = ("one", "browser", "unique")

BARS = (
    *(Bar(shape, "requests_per_s", 2.5, "x", GO, is_floor=True) for shape in _SHAPES),
    *(Bar(shape, "requests_per_s", 1.5, "x", LUA, is_floor=True) for shape in _SHAPES),
    *(Bar(shape, "requests_per_s", 0.5, "x", NGINX, is_floor=True) for shape in _SHAPES),
    Bar("tls", "requests_per_s", 2.0, "x", CADDY, is_floor=True),
    Bar("big", "mb_per_s", 0.9, "x", CADDY, is_floor=True),
    Bar("processes", "two_by_one", 1.7, "x", is_floor=True),
    Bar("metrics", "requests_per_s", 0.98, "x", UNCOUNTED, is_floor=True),
)


def two_by_one(medians: list[Measure]) -> list[Measure]:
    """What two processes forward by what one does."""
    found = {m.target: m.value for m in medians if m.scenario == "processes"}
    if not found.get(ONE) or TWO not in found:
        return []
    return [Measure("processes", "stagely", "two_by_one", round(found[TWO] / found[ONE], 3), "x")]


def added(medians: list[Measure]) -> list[Measure]:
    """What each proxy adds to the direct way at a fixed rate."""
    direct = {m.metric: m.value for m in medians if m.scenario == "latency" and m.target == "direct"}
    return [
        Measure("latency", m.target, f"added_{m.metric}", round(m.value - direct[m.metric], 3), m.unit)
        for m in medians
        if m.scenario == "latency" and m.target != "direct" and m.metric in ("p50", "p99") and m.metric in direct
    ]
