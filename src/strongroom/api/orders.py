"""Orders and instructions on the wire (wire contract, sections 3 and 4)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec

from strongroom.access import Permission
from strongroom.api import idempotency
from strongroom.api.order_bodies import (
    check_ref,
    read_change,
    read_defaults,
    read_instruction,
    read_metadata,
    read_order,
    read_reason,
)
from strongroom.api.order_requests import (
    CancelRequest,
    ChangeInstructionRequest,
    CustomerDefaultsRequest,
    MetadataRequest,
    NewInstructionRequest,
    NewOrderRequest,
)
from strongroom.api.routing import Access, Call, Reply, Route, wire_name
from strongroom.database import Coalescer, Databases, KeysChanged, Operation, in_operation
from strongroom.kernel.actors import Actor
from strongroom.kernel.clock import epoch_ms
from strongroom.kernel.errors import Failure, Invalid, NotFound, StrongroomError
from strongroom.kernel.ids import parse_uuid
from strongroom.payments import instructions, orders
from strongroom.payments.contents import Defaults, NewOrder
from strongroom.payments.instructions import Attempt, Instruction

_BASE = "/v1/order-management"
_ORDER = _BASE + "/{orderRef}"
_INSTRUCTION = _ORDER + "/instruction/{instructionRef}"
_TRANSACTION = (
    "/v1/customer-vault/{customerRef}/financial-instrument/{financialInstrumentId}/transaction/{transactionId}"
)
_DEFAULTS = _ORDER + "/customer-defaults/{customerRef}"


class Href(msgspec.Struct, omit_defaults=True):
    """A HAL link."""

    href: str
    name: str = ""


class OrderLinks(msgspec.Struct):
    """An order's links."""

    self: Href


class OrderCreated(msgspec.Struct, rename=wire_name):
    """The answer to a new order."""

    links: OrderLinks
    order_ref: str


class InstructionLinks(msgspec.Struct, rename="camel"):
    """An instruction's links."""

    self: Href
    financial_instruments: list[Href]
    transactions: list[Href]


class InstrumentChoice(msgspec.Struct, rename="camel"):
    """Which financial instrument an instruction uses, and where that came from."""

    financial_instrument_id: str | None
    source: str
    can_update: bool
    source_flow: str | None


class SchemeChoice(msgspec.Struct, rename="camel"):
    """Which scheme an instruction uses, and where that came from."""

    scheme_id: str | None
    source: str
    can_update: bool


class AppReference(msgspec.Struct, rename="camel"):
    """The app that carried a transaction."""

    app_id: str
    app_transaction_id: str | None
    app_batch_id: str | None
    support_details: str | None


class TransactionView(msgspec.Struct, rename="camel"):
    """The last attempt to move an instruction's money. Instants are epoch milliseconds."""

    transaction_id: str
    financial_instrument_id: str | None
    created_timestamp: int
    last_updated_timestamp: int
    amount: Decimal
    net_amount: Decimal
    status: str
    additional_information: str | None
    app: AppReference
    refunds: list[Any]
    chargebacks: list[Any]


class InstructionView(msgspec.Struct, rename=wire_name):
    """An instruction. Instants are epoch milliseconds, days are YYYY-MM-DD."""

    links: InstructionLinks
    instruction_ref: str
    created: int
    last_updated: int
    direction: str
    status: str
    customer_ref: str
    amount: Decimal
    currency: str
    country: str
    settled_by_date: date
    forecasted_settlement_date: date | None
    actual_settlement_date: date | None
    execution_timestamp: int | None
    financial_instrument: InstrumentChoice
    scheme: SchemeChoice
    metadata: dict[str, str]
    transaction: TransactionView | None


class DefaultsView(msgspec.Struct, rename="camel"):
    """What an order says for one customer."""

    financial_instrument_id: str | None
    scheme_id: str | None
    metadata: dict[str, str]


class OrderView(msgspec.Struct, rename=wire_name):
    """An order with its instructions. Instants are epoch milliseconds."""

    links: OrderLinks
    order_ref: str
    created: int
    last_updated: int
    instructions: list[InstructionView]
    metadata: dict[str, str]
    customer_defaults: dict[str, DefaultsView]


class OrderCommand(msgspec.Struct, frozen=True):
    """One request's part of a coalesced write."""

    order: NewOrder
    correlation_id: str
    key: str | None = None
    request_hash: bytes = b""


