"""The agents' side of the ledger: environments, VMs and routes as a control plane would have made them.

`settle` writes rows and routes for any number of agents and gives each what its VM would hold: an id, an enrolment
token signed with the installation's Ed25519 key, and an Ed25519 key and sessions of its own.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from redis.asyncio import Redis
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from agent.protocol import INGRESS_PORT, AgentState, Heartbeat, Hello, Service, encode, signed_bytes
from edge.routes import Route, RouteStatus
from stagely import routing
from stagely.db.bootstrap import LOCAL_TEAM, ensure_local_team
from stagely.db.models import utc_now
from stagely.db.tables import environments, projects, vms
from stagely.ids import subdomain_hash
from stagely.tokens import EnrolmentTokens

PROJECT = "prj-bench"
REPO = "bench/app"
TOKEN_TTL_S = 24 * 3600.0  # Longer than any run.
_ROWS_AT_ONCE = 1000
_GIB = 1024**3


@dataclass(slots=True)
class Resident:
    """One agent. `run_id` is its VM's, so that every agent's log is a run of its own.

    Its key and all its sessions follow from `seed` (32 bytes in hex), so that it costs nothing until it speaks.
    """

    vm_id: str
    environment_id: str
    run_id: str
    boot_id: str
    token: str = field(repr=False)
    seed: str = field(repr=False)
    welcomes: int = 0

    def hello(self, nonce: str) -> bytes:
        """The HELLO's text, signed for the connection that was given `nonce`. The token comes until a WELCOME did."""
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(self.seed))
        said = Hello(
            self.vm_id, key.public_key().public_bytes_raw().hex(), "", self.boot_id, self._session(self.welcomes),
            self._session(self.welcomes + 1), "" if self.welcomes else self.token,
        )  # fmt: skip
        return encode(replace(said, signature=key.sign(signed_bytes(said, nonce)).hex())).encode()

    def welcomed(self) -> None:
        """The next HELLO shows what the last one announced."""
        self.welcomes += 1

    def _session(self, number: int) -> str:
        return hashlib.sha256(f"{self.seed} {number}".encode()).hexdigest() if number else ""


def heartbeat() -> bytes:
    """A heartbeat as a preview with three services sends it."""
    services = tuple(Service(name, "running", "healthy") for name in ("web", "api", "store"))
    return encode(Heartbeat(AgentState.HEALTHY, services, 17 * _GIB, 2 * _GIB)).encode()


def make(number: int, tokens: EnrolmentTokens) -> Resident:
    vm_id = f"vm-{number:06d}"
    return Resident(
        vm_id=vm_id,
        environment_id=f"env-{number:06d}",
        run_id=f"run-{number:06d}",
        boot_id=secrets.token_hex(16),
        token=tokens.mint(vm_id, time.time(), TOKEN_TTL_S),
        seed=secrets.token_hex(32),
    )


async def settle(engine: AsyncEngine, redis: Redis, tokens: EnrolmentTokens, count: int, role: str) -> list[Resident]:
    """`count` agents whose VMs the cloud has made and whose routes are announced. `role`: preview or builder."""
    await ensure_local_team(engine, "token")
    async with engine.begin() as db:
        await db.execute(
            insert(projects).values(
                id=PROJECT, team_id=LOCAL_TEAM, slug="app", repo_url="http://forge/bench/app.git",
                repo_full_name=REPO, installation_id=1, provider="local", created_at=utc_now(),
            )
        )  # fmt: skip
    residents = [make(number, tokens) for number in range(1, count + 1)]
    for start in range(0, count, _ROWS_AT_ONCE):
        await _settle(engine, redis, residents[start : start + _ROWS_AT_ONCE], start + 1, role)
    return residents


async def _settle(engine: AsyncEngine, redis: Redis, residents: list[Resident], first_pr: int, role: str) -> None:
    labelled = {subdomain_hash(): resident for resident in residents}
    previews = list(enumerate(labelled.items(), first_pr))
    async with engine.begin() as db:
        await db.execute(
            insert(environments), [_environment(resident, label, pr) for pr, (label, resident) in previews]
        )
        await db.execute(insert(vms), [_vm(resident, role) for resident in residents])
    await routing.announce(redis, {label: _route(resident, pr) for pr, (label, resident) in previews})


def _environment(resident: Resident, label: str, pr: int) -> dict[str, object]:
    return {
        "id": resident.environment_id, "team_id": LOCAL_TEAM, "project_id": PROJECT, "pr_number": pr,
        "title": f"Change {pr}", "subdomain_hash": label, "status": "ready", "message": "ready", "sha": "a" * 40,
        "run_id": resident.run_id, "vm_id": resident.vm_id, "vm_ip": "10.0.0.1", "labels": [label], "services": [],
        "exposes": [], "status_since": utc_now(), "created_at": utc_now(),
    }  # fmt: skip


def _vm(resident: Resident, role: str) -> dict[str, object]:
    now = utc_now()
    return {
        "id": resident.vm_id, "team_id": LOCAL_TEAM, "project_id": PROJECT,
        "environment_id": resident.environment_id, "run_id": resident.run_id, "build_id": "", "job": "",
        "role": role, "provider": "local", "region": "", "size": "", "arch": "amd64", "native_id": "",
        "address": "10.0.0.1", "owner_workflow_id": f"vm/{resident.vm_id}", "state": "running", "public_key": "",
        "session_sha256": "", "previous_session_sha256": "", "boot_id": "",
        "expires_at": now + timedelta(days=1), "created_at": now, "running_at": now,
    }  # fmt: skip


def _route(resident: Resident, pr: int) -> Route:
    return Route(RouteStatus.READY, PROJECT, LOCAL_TEAM, pr, resident.environment_id, ip="10.0.0.1", port=INGRESS_PORT)
