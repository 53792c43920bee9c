"""Compose's files as they are written in the wild: what is built, published and merged."""

from __future__ import annotations

import time

import pytest

from stagely.composefile import ComposeService, ServiceBuild, read_project
from stagely.errors import SpecInvalid


def services(*texts: str, **variables: str) -> dict[str, ComposeService]:
    files = [(f"compose.{i}.yml", text) for i, text in enumerate(texts)]
    return {service.name: service for service in read_project(files, variables).services}


def ports(entry: str, **variables: str) -> tuple[int, ...]:
    return services(f"services:\n  web:\n    image: x\n    ports:\n      - {entry}\n", **variables)["web"].ports


@pytest.mark.parametrize(
    ("entry", "port"),
    [
        ("22:22", 22),
        ("3000:30", 30),
        ("3000", 3000),
        ('"80:80/TCP"', 80),
        ('"127.0.0.1:8080:80"', 80),
        ('"[::1]:6001:6000"', 6000),
        ('"8080-8090:90-100"', 90),
        ('{target: "${P:-80}"}', 80),
        ('{target: 80, protocol: "TCP"}', 80),
    ],
)
def test_a_port_is_read_in_every_form(entry: str, port: int) -> None:
    assert ports(entry) == (port,)


@pytest.mark.parametrize("entry", ['"53:53/udp"', "{target: 53, protocol: udp}"])
def test_a_port_that_is_not_tcp_is_none(entry: str) -> None:
    assert ports(entry) == ()


def test_build_args_are_what_compose_makes_of_them() -> None:
    found = services(
        "services: {web: {build: {args: {A: yes, B: 12:30, C: 1.0, D: 3.10, E: True, F: , G: '01'}}}}", F="f"
    )
    build = found["web"].build

    assert build is not None
    assert build.args == {"A": "yes", "B": "12:30", "C": "1", "D": "3.1", "E": "true", "F": "f", "G": "01"}


def test_args_as_a_list_are_merged_over_args_as_a_mapping() -> None:
    found = services(
        "services: {web: {build: {context: ., args: {A: '1', B: '1'}}}}",
        "services: {web: {build: {args: [B=2, C=3, D]}}}",
        D="4",
    )

    assert found["web"].build == ServiceBuild(".", "Dockerfile", "", {"A": "1", "B": "2", "C": "3", "D": "4"})


def test_override_replaces_and_reset_clears() -> None:
    base = """
services:
  web: {image: x, ports: ["80:80"]}
  db: {image: y, ports: ["5432:5432"]}
  app: {image: z, build: .}
  gone: {image: w}
"""
    over = """
services:
  web: {ports: !override ["8080:8080"]}
  db: {ports: !reset []}
  app: {build: !reset null}
  gone: !reset null
"""

    found = services(base, over)

    assert {name: s.ports for name, s in found.items()} == {"web": (8080,), "db": (), "app": ()}
    assert found["app"].build is None


@pytest.mark.parametrize("override", ["# nothing\n", "", "services:\n"])
def test_an_override_file_may_be_empty(override: str) -> None:
    assert list(services("services: {web: {image: x}}", override)) == ["web"]


@pytest.mark.parametrize(
    "extra",
    [
        "labels: [a=b]",
        "x-note: 1",
        "cache_from: [a]",
        "cache_to: [a]",
        "tags: [a]",
        "platforms: [a/b]",
        "pull: true",
        "no_cache: true",
    ],
)
def test_what_does_not_change_an_images_content_does_not_keep_it_from_builders(extra: str) -> None:
    service = services(f"services: {{web: {{build: {{context: ., {extra}}}}}}}")["web"]

    assert service.build == ServiceBuild(".", "Dockerfile", "", {})


@pytest.mark.parametrize(
    "build",
    [
        "{context: ., network: host}",
        "{context: ., shm_size: 1g}",
        "{dockerfile_inline: FROM busybox}",
        "{context: ., additional_contexts: {a: ../a}}",
        "https://git.test/a.git",
        "github.com/a/b",
        "git@git.test:a/b.git",
    ],
)
def test_what_a_builder_cannot_do_is_built_by_compose_on_the_preview(build: str) -> None:
    service = services(f"services: {{web: {{build: {build}}}}}")["web"]

    assert (service.build, service.builds_on_vm) == (None, True)


def test_a_long_chain_of_extends_is_refused() -> None:
    chain = "".join(f"  s{i}: {{extends: s{i + 1}}}\n" for i in range(5000))

    with pytest.raises(SpecInvalid, match=r"^compose\.0\.yml:\d+: services/s\d+: more than 100 services extend"):
        services("services:\n" + chain + "  s5000: {image: x}\n")


def test_extends_in_a_circle_ends() -> None:
    assert set(services("services: {a: {extends: b, image: x}, b: {extends: a, image: y}}")) == {"a", "b"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "services:\n  b:\n    image: x\n    ports: [" + "'80'," * 50_000 + "]\n"
            + "".join(f"  s{i}: {{extends: b, ports: [80]}}\n" for i in range(20_000)),
            id="a long list that many extend",
        ),
        pytest.param(
            "services:\n" + "".join(f"  s{i}: {{image: '$A'}}\n" for i in range(20_000)),
            id="a long variable used often",
        ),
    ],
)  # fmt: skip
def test_what_becomes_too_much_is_refused_soon(text: str) -> None:
    began = time.process_time()

    with pytest.raises(SpecInvalid, match="more than"):
        services(text, A="x" * 100_000)

    assert time.process_time() - began < 10  # About a second; without the bounds minutes and gigabytes.
