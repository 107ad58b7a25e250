"""Enforcement: where an account wants its own provider to vouch for people, they sign in no other way.

It holds for people of the account's verified mail domains, but for one: the break-glass person, who comes in when the
provider is down or says nonsense.
"""

from __future__ import annotations

from typing import Final

from strongroom.database import Operation
from strongroom.kernel.errors import Conflict, Failure, Unauthenticated
from strongroom.kernel.ids import PersonId

METHOD_PREFIX: Final = "single sign-on"
"""How the method of a session begins that a provider vouched for."""


def domain_of(address: str) -> str:
    """The domain of an address in its comparable form."""
    return address.rpartition("@")[2]


def domain_hash(op: Operation, domain: str) -> bytes:
    """What a domain is found by among the account's."""
    return op.cipher.index("email_domains", "domain_hash", domain)


async def needs_provider(op: Operation, person: PersonId, address: str) -> bool:
    """Whether somebody may come in by the account's provider only."""
    row = await op.row(
        "select 1 from single_sign_ons where is_enforced and break_glass_id is distinct from %s and exists "
        "(select from email_domains where domain_hash = %s and state = 'VERIFIED')",
        person,
        domain_hash(op, domain_of(address)),
    )
    return row is not None


async def require_local_sign_in(op: Operation, person: PersonId, address: str) -> None:
    """Raises errors.Unauthenticated (`SINGLE_SIGN_ON_REQUIRED`)."""
    if await needs_provider(op, person, address):
        raise Unauthenticated(
            Failure(
                "SINGLE_SIGN_ON_REQUIRED",
                "Your organisation wants you to sign in through its own provider. Choose that on the sign-in page.",
            )
        )


async def keep_break_glass(op: Operation, person: PersonId) -> None:
    """Raises errors.Conflict (`BREAK_GLASS_PERSON`) for whoever is the one way in beside the provider."""
    if await op.row("select 1 from single_sign_ons where is_enforced and break_glass_id = %s", person):
        raise Conflict(
            Failure(
                "BREAK_GLASS_PERSON",
                "This is the person who comes in when the provider is down. Name another for single sign-on first.",
            )
        )
