"""Writing new orders and instructions, many at a time: one statement, whatever their number.

Used for one order of one request as well as for a bulk line, so that there is one path to get right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Final
from uuid import UUID

import msgspec

from strongroom.database import Operation, pack_bytes, pack_codes, pack_dates, pack_texts, pack_uuids
from strongroom.kernel.errors import Failure, Invalid
from strongroom.payments import _awaiting
from strongroom.payments.approval_rules import NOTHING, Payout, Rule, find_rules, wanted
from strongroom.payments.contents import Defaults, InstructionContent, NewInstruction, encode, instruction_id_of
from strongroom.payments.customers import customer_id_of, pack_new_customer
from strongroom.payments.instruments import InstrumentSummary, find_for_use
from strongroom.payments.routing import PublishedScheme, supports
from strongroom.payments.schemes import find_published
from strongroom.rails.contract import Direction

Customers = Mapping[tuple[bytes, bytes], str]
"""Who has to be there: (customer id, id of the order that brings it) → the customer's reference."""
NO_DEFAULTS: Final[Defaults] = Defaults()
ASK_FROM: Final = 100
"""From so many customers on, asking which of them are there costs less than sealing all of them."""


class InstructionRow(msgspec.Struct, gc=False):
    """A row of `instructions` to be written."""

    order_id: bytes
    instruction_id: bytes
    customer_id: bytes
    direction: str
    currency: str
    country: str
    status: str
    settled_by: date
    scheme_id: str | None
    scheme_source: str
    financial_instrument_id: bytes | None
    financial_instrument_source: str
    sealed: bytes
    awaiting: _awaiting.Awaiting | None = None
    """What is kept for its approval, in a tenant that has rules for it."""


class Known(msgspec.Struct):
    """What the database knows of the schemes and instruments that a batch names."""

    schemes: Mapping[str, PublishedScheme]
    instruments: Mapping[bytes, InstrumentSummary]
    rules: Sequence[Rule] = ()
    """The tenant's rules for approval."""
    paid: Collection[bytes] = ()
    """The instruments to which a payout has been completed, if a rule asks for that."""


async def look_up(op: Operation, instructions: Iterable[NewInstruction], defaults: Iterable[Defaults]) -> Known:
    """Find every scheme and financial instrument named, in one query each (none when none is named)."""
    scheme_ids: set[str] = set()
    instrument_ids: set[bytes] = set()
    items: list[NewInstruction | Defaults] = [*instructions, *defaults]
    for item in items:
        if item.scheme_id is not None:
            scheme_ids.add(item.scheme_id)
        if item.financial_instrument_id is not None:
            instrument_ids.add(item.financial_instrument_id)
    rules = await find_rules(op)
    return Known(
        schemes=await find_published(op, scheme_ids) if scheme_ids else {},
        instruments=await find_for_use(op, instrument_ids) if instrument_ids else {},
        rules=rules,
        paid=await _find_paid(op, instrument_ids) if any(rule.is_first for rule in rules) else (),
    )


async def _find_paid(op: Operation, instrument_ids: Collection[bytes]) -> set[bytes]:
    """Those to which a payout has been completed; that something was collected from one says nothing of paying it."""
    rows = await op.rows(
        "select distinct financial_instrument_id from instructions "
        "where tenant_id = %s and financial_instrument_id = any(%s) and direction = %s and status = 'COMPLETED'",
        op.tenant,
        pack_uuids(list(instrument_ids)),
        Direction.CREDIT.value,
    )
    return {row[0].bytes for row in rows}


def check_defaults(op: Operation, customer_ref: str, defaults: Defaults, known: Known) -> list[Failure]:
    """What is wrong with an order's defaults for a customer."""
    failures = []
    if defaults.scheme_id is not None and defaults.scheme_id not in known.schemes:
        failures.append(_scheme_unknown())
    failures += _check_instrument(op, customer_ref, defaults.financial_instrument_id, known)
    return failures


