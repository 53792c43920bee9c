"""Every error of the api as problem JSON (RFC 9457) with our code. The one place that turns errors into HTTP."""

from __future__ import annotations

from http import HTTPStatus

import asyncpg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from api.clients import is_database_away
from api.schemas import Problem
from stagely.errors import StagelyError
from stagely.logs import get_logger

MEDIA_TYPE = "application/problem+json"
_STATUS = {
    "spec_invalid": 422,
    "not_found": 404,
    "conflict": 409,
    "unauthorized": 401,
    "unavailable": 503,
    "github_unavailable": 503,
    "registry_unavailable": 503,
}
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media"}

log = get_logger()


class Refusal(Exception):
    """An answer whose status and code another part chose, such as a workflow's validator."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


def install(app: FastAPI) -> None:
    """Answer every error of this app as problem JSON."""
    app.add_exception_handler(StagelyError, _stagely)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    for kind in (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        app.add_exception_handler(kind, _outage)
    app.add_exception_handler(Exception, _unexpected)


def response(status: int, code: str, detail: str) -> JSONResponse:
    """One problem as a response."""
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(problem.model_dump(), status, media_type=MEDIA_TYPE, headers=headers)


async def _stagely(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StagelyError)
    return response(_STATUS.get(error.code, 502), error.code, str(error))


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return response(error.status, error.code, str(error))


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return response(error.status_code, _CODES.get(error.status_code, "http_error"), str(error.detail))


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = "/".join(str(part) for part in first["loc"])
    return response(422, "invalid_request", f"{where}: {first['msg'].removeprefix('Value error, ')}")


async def _outage(request: Request, error: Exception) -> JSONResponse:
    if not is_database_away(error):
        return await _unexpected(request, error)
    log.warning("request failed", path=request.url.path, error_code="database_away", reason=str(error)[:200])
    return response(503, "unavailable", "the database does not answer; try again in a moment")


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed", path=request.url.path, error_code="internal", exc_info=error)
    return response(500, "internal", "an error of ours; the api's log has it")
