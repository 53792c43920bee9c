"""Search attributes of a namespace: made once by whoever comes first, and a clear word where we may not."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from stagely.search_attributes import SearchAttributesUnusable, command, ensure
from tests.namespaces import fresh_namespace
from workflows import attributes


@pytest.fixture
async def fresh(temporal_client: Client) -> Client:
    """A client of a namespace of the test's own, without search attributes."""
    return await fresh_namespace(temporal_client)


async def test_missing_attributes_are_made_and_a_workflow_may_carry_them(fresh: Client) -> None:
    await ensure(fresh, attributes.ALL)

    pairs = TypedSearchAttributes([SearchAttributePair(attributes.PR, 7)])
    handle = await fresh.start_workflow("Any", id="one", task_queue="nobody", search_attributes=pairs)
    assert (await handle.describe()).typed_search_attributes.get(attributes.PR) == 7


async def test_many_workers_at_once_make_them_once(fresh: Client) -> None:
    await asyncio.gather(*(ensure(fresh, attributes.ALL) for _ in range(5)))

    await ensure(fresh, attributes.ALL)
    assert (await fresh.count_workflows("StagelyProject = 'x'")).count == 0


async def test_an_attribute_of_another_type_is_refused_with_the_way_out(fresh: Client) -> None:
    keyword = {"StagelyPr": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD}
    request = AddSearchAttributesRequest(namespace=fresh.namespace, search_attributes=keyword)
    await fresh.operator_service.add_search_attributes(request)

    with pytest.raises(SearchAttributesUnusable, match=r"StagelyPr of namespace .* is of type Keyword and must be Int"):
        await ensure(fresh, attributes.ALL)


async def test_too_many_attributes_end_with_the_servers_reason_and_the_command(fresh: Client) -> None:
    many = [SearchAttributeKey.for_int(f"Number{number}") for number in range(20)]

    with pytest.raises(SearchAttributesUnusable, match=r"cannot have more than .* must run: temporal operator search-"):
        await ensure(fresh, many)


class Forbidding:
    """The operator service of a server that lets us use the namespace and not change it."""

    async def list_search_attributes(self, request: object) -> None:
        raise RPCError("Request unauthorized.", RPCStatusCode.PERMISSION_DENIED, b"")


async def test_where_we_may_not_make_them_it_is_enough_that_they_are_there(
    fresh: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ensure(fresh, attributes.ALL)
    monkeypatch.setattr(Client, "operator_service", Forbidding())

    await ensure(fresh, attributes.ALL)


async def test_where_we_may_not_make_them_the_missing_ones_come_with_the_command(
    fresh: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "operator_service", Forbidding())

    with pytest.raises(SearchAttributesUnusable, match=r"--namespace ns-\w+ --name StagelyProject --type Keyword"):
        await ensure(fresh, attributes.ALL)


async def test_the_command_names_every_attribute(temporal_client: Client) -> None:
    assert command(temporal_client, attributes.ALL) == (
        "temporal operator search-attribute create --namespace default --name StagelyProject --type Keyword "
        "--name StagelyRepo --type Keyword --name StagelyState --type Keyword --name StagelyProvider --type Keyword "
        "--name StagelyRole --type Keyword --name StagelyPr --type Int --name StagelyExpiresAt --type Datetime"
    )
