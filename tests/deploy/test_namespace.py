"""namespace.sh against a real server: made once, right again whenever it runs, and honest when it cannot."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.deploy.stack import script
from tests.services import free_port, temporal_program, temporal_server
from workflows import attributes

TYPES = {1: "TEXT", 2: "KEYWORD", 3: "INT", 6: "DATETIME"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of these tests' own: the script makes namespaces."""
    with temporal_server(tmp_path_factory.mktemp("temporal")) as port:
        yield f"127.0.0.1:{port}"


def asked(address: str, *words: str) -> str:
    argv = [temporal_program(), "operator", *words, "--address", address, "--output", "jsonl"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout


def test_namespace_is_made_once_and_follows_its_settings(address: str) -> None:
    first = script("namespace.sh", {"TEMPORAL_ADDRESS": address, "TEMPORAL_NAMESPACE": "twice"})
    second = script(
        "namespace.sh", {"TEMPORAL_ADDRESS": address, "TEMPORAL_NAMESPACE": "twice", "TEMPORAL_RETENTION": "3d"}
    )

    described = json.loads(asked(address, "namespace", "describe", "--namespace", "twice"))
    made = json.loads(asked(address, "search-attribute", "list", "--namespace", "twice"))["customAttributes"]
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert described["config"]["workflowExecutionRetentionTtl"] == "259200s"
    assert made == {key.name: f"INDEXED_VALUE_TYPE_{TYPES[key.indexed_value_type]}" for key in attributes.ALL}


def test_attribute_of_another_type_is_refused_at_once(address: str) -> None:
    asked(address, "namespace", "create", "--namespace", "other", "--retention", "1d")
    asked(address, "search-attribute", "create", "--namespace", "other", "--name", "StagelyPr", "--type", "Keyword")

    done = script("namespace.sh", {"TEMPORAL_ADDRESS": address, "TEMPORAL_NAMESPACE": "other"})

    assert done.returncode == 1
    assert "search attribute StagelyPr already exists and has different type Keyword" in done.stderr


def test_server_that_does_not_answer_ends_the_job_with_its_reason() -> None:
    done = script("namespace.sh", {"TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}", "NAMESPACE_ATTEMPTS": "1"})

    assert done.returncode == 1
    assert "gave up after 1 tries of:" in done.stderr
    assert "connection refused" in done.stderr
