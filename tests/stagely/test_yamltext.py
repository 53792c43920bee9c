"""What Compose reads as text must stay text, and no small file may become a large one."""

from __future__ import annotations

import time

import pytest

from stagely.errors import SpecInvalid
from stagely.yamltext import MAX_DEPTH, Value, parse


def value(text: str) -> Value:
    return parse(text, "f.yml", plain=False).value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("22:22", "22:22"),
        ("3000:30", "3000:30"),
        ("12:30", "12:30"),
        ("yes", "yes"),
        ("on", "on"),
        ("True", True),
        ("FALSE", False),
        ("=", "="),
        ("2024-01-01", "2024-01-01"),
        ("0755", 493),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", 1000),
        ("-5", -5),
        ("3.10", 3.1),
        ("1e3", 1000.0),
        ("~", None),
        ("'true'", "true"),
        ("!!str 5", "5"),
        ("!reset null", None),
        ("!reset 'null'", "null"),
        ("9" * 5000, "9" * 5000),
        ("089", 89),
    ],
)
def test_scalars_are_read_as_compose_reads_them(text: str, expected: Value) -> None:
    found = value(text)

    assert (found, type(found)) == (expected, type(expected))


def test_tabs_after_a_colon_at_line_end_and_before_a_comment_are_taken() -> None:
    assert value("a:\tone\nb: two\t\nc: three\t# why\n") == {"a": "one", "b": "two", "c": "three"}


def test_merge_keys_bring_what_is_not_there_the_earlier_winning() -> None:
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], c: 3}\n"

    assert value(text) == {"x": {"a": 1, "b": 1}, "y": {"b": 2, "c": 2}, "z": {"a": 1, "b": 1, "c": 3}}


def test_a_mark_at_the_start_and_an_empty_second_document_change_nothing() -> None:
    assert value("\ufeffa: 1\n---\n# nothing\n") == {"a": 1}


def test_an_own_tag_is_noted_with_its_path() -> None:
    document = parse("a: {b: !override [1]}", "f.yml", plain=False)

    assert document.value == {"a": {"b": [1]}}
    assert document.tags == {("a", "b"): "!override"}


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


def merge_chain(length: int) -> str:
    return "\n".join(["a0: &a0 {k: 1}", *(f"a{i}: &a{i} {{<<: *a{i - 1}, k{i}: 1}}" for i in range(1, length))])


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(bomb(6), id="aliases of aliases"),
        pytest.param(merge_chain(10_000), id="a chain of merge keys"),
        pytest.param("[" * 1_000_000, id="flow sequences in each other"),
        pytest.param("- " * 500_000, id="block sequences in each other"),
        pytest.param("{a: " * (MAX_DEPTH + 2), id="mappings in each other"),
        pytest.param("a: &a [*a]", id="an alias inside its own anchor"),
        pytest.param("a: *gone", id="an alias of nothing"),
        pytest.param("a: 1\n---\nb: 2", id="two documents"),
        pytest.param("<<: 5", id="a merge of no mapping"),
    ],
)
def test_what_becomes_too_much_or_makes_no_sense_is_refused_soon_with_its_line(text: str) -> None:
    began = time.process_time()

    with pytest.raises(SpecInvalid, match=r"^f\.yml:\d+: "):
        value(text)

    assert time.process_time() - began < 5  # A second or less; without the bounds minutes and gigabytes.


def test_what_aliases_stand_for_may_be_used_often() -> None:
    text = "a: &a {k: [1, 2, 3]}\nb:\n" + "  - *a\n" * 10_000

    assert value(text) == {"a": {"k": [1, 2, 3]}, "b": [{"k": [1, 2, 3]}] * 10_000}