class OrderWriter:
    """Makes orders, many requests in one database transaction; one writer per process."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._coalescer: Coalescer[Actor, OrderCommand, Reply] = Coalescer(self._write)

    async def create(self, call: Call, order: NewOrder) -> Reply:
        """The answer to one request, once its order is committed. Raises its refusal."""
        key = idempotency.key_of(call)
        if key is None:
            return await self._coalescer.submit(call.actor, OrderCommand(order, call.correlation_id))
        keyed = OrderCommand(order, call.correlation_id, key, idempotency.fingerprint(call))
        return await self._coalescer.submit(call.actor, keyed)

    async def _write(self, actor: Actor, commands: Sequence[OrderCommand]) -> Sequence[Reply | StrongroomError]:
        begin = partial(self._databases.operation, actor, account=actor.account_id, tenant=actor.tenant_id)

        async def write(op: Operation) -> Sequence[Reply | StrongroomError]:
            if all(command.key is None for command in commands):
                return await self._create(op, commands)
            return await idempotency.once_each(op, commands, self._create)

        # With the keys as they are known here, in one exchange; when these have changed, as the database has them.
        with contextlib.suppress(KeysChanged):
            async with begin(lazily=True) as op:
                return await write(op)
        return await in_operation(begin, write)

    @staticmethod
    async def _create(op: Operation, commands: Sequence[OrderCommand]) -> list[Reply | StrongroomError]:
        verdicts = await orders.create_orders(
            op, [command.order for command in commands], [command.correlation_id for command in commands]
        )
        return [verdict if isinstance(verdict, StrongroomError) else _created(verdict) for verdict in verdicts]


async def create_order(call: Call) -> Reply:
    """POST /v1/order-management: 201, or 202 when the order brings instructions."""
    order = read_order(call.body)
    writer: OrderWriter = call.services.part(OrderWriter)
    return await writer.create(call, order)


async def read_one(op: Operation, call: Call) -> Reply:
    """GET an order."""
    order = await orders.get_order(op, _path_ref(call, "orderRef", "ORDER_REF"))
    return Reply(200, _order_view(order))


async def put_metadata(op: Operation, call: Call) -> Reply:
    """PUT an order's metadata."""
    await orders.put_metadata(op, _path_ref(call, "orderRef", "ORDER_REF"), read_metadata(call.body))
    return Reply(200)


async def delete_metadata(op: Operation, call: Call) -> Reply:
    """DELETE an order's metadata."""
    await orders.put_metadata(op, _path_ref(call, "orderRef", "ORDER_REF"), {})
    return Reply(200)


async def put_defaults(op: Operation, call: Call) -> Reply:
    """PUT what an order says for a customer, whole."""
    order_ref, customer_ref = _path_ref(call, "orderRef", "ORDER_REF"), _path_ref(call, "customerRef", "CUSTOMER_REF")
    await orders.put_customer_defaults(op, order_ref, customer_ref, read_defaults(call.body))
    return Reply(200)


async def delete_defaults(op: Operation, call: Call) -> Reply:
    """DELETE what an order says for a customer, whole."""
    order_ref, customer_ref = _path_ref(call, "orderRef", "ORDER_REF"), _path_ref(call, "customerRef", "CUSTOMER_REF")
    await orders.put_customer_defaults(op, order_ref, customer_ref, None)
    return Reply(200)


async def put_one_default(op: Operation, call: Call) -> Reply:
    """PUT one of financial-instrument, scheme, metadata of an order's defaults for a customer."""
    order_ref, customer_ref = _path_ref(call, "orderRef", "ORDER_REF"), _path_ref(call, "customerRef", "CUSTOMER_REF")
    part = call.route.path.rpartition("/")[2]
    old = await orders.get_customer_defaults(op, order_ref, customer_ref)
    if call.route.method == "DELETE":
        new = Defaults()
    elif part == "metadata":
        new = Defaults(metadata=read_metadata(call.body))
    else:
        new = read_defaults(call.body)
    merged = Defaults(
        new.financial_instrument_id if part == "financial-instrument" else old.financial_instrument_id,
        new.scheme_id if part == "scheme" else old.scheme_id,
        new.metadata if part == "metadata" else old.metadata,
    )
    await orders.put_customer_defaults(op, order_ref, customer_ref, merged if merged != Defaults() else None)
    return Reply(200)


