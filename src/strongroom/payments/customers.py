"""Customers: whom a tenant pays or collects from, known by the tenant's own references.

A customer has no id on the wire; inside, its id is the tenant's keyed hash of the reference. It is made when an
instruction or a financial instrument first names it, and lives until it is forgotten: then everything that describes
the person (reference, metadata, accounts, what orders say for them) is sealed over with nothing or removed. Only bare
rows stay, because instructions that were carried out refer to them. What was sensitive was sealed with a secret of that
customer alone (`vault.persons`), which is destroyed then, so that older copies of the database can't be read either. A
reference that comes back with a new financial instrument begins anew, with nothing of what was forgotten, and another
secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from strongroom.access import Permission, require
from strongroom.audit import record
from strongroom.database import Operation, Purpose, pack_bytes, pack_uuids
from strongroom.kernel.errors import Conflict, Failure, NotFound
from strongroom.kernel.mail_addresses import mask_address
from strongroom.vault import end_person, keep_persons, new_persons

ACTIVE = "ACTIVE"
FORGOTTEN = "FORGOTTEN"
_NOTHING = b""
"""What the envelopes of a forgotten customer hold."""


class CustomerContent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`customers.sealed`. Metadata is in `customers.sensitive`; before there was such a column it stood here.

    `email_mask` is the mail address as it may be shown, so that the customer's key isn't needed for that.
    """

    ref: str
    metadata: dict[str, str] = {}
    email_mask: str = ""
    has_metadata: bool = True
    """Whether there is some in `customers.sensitive`, if there is anything."""


