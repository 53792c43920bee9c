"""Who may speak for a VM: the key that its row is bound to, and the session that changes with every HELLO.

HELLOs travel as arrays (`unnest`), so one statement lets any number of agents in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stagely.db.queries.agents import EnrolledVm, Row, store_lost, store_online


@dataclass(frozen=True, slots=True)
class Enrolment:
    """One HELLO, signed by the key it names. Of what it shows and announces only the digests."""

    vm_id: str
    public_key: str
    session_sha256: str
    next_session_sha256: str
    boot_id: str
    has_token: bool


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Why a HELLO was not let in: `vm_state` ("" when there is no row), and the key that is bound ("" for none)."""

    vm_id: str
    vm_state: str
    public_key: str


async def enrol(
    engine: AsyncEngine, enrolments: Sequence[Enrolment]
) -> tuple[dict[str, EnrolledVm], dict[str, TurnedAway]]:
    """Let agents in, by vm_id; at most one Enrolment per VM. The first good HELLO binds its key to the row.

    Once a key is bound it alone opens the row, and the token is of no more use. Of that key's HELLOs those get in that
    show the newest session, which is replaced, and the last one's repetition, which changes nothing: its WELCOME may
    not have arrived. A row without a session (never after an enrolment; a person made it so) takes any.
    """
    async with engine.begin() as connection:
        let_in = {row.vm_id: _enrolled(row) for row in await connection.execute(_ENROL, _columns(enrolments))}
        if let_in:
            await store_online(connection, let_in.values())
        away = [enrolment.vm_id for enrolment in enrolments if enrolment.vm_id not in let_in]
        return let_in, await _turned_away(connection, away)


async def note_disputed(engine: AsyncEngine, vm_ids: Sequence[str]) -> None:
    """Put one `lost` event into the inbox for each of these VMs, once per boot, and let nobody speak for them again."""
    if vm_ids:
        async with engine.begin() as connection:
            await store_lost(connection, vm_ids)
            await connection.execute(_LOCK_SESSIONS, {"vm_ids": list(vm_ids), "locked": _LOCKED})


async def _turned_away(connection: AsyncConnection, vm_ids: Sequence[str]) -> dict[str, TurnedAway]:
    """By a statement of its own: the one before does not see the row as who came at the same time has left it."""
    if not vm_ids:
        return {}
    rows = {row.id: row for row in await connection.execute(_BOUND_KEYS, {"vm_ids": list(vm_ids)})}
    return {
        vm_id: TurnedAway(vm_id, rows[vm_id].state, rows[vm_id].public_key)
        if vm_id in rows
        else TurnedAway(vm_id, "", "")
        for vm_id in vm_ids
    }


def _enrolled(row: Row) -> EnrolledVm:
    return EnrolledVm(
        vm_id=row.vm_id,
        team_id=row.team_id,
        project_id=row.project_id,
        environment_id=row.environment_id,
        run_id=row.run_id,
        role=row.role,
        owner_workflow_id=row.owner_workflow_id,
        repo_full_name=row.repo_full_name,
        boot_id=row.boot_id,
        acked_seq=row.acked_seq,
    )


def _columns(enrolments: Sequence[Enrolment]) -> dict[str, list[Any]]:  # Any: texts and truths.
    return {name: [getattr(enrolment, name) for enrolment in enrolments] for name in _FIELDS}


_FIELDS = ("vm_id", "public_key", "session_sha256", "next_session_sha256", "boot_id", "has_token")

_ENROL = text("""
WITH given AS (
    SELECT * FROM unnest(CAST(:vm_id AS text[]), CAST(:public_key AS text[]), CAST(:session_sha256 AS text[]),
                         CAST(:next_session_sha256 AS text[]), CAST(:boot_id AS text[]), CAST(:has_token AS boolean[]))
                  AS g(vm_id, public_key, session, next_session, boot_id, has_token)
), let_in AS (
    UPDATE vms v SET public_key = g.public_key, previous_session_sha256 = g.session, session_sha256 = g.next_session,
                     boot_id = g.boot_id, state = 'running', online_at = coalesce(v.online_at, now()),
                     last_seen_at = now()
    FROM given g
    WHERE v.id = g.vm_id AND v.state IN ('creating', 'running')
      AND CASE v.public_key
          WHEN '' THEN g.has_token
          WHEN g.public_key THEN v.session_sha256 IN (g.session, '')
                              OR (v.session_sha256 = g.next_session AND v.previous_session_sha256 = g.session)
          ELSE false END
    RETURNING v.id, v.team_id, v.project_id, v.environment_id, v.run_id, v.job, v.role, v.owner_workflow_id, v.boot_id
), booted AS (
    UPDATE steps s SET state = 'completed', ended_at = now()
    FROM let_in l
    WHERE s.environment_id = l.environment_id AND s.run_id = l.run_id AND s.name = 'vm_boot'
      AND s.subject = CASE l.role WHEN 'builder' THEN l.job ELSE l.role END AND s.ended_at IS NULL
)
SELECT l.id AS vm_id, l.boot_id, l.team_id, l.project_id, l.environment_id, l.run_id, l.role, l.owner_workflow_id,
       p.repo_full_name,
       greatest(0, (SELECT max(c.seq) FROM log_chunks c WHERE c.vm_id = l.id AND c.boot_id = l.boot_id),
                (SELECT max(e.seq) FROM agent_events e WHERE e.vm_id = l.id AND e.boot_id = l.boot_id)) AS acked_seq
FROM let_in l
JOIN projects p ON p.id = l.project_id
""")

_BOUND_KEYS = text("SELECT id, state, public_key FROM vms WHERE id = ANY(CAST(:vm_ids AS text[]))")

_LOCKED = "disputed"  # No digest: no session that an agent can show opens a row that has this.

_LOCK_SESSIONS = text("""
UPDATE vms SET session_sha256 = :locked, previous_session_sha256 = :locked
WHERE state = 'running' AND id = ANY(CAST(:vm_ids AS text[]))
""")
