"""Search attributes of a Temporal namespace: made when they are missing, waited for until the server takes them."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from typing import Any

from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

from stagely.logs import get_logger

# A server's parts look their namespaces up on their own, every 10 s by default (1.31).
USABLE_TIMEOUT_S = 60.0
_POLL_S = 0.1
_REFUSALS = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.UNIMPLEMENTED)
_TYPES = {1: "Text", 2: "Keyword", 3: "Int", 4: "Double", 5: "Bool", 6: "Datetime", 7: "KeywordList"}

Keys = Sequence[SearchAttributeKey[Any]]  # Any: what an attribute's values are plays no part here.

log = get_logger()


class SearchAttributesUnusable(RuntimeError):
    """Attributes are missing or of another type, and we could not change that. The text has the command that does."""


async def ensure(client: Client, keys: Keys) -> None:
    """Make what is missing of `keys` and return once queries may name all of them. Again: nothing happens.

    Several workers may do so at once. Where we may not make them (Temporal Cloud, an authorizer) it is enough that
    they are there.

    Raises:
        SearchAttributesUnusable: an operator must act; the text says how.
        RPCError: the server does not answer.
    """
    known = await _known(client)
    if known is not None:
        _refuse_other_types(client, keys, known)
        await _add(client, [key for key in keys if key.name not in known])
    elif not await _are_usable(client, keys):
        raise SearchAttributesUnusable(f"search attributes of Stagely are missing. {_how_to(client, keys)}")
    try:
        async with asyncio.timeout(USABLE_TIMEOUT_S):
            while not await _are_usable(client, keys):  # noqa: ASYNC110  # It is the server that changes.
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise SearchAttributesUnusable(
            f"the server did not take its new search attributes into use within {USABLE_TIMEOUT_S:g} s. "
            "Start this again; if that changes nothing, restart the Temporal server."
        ) from None


def command(client: Client, keys: Keys) -> str:
    """The line of Temporal's CLI that makes `keys` in the client's namespace."""
    words = ["temporal", "operator", "search-attribute", "create", "--namespace", client.namespace]
    for key in keys:
        words += ["--name", key.name, "--type", _TYPES[key.indexed_value_type]]
    return shlex.join(words)


async def _known(client: Client) -> dict[str, int] | None:
    """Name to type of the namespace's own attributes, None where we may not ask."""
    try:
        asked = ListSearchAttributesRequest(namespace=client.namespace)
        return dict((await client.operator_service.list_search_attributes(asked)).custom_attributes)
    except RPCError as error:
        if error.status in _REFUSALS:
            return None
        raise


def _refuse_other_types(client: Client, keys: Keys, known: dict[str, int]) -> None:
    """The server takes an `add` with another type without a word, and keeps the old one."""
    for key in keys:
        if known.get(key.name, key.indexed_value_type) != key.indexed_value_type:
            raise SearchAttributesUnusable(
                f"search attribute {key.name} of namespace {client.namespace} is of type "
                f"{_TYPES.get(known[key.name], known[key.name])} and must be {_TYPES[key.indexed_value_type]}. "
                "Remove it (temporal operator search-attribute remove "
                f"--namespace {client.namespace} --name {key.name}) or give Stagely a namespace of its own."
            )


async def _add(client: Client, missing: Keys) -> None:
    if not missing:
        return
    types = {key.name: key.indexed_value_type.value for key in missing}
    try:
        await client.operator_service.add_search_attributes(
            # The stubs want the generated enum's own type, which is an int with these very values.
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=types)  # type: ignore[arg-type]
        )
        log.info("search attributes made", names=sorted(types), namespace=client.namespace)
    except RPCError as error:
        if error.status is RPCStatusCode.ALREADY_EXISTS:
            return  # Another worker was quicker.
        raise SearchAttributesUnusable(
            f"search attributes could not be made ({error.message}). {_how_to(client, missing)}"
        ) from error


async def _are_usable(client: Client, keys: Keys) -> bool:
    """Whether the server takes all names in a query; the id that nobody has makes it look at nothing."""
    names = " AND ".join(f"{key.name} IS NULL" for key in keys)
    try:
        await client.count_workflows(f"WorkflowId = '-' AND {names}")
    except RPCError as error:
        if error.status is RPCStatusCode.INVALID_ARGUMENT:
            return False
        raise
    return True


def _how_to(client: Client, keys: Keys) -> str:
    return f"Somebody who may change the namespace must run: {command(client, keys)}"
