"""How is a failure told over HTTP? As problem+json (RFC 9457), with our stable code and a remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from aiom4b.errors import Aiom4bError, Exit, NeedsAttention, Transient
from aiom4b.redaction import json_text

MEDIA_TYPE = "application/problem+json"
_DOCS = "See /docs, or /openapi.json, for what can be asked."
# Codes that say more about the request than their exit code does.
_STATUSES = {
    "job.conflict": 409,
    "job.no_output": 409,
    "restore.exists": 409,
    "title.here": 409,
    "request.unauthorized": 401,
    "request.host": 421,
    "request.too_large": 413,
    "request.slow": 408,
}
_EXITS = {Exit.NOT_FOUND: 404, Exit.NOT_PERMITTED: 403}


class ProblemDetails(BaseModel):
    """Why a request failed, and what to do about it."""

    type: str = Field(default="about:blank", description="Always about:blank: `code` tells the kinds apart.")
    title: str = Field(description="The name of the HTTP status.", examples=["Not Found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="The reason, in whole sentences for a person.")
    code: str = Field(description="A stable name of the reason, for programs.", examples=["job.missing"])
    remedy: str = Field(description="What to do about it, in whole sentences for a person.")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route for OpenAPI: what each of these statuses means, as a problem."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def response(error: Aiom4bError, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that tells of an error."""
    return _answer(status_of(error), error.code, error.reason, error.remedy, headers)


def status_of(error: Aiom4bError) -> int:
    """Return the HTTP status of an error: whether to ask otherwise (4xx), or the same again later (503)."""
    if status := _STATUSES.get(error.code) or _EXITS.get(error.exit):
        return status
    return 503 if isinstance(error, Transient) else 422


def refused(code: str, reason: str, remedy: str = _DOCS) -> NeedsAttention:
    """Return the error of a request that we don't even look at."""
    return NeedsAttention(code, reason, remedy=remedy)


def install(app: FastAPI) -> None:
    """Let every failure inside ``app`` be told as a problem."""

    @app.exception_handler(Aiom4bError)
    async def ours(_: Request, error: Aiom4bError) -> Response:
        return response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        unreadable = any(found["type"] == "json_invalid" for found in error.errors())
        return _answer(400 if unreadable else 422, "request.invalid", _sentences(error.errors()), _DOCS)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        phrase = HTTPStatus(error.status_code).phrase
        if error.status_code == 404:
            return _answer(404, "request.unknown_path", f"There is nothing at {request.url.path}.", _DOCS)
        if error.status_code == 405:
            detail = f"{request.method} is not possible at {request.url.path}."
            return _answer(405, "request.method", detail, _DOCS, error.headers)
        return _answer(error.status_code, "request.failed", f"{error.detail or phrase}.", _DOCS, error.headers)

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, __: Exception) -> Response:
        # The server logs the traceback; a stranger needs none.
        return _answer(
            500,
            "internal",
            "The service failed to answer for a reason that nobody has thought of.",
            "Look into its log, and report what stands there.",
        )


def _answer(status: int, code: str, detail: str, remedy: str, headers: Mapping[str, str] | None = None) -> Response:
    problem = ProblemDetails(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code, remedy=remedy)
    text = json_text(problem.model_dump())  # a reason may hold whatever a stranger sent: surrogates, even a secret
    return Response(text.encode(), status, headers, MEDIA_TYPE)


def _sentences(found: Sequence[Mapping[str, Any]]) -> str:
    return " ".join(f"{_place(one['loc'])}: {str(one['msg']).removeprefix('Value error, ')}." for one in found[:10])


def _place(location: Sequence[object]) -> str:
    return ".".join(map(str, location[1:] or location))
