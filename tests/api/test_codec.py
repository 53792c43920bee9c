"""The codec server as the Web UI, the CLI and strangers meet it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads

from api.codec import BODY_LIMIT_BYTES
from stagely.settings import Settings
from tests.api.ledger import API_TOKEN, Ledger
from tests.api.world import run_api
from tests.encryption import CONVERTER

UI = "http://127.0.0.1:8008"
PATH_TOKEN = "7d" * 32
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'"in clear"')
BEARER = {"Authorization": f"Bearer {API_TOKEN}"}


@pytest.fixture
async def web(settings: Settings, ledger: Ledger, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an api whose codec server the Web UI may use."""
    token = tmp_path / "codec-token"
    token.write_text(PATH_TOKEN + "\n")
    changes = {"codec_path_token_file": token, "temporal_ui_origin": f"{UI},http://localhost:8008"}
    async with run_api(settings.model_copy(update=changes)) as client:
        yield client


def body(*payloads: Payload) -> str:
    return json_format.MessageToJson(Payloads(payloads=payloads))


def payloads_of(answer: httpx.Response) -> list[Payload]:
    return list(json_format.Parse(answer.text, Payloads()).payloads)


async def sealed(payload: Payload = PLAIN) -> Payload:
    assert CONVERTER.payload_codec is not None
    return (await CONVERTER.payload_codec.encode([payload]))[0]


async def test_a_team_token_decodes(web: httpx.AsyncClient) -> None:
    answer = await web.post("/v1/codec/decode", content=body(await sealed(), PLAIN), headers=BEARER)

    assert answer.status_code == 200
    assert payloads_of(answer) == [PLAIN, PLAIN]


async def test_the_path_of_this_installation_decodes(web: httpx.AsyncClient) -> None:
    answer = await web.post(f"/v1/codec/{PATH_TOKEN}/decode", content=body(await sealed()), headers={"Origin": UI})

    assert payloads_of(answer) == [PLAIN]
    assert answer.headers["Access-Control-Allow-Origin"] == UI


async def test_what_was_encoded_here_decodes_here(web: httpx.AsyncClient) -> None:
    encoded = await web.post("/v1/codec/encode", content=body(PLAIN), headers=BEARER)
    decoded = await web.post("/v1/codec/decode", content=encoded.text, headers=BEARER)

    assert b"in clear" not in payloads_of(encoded)[0].data
    assert payloads_of(decoded) == [PLAIN]


async def test_one_wrong_payload_leaves_the_others_readable(web: httpx.AsyncClient) -> None:
    unknown, damaged = await sealed(), await sealed()
    unknown.metadata["encryption-key-id"] = b"of-another-installation"
    damaged.data = damaged.data[:-1] + b"\0\0"

    answer = await web.post("/v1/codec/decode", content=body(unknown, damaged, await sealed()), headers=BEARER)

    assert payloads_of(answer) == [unknown, damaged, PLAIN]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {API_TOKEN}"}])
async def test_without_a_token_nothing_is_decoded(web: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await web.post("/v1/codec/decode", content=body(await sealed()), headers=headers)

    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthorized"


@pytest.mark.parametrize("token", ["7d" * 31 + "7e", "x", "%C3%A9"])
async def test_another_path_is_not_found(web: httpx.AsyncClient, token: str) -> None:
    answer = await web.post(f"/v1/codec/{token}/decode", content=body(await sealed()))

    assert answer.status_code == 404


async def test_without_a_configured_path_no_path_decodes(settings: Settings, ledger: Ledger) -> None:
    async with run_api(settings) as web:
        answer = await web.post("/v1/codec/%20/decode", content=body(await sealed()))

    assert answer.status_code == 404


async def test_the_web_uis_preflight_is_allowed(web: httpx.AsyncClient) -> None:
    asked = {
        "Origin": "http://localhost:8008",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-namespace",
    }

    answer = await web.options(f"/v1/codec/{PATH_TOKEN}/decode", headers=asked)

    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:8008"


async def test_another_sites_page_gets_no_permission(web: httpx.AsyncClient) -> None:
    asked = {"Origin": "http://evil.test", "Access-Control-Request-Method": "POST"}

    preflight = await web.options("/v1/codec/decode", headers=asked)
    answer = await web.post("/v1/codec/decode", content=body(), headers={**BEARER, "Origin": "http://evil.test"})

    assert preflight.status_code == 400
    assert "Access-Control-Allow-Origin" not in preflight.headers
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_other_routes_answer_no_foreign_page(web: httpx.AsyncClient) -> None:
    answer = await web.get("/v1/api/environments", headers={**BEARER, "Origin": UI})

    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_body_that_is_too_large_is_refused(web: httpx.AsyncClient) -> None:
    answer = await web.post("/v1/codec/decode", content=b" " * (BODY_LIMIT_BYTES + 1), headers=BEARER)

    assert answer.status_code == 413


@pytest.mark.parametrize("text", ["", "1", '{"payloads": 1}', '{"others": []}', "\udcff", "[" * 100000])
async def test_a_body_that_is_no_payloads_is_refused(web: httpx.AsyncClient, text: str) -> None:
    content = text.encode("utf-8", "surrogateescape")

    answer = await web.post("/v1/codec/decode", content=content, headers=BEARER)

    assert answer.status_code == 400
    assert answer.json()["code"] == "bad_request"


async def test_a_path_token_that_could_be_guessed_ends_the_start(settings: Settings, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_text("abc\n")

    with pytest.raises(ExceptionGroup) as refused:
        async with run_api(settings.model_copy(update={"codec_path_token_file": short})):
            pass

    assert refused.group_contains(RuntimeError, match="must hold at least 32 letters and digits")
