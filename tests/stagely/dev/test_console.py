"""What children say is readable on a terminal."""

from __future__ import annotations

import io

from stagely.dev.console import Console, readable


def test_json_line_becomes_a_sentence_with_its_keys() -> None:
    line = '{"vm_id": "vm-1", "took_s": 2.5, "event": "vm created", "level": "info", "timestamp": "x", "process": "w"}'

    assert readable(line) == ("vm created  vm_id=vm-1 took_s=2.5", "info")


def test_other_lines_stay_as_they_are() -> None:
    assert readable("{not json") == ("{not json", "")


def test_no_colours_without_a_terminal() -> None:
    stream = io.StringIO()

    Console(stream).child("api", "listening")

    assert stream.getvalue() == "      api │ listening\n"
