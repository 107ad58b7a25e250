"""A client of our own public API: signs in with an API key, renews its token, and says plainly what was refused.

Everything that `demo` and `run` do to an installation they do through this, over TLS, as anybody else would.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from strongroom.kernel.errors import (
    Broken,
    Failure,
    Forbidden,
    InFlight,
    Refused,
    StrongroomError,
    Unauthenticated,
    Unavailable,
)
from strongroom.kernel.secret import Secret
from strongroom.outbound import Answer, Destination, Limits, Outbound

ORDERS: Final = "/v1/order-management"
RENEWED_BEFORE_S: Final = 60.0
"""A token with less than this left is renewed first."""
ATTEMPTS: Final = 14
"""How often a request that may be repeated is sent before giving up: for longer than an upload that broke off in the
middle counts as still under way (a minute)."""
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 10.0
_LIMITS: Final = Limits(idle_s=120.0, total_s=300.0, answer_bytes=64 << 20)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An API key, and whose it is; `tenant_id` is empty for an account's. `private_key` is base64, as it was shown."""

    account_id: str
    public_key: str
    private_key: Secret[str]
    tenant_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A bulk job: how far it came."""

    job_id: str
    status: str
    accepted: int
    refused: int


class Client:
    """Speaks to the API at `url` (https, no path) with one key. Belongs to one event loop; close it when done.

    `trust` is the PEM file of the authority that vouches for the API's certificate; None: the system's.
    """

    def __init__(self, url: str, key: Key, *, trust: Path | None) -> None:
        address = urlsplit(url)
        host = address.hostname or ""
        destination = Destination(host=host, port=address.port or 443, loopback_ok=host in _LOOPBACK)
        self._url = url.rstrip("/")
        self._key = key
        self._outbound = Outbound(allowed=[destination], trust=trust, limits=_LIMITS)
        self._token = ""
        self._expires_at_s = 0.0
        self._signing_in = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._outbound.aclose()

    async def get(self, path: str) -> Any:
        """Read a resource. Raises as `request` does."""
        return _json(await self._repeated("GET", path))

    async def post(self, path: str, body: Mapping[str, object] | None = None) -> Any:
        """Make or do something, once: the same Idempotency-Key goes with every attempt. Raises as `request` does."""
        content = b"" if body is None else json.dumps(body).encode()
        return _json(await self._repeated("POST", path, content, "application/json", secrets.token_hex(16)))

    async def upload(self, content: bytes, *, media: str, idempotency_key: str) -> Job:
        """Send instructions in bulk; returns when every line has its verdict.

        The same content under the same key continues an upload that broke off, and repeats nothing that was done.
        """
        answer = _json(await self._repeated("POST", f"{ORDERS}/bulk", content, media, idempotency_key))
        return Job(
            job_id=answer["jobId"], status=answer["status"], accepted=answer["accepted"], refused=answer["refused"]
        )

    async def results(self, job_id: str) -> AsyncIterator[Mapping[str, Any]]:
        """A bulk job's verdicts, one for each line, in order."""
        path = f"{ORDERS}/bulk/{job_id}/results"
        while path:
            answer = await self._repeated("GET", path)
            for line in answer.body.splitlines():
                yield json.loads(line)
            following = answer.headers.get("link", "")
            path = following[1 : following.index(">")] if 'rel="next"' in following else ""

    async def request(
        self, method: str, path: str, body: bytes = b"", media: str = "application/json", idempotency_key: str = ""
    ) -> Answer:
        """One request, signed in. Returns a success's answer.

        Raises errors.Refused, errors.Forbidden, errors.Unauthenticated or errors.InFlight with the failures that the
        API named, and errors.Unavailable when it gave no answer or couldn't do its work.
        """
        headers = await self.credentials()
        if body:
            headers["content-type"] = media
        if idempotency_key:
            headers["idempotency-key"] = idempotency_key
        return await self._send(method, path, headers, body)

    async def credentials(self) -> dict[str, str]:
        """The headers that say who asks, signed in; good for the card vault's public door as well."""
        named = {"x-tenant-id": self._key.tenant_id} if self._key.tenant_id else {}
        return {"authorization": f"Bearer {await self._bearer()}", "x-account-id": self._key.account_id, **named}

    async def _repeated(
        self, method: str, path: str, body: bytes = b"", media: str = "application/json", idempotency_key: str = ""
    ) -> Answer:
        """A request that may be sent again, until it is answered."""
        for attempt in range(ATTEMPTS - 1):
            try:
                return await self.request(method, path, body, media, idempotency_key)
            except Unauthenticated:
                if attempt:
                    raise
                self._token = ""
            except (Unavailable, InFlight):
                await asyncio.sleep(min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S))
        return await self.request(method, path, body, media, idempotency_key)

    async def _bearer(self) -> str:
        async with self._signing_in:
            if not self._token or time.time() > self._expires_at_s - RENEWED_BEFORE_S:
                answer = _json(await self._send("POST", "/v1/identity/hmac", {"authorization": self._signature()}, b""))
                self._token, self._expires_at_s = answer["accessToken"], int(answer["expires"]) / 1000
            return self._token

    def _signature(self) -> str:
        """The header of wire contract section 2, without a body."""
        return sign(self._key, nonce=secrets.token_hex(16), epoch=f"{time.time():.3f}", body=b"")

    async def _send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        answer = await self._outbound.request(method, self._url + path, headers=headers, body=body)
        if answer.status >= 400:
            raise refusal_of(answer, f"{method} {path}")
        return answer


def sign(key: Key, *, nonce: str, epoch: str, body: bytes) -> str:
    """The Authorization header of a sign-in (wire contract, section 2). `epoch` is in seconds."""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode() if body else ""
    text = f"{key.public_key}:{nonce}:{epoch}:{digest}"
    signature = hmac.digest(base64.b64decode(key.private_key.reveal()), text.encode(), hashlib.sha256)
    return f"Hmac {key.public_key}:{nonce}:{epoch}:{base64.b64encode(signature).decode()}"


def refusal_of(answer: Answer, what: str) -> StrongroomError:
    """What an answer other than a success means, with the failures that it names."""
    kind: type[StrongroomError]
    match answer.status:
        case 401:
            kind = Unauthenticated
        case 403:
            kind = Forbidden
        case 409:
            kind = InFlight
        case status if status >= 500:
            kind = Unavailable
        case _:
            kind = Refused
    try:
        said = json.loads(answer.body)["errors"]
        failures = [Failure(item["errorCode"], "{message}", {"message": item["message"]}) for item in said]
    except (ValueError, KeyError, TypeError):
        failures = []
    unnamed = Failure("API_ERROR", "{what} was answered {status}.", {"what": what, "status": answer.status})
    return kind(*(failures or [unnamed]))


def _json(answer: Answer) -> Any:
    if not answer.body:
        return None
    try:
        return json.loads(answer.body)
    except ValueError as error:
        raise Broken(Failure("API_ANSWER_NOT_UNDERSTOOD", "The API's answer is not JSON.")) from error
