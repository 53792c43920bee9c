"""How long an agent waits before it dials again."""

from agent.connection import Backoff


def test_waits_after_a_loss_spread_over_the_first_wait_and_double_with_failures() -> None:
    backoff = Backoff(10.0, uniform=lambda _, high: high)

    waits = [
        backoff.after_failure(was_refused=False, now=0.0),
        backoff.after_loss(now=100.0),
        backoff.after_failure(was_refused=True, now=105.0),
        backoff.after_failure(was_refused=False, now=106.0),
        backoff.after_failure(was_refused=True, now=111.0),
        backoff.after_failure(was_refused=True, now=112.0),
    ]

    assert waits == [2.0, 10.0, 10.0, 20.0, 40.0, 60.0]