async def add_instruction(op: Operation, call: Call) -> Reply:
    """POST an instruction to an order."""
    order_ref = _path_ref(call, "orderRef", "ORDER_REF")
    new = read_instruction(call.body)
    await instructions.add_instruction(op, order_ref, new)
    return Reply(201, _instruction_view(await instructions.get_instruction(op, order_ref, new.ref)))


async def read_instruction_route(op: Operation, call: Call) -> Reply:
    """GET an instruction."""
    order_ref = _path_ref(call, "orderRef", "ORDER_REF")
    ref = _path_ref(call, "instructionRef", "INSTRUCTION_REF")
    return Reply(200, _instruction_view(await instructions.get_instruction(op, order_ref, ref)))


async def change_instruction(op: Operation, call: Call) -> Reply:
    """PUT an instruction."""
    order_ref = _path_ref(call, "orderRef", "ORDER_REF")
    ref = _path_ref(call, "instructionRef", "INSTRUCTION_REF")
    await instructions.change_instruction(op, order_ref, ref, read_change(call.body))
    return Reply(200, _instruction_view(await instructions.get_instruction(op, order_ref, ref)))


async def read_transaction(op: Operation, call: Call) -> Reply:
    """GET a transaction by way of the customer's financial instrument."""
    customer_ref = _path_ref(call, "customerRef", "CUSTOMER_REF")
    instrument_id = parse_uuid(call.path["financialInstrumentId"])
    transaction_id = parse_uuid(call.path["transactionId"])
    if instrument_id is None or transaction_id is None:
        raise NotFound(Failure("TRANSACTION_NOT_FOUND", "The customer's financial instrument has no such transaction."))
    item = await instructions.get_of_transaction(op, customer_ref, instrument_id, transaction_id)
    if item.attempt is None:
        raise LookupError("found by its attempt, the instruction has one")
    return Reply(200, _transaction_view(item, item.attempt))


async def cancel_instruction(op: Operation, call: Call) -> Reply:
    """POST a cancellation."""
    order_ref = _path_ref(call, "orderRef", "ORDER_REF")
    ref = _path_ref(call, "instructionRef", "INSTRUCTION_REF")
    await instructions.cancel_instruction(op, order_ref, ref, read_reason(call.body))
    return Reply(200, _instruction_view(await instructions.get_instruction(op, order_ref, ref)))


def _path_ref(call: Call, name: str, code: str) -> str:
    failure = check_ref(call.path[name], code, name)
    if failure is not None:
        raise Invalid(failure)
    return call.path[name]


def _created(order: NewOrder) -> Reply:
    href = f"{_BASE}/{order.ref}"
    body = OrderCreated(OrderLinks(Href(href)), order.ref)
    return Reply(202 if order.instructions else 201, body, ((b"location", href.encode()),))


def _order_view(order: orders.Order) -> OrderView:
    return OrderView(
        links=OrderLinks(Href(f"{_BASE}/{order.ref}")),
        order_ref=order.ref,
        created=epoch_ms(order.created_at),
        last_updated=epoch_ms(order.updated_at),
        instructions=[_instruction_view(item) for item in order.instructions],
        metadata=dict(order.metadata),
        customer_defaults={
            ref: DefaultsView(_uuid_text(defaults.financial_instrument_id), defaults.scheme_id, dict(defaults.metadata))
            for ref, defaults in order.customer_defaults.items()
        },
    )


def _instruction_view(item: Instruction) -> InstructionView:
    attempt = item.attempt
    instrument_id = str(item.financial_instrument_id) if item.financial_instrument_id else None
    vault = f"/v1/customer-vault/{item.customer_ref}/financial-instrument/{instrument_id}"
    transactions: list[Href] = []
    if attempt is not None:
        transactions = [Href(f"{vault}/transaction/{attempt.transaction_id}", str(attempt.transaction_id))]
    settled = attempt is not None and attempt.status == "SUCCESS"
    return InstructionView(
        links=InstructionLinks(
            Href(f"{_BASE}/{item.order_ref}/instruction/{item.ref}"),
            [Href(vault, instrument_id)] if instrument_id else [],
            transactions,
        ),
        instruction_ref=item.ref,
        created=epoch_ms(item.created_at),
        last_updated=epoch_ms(item.updated_at),
        direction=item.direction,
        status=item.status,
        customer_ref=item.customer_ref,
        amount=item.money.decimal,
        currency=item.money.currency,
        country=item.country,
        settled_by_date=item.settled_by,
        forecasted_settlement_date=None if settled or item.status in {"CANCELLED", "FAILED"} else item.settled_by,
        actual_settlement_date=attempt.updated_at.date() if settled and attempt is not None else None,
        execution_timestamp=epoch_ms(attempt.created_at) if attempt is not None else None,
        financial_instrument=InstrumentChoice(instrument_id, item.financial_instrument_source, item.can_update, None),
        scheme=SchemeChoice(item.scheme_id, item.scheme_source, item.can_update),
        metadata=dict(item.metadata),
        transaction=None if attempt is None else _transaction_view(item, attempt),
    )


