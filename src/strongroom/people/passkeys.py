"""Passkeys: WebAuthn credentials (Web Authentication, Level 3) with user verification, found by the device itself.

A challenge is given out for one use by one browser, kept as a keyed hash in the directory, and answered once. The
answer counts only if it was made for our origin and name, with the user verified, and its signature counter has moved
on: one that hasn't was made by a copy of the passkey.
"""

from __future__ import annotations

import enum
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import (
    parse_authentication_credential_json,
    parse_client_data_json,
    parse_registration_credential_json,
)
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticationCredential,
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from strongroom.audit import record
from strongroom.database import Operation
from strongroom.kernel.errors import Conflict, Failure, NotFound, Unauthenticated
from strongroom.kernel.ids import AccountId, PersonId
from strongroom.kernel.secret import Secret
from strongroom.people.acceptance import Accepted, accept, check_name
from strongroom.people.credentials import add_credential
from strongroom.people.front_door import FrontDoor
from strongroom.people.invitations import look_up
from strongroom.people.persons import Person, get_person
from strongroom.people.sessions import SignedIn, Visitor, renew_session
from strongroom.people.sign_in import WITH_PASSKEY, Entered, enter, person_actor

MAX_PASSKEYS: Final = 10
"""Most passkeys of a person."""
ANSWER_WITHIN: Final = timedelta(minutes=5)
_CHALLENGE_BYTES: Final = 32
_PREFER_DEVICE: Final = AuthenticatorSelectionCriteria(
    resident_key=ResidentKeyRequirement.REQUIRED,
    require_resident_key=True,
    user_verification=UserVerificationRequirement.REQUIRED,
)


class Use(enum.StrEnum):
    """What a challenge is for; it is good for nothing else."""

    ACCEPT = "accept"
    ADD = "add"
    SIGN_IN = "sign-in"
    PROVE = "prove"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """A passkey as it is kept."""

    credential_id: bytes
    public_key: bytes


@dataclass(frozen=True, slots=True)
class _Proven:
    """Whose passkey has answered."""

    account: AccountId
    person: Person


async def options_to_accept(door: FrontDoor, token: Secret[str], browser: str) -> str:
    """What a browser needs to make the passkey of somebody invited, as JSON.

    `browser` is what the browser's forms are tied to. Raises errors.Unauthenticated (`INVITATION_INVALID`).
    """
    link, invitation = await look_up(door.databases, door.keys, token)
    handle = link.account_id.bytes + invitation.person_id.bytes
    return await _creation_options(door, Use.ACCEPT, browser, handle=handle, address=invitation.address, known=())


async def accept_with_passkey(
    door: FrontDoor, token: Secret[str], *, name: str, answer: str, browser: str, visitor: Visitor
) -> Accepted:
    """Come in with a passkey, which is both factors at once; there are no recovery codes to it.

    Raises errors.Unauthenticated (`INVITATION_INVALID`, `PASSKEY_REFUSED`) and errors.Invalid (`NAME_IS_REQUIRED`,
    `NAME_LENGTH_OUT_OF_RANGE`).
    """
    link, _ = await look_up(door.databases, door.keys, token)
    check_name(name)
    passkey, counter = await _read_new(door, Use.ACCEPT, browser, answer)

    async def keep(op: Operation, person: PersonId) -> None:
        await _keep(op, person, passkey, counter)

    return await accept(door, link, name, keep, visitor, method=WITH_PASSKEY)


async def options_to_add(door: FrontDoor, signed_in: SignedIn, browser: str) -> str:
    """What a browser needs to make one more passkey of its person, as JSON.

    Raises errors.Conflict (`PASSKEY_LIMIT_REACHED`).
    """
    async with door.databases.operation(signed_in.actor, account=signed_in.account_id) as op:
        known = await _passkeys(op, signed_in.person.person_id)
    if len(known) >= MAX_PASSKEYS:
        raise Conflict(Failure("PASSKEY_LIMIT_REACHED", "There are {limit} passkeys already.", {"limit": MAX_PASSKEYS}))
    person = signed_in.person
    handle = signed_in.account_id.bytes + person.person_id.bytes
    return await _creation_options(door, Use.ADD, browser, handle=handle, address=person.address, known=known)


