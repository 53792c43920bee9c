import os
import signal
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MAIN = REPOSITORY / "scripts" / "setup" / "main.sh"
STEPS = sorted((REPOSITORY / "scripts" / "setup" / "steps").glob("*.sh"))
LIMIT_S = 60


def environment(folder: Path, **more: str) -> dict[str, str]:
    """A setup of its own: cache and steps below `folder`, nothing of this machine's real cache."""
    own = {"STAGELY_CACHE": str(folder / "cache"), "STAGELY_SETUP_STEPS": str(folder / "steps")}
    inherited = {name: value for name, value in os.environ.items() if name not in ("STAGELY_SETUP", "CHECK", "ONLY")}
    return {**inherited, **own, **more}


def write_step(folder: Path, name: str, perform: str, *, ready: str = "false", limit_s: int = 30) -> None:
    text = f"DOES='do it'\nWHY='it is needed'\nLIMIT_S={limit_s}\nREMEDY='mend it'\n"
    (folder / "steps").mkdir(exist_ok=True)
    (folder / "steps" / f"{name}.sh").write_text(f"{text}ready() {{ {ready}; }}\nperform() {{ {perform}; }}\n")


def run(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MAIN], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S
    )


def shell(command: str, environ: dict[str, str]) -> str:
    script = f". {REPOSITORY}/scripts/setup/lib.sh; {command}"
    done = subprocess.run(
        ["bash", "-c", script], env=environ, capture_output=True, text=True, check=True, timeout=LIMIT_S
    )
    return done.stdout.strip()


def test_step_that_is_not_ready_is_done_and_says_why(tmp_path: Path) -> None:
    write_step(tmp_path, "one", f"touch {tmp_path}/made")

    done = run(environment(tmp_path, ONLY="one"))

    assert done.returncode == 0
    assert "do it. Why: it is needed" in done.stdout
    assert (tmp_path / "made").exists()


def test_step_that_is_ready_is_not_done_again(tmp_path: Path) -> None:
    write_step(tmp_path, "one", f"touch {tmp_path}/made", ready="true")

    done = run(environment(tmp_path, ONLY="one"))

    assert done.returncode == 0
    assert "one          is as it should be" in done.stdout
    assert not (tmp_path / "made").exists()


def test_check_only_says_what_it_would_do(tmp_path: Path) -> None:
    write_step(tmp_path, "one", f"touch {tmp_path}/made")

    done = run(environment(tmp_path, ONLY="one", CHECK="1"))

    assert done.returncode == 0
    assert "would do it. Why: it is needed" in done.stdout
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "cache").exists()


def test_check_of_every_real_step_changes_nothing(tmp_path: Path) -> None:
    environ = environment(tmp_path, CHECK="1", STAGELY_SETUP_STEPS=str(STEPS[0].parent))

    done = run(environ)

    assert done.returncode == 0, done.stderr
    assert "would write down what was found" in done.stdout
    assert not (tmp_path / "cache").exists()


def test_failing_step_names_step_log_and_remedy(tmp_path: Path) -> None:
    write_step(tmp_path, "one", "echo the disk is full >&2; exit 3")

    done = run(environment(tmp_path, ONLY="one"))

    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert f"one          FAILED (exit code 3). Log: {tmp_path}/cache/logs/one.log" in done.stderr
    assert "one          Remedy: mend it" in done.stderr


def test_step_after_a_failed_one_is_not_done(tmp_path: Path) -> None:
    write_step(tmp_path, "one", "false")
    write_step(tmp_path, "two", f"touch {tmp_path}/made")

    done = run(environment(tmp_path, ONLY="one two"))

    assert done.returncode == 1
    assert not (tmp_path / "made").exists()


def test_step_past_its_limit_is_ended_and_said(tmp_path: Path) -> None:
    write_step(tmp_path, "one", "sleep 300", limit_s=1)

    done = run(environment(tmp_path, ONLY="one"))

    assert done.returncode == 1
    assert "one          FAILED (not done after its time limit of 1 s)" in done.stderr


def test_interrupt_ends_the_running_step(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    write_step(tmp_path, "one", f"echo $$ > {started}; exec sleep 300")
    setup = subprocess.Popen(
        [MAIN], env=environment(tmp_path, ONLY="one"), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    step = int(started.read_text())

    setup.send_signal(signal.SIGINT)
    _, errors = setup.communicate(timeout=LIMIT_S)

    assert setup.returncode == 130
    assert "stopped; what was finished stays" in errors
    assert not Path(f"/proc/{step}/cmdline").exists() or Path(f"/proc/{step}/cmdline").read_bytes() == b""


def test_fingerprint_follows_content_and_not_time(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe"
    recipe.write_text("one")
    before = shell(f"fingerprint {recipe}", environment(tmp_path))
    os.utime(recipe, (1, 1))
    touched = shell(f"fingerprint {recipe}", environment(tmp_path))
    recipe.write_text("two")

    changed = shell(f"fingerprint {recipe}", environment(tmp_path))

    assert touched == before
    assert changed != before
    assert len(before) == 12


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.stem)
def test_every_step_says_what_why_limit_and_remedy(step: Path, tmp_path: Path) -> None:
    command = f'. {step}; for word in "$DOES" "$WHY" "$LIMIT_S" "$REMEDY"; do [ -n "$word" ] || echo missing; done'

    assert shell(command, environment(tmp_path)) == ""
    assert shell(f". {step}; declare -F ready perform", environment(tmp_path)) == "ready\nperform"


def test_machine_without_go_does_without_the_test_authority_and_says_so(tmp_path: Path) -> None:
    ready = "have() { false; }; STEPS=$REPOSITORY/scripts/setup/steps; . $STEPS/pebble.sh; ready"

    said = shell(ready, environment(tmp_path))

    assert said.endswith("no Go to build it with (1.21 or newer), and none on PATH: tests of certificates are skipped")
