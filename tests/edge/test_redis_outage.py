"""Redis killed, emptied and started again under load: never a wrong machine, and back within seconds."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from redis.asyncio import Redis

from edge.routes import encode, key_of
from tests.edge.conftest import edge_program, ready_route
from tests.edge.wire import WAIT_S, Reader, Script, Writer, ok, origin, read_message, visitor
from tests.valkey import Valkey

BACK_WITHIN_S = 5.0
AT_ONCE = 4


@dataclass(slots=True)
class Watch:
    """Asks for one host without a pause, and notes who answered and when."""

    label: str
    answers: list[tuple[float, int, str]] = field(default_factory=list)

    async def run(self, port: int) -> None:
        head = f"GET / HTTP/1.1\r\nHost: {self.label}.localhost\r\n\r\n".encode()
        while True:
            async with visitor(port) as browser:
                for _ in range(50):
                    answer = await browser.ask(head)
                    who = answer.body.decode() if answer.status == 200 else ""
                    self.answers.append((time.monotonic(), answer.status, who))
                    await asyncio.sleep(0.002)

    def since(self, at: float) -> list[tuple[float, int, str]]:
        return [answer for answer in self.answers if answer[0] > at]

    async def until(self, status: int) -> float:
        """Wait for an answer with this status, and nothing else for a moment behind it; when that was."""
        async with asyncio.timeout(WAIT_S):
            while True:
                last = self.answers[-20:]
                if len(last) == 20 and all(answer[1] == status for answer in last):
                    return last[0][0]
                await asyncio.sleep(0.01)


def named(name: str) -> Script:
    async def script(reader: Reader, writer: Writer) -> None:
        while True:
            message = await read_message(reader)
            writer.write(ok(f"{name} {message['host']}".encode()))

    return script


async def write(valkey: Valkey, routes: dict[str, int]) -> None:
    client = Redis.from_url(valkey.url)
    for label, port in routes.items():
        await client.set(key_of(label), encode(ready_route(port, environment=label)))
    await client.aclose()


async def test_killed_emptied_and_restarted_redis_never_leads_to_a_wrong_machine(own_valkey: Valkey) -> None:
    watches = {label: Watch(label) for label in ("stays", "leaves", "comes")}
    async with origin(named("one")) as one, origin(named("two")) as two:
        await write(own_valkey, {"stays": one.port, "leaves": two.port})
        with edge_program(own_valkey.url, STAGELY_EDGE_RATE_LIMIT="0") as edge:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(watch.run(edge.port)) for watch in watches.values() for _ in range(AT_ONCE)
                ]
                await watches["stays"].until(200)
                await watches["leaves"].until(200)

                own_valkey.kill()
                killed_at = time.monotonic()
                await watches["comes"].until(503)
                await own_valkey.start()
                # The machine of one preview is another's now.
                await write(own_valkey, {"stays": one.port, "comes": two.port})
                rewritten_at = time.monotonic()
                back_after_s = max(
                    await watches["stays"].until(200) - rewritten_at,
                    await watches["comes"].until(200) - rewritten_at,
                    await watches["leaves"].until(404) - rewritten_at,
                )
                gone_at = time.monotonic()

                client = Redis.from_url(own_valkey.url)
                await client.flushall()
                flushed_at = time.monotonic()
                await watches["stays"].until(404)
                await write(own_valkey, {"stays": one.port})
                written_again_at = time.monotonic()
                again_after_s = await watches["stays"].until(200) - written_again_at
                await client.aclose()
                for task in running:
                    task.cancel()

    assert back_after_s < BACK_WITHIN_S
    assert again_after_s < BACK_WITHIN_S
    assert {who for _, _, who in watches["stays"].answers} == {"one stays.localhost", ""}
    assert {who for _, _, who in watches["leaves"].answers} == {"two leaves.localhost", ""}
    assert {who for _, _, who in watches["comes"].answers} == {"two comes.localhost", ""}
    assert {status for _, status, _ in watches["leaves"].since(gone_at)} == {404}
    away = [status for at, status, _ in watches["stays"].answers if killed_at < at < rewritten_at]
    assert set(away) <= {200, 404}  # Last known while Redis is away; not found once it is back and empty.
    assert {status for _, status, _ in watches["stays"].since(flushed_at)} <= {200, 404}
