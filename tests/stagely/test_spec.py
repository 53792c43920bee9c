from __future__ import annotations

import re
from pathlib import Path

import pytest

from stagely.errors import SpecInvalid
from stagely.spec import MAX_BYTES, BuildSpec, PreviewPart, Spec, Triggers, read_spec

DOCUMENT = Path(__file__).parents[2] / "docs" / "stagely-yaml.md"


def test_the_annotated_example_in_the_documentation_is_the_schema() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)

    assert read_spec(example) == Spec(
        version=1,
        compose=["docker-compose.yml"],
        builds={
            "backend": BuildSpec(
                context="backend",
                dockerfile="Dockerfile",
                target="release",
                args={"MODE": "fast"},
                arch=["amd64", "arm64"],
            )
        },
        preview=PreviewPart.model_validate(
            {
                "provider": "hetzner",
                "region": "fsn1",
                "size": "cx23",
                "arch": "amd64",
                "ttl": "24h",
                "health_timeout": "5m",
            }
        ),
        expose={"frontend": 3000, "backend": 8080},
        secrets={"global": ["DATABASE_URL"], "backend": ["PORT"]},
        keep_going=False,
        triggers=Triggers(labels=[], drafts=False, base=["main"], paths=[]),
    )


def test_every_key_of_the_schema_stands_in_the_documentation() -> None:
    text = DOCUMENT.read_text()
    keys = [*Spec.model_fields, *PreviewPart.model_fields, *Triggers.model_fields, *BuildSpec.model_fields]

    assert [key for key in keys if f"{key}:" not in text and f"`{key}`" not in text] == []


@pytest.mark.parametrize("text", [None, "", "  \n", "# nothing\n"])
def test_no_file_and_an_empty_file_are_the_default(text: str | None) -> None:
    assert read_spec(text) == Spec()


def test_a_file_beyond_the_limit_is_refused() -> None:
    with pytest.raises(SpecInvalid, match="more than 65536"):
        read_spec("#" * (MAX_BYTES + 1))


@pytest.mark.parametrize(
    "text", ["- a", "5", "[" * 2000, "{a: {a: " * 600, "\x00", "a: !!python/object:x {}", "? [a]\n: b"]
)
def test_what_is_no_such_file_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(SpecInvalid, match=r"^stagely\.yaml:"):
        read_spec(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preview: {ttl: 59s}", "stagely.yaml:1: preview/ttl: must be from 1m to 30d; got '59s'"),
        ("preview: {ttl: 31d}", "stagely.yaml:1: preview/ttl: must be from 1m to 30d; got '31d'"),
        ("preview: {health_timeout: 0s}", "stagely.yaml:1: preview/health_timeout: must be from 5s to 1h; got '0s'"),
        ("preview: {health_timeout: 2h}", "stagely.yaml:1: preview/health_timeout: must be from 5s to 1h; got '2h'"),
    ],
)
def test_a_duration_out_of_range_is_refused_with_the_range(text: str, message: str) -> None:
    with pytest.raises(SpecInvalid) as refused:
        read_spec(text)

    assert str(refused.value) == message


def test_durations_at_the_ends_of_their_range_are_taken() -> None:
    assert read_spec("preview: {ttl: 30d, health_timeout: 1h}").preview.ttl == 30 * 86400
    assert read_spec("preview: {ttl: 1m, health_timeout: 5s}").preview.health_timeout == 5
