"""Commands: pushed at once, again after a reconnect, until they are answered."""

from __future__ import annotations

from redis.asyncio import Redis
from temporalio.client import Client

from agent.protocol import Ack, Build, Deploy, Exposed, Image, Outcome, Prepare, Result, Stop
from api.gateway.commands import compose_project
from tests.api.ledger import SHA, Ledger, build_order, deploy_order
from tests.api.wire import connected
from tests.api.world import Repositories, Running, identity, start_owner
from workflows.messages import CommandOrder

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


def test_compose_project_is_named_as_compose_names_a_clone() -> None:
    assert compose_project("Acme/Guest.Book_2") == "guestbook_2"
    assert compose_project("acme/_-") == "preview"
