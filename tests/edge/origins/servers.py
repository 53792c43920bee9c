"""Real servers in a VM's place, each noting every request it sees, as it sees it.

What a server answers itself, without asking the application, is noted too where that server has an access log (the
four from the distribution that stand before a second server), with `-` for the length.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import string
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.services import child, free_port

HERE = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's packages are installed for this interpreter.
REFUSED = "-"

Seen = tuple[str, str, str]  # Method, path, and length of the body, or REFUSED.


@dataclass(slots=True)
class Origin:
    """One running server. `port` is where the edge goes to."""

    name: str
    port: int
    record: Path
    escapes: bool
    _at: int = 0
    _seen: Counter[Seen] = field(default_factory=Counter)

    def seen(self) -> Counter[Seen]:
        """What it has noted so far."""
        with self.record.open("rb") as record:
            record.seek(self._at)
            fresh = record.read()
        whole = fresh.rfind(b"\n") + 1
        self._at += whole
        for line in fresh[:whole].decode("latin-1").split("\n")[:-1]:
            request, _, length = line.rpartition("\t")
            parts = (unescaped(request) if self.escapes else request).split(" ")
            if len(parts) == 3 and parts[0]:  # What could not be read at all is noted as `<BADREQ>` or as nothing.
                self._seen[parts[0], path_of(parts[1]), length or REFUSED] += 1
        return self._seen


def path_of(target: str) -> str:
    """A target as every server shows it: http.server folds leading slashes into one, the edge logs no query."""
    return "/" + target.partition("?")[0].lstrip("/")


def unescaped(line: str) -> str:
    r"""A logged line with escapes undone: `\"` and `\x7c` of Apache and lighttpd, `#7C` of haproxy."""
    line = re.sub(r"\\x([0-9a-fA-F]{2})|#([0-9A-F]{2})", lambda found: chr(int(found[1] or found[2], 16)), line)
    return re.sub(r"\\([\"\\])", r"\1", line)


@dataclass(frozen=True, slots=True)
class Kind:
    """How one server is found and started. `command` gets port, record, a folder, and a second server's port."""

    name: str
    package: str
    is_there: Callable[[], bool]
    command: Callable[[int, Path, Path, int], list[str]]
    needs_second: bool = False
    notes_on_stdout: bool = False
    escapes: bool = False


def _program(*names: str) -> Callable[[], bool]:
    return lambda: all(shutil.which(name) or Path("/usr/sbin", name).exists() for name in names)


def _module(name: str) -> Callable[[], bool]:
    """Whether the distribution's interpreter has it."""
    argv = [SYSTEM_PYTHON, "-c", f"import importlib.util as u, sys; sys.exit(u.find_spec({name!r}) is None)"]
    return lambda: Path(SYSTEM_PYTHON).exists() and subprocess.run(argv, check=False).returncode == 0


def _configured(template: str, *argv: str) -> Callable[[int, Path, Path, int], list[str]]:
    def command(port: int, record: Path, folder: Path, behind: int) -> list[str]:
        text = string.Template((HERE / template).read_text("utf-8"))
        made = folder / template
        made.write_text(text.substitute(port=port, record=record, folder=folder, behind=behind), "utf-8")
        program = shutil.which(argv[0]) or f"/usr/sbin/{argv[0]}"
        return [program, *argv[1:], str(made)]

    return command


def _script(python: str, name: str) -> Callable[[int, Path, Path, int], list[str]]:
    return lambda port, record, folder, behind: [
        *("/usr/bin/env", f"RECORD={record}", python, str(HERE / name), str(port))
    ]


def _uvicorn(port: int, record: Path, folder: Path, behind: int) -> list[str]:
    options = [
        "--http",
        "h11",
        "--no-access-log",
        "--log-level",
        "critical",
        "--timeout-keep-alive",
        "30",
        "--ws",
        "none",
    ]
    argv = [sys.executable, "-m", "uvicorn", "echo_asgi:app", "--app-dir", str(HERE), "--port", str(port), *options]
    return ["/usr/bin/env", f"RECORD={record}", *argv]


def _gunicorn(port: int, record: Path, folder: Path, behind: int) -> list[str]:
    options = ["--threads", "4", "--keep-alive", "30", "--log-level", "critical", "--worker-tmp-dir", str(folder)]
    argv = ["gunicorn", "--chdir", str(HERE), "--bind", f"127.0.0.1:{port}", *options, "echo_wsgi:app"]
    return ["/usr/bin/env", f"RECORD={record}", SYSTEM_PYTHON, str(shutil.which(argv[0])), *argv[1:]]


def _go(port: int, record: Path, folder: Path, behind: int) -> list[str]:
    program = folder / "echo"
    subprocess.run(["go", "build", "-o", str(program), str(HERE / "echo.go")], check=True, timeout=120)
    return [str(program), str(port), str(record)]


def _node(port: int, record: Path, folder: Path, behind: int) -> list[str]:
    return ["node", "--max-http-header-size=65536", str(HERE / "echo.js"), str(port), str(record)]


UVICORN = Kind("uvicorn", "uvicorn", lambda: importlib.util.find_spec("uvicorn") is not None, _uvicorn)
STDLIB = Kind("http.server", "python", lambda: True, _script(sys.executable, "echo_stdlib.py"))
KINDS = (
    UVICORN,
    STDLIB,
    Kind("node", "nodejs", _program("node"), _node),
    Kind("go", "golang", _program("go"), _go),
    Kind("nginx", "nginx-light", _program("nginx"), _configured("nginx.conf", "nginx", "-c"), needs_second=True),
    Kind(
        *("haproxy", "haproxy", _program("haproxy"), _configured("haproxy.cfg", "haproxy", "-db", "-f")),
        needs_second=True,
        notes_on_stdout=True,
        escapes=True,
    ),
    Kind(
        *("lighttpd", "lighttpd", _program("lighttpd"), _configured("lighttpd.conf", "lighttpd", "-D", "-f")),
        needs_second=True,
        escapes=True,
    ),
    Kind(
        *("apache", "apache2-bin", _program("apache2"), _configured("apache.conf", "apache2", "-DFOREGROUND", "-f")),
        needs_second=True,
        escapes=True,
    ),
    Kind("gunicorn", "gunicorn", lambda: _program("gunicorn")() and _module("gunicorn")(), _gunicorn),
    Kind("waitress", "python3-waitress", _module("waitress"), _script(SYSTEM_PYTHON, "echo_wsgi.py")),
    Kind("twisted", "python3-twisted", _module("twisted"), _script(SYSTEM_PYTHON, "echo_twisted.py")),
    Kind("aiohttp", "python3-aiohttp", _module("aiohttp"), _script(SYSTEM_PYTHON, "echo_aiohttp.py")),
)


@contextmanager
def running(kinds: list[Kind], folder: Path) -> Iterator[list[Origin]]:
    """Each of these servers, started; whether it answers yet is the caller's to find out."""
    with contextlib.ExitStack() as stack:
        behind = _start(UVICORN, folder / "behind", 0, stack).port if any(k.needs_second for k in kinds) else 0
        yield [_start(kind, folder / kind.name, behind, stack) for kind in kinds]


def _start(kind: Kind, folder: Path, behind: int, stack: contextlib.ExitStack) -> Origin:
    folder.mkdir()
    folder.chmod(0o755)
    port, record = free_port(), folder / "record"
    record.touch()
    output = record if kind.notes_on_stdout else folder / "output"
    stack.enter_context(child(kind.command(port, record, folder, behind), output))
    return Origin(kind.name, port, record, kind.escapes)
