"""Signing in with a password: first the password, then a time-based code or a recovery code.

Whether an address is known shows neither in what is answered nor in how long it takes. No operation is open while a
password is hashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from strongroom.audit import record
from strongroom.database import Operation
from strongroom.kernel.actors import Actor, ActorKind, system
from strongroom.kernel.errors import Failure, Unauthenticated
from strongroom.kernel.ids import AccountId, PersonId, new_uuid
from strongroom.kernel.mail_addresses import find_address
from strongroom.kernel.secret import Secret
from strongroom.notices import queue_letter
from strongroom.people.credentials import find_password, take_recovery_code, take_totp
from strongroom.people.enforcement import require_local_sign_in
from strongroom.people.front_door import FrontDoor
from strongroom.people.lockout import (
    Counter,
    count_attempt,
    counters_for,
    device_cookie,
    forget_failures,
    read_device_cookie,
)
from strongroom.people.passwords import is_password
from strongroom.people.persons import Person, find_person
from strongroom.people.sessions import (
    SignedIn,
    Stage,
    Visitor,
    begin_session,
    end_session,
    find_session,
    renew_session,
)
from strongroom.tenancy import find_account

WITH_CODE: Final = "password and code"
WITH_RECOVERY_CODE: Final = "password and recovery code"
WITH_PASSKEY: Final = "passkey"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """What a browser gets that has signed in: the session's cookie, and the cookie by which the device is known."""

    session: Secret[str]
    device: Secret[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """The account's provider has vouched for the person.

    `session_hash`: of the provider's own session, `session_ends`: when that does; each if it said. `proven_at`: when
    the person proved to it who they are.
    """

    session_hash: bytes | None
    session_ends: datetime | None
    proven_at: datetime


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Somebody whom an address may be, with the hash of their password."""

    account: AccountId
    person: Person
    password: str | None


async def check_first_factor(
    door: FrontDoor, address: str, password: Secret[str], visitor: Visitor, *, device: str, account: AccountId | None
) -> Secret[str]:
    """The cookie of a session that waits for the second factor.

    `device` is the device cookie, if any; `account` the one that is meant, where the address is known to several.

    Raises errors.Unauthenticated (`SIGN_IN_REFUSED`, `ACCOUNT_IS_REQUIRED`, `SINGLE_SIGN_ON_REQUIRED`) and
    errors.TooOften (`SIGN_IN_LOCKED`).
    """
    found = find_address(address)
    counters = _counters(door, found or address[:256], visitor, device)
    await count_attempt(door.databases, counters)
    candidates = [] if found is None else await _candidates(door, found, account)
    proven = [one for one in candidates if await is_password(password, one.password)]
    if not candidates:
        await is_password(password, None)
    if not proven:
        await _record_refusals(door, candidates)
        raise _refused()
    if len(proven) > 1:
        raise Unauthenticated(
            Failure(
                "ACCOUNT_IS_REQUIRED",
                "This address and password belong to several accounts. Sign in by the link of the one that you mean.",
            )
        )
    one = proven[0]
    async with door.databases.operation(system("front-door"), account=one.account) as op:
        await require_local_sign_in(op, one.person.person_id, one.person.address)
        _, token = await begin_session(op, one.person.person_id, visitor, stage=Stage.SECOND_FACTOR, method=WITH_CODE)
    return token


async def check_second_factor(door: FrontDoor, waiting: str, code: str, visitor: Visitor, *, device: str) -> Entered:
    """Sign in: the session that waited ends, and another one begins under another secret.

    Raises errors.Unauthenticated (`SESSION_ENDED`, `CODE_REFUSED`) and errors.TooOften (`SIGN_IN_LOCKED`).
    """
    pending = await find_session(door.databases, waiting, visitor, stage=Stage.SECOND_FACTOR)
    method = await _prove(door, pending, code, visitor, device)
    return await enter(door, pending.account_id, pending.person, visitor, method=method, device=device, ends=pending)


async def prove_again(door: FrontDoor, signed_in: SignedIn, code: str, visitor: Visitor, *, device: str) -> Secret[str]:
    """A signed-in person proves themselves again, for something dangerous: the session goes on under another secret.

    Raises errors.Unauthenticated (`CODE_REFUSED`) and errors.TooOften (`SIGN_IN_LOCKED`).
    """
    await _prove(door, signed_in, code, visitor, device)
    async with door.databases.operation(signed_in.actor, account=signed_in.account_id) as op:
        return await renew_session(op, signed_in.session_id, proven=True)


async def enter(
    door: FrontDoor,
    account: AccountId,
    person: Person,
    visitor: Visitor,
    *,
    method: str,
    device: str,
    ends: SignedIn | None = None,
    vouched: Vouched | None = None,
) -> Entered:
    """Begin the session of a person who has proven who they are, and know their device from now on.

    `vouched`: the account's provider says so. Without, raises errors.Unauthenticated (`SINGLE_SIGN_ON_REQUIRED`) where
    nobody else may.
    """
    known = read_device_cookie(door.keys, person.address, device)
    async with door.databases.operation(person_actor(account, person.person_id, visitor), account=account) as op:
        if vouched is None:
            await require_local_sign_in(op, person.person_id, person.address)
        if ends is not None:
            await end_session(op, person.person_id, ends.session_id)
        _, session = await begin_session(
            op,
            person.person_id,
            visitor,
            stage=Stage.SIGNED_IN,
            method=method,
            provider_session=None if vouched is None else vouched.session_hash,
            ends_by=None if vouched is None else vouched.session_ends,
            proven_at=None if vouched is None else vouched.proven_at,
        )
        device_id = await _know_device(op, door, person, visitor, known)
        await record(op, "sign-in", "person", person.person_id, detail=method)
    return Entered(session=session, device=Secret(device_cookie(door.keys, person.address, device_id)))


async def _prove(door: FrontDoor, session: SignedIn, code: str, visitor: Visitor, device: str) -> str:
    """How the code proves the person; a code that was taken is kept so, whatever comes after."""
    person = session.person
    counters = _counters(door, person.address, visitor, device)
    await count_attempt(door.databases, counters)
    actor = person_actor(session.account_id, person.person_id)
    async with door.databases.operation(actor, account=session.account_id) as op:
        if await take_totp(op, person.person_id, code):
            method = WITH_CODE
        elif await take_recovery_code(op, person.person_id, code):
            method = WITH_RECOVERY_CODE
        else:
            method = ""
            await record(op, "sign-in", "person", person.person_id, outcome="refused", detail="CODE_REFUSED")
    if not method:
        raise Unauthenticated(
            Failure("CODE_REFUSED", "This code is not right, or was used before. Wait for the next one.")
        )
    await forget_failures(door.databases, counters)
    return method


async def _candidates(door: FrontDoor, address: str, account: AccountId | None) -> Sequence[_Candidate]:
    found = []
    for one in await door.book.accounts_of(address):
        if account in {None, one}:
            async with door.databases.operation(system("front-door"), account=one) as op:
                person = await find_person(op, address)
                if person is not None:
                    found.append(_Candidate(one, person, await find_password(op, person.person_id)))
    return found


async def _record_refusals(door: FrontDoor, candidates: Sequence[_Candidate]) -> None:
    for one in candidates:
        async with door.databases.operation(person_actor(one.account, one.person.person_id), account=one.account) as op:
            await record(op, "sign-in", "person", one.person.person_id, outcome="refused", detail="SIGN_IN_REFUSED")


async def _know_device(op: Operation, door: FrontDoor, person: Person, visitor: Visitor, known: UUID | None) -> UUID:
    """The device's id. Of one that is new, the person hears by mail, unless it is their very first."""
    if known is not None and await op.run("update devices set seen_at = %s where device_id = %s", op.now, known):
        return known
    device_id = new_uuid()
    others = await op.row("select 1 from devices where person_id = %s limit 1", person.person_id)
    await op.run(
        "insert into devices (account_id, device_id, person_id, sealed, first_seen_at, seen_at) "
        "values (%s, %s, %s, %s, %s, %s)",
        op.account,
        device_id,
        person.person_id,
        op.cipher.seal("devices", "sealed", device_id.bytes, msgspec.msgpack.encode(visitor)),
        op.now,
        op.now,
    )
    if others is not None:
        account = await find_account(op)
        values: dict[str, Any] = {
            "company": "" if account is None else account.company_name,
            "when": f"{op.now:%Y-%m-%d %H:%M} UTC",
            "agent": visitor.agent or "unknown",
            "source": visitor.source or "unknown",
            "link": door.sign_in_link,
        }
        await queue_letter(op, "new-device", person.address, values)
    await record(op, "device.know", "person", person.person_id, detail=f"device={device_id}")
    return device_id


def _counters(door: FrontDoor, address: str, visitor: Visitor, device: str) -> Sequence[Counter]:
    known = read_device_cookie(door.keys, address, device)
    return counters_for(door.keys, address, visitor.source, known)


def person_actor(account: AccountId, person: PersonId, visitor: Visitor | None = None) -> Actor:
    """A person who is about to prove who they are: named in the record, and allowed nothing yet."""
    source = None if visitor is None else visitor.address
    return Actor(kind=ActorKind.PERSON, name=str(person), account_id=account, source=source)


def _refused() -> Unauthenticated:
    return Unauthenticated(Failure("SIGN_IN_REFUSED", "The address or the password is not right."))
