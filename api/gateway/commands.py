"""From a row of the outbox to the message an agent gets. Pure."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from agent.protocol import (
    MAX_FRAME_BYTES,
    Build,
    Certify,
    Command,
    Deploy,
    Exposed,
    Image,
    Prepare,
    ProtocolError,
    SecretValue,
    Stop,
    encode,
)
from workflows.messages import BuildOrder, CommandOrder, DeployOrder

_ORDER = TypeAdapter(CommandOrder)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Opened at send time only, never stored: tokens for repository and registry, and the secrets in scope."""

    repo: str = field(default="", repr=False)
    registry: str = field(default="", repr=False)
    secrets: tuple[SecretValue, ...] = ()


def order_of(body: dict[str, Any]) -> CommandOrder:  # Any: JSON as the database gives it.
    """The CommandOrder of a row. Raises ValueError (pydantic's) when it is none."""
    return _ORDER.validate_python(body)


def message_of(order: CommandOrder, repo_full_name: str, tokens: Tokens) -> Command:
    """What the agent is told to do. Raises ValueError for an order that names nothing to do."""
    if order.build is not None:
        return _build(order.command_id, order.build, tokens)
    if order.deploy is not None:
        return _deploy(order.command_id, order.deploy, compose_project(repo_full_name), tokens)
    if order.kind == "prepare":
        return Prepare(order.command_id, order.pull)
    if order.kind == "stop" and order.target_id:
        return Stop(order.command_id, order.target_id)
    if order.kind == "certify" and order.certificate:
        return Certify(order.command_id, order.certificate)
    raise ValueError(f"command {order.command_id} of kind {order.kind!r} says nothing that an agent could do")


def frame_of(message: Command, version: int) -> str:
    """The command's frame in an agreed version. Raises ProtocolError; of a size that says which part to shrink."""
    try:
        return encode(message, version)
    except ProtocolError as error:
        if error.code != "frame_too_large":
            raise
        sizes = {name: _size(value) for name, value in dataclasses.asdict(message).items()}
        largest = max(sizes, key=lambda name: sizes[name])
        text = (
            f"it has {sum(sizes.values())} bytes, the limit is {MAX_FRAME_BYTES // 1024} KiB; "
            f"make its {largest!r} smaller ({sizes[largest]} bytes)"
        )
        raise ProtocolError(error.code, text) from error


def _size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def compose_project(repo_full_name: str) -> str:
    """The Compose project name: what Compose makes of a clone's folder name, so volumes are called as usual.

    Source: compose-go, loader.NormalizeProjectName: lower case, only [a-z0-9_-], no leading "_" or "-".
    """
    name = re.sub(r"[^-_a-z0-9]", "", repo_full_name.rsplit("/", 1)[-1].lower()).lstrip("-_")
    return name or "preview"


def _build(command_id: str, order: BuildOrder, tokens: Tokens) -> Build:
    target = order.target
    return Build(
        command_id=command_id,
        repo=order.repo,
        sha=order.sha,
        target=target.name,
        arch=order.arch,
        context=target.context,
        dockerfile=target.dockerfile,
        push_to=order.push_to,
        cache=order.cache,
        timeout_s=order.timeout_s,
        stage=target.stage,
        args=target.args,
        secrets=tokens.secrets,
        repo_token=tokens.repo,
        registry_token=tokens.registry,
    )


def _deploy(command_id: str, order: DeployOrder, project: str, tokens: Tokens) -> Deploy:
    exposed = tuple(
        Exposed(expose.service, expose.port, url) for expose, url in zip(order.expose, order.urls, strict=True)
    )
    return Deploy(
        command_id=command_id,
        repo=order.repo,
        sha=order.sha,
        project=project,
        compose_files=order.compose_files,
        images=tuple(Image(image.service, image.reference) for image in order.images),
        expose=exposed,
        health_timeout_s=order.health_timeout_s,
        profiles=order.profiles,
        secrets=tokens.secrets,
        repo_token=tokens.repo,
        registry_token=tokens.registry,
    )
