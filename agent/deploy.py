"""One deployment: the exact commit, the user's Compose files and our override, until every service stands.

The work tree of a Compose project stays on the machine, so that bind mounts and relative paths stay where they are;
the next deployment brings it up to date. The override holds secrets: it lies in memory, 0600, and is deleted however
the deployment ends.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent import compose, git, health
from agent.compose import ServiceModel
from agent.containers import Container, Containers
from agent.engine import Engine, EngineError
from agent.files import write_private
from agent.health import Judgement, Verdict
from agent.paths import OutsideTree, beneath
from agent.preview import Preview, Shown
from agent.protocol import Deploy, Failure, Service
from agent.pull import Puller
from agent.registry import credentials
from agent.report import Reporter, StepFailed
from agent.run import Finished, Program, TookTooLong, capture, first, run
from agent.streams import TAIL_LINES, LogStream

CONFIG_TIMEOUT_S = 60.0  # Reading a few files; longer than a loaded machine ever took.
BUILD_TIMEOUT_S = 900.0  # What Compose builds on this machine; as long as a pull may take.
STOP_TIMEOUT_S = 2  # A preview's old container: many servers as PID 1 ignore SIGTERM and would cost 10 s each.
LOOK_S = 0.25  # Judging costs nothing: it reads what the Engine's events have told already.
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

log = logging.getLogger("stagely.agent.deploy")


@dataclass(frozen=True, slots=True)
class Plan:
    """What Compose is told. `files` are absolute; `model` is the user's, as Compose resolved it.

    `built_here` are the services that Compose builds on this machine before it starts them.
    """

    tree: Path
    files: tuple[Path, ...]
    override: Path
    model: Mapping[str, ServiceModel]
    chosen: Mapping[str, str]
    built_here: tuple[str, ...] = ()

    @property
    def expected(self) -> dict[str, int]:
        return {name: service.replicas for name, service in self.model.items() if service.replicas}


class Deployer:
    """Deployments of the one preview of this machine, one at a time."""

    def __init__(self, work_dir: Path, run_dir: Path, engine: Engine, containers: Containers, preview: Preview) -> None:
        self._work_dir = work_dir
        self._run_dir = run_dir
        self._engine = engine
        self._containers = containers
        self._preview = preview
        self._turn = asyncio.Lock()

    def remove_leftovers(self) -> None:
        """Delete the override of a deployment that a killed agent did not finish, half written or whole."""
        for name in (compose.OVERRIDE_NAME, f".{compose.OVERRIDE_NAME}.new"):
            (self._run_dir / name).unlink(missing_ok=True)

    async def deploy(self, order: Deploy, report: Reporter) -> tuple[Service, ...]:
        """The services, all of them standing. Raises StepFailed."""
        report.hide(order.repo_token, order.registry_token, *(secret.value for secret in order.secrets))
        stream = report.stream("deploy")
        try:
            async with self._turn:
                try:
                    return await self._deploy(order, report, stream)
                finally:
                    self.remove_leftovers()
        finally:
            stream.close()

    async def _deploy(self, order: Deploy, report: Reporter, stream: LogStream) -> tuple[Service, ...]:
        with report.step("clone"):
            tree, files = await self._clone(order, stream)
        with report.step("pull"), credentials(self._run_dir, _registry(order), order.registry_token) as variables:
            plan = await self._plan(order, tree, files)
            await Puller(self._engine, stream, variables).pull_all(
                compose.used_images(plan.model, plan.chosen, plan.built_here)
            )
            await self._build_here(order, plan, stream, variables)
            write_private(plan.override, await self._override(order, plan))
        began = time.time()
        with report.step("up"), credentials(self._run_dir, _registry(order), order.registry_token) as variables:
            await self._containers_of(order)
            await self._up_while_watching(order, plan, stream, variables, began)
        # Until the services stand, the ports lead where the URLs that are out there expect them to.
        self._preview.show(Shown(order.project, order.command_id, self._preview.exposed or order.expose))
        with report.step("health"):
            await self._wait_until_settled(order, plan, began)
        self._preview.show(Shown(order.project, order.command_id, order.expose))
        return self._containers.services

    async def _clone(self, order: Deploy, stream: LogStream) -> tuple[Path, tuple[Path, ...]]:
        if not _PROJECT.fullmatch(order.project):
            raise StepFailed(Failure("clone", f"{order.project[:80]!r} is not a name for a Compose project."))
        tree = self._clone_of(order).tree
        stream.line(f"Checking out {order.repo} at {order.sha}")
        await git.checkout(order.repo, order.sha, self._clone_of(order), order.repo_token)
        return tree, tuple(_compose_file(tree, name, order.sha) for name in order.compose_files)

    def _clone_of(self, order: Deploy) -> git.Clone:
        return git.Clone(self._work_dir / "projects" / order.project, self._work_dir / "git" / order.project)

    async def _plan(self, order: Deploy, tree: Path, files: tuple[Path, ...]) -> Plan:
        config = _compose(order, files, "config", "--format", "json")
        finished = await _captured(Program(config, CONFIG_TIMEOUT_S, files[0].parent, compose.variables(order)))
        if finished.exit_code:
            raise StepFailed(_bad_compose_file(order, tree, finished))
        model = compose.parse(finished.stdout)
        if not model:
            raise StepFailed(
                Failure("up", f"{', '.join(order.compose_files)}: no service is active. Check `profiles`.")
            )
        chosen, here = compose.references(model, order), compose.built_here(model, order)
        return Plan(tree, files, self._run_dir / compose.OVERRIDE_NAME, model, chosen, here)

    async def _build_here(self, order: Deploy, plan: Plan, stream: LogStream, variables: Mapping[str, str]) -> None:
        """Let Compose build, from the user's files alone, what no builder VM built."""
        if not plan.built_here:
            return
        named = ", ".join(plan.built_here)
        stream.line(f"Building here, with docker compose: {named}")
        argv = _compose(order, plan.files, "build", *plan.built_here)
        env = {**compose.variables(order), **variables}
        program = Program(argv, BUILD_TIMEOUT_S, plan.files[0].parent, env)
        try:
            exit_code = await run(program, stream.feed, stream.feed)
        except TookTooLong as error:
            raise StepFailed(Failure("build", f"{named}: building on the preview VM: {error}")) from error
        if exit_code:
            said = [line for line in stream.tail if line.strip()]
            message = f"{named}: docker compose build: {said[-1] if said else f'ended with exit code {exit_code}'}"
            raise StepFailed(Failure("build", message, plan.built_here[0], exit_code, stream.tail))

    async def _override(self, order: Deploy, plan: Plan) -> str:
        probes = {}
        for name, service in plan.model.items():
            image = await self._engine.image(plan.chosen.get(name) or service.image) if service.probe is None else None
            probe = compose.image_probe((image or {}).get("Config", {}).get("Healthcheck"))
            if probe:
                probes[name] = probe
        return compose.override(
            plan.model, order, plan.chosen, probes, await _file_ids(plan, self._clone_of(order), order.sha)
        )

    async def _containers_of(self, order: Deploy) -> None:
        """From here on look at this project; its containers' logs belong to this command."""
        self._preview.begin(order.project, order.command_id)
        await self._containers.refresh()

    async def _up_while_watching(
        self, order: Deploy, plan: Plan, stream: LogStream, variables: Mapping[str, str], began: float
    ) -> None:
        """Compose waits for dependencies as long as it takes; who watches sees earlier that one will never come."""
        try:
            async with asyncio.TaskGroup() as group:
                up = group.create_task(self._up(order, plan, stream, variables))
                watch = group.create_task(self._watch(order, plan, began))
                up.add_done_callback(lambda _: watch.cancel())
        except* (StepFailed, EngineError, OSError) as failures:
            raise first(failures) from None

    async def _up(self, order: Deploy, plan: Plan, stream: LogStream, variables: Mapping[str, str]) -> None:
        verb = ["up", "--detach", "--no-build", "--quiet-pull", "--remove-orphans", "--timeout", str(STOP_TIMEOUT_S)]
        argv = _compose(order, (*plan.files, plan.override), *verb)
        env = {**compose.variables(order), **variables}
        program = Program(argv, order.health_timeout_s, plan.files[0].parent, env)
        try:
            exit_code = await run(program, stream.feed, stream.feed)
        except TookTooLong:
            exit_code = -1
        if exit_code:
            await self._containers.refresh()
            raise StepFailed(await self._why_not_up(order, plan, exit_code, stream))

    async def _watch(self, order: Deploy, plan: Plan, began: float) -> None:
        while True:
            await self._containers.wait_for_change(LOOK_S)
            fresh = [container for container in self._containers.current if container.created_at >= began]
            for service, judgement in self._judge(order, plan, fresh).items():
                if judgement.verdict is Verdict.FAILED:
                    raise StepFailed(await self._failure("up", service, judgement))

    async def _wait_until_settled(self, order: Deploy, plan: Plan, began: float) -> None:
        """Until every service stands. Raises StepFailed when one cannot, or at the deadline, counted from `up`."""
        await self._containers.refresh()
        while True:
            judgements = self._judge(order, plan, self._containers.current)
            for service, judgement in judgements.items():
                if judgement.verdict is Verdict.FAILED:
                    raise StepFailed(await self._failure("health", service, judgement))
            pending = [(name, j) for name, j in judgements.items() if j.verdict is Verdict.PENDING]
            if not pending:
                return
            if time.time() - began > order.health_timeout_s:
                raise StepFailed(await self._too_long(order, *pending[0]))
            await self._containers.wait_for_change(LOOK_S)

    def _judge(self, order: Deploy, plan: Plan, containers: Sequence[Container]) -> dict[str, Judgement]:
        exposed = {exposed.service for exposed in order.expose}
        return health.judge(plan.expected, exposed, containers, time.time())

    async def _why_not_up(self, order: Deploy, plan: Plan, exit_code: int, stream: LogStream) -> Failure:
        judgements = self._judge(order, plan, self._containers.current)
        for service, judgement in judgements.items():
            if judgement.verdict is Verdict.FAILED:
                return await self._failure("up", service, judgement)
        if exit_code == -1:
            for service, judgement in judgements.items():
                if judgement.container and judgement.verdict is Verdict.PENDING:
                    return await self._too_long(order, service, judgement)
        said = [line for line in stream.tail if line.strip()]
        message = f"docker compose up: {said[-1] if said else f'ended with exit code {exit_code}'}"
        return Failure("up", message, "", exit_code, stream.tail)

    async def _too_long(self, order: Deploy, service: str, judgement: Judgement) -> Failure:
        why = f"{judgement.why} (given up after {order.health_timeout_s:g} s, `health_timeout`)"
        return await self._failure("health", service, Judgement(Verdict.FAILED, why, judgement.container))

    async def _failure(self, step: str, service: str, judgement: Judgement) -> Failure:
        container = judgement.container
        tail = await self._tail(container) if container else ()
        return Failure(step, f"service {service} {judgement.why}", service, _exit_code(container), tail)

    async def _tail(self, container: Container) -> tuple[str, ...]:
        """Nothing when the Engine does not give it: the failure is said all the same."""
        try:
            return tuple(await self._engine.tail(container.id, container.is_tty, TAIL_LINES))
        except (EngineError, OSError) as error:
            log.info("the log's end of service %s could not be read: %s", container.service, error)
            return ()


