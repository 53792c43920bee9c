"""Commands: pushed at once, again after a reconnect, until they are answered."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import cast

from redis.asyncio import Redis
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from agent.protocol import Ack, Build, Certify, Deploy, Exposed, Image, Outcome, Prepare, Result, Stop, Welcome
from api.gateway.commands import compose_project
from api.gateway.outbox import Outbox
from api.gateway.session import Session
from api.gateway.sessions import Sessions
from api.gateway.websocket import AgentSocket
from stagely.db.queries.agents import EnrolledVm
from tests.api.ledger import SHA, Ledger, build_order, deploy_order
from tests.api.wire import connected, dial
from tests.api.world import OpenGateway, Repositories, Running, eventually, identity, signals, start_owner
from workflows.messages import BuildOrder, CommandOrder

BUILD = "run-1/b-1/1"


async def test_command_that_waits_is_pushed_after_welcome(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    await ledger.add_command(build_order("vm-1"))

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        build = await agent.hear_until(Build)

    assert build == Build(
        command_id=BUILD,
        repo="http://forge/local/guestbook.git",
        sha=SHA,
        target="api",
        arch="amd64",
        context="api",
        dockerfile="Dockerfile",
        push_to="registry:8003/prj-1/env-1/api",
        cache="registry:8003/prj-1/cache/api:amd64",
        timeout_s=60.0,
        args={"COLOR": "blue"},
        repo_token="token-for-local/guestbook",
    )


async def test_command_for_a_connected_agent_is_pushed_at_the_nudge(
    gateway: Running, ledger: Ledger, temporal_client: Client, redis: Redis
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id, role="preview")

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await ledger.add_command(deploy_order("vm-1"))
        await redis.publish("agent-commands", "vm-1")
        deploy = await agent.hear(Deploy)

    assert deploy.project == "guestbook"
    assert deploy.images == (Image("api", "registry:8003/prj-1/env-1/api@sha256:" + "b" * 64),)
    assert deploy.expose == (Exposed("web", 80, "http://x.localhost"),)
    assert deploy.compose_files == ("docker-compose.yml",)


async def test_command_whose_result_is_stored_is_not_pushed_again_while_its_owner_cannot_be_told(
    open_gateway: OpenGateway, ledger: Ledger
) -> None:
    await ledger.add_vm("vm-1")
    await ledger.add_command(build_order("vm-1"))
    agent_of_vm = identity("vm-1")

    async def is_stored() -> bool:
        return (1, "result") in await ledger.events("vm-1")

    async with open_gateway(temporal_address="127.0.0.1:1") as running:
        async with connected(running.address, agent_of_vm) as (agent, _):
            await agent.hear(Build)
            await agent.say(Result(1, BUILD, Outcome.SUCCEEDED))
            await eventually(is_stored)
        await ledger.add_command(CommandOrder("run-1/prepare", "vm-1", "prepare", "env-1", "run-1"))
        async with connected(running.address, agent_of_vm) as (agent, welcome):
            next_command = await agent.hear(Prepare)

    assert welcome.acked_seq == 1
    assert next_command.command_id == "run-1/prepare"


async def test_command_is_found_without_a_nudge(gateway: Running, ledger: Ledger, temporal_client: Client) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await ledger.add_command(build_order("vm-1"))
        build = await agent.hear_until(Build)

    assert build.command_id == BUILD


async def test_unanswered_command_is_pushed_again_after_a_reconnect(
    gateway: Running, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_command(build_order("vm-1"))
    agent_of_vm = identity("vm-1")

    async with connected(gateway.address, agent_of_vm) as (agent, _):
        first = await agent.hear_until(Build)
    async with connected(gateway.address, agent_of_vm) as (agent, _):
        second = await agent.hear_until(Build)

    assert first.command_id == second.command_id == BUILD


async def test_answered_command_is_not_pushed_again(gateway: Running, ledger: Ledger, temporal_client: Client) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_command(build_order("vm-1"))
    agent_of_vm = identity("vm-1")
    async with connected(gateway.address, agent_of_vm) as (agent, _):
        await agent.say(Result(1, BUILD, Outcome.SUCCEEDED, digest="sha256:" + "b" * 64))
        await agent.hear_until(Ack)
    await ledger.add_command(CommandOrder("run-1/prepare", "vm-1", "prepare", "env-1", "run-1", pull=("redis:7",)))

    async with connected(gateway.address, agent_of_vm) as (agent, _):
        prepare = await agent.hear(Prepare)

    assert prepare == Prepare("run-1/prepare", ("redis:7",))


async def test_certificate_reaches_its_agent_and_is_closed_by_the_answer_without_a_workflow(
    gateway: Running, ledger: Ledger
) -> None:
    await ledger.add_vm("vm-1", owner="nobody", role="preview")
    await ledger.add_command(CommandOrder("cmd-1", "vm-1", "certify", "env-1", certificate="PEM"))

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        certify = await agent.hear(Certify)
        await agent.say(Result(1, "cmd-1", Outcome.SUCCEEDED))
        ack = await agent.hear_until(Ack)

    assert (certify, ack) == (Certify("cmd-1", "PEM"), Ack(1))


async def test_certificate_for_an_agent_of_version_1_is_answered_as_failed(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1", owner="nobody", role="preview")
    await ledger.add_command(CommandOrder("cmd-1", "vm-1", "certify", "env-1", certificate="PEM"))

    async def is_answered() -> bool:
        return "result" in [kind for _, kind in await ledger.events("vm-1")]

    async with dial(gateway.address) as agent:
        await agent.say(replace(identity("vm-1").hello(agent.nonce), version=1))
        await agent.hear(Welcome)
        await eventually(is_answered)


async def test_stop_follows_the_command_it_stops(gateway: Running, ledger: Ledger) -> None:
    await ledger.add_vm("vm-1")
    await ledger.add_command(build_order("vm-1"))
    await ledger.add_command(CommandOrder("run-1/stop", "vm-1", "stop", "env-1", "run-1", target_id=BUILD))

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await agent.hear_until(Build)
        stop = await agent.hear_until(Stop)

    assert stop == Stop("run-1/stop", BUILD)


async def test_github_away_delays_the_command_only(
    gateway: Running, ledger: Ledger, repositories: Repositories, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_command(build_order("vm-1"))
    repositories.is_away = True

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await repositories.was_asked.wait()
        repositories.is_away = False
        build = await agent.hear_until(Build)

    assert build.repo_token == "token-for-local/guestbook"


async def test_nothing_overtakes_a_command_that_waits_for_its_token(
    gateway: Running, ledger: Ledger, repositories: Repositories, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_command(build_order("vm-1"))
    await ledger.add_command(CommandOrder("run-1/stop", "vm-1", "stop", "env-1", "run-1", target_id=BUILD))
    repositories.is_away = True

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        await repositories.was_asked.wait()
        await asyncio.sleep(0)
        repositories.is_away = False
        build = await agent.hear(Build)
        stop = await agent.hear(Stop)

    assert (build.command_id, stop.command_id) == (BUILD, "run-1/stop")


async def test_command_too_large_to_send_is_answered_as_failed_and_the_next_one_goes_out(
    gateway: Running, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    for command_id in (BUILD, "run-1/b-2/1"):
        await ledger.add_command(with_large_args(build_order("vm-1", command_id)))
    await ledger.add_command(CommandOrder("run-1/prepare", "vm-1", "prepare", "env-1", "run-1", pull=("redis:7",)))

    async with connected(gateway.address, identity("vm-1")) as (agent, _):
        prepare = await agent.hear(Prepare)

        async def are_answered() -> bool:
            return None not in [await ledger.answered_at(id_) for id_ in (BUILD, "run-1/b-2/1")]

        await eventually(are_answered)

    first, second = await signals(owner)
    assert prepare.command_id == "run-1/prepare"
    assert (first.command_id, first.outcome, first.seq) == (BUILD, "failed", -2)
    assert (second.command_id, second.outcome, second.seq) == ("run-1/b-2/1", "failed", -3)
    assert first.failure is not None
    assert (first.failure.step, first.failure.subject, first.failure.code) == ("build", "api", "frame_too_large")
    assert "the limit is 256 KiB; make its 'args' smaller (300015 bytes)" in first.failure.message


def with_large_args(order: CommandOrder) -> CommandOrder:
    assert isinstance(order.build, BuildOrder)
    target = replace(order.build.target, args={"COLOR": "blue", "A": "x" * 299_992})
    return replace(order, build=replace(order.build, target=target))


async def test_order_that_says_nothing_is_answered_as_failed(
    gateway: Running, ledger: Ledger, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_command(CommandOrder("run-1/deploy/1", "vm-1", "deploy", "env-1", "run-1"))

    async with connected(gateway.address, identity("vm-1")):

        async def is_answered() -> bool:
            return await ledger.answered_at("run-1/deploy/1") is not None

        await eventually(is_answered)

    assert [(event.outcome, event.failure and event.failure.code) for event in await signals(owner)] == [
        ("failed", "bad_command"),
    ]


async def test_nudges_for_others_do_not_hold_up_the_scan(
    gateway: Running, ledger: Ledger, temporal_client: Client, redis: Redis
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_command(CommandOrder("run-1/prepare", "vm-1", "prepare", "env-1", "run-1", pull=("redis:7",)))

    async def nudge_others() -> None:
        while True:
            await redis.publish("agent-commands", "vm-2")
            await asyncio.sleep(0.05)

    async with connected(gateway.address, identity("vm-1")) as (agent, _), asyncio.TaskGroup() as group:
        await agent.hear(Prepare)  # The look that the connection itself asks for is over.
        nudging = group.create_task(nudge_others())
        await ledger.add_command(build_order("vm-1"))
        build = await agent.hear(Build)
        nudging.cancel()

    assert build.command_id == BUILD


async def test_refused_clone_token_is_asked_for_again_by_the_next_command(
    gateway: Running, ledger: Ledger, repositories: Repositories, temporal_client: Client
) -> None:
    owner = await start_owner(temporal_client)
    await ledger.add_vm("vm-1", owner.id)
    await ledger.add_command(build_order("vm-1"))
    agent_of_vm = identity("vm-1")
    repositories.is_refusing = True

    async with connected(gateway.address, agent_of_vm) as (agent, _):
        first = await agent.hear(Build)
    repositories.is_refusing = False
    async with connected(gateway.address, agent_of_vm) as (agent, _):
        second = await agent.hear(Build)

    assert (first.repo_token, second.repo_token) == ("", "token-for-local/guestbook")


def test_compose_project_is_named_as_compose_names_a_clone() -> None:
    assert compose_project("Acme/Guest.Book_2") == "guestbook_2"
    assert compose_project("acme/_-") == "preview"


class Muted:
    """Stands for AgentSocket."""

    def send(self, frame: str) -> None: ...


def herd_of(size: int) -> Sessions:
    """Open sessions of vm-0, vm-1 and so on."""
    sessions = Sessions(time.monotonic)
    for n in range(size):
        vm = EnrolledVm(
            vm_id=f"vm-{n}", team_id="team", project_id="prj-1", environment_id="env-1", run_id="run-1",
            role="builder", owner_workflow_id="run/1", repo_full_name="local/guestbook", boot_id="boot-1", acked_seq=0,
        )  # fmt: skip
        sessions.open(Session(cast("AgentSocket", Muted()), time.monotonic()), vm)  # cast: it only has to send.
    return sessions


async def test_a_herd_without_commands_costs_no_question_each(
    engine: AsyncEngine, ledger: Ledger, redis: Redis
) -> None:
    await ledger.add_vm("vm-0")
    await ledger.add_command(build_order("vm-0"))
    sessions = herd_of(50)
    asked: list[str] = []

    def note(*statement: object) -> None:
        asked.extend(text for text in statement if isinstance(text, str) and "FROM agent_commands" in text)

    async def is_pushed() -> bool:
        session = sessions.of("vm-0")
        return session is not None and session.pushed == {BUILD}

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    outbox = Outbox(engine, redis, sessions, Repositories(), lambda _: None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(outbox.run())
        outbox.want(f"vm-{n}" for n in range(50))
        await eventually(is_pushed)
        running.cancel()

    assert len(asked) == 3  # Who has any, what of the herd's is unsent, and the one agent's own.
