"""The exact commit, from a real repository over HTTP."""

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent import git
from agent.report import StepFailed


@dataclass(slots=True)
class Forge:
    """Repositories under `folder`, served by git's own HTTP backend; `seen` are the Authorization headers."""

    folder: Path
    url: str = ""
    seen: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, str], name: str = "app") -> str:
        tree = self.folder / name
        if not tree.exists():
            subprocess.run(["git", "init", "-q", str(tree)], check=True)
        for path, text in files.items():
            (tree / path).write_text(text)
        identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
        subprocess.run(["git", "add", "-A"], cwd=tree, check=True)
        subprocess.run(["git", *identity, "commit", "-qm", "c"], cwd=tree, check=True)
        return subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=tree, check=True, capture_output=True, text=True
        ).stdout.strip()


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[Forge]:
    forge = Forge(tmp_path / "repos")
    forge.folder.mkdir()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            forge.seen.append(self.headers.get("Authorization", ""))
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            env = os.environ | {
                "GIT_PROJECT_ROOT": str(forge.folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
            answer = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False)
            self.wfile.write(b"HTTP/1.0 200 OK\r\n" + answer.stdout)

        do_POST = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    forge.url = f"http://127.0.0.1:{server.server_address[1]}/app/.git"
    yield forge
    server.shutdown()
    server.server_close()


def clone_in(folder: Path) -> git.Clone:
    return git.Clone(folder / "tree", folder / "git")


async def test_the_tree_is_exactly_the_commit_and_moves_to_the_next_one(forge: Forge, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    first = forge.commit({"a": "1", "b": "1"})
    await git.checkout(forge.url, first, clone_in(tmp_path), "")
    (tree / "made-by-a-container").write_text("kept")
    (tree / "a").write_text("changed by a container")

    second = forge.commit({"a": "2"})
    await git.checkout(forge.url, second, clone_in(tmp_path), "")

    assert {path.name: path.read_text() for path in tree.iterdir() if path.is_file()} == {
        "a": "2",
        "b": "1",
        "made-by-a-container": "kept",
    }


async def test_the_token_travels_as_basic_password_and_is_written_nowhere(forge: Forge, tmp_path: Path) -> None:
    await git.checkout(forge.url, forge.commit({"a": "1"}), clone_in(tmp_path), "t0ken")

    basic = base64.b64encode(b"x-access-token:t0ken").decode()
    assert set(forge.seen) == {f"Basic {basic}"}
    written = b"".join(
        path.read_bytes() for folder in ("tree", "git") for path in (tmp_path / folder).rglob("*") if path.is_file()
    )
    assert b"t0ken" not in written
    assert basic.encode() not in written


async def test_hooks_of_the_machine_do_not_run(forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "hooks").mkdir(parents=True)
    hook = home / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    (home / ".gitconfig").write_text(f"[core]\n\thooksPath = {home}/hooks\n")
    monkeypatch.setenv("HOME", str(home))

    await git.checkout(forge.url, forge.commit({"a": "1"}), clone_in(tmp_path), "")

    assert not (tmp_path / "ran").exists()


async def test_a_commit_that_does_not_exist_is_named(forge: Forge, tmp_path: Path) -> None:
    forge.commit({"a": "1"})

    with pytest.raises(StepFailed, match="could not be fetched at commit 000000000000") as caught:
        await git.checkout(forge.url, "0" * 40, clone_in(tmp_path), "")

    assert caught.value.failure.step == "clone"
    assert caught.value.failure.exit_code == 128


@pytest.mark.parametrize(
    ("repo", "sha"),
    [
        ("http://git/x.git", "main"),
        ("http://git/x.git", "--upload-pack=touch /tmp/x"),
        ("file:///etc", "0" * 40),
        ("ext::sh -c id", "0" * 40),
        ("--upload-pack=id", "0" * 40),
        ("http://user:password@git/x.git", "0" * 40),
    ],
)
async def test_odd_orders_are_refused_before_git_sees_them(tmp_path: Path, repo: str, sha: str) -> None:
    with pytest.raises(StepFailed):
        await git.checkout(repo, sha, clone_in(tmp_path), "")

    assert not (tmp_path / "tree").exists()


async def test_the_content_of_files_has_a_name(forge: Forge, tmp_path: Path) -> None:
    sha = forge.commit({"a": "1", "b": "1", "c": "2"})
    await git.checkout(forge.url, sha, clone_in(tmp_path), "")

    ids = await git.object_ids(clone_in(tmp_path), sha, ["a", "b", "c", "missing"])

    assert ids["a"] == ids["b"] != ids["c"]
    assert set(ids) == {"a", "b", "c"}


async def test_what_a_container_writes_into_the_tree_starts_no_program(forge: Forge, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    await git.checkout(forge.url, forge.commit({"a": "1", ".gitattributes": "* filter=evil\n"}), clone_in(tmp_path), "")
    assert not (tree / ".git").exists()
    evil = f'[filter "evil"]\n\tsmudge = "env > {tmp_path}/ran; cat"\n'
    (tree / ".git" / "info").mkdir(parents=True)
    (tree / ".git" / "config").write_text(evil)
    (tree / ".git" / "info" / "attributes").write_text("* filter=evil\n")

    await git.checkout(forge.url, forge.commit({"a": "2"}), clone_in(tmp_path), "t0ken")

    assert (tree / "a").read_text() == "2"
    assert not (tmp_path / "ran").exists()


async def test_locks_of_a_killed_git_are_removed(forge: Forge, tmp_path: Path) -> None:
    await git.checkout(forge.url, forge.commit({"a": "1"}), clone_in(tmp_path), "")
    for lock in ("index.lock", "shallow.lock", "HEAD.lock"):
        (tmp_path / "git" / lock).write_text("")

    await git.checkout(forge.url, forge.commit({"a": "2"}), clone_in(tmp_path), "")

    assert (tmp_path / "tree" / "a").read_text() == "2"


@pytest.mark.parametrize("broken", ["index", "config", "HEAD", "shallow"])
async def test_a_broken_folder_of_git_is_made_anew(forge: Forge, tmp_path: Path, broken: str) -> None:
    await git.checkout(forge.url, forge.commit({"a": "1"}), clone_in(tmp_path), "")
    (tmp_path / "tree" / "made-by-a-container").write_text("kept")
    (tmp_path / "git" / broken).write_text("half")

    await git.checkout(forge.url, forge.commit({"a": "2"}), clone_in(tmp_path), "")

    assert (tmp_path / "tree" / "a").read_text() == "2"
    assert (tmp_path / "tree" / "made-by-a-container").read_text() == "kept"


def test_plain_http_is_allowed_only_where_the_order_asks_for_it() -> None:
    secure, plain, local = (git.environment(repo, "") for repo in ("https://git/x.git", "http://git/x.git", ""))

    assert "protocol.http.allow" in plain.values()
    assert "protocol.http.allow" not in secure.values()
    assert "protocol.http.allow" not in local.values()
