"""The demo's eight steps. Whatever happens, its machines are removed; only --keep leaves them."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import FrameType

from stagely.cli import commands, reach
from stagely.cli.commands import Session
from stagely.cli.demo import guestbook, leftovers, report
from stagely.cli.demo import system as systems
from stagely.cli.demo.leftovers import Leftovers
from stagely.cli.demo.report import RunReport
from stagely.cli.demo.system import DemoSystem
from stagely.cli.outcome import Outcome, failure_lines
from stagely.cli.progress import Progress
from stagely.cli.refusal import EXIT_INTERRUPTED, EXIT_READY, CommandFailed
from stagely.dev import docker
from stagely.dev.clean import clean
from stagely.dev.console import Console
from stagely.dev.folder import StateFolder, write_json
from stagely.dev.refusal import Refused

TIMEOUT_S = 10 * 60.0  # Per run; a cold pair of builds takes half a minute on two cores.
EDGE_TIMEOUT_S = 10.0  # Route changes reach the edge within 100 ms.
POLL_S = 0.1
PR = 1


@dataclass(frozen=True, slots=True)
class DemoOptions:
    state: Path
    port_base: int
    keep: bool


@dataclass(slots=True)
class _Story:
    """What has been seen so far; `step` is named when something fails."""

    step: str = "preparing"
    url: str = ""
    runs: list[RunReport] = field(default_factory=list)
    left: dict[str, Leftovers] = field(default_factory=dict)


def run(options: DemoOptions) -> int:
    """Exit code 0 when all eight steps went well."""
    progress, story = Progress(), _Story()
    began = time.monotonic()
    try:
        with _sigterm_like_ctrl_c():
            _play(options, story, progress)
            _finish(options, story, progress, time.monotonic() - began)
    except KeyboardInterrupt:
        return _give_up(options, story, progress, "interrupted", EXIT_INTERRUPTED)
    except (CommandFailed, Refused) as error:
        return _give_up(options, story, progress, str(error), getattr(error, "exit_code", 1))
    return EXIT_READY


def _play(options: DemoOptions, story: _Story, progress: Progress) -> None:
    """Steps 1 to 7, and the system's end."""
    _begin(story, progress, f"1. starting the whole system ({options.state}, ports from {options.port_base})")
    _start_fresh(options.state, progress)
    began = time.monotonic()
    system = systems.start(options.state, options.port_base, keep=options.keep, progress=progress)
    try:
        progress.ended("system is up", time.monotonic() - began)
        with commands.session(options.state, progress) as here:
            _main_job(here, options, story)
        pids, installation = system.pids(), here.installation.id
    except BaseException:
        system.stop()
        raise
    if not options.keep:
        _stop(system, installation, pids, story, progress)


def _main_job(here: Session, options: DemoOptions, story: _Story) -> None:
    folder = options.state / "repositories" / "guestbook"
    _begin(story, here.progress, "2. making a git repository of examples/guestbook")
    guestbook.make_repository(folder)
    _open(here, folder, story)
    _push(here, folder, story)
    if not options.keep:
        _close(here, options.state, story)


def _open(here: Session, folder: Path, story: _Story) -> None:
    """Steps 3 to 5."""
    _begin(story, here.progress, "3. opening a pull request; 4. building two images on two machines, booting a preview")
    began = time.monotonic()
    outcome = _must_be_ready(commands.up(here, folder, None, timeout_s=TIMEOUT_S), here)
    story.url = next(iter(outcome.urls.values()))
    heading = guestbook.title_of_page(story.url)
    version = guestbook.shown_version(story.url)
    story.runs.append(RunReport("new PR", time.monotonic() - began, outcome.phases, outcome.commit))
    _begin(story, here.progress, f"5. the preview answers at {story.url}")
    guestbook.write_entry(story.url, guestbook.ENTRY)
    here.progress.say(f'            "{heading}", version {version}; wrote the entry "{guestbook.ENTRY}"')
    _show_comment(here, outcome)
    if not reach.resolves(story.url):
        here.progress.say(f"            (by Host header; from a shell: {reach.curl_line(story.url)})")


def _show_comment(here: Session, outcome: Outcome) -> None:
    """The first line for people; the comment begins with a marker that only programs see."""
    body = here.pulls.last_comment(outcome.repo, outcome.pr or 0).splitlines()
    shown = next((line for line in body if line.strip() and not line.startswith("<!--")), "(none yet)")
    here.progress.say(f"            the comment on the pull request: {shown}")


def _push(here: Session, folder: Path, story: _Story) -> None:
    """Step 6."""
    _begin(story, here.progress, "6. pushing a second commit")
    old, new = guestbook.raise_version(folder)
    guestbook.commit(folder, f"Version {new}")
    began = time.monotonic()
    outcome = _must_be_ready(commands.push(here, folder, None, timeout_s=TIMEOUT_S), here)
    _claim(next(iter(outcome.urls.values())) == story.url, f"the URL changed from {story.url} to {outcome.urls}")
    shown = guestbook.shown_version(story.url)
    story.runs.append(RunReport("second push", time.monotonic() - began, outcome.phases, outcome.commit))
    _claim(shown == new, f"the preview still shows version {shown}, not {new}")
    kept = guestbook.entries(story.url)
    _claim(guestbook.ENTRY in kept, f"the entry is gone from the guestbook: {kept}")
    here.progress.say(f"            the same URL shows {new} instead of {old}, and the entry is still there")


