"""A worker of its own process: real workflows and activities, every effect told to the director.

python -m tests.faults.worker_process JSON  (a WorkerPlace)
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor, Worker

from activities.comments import CommentPublisher
from activities.failures import FailureInterceptor
from activities.wiring import Adapters, Forge, cloud_activities, core_activities
from providers.base import Provider
from stagely import logs
from stagely.db.engine import create_engine
from stagely.db.queries.comments import DueComment
from stagely.keyring import KeyRing
from stagely.leaving import leave
from stagely.registry import Registry
from stagely.temporal import data_converter
from tests.faults.points import BEGIN, COMMIT, COMMITTING, END
from tests.faults.wire import Call, Line
from workflows.deployment import WORKFLOWS, runner
from workflows.messages import CLOUD_QUEUE, CORE_QUEUE, WORKFLOW_QUEUE

UNIT: contextvars.ContextVar[str] = contextvars.ContextVar("unit", default="")


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Where a worker finds everything."""

    temporal: str
    namespace: str
    database_url: str
    redis_url: str
    socket: str
    key_file: str
    build_slots: int
    claim_s: float


class Reporter:
    def __init__(self, line: Line) -> None:
        self._line = line

    async def mark(self, mark: str) -> None:
        if unit := UNIT.get():
            await self._line.ask(Call("director", "note", (unit, mark), unit))

    async def outside(self, target: str, method: str, *arguments: Any) -> Any:  # Any: each method's own.
        return await self._line.ask(Call(target, method, arguments, UNIT.get()))


class Remote:
    """A cloud or forge in the test's process, called by name."""

    name = "local"

    def __init__(self, reporter: Reporter, target: str) -> None:
        self._reporter, self._target = reporter, target

    def __getattr__(self, method: str) -> Any:  # Any: each method's own.
        async def call(*arguments: Any) -> Any:  # Any: as above.
            return await self._reporter.outside(self._target, method, *arguments)

        return call

    async def aclose(self) -> None:
        return


class TracedEngine:
    """An AsyncEngine whose transactions say when they are about to commit, and that they did."""

    def __init__(self, engine: AsyncEngine, reporter: Reporter) -> None:
        self._engine, self._reporter = engine, reporter

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:  # Any: AsyncConnection.
        async with self._engine.begin() as db:
            yield db
            await self._reporter.mark(COMMITTING)
        await self._reporter.mark(COMMIT)

    def connect(self) -> Any:  # Any: AsyncConnection's context.
        return self._engine.connect()


class TracedRedis(Redis):
    """A client whose writes are marks. Publishing is a nudge that may be lost, and none."""

    reporter: Reporter

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # Any: redis-py's own.
        result = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py.
        if args[0] != "PUBLISH":
            await self.reporter.mark("redis")
        return result

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:  # Any: redis-py's own.
        made = TracedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        made.reporter = self.reporter
        return made


class TracedPipeline(Pipeline):
    reporter: Reporter

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # Any: redis-py's own.
        result = await super().execute(raise_on_error)
        await self.reporter.mark("redis")
        return result


class TracedPublisher(CommentPublisher):
    """The loop's work on one comment is a unit too."""

    async def _publish(self, due: DueComment) -> None:
        reporter: Reporter = self.github._reporter  # type: ignore[attr-defined]  # A Remote.
        UNIT.set(f"publish/{due.pr}.{due.wanted}.{due.attempts}")
        await reporter.mark(BEGIN)
        await super()._publish(due)
        await reporter.mark(END)
        UNIT.set("")


class TracingInterceptor(Interceptor):
    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Tracing(next, self._reporter)


class _Tracing(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, reporter: Reporter) -> None:
        super().__init__(next)
        self._reporter = reporter

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # Any: the SDK's own signature.
        info = activity.info()
        # Only first attempts count: how often a build asks for its slot depends on the machine.
        UNIT.set(f"{info.activity_type}/{info.workflow_run_id}/{info.activity_id}" if info.attempt == 1 else "")
        await self._reporter.mark(BEGIN)
        result = await super().execute_activity(input)
        await self._reporter.mark(END)
        return result


async def serve(place: WorkerPlace) -> None:
    """Until this process is killed."""
    reporter = Reporter(Line(Path(place.socket)))
    converter = data_converter(KeyRing(Path(place.key_file)))
    client = await Client.connect(place.temporal, namespace=place.namespace, data_converter=converter)
    engine = create_engine(place.database_url)
    redis = cast("TracedRedis", TracedRedis.from_url(place.redis_url))  # from_url is typed to give a Redis.
    redis.reporter = reporter
    traced = cast("AsyncEngine", TracedEngine(engine, reporter))  # What activities use of an engine.
    forge = cast("Forge", Remote(reporter, "forge"))
    async with AsyncExitStack() as stack:
        images = await stack.enter_async_context(
            httpx.AsyncClient(base_url="http://registry", transport=_RegistryTransport(reporter))
        )
        adapters = Adapters(
            engine=traced,
            redis=redis,
            github=forge,
            registry=Registry(images),
            provider_of=lambda name: cast("Provider", Remote(reporter, "cloud")),
            user_data=lambda order, at: f"user-data of {order.vm_id}",
            installation="test",
            registry_address="registry:5000",
            preview_url="http://{label}.localhost:8080",
            log_url="http://ui/{environment}",
            build_slots=place.build_slots,
            slot_ask_again_s=0.2,
        )
        for worker in _workers(client, adapters, reporter):
            await stack.enter_async_context(worker)
        print("up", flush=True)
        async with asyncio.TaskGroup() as group:
            publisher = TracedPublisher(traced, forge, adapters.log_url, poll_s=0.1, claim_s=place.claim_s)
            group.create_task(publisher.run())


def _workers(client: Client, adapters: Adapters, reporter: Reporter) -> list[Worker]:
    intercept = [FailureInterceptor(), TracingInterceptor(reporter)]
    return [
        Worker(
            client,
            task_queue=WORKFLOW_QUEUE,
            workflows=WORKFLOWS,
            workflow_runner=runner(),
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        ),
        Worker(client, task_queue=CORE_QUEUE, activities=core_activities(adapters), interceptors=intercept),
        Worker(client, task_queue=CLOUD_QUEUE, activities=cloud_activities(adapters), interceptors=intercept),
    ]


class _RegistryTransport(httpx.AsyncBaseTransport):
    """A registry in the test's process."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        status, headers, content = await self._reporter.outside(
            "registry", "answer", request.method, request.url.path, dict(request.headers), body
        )
        return httpx.Response(status, headers=headers, content=content)


def main() -> None:
    logs.configure("json", "worker")
    asyncio.run(serve(WorkerPlace(**json.loads(sys.argv[1]))))
    leave()


if __name__ == "__main__":
    main()
