"""Logs: one JSON object per line, the same keys from us and from libraries."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from stagely.logs import configure, get_logger


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure("json", "gateway", stream=stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def test_event_carries_its_keys_and_its_process(lines: io.StringIO) -> None:
    get_logger(vm_id="vm-1").info("vm created", took_s=41.2)

    line = json.loads(lines.getvalue())
    assert {key: line[key] for key in ("event", "level", "process", "vm_id", "took_s")} == {
        "event": "vm created",
        "level": "info",
        "process": "gateway",
        "vm_id": "vm-1",
        "took_s": 41.2,
    }
    assert line["timestamp"].endswith("Z")


def test_library_speaks_in_the_same_form(lines: io.StringIO) -> None:
    logging.getLogger("temporalio").warning("lost %s", "it")

    line = json.loads(lines.getvalue())
    assert (line["event"], line["level"], line["process"]) == ("lost it", "warning", "gateway")


def test_exception_stays_on_its_line(lines: io.StringIO) -> None:
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        get_logger().exception("request failed")

    assert lines.getvalue().count("\n") == 1
    assert "RuntimeError: boom" in json.loads(lines.getvalue())["exception"]
