"""Invitations: how people come in.

An invitation is for one address, and for roles in the account itself or in one of its tenants. Its life: INVITED, then
ACCEPTED or REVOKED; one that nobody answers in time has EXPIRED, and can be sent again, which ends the link before.
The link holds an encrypted token (`people.keys`) with the account, the invitation and a secret; nothing in it can be
read or altered. The database holds the secret's hash, and under the account's key what the invitation was bound to when
it was made: a row that says something else now is no invitation.

Whatever is wrong with a link, one answer is given, after the same work and no earlier than a right one's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import hmac
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from strongroom.audit import record
from strongroom.database import Databases, Operation
from strongroom.kernel.actors import system
from strongroom.kernel.clock import sleep_until
from strongroom.kernel.errors import AlreadyExists, Conflict, Failure, NotFound, Unauthenticated
from strongroom.kernel.ids import AccountId, InvitationId, PersonId, TenantId, new_uuid
from strongroom.kernel.secret import Secret
from strongroom.people.grants import check_roles, check_tenant, require_users, roles_of, set_roles
from strongroom.people.keys import DoorKeys
from strongroom.people.persons import MAX_PERSONS, address_hash, find_person

LIFETIME: Final = timedelta(hours=72)
MAX_LIFETIME: Final = timedelta(days=14)
ANSWER_S: Final = 0.06
"""A link is answered after so many seconds, right or wrong; what has to be done for it takes a few milliseconds."""
_SECRET_BYTES: Final = 32
_END: Final = "invitation"
_NOBODY: Final = UUID(int=0)


class InvitationState(enum.StrEnum):
    """Where an invitation stands."""

    INVITED = "INVITED"
    ACCEPTED = "ACCEPTED"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """An invitation. `person_id` is who it makes; `address` is in its comparable form."""

    invitation_id: InvitationId
    person_id: PersonId
    address: str
    tenant_id: TenantId | None
    roles: tuple[str, ...]
    state: InvitationState
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedInvitation:
    """What is sealed of an invitation."""

    address: str


@dataclass(frozen=True, slots=True)
class Link:
    """What a link's token says, once it is known to be ours."""

    account_id: AccountId
    invitation_id: InvitationId
    secret: bytes

    def sealed(self, keys: DoorKeys) -> Secret[str]:
        """The token, as it stands in the link."""
        return Secret(keys.seal(_END, self.account_id.bytes + self.invitation_id.bytes + self.secret))


async def invite(
    op: Operation,
    databases: Databases,
    keys: DoorKeys,
    *,
    address: str,
    roles: Collection[str],
    tenant: TenantId | None = None,
    lifetime: timedelta = LIFETIME,
) -> tuple[Invitation, Secret[str] | None]:
    """Invite an address (in its comparable form); the secret is the token of the link, which is never told again.

    Somebody who is in the account already, and is to have roles in a tenant too, is granted them at once and needs no
    link (None).

    Raises errors.Invalid (`ROLES_IS_REQUIRED`, `ROLES_NOT_RECOGNISED`), errors.NotFound (`TENANT_NOT_FOUND`),
    errors.AlreadyExists (`USER_ALREADY_EXISTS`) and errors.Conflict (`USER_LIMIT_REACHED`).
    """
    require_users(op, tenant, writes=True)
    await check_tenant(databases, op, tenant)
    await check_roles(op, databases, tenant, roles)
    known = await find_person(op, address)
    if known is not None:
        if await roles_of(op, known.person_id, tenant):
            raise _already_exists()
        await set_roles(op, known.person_id, tenant, roles)
        row = await op.row(f"select {_COLUMNS} from invitations where person_id = %s", known.person_id)  # noqa: S608  names of ours
        if row is not None:
            return _invitation(op, row), None
        return _admitted(op, known.person_id, address, tenant, roles), None
    await _make_room(op, address)
    invitation = Invitation(
        invitation_id=InvitationId(new_uuid()),
        person_id=PersonId(new_uuid()),
        address=address,
        tenant_id=tenant,
        roles=tuple(sorted(set(roles))),
        state=InvitationState.INVITED,
        expires_at=op.now + min(lifetime, MAX_LIFETIME),
    )
    link = Link(op.account, invitation.invitation_id, os.urandom(_SECRET_BYTES))
    await op.run(
        "insert into invitations (account_id, invitation_id, person_id, for_tenant, roles, state, address_hash, "
        "secret_hash, binding, sealed, invited_by, created_at, expires_at) "
        "values (%s, %s, %s, %s, %s, 'INVITED', %s, %s, %s, %s, %s, %s, %s)",
        op.account,
        invitation.invitation_id,
        invitation.person_id,
        tenant,
        list(invitation.roles),
        address_hash(op, address),
        _hash(link),
        _binding(op, invitation),
        op.cipher.seal(
            "invitations",
            "sealed",
            invitation.invitation_id.bytes,
            msgspec.msgpack.encode(SealedInvitation(address=address)),
        ),
        op.actor.name,
        op.now,
        invitation.expires_at,
    )
    await record(op, "invitation.create", "invitation", invitation.invitation_id, detail=_told(invitation))
    return invitation, link.sealed(keys)