def _exit_code(container: Container | None) -> int | None:
    """The container's own when it has ended, else that of its failing health check."""
    if container is None:
        return None
    if container.status == "running" and container.health and container.last_probe:
        return container.last_probe.exit_code
    return container.exit_code if container.status != "running" or container.restarts else None


def _compose(order: Deploy, files: Sequence[Path], *verb: str) -> list[str]:
    argv = ["docker", "compose", "--ansi", "never", "--progress", "plain", "--project-name", order.project]
    for file in files:
        argv += ["--file", str(file)]
    for profile in order.profiles:
        argv += ["--profile", profile]
    return [*argv, *verb]


def _compose_file(tree: Path, name: str, sha: str) -> Path:
    try:
        path = beneath(tree, name)
    except OutsideTree as error:
        raise StepFailed(Failure("clone", str(error))) from error
    if not path.is_file():
        raise StepFailed(Failure("clone", f"there is no {name} in the repository at {sha[:12]}. Check `compose`."))
    return path


def _bad_compose_file(order: Deploy, tree: Path, finished: Finished) -> Failure:
    lines = [line for line in finished.stderr.replace(f"{tree}/", "").splitlines() if line.strip()]
    said = lines[-1] if lines else f"docker compose config ended with exit code {finished.exit_code}"
    named = ", ".join(order.compose_files)
    message = f"{named} cannot be used: {said}. `docker compose config` in the repository shows the same."
    return Failure("up", message, "", finished.exit_code, tuple(lines[-TAIL_LINES:]))


def _registry(order: Deploy) -> str:
    return order.images[0].reference if order.images else ""


async def _captured(program: Program) -> Finished:
    try:
        return await capture(program)
    except TookTooLong as error:
        raise StepFailed(Failure("up", f"{error}. The machine may be out of memory.")) from error


async def _file_ids(plan: Plan, clone: git.Clone, sha: str) -> dict[str, str]:
    """By service, what names the content of the repository's files that it mounts."""
    root = plan.tree.resolve()
    own = {
        name: sorted(str(Path(source).relative_to(root)) for source in service.sources if root in Path(source).parents)
        for name, service in plan.model.items()
    }
    ids = await git.object_ids(clone, sha, sorted({path for paths in own.values() for path in paths}))
    named = {name: " ".join(ids[path][:12] for path in paths if path in ids) for name, paths in own.items()}
    return {name: text for name, text in named.items() if text}
