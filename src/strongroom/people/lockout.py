"""Lock-out: guessing is slow, and nobody can lock somebody else out.

Attempts are counted before they are made, and forgotten when one succeeds. What is counted, by keyed hashes in the
directory and for addresses that nobody has just the same:

- from a device that the person has signed in from before (it holds a cookie of ours that says so): that device;
- from anywhere else: the address together with where the attempt comes from, and, for guesses spread over many places,
  the address with all strange places together, which may fail more often.

So a stranger who fails on purpose locks out strangers: the person's own devices go on. (After OWASP's "device cookies"
against guessing online, and NIST SP 800-63B-4 section 3.2.2.)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from strongroom.database import Databases
from strongroom.kernel.errors import Failure, TooOften
from strongroom.people.keys import DoorKeys, decode, encode

MAX_FAILURES: Final = 10
"""Failures in a row of one device, or from one place."""
MAX_STRANGE_FAILURES: Final = 100
"""Failures in a row from all strange places together."""
LOCKED_FOR: Final = timedelta(minutes=30)
_IPV6_HOME: Final = 64
"""An IPv6 network of this size is one place: whoever has one address of it has them all."""


@dataclass(frozen=True, slots=True)
class Counter:
    """What is counted, by its keyed hash, and how often it may fail."""

    subject: bytes
    limit: int


def counters_for(keys: DoorKeys, address: str, source: str, device: UUID | None) -> Sequence[Counter]:
    """What an attempt counts towards. `device` is one that is known to be the person's."""
    whose = address.encode()
    if device is not None:
        return [Counter(keys.hash("failures", whose, b"device", device.bytes), MAX_FAILURES)]
    return [
        Counter(keys.hash("failures", whose, b"place", place_of(source).encode()), MAX_FAILURES),
        Counter(keys.hash("failures", whose, b"anywhere"), MAX_STRANGE_FAILURES),
    ]


async def count_attempt(databases: Databases, counters: Sequence[Counter]) -> None:
    """Count an attempt before it is made, so that many at once aren't more than one after the other.

    Raises errors.TooOften (`SIGN_IN_LOCKED`) when there were too many; these don't count.
    """
    now = databases.clock.now()
    async with databases.directory() as connection:
        for counter in counters:
            cursor = await connection.execute(
                "insert into sign_in_failures as f (subject_hash, failures, expires_at) "
                "values (%(subject)s, 1, %(end)s) on conflict (subject_hash) do update set "
                "failures = case when f.expires_at <= %(now)s then 1 else f.failures + 1 end, expires_at = %(end)s "
                "where f.expires_at <= %(now)s or f.failures < %(limit)s returning failures",
                {"subject": counter.subject, "end": now + LOCKED_FOR, "now": now, "limit": counter.limit},
                binary=True,
            )
            if await cursor.fetchone() is None:
                raise _locked()


async def forget_failures(databases: Databases, counters: Sequence[Counter]) -> None:
    """Count from nothing again, after a success."""
    async with databases.directory() as connection:
        await connection.execute(
            "delete from sign_in_failures where subject_hash = any(%s)", ([counter.subject for counter in counters],)
        )


def device_cookie(keys: DoorKeys, address: str, device: UUID) -> str:
    """What a browser keeps to be known again as this device of the person with this address."""
    return encode(device.bytes + _device_mark(keys, address, device))


def read_device_cookie(keys: DoorKeys, address: str, cookie: str) -> UUID | None:
    """The device, if the cookie is one of this person's."""
    raw = decode(cookie)
    if raw is None or len(raw) != 16 + 32:
        return None
    device = UUID(bytes=raw[:16])
    return device if keys.is_hash(raw[16:], _device_mark(keys, address, device)) else None


def place_of(source: str) -> str:
    """Where an IP address is, as far as counting goes: itself, or its /64 network. What isn't one is one place."""
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _IPV6_HOME), strict=False))
    return str(address)


def _device_mark(keys: DoorKeys, address: str, device: UUID) -> bytes:
    return keys.hash("device", address.encode(), device.bytes)


def _locked() -> TooOften:
    return TooOften(
        Failure(
            "SIGN_IN_LOCKED",
            "There were too many failed attempts for this address from here. Wait {minutes} minutes, or sign in on a "
            "device that you have used before, or with a passkey.",
            {"minutes": int(LOCKED_FOR.total_seconds()) // 60},
        ),
        retry_after_s=int(LOCKED_FOR.total_seconds()),
    )