class Details(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`customers.sensitive`. The catalogue says where the mail address stands in it (`BLIND_INDEXES`)."""

    metadata: dict[str, str] = {}
    email: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """A customer; of a forgotten one only the status is left."""

    ref: str
    status: str
    metadata: Mapping[str, str]
    email_mask: str
    """The mail address as it may be shown; empty when there is none."""
    created_at: datetime
    updated_at: datetime


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(CustomerContent).decode
_decode_details = msgspec.msgpack.Decoder(Details).decode


def customer_id_of(op: Operation, ref: str) -> bytes:
    """A customer's 16-byte id: the tenant's keyed hash of its reference."""
    return op.cipher.index("customers", "customer_id", ref)


def pack_new_customer(op: Operation, customer_id: bytes, ref: str) -> bytes:
    """The sealed content of a customer of whom only the reference is known."""
    return op.cipher.seal("customers", "sealed", customer_id, _encode(CustomerContent(ref)))


async def get_customer(op: Operation, ref: str) -> Customer:
    """The customer.

    Raises errors.NotFound (`CUSTOMER_NOT_FOUND`), and errors.Unavailable (`KEY_UNAVAILABLE`) when there is metadata.
    """
    require(op, Permission.TRANSACTIONS_READ)
    customer_id = customer_id_of(op, ref)
    row = await op.row(
        "select status, sealed, sensitive, created_at, updated_at from customers "
        "where tenant_id = %s and customer_id = %s",
        op.tenant,
        UUID(bytes=customer_id),
    )
    if row is None:
        raise _not_found(ref)
    status, sealed, sensitive, created_at, updated_at = row
    shown = open_shown(op, customer_id, sealed)
    metadata = shown.metadata
    if sensitive is not None and shown.has_metadata:
        with op.opening(Purpose.NOTES):
            metadata = open_details(op, customer_id, sensitive).metadata
    return Customer(
        ref=ref,
        status=status,
        metadata=metadata,
        email_mask=shown.email_mask,
        created_at=created_at,
        updated_at=updated_at,
    )


async def put_details(
    op: Operation, ref: str, metadata: Mapping[str, str] | None = None, *, email: str | None = None
) -> None:
    """Replace what the tenant notes about a customer, their mail address, or both; what is None stays as it is.

    An empty `email` removes the address; any other is one that `kernel.mail_addresses.find_address` takes.

    Raises errors.NotFound (`CUSTOMER_NOT_FOUND`) and errors.Unavailable (`KEY_UNAVAILABLE`).
    """
    require(op, Permission.TRANSACTIONS_WRITE)
    customer_id = customer_id_of(op, ref)
    key = (op.tenant, UUID(bytes=customer_id))
    row = await op.row(
        "select sealed, sensitive, person from customers "
        "where tenant_id = %s and customer_id = %s and status = 'ACTIVE' for no key update",
        *key,
    )
    if row is None:
        raise _not_found(ref)
    sealed, sensitive, person = row
    before = Details(open_shown(op, customer_id, sealed).metadata)
    if sensitive is not None and (metadata is None or email is None):
        with op.opening(Purpose.NOTES):
            before = open_details(op, customer_id, sensitive)
    details = Details(
        before.metadata if metadata is None else dict(metadata), before.email if email is None else email.strip()
    )
    shown = CustomerContent(
        ref,
        email_mask=mask_address(details.email) if details.email else "",
        has_metadata=bool(details.metadata),
    )
    fresh = None
    if details != Details():
        if person is None:
            [person] = await new_persons(op, 1)
        fresh = op.cipher.for_person(person).seal("customers", "sensitive", customer_id, _encode(details))
    await op.run(
        "update customers set sealed = %s, sensitive = %s, person = %s, email_index = %s, updated_at = %s "
        "where tenant_id = %s and customer_id = %s",
        op.cipher.seal("customers", "sealed", customer_id, _encode(shown)),
        fresh,
        person,
        op.cipher.blind("customers", "email_index", details.email) if details.email else None,
        op.now,
        *key,
    )
    if metadata is not None:
        await record(op, "customer.change-metadata", "customer", customer_id.hex())
    if email is not None:
        await record(op, "customer.change-email", "customer", customer_id.hex(), detail="" if email else "removed")


async def forget(op: Operation, ref: str) -> None:
    """Forget a customer, for good; forgetting twice is as good as once.

    When this is committed, `vault.destroy_ended` ends their secret, and what the superseded envelopes held with it: in
    the database's files, where they are until its next clean-up, in its log and in all backups.

    Raises errors.NotFound (`CUSTOMER_NOT_FOUND`) and errors.Conflict (`CUSTOMER_IN_USE`) while an instruction of theirs
    has not come to its end.
    """
    require(op, Permission.CUSTOMERS_FORGET)
    customer_id = customer_id_of(op, ref)
    key = (op.tenant, UUID(bytes=customer_id))
    # The lock keeps new instructions away (their foreign key needs the row), so that none slips in after the check.
    row = await op.row(
        "select status, person from customers where tenant_id = %s and customer_id = %s for update", *key
    )
    if row is None:
        raise _not_found(ref)
    status, person = row
    if status == FORGOTTEN:
        return
    is_open = await op.row(
        "select from instructions where tenant_id = %s and customer_id = %s "
        "and status not in ('COMPLETED', 'FAILED', 'CANCELLED') limit 1",
        *key,
    )
    if is_open is not None:
        raise Conflict(
            Failure(
                "CUSTOMER_IN_USE",
                "The customer {customerRef} has instructions that are not at their end. Cancel them, or wait.",
                {"customerRef": ref},
            )
        )
    await op.run(
        "update customers "
        "set status = %s, sealed = %s, sensitive = null, person = null, email_index = null, updated_at = %s "
        "where tenant_id = %s and customer_id = %s",
        FORGOTTEN,
        op.cipher.seal("customers", "sealed", customer_id, _NOTHING),
        op.now,
        *key,
    )
    await _forget_instruments(op, key)
    await op.run("delete from order_customer_defaults where tenant_id = %s and customer_id = %s", *key)
    if person is not None:
        await end_person(op, person)
    await record(op, "customer.forget", "customer", customer_id.hex())


async def _forget_instruments(op: Operation, key: tuple[UUID, UUID]) -> None:
    rows = await op.rows(
        "select financial_instrument_id from financial_instruments where tenant_id = %s and customer_id = %s", *key
    )
    ids = [row[0].bytes for row in rows]
    if not ids:
        return
    # The fingerprint goes too: with the key it would still tell whether somebody had a certain account.
    await op.run(
        """
        update financial_instruments f
        set status = 'INACTIVE', sealed = t.sealed, sensitive = null, fingerprint = uuid_send(t.id), iban_index = null
        from unnest(%s, %s) as t(id, sealed)
        where f.tenant_id = %s and f.financial_instrument_id = t.id
        """,
        pack_uuids(ids),
        pack_bytes([op.cipher.seal("financial_instruments", "sealed", found, _NOTHING) for found in ids]),
        op.tenant,
    )


async def persons_of(op: Operation, customers: Mapping[bytes, str]) -> Mapping[bytes, int]:
    """The persons of customers (reference by 16-byte id), who are locked until the operation's end. One statement.

    Who is unknown is made, whoever was forgotten begins anew, and who has no secret yet gets one.
    """
    fresh = await new_persons(op, len(customers))
    rows = await op.rows_named(
        _PERSONS,
        {
            "tenant": op.tenant,
            "now": op.now,
            "id": pack_uuids(list(customers)),
            "sealed": pack_bytes([pack_new_customer(op, customer_id, ref) for customer_id, ref in customers.items()]),
            "person": fresh,
        },
    )
    persons: dict[bytes, int] = dict(rows)
    keep_persons(op, set(fresh).difference(persons.values()))
    if len(persons) < len(customers):
        # Another operation made some at the same time; now they are there.
        return await persons_of(op, customers)
    return persons


# Rows are written in the order of their keys, so that two such statements never wait for each other in a ring.
_PERSONS: Final = """
with known as (
    select customer_id, person from customers
    where tenant_id = %(tenant)s and customer_id = any(%(id)s) and status = 'ACTIVE' and person is not null
    order by customer_id for no key update
), made as (
    insert into customers (tenant_id, customer_id, status, sealed, person, created_at, updated_at)
    select %(tenant)s, id, 'ACTIVE', sealed, person, %(now)s, %(now)s
    from unnest(%(id)s, %(sealed)s, %(person)s::bigint[]) as t(id, sealed, person)
    where not exists (select from known where customer_id = id) order by id
    on conflict (tenant_id, customer_id) do update
        set status = 'ACTIVE', person = excluded.person,
            sealed = case customers.status when 'FORGOTTEN' then excluded.sealed else customers.sealed end,
            updated_at = case customers.status when 'FORGOTTEN' then excluded.updated_at else customers.updated_at end
        where customers.person is null
    returning customer_id, person
)
select uuid_send(customer_id), person from known union all select uuid_send(customer_id), person from made
"""


def split_content(content: bytes) -> tuple[bytes, bytes] | None:
    """What `sealed` held before there was `sensitive`, as both; None when there is nothing to part."""
    whole = _decode(content) if content else None
    if whole is None or not whole.metadata:
        return None
    return _encode(CustomerContent(whole.ref)), _encode(Details(whole.metadata))


def open_shown(op: Operation, customer_id: bytes, sealed: bytes) -> CustomerContent:
    """What may be shown of a customer; of a forgotten one nothing."""
    content = op.cipher.open("customers", "sealed", customer_id, sealed)
    return _decode(content) if content else CustomerContent("")


def open_details(op: Operation, customer_id: bytes, sensitive: bytes) -> Details:
    """What is sensitive of a customer; within `op.opening`."""
    return _decode_details(op.cipher.open("customers", "sensitive", customer_id, sensitive))


def _not_found(ref: str) -> NotFound:
    return NotFound(Failure("CUSTOMER_NOT_FOUND", "There is no customer {customerRef}.", {"customerRef": ref[:50]}))
