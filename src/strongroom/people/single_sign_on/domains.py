"""Mail domains: what an account has proven to be its own, by a TXT record in the DNS.

A provider is believed about people of verified domains alone. A domain is verified for one account at most, which the
directory sees to; the record is looked for again whenever the account asks, and what was found then stands.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from strongroom.access import Permission, check_grant, require
from strongroom.audit import record
from strongroom.database import Databases, Operation
from strongroom.kernel.actors import Actor
from strongroom.kernel.errors import AlreadyExists, Conflict, Failure, Invalid, NotFound
from strongroom.kernel.ids import AccountId, new_uuid
from strongroom.kernel.mail_addresses import find_address
from strongroom.people.enforcement import METHOD_PREFIX, domain_hash, domain_of
from strongroom.people.front_door import FrontDoor
from strongroom.people.persons import list_all_persons

MAX_DOMAINS: Final = 50
RECORD_PREFIX: Final = "_strongroom-verification."
VALUE_PREFIX: Final = "strongroom-verification="
_PUBLIC: Final = frozenset(
    {
        "163.com", "aol.com", "bluewin.ch", "fastmail.com", "gmail.com", "gmx.at", "gmx.ch", "gmx.de", "gmx.net",
        "googlemail.com", "hey.com", "hotmail.com", "icloud.com", "live.com", "mac.com", "mail.com", "me.com",
        "msn.com", "outlook.com", "proton.me", "protonmail.com", "qq.com", "t-online.de", "tutanota.com", "web.de",
        "yahoo.com", "ymail.com", "zoho.com",
    }
)  # fmt: skip
"""Where anybody gets an address: nobody's to sign people in for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A mail domain in its comparable form. `token` is what the TXT record has to say; public, so no secret."""

    domain_id: UUID
    name: str
    token: str
    created_at: datetime
    verified_at: datetime | None

    @property
    def is_verified(self) -> bool:
        """Whether the account has proven that it is its own."""
        return self.verified_at is not None

    @property
    def record_name(self) -> str:
        """Where the record stands."""
        return RECORD_PREFIX + self.name

    @property
    def record_value(self) -> str:
        """What it says."""
        return VALUE_PREFIX + self.token


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedDomain:
    """What is sealed of a domain."""

    name: str
    token: str


async def require_change(op: Operation, databases: Databases) -> None:
    """Go on only if the actor may change whom the account believes: whoever may can make account-admins by that.

    Raises errors.Forbidden (`FORBIDDEN`; `GRANT_EXCEEDS_OWN` where the actor holds less than an account-admin).
    """
    require(op, Permission.ACCOUNT_MANAGE)
    await check_grant(op, databases, None, {"account-admin"})


async def add_domain(op: Operation, databases: Databases, text: str) -> Domain:
    """Claim a domain, which counts for nothing until it is verified.

    Raises as `require_change`, errors.Invalid (`DOMAIN_IS_INVALID`, `DOMAIN_IS_PUBLIC`), errors.AlreadyExists
    (`DOMAIN_ALREADY_EXISTS`) and errors.Conflict (`DOMAIN_LIMIT_REACHED`).
    """
    await require_change(op, databases)
    address = find_address(f"somebody@{text.strip()}")
    if address is None:
        raise Invalid(Failure("DOMAIN_IS_INVALID", "domain is what stands behind the @, such as example.com."))
    name = address.rpartition("@")[2]
    if name in _PUBLIC:
        raise Invalid(Failure("DOMAIN_IS_PUBLIC", "Anybody gets an address at {domain}.", {"domain": name}))
    domains = await list_domains(op)
    if any(domain.name == name for domain in domains):
        raise AlreadyExists(Failure("DOMAIN_ALREADY_EXISTS", "This domain is here already. Verify it."))
    if len(domains) >= MAX_DOMAINS:
        raise Conflict(Failure("DOMAIN_LIMIT_REACHED", "There are {limit} domains at most.", {"limit": MAX_DOMAINS}))
    domain = Domain(
        domain_id=new_uuid(), name=name, token=secrets.token_urlsafe(24), created_at=op.now, verified_at=None
    )
    await op.run(
        "insert into email_domains (account_id, domain_id, domain_hash, state, sealed, created_at) "
        "values (%s, %s, %s, 'PENDING', %s, %s)",
        op.account,
        domain.domain_id,
        domain_hash(op, name),
        op.cipher.seal(
            "email_domains",
            "sealed",
            domain.domain_id.bytes,
            msgspec.msgpack.encode(SealedDomain(name=name, token=domain.token)),
        ),
        op.now,
    )
    await record(op, "email-domain.add", "email-domain", domain.domain_id)
    return domain


async def list_domains(op: Operation) -> Sequence[Domain]:
    """The account's domains, oldest first. For whoever signs in, too: asks for no permission."""
    rows = await op.rows(
        "select domain_id, sealed, created_at, verified_at from email_domains order by domain_id limit %s", MAX_DOMAINS
    )
    return [_domain(op, row) for row in rows]


