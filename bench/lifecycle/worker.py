"""The process that is measured: `python -m bench.lifecycle.worker TARGET PLACE`, until its driver hangs up."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from bench.lifecycle.bare import Step
from bench.lifecycle.place import Place
from bench.lifecycle.served import Served
from bench.lifecycle.wire import Kind, Line, encode, lines


async def serve(target: str, place: Place) -> None:
    """Work, and answer the driver, until it closes the socket."""
    reader, writer = await asyncio.open_unix_connection(place.socket)
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(_served(target, place, writer))
        for worker in served.workers:
            await stack.enter_async_context(worker)
        writer.write(encode(Line(Kind.SERVING)))
        async for line in lines(reader):
            writer.write(encode(_answer(line, served)))
        _leave()  # The driver has what it wants; pollers take seconds to stop.


def _answer(line: Line, served: Served) -> Line:
    if line.kind is Kind.CLOSE_ALL:
        served.close_all()
        return Line(Kind.CLOSED_ALL)
    made, alive = served.vms()
    return Line(Kind.COUNTED, made=made, alive=alive)


def _served(target: str, place: Place, writer: asyncio.StreamWriter) -> AbstractAsyncContextManager[Served]:
    # Imported here: `bare` must not hold in memory what only Stagely needs.
    if target == "bare":
        from bench.lifecycle import bare_worker

        return bare_worker.served(place, lambda step: writer.write(encode(_told(step))))
    from bench.lifecycle import stagely_worker

    return stagely_worker.served(place)


def _told(step: Step) -> Line:
    kind = Kind.READY if step.name == "ready" else Kind.ORDERED
    return Line(kind, pr=step.pr, owner=step.owner, command_id=step.command_id)


def _leave() -> None:
    """Without the interpreter's own exit, which crashed now and then after a Temporal worker closed."""
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Place.from_text(sys.argv[2])))
