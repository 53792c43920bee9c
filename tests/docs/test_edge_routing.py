"""docs/edge-routing.md says what the edge does: its examples can be read, and its tables are complete."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from edge import pages
from edge.config import VARIABLES
from edge.metrics import Metrics
from edge.routes import Route, decode

TEXT = (Path(__file__).parents[2] / "docs" / "edge-routing.md").read_text("utf-8")
EXAMPLES: list[str] = re.findall(r"```json\n(.*?)\n```", TEXT, re.DOTALL)
RECORDS = [example for example in EXAMPLES if '"code"' not in example] + re.findall(r"redis-cli set \S+ '(.*)'", TEXT)


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under this heading, its head left out."""
    found = re.search(rf"^## {heading}$.*?^\|---.*?$\n(.*?)^$", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, heading
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


@pytest.mark.parametrize("record", RECORDS)
def test_record_in_an_example_is_a_route(record: str) -> None:
    assert isinstance(decode(record), Route)


def test_every_field_of_the_record_stands_in_its_table() -> None:
    assert {row[0] for row in rows("The record")} == {field.name for field in dataclasses.fields(Route)}


def test_every_variable_stands_in_its_table_with_default_and_meaning() -> None:
    documented = {row[0]: (row[1].replace("empty", ""), row[2]) for row in rows("Settings")}

    assert documented == {name: (each.default, each.meaning) for name, each in VARIABLES.items()}


def test_every_code_of_a_page_stands_in_its_table() -> None:
    source = Path(pages.__file__).read_text("utf-8")

    assert {row[0] for row in rows("Pages")} == set(re.findall(r'code="(\w+)"', source))


def test_building_page_is_the_one_of_the_example() -> None:
    building = next(record for record in RECORDS if '"building"' in record)
    shown = json.loads(next(example for example in EXAMPLES if '"code"' in example))

    page = json.loads(pages.json_body(pages.for_route(dataclasses.replace(decode(building), since=0))))

    assert page == {**shown, "detail": shown["detail"].replace(", for 42 s", "")}


def test_every_metric_stands_in_its_table() -> None:
    metrics = Metrics()
    names = set(re.findall(r"^# TYPE (\w+)", metrics.text({}), re.MULTILINE))
    gauges = set(re.findall(r'"(stagely_edge_\w+)"', Path(pages.__file__).parents[1].joinpath("proxy.py").read_text()))

    assert {row[0] for row in rows("Logs, metrics, stopping")} == names | gauges
