"""What the agent has to say: results that survive, logs that say when they were dropped, a spool across reboots."""

import errno
import os
from pathlib import Path

import pytest

from agent.budget import LogBudget
from agent.outbox import LOST, UNREADABLE, Outbox, ResultStore, open_spool, pieces
from agent.protocol import MAX_FRAME_BYTES, AgentState, Log, Outcome, Result, Status, decode_to_core, encode
from agent.spool import Spool


def new(folder: Path, cap_bytes: int = 1024 * 1024, segment_bytes: int = 64) -> Outbox:
    return Outbox(Spool(folder / "spool", segment_bytes), ResultStore(folder / "results"), cap_bytes)


def said(outbox: Outbox) -> list[object]:
    found: list[object] = []
    seq = outbox.spool.acked_seq
    while records := outbox.spool.read(seq, MAX_FRAME_BYTES):
        found += [decode_to_core(frame) for _, frame in records]
        seq = records[-1][0]
    return found


def test_a_result_is_known_to_the_next_process(tmp_path: Path) -> None:
    outbox = new(tmp_path)

    seq = outbox.result(Result(0, "../c1", Outcome.SUCCEEDED, "sha256:1", phases={"build": 1.5}))

    assert seq == 1
    assert ResultStore(tmp_path / "results")["../c1"] == Result(
        1, "../c1", Outcome.SUCCEEDED, "sha256:1", phases={"build": 1.5}
    )


def test_results_that_still_wait_in_the_spool_are_known_to_the_next_process(tmp_path: Path) -> None:
    first = new(tmp_path)
    first.result(Result(0, "c1", Outcome.SUCCEEDED))
    first.log("c2", "build/api", "a line\n")
    first.result(Result(0, "c2", Outcome.FAILED))
    first.forget(1)

    assert new(tmp_path).unsaid_results() == {"c2": 3}


def test_a_result_of_which_only_the_spool_was_saved_is_an_answer_again(tmp_path: Path) -> None:
    new(tmp_path).result(Result(0, "c1", Outcome.SUCCEEDED))
    (tmp_path / "results" / f"{b'c1'.hex()}.json").write_text("")

    again = new(tmp_path)

    assert again.unsaid_results() == {"c1": 1}
    assert again.results["c1"] == Result(1, "c1", Outcome.SUCCEEDED)
    assert ResultStore(tmp_path / "results")["c1"] == Result(1, "c1", Outcome.SUCCEEDED)


def test_beyond_the_cap_logs_are_dropped_and_the_stream_says_so(tmp_path: Path) -> None:
    outbox = new(tmp_path, cap_bytes=600)
    outbox.log("c1", "build/api", "kept" * 80 + "\n")
    outbox.log("c1", "build/api", "kept" * 80 + "\n")
    outbox.log("c1", "build/api", "lost\nlost\n")
    outbox.log("c1", "build/api", "lost\n")
    outbox.result(Result(0, "c1", Outcome.SUCCEEDED))

    outbox.forget(3)
    outbox.log("c1", "build/api", "back\n")

    assert said(outbox) == [
        Log(4, "c1", "build/api", "[stagely] 3 lines were dropped here: the core was away and the spool was full.\n"),
        Log(5, "c1", "build/api", "back\n"),
    ]


def test_a_result_is_kept_although_the_spool_is_full(tmp_path: Path) -> None:
    outbox = new(tmp_path, cap_bytes=1)
    outbox.log("c1", "build/api", "one\n")

    outbox.result(Result(0, "c1", Outcome.FAILED))

    assert [type(message).__name__ for message in said(outbox)] == ["Log", "Result"]


def test_a_big_log_is_cut_between_lines_into_frames_that_fit() -> None:
    line = "\x1b" * 1000 + "\n"

    parts = list(pieces(line * 300))

    assert "".join(parts) == line * 300
    assert all(part.endswith("\n") for part in parts)
    assert max(len(encode(Log(1, "c", "s", part)).encode()) for part in parts) < MAX_FRAME_BYTES


