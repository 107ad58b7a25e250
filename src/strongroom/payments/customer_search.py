"""Finding customers by what is sealed: by mail address, by IBAN, or by reference, each exactly.

What is found is shown through masks, for which the customer's key isn't needed. Names are not searchable: people spell
them in too many ways for equality to find them, and a keyed hash of anything coarser would tell too much of who is
there (`docs/internals/blind-index.md`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from strongroom.access import Permission, require
from strongroom.database import Operation, pack_bytes
from strongroom.kernel.errors import Failure, Invalid
from strongroom.kernel.mail_addresses import find_address
from strongroom.payments.customers import customer_id_of, open_shown
from strongroom.rails.formats.accounts import find_iban


class SearchBy(enum.StrEnum):
    """What a customer can be found by."""

    EMAIL = "email"
    IBAN = "iban"
    REF = "customerRef"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A customer that was found, masked. `customer_id` is the 16 bytes by which pages are walked."""

    customer_id: bytes
    ref: str
    email_mask: str
    created_at: datetime


async def search_customers(
    op: Operation, by: SearchBy, value: str, *, after: bytes = bytes(16), take: int = 100
) -> Sequence[Found]:
    """Active customers with this mail address, this IBAN (in one of their accounts) or this reference.

    Raises errors.Invalid (`EMAIL_IS_INVALID`, `IBAN_IS_INVALID`) and errors.Unavailable (`SEARCH_KEY_MISSING`).
    """
    require(op, Permission.TRANSACTIONS_READ)
    rows = await op.rows(FIND[by], op.tenant, _wanted(op, by, value), op.tenant, UUID(bytes=after), take)
    found = []
    for customer_id, sealed, created_at in rows:
        shown = open_shown(op, customer_id, sealed)
        found.append(Found(customer_id=customer_id, ref=shown.ref, email_mask=shown.email_mask, created_at=created_at))
    return found


def _wanted(op: Operation, by: SearchBy, value: str) -> object:
    """What to look for in the index."""
    match by:
        case SearchBy.EMAIL:
            if find_address(value) is None:
                raise Invalid(Failure("EMAIL_IS_INVALID", "email is not a mail address."))
            return pack_bytes(op.cipher.blinds("customers", "email_index", value))
        case SearchBy.IBAN:
            iban = find_iban(value)
            if iban is None:
                raise Invalid(
                    Failure(
                        "IBAN_IS_INVALID",
                        "iban is not an IBAN (ISO 13616): its country, length, structure or check digits are wrong.",
                    )
                )
            return pack_bytes(op.cipher.blinds("financial_instruments", "iban_index", iban))
        case SearchBy.REF:
            return UUID(bytes=customer_id_of(op, value))


# Those that match are looked up first, whatever the planner believes of their number: walking all customers in the
# order of their ids until enough are found would be the worst way to find the one that there is.
_PAGE: Final = """
with found as materialized ({matching})
select uuid_send(customer_id), c.sealed, c.created_at from found join customers c using (customer_id)
where c.tenant_id = %s and c.status = 'ACTIVE' and customer_id > %s order by customer_id limit %s
"""
FIND: Final[Mapping[SearchBy, str]] = {
    SearchBy.EMAIL: _PAGE.format(
        matching="select customer_id from customers where tenant_id = %s and email_index = any(%s)"
    ),
    SearchBy.IBAN: _PAGE.format(
        matching="select distinct customer_id from financial_instruments "
        "where tenant_id = %s and iban_index = any(%s) and status = 'ACTIVE'"
    ),
    SearchBy.REF: _PAGE.format(matching="select customer_id from customers where tenant_id = %s and customer_id = %s"),
}