async def add_passkey(door: FrontDoor, signed_in: SignedIn, *, answer: str, browser: str) -> None:
    """Keep one more passkey of a person. Raises errors.Unauthenticated (`PASSKEY_REFUSED`)."""
    passkey, counter = await _read_new(door, Use.ADD, browser, answer)
    async with door.databases.operation(signed_in.actor, account=signed_in.account_id) as op:
        await _keep(op, signed_in.person.person_id, passkey, counter)


async def options_to_sign_in(door: FrontDoor, browser: str) -> str:
    """What a browser needs to sign somebody in who says nothing about themselves, as JSON."""
    return await _request_options(door, Use.SIGN_IN, browser, ())


async def sign_in_with_passkey(door: FrontDoor, *, answer: str, browser: str, visitor: Visitor, device: str) -> Entered:
    """Sign in with a passkey. Raises errors.Unauthenticated (`PASSKEY_REFUSED`)."""
    proven = await _read_proof(door, Use.SIGN_IN, browser, answer)
    return await enter(door, proven.account, proven.person, visitor, method=WITH_PASSKEY, device=device)


async def options_to_prove(door: FrontDoor, signed_in: SignedIn, browser: str) -> str:
    """What a browser needs for its person to prove themselves again, as JSON."""
    async with door.databases.operation(signed_in.actor, account=signed_in.account_id) as op:
        known = await _passkeys(op, signed_in.person.person_id)
    return await _request_options(door, Use.PROVE, browser, known)


async def prove_with_passkey(door: FrontDoor, signed_in: SignedIn, *, answer: str, browser: str) -> Secret[str]:
    """A signed-in person proves themselves again: the session goes on under another secret.

    Raises errors.Unauthenticated (`PASSKEY_REFUSED`), also for somebody else's passkey.
    """
    proven = await _read_proof(door, Use.PROVE, browser, answer)
    if (proven.account, proven.person.person_id) != (signed_in.account_id, signed_in.person.person_id):
        raise _refused()
    async with door.databases.operation(signed_in.actor, account=signed_in.account_id) as op:
        return await renew_session(op, signed_in.session_id, proven=True)


async def _creation_options(
    door: FrontDoor, use: Use, browser: str, *, handle: bytes, address: str, known: Sequence[Passkey]
) -> str:
    options = generate_registration_options(
        rp_id=door.host,
        rp_name="strongroom",
        user_id=handle,
        user_name=address,
        challenge=await _give_out(door, use, browser),
        authenticator_selection=_PREFER_DEVICE,
        exclude_credentials=[PublicKeyCredentialDescriptor(id=passkey.credential_id) for passkey in known],
    )
    return options_to_json(options)


async def _request_options(door: FrontDoor, use: Use, browser: str, known: Sequence[Passkey]) -> str:
    options = generate_authentication_options(
        rp_id=door.host,
        challenge=await _give_out(door, use, browser),
        allow_credentials=[PublicKeyCredentialDescriptor(id=passkey.credential_id) for passkey in known],
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return options_to_json(options)


async def _give_out(door: FrontDoor, use: Use, browser: str) -> bytes:
    challenge = os.urandom(_CHALLENGE_BYTES)
    now = door.databases.clock.now()
    async with door.databases.directory() as connection:
        await connection.execute(
            "insert into passkey_challenges (challenge_hash, expires_at) values (%s, %s)",
            (_hash(door, use, browser, challenge), now + ANSWER_WITHIN),
        )
    return challenge


async def _take_back(door: FrontDoor, use: Use, browser: str, client_data: bytes) -> bytes:
    """The challenge that was answered; it can't be answered again. Raises errors.Unauthenticated."""
    challenge = parse_client_data_json(client_data).challenge
    async with door.databases.directory() as connection:
        cursor = await connection.execute(
            "delete from passkey_challenges where challenge_hash = %s and expires_at > %s returning 1",
            (_hash(door, use, browser, challenge), door.databases.clock.now()),
        )
        if await cursor.fetchone() is None:
            raise _refused()
    return challenge


async def _read_new(door: FrontDoor, use: Use, browser: str, answer: str) -> tuple[Passkey, int]:
    try:
        credential = parse_registration_credential_json(answer)
        challenge = await _take_back(door, use, browser, credential.response.client_data_json)
        verified = verify_registration_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=door.host,
            expected_origin=door.origin,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, TypeError, KeyError):
        raise _refused() from None
    return Passkey(credential_id=verified.credential_id, public_key=verified.credential_public_key), verified.sign_count


