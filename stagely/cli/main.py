"""`stagely`: one command per verb. Data goes to stdout, narration to stderr, the result is the exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stagely.cli.refusal import EXIT_INTERRUPTED, EXIT_READY, CommandFailed

if TYPE_CHECKING:
    from stagely.cli.commands import Session
    from stagely.cli.outcome import Outcome

# Everything that takes time to import is imported by the command that needs it: `stagely --help` stays quick.
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="A machine of its own for every pull request, running your unchanged docker-compose.yml.",
)

DEFAULT_STATE = Path(".stagely")
State = Annotated[Path, typer.Option("--state", envvar="STAGELY_STATE", help="State folder of the stagely dev to use.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Pr = Annotated[int | None, typer.Option("--pr", min=1, help="Number of the pull request.")]
Wait = Annotated[bool, typer.Option("--wait/--detach", help="Wait for the result, or return at once.")]
Timeout = Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait at most.")]
What = Annotated[str, typer.Argument(metavar="PR", help="Number of the pull request; or REPOSITORY#N, or a path.")]
WaitToo = Annotated[bool, typer.Option("--wait/--detach", help="Wait for the result too, or return once it was taken.")]
Key = Annotated[
    str | None, typer.Option("--key", help="Name of this intention: asked again under it, it is done once.")
]
Repository = Annotated[Path, typer.Argument(help="A git repository with a Compose file.")]


@app.command()
def up(
    path: Repository = Path("."),
    pr: Pr = None,
    wait: Wait = True,
    timeout: Timeout = 900,
    as_json: AsJson = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Open a pull request for the current commit of PATH and print its preview's URLs."""
    from stagely.cli import commands

    _deploy(state, as_json, lambda here: commands.up(here, path, pr, wait=wait, timeout_s=timeout))