def make_row(
    op: Operation, new: NewInstruction, *, order_ref: str, order_id: bytes, defaults: Defaults, known: Known
) -> InstructionRow:
    """The row of a new instruction, its gaps filled from the defaults.

    Raises errors.Invalid (`SCHEME_ID_NOT_RECOGNISED`, `SCHEME_ID_NOT_SUPPORTED`, `FINANCIAL_INSTRUMENT_NOT_FOUND`,
    `FINANCIAL_INSTRUMENT_NOT_SUPPORTED`).
    """
    scheme_id, scheme_source = new.scheme_id, "MANUALLY_SET"
    if scheme_id is None:
        scheme_id, scheme_source = defaults.scheme_id, "CUSTOMER_DEFAULT" if defaults.scheme_id else "NONE"
    instrument_id, instrument_source = new.financial_instrument_id, "MANUALLY_SET"
    if instrument_id is None:
        instrument_id = defaults.financial_instrument_id
        instrument_source = "CUSTOMER_DEFAULT" if instrument_id else "NONE"
    if scheme_id is not None or instrument_id is not None:
        failures = check_choice(
            op,
            known,
            customer_ref=new.customer_ref,
            direction=new.direction,
            currency=new.currency,
            country=new.country,
            minor=new.minor,
            scheme_id=scheme_id,
            instrument_id=instrument_id,
        )
        if failures:
            raise Invalid(*failures)
    metadata = {**defaults.metadata, **new.metadata} if defaults.metadata else new.metadata
    instruction_id = instruction_id_of(op, order_ref, new.ref)
    status, awaiting = begin(
        known,
        order_id,
        instruction_id,
        _awaiting.Terms(
            direction=new.direction,
            minor=new.minor,
            currency=new.currency,
            country=new.country,
            settled_by=new.settled_by,
            scheme_id=scheme_id,
            financial_instrument_id=None if instrument_id is None else instrument_id.hex(),
            customer_ref=new.customer_ref,
        ),
    )
    content = InstructionContent(order_ref, new.ref, new.customer_ref, new.minor, metadata)
    return InstructionRow(
        order_id=order_id,
        instruction_id=instruction_id,
        customer_id=customer_id_of(op, new.customer_ref),
        direction=new.direction,
        currency=new.currency,
        country=new.country,
        status=status,
        settled_by=new.settled_by,
        scheme_id=scheme_id,
        scheme_source=scheme_source,
        financial_instrument_id=instrument_id,
        financial_instrument_source=instrument_source,
        sealed=op.cipher.seal("instructions", "sealed", instruction_id, encode(content)),
        awaiting=awaiting,
    )


def begin(
    known: Known, order_id: bytes, instruction_id: bytes, terms: _awaiting.Terms
) -> tuple[str, _awaiting.Awaiting | None]:
    """The state of an instruction with such terms, and what is kept for its approval."""
    complete = terms.scheme_id is not None and terms.financial_instrument_id is not None
    if not known.rules:
        return "READY" if complete else "INCOMPLETE", None
    needs = NOTHING
    if terms.scheme_id is not None and terms.financial_instrument_id is not None:
        is_first = bytes.fromhex(terms.financial_instrument_id) not in known.paid
        payout = Payout(terms.minor, terms.currency, terms.country, terms.scheme_id, is_first)
        needs = wanted(known.rules, terms.direction, payout)
    awaiting = _awaiting.Awaiting(order_id, instruction_id, terms, needs)
    if needs.approvals:
        return "AWAITING_APPROVAL", awaiting
    return "READY" if complete else "INCOMPLETE", awaiting


def check_choice(
    op: Operation,
    known: Known,
    *,
    customer_ref: str,
    direction: str,
    currency: str,
    country: str,
    minor: int,
    scheme_id: str | None,
    instrument_id: bytes | None,
) -> list[Failure]:
    """What is wrong with a scheme and a financial instrument for such a payment."""
    failures = _check_instrument(op, customer_ref, instrument_id, known, direction)
    if scheme_id is not None:
        scheme = known.schemes.get(scheme_id)
        if scheme is None:
            failures.append(_scheme_unknown())
        elif not supports(scheme, direction, currency, country, minor):
            failures.append(
                Failure(
                    "SCHEME_ID_NOT_SUPPORTED",
                    "The scheme {schemeId} can't carry this: no rule of its published draft takes {direction}, "
                    "{country}, {currency} and this amount.",
                    {"schemeId": scheme_id, "direction": direction, "country": country, "currency": currency},
                )
            )
    return failures


