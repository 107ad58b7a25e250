"""Orders: what belongs together, such as one claim.

An order is made once, with or without instructions, and is never removed. Its metadata and its defaults per customer
can change; instructions that exist already keep what they took from the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from strongroom.access import Permission, require
from strongroom.audit import record
from strongroom.database import Operation
from strongroom.kernel.errors import AlreadyExists, Failure, Invalid, NotFound, StrongroomError
from strongroom.payments import _writing
from strongroom.payments.ceilings import open_ledger
from strongroom.payments.contents import (
    Defaults,
    NewInstruction,
    NewOrder,
    OrderContent,
    decode_order,
    encode,
    order_id_of,
)
from strongroom.payments.customers import customer_id_of
from strongroom.payments.instructions import Instruction, list_of_order

MAX_INSTRUCTIONS: Final = 1000
"""Most instructions that one request may bring; more go through `bulk`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order as it stands."""

    ref: str
    created_at: datetime
    updated_at: datetime
    metadata: Mapping[str, str]
    customer_defaults: Mapping[str, Defaults]
    instructions: Sequence[Instruction]


def already_exists(ref: str) -> AlreadyExists:
    """The refusal of an order whose reference is taken."""
    return AlreadyExists(
        Failure(
            "ORDER_ALREADY_EXISTS", "There is an order {orderRef} already. Use another orderRef.", {"orderRef": ref}
        )
    )


def order_not_found() -> NotFound:
    """The refusal when no order has the reference."""
    return NotFound(Failure("ORDER_NOT_FOUND", "There is no such order."))


async def create_orders(
    op: Operation, orders: Sequence[NewOrder], correlation_ids: Sequence[str], batch: UUID | None = None
) -> list[NewOrder | StrongroomError]:
    """Make many orders at once; each gets its own verdict, in order: itself when made, else why not.

    `batch` is what their instructions can be approved by together.
    """
    require(op, Permission.TRANSACTIONS_WRITE)
    known = await _writing.look_up(
        op,
        [instruction for order in orders for instruction in order.instructions],
        [defaults for order in orders for defaults in order.customer_defaults.values()],
    )
    ledger = await open_ledger(op)
    verdicts: list[NewOrder | StrongroomError] = []
    ids: list[bytes] = []
    to_write: list[_writing.OrderRow] = []
    rows: list[_writing.InstructionRow] = []
    defaults_rows: list[_writing.DefaultsRow] = []
    customers: dict[tuple[bytes, bytes], str] = {}
    taken: set[bytes] = set()
    for order in orders:
        order_id = order_id_of(op, order.ref)
        ids.append(order_id)
        if order_id in taken:
            verdicts.append(already_exists(order.ref))
            continue
        try:
            prepared, prepared_defaults = _prepare(op, order, order_id, known)
            ledger.admit(op, order.instructions)
        except StrongroomError as error:
            verdicts.append(error)
            continue
        taken.add(order_id)
        sealed = op.cipher.seal("orders", "sealed", order_id, encode(OrderContent(order.ref, order.metadata)))
        detail = f"instructions={len(order.instructions)}"
        to_write.append(_writing.OrderRow(order_id, sealed, detail, correlation_ids[len(verdicts)]))
        rows += prepared
        defaults_rows += prepared_defaults
        for row, instruction in zip(prepared, order.instructions, strict=True):
            customers[row.customer_id, order_id] = instruction.customer_ref
        for defaults in prepared_defaults:
            customers[defaults.customer_id, order_id] = defaults.customer_ref
        verdicts.append(order)
    if not to_write:
        return verdicts
    existing = await _writing.insert_orders(op, to_write, rows, defaults_rows, customers, batch=batch)
    if existing:
        for position, verdict in enumerate(verdicts):
            if ids[position] in existing and not isinstance(verdict, StrongroomError):
                verdicts[position] = already_exists(verdict.ref)
                ledger.take_back(verdict.instructions)
    await ledger.keep(op)
    return verdicts


async def get_order(op: Operation, ref: str) -> Order:
    """The order with its instructions, oldest first. Raises errors.NotFound (`ORDER_NOT_FOUND`)."""
    require(op, Permission.TRANSACTIONS_READ)
    order_id = order_id_of(op, ref)
    row = await op.row("select sealed, created_at, updated_at from orders where order_id = %s::uuid", order_id.hex())
    if row is None:
        raise order_not_found()
    content = decode_order(op.cipher.open("orders", "sealed", order_id, row[0]))
    return Order(
        ref=content.ref,
        created_at=row[1],
        updated_at=row[2],
        metadata=content.metadata,
        customer_defaults=await _read_defaults(op, order_id),
        instructions=await list_of_order(op, order_id),
    )


async def put_metadata(op: Operation, ref: str, metadata: Mapping[str, str]) -> None:
    """Replace the order's metadata. Raises errors.NotFound (`ORDER_NOT_FOUND`)."""
    require(op, Permission.TRANSACTIONS_WRITE)
    order_id = order_id_of(op, ref)
    sealed = op.cipher.seal("orders", "sealed", order_id, encode(OrderContent(ref, dict(metadata))))
    changed = await op.run(
        "update orders set sealed = %s, updated_at = %s where order_id = %s::uuid", sealed, op.now, order_id.hex()
    )
    if not changed:
        raise order_not_found()
    await record(op, "order.change-metadata", "order", order_id.hex())