def test_after_a_restart_the_boot_goes_on_with_its_spool(tmp_path: Path) -> None:
    first_boot, first = open_spool(tmp_path / "state", tmp_path / "run")
    first.append("x")
    first.close()

    second_boot, second = open_spool(tmp_path / "state", tmp_path / "run")

    assert second_boot == first_boot
    assert second.last_seq == 1


def test_after_a_reboot_a_new_boot_takes_over_what_was_not_acknowledged(tmp_path: Path) -> None:
    first_boot, first = open_spool(tmp_path / "state", tmp_path / "before")
    first.append(encode(Log(1, "c1", "deploy", "stored\n")))
    first.append(encode(Log(2, "c1", "deploy", "not stored\n")))
    first.append(encode(Result(3, "c1", Outcome.SUCCEEDED)))
    first.forget(1)
    first.close()

    second_boot, second = open_spool(tmp_path / "state", tmp_path / "after")

    assert second_boot != first_boot
    assert [decode_to_core(frame) for _, frame in second.read(0, MAX_FRAME_BYTES)] == [
        Log(1, "c1", "deploy", "not stored\n"),
        Result(2, "c1", Outcome.SUCCEEDED),
    ]
    assert [path.name for path in (tmp_path / "state" / "spool").iterdir()] == [second_boot]


class Killed(BaseException):
    """Stands for kill -9: nothing that follows happens."""


def test_a_kill_while_an_earlier_boot_is_taken_over_says_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsaid = leave_two_lines(tmp_path)
    append, appended = Spool.append_or_hold, list[str]()

    def append_once(spool: Spool, frame: str) -> int:
        if appended:
            raise Killed
        appended.append(frame)
        return append(spool, frame)

    with monkeypatch.context() as until_killed:
        until_killed.setattr(Spool, "append_or_hold", append_once)
        with pytest.raises(Killed):
            open_spool(tmp_path / "state", tmp_path / "after")
    _, spool = open_spool(tmp_path / "state", tmp_path / "after")

    assert [decode_to_core(frame) for _, frame in spool.read(0, MAX_FRAME_BYTES)] == unsaid


@pytest.mark.parametrize("next_boot", ["after", "another"])
def test_a_kill_right_after_an_earlier_boot_was_taken_over_says_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, next_boot: str
) -> None:
    unsaid = leave_two_lines(tmp_path)

    def never_removed(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            raise Killed

    with monkeypatch.context() as until_killed:
        until_killed.setattr("agent.outbox.shutil.rmtree", never_removed)
        with pytest.raises(Killed):
            open_spool(tmp_path / "state", tmp_path / "after")
    boot_id, spool = open_spool(tmp_path / "state", tmp_path / next_boot)

    assert [decode_to_core(frame) for _, frame in spool.read(0, MAX_FRAME_BYTES)] == unsaid
    assert [path.name for path in (tmp_path / "state" / "spool").iterdir()] == [boot_id]


def leave_two_lines(folder: Path) -> list[Log]:
    """What an earlier boot had to say."""
    lines = [Log(1, "c1", "deploy", "one\n"), Log(2, "c1", "deploy", "two\n")]
    _, spool = open_spool(folder / "state", folder / "before")
    for line in lines:
        spool.append(encode(line))
    spool.close()
    return lines


def test_a_stored_result_that_is_no_message_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "00.json").write_text("{half")

    assert len(ResultStore(tmp_path / "results")) == 0


def test_on_a_full_disk_a_status_is_dropped_and_a_result_is_said(tmp_path: Path) -> None:
    outbox = new(tmp_path)
    (tmp_path / "results").rmdir()
    (tmp_path / "results").write_text("")  # Nothing can be written beneath it.
    os.close(outbox.spool._out)
    outbox.spool._out = os.open("/dev/full", os.O_WRONLY)

    outbox.status("c1", AgentState.BUILDING, "build")
    seq = outbox.result(Result(0, "c1", Outcome.FAILED))

    assert said(outbox) == [Result(seq, "c1", Outcome.FAILED)]
    assert outbox.results["c1"].seq == seq


