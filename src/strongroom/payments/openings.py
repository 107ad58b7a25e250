"""Openings: something of a customer in clear, for a purpose.

What is sensitive is shown through masks everywhere. Here it is given in clear to somebody who holds the permission for
it, names a purpose that the field may be opened for (`database.catalogue.OPENED_FOR`) and says why. Every opening is a
row, with the reason sealed, and an entry in the record: who, whose, which fields and for which purpose, never what was
in them. The rows of the last hour are counted, so that all processes share the limits; a key that opens many different
customers raises an alert.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Final
from uuid import UUID

from strongroom.access import Permission, require
from strongroom.audit import raise_alert, record
from strongroom.database import Operation, Purpose
from strongroom.database.catalogue import OPENED_FOR, OPENING_PURPOSES
from strongroom.kernel.errors import Failure, Forbidden, Invalid, NotFound, TooOften
from strongroom.kernel.ids import new_uuid
from strongroom.payments.customers import customer_id_of, open_details
from strongroom.payments.instruments import open_contents
from strongroom.rails.contract import Address, BankAccount

WINDOW: Final = timedelta(hours=1)
"""What the limits and the alert count."""
MAX_OPENINGS_OF_ONE: Final = 120
"""Openings by one key (or operator) of one tenant within the window."""
MAX_OPENINGS_OF_TENANT: Final = 600
"""Openings by all keys of one tenant within the window."""
MANY_CUSTOMERS: Final = 25
"""So many different customers opened by one key within the window raise an alert."""
MAX_REASON: Final = 500
ALERT: Final = "openings.many-customers"
_CUSTOMER: Final = ("customers", "sensitive")
_INSTRUMENT: Final = ("financial_instruments", "sensitive")
FIELDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "email": _CUSTOMER,
        "accountHolderName": _INSTRUMENT,
        "iban": _INSTRUMENT,
        "accountNumber": _INSTRUMENT,
        "bankCode": _INSTRUMENT,
        "bic": _INSTRUMENT,
        "address": _INSTRUMENT,
    }
)
"""What can be opened of a customer → the column that it stands in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedInstrument:
    """What was asked for of one financial instrument; what it hasn't got is missing."""

    financial_instrument_id: UUID
    fields: Mapping[str, str | Address]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What was asked for, in clear. `email` is None when it wasn't asked for, and empty when there is none."""

    opening_id: UUID
    email: str | None
    instruments: Sequence[OpenedInstrument]


async def open_customer(
    op: Operation, ref: str, fields: Sequence[str], *, purpose: Purpose, reason: str, instrument_id: UUID | None = None
) -> Opened:
    """Give these `FIELDS` of an active customer in clear, of all their bank accounts or of the one that is named.

    Raises errors.Forbidden (`FORBIDDEN`; `PURPOSE_NOT_ALLOWED` when a field may not be opened for the purpose),
    errors.Invalid (`REASON_IS_REQUIRED`, `REASON_LENGTH_OUT_OF_RANGE`), errors.NotFound (`CUSTOMER_NOT_FOUND`,
    `FINANCIAL_INSTRUMENT_NOT_FOUND`), errors.TooOften (`OPENINGS_OF_KEY_EXCEEDED`, `OPENINGS_OF_TENANT_EXCEEDED`) and
    errors.Unavailable (`KEY_UNAVAILABLE`).
    """
    require(op, Permission.CUSTOMERS_OPEN)
    _check_purpose(fields, purpose)
    _check_reason(reason)
    customer_id = UUID(bytes=customer_id_of(op, ref))
    row = await op.row(
        "select sensitive from customers where tenant_id = %s and customer_id = %s and status = 'ACTIVE'",
        op.tenant,
        customer_id,
    )
    if row is None:
        raise NotFound(Failure("CUSTOMER_NOT_FOUND", "There is no customer {customerRef}.", {"customerRef": ref[:50]}))
    opening_id = await count_opening(
        op, "customer", customer_id, fields, purpose=purpose, reason=reason.strip(), named=instrument_id
    )
    email = None
    opened: list[OpenedInstrument] = []
    with op.opening(purpose):
        if "email" in fields:
            email = open_details(op, customer_id.bytes, row[0]).email if row[0] is not None else ""
        if any(FIELDS[field] == _INSTRUMENT for field in fields):
            contents = await open_contents(op, customer_id)
            if instrument_id is not None:
                contents = {found: account for found, account in contents.items() if found == instrument_id}
                if not contents:
                    raise NotFound(
                        Failure(
                            "FINANCIAL_INSTRUMENT_NOT_FOUND",
                            "The customer has no active financial instrument of this id.",
                        )
                    )
            opened = [
                OpenedInstrument(financial_instrument_id=found, fields=_fields_of(account, fields))
                for found, account in contents.items()
            ]
    await _alert_on_many(op)
    return Opened(opening_id=opening_id, email=email, instruments=opened)


