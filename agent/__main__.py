"""`python -m agent` and `stagely-agent.pyz`: run until told to stop, or examine this machine."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from agent import doctor
from agent.config import DEFAULT_PATH, Config, ConfigError, load
from agent.files import held
from agent.main import Agent


def main() -> int:
    parser = argparse.ArgumentParser(prog="stagely-agent", description="Obeys Stagely's core on this machine.")
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, help=f"settings (default: {DEFAULT_PATH})")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("run", help="obey the core (the default)")
    examine = commands.add_parser("doctor", help="look at this machine; ends with 1 when something is bad")
    examine.add_argument("--json", action="store_true", help="the findings as JSON")
    arguments = parser.parse_args()
    if arguments.command == "doctor":
        return _examine(arguments.config, as_json=arguments.json)
    return _obey(arguments.config)


def _examine(path: Path, *, as_json: bool) -> int:
    findings = asyncio.run(doctor.examine(path))
    print(doctor.as_json(findings) if as_json else doctor.table(findings))
    return doctor.exit_code(findings)


def _obey(path: Path) -> int:
    # journald adds the time.
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("websockets").setLevel(logging.WARNING)
    try:
        config = load(path)
    except ConfigError as error:
        print(f"stagely-agent: {error}", file=sys.stderr)
        return 2
    try:
        with held(config.state_dir):  # Two would look to the core like an agent and a thief of its key.
            asyncio.run(_run(config))
    except BlockingIOError:
        text = f"another agent runs here already and holds {config.state_dir} (systemctl status stagely-agent)"
        print(f"stagely-agent: {text}", file=sys.stderr)
        return 2
    return 0


async def _run(config: Config) -> None:
    """Until the agent ends by itself, or SIGTERM: then every program it started is ended first."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await Agent(config).run()
    except asyncio.CancelledError:
        logging.getLogger("stagely.agent").info("agent stops")


if __name__ == "__main__":
    sys.exit(main())