@pytest.mark.parametrize("confirmed", [0, 1])
def test_a_result_that_only_a_killed_agent_had_leaves_no_gap_in_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, confirmed: int
) -> None:
    _, spool = open_spool(tmp_path / "state", tmp_path / "run")
    outbox = Outbox(spool, ResultStore(tmp_path / "results"))
    outbox.log("c1", "deploy", "a line\n")
    outbox.forget(confirmed)
    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "write", _refuse)
        outbox.result(Result(0, "c1", Outcome.SUCCEEDED))
        outbox.result(Result(0, "c2", Outcome.SUCCEEDED))
    outbox.log("c3", "deploy", "another line\n")

    _, spool = open_spool(tmp_path / "state", tmp_path / "run")
    behind = said(Outbox(spool, ResultStore(tmp_path / "results")))
    spool.forget(2)
    _, later = open_spool(tmp_path / "state", tmp_path / "run")

    assert behind[1 - confirmed :] == [
        Status(2, "", AgentState.IDLE, message=LOST),
        Status(3, "", AgentState.IDLE, message=LOST),
        Log(4, "c3", "deploy", "another line\n"),
    ]
    assert [seq for seq, _ in later.read(2, MAX_FRAME_BYTES)] == [3]


def _refuse(descriptor: int, data: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_first_record_of_all_may_be_one_that_was_lost(tmp_path: Path) -> None:
    _, spool = open_spool(tmp_path / "state", tmp_path / "run")
    outbox = Outbox(spool, ResultStore(tmp_path / "results"))
    spool._out = os.open("/dev/full", os.O_WRONLY)
    outbox.result(Result(0, "c1", Outcome.SUCCEEDED))
    outbox.log("c2", "deploy", "a line\n")

    _, spool = open_spool(tmp_path / "state", tmp_path / "run")

    assert spool.acked_seq == 0
    assert [seq for seq, _ in spool.read(0, MAX_FRAME_BYTES)] == [1]
    assert [seq for seq, _ in spool.read(1, MAX_FRAME_BYTES)] == [2]


def test_an_unreadable_record_is_left_out_and_the_stream_says_so(tmp_path: Path) -> None:
    _, first = open_spool(tmp_path / "state", tmp_path / "before")
    first.append("\x00\x00")
    first.append(encode(Log(2, "c1", "deploy", "one\n")))
    first.append("{half")
    first.append(encode(Log(4, "c1", "deploy", "two\n")))
    first.close()

    _, second = open_spool(tmp_path / "state", tmp_path / "after")

    assert [decode_to_core(frame) for _, frame in second.read(0, MAX_FRAME_BYTES)] == [
        Log(1, "c1", "deploy", "one\n"),
        Log(2, "c1", "deploy", UNREADABLE),
        Log(3, "c1", "deploy", "two\n"),
    ]


def test_beyond_its_budget_each_stream_of_a_command_says_once_that_its_log_ends(tmp_path: Path) -> None:
    spool, results = Spool(tmp_path / "spool"), ResultStore(tmp_path / "results")
    outbox = Outbox(spool, results, budget=LogBudget(limit_bytes=11))
    ended = "[stagely] the log ends here: this command has written 1.04904e-05 MiB, and no more of it is kept.\n"

    outbox.log("c1", "service/web", "0123456789\n")
    outbox.log("c1", "service/web", "lost\n")
    outbox.log("c1", "service/api", "lost\n")
    outbox.log("c2", "service/web", "new\n")

    assert said(outbox) == [
        Log(1, "c1", "service/web", "0123456789\n"),
        Log(2, "c1", "service/web", ended),
        Log(3, "c1", "service/api", ended),
        Log(4, "c2", "service/web", "new\n"),
    ]


def test_a_restart_grants_no_new_budget(tmp_path: Path) -> None:
    limit = 3 * 1024 * 1024
    LogBudget(tmp_path / "log-bytes.json", limit).spend("c1", limit)

    again = LogBudget(tmp_path / "log-bytes.json", limit)

    assert again.is_used_up("c1")
    assert not again.is_used_up("c2")


def test_an_unreadable_budget_counts_anew(tmp_path: Path) -> None:
    (tmp_path / "log-bytes.json").write_text("{half")

    assert not LogBudget(tmp_path / "log-bytes.json").is_used_up("c1")
