"""A repository names paths; whatever it makes of its tree, nothing outside is opened and no read waits for ever."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.build import Places, _require
from agent.deploy import _compose_file
from agent.paths import OutsideTree, beneath
from agent.report import StepFailed
from tests.agent.test_build import ORDER

Layout = Callable[[Path], str]
"""Makes something in the tree and gives the path that the order names."""


def link(target: str) -> Layout:
    def make(tree: Path) -> str:
        (tree / "c.yml").symlink_to(target)
        return "c.yml"

    return make


def file(name: str, named: str) -> Layout:
    def make(tree: Path) -> str:
        (tree / name).write_text("x")
        return named

    return make


def linked_file(tree: Path) -> str:
    file("real.yml", "")(tree)
    return link("real.yml")(tree)


def chain(tree: Path) -> str:
    for at in range(30):
        (tree / f"link{at}").symlink_to(f"link{at + 1}")
    (tree / "link30").symlink_to("../outside.yml")
    return "link0"


def circle(tree: Path) -> str:
    (tree / "one").symlink_to("two")
    (tree / "two").symlink_to("one")
    return "one"


def folder_link(tree: Path) -> str:
    (tree / "folder").symlink_to("..")
    return "folder/outside.yml"


def folder_of_links(tree: Path) -> str:
    (tree / "a").mkdir()
    (tree / "a" / "b").symlink_to("../a/../..")
    return "a/b/outside.yml"


ESCAPES: dict[str, Layout] = {
    "dots": lambda _: "../outside.yml",
    "dots behind a folder": lambda _: "folder/../../outside.yml",
    "absolute": lambda _: "/etc/passwd",
    "absolute behind a folder": lambda _: "folder//../../../../../etc/passwd",
    "link by dots": link("../outside.yml"),
    "link to a file of the machine": link("/etc/passwd"),
    "link to the machine's root": link("/"),
    "link to a device": link("/dev/zero"),
    "link to a process": link("/proc/self/environ"),
    "link to an open file": link("/dev/stdin"),
    "link to what is missing outside": link("../missing.yml"),
    "chain of links": chain,
    "circle of links": circle,
    "link to itself": link("c.yml"),
    "folder that is a link": folder_link,
    "folder within whose links lead out": folder_of_links,
    "name of 4,096 bytes": lambda _: "x" * 4096,
    "path of 8,000 bytes": lambda _: "x/" * 4000,
    "neighbour whose name begins like the tree": lambda tree: f"../{tree.name}-other/c.yml",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "outside.yml").write_text("secret")
    (tmp_path / "tree-other").mkdir()
    (tmp_path / "tree-other" / "c.yml").write_text("secret")
    tree = tmp_path / "tree"
    tree.mkdir()
    return tree


@pytest.mark.parametrize("layout", ESCAPES)
def test_a_path_that_leads_out_of_the_tree_or_nowhere_is_refused(tree: Path, layout: str) -> None:
    name = ESCAPES[layout](tree)

    with pytest.raises(OutsideTree):
        beneath(tree, name)


def fifo(tree: Path) -> str:
    os.mkfifo(tree / "c.yml")
    return "c.yml"


def link_to_a_fifo(tree: Path) -> str:
    os.mkfifo(tree / "pipe")
    return link("pipe")(tree)


def folder(tree: Path) -> str:
    (tree / "c.yml").mkdir()
    return "c.yml"


def device(tree: Path) -> str:
    try:
        os.mknod(tree / "c.yml", 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")
    return "c.yml"


NO_FILES: dict[str, Layout] = {
    "FIFO": fifo,
    "link to a FIFO": link_to_a_fifo,
    "folder": folder,
    "device": device,
    "missing": lambda _: "c.yml",
    "other case": file("C.yml", "c.yml"),
    "other way to write an umlaut": file("u\u0308.yml", "\u00fc.yml"),
    "link to what is missing": link("missing.yml"),
    "file as a folder": file("c.yml", "c.yml/x"),
}


@pytest.mark.parametrize("layout", NO_FILES)
def test_what_is_no_file_is_not_opened_as_a_compose_file(tree: Path, layout: str) -> None:
    name = NO_FILES[layout](tree)

    with pytest.raises(StepFailed, match="there is no"):
        _compose_file(tree, name, "0" * 40)


@pytest.mark.parametrize("layout", NO_FILES)
def test_what_is_no_file_is_not_opened_as_a_dockerfile(tree: Path, layout: str) -> None:
    name = NO_FILES[layout](tree)
    places = Places(tree, tree, beneath(tree, name), tree / "metadata")

    with pytest.raises(StepFailed, match="has no file"):
        _require(places, replace(ORDER, context="", dockerfile=name))


def test_a_context_that_is_no_folder_is_refused(tree: Path) -> None:
    os.mkfifo(tree / "context")
    places = Places(tree, tree / "context", tree / "context" / "Dockerfile", tree / "metadata")

    with pytest.raises(StepFailed, match="the build context 'context' is no folder"):
        _require(places, replace(ORDER, context="context"))


INSIDE: dict[str, Layout] = {
    "file": file("c.yml", "c.yml"),
    "link to a neighbour": linked_file,
    "dots that stay inside": file("c.yml", "folder/../c.yml"),
    "name that begins with a dash": file("--file", "--file"),
}


@pytest.mark.parametrize("layout", INSIDE)
def test_a_file_inside_the_tree_is_opened(tree: Path, layout: str) -> None:
    found = _compose_file(tree, INSIDE[layout](tree), "0" * 40)

    assert found.is_absolute()
    assert found.read_text() == "x"
