"""What the gateway reads and writes: the outbox of commands, who lives, what stands in for an agent.

Batches travel as arrays (`unnest`), so one statement serves any number of agents and is prepared once. Every write may
run again: repeats are told apart by primary keys. Times are the database's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stagely.db.queries.intake import INBOX_LOCK, NewEvent, store_events

ONLINE_SEQ = 0  # The inbox's own rows use numbers that no agent can send: agents count from 1.
LOST_SEQ = -1  # Results that the gateway gives in an agent's place are numbered downwards from -2.

Row = Any  # SQLAlchemy's rows have no static type; each is turned into a dataclass where it is read.


@dataclass(frozen=True, slots=True)
class EnrolledVm:
    """A VM whose agent was let in. `acked_seq`: everything up to it of this boot is stored."""

    vm_id: str
    team_id: str
    project_id: str
    environment_id: str
    run_id: str
    role: str
    owner_workflow_id: str
    repo_full_name: str
    boot_id: str
    acked_seq: int


@dataclass(frozen=True, slots=True)
class CommandRow:
    """A command of the outbox. `body` is a CommandOrder as JSON, None when the command was answered."""

    id: str
    vm_id: str
    run_id: str
    kind: str
    subject: str
    body: dict[str, Any] | None  # Any: JSON; api/gateway/commands.py decodes it.


async def commands_of(engine: AsyncEngine, vm_ids: Sequence[str], *, only_open: bool) -> list[CommandRow]:
    """Commands of these VMs, oldest first. Open are those without a result, be it one that its owner waits for."""
    async with engine.connect() as connection:
        rows = await connection.execute(_COMMANDS, {"vm_ids": list(vm_ids), "only_open": only_open})
        return [CommandRow(r.id, r.vm_id, r.run_id, r.kind, r.subject or "", r.body) for r in rows]


async def with_open_commands(engine: AsyncEngine) -> list[str]:
    """Living VMs that have a command without an answer, of whatever gateway."""
    async with engine.connect() as connection:
        return list((await connection.execute(_OPEN_COMMANDS)).scalars())


async def mark_sent(engine: AsyncEngine, command_ids: Sequence[str]) -> None:
    """Remember when a command was last pushed."""
    async with engine.begin() as connection:
        await connection.execute(_MARK_SENT, {"ids": list(command_ids)})


async def store_online(connection: AsyncConnection, vms: Iterable[EnrolledVm]) -> None:
    """Put one `online` event into the inbox for each of these VMs, once per boot, in the caller's transaction."""
    events = [
        NewEvent(vm.vm_id, vm.boot_id, ONLINE_SEQ, vm.team_id, "online", "", _event_body(vm, "online")) for vm in vms
    ]
    await store_events(connection, events)


async def store_lost(connection: AsyncConnection, vm_ids: Sequence[str]) -> None:
    """Put one `lost` event into the inbox for each of these VMs, once per boot, in the caller's transaction."""
    await connection.execute(_LOST_ONES, {"vm_ids": list(vm_ids)})


async def revoked(engine: AsyncEngine, since: datetime | None) -> tuple[set[str], datetime]:
    """VMs that are being destroyed, or were proven gone after `since`, and the time to ask with next."""
    async with engine.connect() as connection:
        row = (await connection.execute(_REVOKED, {"since": since})).one()
    return set(row.ids), row.at


@dataclass(frozen=True, slots=True)
class Silence:
    """How long an agent may be silent, by its VM's role, and from its VM's creation to its first word. Seconds."""

    builder_s: float
    preview_s: float
    boot_s: float


async def note_lost(engine: AsyncEngine, limits: Silence) -> list[str]:
    """Put one `lost` event into the inbox for every VM whose agent fell silent, or never spoke, once per boot.

    Returns their ids.
    """
    async with engine.begin() as connection:
        rows = await connection.execute(_LOST, asdict(limits))
        return [row.vm_id for row in rows]


async def answer(engine: AsyncEngine, vm: EnrolledVm, command_id: str, body: str) -> None:
    """Put a result of the gateway's own into the inbox, for a command that no agent can be sent; once per command."""
    values = {**_event_keys(vm), "command_id": command_id, "body": body}
    async with engine.begin() as connection:
        await connection.execute(_LOCK_INBOX)
        await connection.execute(_ANSWER, values)