def _check_instrument(
    op: Operation, customer_ref: str, instrument_id: bytes | None, known: Known, direction: str | None = None
) -> list[Failure]:
    if instrument_id is None:
        return []
    found = known.instruments.get(instrument_id)
    if found is None or found.status != "ACTIVE" or found.customer_id != customer_id_of(op, customer_ref):
        return [
            Failure(
                "FINANCIAL_INSTRUMENT_NOT_FOUND",
                "The customer has no active financial instrument of this id. Look it up in the customer vault.",
            )
        ]
    if direction is not None and not (found.can_credit if direction == Direction.CREDIT else found.can_debit):
        return [
            Failure(
                "FINANCIAL_INSTRUMENT_NOT_SUPPORTED",
                "This financial instrument can't be used for {direction}.",
                {"direction": direction},
            )
        ]
    return []


def _scheme_unknown() -> Failure:
    return Failure("SCHEME_ID_NOT_RECOGNISED", "There is no such scheme in this tenant.")


_WRITE: Final = """
select * from write_orders({verdict}, %(only_new)s, %(tenant)s, %(now)s, %(actor_kind)s, %(actor_id)s,
    %(o_id)s, %(o_sealed)s, %(a_detail)s, %(a_correlation)s,
    %(c_order)s, %(c_id)s, %(c_sealed)s,
    %(i_order)s, %(i_id)s, %(i_customer)s, %(i_direction)s, %(i_currency)s, %(i_country)s, %(i_status)s,
    %(i_settled_by)s, %(i_scheme)s, %(i_scheme_source)s, %(i_instrument)s, %(i_instrument_source)s, %(i_sealed)s,
    %(due)s,
    %(d_order)s, %(d_customer)s, %(d_instrument)s, %(d_scheme)s, %(d_sealed)s)
"""
"""See the function in the migration. One call, whatever the numbers: (verdict, orders taken, instructions added)."""
_DAY: Final = timedelta(days=1)


class OrderRow(msgspec.Struct, gc=False):
    """A row of `orders` to be written, with what the record says about a new one."""

    order_id: bytes
    sealed: bytes
    detail: str = ""
    correlation_id: str = ""


class DefaultsRow(msgspec.Struct, gc=False):
    """A row of `order_customer_defaults` to be written."""

    order_id: bytes
    customer_id: bytes
    customer_ref: str
    financial_instrument_id: bytes | None
    scheme_id: str | None
    sealed: bytes


async def insert_orders(
    op: Operation,
    orders: Sequence[OrderRow],
    rows: Sequence[InstructionRow],
    defaults: Sequence[DefaultsRow],
    customers: Customers,
    *,
    batch: UUID | None = None,
) -> set[bytes]:
    """Write orders with all that belongs to them, and their audit entries; returns the ids that were taken already.

    Nothing of an order that exists is written, nor a customer whom only such orders bring. `batch` is what instructions
    can be approved by together.
    """
    awaiting = await _begin_awaiting(op, rows)
    _, taken, _ = await op.whole(
        _WRITE,
        {
            **_parameters(op, orders, rows, defaults, await _to_be_made(op, customers)),
            "only_new": True,
            "a_detail": pack_texts([order.detail for order in orders]),
            "a_correlation": pack_texts([order.correlation_id for order in orders]),
        },
    )
    skipped = {order_id.bytes for order_id in taken}
    await _awaiting.write_new(op, [item for item in awaiting if item.order_id not in skipped], batch)
    return skipped


async def add_instructions(
    op: Operation,
    orders: Sequence[OrderRow],
    rows: Sequence[InstructionRow],
    customers: Customers,
    *,
    batch: UUID | None = None,
) -> set[bytes]:
    """Write instructions, making their orders where they aren't there; returns the ids of those that were new."""
    awaiting = await _begin_awaiting(op, rows)
    parameters = _parameters(op, orders, rows, [], await _to_be_made(op, customers))
    nothing = {"only_new": False, "a_detail": pack_texts([]), "a_correlation": pack_texts([])}
    _, _, added = await op.whole(_WRITE, {**parameters, **nothing})
    new = {instruction_id.bytes for instruction_id in added}
    await _awaiting.write_new(op, [item for item in awaiting if item.instruction_id in new], batch)
    return new


async def _begin_awaiting(op: Operation, rows: Sequence[InstructionRow]) -> Sequence[_awaiting.Awaiting]:
    """What is to be kept of these rows. With any of it, writing them isn't the whole of the operation."""
    awaiting = [row.awaiting for row in rows if row.awaiting is not None]
    if awaiting:
        await op.session.begin()
    return awaiting


