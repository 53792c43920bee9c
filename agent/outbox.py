"""Everything the agent has to say, numbered and kept on disk until the core has it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent import protocol
from agent.budget import LogBudget
from agent.files import read_text, write_private
from agent.protocol import AgentState, Log, ProtocolError, Result, Service, Status
from agent.spool import Spool

CAP_BYTES = 64 * 1024 * 1024  # reference/security.md: more than any build says while the core restarts.
RESULTS_KEPT = 200  # A command is never repeated after this many others.
UNREADABLE = "[stagely] a record was dropped here: it was unreadable after the machine's restart.\n"
LOST = "a record was lost here: the disk was full, and the agent restarted before the core had it"
_BEGUN = "begun"  # The folder of a spool that has not taken everything over yet.
_TAKEN = "taken"  # In such a folder: which others it stands for.
_RESULT = '{"type":"RESULT",'  # As `encode` begins it: logs, which are most of a spool, need no decoding.

log = logging.getLogger("stagely.agent.outbox")


class ResultStore(Mapping[str, Result]):
    """The answers of earlier commands, one file each, so that a restarted agent does not execute them again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._results: dict[str, Result] = {}
        for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
            self._load(path)

    def keep(self, result: Result) -> None:
        """On disk if it takes it: an answer is given also when the disk is full."""
        self._results[result.command_id] = result
        try:
            write_private(self._path(result.command_id), protocol.encode(result))
        except OSError as error:
            log.warning("the result of command %s is kept in memory only: %s", result.command_id, error)
        while len(self._results) > RESULTS_KEPT:
            oldest = next(iter(self._results))
            del self._results[oldest]
            self._path(oldest).unlink(missing_ok=True)

    def __getitem__(self, command_id: str) -> Result:
        return self._results[command_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def _path(self, command_id: str) -> Path:
        return self._folder / f"{command_id.encode().hex()}.json"  # An id comes from outside: it must not be a path.

    def _load(self, path: Path) -> None:
        try:
            result = protocol.decode_to_core(path.read_text())
        except (ProtocolError, UnicodeDecodeError) as error:
            log.warning("stored result is unreadable, forgetting it: %s", error)
            path.unlink(missing_ok=True)
            return
        if isinstance(result, Result):
            self._results[result.command_id] = result


class Outbox:
    """Log, Status and Result on their way. Logs are dropped beyond `cap_bytes`, and the stream says how many.

    Beyond a command's `budget` each of its streams says so once, and nothing more.
    """

    def __init__(
        self, spool: Spool, results: ResultStore, cap_bytes: int = CAP_BYTES, budget: LogBudget | None = None
    ) -> None:
        self.spool = spool
        self.results = results
        self._cap_bytes = cap_bytes
        self._budget = budget or LogBudget()
        self._ended: set[tuple[str, str]] = set()
        self._dropped: dict[tuple[str, str], int] = {}
        self._grown = asyncio.Event()
        self._shrunk = asyncio.Event()

    def log(self, command_id: str, stream: str, data: str) -> None:
        """Whole, masked lines of one stream."""
        for piece in pieces(data):
            if self.is_used_up(command_id):
                break
            if not self._say_dropped(command_id, stream) or not self._append_log(command_id, stream, piece):
                self._dropped[command_id, stream] = self._dropped.get((command_id, stream), 0) + piece.count("\n")
        if self.is_used_up(command_id):
            self._say_ended(command_id, stream)

    def is_used_up(self, command_id: str) -> bool:
        """Whether nothing that this command logs from now on is kept."""
        return self._budget.is_used_up(command_id)

    def status(
        self,
        command_id: str,
        state: AgentState,
        step: str = "",
        message: str = "",
        services: tuple[Service, ...] = (),
    ) -> None:
        """Best effort: a Status tells how far a command is, and nothing waits for it."""
        status = Status(self.spool.next_seq, command_id, state, step, message, services)
        try:
            self.spool.append(protocol.encode(status))
        except OSError as error:
            log.warning("a status is dropped, the spool cannot be written: %s", error)
            return
        self._grown.set()

    def result(self, result: Result) -> int:
        """Keep the answer, put it into the spool, on a full disk into memory, and return its seq."""
        numbered = dataclasses.replace(result, seq=self.spool.next_seq)
        self.results.keep(numbered)
        seq = self.spool.append_or_hold(protocol.encode(numbered))
        self._grown.set()
        return seq

    def unsaid_results(self) -> dict[str, int]:
        """The seq of every Result that an earlier process left in the spool, by command.

        Each is kept as an answer, too: a machine that lost its power may have saved the one and not the other.
        """
        found: dict[str, int] = {}
        for seq, frame in _unsaid(self.spool):
            result = _readable(frame, seq) if frame.startswith(_RESULT) else None
            if isinstance(result, Result):
                found[result.command_id] = seq
                if result.command_id not in self.results:
                    self.results.keep(result)
        return found

    def forget(self, seq: int) -> None:
        self.spool.forget(seq)
        self._shrunk.set()

    async def wait_beyond(self, seq: int) -> None:
        """Return when there is a record above `seq`."""
        while self.spool.last_seq <= seq:
            self._grown.clear()
            await self._grown.wait()

    async def wait_for_room(self) -> None:
        """Return when half of the cap is free: for those who can read their lines later as well."""
        while self.spool.size_bytes > self._cap_bytes // 2:
            self._shrunk.clear()
            await self._shrunk.wait()

    async def wait_until_acked(self, seq: int) -> None:
        while self.spool.acked_seq < seq:
            self._shrunk.clear()
            await self._shrunk.wait()

    def _append_log(self, command_id: str, stream: str, data: str) -> bool:
        if self.spool.size_bytes >= self._cap_bytes:
            return False
        try:
            self.spool.append(protocol.encode(Log(self.spool.next_seq, command_id, stream, data)))
        except OSError as error:
            log.warning("log lines dropped, the spool cannot be written: %s", error)
            return False
        self._budget.spend(command_id, len(data.encode()))
        self._grown.set()
        return True

    def _say_ended(self, command_id: str, stream: str) -> None:
        if (command_id, stream) not in self._ended:
            mib = self._budget.limit_bytes / 2**20
            marker = f"[stagely] the log ends here: this command has written {mib:g} MiB, and no more of it is kept.\n"
            if self._append_log(command_id, stream, marker):
                self._ended.add((command_id, stream))

    def _say_dropped(self, command_id: str, stream: str) -> bool:
        lines = self._dropped.get((command_id, stream), 0)
        if not lines:
            return True
        marker = f"[stagely] {lines} lines were dropped here: the core was away and the spool was full.\n"
        if not self._append_log(command_id, stream, marker):
            return False
        del self._dropped[command_id, stream]
        return True


def pieces(data: str) -> Iterator[str]:
    """`data` cut between lines so that no Log gets larger than MAX_LOG_BYTES as JSON (but for one longer line)."""
    lines: list[str] = []
    size_bytes = 0
    for line in _lines(data):
        line_bytes = len(json.dumps(line, ensure_ascii=False).encode())
        if lines and size_bytes + line_bytes > protocol.MAX_LOG_BYTES:
            yield "".join(lines)
            lines, size_bytes = [], 0
        lines.append(line)
        size_bytes += line_bytes
    if lines:
        yield "".join(lines)


def _lines(data: str) -> list[str]:
    """Split at newlines only: `splitlines` also splits at U+2028 and others, which are text here."""
    parts = data.split("\n")
    return [part + "\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def open_spool(state_dir: Path, run_dir: Path) -> tuple[str, Spool]:
    """The boot id and its spool. After a reboot `run_dir` is empty: then both are new and take over what was unsaid.

    The id is our own: a container's /proc shows the host's boot id.
    """
    folder, id_file = state_dir / "spool", run_dir / "boot_id"
    boot_id = (read_text(id_file) or "").strip()
    if boot_id and (folder / boot_id).is_dir():
        spool = Spool(folder / boot_id)
        for seq in spool.missing():
            spool.stand_in(seq, protocol.encode(Status(seq, "", AgentState.IDLE, message=LOST)))
    else:
        boot_id = os.urandom(16).hex()
        spool = _taken_over(folder)
        write_private(id_file, boot_id)
        spool.move(folder / boot_id)  # The one step behind which a kill finds everything taken over, before it nothing.
    for earlier in folder.iterdir():
        if earlier.name != boot_id:
            shutil.rmtree(earlier)
    return boot_id, spool


def _taken_over(folder: Path) -> Spool:
    """A spool under a name that no boot has, with all that earlier boots had to say still."""
    shutil.rmtree(folder / _BEGUN, ignore_errors=True)
    done = {name for path in folder.glob(f"*/{_TAKEN}") for name in (read_text(path) or "").split()}
    unsaid = (path for path in folder.glob("*") if path.name not in done)
    earlier_ones = sorted(unsaid, key=lambda path: path.stat().st_mtime_ns)
    spool = Spool(folder / _BEGUN)
    for earlier in earlier_ones:
        _take_over(earlier, spool)
    with contextlib.suppress(OSError):  # A full disk: only a reboot before the earlier ones are gone says them twice.
        write_private(folder / _BEGUN / _TAKEN, "\n".join(done | {earlier.name for earlier in earlier_ones}))
    return spool


def _take_over(earlier: Path, spool: Spool) -> None:
    """What is unreadable there is left out: where the line stood the stream says so, else the journal."""
    old = Spool(earlier)
    last_log = None
    for number, frame in _unsaid(old):
        message = _readable(frame, number) or (last_log and dataclasses.replace(last_log, data=UNREADABLE))
        if message is not None:
            spool.append_or_hold(protocol.encode(dataclasses.replace(message, seq=spool.next_seq)))
        last_log = message if isinstance(message, Log) else last_log
    old.close()


def _unsaid(spool: Spool) -> Iterator[tuple[int, str]]:
    """What is not confirmed: (seq, frame), in order."""
    seq = spool.acked_seq
    while records := spool.read(seq, protocol.MAX_FRAME_BYTES):
        yield from records
        seq = records[-1][0]


def _readable(frame: str, seq: int) -> Log | Status | Result | None:
    try:
        message = protocol.decode_to_core(frame)
    except ProtocolError as error:
        log.warning("record %d of an earlier boot is dropped, it is unreadable: %s", seq, error)
        return None
    return message if isinstance(message, Log | Status | Result) else None
