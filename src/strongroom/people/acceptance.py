"""Accepting an invitation: how somebody becomes a person, with credentials of their own.

The invitation is used up, the person made, their roles granted and their credentials kept in one operation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from strongroom.database import Operation
from strongroom.kernel.actors import system
from strongroom.kernel.errors import Failure, Invalid, Unauthenticated
from strongroom.kernel.ids import PersonId
from strongroom.kernel.secret import Secret
from strongroom.people.credentials import add_credential, replace_recovery_codes
from strongroom.people.enforcement import require_local_sign_in
from strongroom.people.front_door import FrontDoor
from strongroom.people.grants import set_roles
from strongroom.people.invitations import Link, look_up, take
from strongroom.people.passwords import check_password, hash_password
from strongroom.people.persons import MAX_NAME, Person, create_person
from strongroom.people.sessions import Visitor
from strongroom.people.sign_in import WITH_CODE, Entered, enter, person_actor
from strongroom.people.totp import find_step
from strongroom.tenancy import find_account

Keep = Callable[[Operation, PersonId], Awaitable[None]]
"""Writes a new person's credentials, in the operation that makes them."""
_BEFORE_ANY: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A person who has just come in: signed in; recovery codes (to a password) are shown now and never again."""

    person: Person
    entered: Entered
    recovery_codes: Sequence[Secret[str]]


async def company_of(door: FrontDoor, link: Link) -> str:
    """The name of the company that invites."""
    async with door.databases.operation(system("front-door"), account=link.account_id) as op:
        account = await find_account(op)
    return "" if account is None else account.company_name


async def accept_with_password(
    door: FrontDoor,
    token: Secret[str],
    *,
    name: str,
    password: Secret[str],
    totp: Secret[bytes],
    code: str,
    visitor: Visitor,
) -> Accepted:
    """Come in with a password, and a time-based code of the secret that was shown.

    Raises errors.Unauthenticated (`INVITATION_INVALID`, `CODE_REFUSED`) and errors.Invalid (`NAME_IS_REQUIRED`,
    `NAME_LENGTH_OUT_OF_RANGE` and as `passwords.check_password`).
    """
    link, invitation = await look_up(door.databases, door.keys, token)
    check_name(name)
    check_password(password, (name, invitation.address, await company_of(door, link)))
    step = find_step(totp, code, door.databases.clock.now(), after=_BEFORE_ANY)
    if step is None:
        raise Unauthenticated(
            Failure("CODE_REFUSED", "This is not what the authenticator shows now. Check its clock, and try again.")
        )
    kept = await hash_password(password)

    async def keep(op: Operation, person: PersonId) -> None:
        await add_credential(op, person, "PASSWORD", kept.encode())
        await add_credential(op, person, "TOTP", totp.reveal(), counter=step)

    return await accept(door, link, name, keep, visitor, method=WITH_CODE)


async def accept(door: FrontDoor, link: Link, name: str, keep: Keep, visitor: Visitor, *, method: str) -> Accepted:
    """Use an invitation up and make its person, with the credentials that `keep` writes.

    Raises errors.Unauthenticated (`INVITATION_INVALID`, `SINGLE_SIGN_ON_REQUIRED`) and errors.Forbidden
    (`ADDRESS_NOT_ALLOWED`).
    """
    await door.databases.check_address(person_actor(link.account_id, PersonId(UUID(int=0)), visitor), link.account_id)
    async with door.databases.operation(system("front-door"), account=link.account_id) as op:
        invitation = await take(op, link)
        await require_local_sign_in(op, invitation.person_id, invitation.address)
        person = Person(
            person_id=invitation.person_id, name=name.strip(), address=invitation.address, created_at=op.now
        )
        op.actor = person_actor(op.account, person.person_id)
        await create_person(op, person, invitation.invitation_id)
        await set_roles(op, person.person_id, invitation.tenant_id, invitation.roles)
        await keep(op, person.person_id)
        codes = await replace_recovery_codes(op, person.person_id) if method == WITH_CODE else ()
        await door.book.add(person.address, op.account)
    entered = await enter(door, link.account_id, person, visitor, method=method, device="")
    return Accepted(person=person, entered=entered, recovery_codes=codes)


def check_name(name: str) -> None:
    """Raises errors.Invalid (`NAME_IS_REQUIRED`, `NAME_LENGTH_OUT_OF_RANGE`)."""
    if not name.strip():
        raise Invalid(Failure("NAME_IS_REQUIRED", "Say what you are called."))
    if len(name) > MAX_NAME or not name.isprintable():
        raise Invalid(
            Failure(
                "NAME_LENGTH_OUT_OF_RANGE",
                "A name has at most {maxLength} characters, all of them printable.",
                {"maxLength": MAX_NAME},
            )
        )
