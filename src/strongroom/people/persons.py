"""Persons: the people of an account.

Somebody becomes a person by accepting an invitation, or is admitted when the account's own provider vouches for them
and the account lets such people in; there is no third way, and the database refuses anything else. Their rows are in
the account's home region, their name and address sealed. A person who is removed keeps their id and what they did in
the record; all that let them in is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from strongroom.audit import record
from strongroom.database import Databases, Operation
from strongroom.kernel.errors import Conflict, Failure, NotFound
from strongroom.kernel.ids import InvitationId, PersonId, TenantId, new_uuid
from strongroom.people.address_book import AddressBook
from strongroom.people.enforcement import keep_break_glass
from strongroom.people.grants import check_roles, end_grants, require_users, roles_of, set_roles

MAX_PERSONS: Final = 1_000
"""Most people of an account."""
MAX_NAME: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody of the operation's account. `address` is in its comparable form."""

    person_id: PersonId
    name: str
    address: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedPerson:
    """What is sealed of a person."""

    name: str
    address: str


def address_hash(op: Operation, address: str) -> bytes:
    """What an address is found by among the account's people."""
    return op.cipher.index("persons", "address_hash", address)


async def create_person(op: Operation, person: Person, invitation: InvitationId) -> None:
    """Write a person whose invitation was accepted in this operation: for `people.acceptance` and `single_sign_on`."""
    await _create(op, person, invitation=invitation)


async def admit_person(op: Operation, person: Person, domain: UUID) -> None:
    """Write a person of a verified domain whom the account's provider vouched for. For `people.single_sign_on` alone.

    The database refuses it unless the account lets such people in. Raises errors.Conflict (`USER_LIMIT_REACHED`).
    """
    counted = await op.row("select count(*) from persons where state = 'ACTIVE'")
    if counted is not None and counted[0] >= MAX_PERSONS:
        raise Conflict(
            Failure("USER_LIMIT_REACHED", "There are {limit} people already. Remove one first.", {"limit": MAX_PERSONS})
        )
    admission = new_uuid()
    await op.run(
        "insert into admissions (account_id, admission_id, person_id, domain_id, admitted_at) "
        "values (%s, %s, %s, %s, %s)",
        op.account,
        admission,
        person.person_id,
        domain,
        op.now,
    )
    await _create(op, person, admission=admission)


async def _create(
    op: Operation, person: Person, *, invitation: InvitationId | None = None, admission: UUID | None = None
) -> None:
    await op.run(
        "insert into persons (account_id, person_id, invitation_id, admission_id, state, address_hash, sealed, "
        "created_at, updated_at) values (%s, %s, %s, %s, 'ACTIVE', %s, %s, %s, %s)",
        op.account,
        person.person_id,
        invitation,
        admission,
        address_hash(op, person.address),
        op.cipher.seal(
            "persons",
            "sealed",
            person.person_id.bytes,
            msgspec.msgpack.encode(SealedPerson(name=person.name, address=person.address)),
        ),
        person.created_at,
        person.created_at,
    )
    await record(op, "person.create", "person", person.person_id, detail=_how(invitation, admission))


async def get_person(op: Operation, person_id: PersonId) -> Person:
    """Somebody who hasn't been removed. Raises errors.NotFound (`USER_NOT_FOUND`)."""
    person = await find_person_by_id(op, person_id)
    if person is None:
        raise person_not_found()
    return person


async def find_person_by_id(op: Operation, person_id: PersonId) -> Person | None:
    """Somebody who hasn't been removed, or None."""
    row = await op.row(
        "select person_id, sealed, created_at from persons where person_id = %s and state = 'ACTIVE'", person_id
    )
    return None if row is None else _person(op, row)


async def find_person(op: Operation, address: str) -> Person | None:
    """Who has this address, in its comparable form."""
    row = await op.row(
        "select person_id, sealed, created_at from persons where address_hash = %s and state = 'ACTIVE'",
        address_hash(op, address),
    )
    return None if row is None else _person(op, row)


