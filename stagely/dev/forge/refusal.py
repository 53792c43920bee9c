"""GitHub's way to say no, as an exception that becomes its answer."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse

_DOCS = "https://docs.github.com/rest"


class Refused(Exception):
    """An HTTP status with GitHub's JSON. `field` names what a 422 complains about."""

    def __init__(self, status: int, message: str, *, field: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.field = field
        self.headers = headers


def not_found() -> Refused:
    """Also for what exists but is none of the asker's business: GitHub does not tell the two apart."""
    return Refused(404, "Not Found")


def invalid(field: str, message: str) -> Refused:
    return Refused(422, message, field=field)


async def answer(request: Request, error: Exception) -> JSONResponse:
    """Starlette's handler of Refused."""
    assert isinstance(error, Refused)
    body: dict[str, object] = {"message": error.message, "documentation_url": _DOCS, "status": str(error.status)}
    if error.field:
        body["message"] = "Validation Failed"
        body["errors"] = [{"code": "custom", "field": error.field, "message": error.message}]
    return JSONResponse(body, error.status, headers=error.headers)
