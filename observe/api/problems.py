"""Errors as application/problem+json (RFC 9457): every one says what to change, or when to come back."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from observe.errors import BadRecord, Unavailable

log = logging.getLogger(__name__)


class NotFound(Exception):
    """There is no such thing; the message names it."""


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A response that says what went wrong."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Every error of the handlers becomes a problem."""
    app.add_exception_handler(BadRecord, lambda _, error: problem(400, str(error)))
    app.add_exception_handler(NotFound, lambda _, error: problem(404, str(error)))
    app.add_exception_handler(Unavailable, _unavailable)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def _unavailable(_: Request, error: Exception) -> JSONResponse:
    seconds = math.ceil(getattr(error, "retry_after_s", 1.0))
    return problem(503, str(error), {"Retry-After": str(max(1, seconds))})


def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return problem(400, "; ".join(_say(one) for one in error.errors()))


def _say(error: Mapping[str, Any]) -> str:
    place: Sequence[object] = error["loc"][1:] or error["loc"]
    name = ".".join(str(part) for part in place)
    if error["type"] == "extra_forbidden":
        return f"{name}: no such parameter"
    if error["type"] == "missing":
        return f"{name}: is needed"
    message = error["msg"].removeprefix("Value error, ")
    value = error.get("input")
    return f"{name} = {value!r}: {message}" if isinstance(value, str | int | float) else f"{name}: {message}"


def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = "no such address; /api/openapi.json lists them" if error.status_code == 404 else str(error.detail)
    return problem(error.status_code, detail, error.headers)


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(500, f"{type(error).__name__}: the log of this process says more")