def _close(here: Session, state: Path, story: _Story) -> None:
    """Step 7."""
    _begin(story, here.progress, "7. closing the pull request")
    environment = here.api.environments()[0]
    began = time.monotonic()
    outcome = commands.close(here, str(environment.pr), None, timeout_s=TIMEOUT_S)
    _wait_for_404(story.url)
    took_s = time.monotonic() - began
    last = here.api.environment(environment.id)
    story.runs.append(RunReport("close", took_s, {k: v for k, v in last.phases.items() if k == "teardown"}))
    found = leftovers.of_environment(
        environment, here.api, here.installation.id, here.installation.urls["redis"], state / "registry"
    )
    story.left["after closing"] = found
    _claim(outcome.exit_code == EXIT_READY, f"closing ended as {outcome.state}: {outcome.message}")
    _refuse_leftovers(found)
    here.progress.say("            404 at the edge; no machine, container, volume, network, route or image is left")


def _stop(system: DemoSystem, installation: str, pids: list[int], story: _Story, progress: Progress) -> None:
    story.step = "stopping the system"
    began = time.monotonic()
    progress.waiting("stopping the system")
    system.stop()
    found = leftovers.of_system(installation, pids)
    story.left["after stopping"] = found
    _refuse_leftovers(found)
    progress.ended("system is stopped, nothing is left", time.monotonic() - began)


def _finish(options: DemoOptions, story: _Story, progress: Progress, total_s: float) -> None:
    """Step 8, and with --keep where everything is."""
    _begin(story, progress, "8. seconds per phase")
    progress.close()
    print("\n".join(report.table(story.runs)), flush=True)
    path = options.state.parent / f"{options.state.name}.json"
    write_json(path, report.as_json(story.runs, story.left, _versions(), total_s))
    print(f"\n{total_s:.1f} s in all; the same figures: {path}")
    if options.keep:
        _show_kept(options, story)


def _show_kept(options: DemoOptions, story: _Story) -> None:
    from stagely.cli.installation import find

    urls = find(options.state).urls
    print(f"\nEverything is still running:\n  preview      {story.url}")
    print(f"  pull request {urls['forge']}/local/guestbook/pull/{PR}\n  api          {urls['docs']}")
    print(f"  Temporal     {urls.get('temporal_ui', '(the one of TEMPORAL_ADDRESS)')}")
    print(f"Stop and remove it: stagely clean --state {options.state}")


def _give_up(options: DemoOptions, story: _Story, progress: Progress, why: str, code: int) -> int:
    """Name the step and the logs, and remove the machines. A second Ctrl-C does not stop that: it has limits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    progress.close()
    progress.say(f"\nThe demo ended at: {story.step}\n{why}")
    progress.say(f"Logs: {options.state / 'logs'} and {options.state.parent / (options.state.name + '.log')}")
    folder = StateFolder(options.state)
    try:
        found = asyncio.run(docker.labelled(folder.installation()))
        asyncio.run(docker.remove(found))
        progress.say(f"Removed its machines ({len(found.containers)}) and network.")
    except (OSError, docker.DockerFailed, Refused) as error:
        progress.say(f"Nothing was removed: {error}. Try: stagely clean --state {options.state}")
    return code


def _start_fresh(state: Path, progress: Progress) -> None:
    """An earlier demo's machines and state go first: it was kept, or killed."""
    if (state / "installation").exists():
        progress.say("            removing what an earlier demo left")
        if clean(state, Console()) != EXIT_READY:
            raise CommandFailed(f"What an earlier demo left in {state} could not be removed.")


def _must_be_ready(outcome: Outcome, here: Session) -> Outcome:
    if outcome.exit_code != EXIT_READY:
        raise CommandFailed("\n".join(failure_lines(outcome, here.next_command(outcome))))
    return outcome


def _wait_for_404(url: str) -> None:
    """Raises CommandFailed when the edge still answers something else in the end."""
    deadline = time.monotonic() + EDGE_TIMEOUT_S
    while (status := reach.fetch(url).status) != 404:
        _claim(time.monotonic() < deadline, f"the edge still answers {status} at {url} after the close")
        threading.Event().wait(POLL_S)


def _refuse_leftovers(found: Leftovers) -> None:
    names = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in found.found().items() if names)
    _claim(found.is_empty(), f"something is left over: {names}")


def _claim(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise CommandFailed(otherwise)


def _begin(story: _Story, progress: Progress, step: str) -> None:
    story.step = step
    progress.headline(step)


def _versions() -> dict[str, str]:
    engine = asyncio.run(docker.docker("version", "--format", "{{.Server.Version}}"))
    return {
        "stagely": metadata.version("stagely"),
        "python": platform.python_version(),
        "docker": engine,
        "kernel": platform.release(),
    }


@contextlib.contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: Callable[[int, FrameType | None], object] | int | None = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
