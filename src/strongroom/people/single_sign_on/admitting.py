"""From what a provider says to a person of the account, with the roles that their groups give them.

A provider is believed about people of the account's verified domains alone. Its subject, once linked to a person, is
who it is from then on: a mail address that it gives to somebody else later lets nobody into what was another's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from strongroom.access import check_apart
from strongroom.audit import record
from strongroom.database import Operation
from strongroom.kernel.actors import system
from strongroom.kernel.errors import Conflict, Failure, Unauthenticated
from strongroom.kernel.ids import AccountId, PersonId, TenantId, new_uuid
from strongroom.kernel.mail_addresses import find_address
from strongroom.people.enforcement import domain_of
from strongroom.people.front_door import FrontDoor
from strongroom.people.grants import set_roles
from strongroom.people.invitations import take_for
from strongroom.people.persons import (
    MAX_NAME,
    Person,
    admit_person,
    create_person,
    find_person,
    find_person_by_id,
)
from strongroom.people.single_sign_on.claims import Claims
from strongroom.people.single_sign_on.domains import find_verified
from strongroom.people.single_sign_on.providers import Provider, find_provider

Place = UUID | None
"""Where roles are held: one of the account's tenants, or (None) the account itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Somebody whom the provider vouched for. `session_hash`: of what the provider calls its session."""

    person: Person
    session_hash: bytes


def roles_for(provider: Provider, groups: tuple[str, ...]) -> Mapping[Place, frozenset[str]]:
    """The roles that groups give, for each place that the provider's mappings speak of.

    In the account itself, who gets none by groups gets the default ones.
    """
    found: dict[Place, frozenset[str]] = {mapping.tenant_id: frozenset() for mapping in provider.mappings}
    for mapping in provider.mappings:
        if mapping.group in groups:
            found[mapping.tenant_id] |= frozenset(mapping.roles)
    if None in found and not found[None]:
        found[None] = frozenset(provider.default_roles)
    return found


async def admit(door: FrontDoor, account: AccountId, provider: Provider, claims: Claims) -> Admitted:
    """The person whom the provider means, made if need be, with the roles that they have from now on.

    Whom groups leave without any role is out; somebody new isn't made then.

    Raises errors.Unauthenticated (`SIGN_IN_NOT_ADMITTED`) and errors.Conflict (`LAST_ADMIN`, `USER_LIMIT_REACHED`).
    """
    async with door.databases.operation(system("single-sign-on"), account=account) as op:
        now_set_up = await find_provider(op)
        if now_set_up is None or now_set_up.version_id != provider.version_id:
            raise _not_admitted("single sign-on was changed meanwhile; begin again")
        person, is_new = await _find_or_make(op, provider, claims)
        await _set_roles(op, door, provider, person, claims, is_new=is_new)
        has_roles = await op.row(
            "select 1 from grants where person_id = %s and ended_at is null limit 1", person.person_id
        )
        if has_roles is None and is_new:
            raise _without_role()
        if has_roles is None:
            await op.run(
                "update sessions set ended_at = %s where person_id = %s and ended_at is null", op.now, person.person_id
            )
        if is_new:
            await door.book.add(person.address, op.account)
        admitted = Admitted(person=person, session_hash=session_hash(op, provider, claims.session))
    if has_roles is None:
        raise _without_role()
    return admitted


def subject_hash(op: Operation, provider: Provider, subject: str) -> bytes:
    """What a provider's subject is found by."""
    return op.cipher.index("provider_subjects", "subject_hash", f"{provider.issuer}\0{subject}")


def session_hash(op: Operation, provider: Provider, session: str) -> bytes:
    """What sessions are found by that came from a session of the provider's own."""
    return op.cipher.index("sessions", "provider_session", f"{provider.issuer}\0{session}")


async def _find_or_make(op: Operation, provider: Provider, claims: Claims) -> tuple[Person, bool]:
    address = find_address(claims.address)
    if address is None:
        raise _not_admitted("the provider tells no mail address of you")
    if await find_verified(op, domain_of(address)) is None:
        raise _not_admitted("the domain of your mail address isn't verified for this account")
    subject = subject_hash(op, provider, claims.subject)
    linked = await op.row("select person_id from provider_subjects where subject_hash = %s", subject)
    if linked is not None:
        known = await find_person_by_id(op, PersonId(linked[0]))
        if known is None:
            raise _not_admitted("you were removed from this account")
        return known, False
    person, is_new = await find_person(op, address), False
    if person is None:
        person, is_new = await _make(op, provider, claims, address), True
    elif await op.row("select 1 from provider_subjects where person_id = %s", person.person_id):
        raise _not_admitted("your mail address belonged to somebody else at the provider; ask for a removal first")
    await op.run(
        "insert into provider_subjects (account_id, subject_hash, person_id, linked_at) values (%s, %s, %s, %s)",
        op.account,
        subject,
        person.person_id,
        op.now,
    )
    await record(op, "provider-subject.link", "person", person.person_id)
    return person, is_new


async def _make(op: Operation, provider: Provider, claims: Claims, address: str) -> Person:
    """A new person: by their open invitation, or else because the account lets people of its domains in."""
    name = "".join(letter for letter in claims.name if letter.isprintable()).strip()[:MAX_NAME] or address[:MAX_NAME]
    invitation = await take_for(op, address)
    if invitation is not None:
        person = Person(person_id=invitation.person_id, name=name, address=address, created_at=op.now)
        await create_person(op, person, invitation.invitation_id)
        await set_roles(op, person.person_id, invitation.tenant_id, invitation.roles)
    elif provider.makes_persons and (domain := await find_verified(op, domain_of(address))) is not None:
        person = Person(person_id=PersonId(new_uuid()), name=name, address=address, created_at=op.now)
        await admit_person(op, person, domain)
    else:
        raise _not_admitted("nobody has invited you; ask whoever looks after your account")
    return person


async def _set_roles(
    op: Operation, door: FrontDoor, provider: Provider, person: Person, claims: Claims, *, is_new: bool
) -> None:
    """What the groups say now. The break-glass person keeps what they have: no provider takes the last way in away."""
    if person.person_id == provider.break_glass:
        return
    wanted = dict(roles_for(provider, claims.groups))
    if is_new and None not in wanted and provider.default_roles:
        held = await op.rows(
            "select role from grants where person_id = %s and for_tenant is null and ended_at is null",
            person.person_id,
        )
        if not held:
            wanted[None] = frozenset(provider.default_roles)
    for place, roles in wanted.items():
        try:
            await check_apart(door.databases, op.account, place, roles)
        except Conflict:
            raise _not_admitted(
                "your groups give you roles that may not be held together; ask whoever looks after your account"
            ) from None
        await set_roles(op, person.person_id, None if place is None else TenantId(place), roles)
    if wanted:
        await op.run("update sessions set is_due = true where person_id = %s and ended_at is null", person.person_id)


def _without_role() -> Unauthenticated:
    return _not_admitted("your groups give you no role here; ask whoever looks after your account")


def _not_admitted(reason: str) -> Unauthenticated:
    return Unauthenticated(Failure("SIGN_IN_NOT_ADMITTED", "You were not signed in: {reason}.", {"reason": reason}))
