"""The disk spool: what the agent has said and the core has not yet confirmed.

A folder of append-only segments. A segment is named by the seq of its first record and holds one frame per line (JSON
text has no raw newline), so that a record's seq is the segment's number plus its line. `kill -9` of the agent loses
nothing that `append` returned for; half a line at the end of the last segment is cut off when the spool is opened.
A record that must not be refused for want of disk is held in memory, as a segment of its own: it is read and sent like
any other, and only the end of the process loses it. An empty file keeps its place, so that the next process knows which
numbers are `missing` and lets others stand in for them: the core takes no number before the one that precedes it.
One process at a time.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

SEGMENT_BYTES = 1024 * 1024  # What an Ack may leave on disk although it is confirmed.

log = logging.getLogger("stagely.agent.spool")


@dataclass(slots=True)
class _Segment:
    """`ends[i]` is the offset behind record `first_seq + i`. `held` is the content when no file has it."""

    path: Path
    first_seq: int
    ends: list[int] = field(default_factory=list)
    held: bytes = b""

    @property
    def size_bytes(self) -> int:
        return self.ends[-1] if self.ends else 0

    @property
    def last_seq(self) -> int:
        return self.first_seq + len(self.ends) - 1


class Spool:
    """Records numbered from 1 without gaps. `acked_seq` is the highest one that `forget` was told."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._segments = _load_segments(folder)
        self._out = self._open_last()
        self._acked_file = os.open(folder / "acked", os.O_RDWR | os.O_CREAT, 0o600)
        forgotten = self._segments[0].first_seq - 1  # Segments leave the disk only when they are confirmed.
        self.acked_seq = max(_number(os.pread(self._acked_file, 20, 0)), forgotten)
        if self.acked_seq >= self.next_seq:
            self._begin_segment(self.acked_seq + 1)  # Records that were only in memory: their numbers are used up.

    @property
    def last_seq(self) -> int:
        """That of the newest record, `acked_seq` when there is none."""
        return next((one.last_seq for one in reversed(self._segments) if one.ends), self.acked_seq)

    @property
    def next_seq(self) -> int:
        return self._segments[-1].last_seq + 1

    @property
    def size_bytes(self) -> int:
        """On disk, confirmed records of a segment in use included."""
        return sum(segment.size_bytes for segment in self._segments)

    def append(self, frame: str) -> int:
        """Keep one more frame and return its seq. Raises OSError when the disk is full; then nothing was kept."""
        segment = self._segments[-1]
        if segment.held or segment.size_bytes >= self._segment_bytes:
            segment = self._begin_segment(self.next_seq)
        line = frame.encode() + b"\n"
        try:
            _write_all(self._out, line)
        except OSError:
            os.ftruncate(self._out, segment.size_bytes)
            raise
        segment.ends.append(segment.size_bytes + len(line))
        return segment.last_seq

    def append_or_hold(self, frame: str) -> int:
        """Like `append`, but in memory when the disk refuses."""
        try:
            return self.append(frame)
        except OSError as error:
            log.warning("a record is held in memory, the spool cannot be written: %s", error)
        held = self._held(self.next_seq, frame)
        if not self._segments[-1].ends:
            self._segments.pop()  # Its file is open still, gets no record any more, and keeps the place.
        else:
            with contextlib.suppress(OSError):
                held.path.touch(mode=0o600)
        self._segments.append(held)
        return held.first_seq

    def missing(self) -> list[int]:
        """Unconfirmed numbers of records that only an earlier process had in memory, with others behind them."""
        pairs = pairwise(self._segments)
        return [seq for one, other in pairs for seq in range(max(one.last_seq, self.acked_seq) + 1, other.first_seq)]

    def stand_in(self, seq: int, frame: str) -> None:
        """Hold this in place of a missing record."""
        behind = next(at for at, segment in enumerate(self._segments) if segment.first_seq > seq)
        before = self._segments[behind - 1]
        begin = behind - 1 if before.first_seq == seq else behind
        self._segments[begin:behind] = [self._held(seq, frame)]

    def read(self, after_seq: int, limit_bytes: int) -> list[tuple[int, str]]:
        """Records with a seq above `after_seq`, in order: at least one if there is one, at most `limit_bytes` or so."""
        for segment in self._segments:
            if segment.ends and segment.last_seq > after_seq:
                return _read_segment(segment, max(after_seq + 1, segment.first_seq), limit_bytes)
        return []

    def forget(self, seq: int) -> None:
        """Records up to `seq` are stored by the core, maybe also some that an earlier process had only in memory."""
        if seq >= self.next_seq:
            with contextlib.suppress(OSError):
                self._begin_segment(seq + 1)
        seq = min(seq, self.next_seq - 1)
        if seq <= self.acked_seq:
            return
        self.acked_seq = seq
        with contextlib.suppress(OSError):  # A full disk: after a restart the core says itself what it has.
            os.pwrite(self._acked_file, b"%020d" % seq, 0)
        while len(self._segments) > 1 and self._segments[0].last_seq <= seq:
            self._segments.pop(0).path.unlink(missing_ok=True)

    def move(self, folder: Path) -> None:
        """Lie in this folder from now on, which must not exist yet."""
        self._folder.rename(folder)
        self._folder = folder
        for segment in self._segments:
            segment.path = folder / segment.path.name

    def close(self) -> None:
        os.close(self._out)
        os.close(self._acked_file)

    def _held(self, seq: int, frame: str) -> _Segment:
        line = frame.encode() + b"\n"
        return _Segment(self._folder / _name(seq), seq, [len(line)], line)

    def _open_last(self) -> int:
        return os.open(self._segments[-1].path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _begin_segment(self, first_seq: int) -> _Segment:
        """Raises OSError; then the last segment stays the last."""
        segment = _Segment(self._folder / _name(first_seq), first_seq)
        out = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.close(self._out)
        self._out = out
        self._segments.append(segment)
        return segment


def _number(text: bytes) -> int:
    """0 when nothing was written, or only half."""
    try:
        return int(text or b"0")
    except ValueError:
        log.warning("the spool's `acked` is unreadable, what it holds is said again")
        return 0


def _name(first_seq: int) -> str:
    return f"{first_seq:020d}.frames"


def _load_segments(folder: Path) -> list[_Segment]:
    segments = [_load_segment(path) for path in sorted(folder.glob("*.frames"))]
    return segments or [_Segment(folder / _name(1), 1)]


def _load_segment(path: Path) -> _Segment:
    written = path.read_bytes()
    ends: list[int] = []
    at = written.find(b"\n") + 1
    while at:
        ends.append(at)
        at = written.find(b"\n", at) + 1
    if len(written) > (ends[-1] if ends else 0):
        os.truncate(path, ends[-1] if ends else 0)
    return _Segment(path, int(path.stem), ends)


def _read_segment(segment: _Segment, first: int, limit_bytes: int) -> list[tuple[int, str]]:
    index = first - segment.first_seq
    begin = segment.ends[index - 1] if index else 0
    count = 1
    while index + count < len(segment.ends) and segment.ends[index + count] - begin <= limit_bytes:
        count += 1
    lines = _content(segment, begin, segment.ends[index + count - 1]).decode(errors="replace").split("\n")[:-1]
    return [(first + i, line) for i, line in enumerate(lines)]


def _content(segment: _Segment, begin: int, end: int) -> bytes:
    if segment.held:
        return segment.held[begin:end]
    with segment.path.open("rb") as file:
        file.seek(begin)
        return file.read(end - begin)


def _write_all(descriptor: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
