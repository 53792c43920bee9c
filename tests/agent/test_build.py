"""What buildx is told, and that secrets are no part of it."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.build import Builder, Places, command
from agent.mask import Patterns
from agent.outbox import Outbox, ResultStore
from agent.paths import OutsideTree, beneath
from agent.protocol import AgentState, Build, SecretValue
from agent.registry import credentials, remove_leftovers
from agent.report import Reporter, StepFailed
from agent.spool import Spool
from agent.streams import Batcher

ORDER = Build(
    command_id="c1",
    repo="http://git/x.git",
    sha="0" * 40,
    target="api",
    arch="arm64",
    context="services/api",
    dockerfile="Dockerfile.prod",
    push_to="10.0.0.1:8003/p1/e1/api",
    cache="10.0.0.1:8003/p1/cache/api:arm64",
    timeout_s=60.0,
    stage="release",
    args={"VERSION": "1", "EMPTY": ""},
    secrets=(SecretValue("NPM_TOKEN", "hush"), SecretValue("OTHER", "quiet")),
)
FILES = 5_000
PLACES = Places(Path("/t"), Path("/t/services/api"), Path("/t/services/api/Dockerfile.prod"), Path("/m.json"))


def test_the_whole_command_is_this() -> None:
    assert command(ORDER, PLACES) == [
        *["docker", "buildx", "build", "--builder", "stagely", "--progress", "rawjson", "--provenance=false"],
        *["--platform", "linux/arm64", "--metadata-file", "/m.json", "--file", "/t/services/api/Dockerfile.prod"],
        *["--target", "release", "--build-arg", "EMPTY=", "--build-arg", "VERSION=1"],
        *["--secret", "id=NPM_TOKEN,env=STAGELY_SECRET_0", "--secret", "id=OTHER,env=STAGELY_SECRET_1"],
        *["--cache-from", "type=registry,ref=10.0.0.1:8003/p1/cache/api:arm64"],
        "--cache-to",
        "type=registry,ref=10.0.0.1:8003/p1/cache/api:arm64,mode=max,oci-mediatypes=true,compression=zstd,ignore-error=true",
        "--output",
        "type=image,name=10.0.0.1:8003/p1/e1/api,push=true,push-by-digest=true,store=false,"
        "oci-mediatypes=true,compression=zstd",
        *["--", "/t/services/api"],
    ]


def test_secret_values_stand_in_no_argument() -> None:
    assert not [argument for argument in command(ORDER, PLACES) if "hush" in argument or "quiet" in argument]


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "link", "folder/../../x"])
def test_a_path_out_of_the_work_tree_is_refused(tmp_path: Path, path: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to("/etc")

    with pytest.raises(OutsideTree, match="leads out of the repository"):
        beneath(tree, path)


@pytest.mark.parametrize(
    ("field", "order"),
    [
        ("push_to", replace(ORDER, push_to="r/p,store=true")),
        ("cache", replace(ORDER, cache="r/p:c,mode=min")),
        ("arch", replace(ORDER, arch="amd64,linux/arm64")),
        (r"secrets\[0\].key", replace(ORDER, secrets=(SecretValue("A,src=/etc/shadow", "hush"),))),
    ],
)
async def test_a_field_that_would_add_a_setting_of_its_own_is_refused(tmp_path: Path, field: str, order: Build) -> None:
    with pytest.raises(StepFailed, match=f"target api: {field} must be of letters"):
        await Builder(tmp_path / "work", tmp_path / "run", {}).build(order, reporter(tmp_path))

    assert not (tmp_path / "work").exists()


async def test_the_agent_goes_on_while_a_big_work_tree_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, made = tmp_path / "work", tmp_path / "made"
    checkout = f"(cd \"$GIT_WORK_TREE\" && seq {FILES} | xargs touch && touch '{made}')"
    (tmp_path / "git").write_text(f'#!/bin/sh\n[ "$1" != checkout ] || {checkout}\n')
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(until_half_removed(work, made))
        with pytest.raises(StepFailed, match="is no folder of"):
            await Builder(work, tmp_path / "run", {}).build(ORDER, reporter(tmp_path))
        was_seen = watching.done()
        watching.cancel()

    assert was_seen
    assert list((work / "builds").iterdir()) == []


def test_paths_inside_the_work_tree_are_opened(tmp_path: Path) -> None:
    assert beneath(tmp_path, "", ".") == tmp_path
    assert beneath(tmp_path, "a", "../b") == tmp_path / "b"


def test_the_registry_token_lies_in_memory_while_it_is_used_only(tmp_path: Path) -> None:
    with credentials(tmp_path, "10.0.0.1:8003/p1/e1/api", "t0ken") as variables:
        config = Path(variables["DOCKER_CONFIG"]) / "config.json"
        text = config.read_text()
        mode = config.stat().st_mode & 0o777

    assert text == '{"auths": {"10.0.0.1:8003": {"auth": "c3RhZ2VseTp0MGtlbg=="}}}'
    assert mode == 0o600
    assert list(tmp_path.iterdir()) == []


def test_a_registry_token_that_a_killed_agent_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "docker-x").mkdir()
    (tmp_path / "docker-x" / "config.json").write_text("{}")

    remove_leftovers(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_without_a_token_docker_is_told_nothing(tmp_path: Path) -> None:
    with credentials(tmp_path, "r/x", "") as variables:
        assert variables == {}


def reporter(folder: Path) -> Reporter:
    outbox = Outbox(Spool(folder / "spool"), ResultStore(folder / "results"))
    return Reporter("c1", AgentState.BUILDING, outbox, Patterns(), Batcher())


async def until_half_removed(work: Path, made: Path) -> None:
    """Return when the loop has had a look at a tree that is being removed."""
    while True:
        await asyncio.sleep(0)
        if made.exists() and 0 < len(list(work.glob("builds/*/tree/*"))) < FILES:
            return
