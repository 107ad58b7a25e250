"""What the sealed columns hold. Written as MessagePack arrays: fields may be added at the end only, with a default."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final
from uuid import UUID

import msgspec

from strongroom.database import KeysChanged, Operation, Purpose
from strongroom.kernel.errors import Unavailable


class Sum(msgspec.Struct, array_like=True, frozen=True):
    """So many lines, with all that they took from the account and brought to it, in minor units."""

    count: int = 0
    debits: int = 0
    credits: int = 0

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.count + other.count, self.debits + other.debits, self.credits + other.credits)

    def __sub__(self, other: Sum) -> Sum:
        return Sum(self.count - other.count, self.debits - other.debits, self.credits - other.credits)

    @classmethod
    def of(cls, minor: int) -> Sum:
        """One line; negative `minor`: a debit."""
        return cls(1, max(-minor, 0), max(minor, 0))


class Remark(msgspec.Struct, array_like=True, frozen=True):
    """Something a person should know of a report that was taken in all the same. `values` fill the template."""

    code: str
    template: str
    values: dict[str, str | int] = {}

    @property
    def message(self) -> str:
        """The template with its values filled in."""
        return self.template.format_map(self.values)


class StatementContent(msgspec.Struct, array_like=True, frozen=True):
    """`statements.sealed` of a report. `file_id` is the row that keeps the bytes it came in; amounts in minor units.

    `lines` is what the report speaks of. Notifications and status reports keep no lines: they have neither balances nor
    breaks, and `matched` counts what they could say of payments of ours. `about` is the file a status report answers.
    """

    name: str
    file_id: bytes
    message_id: str
    created_at: datetime | None
    account: str = ""
    sequence: int | None = None
    currency: str = ""
    opening: int = 0
    opening_on: date | None = None
    closing: int = 0
    closing_on: date | None = None
    matched: Sum = Sum()
    breaks: Sum = Sum()
    not_booked: int = 0
    moved: int = 0
    remarks: list[Remark] = []
    about: str = ""


class LineContent(msgspec.Struct, array_like=True, frozen=True):
    """A line. `minor` is negative for a debit; `entry` counts the statement's entries from 1.

    `about` is the transaction (32 hexadecimal digits) that a break concerns, if it names one. In `statement_entries`
    all stands in `sealed` but for what tells the other party (`Party`): that is `sensitive`.
    """

    entry: int
    minor: int
    currency: str
    reason: str = ""
    reference: str = ""
    about: str = ""
    bank_reference: str = ""
    bank_transaction_code: str = ""
    value_on: date | None = None
    counterparty: str = ""
    counterparty_account: str = ""
    remittance: str = ""
    note: str = ""
    resolved_by: str = ""
    resolved_at: datetime | None = None


class Party(msgspec.Struct, array_like=True, frozen=True):
    """`statement_entries.sensitive`: who is on the other side, and what they wrote."""

    counterparty: str = ""
    counterparty_account: str = ""
    remittance: str = ""


MASK: Final = "****"
"""What stands for a party while the customer's key is away."""
_NOBODY: Final = Party()
encode: Final = msgspec.msgpack.Encoder().encode
decode_statement: Final = msgspec.msgpack.Decoder(StatementContent).decode
decode_line: Final = msgspec.msgpack.Decoder(LineContent).decode
_decode_party: Final = msgspec.msgpack.Decoder(Party).decode


def seal_statement(op: Operation, statement_id: UUID, content: StatementContent) -> bytes:
    """The envelope of a report."""
    return op.cipher.seal("statements", "sealed", statement_id.bytes, encode(content))


def open_statement(op: Operation, statement_id: UUID, sealed: bytes) -> StatementContent:
    """What a report's envelope holds."""
    return decode_statement(op.cipher.open("statements", "sealed", statement_id.bytes, sealed))


def seal_line(op: Operation, statement_id: UUID, entry_no: int, content: LineContent) -> tuple[bytes, bytes | None]:
    """The envelopes of a line, `sealed` and `sensitive`."""
    row = _row_id(statement_id, entry_no)
    shown, party = part_line(content)
    return (
        op.cipher.seal("statement_entries", "sealed", row, encode(shown)),
        None if party == _NOBODY else op.cipher.seal("statement_entries", "sensitive", row, encode(party)),
    )


def seal_shown(op: Operation, statement_id: UUID, entry_no: int, content: LineContent) -> bytes:
    """The envelope of what `open_shown` gave, changed."""
    return op.cipher.seal("statement_entries", "sealed", _row_id(statement_id, entry_no), encode(content))


def open_shown(op: Operation, statement_id: UUID, entry_no: int, sealed: bytes) -> LineContent:
    """A line without its party, for which the customer's key isn't needed."""
    return decode_line(op.cipher.open("statement_entries", "sealed", _row_id(statement_id, entry_no), sealed))


def with_party(
    op: Operation, statement_id: UUID, entry_no: int, content: LineContent, sensitive: bytes | None
) -> LineContent:
    """The same line with its party, in masks while the customer's key is away."""
    if sensitive is None:
        return content
    try:
        with op.opening(Purpose.RECONCILIATION):
            opened = op.cipher.open("statement_entries", "sensitive", _row_id(statement_id, entry_no), sensitive)
    except KeysChanged:
        raise
    except Unavailable:
        return msgspec.structs.replace(content, counterparty=MASK, counterparty_account=MASK, remittance=MASK)
    return msgspec.structs.replace(content, **msgspec.structs.asdict(_decode_party(opened)))


def open_line(op: Operation, statement_id: UUID, entry_no: int, sealed: bytes, sensitive: bytes | None) -> LineContent:
    """What a line's envelopes hold, its party in masks while the customer's key is away."""
    return with_party(op, statement_id, entry_no, open_shown(op, statement_id, entry_no, sealed), sensitive)


def part_line(content: LineContent) -> tuple[LineContent, Party]:
    """A line without its party, and the party."""
    party = Party(content.counterparty, content.counterparty_account, content.remittance)
    return msgspec.structs.replace(content, counterparty="", counterparty_account="", remittance=""), party


def split_line(content: bytes) -> tuple[bytes, bytes] | None:
    """What `statement_entries.sealed` held before there was `sensitive`, as both; None when there is no party."""
    shown, party = part_line(decode_line(content))
    return None if party == _NOBODY else (encode(shown), encode(party))


def split_document(content: bytes) -> tuple[bytes, bytes] | None:
    """The same for `statements`, of the rows that keep files."""
    return (b"", content) if content else None


def _row_id(statement_id: UUID, entry_no: int) -> bytes:
    return statement_id.bytes + entry_no.to_bytes(8, "big")
