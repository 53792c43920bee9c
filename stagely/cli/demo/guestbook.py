"""The demo's repository: `examples/guestbook` as a git repository of its own, and its second version."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from stagely.cli import reach
from stagely.cli.refusal import CommandFailed

GIT_TIMEOUT_S = 30.0
SOURCE = Path(__file__).parents[3] / "examples" / "guestbook"
VERSION_FILE = Path("api") / "VERSION"
ENTRY = "Hello from the first version"
# The person's own name and signing key have no business in a demo.
_AUTHOR = ["-c", "user.name=Stagely demo", "-c", "user.email=demo@stagely.localhost", "-c", "commit.gpgsign=false"]


def make_repository(folder: Path) -> None:
    """A fresh repository with one commit. Raises CommandFailed with git's words."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SOURCE, folder)
    _git(folder, "init", "--quiet", "--initial-branch=guestbook")
    commit(folder, "Guestbook")


def commit(folder: Path, message: str) -> None:
    """Commit everything."""
    _git(folder, "add", "--all")
    _git(folder, *_AUTHOR, "commit", "--quiet", "--message", message)


def raise_version(folder: Path) -> tuple[str, str]:
    """Write the next version into the file that the page shows; old and new one."""
    path = folder / VERSION_FILE
    old = path.read_text().strip()
    new = f"v{int(old.removeprefix('v')) + 1}"
    path.write_text(new + "\n")
    return old, new


def shown_version(url: str) -> str:
    """What the preview says its version is. Raises CommandFailed when it does not answer 200."""
    return str(_ask(url, "/api/version")["version"])


def entries(url: str) -> list[str]:
    """The guestbook's entries."""
    found = _ask(url, "/api/entries")["entries"]
    return [str(entry) for entry in found] if isinstance(found, list) else []


def write_entry(url: str, text: str) -> None:
    """Write into the guestbook through the preview's URL."""
    answer = reach.fetch(url.rstrip("/") + "/api/entries", method="POST", body={"text": text})
    if answer.status != 201:
        raise CommandFailed(f"The preview answered {answer.status} to a new entry: {answer.text[:300]}")


def title_of_page(url: str) -> str:
    """The first heading of the page that a person sees."""
    answer = reach.fetch(url)
    if answer.status != 200:
        raise CommandFailed(f"The preview {url} answered {answer.status}: {answer.text[:300]}")
    return answer.text.partition("<h1>")[2].partition("</h1>")[0].strip() or "(no heading)"


def _ask(url: str, path: str) -> dict[str, object]:
    answer = reach.fetch(url.rstrip("/") + path)
    if answer.status != 200:
        raise CommandFailed(f"The preview {url}{path} answered {answer.status}: {answer.text[:300]}")
    found = json.loads(answer.text)
    return found if isinstance(found, dict) else {}


def _git(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise CommandFailed(f"git {arguments[0]} in {folder} failed: {done.stderr.strip()[-500:]}")