async def list_all_persons(op: Operation) -> Sequence[Person]:
    """Everybody of the account who hasn't been removed, oldest first. Asks for no permission."""
    rows = await op.rows(
        "select person_id, sealed, created_at from persons where state = 'ACTIVE' order by person_id limit %s",
        MAX_PERSONS,
    )
    return [_person(op, row) for row in rows]


async def list_persons(op: Operation, tenant: TenantId | None) -> Sequence[tuple[Person, tuple[str, ...]]]:
    """The people who hold roles in the account itself (or in one of its tenants), with those roles; oldest first."""
    require_users(op, tenant, writes=False)
    rows = await op.rows(
        "select p.person_id, p.sealed, p.created_at, array_agg(g.role order by g.role) from persons p "
        "join grants g on g.account_id = p.account_id and g.person_id = p.person_id and g.ended_at is null "
        "and g.for_tenant is not distinct from %s "
        "where p.state = 'ACTIVE' group by p.account_id, p.person_id order by p.person_id limit %s",
        tenant,
        MAX_PERSONS,
    )
    return [(_person(op, row), tuple(row[3])) for row in rows]


async def change_roles(
    op: Operation, databases: Databases, person_id: PersonId, tenant: TenantId | None, roles: Sequence[str]
) -> Person:
    """Replace what a person may do in the account, or in one of its tenants; counts from their next request.

    Their sessions go on, under new ids from their next request (see `people.sessions`).

    Raises errors.NotFound (`USER_NOT_FOUND`), and as `grants.check_roles` and `grants.set_roles`.
    """
    require_users(op, tenant, writes=True)
    await check_roles(op, databases, tenant, roles)
    person = await get_person(op, person_id)
    if not await roles_of(op, person_id, tenant):
        raise person_not_found()
    if tenant is None and "account-admin" not in roles:
        await keep_break_glass(op, person_id)
    await set_roles(op, person_id, tenant, roles)
    await op.run("update sessions set is_due = true where person_id = %s and ended_at is null", person_id)
    return person


async def remove_from(op: Operation, book: AddressBook, person_id: PersonId, tenant: TenantId | None) -> None:
    """End what a person holds in a tenant; without a tenant (the account itself): remove them from the account.

    Raises errors.NotFound (`USER_NOT_FOUND`) and errors.Conflict (`LAST_ADMIN`).
    """
    require_users(op, tenant, writes=True)
    person = await get_person(op, person_id)
    if tenant is None:
        await _remove(op, book, person)
        return
    if not await roles_of(op, person_id, tenant):
        raise person_not_found()
    await set_roles(op, person_id, tenant, ())


async def _remove(op: Operation, book: AddressBook, person: Person) -> None:
    await keep_break_glass(op, person.person_id)
    await end_grants(op, person.person_id)
    for table in ("sessions", "devices", "recovery_codes", "credentials", "provider_subjects"):
        await op.run(f"delete from {table} where person_id = %s", person.person_id)  # noqa: S608  names of ours
    await op.run(
        "update persons set state = 'REMOVED', removed_at = %s, updated_at = %s where person_id = %s",
        op.now,
        op.now,
        person.person_id,
    )
    await record(op, "person.remove", "person", person.person_id)
    await book.remove(person.address, op.account)


def _how(invitation: InvitationId | None, admission: UUID | None) -> str:
    return f"invitation={invitation}" if admission is None else f"admission={admission}"


def _person(op: Operation, row: Sequence[Any]) -> Person:
    person_id = PersonId(row[0])
    sealed = _DECODER.decode(op.cipher.open("persons", "sealed", person_id.bytes, row[1]))
    return Person(person_id=person_id, name=sealed.name, address=sealed.address, created_at=row[2])


def person_not_found() -> NotFound:
    """The answer for whoever isn't there, or isn't there any more."""
    return NotFound(Failure("USER_NOT_FOUND", "There is no such person."))


_DECODER: Final = msgspec.msgpack.Decoder(SealedPerson)
