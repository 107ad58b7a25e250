"""Customers: whom a tenant pays or collects from, known by the tenant's own references.

A customer has no id on the wire; inside, its id is the tenant's keyed hash of the reference. It is made when an
instruction or a financial instrument first names it, and lives until it is forgotten: then everything that describes
the person (reference, metadata, accounts, what orders say for them) is sealed over with nothing or removed. Only bare
rows stay, because instructions that were carried out refer to them. A reference that comes back with a new financial
instrument begins anew, with nothing of what was forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from strongroom.access import Permission, require
from strongroom.audit import record
from strongroom.database import Operation, pack_bytes, pack_uuids
from strongroom.kernel.errors import Conflict, Failure, NotFound

ACTIVE = "ACTIVE"
FORGOTTEN = "FORGOTTEN"
_NOTHING = b""
"""What the envelopes of a forgotten customer hold."""


class CustomerContent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`customers.sealed`. Metadata is in `customers.sensitive`; before there was such a column it stood here."""

    ref: str
    metadata: dict[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """A customer; of a forgotten one only the status is left."""

    ref: str
    status: str
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(CustomerContent).decode
_decode_metadata = msgspec.msgpack.Decoder(dict[str, str]).decode


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
    if sensitive is None:
        content = op.cipher.open("customers", "sealed", customer_id, sealed)
        metadata = _decode(content).metadata if content else {}
    else:
        metadata = _decode_metadata(op.cipher.open("customers", "sensitive", customer_id, sensitive))
    return Customer(
        ref=ref,
        status=status,
        metadata=metadata,
        created_at=created_at,
        updated_at=updated_at,
    )


async def put_metadata(op: Operation, ref: str, metadata: Mapping[str, str]) -> None:
    """Replace what the tenant notes about a customer. Raises errors.NotFound (`CUSTOMER_NOT_FOUND`)."""
    require(op, Permission.TRANSACTIONS_WRITE)
    customer_id = customer_id_of(op, ref)
    changed = await op.run(
        "update customers set sealed = %s, sensitive = %s, updated_at = %s "
        "where tenant_id = %s and customer_id = %s and status = %s",
        pack_new_customer(op, customer_id, ref),
        op.cipher.seal("customers", "sensitive", customer_id, _encode(dict(metadata))) if metadata else None,
        op.now,
        op.tenant,
        UUID(bytes=customer_id),
        ACTIVE,
    )
    if not changed:
        raise _not_found(ref)
    await record(op, "customer.change-metadata", "customer", customer_id.hex())


async def forget(op: Operation, ref: str) -> None:
    """Forget a customer, for good; forgetting twice is as good as once.

    The superseded envelopes leave the database's files with its next clean-up, and the backups with their age.

    Raises errors.NotFound (`CUSTOMER_NOT_FOUND`) and errors.Conflict (`CUSTOMER_IN_USE`) while an instruction of theirs
    has not come to its end.
    """
    require(op, Permission.CUSTOMERS_FORGET)
    customer_id = customer_id_of(op, ref)
    key = (op.tenant, UUID(bytes=customer_id))
    # The lock keeps new instructions away (their foreign key needs the row), so that none slips in after the check.
    row = await op.row("select status from customers where tenant_id = %s and customer_id = %s for update", *key)
    if row is None:
        raise _not_found(ref)
    if row[0] == FORGOTTEN:
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
        "update customers set status = %s, sealed = %s, sensitive = null, updated_at = %s "
        "where tenant_id = %s and customer_id = %s",
        FORGOTTEN,
        op.cipher.seal("customers", "sealed", customer_id, _NOTHING),
        op.now,
        *key,
    )
    await _forget_instruments(op, key)
    await op.run("delete from order_customer_defaults where tenant_id = %s and customer_id = %s", *key)
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
        set status = 'INACTIVE', sealed = t.sealed, sensitive = null, fingerprint = uuid_send(t.id)
        from unnest(%s, %s) as t(id, sealed)
        where f.tenant_id = %s and f.financial_instrument_id = t.id
        """,
        pack_uuids(ids),
        pack_bytes([op.cipher.seal("financial_instruments", "sealed", found, _NOTHING) for found in ids]),
        op.tenant,
    )


def split_content(content: bytes) -> tuple[bytes, bytes] | None:
    """What `sealed` held before there was `sensitive`, as both; None when there is nothing to part."""
    whole = _decode(content) if content else None
    if whole is None or not whole.metadata:
        return None
    return _encode(CustomerContent(whole.ref)), _encode(whole.metadata)


def _not_found(ref: str) -> NotFound:
    return NotFound(Failure("CUSTOMER_NOT_FOUND", "There is no customer {customerRef}.", {"customerRef": ref[:50]}))