async def put_customer_defaults(op: Operation, ref: str, customer_ref: str, defaults: Defaults | None) -> None:
    """Set, replace or (None) remove what the order says for a customer; the customer is made when unknown.

    Raises errors.NotFound (`ORDER_NOT_FOUND`) and errors.Invalid (`SCHEME_ID_NOT_RECOGNISED`,
    `FINANCIAL_INSTRUMENT_NOT_FOUND`).
    """
    require(op, Permission.TRANSACTIONS_WRITE)
    order_id = order_id_of(op, ref)
    if await op.row("select 1 from orders where order_id = %s::uuid for update", order_id.hex()) is None:
        raise order_not_found()
    customer_id = customer_id_of(op, customer_ref)
    await op.run(
        "delete from order_customer_defaults where order_id = %s::uuid and customer_id = %s::uuid",
        order_id.hex(),
        customer_id.hex(),
    )
    if defaults is not None:
        known = await _writing.look_up(op, [], [defaults])
        if failures := _writing.check_defaults(op, customer_ref, defaults, known):
            raise Invalid(*failures)
        row = _defaults_row(op, order_id, customer_ref, defaults)
        await _writing.insert_defaults(op, row)
    await op.run("update orders set updated_at = %s where order_id = %s::uuid", op.now, order_id.hex())
    await record(op, "order.change-customer-defaults", "order", order_id.hex())


async def get_customer_defaults(op: Operation, ref: str, customer_ref: str) -> Defaults:
    """What the order says for a customer, to be changed in this operation; empty when it says nothing.

    Raises errors.NotFound (`ORDER_NOT_FOUND`).
    """
    require(op, Permission.TRANSACTIONS_WRITE)
    order_id = order_id_of(op, ref)
    if await op.row("select 1 from orders where order_id = %s::uuid for update", order_id.hex()) is None:
        raise order_not_found()
    return (await _read_defaults(op, order_id)).get(customer_ref, _writing.NO_DEFAULTS)


def _prepare(
    op: Operation, order: NewOrder, order_id: bytes, known: _writing.Known
) -> tuple[list[_writing.InstructionRow], list[_writing.DefaultsRow]]:
    failures: list[Failure] = []
    rows: list[_writing.InstructionRow] = []
    given = order.customer_defaults
    for instruction in order.instructions:
        defaults = given.get(instruction.customer_ref, _writing.NO_DEFAULTS) if given else _writing.NO_DEFAULTS
        try:
            rows.append(
                _writing.make_row(
                    op, instruction, order_ref=order.ref, order_id=order_id, defaults=defaults, known=known
                )
            )
        except Invalid as error:
            failures += error.failures
    for customer_ref, defaults in given.items():
        failures += _writing.check_defaults(op, customer_ref, defaults, known)
    if failures:
        raise Invalid(*failures)
    return rows, [_defaults_row(op, order_id, customer_ref, defaults) for customer_ref, defaults in given.items()]


def _defaults_row(op: Operation, order_id: bytes, customer_ref: str, defaults: Defaults) -> _writing.DefaultsRow:
    content = OrderContent(customer_ref, dict(defaults.metadata))
    customer_id = customer_id_of(op, customer_ref)
    return _writing.DefaultsRow(
        order_id=order_id,
        customer_id=customer_id,
        customer_ref=customer_ref,
        financial_instrument_id=defaults.financial_instrument_id,
        scheme_id=defaults.scheme_id,
        sealed=op.cipher.seal(
            "order_customer_defaults", "sealed", _writing.defaults_row_id(order_id, customer_id), encode(content)
        ),
    )


async def _read_defaults(op: Operation, order_id: bytes) -> dict[str, Defaults]:
    rows = await op.rows(
        "select customer_id, financial_instrument_id, scheme_id, sealed from order_customer_defaults "
        "where order_id = %s::uuid order by customer_id",
        order_id.hex(),
    )
    found: dict[str, Defaults] = {}
    for customer_id, instrument_id, scheme_id, sealed in rows:
        row_id = _writing.defaults_row_id(order_id, customer_id.bytes)
        content = decode_order(op.cipher.open("order_customer_defaults", "sealed", row_id, sealed))
        found[content.ref] = Defaults(instrument_id.bytes if instrument_id else None, scheme_id, content.metadata)
    return found


__all__ = [
    "MAX_INSTRUCTIONS",
    "Defaults",
    "NewInstruction",
    "NewOrder",
    "Order",
    "create_orders",
    "get_customer_defaults",
    "get_order",
    "put_customer_defaults",
    "put_metadata",
]