async def _read_proof(door: FrontDoor, use: Use, browser: str, answer: str) -> _Proven:
    try:
        credential = parse_authentication_credential_json(answer)
        challenge = await _take_back(door, use, browser, credential.response.client_data_json)
        account, person_id = _whose(credential)
        await door.databases.locate_account(account)
    except (WebAuthnException, ValueError, TypeError, KeyError, NotFound):
        raise _refused() from None
    async with door.databases.operation(person_actor(account, person_id), account=account) as op:
        refusal = await _refusal(op, door, credential, challenge, person_id)
        if not refusal:
            return _Proven(account, await get_person(op, person_id))
        await record(op, "sign-in", "person", person_id, outcome="refused", detail=refusal)
    raise _refused()


async def _refusal(
    op: Operation, door: FrontDoor, credential: AuthenticationCredential, challenge: bytes, person: PersonId
) -> str:
    """Why the answer doesn't count; empty when it does, and the passkey's counter has moved on."""
    row = await op.row(
        "select credential_id, sealed from credentials where lookup = %s and person_id = %s",
        _lookup(credential.raw_id),
        person,
    )
    if row is None:
        return "PASSKEY_UNKNOWN"
    try:
        verified = verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=door.host,
            expected_origin=door.origin,
            credential_public_key=_open(op, row[0], row[1]).public_key,
            credential_current_sign_count=0,  # compared below, where two answers at once can't both be first
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, TypeError, KeyError):
        return "PASSKEY_REFUSED"
    moved_on = await op.run(
        "update credentials set counter = %s, used_at = %s where credential_id = %s "
        "and (counter < %s or (counter = 0 and %s = 0))",
        verified.new_sign_count,
        op.now,
        row[0],
        verified.new_sign_count,
        verified.new_sign_count,
    )
    return "" if moved_on else "PASSKEY_CLONED"


def _whose(credential: AuthenticationCredential) -> tuple[AccountId, PersonId]:
    handle = credential.response.user_handle or b""
    if len(handle) != 32:
        raise ValueError("not a handle of ours")
    return AccountId(UUID(bytes=handle[:16])), PersonId(UUID(bytes=handle[16:]))


async def _passkeys(op: Operation, person: PersonId) -> Sequence[Passkey]:
    rows = await op.rows(
        "select credential_id, sealed from credentials where person_id = %s and kind = 'PASSKEY' limit %s",
        person,
        MAX_PASSKEYS,
    )
    return [_open(op, row[0], row[1]) for row in rows]


async def _keep(op: Operation, person: PersonId, passkey: Passkey, counter: int) -> None:
    await add_credential(
        op,
        person,
        "PASSKEY",
        msgspec.msgpack.encode(passkey),
        lookup=_lookup(passkey.credential_id),
        counter=counter,
    )


def _open(op: Operation, credential_id: UUID, envelope: Any) -> Passkey:
    return _DECODER.decode(op.cipher.open("credentials", "sealed", credential_id.bytes, envelope))


def _lookup(credential_id: bytes) -> bytes:
    return hashlib.sha256(credential_id).digest()


def _hash(door: FrontDoor, use: Use, browser: str, challenge: bytes) -> bytes:
    return door.keys.hash("challenge", use.value.encode(), browser.encode(), challenge)


def _refused() -> Unauthenticated:
    return Unauthenticated(Failure("PASSKEY_REFUSED", "This passkey was not taken. Try again, or sign in another way."))


_DECODER: Final = msgspec.msgpack.Decoder(Passkey)
