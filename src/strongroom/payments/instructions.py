"""Instructions: one payment each way, wanted by a day.

States (wire contract, section 3): INCOMPLETE until it has a scheme and a financial instrument, then READY (shown as
LATE past its day), or AWAITING_APPROVAL where a rule wants that first; PROCESSING once its money has been asked for,
then COMPLETED, FAILED or UNCONFIRMED; CANCELLED before that. Its identity is its order's and its own reference,
cancelled ones included.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from strongroom.access import Payment, Permission, require
from strongroom.audit import record
from strongroom.database import Operation, pack_uuids
from strongroom.kernel.errors import AlreadyExists, Conflict, Failure, Invalid, NotFound
from strongroom.kernel.ids import new_uuid
from strongroom.kernel.money import EXPONENTS, Money, OutOfRange
from strongroom.payments import _awaiting, _writing
from strongroom.payments.ceilings import open_ledger
from strongroom.payments.contents import (
    Defaults,
    InstructionContent,
    NewInstruction,
    decode_instruction,
    decode_order,
    encode,
    instruction_id_of,
    order_id_of,
)
from strongroom.payments.customers import customer_id_of

OPEN: Final = frozenset({"INCOMPLETE", "READY", "AWAITING_APPROVAL"})
"""States in which an instruction can be changed or cancelled."""


class TransactionContent(msgspec.Struct, array_like=True, frozen=True):
    """`transactions.sealed`: what the rail said."""

    provider_reference: str = ""
    reason: str = ""
    detail: str = ""
    financial_instrument_id: str = ""
    end_to_end_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The last attempt to move an instruction's money."""

    transaction_id: UUID
    status: str
    app_id: str
    financial_instrument_id: UUID | None
    created_at: datetime
    updated_at: datetime
    said: TransactionContent


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """An instruction as it stands."""

    order_ref: str
    ref: str
    customer_ref: str
    direction: str
    status: str
    money: Money
    country: str
    settled_by: date
    scheme_id: str | None
    scheme_source: str
    financial_instrument_id: UUID | None
    financial_instrument_source: str
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    attempt: Attempt | None

    @property
    def can_update(self) -> bool:
        """Whether scheme and financial instrument may still be set."""
        return self.status in OPEN


class Change(msgspec.Struct, frozen=True):
    """What a change asks for; None leaves a field as it is."""

    customer_ref: str | None = None
    direction: str | None = None
    amount: str | None = None
    currency: str | None = None
    country: str | None = None
    settled_by: date | None = None
    scheme_id: str | None = None
    financial_instrument_id: bytes | None = None
    metadata: dict[str, str] | None = None


decode_transaction = msgspec.msgpack.Decoder(TransactionContent).decode
_COLUMNS: Final = """
    i.order_id, i.instruction_id, i.direction, i.status, i.currency, i.country, i.settled_by, i.scheme_id,
    i.scheme_source, i.financial_instrument_id, i.financial_instrument_source, i.sealed, i.created_at, i.updated_at,
    t.transaction_id, t.status, t.app_id, t.sealed, t.created_at, t.updated_at
"""
_FROM: Final = """
    from instructions i left join lateral (
        select transaction_id, status, app_id, sealed, created_at, updated_at from transactions
        where tenant_id = i.tenant_id and order_id = i.order_id and instruction_id = i.instruction_id
        order by transaction_id desc limit 1) t on true
"""


def instruction_not_found() -> NotFound:
    """The refusal when no instruction has the reference."""
    return NotFound(Failure("INSTRUCTION_NOT_FOUND", "The order has no such instruction."))


async def add_instruction(op: Operation, order_ref: str, new: NewInstruction) -> None:
    """Add an instruction to an order that exists.

    Raises errors.NotFound (`ORDER_NOT_FOUND`), errors.AlreadyExists (`INSTRUCTION_ALREADY_EXISTS`,
    `INSTRUCTION_CANCELLED` when a cancelled one has the reference), errors.Invalid (see `_writing.make_row`).
    """
    require(op, Permission.TRANSACTIONS_WRITE)
    order_id = order_id_of(op, order_ref)
    if await op.row("select 1 from orders where order_id = %s::uuid", order_id.hex()) is None:
        raise NotFound(Failure("ORDER_NOT_FOUND", "There is no such order."))
    of_customer = (order_id, customer_id_of(op, new.customer_ref))
    defaults = (await find_defaults(op, [of_customer])).get(of_customer, _writing.NO_DEFAULTS)
    known = await _writing.look_up(op, [new], [defaults])
    row = _writing.make_row(op, new, order_ref=order_ref, order_id=order_id, defaults=defaults, known=known)
    customers = {(row.customer_id, order_id): new.customer_ref}
    ledger = await open_ledger(op)
    ledger.admit(op, [new])
    if not await _writing.add_instructions(op, [], [row], customers):
        raise await taken(op, order_id, row.instruction_id, new.ref)
    await ledger.keep(op)
    await record(op, "instruction.create", "instruction", row.instruction_id.hex())


