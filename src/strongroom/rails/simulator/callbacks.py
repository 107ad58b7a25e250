"""Callbacks: signed after Standard Webhooks 1.0, delivered at least once, tried again after growing pauses."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import structlog

from strongroom.kernel.clock import Clock
from strongroom.kernel.secret import Secret
from strongroom.outbound import Destination, Limits, NoAnswer, NotSent, Outbound
from strongroom.rails.simulator.books import Books, Callback, Entry, Status

MAX_DESTINATIONS: Final = 16
"""Hosts that one simulator ever calls back; each has a client of its own."""
_LIMITS: Final = Limits(connect_s=2.0, idle_s=5.0, total_s=10.0, answer_bytes=64 << 10, connections=16)
_EVERY_S: Final = 0.1
_TYPES: Final = {
    Status.SETTLED: "payment.settled",
    Status.PENDING: "payment.pending",
    Status.REFUSED: "payment.refused",
}

_log = structlog.get_logger("strongroom.simulator")


def signing_key(secret: Secret[bytes]) -> bytes:
    """The key that callbacks are signed with, derived from the secret so that one never stands in for the other."""
    return hmac.digest(secret.reveal(), b"strongroom-simulator/callbacks", hashlib.sha256)


def signed_headers(key: bytes, webhook_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """The three headers of Standard Webhooks 1.0 ("Signature scheme", symmetric): the signature covers the id, the
    instant of this attempt (seconds since 1970) and the body, joined by full stops."""
    timestamp = str(int(now.timestamp()))
    signature = hmac.digest(key, b".".join((webhook_id.encode(), timestamp.encode(), body)), hashlib.sha256)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + base64.b64encode(signature).decode(),
    }


def wire_entry(entry: Entry) -> Mapping[str, Any]:
    """A payment in the provider's dialect, in answers and callbacks alike."""
    return {
        "reference": entry.reference,
        "provider_reference": entry.provider_reference,
        "status": entry.status,
        "reason": entry.reason,
        "detail": entry.detail,
        "amount": entry.amount,
        "currency": entry.currency,
        "at": entry.at,
    }


class Courier:
    """Ends pending payments when their time has come, and carries the callbacks out. `trust` as for `Outbound`."""

    def __init__(self, books: Books, clock: Clock, secret: Secret[bytes], trust: Path | None) -> None:
        self._books = books
        self._clock = clock
        self._key = signing_key(secret)
        self._trust = trust
        self._clients: dict[tuple[str, int], Outbound] = {}

    def accepts(self, url: str) -> bool:
        """Whether callbacks can be sent there: an https address, and one of not too many."""
        try:
            return self._client(url) is not None
        except ValueError:
            return False

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self._books.settle_due(self._clock.now())
                await asyncio.gather(*map(self._deliver, await self._books.due_callbacks(self._clock.now())))
            except Exception:
                _log.exception("courier failed, goes on")
            await asyncio.sleep(_EVERY_S)

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose()

    async def _deliver(self, callback: Callback) -> None:
        now = self._clock.now()
        body = msgspec.json.encode(
            {"type": _TYPES[callback.entry.status], "timestamp": callback.entry.at, "data": wire_entry(callback.entry)}
        )
        headers = signed_headers(self._key, callback.webhook_id, body, now) | {"content-type": "application/json"}
        client = self._client(callback.url)
        try:
            if client is None:
                taken = False
            else:
                answer = await client.request("POST", callback.url, headers=headers, body=body)
                taken = 200 <= answer.status < 300
        except (NotSent, NoAnswer) as failure:
            _log.info("callback not delivered", webhook_id=callback.webhook_id, code=failure.code)
            taken = False
        if taken:
            await self._books.delivered(callback, self._clock.now())
        else:
            await self._books.not_delivered(callback, self._clock.now())

    def _client(self, url: str) -> Outbound | None:
        parts = urlsplit(url)
        place = (parts.hostname or "", parts.port or 443)
        if parts.scheme != "https" or not place[0]:
            return None
        if place not in self._clients:
            if len(self._clients) >= MAX_DESTINATIONS:
                return None
            destination = Destination(host=place[0], port=place[1], loopback_ok=True)
            self._clients[place] = Outbound(allowed=[destination], trust=self._trust, limits=_LIMITS)
        return self._clients[place]
