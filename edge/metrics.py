"""What the edge counts, and the small listener where Prometheus reads it. One integer addition per fact."""

from __future__ import annotations

import asyncio
import bisect
from collections import Counter
from collections.abc import Callable
from typing import cast

# A cached page takes a millisecond, a first page that is compiled half a minute.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_REQUEST_MAX = 8192


class Metrics:
    """The counters of one process."""

    __slots__ = ("connections", "dials", "pages", "refused", "statuses", "took_counts", "took_s", "turned_away")

    def __init__(self) -> None:
        self.statuses = [0] * 10  # By the first digit of the answer's status.
        self.took_counts = [0] * (len(BUCKETS_S) + 1)
        self.took_s = 0.0
        self.connections = 0
        self.dials = 0
        self.turned_away = 0
        self.pages: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()

    def served(self, status: int, took_s: float) -> None:
        """One answer has ended. This is on the path of every request."""
        self.statuses[status // 100] += 1
        self.took_counts[bisect.bisect_left(BUCKETS_S, took_s)] += 1
        self.took_s += took_s

    def text(self, gauges: dict[str, int]) -> str:
        """All of it in Prometheus' text format; `gauges` holds by full name what only the edge knows."""
        lines = ["# TYPE stagely_edge_requests_total counter"]
        lines += [f'stagely_edge_requests_total{{status="{n}xx"}} {self.statuses[n]}' for n in range(1, 6)]
        lines += ["# TYPE stagely_edge_request_seconds histogram", *self._histogram()]
        lines += _counter("stagely_edge_connections_total", self.connections)
        lines += _counter("stagely_edge_connections_turned_away_total", self.turned_away)
        lines += _counter("stagely_edge_upstream_connections_total", self.dials)
        lines += ["# TYPE stagely_edge_pages_total counter"]
        lines += [f'stagely_edge_pages_total{{code="{code}"}} {count}' for code, count in sorted(self.pages.items())]
        lines += ["# TYPE stagely_edge_refused_total counter"]
        lines += [f'stagely_edge_refused_total{{status="{s}"}} {count}' for s, count in sorted(self.refused.items())]
        for name, value in gauges.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
        return "\n".join([*lines, ""])

    def _histogram(self) -> list[str]:
        lines, total = [], 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self.took_counts, strict=True):
            total += count
            lines.append(f'stagely_edge_request_seconds_bucket{{le="{bound}"}} {total}')
        total_s = round(self.took_s, 6)
        return [*lines, f"stagely_edge_request_seconds_sum {total_s}", f"stagely_edge_request_seconds_count {total}"]


def _counter(name: str, value: int) -> list[str]:
    return [f"# TYPE {name} counter", f"{name} {value}"]


class Scrape(asyncio.Protocol):
    """One connection of Prometheus: any GET is answered with the counters, then it is closed."""

    def __init__(self, text: Callable[[], str], limit_s: float) -> None:
        self._text = text
        self._limit_s = limit_s
        self._request = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The event loop calls this with the transport of a stream socket; the base class only knows BaseTransport.
        self._transport = cast(asyncio.Transport, transport)
        self._limit = asyncio.get_running_loop().call_later(self._limit_s, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit.cancel()

    def data_received(self, data: bytes) -> None:
        self._request += data
        if b"\r\n\r\n" in self._request and not self._transport.is_closing():
            is_get = self._request.startswith(b"GET ")
            self._transport.write(_answer("200 OK", self._text()) if is_get else _answer("405 Method Not Allowed", ""))
            self._transport.close()
        elif len(self._request) > _REQUEST_MAX:
            self._transport.abort()


def _answer(status: str, body: str) -> bytes:
    kind = "text/plain; version=0.0.4; charset=utf-8"
    length = len(body.encode())
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    return (head + body).encode()