async def find_verified(op: Operation, name: str) -> UUID | None:
    """The id of a domain that is verified for the account."""
    row = await op.row(
        "select domain_id from email_domains where domain_hash = %s and state = 'VERIFIED'", domain_hash(op, name)
    )
    if row is None:
        return None
    found: UUID = row[0]
    return found


async def verify_domain(door: FrontDoor, actor: Actor, account: AccountId, domain_id: UUID) -> Domain:
    """Look for a domain's record, and take the domain as verified if it is there. No operation is open meanwhile.

    Where the provider is enforced, sessions of the domain's people end that didn't come from it.

    Raises as `require_change`, errors.NotFound (`DOMAIN_NOT_FOUND`), errors.Conflict (`DOMAIN_RECORD_NOT_FOUND`,
    `DOMAIN_TAKEN`) and errors.Unavailable (`DNS_UNAVAILABLE`).
    """
    async with door.databases.operation(actor, account=account) as op:
        await require_change(op, door.databases)
        domain = await _get(op, domain_id)
    if domain.record_value not in await door.outside.find_txt(domain.record_name):
        raise Conflict(
            Failure(
                "DOMAIN_RECORD_NOT_FOUND",
                "The DNS has no TXT record {name} that says {value}. New records take a while to be seen everywhere.",
                {"name": domain.record_name, "value": domain.record_value},
            )
        )
    if not await _claim(door, account, domain.name):
        raise Conflict(
            Failure("DOMAIN_TAKEN", "This domain is verified for another account. It has to be given up there first.")
        )
    async with door.databases.operation(actor, account=account) as op:
        await op.run(
            "update email_domains set state = 'VERIFIED', verified_at = %s where domain_id = %s and state = 'PENDING'",
            op.now,
            domain_id,
        )
        await end_local_sessions(op)
        await record(op, "email-domain.verify", "email-domain", domain_id)
        return await _get(op, domain_id)


async def remove_domain(op: Operation, door: FrontDoor, domain_id: UUID) -> None:
    """Give a domain up: the provider isn't believed about its people any more, and another account may verify it.

    Raises as `require_change`, and errors.NotFound (`DOMAIN_NOT_FOUND`).
    """
    await require_change(op, door.databases)
    domain = await _get(op, domain_id)
    await op.run("delete from email_domains where domain_id = %s", domain_id)
    await record(op, "email-domain.remove", "email-domain", domain_id)
    if domain.is_verified:
        async with door.databases.directory() as connection:
            await connection.execute(
                "delete from email_domains where domain_hash = %s and account_id = %s",
                (_directory_hash(door, domain.name), op.account),
            )


async def end_local_sessions(op: Operation) -> None:
    """Where the provider is enforced, end the sessions of those who may come in by it alone, but those from it."""
    enforced = await op.row("select break_glass_id from single_sign_ons where is_enforced")
    if enforced is None:
        return
    domains = {domain.name for domain in await list_domains(op) if domain.is_verified}
    bound = [
        person.person_id
        for person in await list_all_persons(op)
        if domain_of(person.address) in domains and person.person_id != enforced[0]
    ]
    await op.run(
        "update sessions set ended_at = %s where person_id = any(%s) and method not like %s and ended_at is null",
        op.now,
        bound,
        f"{METHOD_PREFIX}%",
    )


async def account_of(door: FrontDoor, name: str) -> AccountId | None:
    """The account that a domain is verified for."""
    async with door.databases.directory() as connection:
        cursor = await connection.execute(
            "select account_id from email_domains where domain_hash = %s", (_directory_hash(door, name),), binary=True
        )
        row = await cursor.fetchone()
    return None if row is None else AccountId(row[0])


async def _claim(door: FrontDoor, account: AccountId, name: str) -> bool:
    async with door.databases.directory() as connection:
        await connection.execute(
            "insert into email_domains (domain_hash, account_id) values (%s, %s) on conflict do nothing",
            (_directory_hash(door, name), account),
        )
    return await account_of(door, name) == account


def _directory_hash(door: FrontDoor, name: str) -> bytes:
    return door.keys.hash("email domain", name.encode())


async def _get(op: Operation, domain_id: UUID) -> Domain:
    row = await op.row(
        "select domain_id, sealed, created_at, verified_at from email_domains where domain_id = %s", domain_id
    )
    if row is None:
        raise NotFound(Failure("DOMAIN_NOT_FOUND", "There is no such domain."))
    return _domain(op, row)


def _domain(op: Operation, row: Sequence[Any]) -> Domain:
    sealed = _DECODER.decode(op.cipher.open("email_domains", "sealed", row[0].bytes, row[1]))
    return Domain(domain_id=row[0], name=sealed.name, token=sealed.token, created_at=row[2], verified_at=row[3])


_DECODER: Final = msgspec.msgpack.Decoder(SealedDomain)
