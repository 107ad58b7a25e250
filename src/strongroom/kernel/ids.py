"""Typed identifiers."""

from __future__ import annotations

import os
import time
from typing import NewType
from uuid import UUID

AccountId = NewType("AccountId", UUID)
TenantId = NewType("TenantId", UUID)
ApiKeyId = NewType("ApiKeyId", UUID)
OrderId = NewType("OrderId", UUID)
InstructionId = NewType("InstructionId", UUID)
CustomerId = NewType("CustomerId", UUID)
FinancialInstrumentId = NewType("FinancialInstrumentId", UUID)
TransactionId = NewType("TransactionId", UUID)
DraftId = NewType("DraftId", UUID)
JobId = NewType("JobId", UUID)
FileId = NewType("FileId", UUID)
StatementId = NewType("StatementId", UUID)
PersonId = NewType("PersonId", UUID)
InvitationId = NewType("InvitationId", UUID)
SessionId = NewType("SessionId", UUID)
SchemeId = NewType("SchemeId", str)
"""32 upper-case hexadecimal digits."""
AppId = NewType("AppId", str)
"""A marketplace app's stable name, such as `simulator`."""


def new_uuid() -> UUID:
    """A version 7 UUID: 48 bits of Unix milliseconds, then 74 random bits (RFC 9562 section 5.7)."""
    return UUID(bytes=new_uuid_bytes())


def new_uuid_bytes() -> bytes:
    """The 16 bytes of a version 7 UUID, for hot paths that write bytes anyway."""
    stamp = time.time_ns() // 1_000_000
    tail = int.from_bytes(os.urandom(10), "big")
    value = (stamp & 0xFFFF_FFFF_FFFF) << 80 | tail
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return value.to_bytes(16, "big")


def new_uuid_text() -> str:
    """A version 7 UUID in its usual 36-character form."""
    text = new_uuid_bytes().hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_scheme_id() -> SchemeId:
    """A scheme's id in the wire contract's form: 32 upper-case hexadecimal digits."""
    return SchemeId(os.urandom(16).hex().upper())


def parse_uuid(text: object) -> UUID | None:
    """The UUID written in `text` in its usual 36-character form, or None."""
    if not isinstance(text, str) or len(text) != 36:
        return None
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text.lower() else None