async def taken(op: Operation, order_id: bytes, instruction_id: bytes, ref: str) -> AlreadyExists:
    """The refusal of an instruction whose reference is taken."""
    found = await op.row(
        "select status from instructions where order_id = %s::uuid and instruction_id = %s::uuid",
        order_id.hex(),
        instruction_id.hex(),
    )
    if found is not None and found[0] == "CANCELLED":
        return AlreadyExists(
            Failure(
                "INSTRUCTION_CANCELLED",
                "The instruction {instructionRef} was cancelled; its reference can't be used again.",
                {"instructionRef": ref},
            )
        )
    return AlreadyExists(
        Failure(
            "INSTRUCTION_ALREADY_EXISTS",
            "The order has an instruction {instructionRef} already. Use another instructionRef.",
            {"instructionRef": ref},
        )
    )


async def get_instruction(op: Operation, order_ref: str, ref: str) -> Instruction:
    """One instruction. Raises errors.NotFound (`ORDER_NOT_FOUND`, `INSTRUCTION_NOT_FOUND`)."""
    require(op, Permission.TRANSACTIONS_READ)
    order_id, instruction_id = order_id_of(op, order_ref), instruction_id_of(op, order_ref, ref)
    row = await op.row(
        f"select {_COLUMNS} {_FROM} where i.order_id = %s::uuid and i.instruction_id = %s::uuid",  # constants
        order_id.hex(),
        instruction_id.hex(),
    )
    if row is None:
        await _require_order(op, order_id)
        raise instruction_not_found()
    return _read(op, row)


async def find_defaults(op: Operation, wanted: Collection[tuple[bytes, bytes]]) -> dict[tuple[bytes, bytes], Defaults]:
    """What orders say for their customers, by (order id, customer id); nothing for those of whom they say nothing."""
    rows = await op.rows(
        "select uuid_send(d.order_id), uuid_send(d.customer_id), d.financial_instrument_id, d.scheme_id, d.sealed "
        "from order_customer_defaults d join unnest(%s, %s) as t(order_id, customer_id) "
        "on d.tenant_id = %s and d.order_id = t.order_id and d.customer_id = t.customer_id",
        pack_uuids([order_id for order_id, _ in wanted]),
        pack_uuids([customer_id for _, customer_id in wanted]),
        op.tenant,
    )
    found = {}
    for order_id, customer_id, instrument_id, scheme_id, sealed in rows:
        row_id = _writing.defaults_row_id(order_id, customer_id)
        content = decode_order(op.cipher.open("order_customer_defaults", "sealed", row_id, sealed))
        found[order_id, customer_id] = Defaults(
            instrument_id.bytes if instrument_id else None, scheme_id, content.metadata
        )
    return found


async def get_of_transaction(
    op: Operation, customer_ref: str, financial_instrument_id: UUID, transaction_id: UUID
) -> Instruction:
    """The instruction whose last attempt this transaction is, found by way of the customer's financial instrument.

    Raises errors.NotFound (`TRANSACTION_NOT_FOUND`).
    """
    require(op, Permission.TRANSACTIONS_READ)
    row = await op.row(
        f"select {_COLUMNS} {_FROM} join transactions wanted on wanted.tenant_id = i.tenant_id "
        "and wanted.order_id = i.order_id and wanted.instruction_id = i.instruction_id "
        "where wanted.transaction_id = %s and t.transaction_id = wanted.transaction_id "
        "and i.customer_id = %s::uuid and i.financial_instrument_id = %s",
        transaction_id,
        customer_id_of(op, customer_ref).hex(),
        financial_instrument_id,
    )
    if row is None:
        raise NotFound(Failure("TRANSACTION_NOT_FOUND", "The customer's financial instrument has no such transaction."))
    return _read(op, row)


async def list_of_order(op: Operation, order_id: bytes) -> list[Instruction]:
    """An order's instructions, oldest first."""
    rows = await op.rows(
        f"select {_COLUMNS} {_FROM} where i.order_id = %s::uuid order by i.created_at, i.instruction_id",  # constants
        order_id.hex(),
    )
    return [_read(op, row) for row in rows]