async def resend(
    op: Operation, keys: DoorKeys, person_id: PersonId, tenant: TenantId | None, *, lifetime: timedelta = LIFETIME
) -> tuple[Invitation, Secret[str]]:
    """A new link for an invitation that is open or has expired; the link before it opens nothing any more.

    Raises errors.NotFound (`USER_NOT_FOUND`) and errors.Conflict (`INVITATION_CLOSED`).
    """
    require_users(op, tenant, writes=True)
    before = await get_invitation(op, person_id, tenant, locked=True)
    if before.state not in {InvitationState.INVITED, InvitationState.EXPIRED}:
        raise _closed(before)
    invitation = dataclasses.replace(
        before, state=InvitationState.INVITED, expires_at=op.now + min(lifetime, MAX_LIFETIME)
    )
    link = Link(op.account, invitation.invitation_id, os.urandom(_SECRET_BYTES))
    await op.run(
        "update invitations set secret_hash = %s, binding = %s, expires_at = %s where invitation_id = %s",
        _hash(link),
        _binding(op, invitation),
        invitation.expires_at,
        invitation.invitation_id,
    )
    await record(op, "invitation.resend", "invitation", invitation.invitation_id, detail=_told(invitation))
    return invitation, link.sealed(keys)


async def revoke(op: Operation, person_id: PersonId, tenant: TenantId | None) -> None:
    """Make an invitation that is open, or has expired, open nothing any more.

    Raises errors.NotFound (`USER_NOT_FOUND`) and errors.Conflict (`INVITATION_CLOSED`).
    """
    require_users(op, tenant, writes=True)
    invitation = await get_invitation(op, person_id, tenant, locked=True)
    if invitation.state not in {InvitationState.INVITED, InvitationState.EXPIRED}:
        raise _closed(invitation)
    await op.run(
        "update invitations set state = 'REVOKED', answered_at = %s where invitation_id = %s",
        op.now,
        invitation.invitation_id,
    )
    await record(op, "invitation.revoke", "invitation", invitation.invitation_id)


async def get_invitation(
    op: Operation, person_id: PersonId, tenant: TenantId | None, *, locked: bool = False
) -> Invitation:
    """The invitation that is for this person, in the account itself or in this tenant.

    Raises errors.NotFound (`USER_NOT_FOUND`).
    """
    row = await op.row(
        f"select {_COLUMNS} from invitations where person_id = %s and for_tenant is not distinct from %s"  # noqa: S608  names of ours
        + (" for update" if locked else ""),
        person_id,
        tenant,
    )
    if row is None:
        raise NotFound(Failure("USER_NOT_FOUND", "There is no such person."))
    return _invitation(op, row)


async def list_open(op: Operation, tenant: TenantId | None) -> Sequence[Invitation]:
    """The invitations to the account itself (or to one of its tenants) that wait for an answer or have expired."""
    require_users(op, tenant, writes=False)
    rows = await op.rows(
        f"select {_COLUMNS} from invitations where state = 'INVITED' and for_tenant is not distinct from %s "  # noqa: S608  names of ours
        "order by person_id limit %s",
        tenant,
        MAX_PERSONS,
    )
    return [_invitation(op, row) for row in rows]


async def look_up(databases: Databases, keys: DoorKeys, token: Secret[str]) -> tuple[Link, Invitation]:
    """The open invitation that a link's token is for.

    Raises errors.Unauthenticated (`INVITATION_INVALID`), whatever is wrong, after the same work and time.
    """
    began = time.monotonic()
    try:
        return await _look_up(databases, keys, token)
    finally:
        await sleep_until(began + ANSWER_S)


async def take(op: Operation, link: Link) -> Invitation:
    """Use an invitation up, in the operation that makes its person: of two at once, one gets it.

    Raises errors.Unauthenticated (`INVITATION_INVALID`).
    """
    row = await op.row(
        "update invitations set state = 'ACCEPTED', answered_at = %s "  # noqa: S608  names of ours
        "where invitation_id = %s and secret_hash = %s and state = 'INVITED' and expires_at > %s "
        f"returning {_COLUMNS}",
        op.now,
        link.invitation_id,
        _hash(link),
        op.now,
    )
    invitation = None if row is None else _invitation(op, row)
    if row is None or invitation is None or not hmac.compare_digest(row[8], _binding(op, invitation)):
        raise _invalid()
    await record(op, "invitation.accept", "invitation", invitation.invitation_id, detail=_told(invitation))
    return invitation


async def take_for(op: Operation, address: str) -> Invitation | None:
    """Use up the open invitation of an address that somebody else has proven: for `people.single_sign_on` alone."""
    row = await op.row(
        "update invitations set state = 'ACCEPTED', answered_at = %s "  # noqa: S608  names of ours
        "where address_hash = %s and state = 'INVITED' and expires_at > %s "
        f"returning {_COLUMNS}",
        op.now,
        address_hash(op, address),
        op.now,
    )
    if row is None:
        return None
    invitation = _invitation(op, row)
    if not hmac.compare_digest(row[8], _binding(op, invitation)):
        raise _invalid()
    await record(op, "invitation.accept", "invitation", invitation.invitation_id, detail=_told(invitation))
    return invitation


