"""The two ways in which a request comes to nothing."""

from __future__ import annotations

from strongroom.kernel.errors import Failure, Unavailable


class NotSent(Unavailable):
    """It is certain that no byte of the request left this machine. Sending it again can't double anything.

    Codes: `OUTBOUND_DESTINATION_NOT_ALLOWED`, `OUTBOUND_ADDRESS_NOT_ALLOWED`, `OUTBOUND_REQUEST_INVALID`,
    `OUTBOUND_NAME_NOT_RESOLVED`, `OUTBOUND_NOT_CONNECTED`, `OUTBOUND_TLS_FAILED`, `OUTBOUND_BUSY`.
    """


class NoAnswer(Unavailable):
    """Bytes may have left and no whole answer came. What the other side did is unknown until it is asked.

    Codes: `OUTBOUND_ANSWER_LATE`, `OUTBOUND_ANSWER_BROKEN`, `OUTBOUND_ANSWER_TOO_LARGE`.
    """


def failure(code: str, host: str, port: int, cause: str) -> Failure:
    """A failure that names the destination and the cause, and nothing of what was to be sent."""
    return Failure(code, "{host}:{port}: {cause}", {"host": host, "port": port, "cause": cause})