async def change_instruction(op: Operation, order_ref: str, ref: str, change: Change) -> None:
    """Change an instruction that is still open; its state follows from what it then has. What was approved isn't then.

    Raises errors.NotFound, errors.Conflict (`INSTRUCTION_CANCELLED`, `INSTRUCTION_NOT_UPDATABLE`), errors.Invalid
    (`AMOUNT_OUT_OF_RANGE`, `SCHEME_ID_NOT_RECOGNISED`, `SCHEME_ID_NOT_SUPPORTED`, `FINANCIAL_INSTRUMENT_NOT_FOUND`).
    """
    require(op, Permission.TRANSACTIONS_WRITE)
    order_id, instruction_id, row, content = await _lock_open(op, order_ref, ref)
    direction, old_currency, country, settled_by, scheme_id, scheme_source, instrument, instrument_source = row
    currency = change.currency or old_currency
    if change.amount is not None:
        money = parse_amount(change.amount, currency)
    elif currency != old_currency:
        money = parse_amount(str(Money(content.minor, old_currency).decimal), currency)
    else:
        money = Money(content.minor, currency)
    customer_ref = change.customer_ref or content.customer_ref
    direction, country = change.direction or direction, change.country or country
    if change.scheme_id is not None:
        scheme_id, scheme_source = change.scheme_id, "MANUALLY_SET"
    instrument_id = instrument.bytes if instrument else None
    if change.financial_instrument_id is not None:
        instrument_id, instrument_source = change.financial_instrument_id, "MANUALLY_SET"
    wanted = Defaults(instrument_id, scheme_id)
    known = await _writing.look_up(op, [], [wanted])
    failures = _writing.check_choice(
        op,
        known,
        customer_ref=customer_ref,
        direction=direction,
        currency=currency,
        country=country,
        minor=money.minor,
        scheme_id=scheme_id,
        instrument_id=instrument_id,
    )
    if failures:
        raise Invalid(*failures)
    ledger = await open_ledger(op)
    ledger.admit(op, [Payment(country=country, currency=currency, minor=money.minor)])
    await ledger.keep(op)
    status, awaiting = _writing.begin(
        known,
        order_id,
        instruction_id,
        _awaiting.Terms(
            direction=direction,
            minor=money.minor,
            currency=currency,
            country=country,
            settled_by=change.settled_by or settled_by,
            scheme_id=scheme_id,
            financial_instrument_id=None if instrument_id is None else instrument_id.hex(),
            customer_ref=customer_ref,
        ),
    )
    if awaiting is None:
        await _awaiting.lift(op, order_id, instruction_id)
    else:
        await _awaiting.write_changed(op, awaiting)
    metadata = content.metadata if change.metadata is None else change.metadata
    sealed = encode(InstructionContent(order_ref, ref, customer_ref, money.minor, metadata))
    await _writing.make_customer(op, customer_ref)
    await op.run(
        """
        update instructions set customer_id = %s::uuid, direction = %s, currency = %s, country = %s, settled_by = %s,
               scheme_id = %s, scheme_source = %s, financial_instrument_id = %s::uuid, financial_instrument_source = %s,
               status = %s, sealed = %s, updated_at = %s
        where order_id = %s::uuid and instruction_id = %s::uuid
        """,
        customer_id_of(op, customer_ref).hex(),
        direction,
        currency,
        country,
        change.settled_by or settled_by,
        scheme_id,
        scheme_source,
        instrument_id.hex() if instrument_id else None,
        instrument_source,
        status,
        op.cipher.seal("instructions", "sealed", instruction_id, sealed),
        op.now,
        order_id.hex(),
        instruction_id.hex(),
    )
    await op.run(
        "insert into due_work (tenant_id, due_on) values (%s, %s::date - 1) on conflict do nothing",
        op.tenant,
        change.settled_by or settled_by,
    )
    await record(op, "instruction.change", "instruction", instruction_id.hex())


async def cancel_instruction(op: Operation, order_ref: str, ref: str, reason: str) -> None:
    """Cancel an instruction whose money has not been asked for. Raises as `change_instruction` does."""
    require(op, Permission.TRANSACTIONS_WRITE)
    order_id, instruction_id, _, content = await _lock_open(op, order_ref, ref)
    sealed = encode(msgspec.structs.replace(content, cancel_reason=reason))
    await op.run(
        "update instructions set status = 'CANCELLED', sealed = %s, updated_at = %s "
        "where order_id = %s::uuid and instruction_id = %s::uuid",
        op.cipher.seal("instructions", "sealed", instruction_id, sealed),
        op.now,
        order_id.hex(),
        instruction_id.hex(),
    )
    await _awaiting.end(op, order_id, instruction_id, "CANCELLED")
    await add_event(op, order_id, instruction_id, "CANCELLED", reason="cancelled by request")
    await record(op, "instruction.cancel", "instruction", instruction_id.hex())


