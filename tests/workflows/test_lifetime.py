from __future__ import annotations

from workflows.lifetime import Due, Lifetime, Warning

HOUR, DAY = 3600.0, 86400.0
NOW = 1_800_000_000.0


def begun(ttl_s: float = DAY) -> Lifetime:
    lifetime = Lifetime(margin_s=6 * HOUR, vm_expires_at=NOW + ttl_s + 6 * HOUR)
    lifetime.begin(NOW, ttl_s)
    return lifetime


def test_nothing_counts_before_the_first_push_has_ended() -> None:
    lifetime = Lifetime(margin_s=6 * HOUR)

    assert (lifetime.due(NOW), lifetime.wakes_at(NOW)) == (Due.NOTHING, None)


def test_a_days_preview_is_warned_about_six_hours_and_one_hour_ahead_and_then_ends() -> None:
    lifetime = begun()

    assert lifetime.wakes_at(NOW) == NOW + 18 * HOUR
    assert lifetime.due(NOW + 18 * HOUR) is Due.WARN
    lifetime.warn(NOW + 18 * HOUR)
    assert (lifetime.warning, lifetime.due(NOW + 18 * HOUR)) == (Warning.EARLY, Due.NOTHING)
    assert lifetime.wakes_at(NOW + 18 * HOUR) == NOW + 23 * HOUR
    lifetime.warn(NOW + 23 * HOUR)
    assert (lifetime.warning, lifetime.wakes_at(NOW + 23 * HOUR)) == (Warning.LAST, NOW + 24 * HOUR)
    assert lifetime.due(NOW + 24 * HOUR) is Due.END


def test_a_fortnights_preview_is_first_warned_about_a_day_ahead() -> None:
    assert begun(14 * DAY).wakes_at(NOW) == NOW + 13 * DAY


def test_a_short_preview_is_warned_about_once() -> None:
    lifetime = begun(2 * HOUR)
    lifetime.warn(NOW + 1.5 * HOUR)

    assert (lifetime.warning, lifetime.wakes_at(NOW + 1.5 * HOUR)) == (Warning.EARLY, NOW + 2 * HOUR)


def test_a_worker_that_was_away_gives_only_the_last_warning() -> None:
    lifetime = begun()

    lifetime.warn(NOW + 23.5 * HOUR)

    assert lifetime.warning is Warning.LAST


def test_an_extension_counts_from_the_end_and_takes_the_warning_back() -> None:
    lifetime = begun()
    lifetime.warn(NOW + 18 * HOUR)

    lifetime.extend(NOW + 18 * HOUR, 12 * HOUR)

    assert (lifetime.expires_at, lifetime.warning) == (NOW + 36 * HOUR, Warning.NONE)


def test_a_deploy_does_not_take_an_extension_back() -> None:
    lifetime = begun()
    lifetime.extend(NOW, 48 * HOUR)

    lifetime.begin(NOW + HOUR, DAY)

    assert lifetime.expires_at == NOW + 72 * HOUR


def test_a_pinned_preview_has_no_end_and_its_machines_deadline_is_moved_ahead_of_time() -> None:
    lifetime = begun()
    lifetime.pin(NOW, pinned=True)

    assert lifetime.asked().expires_at is None
    assert lifetime.wakes_at(NOW) == NOW + 27 * HOUR
    assert lifetime.due(NOW + 27 * HOUR) is Due.RENEW
    assert lifetime.needs_renewal(NOW + 27 * HOUR)
    assert lifetime.renew(NOW + 27 * HOUR) == NOW + 27 * HOUR + 30 * HOUR
    assert lifetime.due(NOW + 27 * HOUR) is Due.NOTHING


def test_unpinning_counts_the_whole_time_from_now() -> None:
    lifetime = begun()
    lifetime.pin(NOW, pinned=True)

    lifetime.pin(NOW + 100 * DAY, pinned=False)

    assert lifetime.expires_at == NOW + 101 * DAY


def test_pinning_twice_changes_nothing_and_unpinning_what_is_not_pinned_neither() -> None:
    lifetime = begun()

    lifetime.pin(NOW + HOUR, pinned=False)

    assert lifetime.expires_at == NOW + DAY


def test_a_failed_push_leaves_the_end_of_what_serves_where_it_was() -> None:
    lifetime = begun()

    lifetime.resume(NOW + HOUR, DAY)

    assert lifetime.expires_at == NOW + DAY


def test_a_failed_push_at_the_very_end_leaves_time_to_read_why() -> None:
    lifetime = begun()

    lifetime.resume(NOW + 25 * HOUR, DAY)

    assert lifetime.expires_at == NOW + 31 * HOUR


def test_the_machines_deadline_stays_beyond_the_previews_end() -> None:
    lifetime = begun()
    lifetime.extend(NOW, 2 * DAY)

    assert lifetime.needs_renewal(NOW)
    assert lifetime.renew(NOW) == NOW + 3 * DAY + 6 * HOUR
    assert not lifetime.needs_renewal(NOW)


def test_while_a_push_runs_nothing_ends_but_its_machines_deadline_moves_on() -> None:
    lifetime = begun()
    renewal = NOW + 27 * HOUR  # Half of the margin before the machine's deadline.

    assert lifetime.due(NOW + 25 * HOUR, is_pushing=True) is Due.NOTHING
    assert lifetime.wakes_at(NOW + 25 * HOUR, is_pushing=True) == renewal
    assert lifetime.due(renewal, is_pushing=True) is Due.RENEW
    assert lifetime.needs_renewal(renewal)
    assert lifetime.renew(renewal) == renewal + 6 * HOUR
    assert lifetime.due(renewal, is_pushing=True) is Due.NOTHING
    assert lifetime.due(renewal) is Due.END


def test_a_push_that_ends_long_before_its_machines_deadline_sets_no_timer() -> None:
    assert begun(3 * DAY).wakes_at(NOW, is_pushing=True) is None