@app.command()
def push(
    path: Repository = Path("."),
    pr: Pr = None,
    wait: Wait = True,
    timeout: Timeout = 900,
    as_json: AsJson = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Push the current commit of PATH to its open pull request."""
    from stagely.cli import commands

    _deploy(state, as_json, lambda here: commands.push(here, path, pr, wait=wait, timeout_s=timeout))


@app.command()
def close(
    what: Annotated[str, typer.Argument(metavar="PATH|N", help="A repository, or the number of a pull request.")],
    pr: Pr = None,
    wait: Wait = True,
    timeout: Timeout = 300,
    as_json: AsJson = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Close a pull request; its machines and everything else of it go away."""
    from stagely.cli import commands

    _deploy(state, as_json, lambda here: commands.close(here, what, pr, wait=wait, timeout_s=timeout))


@app.command()
def ls(
    gone_too: Annotated[bool, typer.Option("--all", help="Those that ended too.")] = False,
    as_json: AsJson = False,
    state: State = DEFAULT_STATE,
) -> None:
    """List environments."""
    from stagely.cli import commands, outcome
    from stagely.cli.progress import Progress

    with _errors_to_exit_codes(as_json), commands.session(state, Progress()) as here:
        found = commands.ls(here, gone_too=gone_too)
        if as_json:
            print(json.dumps([outcome.of_environment(environment).as_json() for environment in found]))
        else:
            print("\n".join(commands.table(found, commands.wall_clock())))


@app.command()
def logs(
    what: What,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Stay and show new lines.")] = False,
    as_json: AsJson = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Show the log of a pull request's builds and services."""
    from dataclasses import asdict

    from stagely.cli import commands
    from stagely.cli.progress import Progress
    from stagely.cli.show import prefixed

    with _errors_to_exit_codes(as_json), commands.session(state, Progress()) as here:
        for line in commands.logs(here, what, follow=follow):
            text = json.dumps(asdict(line)) if as_json else prefixed(line.stream, line.data)
            print(text, flush=True)


@app.command()
def extend(
    what: What,
    duration: Annotated[str, typer.Argument(metavar="DURATION", help="Such as 30m, 12h or 2d.")],
    key: Key = None,
    as_json: AsJson = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Keep a preview for longer: move the end of its time by DURATION."""
    from stagely.cli import actions

    _deploy(state, as_json, lambda here: actions.extend(here, what, duration, key))


@app.command()
def pin(what: What, key: Key = None, as_json: AsJson = False, state: State = DEFAULT_STATE) -> None:
    """Keep a preview until its pull request closes."""
    from stagely.cli import actions

    _deploy(state, as_json, lambda here: actions.pin(here, what, key))


@app.command()
def unpin(what: What, key: Key = None, as_json: AsJson = False, state: State = DEFAULT_STATE) -> None:
    """Count a pinned preview's time again, from now."""
    from stagely.cli import actions

    _deploy(state, as_json, lambda here: actions.unpin(here, what, key))


@app.command()
def redeploy(
    what: What,
    wait: WaitToo = False,
    timeout: Timeout = 900,
    key: Key = None,
    as_json: AsJson = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Build and deploy a pull request's commit once more, also when its preview was stopped."""
    from stagely.cli import actions

    waiting = actions.Waiting(wait, timeout)
    _deploy(state, as_json, lambda here: actions.redeploy(here, what, key, waiting))


@app.command()
def retry(
    what: What,
    wait: WaitToo = False,
    timeout: Timeout = 900,
    key: Key = None,
    as_json: AsJson = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Go on from the step that failed; what was built is not built again."""
    from stagely.cli import actions

    waiting = actions.Waiting(wait, timeout)
    _deploy(state, as_json, lambda here: actions.retry(here, what, key, waiting))


@app.command()
def stop(
    what: What,
    wait: WaitToo = False,
    timeout: Timeout = 300,
    key: Key = None,
    as_json: AsJson = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Take a preview down though its pull request is open; the next push or a redeploy brings it back."""
    from stagely.cli import actions

    waiting = actions.Waiting(wait, timeout)
    _deploy(state, as_json, lambda here: actions.stop(here, what, key, waiting))


@app.command()
def approve(
    what: What,
    sha: Annotated[str, typer.Argument(metavar="[SHA]", help="The commit you looked at, 7 digits or more.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Approve the commit that waits without naming it.")] = False,
    wait: WaitToo = False,
    timeout: Timeout = 900,
    key: Key = None,
    as_json: AsJson = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Let a commit from another repository be built and run; without SHA: show which one waits."""
    from stagely.cli import actions

    waiting = actions.Waiting(wait, timeout)
    _deploy(state, as_json, lambda here: actions.approve(here, what, sha, key, waiting, yes=yes))


@app.command()
def dev(
    state: State = DEFAULT_STATE,
    port_base: Annotated[
        int | None, typer.Option("--port-base", help="First port, the others are offsets (as last time, or 8000).")
    ] = None,
) -> None:
    """Run the whole system on this machine until Ctrl-C."""
    from stagely.dev.console import Console
    from stagely.dev.run import DevOptions, run

    raise typer.Exit(run(DevOptions(state, port_base), Console()))


@app.command()
def clean(state: State = DEFAULT_STATE) -> None:
    """Remove an installation: its machines, volumes, network and state folder."""
    from stagely.dev.clean import clean as remove
    from stagely.dev.console import Console

    raise typer.Exit(remove(state, Console()))


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running and print the URLs.")] = False,
    state: Annotated[Path, typer.Option("--state", help="State folder of its own.")] = Path(".stagely/demo"),
    port_base: Annotated[int, typer.Option("--port-base", help="First port; the others are offsets.")] = 18000,
) -> None:
    """Show the main job from a pull request's opening to its last trace, on a system of its own."""
    from stagely.cli.demo import DemoOptions, run

    raise typer.Exit(run(DemoOptions(state, port_base, keep)))


@app.command()
def version() -> None:
    """Print the version."""
    from importlib import metadata

    print(metadata.version("stagely"))


def main() -> None:
    """Entry point."""
    app()


def _deploy(state: Path, as_json: bool, act: Callable[[Session], Outcome]) -> None:
    """Run a command that ends with an outcome, and show that."""
    from stagely.cli import commands
    from stagely.cli.progress import Progress
    from stagely.cli.show import show

    with _errors_to_exit_codes(as_json), commands.session(state, Progress()) as here:
        outcome = _interruptible(act, here)
        here.progress.close()
        is_failed = outcome.exit_code != EXIT_READY and outcome.pr is not None
        show(outcome, here.next_command(outcome) if is_failed else "", as_json=as_json)
        raise typer.Exit(outcome.exit_code)


def _interruptible(act: Callable[[Session], Outcome], here: Session) -> Outcome:
    """Ctrl-C ends the waiting, not the deployment that was waited for."""
    try:
        return act(here)
    except KeyboardInterrupt:
        here.progress.close()
        option = here.installation.option
        print(f"Interrupted. What was started goes on by itself: stagely ls{option} shows it.", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def _errors_to_exit_codes(as_json: bool) -> Iterator[None]:
    """A refusal or failure becomes a sentence (or the JSON object) and its exit code."""
    from stagely.cli.outcome import of_error

    try:
        yield
    except CommandFailed as error:
        if as_json:
            print(json.dumps(of_error(error).as_json()))
        else:
            print(f"stagely: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from error


if __name__ == "__main__":
    main()
