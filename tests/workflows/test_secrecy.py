"""Secrets stay out of Temporal: no message has a field for one, and what is stored is ciphertext all the same."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import secrets
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.worker import Worker

from tests.encryption import CONVERTER
from tests.secrecy import files_with, forms, is_in
from tests.services import temporal_server
from tests.workflows.confidant import Confidant, fail_with, repeat
from workflows import issuance, messages, orders, sweeps

QUEUE = "secrecy"
DEADLINE_S = 60.0
SECRET_WORDS = {
    "token", "tokens", "password", "passwords", "secret", "secrets", "key", "keys", "credential", "credentials", "env",
    "envs", "userdata",
}  # fmt: skip
ALLOWED: dict[tuple[str, str], str] = {}
"""(class, field) to the reason why it holds no secret though its name says so."""


def fields_of(kind: type, seen: set[type]) -> Iterator[tuple[type, str]]:
    """Every field that a value of this dataclass can carry, however deep."""
    if kind in seen:
        return
    seen.add(kind)
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield kind, field.name
        for inner in classes_in(hints[field.name]):
            yield from fields_of(inner, seen)


def classes_in(hint: object) -> Iterator[type]:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    for argument in typing.get_args(hint):
        yield from classes_in(argument)


def message_fields() -> set[tuple[str, str]]:
    seen: set[type] = set()
    named = [kind for module in (messages, orders, sweeps, issuance) for kind in vars(module).values()]
    kinds = [kind for kind in named if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    return {(owner.__name__, name) for kind in kinds for owner, name in fields_of(kind, seen)}


def sounds_secret(name: str) -> bool:
    return bool(SECRET_WORDS & {*name.lower().split("_"), name.lower().replace("_", "")})


def test_no_message_has_a_field_that_sounds_like_a_secret() -> None:
    """Red? Pass a reference and fetch the secret where it is used, or say in ALLOWED why this is none."""
    found = {field for field in message_fields() if sounds_secret(field[1])}

    assert found == set(ALLOWED)


def test_the_walk_reaches_messages_inside_messages() -> None:
    found = message_fields()

    assert ("VmLeaseInput", "vm_id") in found
    assert ("BuildTarget", "context") in found
    assert ("Record", "route") in found
    assert ("Findings", "doomed") in found
    assert ("TxtRecord", "value") in found


@pytest.mark.parametrize("name", ["token", "api_key", "db_password", "user_data", "env", "build_secrets"])
def test_names_of_secrets_are_recognised(name: str) -> None:
    assert sounds_secret(name)


@pytest.mark.parametrize("name", ["environment_id", "monkey", "keep_going", "user", "tail"])
def test_other_names_are_not_taken_for_secrets(name: str) -> None:
    assert not sounds_secret(name)


async def connected(port: int, converter: DataConverter) -> Client:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await Client.connect(f"127.0.0.1:{port}", data_converter=converter)
            except RuntimeError:
                await asyncio.sleep(0.1)


async def confide(client: Client, secret: str) -> bytes:
    """A run with the secret in all it stores; gives the history as the server sends it."""
    async with (
        asyncio.timeout(DEADLINE_S),
        Worker(client, task_queue=QUEUE, workflows=[Confidant], activities=[repeat, fail_with]),
    ):
        handle = await client.start_workflow(
            Confidant.run, secret, id=f"confidant-{client.identity}-{secrets.token_hex(4)}", task_queue=QUEUE,
            memo={"first": secret}, static_summary=f"about {secret}", static_details=f"all about {secret}",
        )  # fmt: skip
        assert await handle.execute_update(Confidant.ask, secret) == secret
        await handle.signal(Confidant.tell, secret)
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
        assert secret in str(failed.value.cause)
        return b"".join([event.SerializeToString() async for event in handle.fetch_history_events()])


async def test_a_secret_in_every_place_is_stored_nowhere_in_clear(tmp_path: Path) -> None:
    hidden, shown = secrets.token_hex(20), secrets.token_hex(20)
    (tmp_path / "data").mkdir()

    with temporal_server(tmp_path, database=tmp_path / "data" / "temporal.db") as port:
        hidden_history = await confide(await connected(port, CONVERTER), hidden)
        # The same without encryption shows that this test would find the secret.
        shown_history = await confide(await connected(port, pydantic_data_converter), shown)

    assert is_in(shown, shown_history)
    assert "temporal.db" in files_with(shown, tmp_path / "data")
    assert not is_in(hidden, hidden_history)
    assert files_with(hidden, tmp_path) == []


@pytest.mark.parametrize("before", ["", "a", "ab"])
def test_base64_of_a_longer_text_is_found(before: str) -> None:

    assert is_in("a-secret-of-a-test", base64.b64encode(f"{before}a-secret-of-a-test and more".encode()))
    assert len(forms("a-secret-of-a-test")) == 4
