"""The agent as one file."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from stagely.agent_archive import archive, write


def test_the_archive_is_small_and_holds_no_compiled_part(tmp_path: Path) -> None:
    built = write(tmp_path / "agent.pyz")

    with zipfile.ZipFile(tmp_path / "agent.pyz") as file:
        names = file.namelist()
    assert built.sha256 == hashlib.sha256((tmp_path / "agent.pyz").read_bytes()).hexdigest()
    assert len(built.content) < 300_000
    assert names == sorted(names)
    assert {name.rpartition(".")[2] for name in names} == {"py"}


def test_another_process_builds_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "agent.pyz"

    subprocess.run([sys.executable, "-m", "stagely.agent_archive", str(path)], check=True, timeout=60)

    assert hashlib.sha256(path.read_bytes()).hexdigest() == archive().sha256


def test_it_runs_by_itself_and_names_the_settings_it_misses(tmp_path: Path) -> None:
    path = tmp_path / "agent.pyz"
    write(path)

    ran = subprocess.run(
        [sys.executable, "-I", "-S", str(path), "--config", str(tmp_path / "none.json")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 2
    assert "none.json cannot be read" in ran.stderr


def test_the_agent_loads_nothing_but_itself_and_websockets() -> None:
    code = (
        "import sys; import agent.__main__; "
        "print(sorted({m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names)))"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    loaded = set(ran.stdout.strip("[]\n").replace("'", "").split(", "))
    assert {name for name in loaded if not name.startswith("_")} == {"agent", "websockets"}
