"""What the sealed columns hold, and what comes in: values of the hot path.

Structs are msgspec's because they are made by the thousand in every second; sealed ones are written as MessagePack
arrays, so fields may be added at the end only, with a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Final

import msgspec

from strongroom.database import Operation

MAX_METADATA_KEYS: Final = 50


class OrderContent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`orders.sealed`."""

    ref: str
    metadata: dict[str, str]


class InstructionContent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`instructions.sealed`. `minor` counts the currency's minor units."""

    order_ref: str
    ref: str
    customer_ref: str
    minor: int
    metadata: dict[str, str]
    cancel_reason: str = ""


class Defaults(msgspec.Struct, frozen=True, gc=False):
    """What an order says for all instructions of one customer."""

    financial_instrument_id: bytes | None = None
    scheme_id: str | None = None
    metadata: Mapping[str, str] = {}


class NewInstruction(msgspec.Struct, frozen=True, gc=False):
    """An instruction as asked for, valid in itself."""

    ref: str
    customer_ref: str
    direction: str
    minor: int
    currency: str
    country: str
    settled_by: date
    scheme_id: str | None = None
    financial_instrument_id: bytes | None = None
    metadata: dict[str, str] = {}


class NewOrder(msgspec.Struct, frozen=True, gc=False):
    """An order as asked for, valid in itself; instruction refs are unique."""

    ref: str
    instructions: list[NewInstruction]
    metadata: dict[str, str] = {}
    customer_defaults: Mapping[str, Defaults] = {}


encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(OrderContent).decode
decode_instruction = msgspec.msgpack.Decoder(InstructionContent).decode


def order_id_of(op: Operation, ref: str) -> bytes:
    """An order's 16-byte id: the tenant's keyed hash of its reference."""
    return op.cipher.index("orders", "order_id", ref)


def instruction_id_of(op: Operation, order_ref: str, ref: str) -> bytes:
    """An instruction's 16-byte id: the keyed hash of both references (neither can hold a slash)."""
    return op.cipher.index("instructions", "instruction_id", f"{order_ref}/{ref}")