async def add_event(
    op: Operation,
    order_id: bytes,
    instruction_id: bytes,
    status: str,
    *,
    transaction_id: UUID | None = None,
    reason: str = "",
) -> None:
    """Append to an instruction's history. `reason` is a code or a fixed phrase, never a client's words."""
    await op.run(
        "insert into instruction_events (tenant_id, order_id, instruction_id, event_id, at, status, transaction_id, "
        "reason) values (%s, %s::uuid, %s::uuid, %s, %s, %s, %s, %s)",
        op.tenant,
        order_id.hex(),
        instruction_id.hex(),
        new_uuid(),
        op.now,
        status,
        transaction_id,
        reason,
    )


def parse_amount(text: str, currency: str) -> Money:
    """An amount in a known currency. Raises errors.Invalid (`AMOUNT_IS_INVALID`, `AMOUNT_OUT_OF_RANGE`)."""
    try:
        return Money.parse(text, currency)
    except ValueError as error:
        code = "AMOUNT_OUT_OF_RANGE" if isinstance(error, OutOfRange) else "AMOUNT_IS_INVALID"
        raise Invalid(
            Failure(
                code,
                "amount must be greater than 0, with at most 12 digits before the point and {decimals} decimals in "
                "{currency}.",
                {"decimals": EXPONENTS[currency], "currency": currency},
            )
        ) from None


async def _lock_open(
    op: Operation, order_ref: str, ref: str
) -> tuple[bytes, bytes, tuple[Any, ...], InstructionContent]:
    order_id, instruction_id = order_id_of(op, order_ref), instruction_id_of(op, order_ref, ref)
    row = await op.row(
        "select status, sealed, direction, currency, country, settled_by, scheme_id, scheme_source, "
        "financial_instrument_id, financial_instrument_source from instructions "
        "where order_id = %s::uuid and instruction_id = %s::uuid for update",
        order_id.hex(),
        instruction_id.hex(),
    )
    if row is None:
        await _require_order(op, order_id)
        raise instruction_not_found()
    status, sealed = row[:2]
    if status == "CANCELLED":
        raise Conflict(Failure("INSTRUCTION_CANCELLED", "The instruction was cancelled; it can't be changed any more."))
    if status not in OPEN:
        raise Conflict(
            Failure(
                "INSTRUCTION_NOT_UPDATABLE",
                "The instruction is {status}: its money has been asked for, so it can't be changed or cancelled.",
                {"status": status},
            )
        )
    content = decode_instruction(op.cipher.open("instructions", "sealed", instruction_id, sealed))
    return order_id, instruction_id, row[2:], content


async def _require_order(op: Operation, order_id: bytes) -> None:
    if await op.row("select 1 from orders where order_id = %s::uuid", order_id.hex()) is None:
        raise NotFound(Failure("ORDER_NOT_FOUND", "There is no such order."))


def _read(op: Operation, row: tuple[Any, ...]) -> Instruction:
    instruction_id = row[1].bytes
    content = decode_instruction(op.cipher.open("instructions", "sealed", instruction_id, row[11]))
    late = row[3] == "READY" and row[6] < op.today
    attempt = None
    if row[14] is not None:
        said = decode_transaction(op.cipher.open("transactions", "sealed", row[14].bytes, row[17]))
        attempt = Attempt(
            transaction_id=row[14],
            status="PROCESSING" if row[15] == "INTENDED" else row[15],
            app_id=row[16],
            financial_instrument_id=row[9],
            created_at=row[18],
            updated_at=row[19],
            said=said,
        )
    return Instruction(
        order_ref=content.order_ref,
        ref=content.ref,
        customer_ref=content.customer_ref,
        direction=row[2],
        status="LATE" if late else row[3],
        money=Money(content.minor, row[4]),
        country=row[5],
        settled_by=row[6],
        scheme_id=row[7],
        scheme_source=row[8],
        financial_instrument_id=row[9],
        financial_instrument_source=row[10],
        metadata=content.metadata,
        created_at=row[12],
        updated_at=row[13],
        attempt=attempt,
    )