async def _to_be_made(op: Operation, customers: Customers) -> Customers:
    """The customers that may have to be made: all of a few, and of many those that aren't there."""
    if len(customers) < ASK_FROM:
        return customers
    ids = {customer_id for customer_id, _ in customers}
    rows = await op.rows(
        "select id from unnest(%s) as t(id) where not exists "
        "(select from customers where tenant_id = %s and customer_id = t.id and status = 'ACTIVE')",
        pack_uuids(list(ids)),
        op.tenant,
    )
    missing = {row[0].bytes for row in rows}
    return {key: ref for key, ref in customers.items() if key[0] in missing}


def _parameters(
    op: Operation,
    orders: Sequence[OrderRow],
    rows: Sequence[InstructionRow],
    defaults: Sequence[DefaultsRow],
    customers: Customers,
) -> dict[str, object]:
    sealed: dict[bytes, bytes] = {}
    for (customer_id, _), ref in customers.items():
        if customer_id not in sealed:
            sealed[customer_id] = pack_new_customer(op, customer_id, ref)
    return {
        "tenant": op.tenant,
        "now": op.now,
        "actor_kind": op.actor.kind.value,
        "actor_id": str(op.actor.key_id or op.actor.name),
        "o_id": pack_uuids([order.order_id for order in orders]),
        "o_sealed": pack_bytes([order.sealed for order in orders]),
        "c_order": pack_uuids([order_id for _, order_id in customers]),
        "c_id": pack_uuids([customer_id for customer_id, _ in customers]),
        "c_sealed": pack_bytes([sealed[customer_id] for customer_id, _ in customers]),
        "i_order": pack_uuids([row.order_id for row in rows]),
        "i_id": pack_uuids([row.instruction_id for row in rows]),
        "i_customer": pack_uuids([row.customer_id for row in rows]),
        "i_direction": pack_codes([row.direction for row in rows]),
        "i_currency": pack_codes([row.currency for row in rows]),
        "i_country": pack_codes([row.country for row in rows]),
        "i_status": pack_codes([row.status for row in rows]),
        "i_settled_by": pack_dates([row.settled_by for row in rows]),
        "i_scheme": pack_texts([row.scheme_id for row in rows]),
        "i_scheme_source": pack_codes([row.scheme_source for row in rows]),
        "i_instrument": pack_uuids([row.financial_instrument_id for row in rows]),
        "i_instrument_source": pack_codes([row.financial_instrument_source for row in rows]),
        "i_sealed": pack_bytes([row.sealed for row in rows]),
        "due": pack_dates(sorted({row.settled_by - _DAY for row in rows if row.status == "READY"})),
        "d_order": pack_uuids([row.order_id for row in defaults]),
        "d_customer": pack_uuids([row.customer_id for row in defaults]),
        "d_instrument": pack_uuids([row.financial_instrument_id for row in defaults]),
        "d_scheme": pack_texts([row.scheme_id for row in defaults]),
        "d_sealed": pack_bytes([row.sealed for row in defaults]),
    }


def defaults_row_id(order_id: bytes, customer_id: bytes) -> bytes:
    """What binds the envelope of a customer's defaults to its row, whose key is both ids."""
    return order_id + customer_id


async def make_customer(op: Operation, ref: str) -> None:
    """Make the customer when it is unknown."""
    customer_id = customer_id_of(op, ref)
    await op.run(
        "insert into customers (tenant_id, customer_id, status, sealed, created_at, updated_at) "
        "values (%s, %s::uuid, 'ACTIVE', %s, %s, %s) on conflict (tenant_id, customer_id) do update "
        "set status = 'ACTIVE', sealed = excluded.sealed, created_at = excluded.created_at, "
        "updated_at = excluded.updated_at "
        "where customers.status = 'FORGOTTEN'",
        op.tenant,
        customer_id.hex(),
        pack_new_customer(op, customer_id, ref),
        op.now,
        op.now,
    )


async def insert_defaults(op: Operation, row: DefaultsRow) -> None:
    """Write one customer's defaults into an order that exists; the customer is made when unknown."""
    await make_customer(op, row.customer_ref)
    await op.run(
        "insert into order_customer_defaults (tenant_id, order_id, customer_id, financial_instrument_id, scheme_id, "
        "sealed, updated_at) values (%s, %s::uuid, %s::uuid, %s::uuid, %s, %s, %s)",
        op.tenant,
        row.order_id.hex(),
        row.customer_id.hex(),
        row.financial_instrument_id.hex() if row.financial_instrument_id else None,
        row.scheme_id,
        row.sealed,
        op.now,
    )
