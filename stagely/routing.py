"""The writing side of the route table: the core announces, refreshes and withdraws; the edge only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redis.asyncio import Redis

from edge.routes import TTL_S, Route, encode, key_of


async def announce(redis: Redis, routes: Mapping[str, Route]) -> None:
    """Write `label -> Route` in one transaction, each for an hour. Again: the newer record stands."""
    async with redis.pipeline(transaction=True) as pipe:
        for label, route in routes.items():
            pipe.set(key_of(label), encode(route), ex=TTL_S)
        await pipe.execute()


async def refresh(redis: Redis, labels: Sequence[str]) -> None:
    """Give these labels another hour. A label that was withdrawn stays withdrawn."""
    if not labels:
        return
    async with redis.pipeline(transaction=False) as pipe:
        for label in labels:
            pipe.expire(key_of(label), TTL_S)
        await pipe.execute()


async def withdraw(redis: Redis, labels: Sequence[str]) -> None:
    """Forget these labels: from now on the edge answers 404. Nothing there is success."""
    if labels:
        await redis.delete(*(key_of(label) for label in labels))
