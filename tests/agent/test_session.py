"""The agent's end of the protocol, without I/O."""

from agent.protocol import Ack, Build, Hello, Mask, Outcome, Prepare, Refused, Result, Shutdown, Stop, Welcome
from agent.session import (
    AnswerAgain,
    Cancel,
    Credential,
    Execute,
    Forget,
    Hide,
    Identity,
    Phase,
    PowerOff,
    Reconnect,
    Session,
    Welcomed,
)

BUILD = Build(
    command_id="c1",
    repo="http://git/x.git",
    sha="0" * 40,
    target="api",
    arch="amd64",
    context=".",
    dockerfile="Dockerfile",
    push_to="r/p/e/api",
    cache="r/p/cache/api:amd64",
    timeout_s=60.0,
)
DONE = Result(3, "c1", Outcome.SUCCEEDED, "sha256:1")


FIRST = Credential("k1", "", "s1")


def new(results: dict[str, Result] | None = None, acked_seq: int = 0) -> Session:
    return Session(Identity("a1", "b1", "t1"), {} if results is None else results, acked_seq)


def online(results: dict[str, Result] | None = None) -> Session:
    session = new(results)
    session.connected(FIRST)
    session.received(Welcome(30.0, 0))
    return session


def test_hello_carries_the_token_as_long_as_there_is_no_session_to_show() -> None:
    session = new()

    first = session.connected(FIRST)
    session.received(Welcome(30.0, 0))
    session.lost()
    second = session.connected(Credential("k1", "s1", "s2"))

    assert first == Hello("a1", "k1", "", "b1", "", "s1", "t1")
    assert second == Hello("a1", "k1", "", "b1", "s1", "s2", "")


def test_a_second_welcome_of_one_connection_renews_nothing() -> None:
    session = online()

    effects = session.received(Welcome(30.0, 0))

    assert effects == (Reconnect("the core said WELCOME to no HELLO"),)


def test_welcome_forgets_what_the_core_has_and_sends_the_rest_again() -> None:
    session = new(acked_seq=2)
    session.connected(FIRST)
    session.sent(9)

    effects = session.received(Welcome(30.0, 5))

    assert effects == (Forget(5), Welcomed(30.0))
    assert session.sent_seq == 5
    assert session.phase is Phase.ONLINE


def test_a_welcome_that_knows_less_than_was_acknowledged_does_not_go_back_to_what_is_gone() -> None:
    session = new(acked_seq=7)
    session.connected(FIRST)

    effects = session.received(Welcome(30.0, 3))

    assert effects == (Welcomed(30.0),)
    assert session.sent_seq == 7


def test_an_ack_is_forgotten_once() -> None:
    session = online()

    assert session.received(Ack(4)) == (Forget(4),)
    assert session.received(Ack(4)) == ()
    assert session.received(Ack(3)) == ()


def test_a_command_that_comes_twice_is_executed_once() -> None:
    session = online()

    assert session.received(BUILD) == (Execute(BUILD),)
    assert session.received(BUILD) == ()


def test_a_command_that_was_answered_is_answered_again_with_the_same_result() -> None:
    results: dict[str, Result] = {}
    session = online(results)
    session.received(BUILD)
    results["c1"] = DONE
    session.finished("c1", 3)
    session.received(Ack(3))

    assert session.received(BUILD) == (AnswerAgain(DONE),)


def test_a_repeated_command_whose_answer_is_still_in_the_spool_needs_no_second_answer() -> None:
    results: dict[str, Result] = {}
    session = online(results)
    session.received(BUILD)
    results["c1"] = DONE
    session.finished("c1", 3)

    assert session.received(BUILD) == ()


def test_a_command_answered_before_the_agent_restarted_is_not_executed_again() -> None:
    assert online({"c1": DONE}).received(BUILD) == (AnswerAgain(DONE),)


def test_stop_cancels_its_target_once() -> None:
    results: dict[str, Result] = {}
    session = online(results)

    first = session.received(Stop("s1", "c1"))
    results["s1"] = Result(1, "s1", Outcome.SUCCEEDED)
    session.finished("s1", 1)
    second = session.received(Stop("s1", "c1"))

    assert first == (Cancel("s1", "c1"),)
    assert second == ()


def test_a_final_refusal_powers_the_machine_off_and_ends_the_session() -> None:
    session = new()
    session.connected(FIRST)

    effects = session.received(Refused("revoked", "the environment is gone", final=True))
    session.lost()

    assert effects == (PowerOff("the core refused this agent: the environment is gone (revoked)"),)
    assert session.phase is Phase.ENDED


def test_another_refusal_is_tried_again_later() -> None:
    session = new()
    session.connected(FIRST)

    effects = session.received(Refused("busy", "too many agents"))

    assert effects == (Reconnect("the core refused this agent: too many agents (busy)"),)


def test_shutdown_mask_and_prepare_say_what_is_to_be_done() -> None:
    session = online()

    assert session.received(Shutdown("c9", "nobody owns this machine")) == (PowerOff("nobody owns this machine", "c9"),)
    assert session.received(Mask(("secret",))) == (Hide(("secret",)),)
    assert session.received(Prepare("c2", ("redis:8",))) == (Execute(Prepare("c2", ("redis:8",))),)
