"""Who asks: an API token in the Authorization header stands for one team."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Header
from sqlalchemy.ext.asyncio import AsyncEngine

from stagely.db.bootstrap import token_digest
from stagely.db.queries import environments
from stagely.db.queries.environments import TokenView
from stagely.errors import Unauthorized

TeamOf = Callable[..., Awaitable[str]]
OwnerOf = Callable[..., Awaitable[TokenView]]


def team_of(engine: AsyncEngine) -> TeamOf:
    """A FastAPI dependency that gives the team's id. Raises Unauthorized."""

    async def team(authorization: Annotated[str, Header()] = "") -> str:
        return (await _owner(engine, authorization)).team_id

    return team


def owner_of(engine: AsyncEngine) -> OwnerOf:
    """A FastAPI dependency that gives the team's id and the token's name. Raises Unauthorized."""

    async def owner(authorization: Annotated[str, Header()] = "") -> TokenView:
        return await _owner(engine, authorization)

    return owner


async def _owner(engine: AsyncEngine, authorization: str) -> TokenView:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("send `Authorization: Bearer TOKEN`; `stagely dev` wrote yours to the file `token`")
    found = await environments.owner_of_token(engine, token_digest(token.strip()))
    if found is None:
        raise Unauthorized("this token is not valid (any more); `stagely dev` wrote yours to the file `token`")
    return found
