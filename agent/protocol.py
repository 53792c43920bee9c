"""Every message between an agent and the core: frozen dataclasses, strict encode and decode. No I/O.

The wire is JSON text, one object per WebSocket frame, at most MAX_FRAME_BYTES, with the message's name under "type".
Unknown types, unknown fields, missing fields and values of another type are refused with a ProtocolError that names
them. Only the standard library is used: this file travels to every VM and is the one part of `agent/` that the
control plane imports.

    agent to core: Hello Heartbeat Log Status Result
    core to agent: Welcome Build Deploy Prepare Stop Shutdown Ack Mask Refused Certify

Reliability. Log, Status and Result carry `seq`, counted from 1 without gaps for one `boot_id`; the agent spools them
until an Ack with a seq at or above theirs. Build, Deploy, Prepare, Stop, Shutdown and Certify carry `command_id`; the
core sends a command again until it was answered by a Result, so an agent executes each command_id once and answers a
repeated one with the Result it already has.

Versions. Each end speaks its own VERSION and the one before. Hello says the agent's; both take the older of the two,
and Welcome names it (`negotiate`). Hello, Refused, Welcome and Ack never change. A version may add messages
(ADDED_MESSAGES) and fields with a default (`fields.added_in`); it renames, removes and reinterprets none. Whoever
sends says the agreed version to `encode`, which leaves out what that version does not know. docs/agent-protocol.md
has it all.
"""

from __future__ import annotations

import enum
import typing
from dataclasses import dataclass, field

from agent.fields import plain_fields, text_of
from agent.strict import ProtocolError as ProtocolError
from agent.strict import build, object_of

VERSION = 2
MAX_FRAME_BYTES = 256 * 1024  # Larger than any command with 200 secrets of 1 KB; small enough that 10,000 agents fit.
CONNECT_PATH = "/v1/agent/connect"
NONCE_HEADER = "Stagely-Nonce"  # Of the 101 response: NONCE_BYTES in hex, which this connection's Hello is signed over.
NONCE_BYTES = 16
WELCOME_TIMEOUT_S = 60.0  # An agent's patience. Behind a herd of 10,000 the queue takes 20 s (reference/gateway.md, 5).
INGRESS_PORT = 9443  # The first exposed service; the i-th one is reached at INGRESS_PORT + i.
MAX_LOG_BYTES = 64 * 1024  # One Log message; the agent batches for 100 ms or up to this.
_HELLO_DOMAIN = "stagely agent hello v1"  # Nothing else that this key may ever sign begins with this line.


