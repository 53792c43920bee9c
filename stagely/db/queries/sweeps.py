"""What the reaper reads, and the few rows that are its own. Ages are measured by the database's clock alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, text
from sqlalchemy.ext.asyncio import AsyncEngine

from stagely.db.tables import build_slots
from stagely.states import GONE, VmState

BEAT_GAP_S = 30.0  # Six beats of a gateway: a longer pause, and it may have missed what an agent said.
_GONE = [str(state) for state in GONE]


@dataclass(frozen=True, slots=True)
class Overview:
    """`providers`: every cloud that the ledger or a project names, in any state."""

    living_vms: int
    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SweptVm:
    """A ledger row. `expired_s` is negative before the deadline; `running_s` and `silent_s` are 0 before it runs."""

    vm_id: str
    provider: str
    state: VmState
    owner_workflow_id: str
    age_s: float
    running_s: float
    expired_s: float
    silent_s: float


@dataclass(frozen=True, slots=True)
class SweptEnvironment:
    id: str
    project_id: str
    repo_full_name: str
    pr: int
    status: str


@dataclass(frozen=True, slots=True)
class SweptSlot:
    """`is_dead`: its job or run has ended, its environment is gone, or every VM it ever had is."""

    build_id: str
    run_id: str
    is_dead: bool


@dataclass(frozen=True, slots=True)
class Sighting:
    """`count`: sweeps in a row that saw it, this one included; `known_s`: seconds since the first of them."""

    subject: str
    count: int
    known_s: float


async def overview(engine: AsyncEngine) -> Overview:
    async with engine.connect() as db:
        row = (await db.execute(_OVERVIEW)).one()
    return Overview(row.living, tuple(row.providers or ()))


async def vms_to_sweep(engine: AsyncEngine, provider: str = "", vm_ids: Collection[str] = ()) -> list[SweptVm]:
    """Every row whose VM is not proven gone, of this provider or ("") of all, and the rows of `vm_ids`."""
    async with engine.connect() as db:
        rows = await db.execute(_VMS, {"provider": provider, "vm_ids": list(vm_ids)})
        return [
            SweptVm(
                row.id, row.provider, VmState(row.state), row.owner_workflow_id, row.age_s, row.running_s,
                row.expired_s, row.silent_s,
            )
            for row in rows
        ]  # fmt: skip


async def sight(
    engine: AsyncEngine, kind: str, subjects: Collection[str], sweep_id: str, scope: str = ""
) -> list[Sighting]:
    """Note what this sweep sees of a kind, and forget what it does not see. The same sweep again counts once."""
    values = {"kind": kind, "scope": scope, "subjects": sorted(subjects), "sweep": sweep_id}
    async with engine.begin() as db:
        await db.execute(_FORGET, values)
        rows = await db.execute(_SIGHT, values)
        return [Sighting(row.subject, row.sweeps, row.known_s) for row in rows]


async def living_environments(engine: AsyncEngine, min_age_s: float) -> list[SweptEnvironment]:
    async with engine.connect() as db:
        rows = await db.execute(_ENVIRONMENTS, {"gone": _GONE, "min_age_s": min_age_s})
        return [SweptEnvironment(r.id, r.project_id, r.repo_full_name, r.pr_number, r.status) for r in rows]


async def known_as_living(engine: AsyncEngine, environment_ids: Collection[str]) -> set[str]:
    """Those of these environments that are neither gone nor unknown."""
    async with engine.connect() as db:
        return set((await db.execute(_LIVING, {"ids": list(environment_ids), "gone": _GONE})).scalars())


async def slots(engine: AsyncEngine, min_age_s: float) -> list[SweptSlot]:
    """The build slots, held or waited for, that are old enough."""
    async with engine.connect() as db:
        rows = await db.execute(_SLOTS, {"gone": _GONE, "min_age_s": min_age_s})
        return [SweptSlot(row.build_id, row.run_id, row.is_dead) for row in rows]


async def free_slots(engine: AsyncEngine, build_ids: Sequence[str]) -> int:
    """Remove these slots; how many there were."""
    async with engine.begin() as db:
        freed = await db.execute(
            delete(build_slots).where(build_slots.c.build_id.in_(build_ids)).returning(build_slots.c.build_id)
        )
        return len(freed.all())


async def unforwarded(engine: AsyncEngine, older_than_s: float) -> int:
    """How many events of agents no owner was told for so long."""
    async with engine.connect() as db:
        return int((await db.execute(_UNFORWARDED, {"older_than_s": older_than_s})).scalar_one())


async def note_gateway(engine: AsyncEngine, instance: str) -> None:
    """A gateway is listening. After a pause of BEAT_GAP_S it counts as new; beats of a day ago are forgotten."""
    async with engine.begin() as db:
        await db.execute(_BEAT, {"instance": instance, "gap_s": BEAT_GAP_S})
        await db.execute(_FORGET_BEATS)


async def is_anyone_listening(engine: AsyncEngine, for_s: float) -> bool:
    """Whether some gateway listens now and has done so for this long without a gap."""
    async with engine.connect() as db:
        found = await db.execute(_LISTENING, {"for_s": for_s, "gap_s": BEAT_GAP_S})
        return bool(found.scalar_one())


_OVERVIEW = text("""
SELECT (SELECT count(*) FROM vms WHERE state <> 'gone') AS living,
       (SELECT array_agg(provider ORDER BY provider)
        FROM (SELECT provider FROM vms UNION SELECT provider FROM projects) AS named) AS providers
