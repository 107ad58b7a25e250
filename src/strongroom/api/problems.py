"""Errors on the wire: which status a situation has, and the error body (wire contract, section 1; RFC 9457)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from strongroom.kernel import errors
from strongroom.kernel.errors import Failure, StrongroomError

RETRY_AFTER_S: Final = 1
PROBLEM_MEDIA: Final = b"application/problem+json"
_STATUS: Final[tuple[tuple[type[StrongroomError], int], ...]] = (
    (errors.Refused, 400),
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.InFlight, 409),
    (errors.TooLarge, 413),
    (errors.UnsupportedMedia, 415),
    (errors.KeyReused, 422),
    (errors.TooOften, 429),
    (errors.Unavailable, 503),
)
_TITLES: Final = {
    400: "The request can't be carried out",
    401: "Sign in first",
    403: "Not allowed",
    404: "No such path",
    405: "No such method here",
    409: "Already being worked on",
    413: "Too large",
    415: "Media type not read",
    422: "Idempotency key used before",
    429: "Too many requests",
    500: "Our fault",
    503: "Not available",
}


class ErrorItem(msgspec.Struct, rename="camel"):
    """One failure."""

    error_code: str
    message: str
    message_template: str
    metadata: dict[str, Any]


class ErrorBody(msgspec.Struct, rename="camel"):
    """Every error but the mandate routes' has this body. `timestamp` is epoch milliseconds."""

    timestamp: int
    correlation_id: str
    errors: list[ErrorItem]


class ProblemBody(msgspec.Struct, rename="camel"):
    """RFC 9457 section 3, with the same failures as an extension member."""

    type: str
    title: str
    status: int
    detail: str
    correlation_id: str
    errors: list[ErrorItem]


def status_of(error: StrongroomError) -> int:
    """The HTTP status for an error's situation."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return 500


def render(failures: Sequence[Failure], status: int, correlation_id: str, accept: str) -> tuple[bytes, bytes]:
    """The error body and its media type."""
    items = [
        ErrorItem(
            failure.code,
            failure.message,
            failure.template,
            {**failure.values, "correlationId": correlation_id},
        )
        for failure in failures
    ]
    if PROBLEM_MEDIA.decode() in accept:
        problem = ProblemBody(
            "about:blank", _TITLES.get(status, "Error"), status, failures[0].message, correlation_id, items
        )
        return msgspec.json.encode(problem), PROBLEM_MEDIA
    return msgspec.json.encode(ErrorBody(int(time.time() * 1000), correlation_id, items)), b"application/json"