def _event_keys(vm: EnrolledVm) -> dict[str, str]:
    return {"vm_id": vm.vm_id, "boot_id": vm.boot_id, "team_id": vm.team_id}


def _event_body(vm: EnrolledVm, kind: str) -> str:
    return json.dumps({"vm_id": vm.vm_id, "boot_id": vm.boot_id, "seq": 0, "kind": kind})


_COMMANDS = text("""
SELECT id, vm_id, run_id, kind, body #>> '{build,target,name}' AS subject,
       CASE WHEN answered_at IS NULL THEN body END AS body
FROM agent_commands c
WHERE vm_id = ANY(CAST(:vm_ids AS text[])) AND (answered_at IS NULL OR NOT CAST(:only_open AS boolean))
  AND (NOT CAST(:only_open AS boolean) OR NOT EXISTS (
    SELECT FROM agent_events e WHERE e.vm_id = c.vm_id AND e.command_id = c.id AND e.kind = 'result'
  ))
ORDER BY created_at, id
""")

_OPEN_COMMANDS = text("""
SELECT DISTINCT c.vm_id FROM agent_commands c JOIN vms v ON v.id = c.vm_id
WHERE c.answered_at IS NULL AND v.state = 'running'
""")

_MARK_SENT = text("UPDATE agent_commands SET sent_at = now() WHERE id = ANY(CAST(:ids AS text[]))")

_LOCK_INBOX = text(f"SELECT pg_advisory_xact_lock({INBOX_LOCK})")

_REVOKED = text("""
SELECT now() AS at, ARRAY(
    SELECT id FROM vms
    WHERE state = 'destroying' OR (state = 'gone' AND (CAST(:since AS timestamptz) IS NULL
                                   OR gone_at >= CAST(:since AS timestamptz) - interval '60 s'))) AS ids
""")

_ANSWER = text("""
INSERT INTO agent_events (vm_id, boot_id, seq, team_id, kind, command_id, body, received_at)
SELECT CAST(:vm_id AS text), CAST(:boot_id AS text), least(-1, min(e.seq)) - 1, CAST(:team_id AS text), 'result',
       CAST(:command_id AS text), CAST(CAST(:body AS text) AS json), now()
FROM agent_events e
WHERE e.vm_id = CAST(:vm_id AS text) AND e.boot_id = CAST(:boot_id AS text)
HAVING NOT coalesce(bool_or(e.kind = 'result' AND e.command_id = CAST(:command_id AS text)), false)
""")

_NOTE_LOST = """
INSERT INTO agent_events (vm_id, boot_id, seq, team_id, kind, command_id, body, received_at)
SELECT v.id, v.boot_id, -1, v.team_id, 'lost', '',
       json_build_object('vm_id', v.id, 'boot_id', v.boot_id, 'seq', 0, 'kind', 'lost'), now()
FROM vms v
"""

_LOST_ONES = text(f"""
{_NOTE_LOST}
WHERE v.state = 'running' AND v.id = ANY(CAST(:vm_ids AS text[]))
ON CONFLICT DO NOTHING
""")

_LOST = text("""
INSERT INTO agent_events (vm_id, boot_id, seq, team_id, kind, command_id, body, received_at)
SELECT v.id, v.boot_id, -1, v.team_id, 'lost', '',
       json_build_object('vm_id', v.id, 'boot_id', v.boot_id, 'seq', 0, 'kind', 'lost', 'failure',
           CASE WHEN v.online_at IS NULL THEN json_build_object('step', 'vm_boot', 'code', 'boot_timeout', 'tail',
               json_build_array(), 'message', 'VM ' || v.id || ' was given up: its agent''s first contact did not come '
               || 'within ' || round(CAST(:boot_s AS numeric)) || ' s of its creation') END), now()
FROM vms v
WHERE v.state = 'running' AND CASE WHEN v.online_at IS NULL
    THEN v.running_at < now() - make_interval(secs => CAST(:boot_s AS float))
    ELSE v.last_seen_at < now() - make_interval(secs => CASE v.role WHEN 'builder' THEN CAST(:builder_s AS float)
                                                        ELSE CAST(:preview_s AS float) END) END
ON CONFLICT DO NOTHING
RETURNING vm_id
""")