async def count_opening(
    op: Operation,
    subject_kind: str,
    subject_id: UUID,
    fields: Sequence[str],
    *,
    purpose: Purpose,
    reason: str,
    named: UUID | None = None,
) -> UUID:
    """Write an opening down, before it is done and in the same operation; returns its id.

    Raises errors.TooOften (`OPENINGS_OF_KEY_EXCEEDED`, `OPENINGS_OF_TENANT_EXCEEDED`).
    """
    # One opening of a tenant at a time, so that two can't both be the last that a limit allows.
    await op.run("select pg_advisory_xact_lock(hashtextextended('openings ' || %s, 0))", op.tenant.hex)
    await _check_limit(op, "OPENINGS_OF_KEY_EXCEEDED", MAX_OPENINGS_OF_ONE, by=_who(op))
    await _check_limit(op, "OPENINGS_OF_TENANT_EXCEEDED", MAX_OPENINGS_OF_TENANT)
    opening_id = new_uuid()
    await op.run(
        "insert into openings (tenant_id, opening_id, subject_kind, subject_id, actor_kind, actor_id, purpose, fields, "
        "sealed, opened_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        op.tenant,
        opening_id,
        subject_kind,
        subject_id,
        op.actor.kind.value,
        _who(op),
        purpose.value,
        list(fields),
        op.cipher.seal("openings", "sealed", opening_id.bytes, reason.encode()),
        op.now,
    )
    told = "given" if reason else "none"
    of = f" instrument={named}" if named else ""
    await record(
        op,
        f"{subject_kind}.open",
        subject_kind,
        subject_id.hex,
        detail=f"opening={opening_id} purpose={purpose.value} reason={told} fields={','.join(fields)}{of}",
    )
    return opening_id


async def _check_limit(op: Operation, code: str, limit: int, *, by: str | None = None) -> None:
    """Raises errors.TooOften when the window holds as many openings as the limit allows."""
    row = await op.row(
        "select opened_at from openings where tenant_id = %s and opened_at > %s and actor_id = coalesce(%s, actor_id) "
        "order by opened_at desc offset %s limit 1",
        op.tenant,
        op.now - WINDOW,
        by,
        limit - 1,
    )
    if row is None:
        return
    wait_s = max(math.ceil((row[0] + WINDOW - op.now).total_seconds()), 1)
    raise TooOften(
        Failure(
            code,
            "At most {limit} openings within {window} seconds are allowed {whose}. Wait {wait} seconds.",
            {
                "limit": limit,
                "window": int(WINDOW.total_seconds()),
                "whose": "by one key" if by is not None else "in one tenant",
                "wait": wait_s,
            },
        ),
        retry_after_s=wait_s,
    )


async def _alert_on_many(op: Operation) -> None:
    row = await op.row(
        "select count(distinct subject_id) from openings "
        "where tenant_id = %s and opened_at > %s and actor_id = %s and subject_kind = 'customer'",
        op.tenant,
        op.now - WINDOW,
        _who(op),
    )
    customers = row[0] if row is not None else 0
    if customers >= MANY_CUSTOMERS:
        detail = f"customers={customers} window_s={int(WINDOW.total_seconds())}"
        await raise_alert(op, ALERT, op.actor.kind.value, _who(op), detail=detail, again_after=WINDOW)


def _check_purpose(fields: Sequence[str], purpose: Purpose) -> None:
    for field in fields:
        if purpose not in OPENING_PURPOSES or purpose not in OPENED_FOR[FIELDS[field]]:
            raise Forbidden(
                Failure(
                    "PURPOSE_NOT_ALLOWED",
                    "{field} may not be opened for {purpose}.",
                    {"field": field, "purpose": purpose.value},
                )
            )


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise Invalid(Failure("REASON_IS_REQUIRED", "reason is required."))
    if len(reason) > MAX_REASON:
        raise Invalid(
            Failure(
                "REASON_LENGTH_OUT_OF_RANGE", "reason has at most {maxLength} characters.", {"maxLength": MAX_REASON}
            )
        )


def _fields_of(account: BankAccount, fields: Sequence[str]) -> dict[str, str | Address]:
    values: dict[str, str | Address | None] = {
        "accountHolderName": account.holder,
        "iban": account.iban,
        "accountNumber": account.number,
        "bankCode": account.bank_code,
        "bic": account.bic,
        "address": account.address,
    }
    return {field: value for field in fields if (value := values.get(field))}


def _who(op: Operation) -> str:
    return str(op.actor.key_id or op.actor.name)