async def _look_up(databases: Databases, keys: DoorKeys, token: Secret[str]) -> tuple[Link, Invitation]:
    link = _read(keys, token)
    account = None
    if link is not None:
        with contextlib.suppress(NotFound):
            await databases.locate_account(link.account_id)
            account = link.account_id
    region = databases.regions[0] if account is None else None
    async with databases.operation(system("front-door"), account=account, region=region) as op:
        row = await op.row(
            f"select {_COLUMNS} from invitations where invitation_id = %s",  # noqa: S608  names of ours
            _NOBODY if link is None else link.invitation_id,
        )
        if link is None or row is None:
            raise _invalid()
        invitation = _invitation(op, row)
        is_good = (
            hmac.compare_digest(row[7], _hash(link))
            and hmac.compare_digest(row[8], _binding(op, invitation))
            and invitation.state is InvitationState.INVITED
        )
    if not is_good:
        raise _invalid()
    return link, invitation


def _read(keys: DoorKeys, token: Secret[str]) -> Link | None:
    content = keys.open(_END, token.reveal())
    if content is None or len(content) != 32 + _SECRET_BYTES:
        return None
    account, invitation = UUID(bytes=content[:16]), UUID(bytes=content[16:32])
    return Link(AccountId(account), InvitationId(invitation), content[32:])


async def _make_room(op: Operation, address: str) -> None:
    """For one more: an address has one open invitation, and an account so many people at most."""
    row = await op.row(
        "select 1 from invitations where address_hash = %s and state = 'INVITED'", address_hash(op, address)
    )
    if row is not None:
        raise _already_exists()
    counted = await op.row(
        "select (select count(*) from persons where state = 'ACTIVE') "
        "+ (select count(*) from invitations where state = 'INVITED')"
    )
    if counted is not None and counted[0] >= MAX_PERSONS:
        raise Conflict(
            Failure("USER_LIMIT_REACHED", "There are {limit} people already. Remove one first.", {"limit": MAX_PERSONS})
        )


def _invitation(op: Operation, row: Sequence[Any]) -> Invitation:
    invitation_id = InvitationId(row[0])
    sealed = _DECODER.decode(op.cipher.open("invitations", "sealed", invitation_id.bytes, row[6]))
    state = InvitationState(row[4])
    if state is InvitationState.INVITED and row[5] <= op.now:
        state = InvitationState.EXPIRED
    return Invitation(
        invitation_id=invitation_id,
        person_id=PersonId(row[1]),
        address=sealed.address,
        tenant_id=None if row[2] is None else TenantId(row[2]),
        roles=tuple(row[3]),
        state=state,
        expires_at=row[5],
    )


def _admitted(
    op: Operation, person: PersonId, address: str, tenant: TenantId | None, roles: Collection[str]
) -> Invitation:
    """What stands for the invitation of somebody who came in without one."""
    return Invitation(
        invitation_id=InvitationId(person),
        person_id=person,
        address=address,
        tenant_id=tenant,
        roles=tuple(sorted(set(roles))),
        state=InvitationState.ACCEPTED,
        expires_at=op.now,
    )


def _binding(op: Operation, invitation: Invitation) -> bytes:
    """What an invitation is bound to, under the account's key."""
    bound = [
        str(invitation.invitation_id),
        str(invitation.person_id),
        str(invitation.tenant_id),
        invitation.address,
        " ".join(invitation.roles),
        invitation.expires_at.astimezone(UTC).isoformat(),
    ]
    return op.cipher.index("invitations", "binding", "\0".join(bound))


def _hash(link: Link) -> bytes:
    return hashlib.sha256(link.secret).digest()


def _told(invitation: Invitation) -> str:
    where = "account" if invitation.tenant_id is None else f"tenant {invitation.tenant_id}"
    return f"person={invitation.person_id} {where}: {' '.join(invitation.roles)}"


def _already_exists() -> AlreadyExists:
    return AlreadyExists(
        Failure(
            "USER_ALREADY_EXISTS",
            "Somebody with this address is here or invited already. Change their roles, or send the invitation again.",
        )
    )


def _closed(invitation: Invitation) -> Conflict:
    return Conflict(
        Failure("INVITATION_CLOSED", "This invitation is {state} already.", {"state": invitation.state.value})
    )


def _invalid() -> Unauthenticated:
    return Unauthenticated(
        Failure(
            "INVITATION_INVALID",
            "This link opens nothing: it was used, has expired or was withdrawn, or it isn't complete. Ask whoever "
            "invited you for a new one.",
        )
    )


_COLUMNS: Final = "invitation_id, person_id, for_tenant, roles, state, expires_at, sealed, secret_hash, binding"
_DECODER: Final = msgspec.msgpack.Decoder(SealedInvitation)