class Outcome(enum.StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AgentState(enum.StrEnum):
    """What the agent is doing now; `HEALTHY` and `FAILED` are about the last deploy."""

    IDLE = "idle"
    BUILDING = "building"
    DEPLOYING = "deploying"
    HEALTHY = "healthy"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Service:
    """One Compose service as `docker compose ps` sees it.

    `status`: running, exited, restarting, ...; `health`: healthy, unhealthy, starting or "".
    """

    name: str
    status: str
    health: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command failed, for the person who opened the pull request.

    `subject` is the build target or Compose service (or "" when it is neither), `step` the phase it failed in
    (clone, build, push, pull, up, health), `exit_code` the process's or container's, `tail` its last 20 lines at most.
    """

    step: str
    message: str
    subject: str = ""
    exit_code: int | None = None
    tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SecretValue:
    """One secret in clear; it exists only in this message and in the memory of the two ends."""

    key: str
    value: str = field(repr=False)
    scope: str = "global"


@dataclass(frozen=True, slots=True)
class Image:
    """`reference` is `host:port/repository@sha256:...` for Compose service `service`."""

    service: str
    reference: str


@dataclass(frozen=True, slots=True)
class Exposed:
    """Ingress port `INGRESS_PORT + index in Deploy.expose` leads to `port` of `service`'s container."""

    service: str
    port: int
    url: str


# --- agent to core -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """First frame. `signature` is the agent's (Ed25519, hex) over `signed_bytes`, by the key behind `public_key` (hex).

    The first Hello's `token`, the enrolment JWT, binds the key to the VM; afterwards nothing but a signature by that
    key opens it, together with `session`: 32 random bytes (hex) that every Welcome replaces by `next_session`. The
    first Hello has "" there. Whoever comes with the right key and neither the newest session nor a repetition of the
    Hello that made it holds a copy of the VM's disk, or the VM does; the same token with another key is as bad.
    """

    agent_id: str
    public_key: str
    signature: str = field(repr=False)
    boot_id: str
    session: str = field(repr=False)
    next_session: str = field(repr=False)
    token: str = field(default="", repr=False)
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Every `Welcome.heartbeat_s`. Disk and memory are of the VM, in bytes; `services` as last seen."""

    state: AgentState
    services: tuple[Service, ...] = ()
    disk_free_bytes: int = 0
    memory_free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Log:
    """Whole lines of one stream, UTF-8 with replacement characters (also for NUL), masked.

    `stream`: "build/TARGET", "deploy" or "service/NAME".
    """

    seq: int
    command_id: str
    stream: str
    data: str


@dataclass(frozen=True, slots=True)
class Status:
    """A step of a command began or the state changed. `step` is "" or clone, build, push, pull, up, health."""

    seq: int
    command_id: str
    state: AgentState
    step: str = ""
    message: str = ""
    services: tuple[Service, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a command.

    `digest`: what a build pushed (`sha256:...`); `phases`: seconds by step name, as measured on the VM.
    """

    seq: int
    command_id: str
    outcome: Outcome
    digest: str = ""
    failure: Failure | None = None
    services: tuple[Service, ...] = ()
    phases: dict[str, float] = field(default_factory=dict)


# --- core to agent -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """The Hello was accepted. Everything up to `acked_seq` of this boot_id is stored already."""

    heartbeat_s: float
    acked_seq: int
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Build:
    """Build one target for this VM's architecture and push it by digest.

    `context` and `dockerfile` are paths inside the work tree (`dockerfile` relative to the context), `stage` the
    Dockerfile stage or "", `args` build arguments, `push_to` and `cache` repository references without and with a tag.
    `repo_token` opens the repository (HTTP basic password), `registry_token` the registry; "" means none is needed.
    """

    command_id: str
    repo: str
    sha: str
    target: str
    arch: str
    context: str
    dockerfile: str
    push_to: str
    cache: str
    timeout_s: float
    stage: str = ""
    args: dict[str, str] = field(default_factory=dict)
    secrets: tuple[SecretValue, ...] = ()
    repo_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Deploy:
    """Run the repository's Compose files at `sha` with these images and wait until every service is healthy.

    `compose_files` are paths inside the work tree in Compose's order; the first one's folder is the project folder.
    `project` is the Compose project name, the same for every deploy of an environment so that volumes stay.
    """

    command_id: str
    repo: str
    sha: str
    project: str
    compose_files: tuple[str, ...]
    images: tuple[Image, ...]
    expose: tuple[Exposed, ...]
    health_timeout_s: float
    profiles: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    secrets: tuple[SecretValue, ...] = ()
    repo_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Prepare:
    """Pull these public images while others are still being built. Best effort: its Result always succeeds."""

    command_id: str
    pull: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Cancel the command `target_id`: its process group is killed, its Result says cancelled."""

    command_id: str
    target_id: str


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Power this VM off. Used when the core no longer knows the VM's owner."""

    command_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ack:
    """All spooled messages with a seq at or below this one are stored; forget them."""

    seq: int


@dataclass(frozen=True, slots=True)
class Mask:
    """More values to hide in everything that is streamed from now on."""

    values: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The Hello or a frame was refused; the core closes the socket. `final`: trying again cannot help, power off."""

    code: str
    message: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Certify:
    """The identity of this VM's ingress: an X.509 certificate for the agent's own key, PEM, valid for a day.

    From its Result on every new connection to an ingress port is TLS 1.3 with the newest certificate; open connections
    go on. A VM that never got one takes plain connections. Since version 2.
    """

    command_id: str
    certificate: str


ToCore = Hello | Heartbeat | Log | Status | Result
ToAgent = Welcome | Build | Deploy | Prepare | Stop | Shutdown | Ack | Mask | Refused | Certify
Command = Build | Deploy | Prepare | Stop | Shutdown | Certify
Message = ToCore | ToAgent

TO_CORE: dict[str, type[ToCore]] = {c.__name__.upper(): c for c in typing.get_args(ToCore)}
TO_AGENT: dict[str, type[ToAgent]] = {c.__name__.upper(): c for c in typing.get_args(ToAgent)}
COMMANDS: tuple[type[Command], ...] = typing.get_args(Command)
ADDED_MESSAGES: dict[type[Message], int] = {Certify: 2}  # The version each came with, unless it is 1.


def signed_bytes(hello: Hello, nonce: str) -> bytes:
    """What a Hello is signed over: who, by which key and sessions, on the one connection that was given `nonce`.

    One field to a line. The core checks the form of each before it asks for these bytes: none may hold a newline.
    """
    lines = (
        _HELLO_DOMAIN,
        nonce,
        hello.agent_id,
        hello.boot_id,
        hello.public_key,
        hello.session,
        hello.next_session,
    )
    return "\n".join(lines).encode()


def negotiate(theirs: int, ours: int = VERSION) -> int:
    """The version that both ends speak: the older one, where they are the same or neighbours.

    Raises:
        ProtocolError: `unsupported_version`; nothing helps but a newer release at the end that is behind.
    """
    if theirs < 1 or ours < 1 or abs(theirs - ours) > 1:
        older = f" next to {ours - 1}" if ours > 1 else ""
        text = f"version {ours} of the agent protocol is spoken here{older}, not {theirs}"
        raise ProtocolError("unsupported_version", text)
    return min(theirs, ours)


def encode(message: Message, version: int = VERSION) -> str:
    """The frame's text for an end with which `version` was agreed.

    Raises:
        ProtocolError: `frame_too_large` beyond MAX_FRAME_BYTES of UTF-8; `unsupported_version` for a message that
            `version` does not know; `bad_value` for a float that JSON has no word for, and for a text with NUL or a
            lone surrogate, which the other end would refuse.
    """
    name = type(message).__name__.upper()
    since = ADDED_MESSAGES.get(type(message), 1)
    if since > version:
        raise ProtocolError("unsupported_version", f"{name} came with version {since}, the other end speaks {version}")
    text = text_of(plain_fields(message, version), name)
    if len(text) > MAX_FRAME_BYTES // 4 and len(text.encode()) > MAX_FRAME_BYTES:
        raise ProtocolError("frame_too_large", f"{name} has more than {MAX_FRAME_BYTES} bytes")
    return text


def decode_to_core(text: str) -> ToCore:
    """The message an agent sent. Raises ProtocolError."""
    fields, name = object_of(text)
    if name not in TO_CORE:
        raise ProtocolError("unknown_type", f"{name[:40]!r} is not a message to the core ({', '.join(TO_CORE)})")
    return build(TO_CORE[name], fields, name)


def decode_to_agent(text: str) -> ToAgent:
    """The message the core sent. Raises ProtocolError."""
    fields, name = object_of(text)
    if name not in TO_AGENT:
        raise ProtocolError("unknown_type", f"{name[:40]!r} is not a message to an agent ({', '.join(TO_AGENT)})")
    return build(TO_AGENT[name], fields, name)