def _transaction_view(item: Instruction, attempt: Attempt) -> TransactionView:
    said = attempt.said
    return TransactionView(
        transaction_id=str(attempt.transaction_id),
        financial_instrument_id=str(item.financial_instrument_id) if item.financial_instrument_id else None,
        created_timestamp=epoch_ms(attempt.created_at),
        last_updated_timestamp=epoch_ms(attempt.updated_at),
        amount=item.money.decimal,
        net_amount=item.money.decimal,
        status=attempt.status,
        additional_information=" ".join(text for text in (said.reason, said.detail) if text) or None,
        app=AppReference(attempt.app_id, said.provider_reference or None, None, None),
        refunds=[],
        chargebacks=[],
    )


def _uuid_text(value: bytes | None) -> str | None:
    if value is None:
        return None
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _tenant(method: str, path: str, summary: str, permission: Permission, **more: Any) -> Route:
    return Route(
        method=method, path=path, summary=summary, tag="Orders", access=Access.TENANT, permission=permission, **more
    )


_READ, _WRITE = Permission.TRANSACTIONS_READ, Permission.TRANSACTIONS_WRITE
ROUTES: Sequence[Route] = (
    _tenant(
        "POST", _BASE, "Create an order", _WRITE, call=create_order, request=NewOrderRequest,
        replies={201: OrderCreated, 202: OrderCreated},
    ),
    _tenant("GET", _ORDER, "Read an order", _READ, operation=read_one, replies={200: OrderView}),
    _tenant(
        "POST", _ORDER + "/instruction", "Add an instruction", _WRITE, operation=add_instruction,
        request=NewInstructionRequest, replies={201: InstructionView},
    ),
    _tenant(
        "GET", _INSTRUCTION, "Read an instruction", _READ, operation=read_instruction_route,
        replies={200: InstructionView},
    ),
    _tenant(
        "PUT", _INSTRUCTION, "Change an instruction", _WRITE, operation=change_instruction,
        request=ChangeInstructionRequest,
        replies={200: InstructionView},
    ),
    _tenant(
        "POST", _INSTRUCTION + "/cancel", "Cancel an instruction", _WRITE, operation=cancel_instruction,
        request=CancelRequest, replies={200: InstructionView},
    ),
    _tenant(
        "GET", _TRANSACTION, "Read a transaction", _READ, operation=read_transaction, replies={200: TransactionView},
    ),
    _tenant(
        "PUT", _ORDER + "/metadata", "Replace an order's metadata", _WRITE, operation=put_metadata,
        request=MetadataRequest, replies={200: None},
    ),
    _tenant(
        "DELETE", _ORDER + "/metadata", "Remove an order's metadata", _WRITE, operation=delete_metadata,
        replies={200: None},
    ),
    _tenant(
        "PUT", _DEFAULTS, "Set a customer's defaults", _WRITE, operation=put_defaults, request=CustomerDefaultsRequest,
        replies={200: None},
    ),
    _tenant(
        "DELETE", _DEFAULTS, "Remove a customer's defaults", _WRITE, operation=delete_defaults, replies={200: None},
    ),
    *(
        _tenant(
            method, f"{_DEFAULTS}/{part}", f"{verb} a customer's default {part}", _WRITE, operation=put_one_default,
            request=body if method == "PUT" else None, replies={200: None},
        )
        for part, body in (
            ("financial-instrument", CustomerDefaultsRequest),
            ("scheme", CustomerDefaultsRequest),
            ("metadata", MetadataRequest),
        )
        for method, verb in (("PUT", "Set"), ("DELETE", "Remove"))
    ),
)  # fmt: skip