""")

_VMS = text("""
SELECT id, provider, state, owner_workflow_id,
       CAST(extract(epoch FROM now() - created_at) AS float) AS age_s,
       CAST(coalesce(extract(epoch FROM now() - coalesce(running_at, online_at)), 0) AS float) AS running_s,
       CAST(extract(epoch FROM now() - expires_at) AS float) AS expired_s,
       CAST(coalesce(extract(epoch FROM now() - coalesce(last_seen_at, online_at, running_at)), 0) AS float) AS silent_s
FROM vms
WHERE (state <> 'gone' AND (:provider = '' OR provider = :provider)) OR id = ANY(CAST(:vm_ids AS text[]))
ORDER BY created_at, id
""")

# Two statements, not one with a writing CTE: a row that is forgotten and seen again must be written anew.
_FORGET = text("""
DELETE FROM reaper_sightings
WHERE kind = :kind AND scope = :scope AND NOT subject = ANY(CAST(:subjects AS text[]))
""")

_SIGHT = text("""
INSERT INTO reaper_sightings AS s (kind, scope, subject, sweep_id, count, first_seen_at)
SELECT CAST(:kind AS text), CAST(:scope AS text), subject, CAST(:sweep AS text), 1, now()
FROM unnest(CAST(:subjects AS text[])) AS subject
ON CONFLICT (kind, scope, subject) DO UPDATE
SET count = s.count + CASE WHEN s.sweep_id = excluded.sweep_id THEN 0 ELSE 1 END, sweep_id = excluded.sweep_id
RETURNING subject, count AS sweeps, CAST(extract(epoch FROM now() - first_seen_at) AS float) AS known_s
""")

_ENVIRONMENTS = text("""
SELECT e.id, e.project_id, p.repo_full_name, e.pr_number, e.status
FROM environments e JOIN projects p ON p.id = e.project_id
WHERE NOT e.status = ANY(CAST(:gone AS text[])) AND e.created_at <= now() - make_interval(secs => :min_age_s)
ORDER BY e.created_at, e.id
""")

_LIVING = text("""
SELECT id FROM environments WHERE id = ANY(CAST(:ids AS text[])) AND NOT status = ANY(CAST(:gone AS text[]))
""")

_SLOTS = text("""
SELECT s.build_id, s.run_id,
       coalesce(j.status IN ('completed', 'failed', 'cancelled'), true)
       OR coalesce(r.status IN ('completed', 'failed', 'cancelled'), false)
       OR coalesce(e.status = ANY(CAST(:gone AS text[])), true)
       OR coalesce((SELECT bool_and(v.state = 'gone' AND v.gone_at <= now() - make_interval(secs => :min_age_s))
                    FROM vms v WHERE v.environment_id = s.environment_id AND v.build_id = s.build_id), false) AS is_dead
FROM build_slots s
LEFT JOIN build_jobs j ON j.id = s.build_id
LEFT JOIN workflow_runs r ON r.id = s.run_id
LEFT JOIN environments e ON e.id = s.environment_id
WHERE s.queued_at <= now() - make_interval(secs => :min_age_s)
ORDER BY s.number
""")

_UNFORWARDED = text("""
SELECT count(*) FROM agent_events
WHERE forwarded_at IS NULL AND received_at <= now() - make_interval(secs => :older_than_s)
""")

_BEAT = text("""
INSERT INTO gateway_beats AS g (instance, since, beat_at) VALUES (:instance, now(), now())
ON CONFLICT (instance) DO UPDATE
SET since = CASE WHEN g.beat_at < now() - make_interval(secs => :gap_s) THEN now() ELSE g.since END, beat_at = now()
""")

_FORGET_BEATS = text("DELETE FROM gateway_beats WHERE beat_at < now() - interval '1 day'")

_LISTENING = text("""
SELECT EXISTS (SELECT FROM gateway_beats
               WHERE since <= now() - make_interval(secs => :for_s)
                 AND beat_at >= now() - make_interval(secs => :gap_s))
""")
