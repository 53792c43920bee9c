"""`/v1/codec`: the codec server of Temporal's Web UI. It shows people what the Temporal server cannot read.

Two ways in: our API token in the Authorization header, for the CLI and for what can send one; or an unguessable part
of the path, for the Web UI, which calls from the browser and knows no token of ours. That part is made per
installation, lies in a file of mode 0600, and is compared in constant time; whoever asks without it learns nothing.
Browsers hand answers to the pages of the configured Web UI only.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from fastapi import Depends, FastAPI, Request, Response
from google.protobuf import json_format
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.client import Client

from api import problems
from api.auth import TeamOf
from stagely.codec import EncryptionCodec, PayloadUnreadable
from stagely.errors import NotFound
from stagely.keyring import KeyFileInvalid, KeyUnknown
from stagely.logs import get_logger
from stagely.settings import Settings

PATH = "/v1/codec"
BODY_LIMIT_BYTES = 8 * 1024 * 1024  # A page of history in the Web UI; the server takes no payload above 2 MiB.
HEADERS = ("content-type", "x-namespace", "authorization")  # What the Web UI sends.
MIN_TOKEN_LENGTH = 32

log = get_logger()


def create_app(settings: Settings, codec: EncryptionCodec, team: TeamOf) -> FastAPI:
    """An application of its own, so that its CORS answers belong to no other route; the api mounts it at PATH.

    Raises RuntimeError for a path token that could be guessed.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    problems.install(app)
    origins = [origin.strip().rstrip("/") for origin in settings.temporal_ui_origin.split(",") if origin.strip()]
    app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["POST"], allow_headers=HEADERS)
    path_token = _path_token(settings)

    async def by_path(token: str) -> None:
        if not path_token or not hmac.compare_digest(token.encode(), path_token.encode()):
            raise NotFound("there is no such page")

    for name, convert in (("decode", codec.decode_one), ("encode", codec.encode_one)):
        endpoint = _endpoint(convert)
        app.add_api_route(f"/{name}", endpoint, methods=["POST"], dependencies=[Depends(team)])
        app.add_api_route(f"/{{token}}/{name}", endpoint, methods=["POST"], dependencies=[Depends(by_path)])
    return app


def codec_of(client: Client) -> EncryptionCodec:
    """The codec of this process' own client, so that both read one key file."""
    codec = client.data_converter.payload_codec
    assert isinstance(codec, EncryptionCodec)  # stagely.temporal makes no other client.
    return codec


def _path_token(settings: Settings) -> str:
    if settings.codec_path_token_file is None:
        return ""
    token = settings.secret(settings.codec_path_token_file, "codec_path_token_file")
    if len(token) < MIN_TOKEN_LENGTH or not token.isalnum():
        raise RuntimeError(
            f"STAGELY_CODEC_PATH_TOKEN_FILE must hold at least {MIN_TOKEN_LENGTH} letters and digits. "
            "Make them: openssl rand -hex 32"
        )
    return token


def _endpoint(convert: Callable[[Payload], Payload]) -> Callable[[Request], Awaitable[Response]]:
    async def convert_all(request: Request) -> Response:
        """JSON `Payloads` in, the same number out, in order."""
        given = _parse(await _read(request))
        made = Payloads(payloads=[_converted(convert, payload) for payload in given.payloads])
        return Response(json_format.MessageToJson(made, indent=None), media_type="application/json")

    return convert_all


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_LIMIT_BYTES:
            raise HTTPException(413, f"a page of payloads has at most {BODY_LIMIT_BYTES} bytes")
    return bytes(body)


def _parse(body: bytes) -> Payloads:
    try:
        return json_format.Parse(body, Payloads())
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise HTTPException(400, 'the body must be Temporal\'s JSON Payloads: {"payloads": [...]}') from error


def _converted(convert: Callable[[Payload], Payload], payload: Payload) -> Payload:
    """One that cannot be read stays as it came, so that the rest of its page is shown; its metadata names its key."""
    try:
        return convert(payload)
    except (KeyUnknown, KeyFileInvalid, PayloadUnreadable) as error:
        log.warning("payload not decoded", reason=str(error), error_code="payload_unreadable")
        return payload
