"""Every activity put together with its adapters: what worker.py serves, and what tests and benches serve with fakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from activities.burials import BurialActivities
from activities.certificates import CertificateActivities
from activities.comments import CommentPublisher, Comments
from activities.images import ImageActivities
from activities.records import RecordActivities
from activities.routes import Routes
from activities.slots import SlotActivities
from activities.source import Alternatives, Repositories, SourceActivities, none
from activities.sweep_environments import EnvironmentSweeps, PullRequests
from activities.sweep_routes import RouteSweeps
from activities.sweep_vms import CloudSweeps, LedgerSweeps
from activities.sweeps import SweepActivities
from activities.vm_certificates import CertificateIssuer
from activities.vms import UserData, VmActivities
from providers.base import Provider
from stagely.registry import Registry
from stagely.vm_ca import VmCa
from workflows.messages import Timings

Activities = list[Callable[..., Any]]  # Any: each has its own input and result.


class Forge(Repositories, Comments, PullRequests, Protocol):
    """GitHub as activities use it."""


@dataclass(frozen=True, slots=True)
class Adapters:
    """The outside worlds, and the few values that activities need beside them.

    `provider_of(name)` gives a provider that its user closes; `registry_address` is the host:port that VMs use;
    `preview_url` and `log_url` are templates with `{label}` and `{environment}`; without `vm_ca` no VM is certified.
    """

    engine: AsyncEngine
    redis: Redis
    github: Forge
    registry: Registry
    provider_of: Callable[[str], Provider]
    user_data: UserData
    installation: str
    registry_address: str
    preview_url: str
    log_url: str
    build_slots: int
    slot_ask_again_s: float
    alternatives: Alternatives = none
    vm_ca: VmCa | None = None


def core_activities(with_: Adapters) -> Activities:
    """Postgres, Redis, GitHub, registry."""
    routes = Routes(with_.engine, with_.redis, with_.log_url, by_tls=with_.vm_ca is not None)
    source = SourceActivities(
        with_.engine, with_.github, routes, with_.preview_url, with_.registry_address, with_.build_slots,
        with_.alternatives,
    )  # fmt: skip
    return [
        source.look,
        source.plan,
        RecordActivities(with_.engine, with_.redis, routes).record,
        SlotActivities(with_.engine, with_.build_slots, with_.slot_ask_again_s).acquire,
        ImageActivities(with_.registry).merge,
        BurialActivities(with_.engine, with_.redis, with_.registry).bury,
    ]


def cloud_activities(with_: Adapters) -> Activities:
    """Cloud APIs."""
    vms = VmActivities(with_.engine, with_.provider_of, with_.user_data, with_.installation)
    accounts = CloudSweeps(with_.engine, with_.provider_of)
    return [vms.create_vm, vms.destroy_vm, vms.destroy_all, accounts.survey_account]


def sweep_activities(with_: Adapters, client: Client, timings: Timings) -> Activities:
    """The reaper's, for the core's queue. `timings`: of environments whose workflow it has to start."""
    sweeps = SweepActivities(with_.engine, client)
    environments = EnvironmentSweeps(with_.engine, client, with_.github, timings)
    return [
        sweeps.begin_sweep,
        sweeps.sweep_slots,
        sweeps.conclude_sweep,
        LedgerSweeps(with_.engine, client).survey_ledger,
        environments.survey_environments,
        environments.deliver_webhooks,
        RouteSweeps(with_.engine, with_.redis).sweep_routes,
    ]


def certificate_activities(of: CertificateActivities) -> Activities:
    """Of workers that look after the edge's certificate, on its own queue."""
    return [
        of.inspect_certificate,
        of.place_order,
        of.publish_challenges,
        of.finish_order,
        of.withdraw_challenges,
    ]


def publisher(with_: Adapters) -> CommentPublisher:
    """The loop beside the core activities that writes comments."""
    return CommentPublisher(with_.engine, with_.github, with_.log_url)


def issuer(with_: Adapters) -> CertificateIssuer | None:
    """The loop beside the core activities that certifies VMs; None: there is no CA to do it with."""
    return CertificateIssuer(with_.engine, with_.redis, with_.vm_ca) if with_.vm_ca is not None else None
