"""Banks' reports on a tenant's account, taken in: statements (camt.053), notifications (camt.054), and status reports
(pain.002, see `status_reports`).

A file is taken in whole or not at all, in one operation: what it says of transactions, its lines, the bytes it came in.
A statement is the account's book: all that it books becomes lines, each of them MATCHED or a BREAK. A notification
tells of the same bookings, earlier or in more detail, and has no balance to be checked against: it moves transactions,
but leaves no lines. So a booking told of twice counts once, by its statement, and a payment booked twice shows.

The same report again changes nothing; one of the same name that says something else is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import UUID

import msgspec

from strongroom.access import Permission, require
from strongroom.audit import record
from strongroom.database import Operation, Purpose, pack_bytes, pack_dates, pack_texts, pack_uuids
from strongroom.kernel.errors import Conflict, Failure, Invalid, NotFound, Refused
from strongroom.kernel.ids import StatementId, new_uuid, parse_uuid
from strongroom.payments.apps import find_paying_accounts
from strongroom.payments.openings import count_opening
from strongroom.payments.transactions import apply_outcomes
from strongroom.rails.contract import Outcome
from strongroom.rails.formats import accounts, camt, pain002
from strongroom.reconciliation import status_reports
from strongroom.reconciliation.contents import (
    LineContent,
    Remark,
    StatementContent,
    Sum,
    open_line,
    open_statement,
    seal_line,
    seal_statement,
)
from strongroom.reconciliation.knowledge import find_knowledge, hold_reports
from strongroom.reconciliation.matching import Line, Role, match, named

STATEMENT: Final = "STATEMENT"
NOTIFICATION: Final = "NOTIFICATION"
STATUS_REPORT: Final = "STATUS_REPORT"
FILE: Final = "FILE"
"""Kinds of rows: three kinds of reports, and the files that they came in."""
MAX_REPORT_BYTES: Final = 64 * 1024 * 1024
"""Largest file that is taken in."""
MAX_PAGE: Final = 1000
"""Most statements, or lines, in one page."""
RECENT: Final = 12
"""How many earlier statements of a tenant are looked at for a gap in an account's numbers."""

_CHUNK: Final = 5_000
_LOOKED_AT: Final = 4_096
_NAMESPACE: Final = re.compile(rb"urn:iso:std:iso:20022:tech:xsd:(camt\.053|camt\.054|pain\.002)\.001\.[0-9]{2}")
_Booked = camt.Statement | camt.Notification


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A file from a bank, read and found sound in itself; not yet taken in."""

    document: bytes
    """Compressed."""
    digest: str
    statements: tuple[camt.Statement, ...] = ()
    notifications: tuple[camt.Notification, ...] = ()
    status: pain002.StatusReport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of one report in a file. `is_new` is False when it was there already; then nothing was changed.

    `moved` counts transactions that came to another state.
    """

    statement_id: StatementId
    kind: str
    is_new: bool
    content: StatementContent


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStatement:
    """A report as it was taken in."""

    statement_id: StatementId
    kind: str
    imported_at: datetime
    content: StatementContent


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLine:
    """A statement's line as it stands. `state` is MATCHED, BREAK or RESOLVED."""

    statement_id: StatementId
    entry_no: int
    state: str
    role: str
    transaction_id: UUID | None
    booked_on: date
    content: LineContent


def read_report(document: bytes) -> Report:
    """Read a file from a bank; the kind of message is told by its namespace.

    Raises errors.Invalid (`REPORT_NOT_RECOGNISED`) and what the readers raise: errors.TooLarge, errors.Invalid such as
    `STATEMENT_BALANCE_BROKEN` (see `rails.formats.camt` and `rails.formats.pain002`).
    """
    found = _NAMESPACE.search(document[:_LOOKED_AT])
    if found is None:
        raise Invalid(
            Failure(
                "REPORT_NOT_RECOGNISED",
                "This is none of the reports that are read: account statements (camt.053), notifications (camt.054) "
                "and payment status reports (pain.002) of ISO 20022, in XML.",
            )
        )
    kind = found[1]
    return Report(
        document=zlib.compress(document, 6),
        digest=hashlib.sha256(document).hexdigest(),
        statements=camt.read_statements(document) if kind == b"camt.053" else (),
        notifications=camt.read_notifications(document) if kind == b"camt.054" else (),
        status=pain002.read(document) if kind == b"pain.002" else None,
    )


async def import_report(op: Operation, report: Report) -> Sequence[Imported]:
    """Take a report in: one answer for each statement in the file, in its order.

    Raises errors.Refused (`STATEMENT_OF_ANOTHER_ACCOUNT`, `STATEMENT_DIFFERS`, `REPORT_OF_UNKNOWN_FILE`) when any part
    of it can't be taken in; then nothing of it is.
    """
    require(op, Permission.TRANSACTIONS_WRITE)
    await hold_reports(op)
    file_id = new_uuid()
    taken: list[Imported] = []
    if report.status is not None:
        taken.append(await _take_status_report(op, report.status, file_id))
    booked: tuple[_Booked, ...] = (*report.statements, *report.notifications)
    if booked:
        await _check_accounts(op, booked)
    for part in booked:
        taken.append(await _take(op, part, file_id))
    if any(part.is_new for part in taken):
        sealed = op.cipher.seal("statements", "sealed", file_id.bytes, b"")
        document = op.cipher.seal("statements", "sensitive", file_id.bytes, report.document)
        identity = f"{FILE}\n{file_id}"
        await _insert(op, file_id, FILE, identity=identity, digest=report.digest, sealed=sealed, sensitive=document)
    return taken


async def list_statements(
    op: Operation, *, after: StatementId | None = None, take: int = 100
) -> Sequence[KeptStatement]:
    """The reports that were taken in, newest first; `after` is the last one of the page before."""
    require(op, Permission.TRANSACTIONS_READ)
    rows = await op.rows(
        "select statement_id, kind, imported_at, sealed from statements "
        "where tenant_id = %s and kind <> %s and (%s::uuid is null or statement_id < %s) "
        "order by statement_id desc limit %s",
        op.tenant,
        FILE,
        after,
        after,
        take,
    )
    return [
        KeptStatement(
            statement_id=StatementId(row[0]),
            kind=row[1],
            imported_at=row[2],
            content=open_statement(op, row[0], row[3]),
        )
        for row in rows
    ]


async def get_statement(op: Operation, statement_id: str) -> KeptStatement:
    """One report. Raises errors.NotFound (`STATEMENT_NOT_FOUND`)."""
    require(op, Permission.TRANSACTIONS_READ)
    wanted = parse_uuid(statement_id)
    row = None
    if wanted is not None:
        row = await op.row(
            "select kind, imported_at, sealed from statements "
            "where tenant_id = %s and statement_id = %s and kind <> %s",
            op.tenant,
            wanted,
            FILE,
        )
    if wanted is None or row is None:
        raise statement_not_found()
    return KeptStatement(
        statement_id=StatementId(wanted), kind=row[0], imported_at=row[1], content=open_statement(op, wanted, row[2])
    )


async def list_lines(
    op: Operation, statement_id: StatementId, *, after: int = 0, take: int = 100
) -> Sequence[KeptLine]:
    """A statement's lines in order, from the one after `after`."""
    require(op, Permission.TRANSACTIONS_READ)
    rows = await op.rows(
        "select entry_no, state, role, transaction_id, booked_on, sealed, sensitive from statement_entries "
        "where tenant_id = %s and statement_id = %s and entry_no > %s order by entry_no limit %s",
        op.tenant,
        statement_id,
        after,
        take,
    )
    return [
        KeptLine(
            statement_id=statement_id,
            entry_no=entry_no,
            state=state,
            role=role,
            transaction_id=transaction_id,
            booked_on=booked_on,
            content=open_line(op, statement_id, entry_no, sealed, sensitive),
        )
        for entry_no, state, role, transaction_id, booked_on, sealed, sensitive in rows
    ]


async def read_document(op: Operation, statement: KeptStatement) -> bytes:
    """The file that a report came in, byte for byte: an opening, since it tells the other parties in clear.

    Raises errors.Forbidden, errors.TooOften (see `payments.openings`) and errors.Unavailable (`KEY_UNAVAILABLE`).
    """
    require(op, Permission.TRANSACTIONS_READ)
    require(op, Permission.CUSTOMERS_OPEN)
    row = await op.row(
        "select sealed, sensitive from statements where tenant_id = %s and statement_id = %s",
        op.tenant,
        UUID(bytes=statement.content.file_id),
    )
    if row is None:
        raise statement_not_found()
    sealed, sensitive = row
    column, envelope = ("sealed", sealed) if sensitive is None else ("sensitive", sensitive)
    await count_opening(
        op, "statement", statement.statement_id, ["document"], purpose=Purpose.RECONCILIATION, reason=""
    )
    with op.opening(Purpose.RECONCILIATION):
        return zlib.decompress(op.cipher.open("statements", column, statement.content.file_id, envelope))


def statement_not_found() -> NotFound:
    """The refusal when there is no such report."""
    return NotFound(Failure("STATEMENT_NOT_FOUND", "There is no such statement in this tenant."))


async def _check_accounts(op: Operation, booked: Iterable[_Booked]) -> None:
    """Nothing of a file is taken in unless every account in it is one that this tenant pays from."""
    ours = await find_paying_accounts(op)
    if any(accounts.find_iban(part.account.iban) not in ours for part in booked):
        raise Refused(
            Failure(
                "STATEMENT_OF_ANOTHER_ACCOUNT",
                "The file holds a statement of an account that this tenant doesn't pay from. Send it to the tenant "
                "whose app is configured with that IBAN, or configure the app; nothing of the file was taken in.",
            )
        )


async def _take(op: Operation, part: _Booked, file_id: UUID) -> Imported:
    """Match one statement or notification, and keep it, unless it was taken in before."""
    is_statement = isinstance(part, camt.Statement)
    kind = STATEMENT if is_statement else NOTIFICATION
    identity, digest = _identity(kind, part), await asyncio.to_thread(_digest, part)
    if (seen := await _find_seen(op, identity, digest, part.id)) is not None:
        return seen
    # Others wait for this process meanwhile: what takes seconds for a long report is done beside it.
    names = await asyncio.to_thread(named, part.entries)
    knowledge = await find_knowledge(op, names, with_seen=is_statement)
    lines = await asyncio.to_thread(match, part.entries, knowledge)
    moved = sum(await apply_outcomes(op, _outcomes(lines)))
    statement_id = StatementId(new_uuid())
    content = _content(part, file_id, lines, moved)
    if isinstance(part, camt.Statement):
        content = _with_balances(content, part, await _remarks_on_series(op, part))
    sealed = seal_statement(op, statement_id, content)
    await _insert(op, statement_id, kind, identity=identity, digest=digest, sealed=sealed)
    if isinstance(part, camt.Statement):
        await _insert_lines(op, statement_id, part, lines)
    await _record(op, statement_id, kind, content)
    return Imported(statement_id=statement_id, kind=kind, is_new=True, content=content)


async def _take_status_report(op: Operation, report: pain002.StatusReport, file_id: UUID) -> Imported:
    identity = f"{STATUS_REPORT}\n{report.original_message_id}\n{report.message_id}"
    digest = hashlib.sha256(msgspec.msgpack.encode((report.status, report.reasons, report.batches))).hexdigest()
    if (seen := await _find_seen(op, identity, digest, report.message_id)) is not None:
        return seen
    statement_id = StatementId(new_uuid())
    content = await status_reports.apply(op, report, file_id)
    sealed = seal_statement(op, statement_id, content)
    await _insert(op, statement_id, STATUS_REPORT, identity=identity, digest=digest, sealed=sealed)
    await _record(op, statement_id, STATUS_REPORT, content)
    return Imported(statement_id=statement_id, kind=STATUS_REPORT, is_new=True, content=content)


def _identity(kind: str, part: _Booked) -> str:
    """What makes a report itself. A page of a longer statement is told from the others by where its balance begins."""
    page = ""
    if isinstance(part, camt.Statement) and part.opening.code == "ITBD":
        page = str(part.opening.money.minor)
    return "\n".join((kind, part.account.iban, part.id, str(part.sequence), page))


def _digest(part: _Booked) -> str:
    """What a report says of money; a copy that the bank marks or dates as one says the same."""
    balances: tuple[tuple[int, str], ...] = ()
    if isinstance(part, camt.Statement):
        balances = tuple((balance.money.minor, balance.money.currency) for balance in (part.opening, part.closing))
    entries = [
        (
            entry.signed.minor,
            entry.money.currency,
            entry.status,
            entry.booked_on,
            entry.bank_reference,
            [
                (
                    detail.end_to_end_id,
                    detail.instruction_id,
                    detail.batch_id,
                    detail.return_reason,
                    detail.is_credit,
                    detail.money and (detail.money.minor, detail.money.currency),
                )
                for detail in entry.details
            ],
        )
        for entry in part.entries
    ]
    return hashlib.sha256(msgspec.msgpack.encode((balances, entries))).hexdigest()


async def _find_seen(op: Operation, identity: str, digest: str, name: str) -> Imported | None:
    """The report of this identity if it was taken in before. Raises errors.Conflict when it said something else."""
    row = await op.row(
        "select statement_id, kind, content_hash, sealed from statements where tenant_id = %s and identity_hash = %s",
        op.tenant,
        op.cipher.index("statements", "identity_hash", identity),
    )
    if row is None:
        return None
    statement_id, kind, content_hash, sealed = row
    if content_hash != op.cipher.index("statements", "content_hash", digest):
        raise Conflict(
            Failure(
                "STATEMENT_DIFFERS",
                "A report {name} was taken in before as {statementId} and said something else. Nothing of this file "
                "was taken in; ask the bank which of the two is right.",
                {"name": name, "statementId": str(statement_id)},
            )
        )
    return Imported(
        statement_id=statement_id, kind=kind, is_new=False, content=open_statement(op, statement_id, sealed)
    )


def _outcomes(lines: Iterable[Line]) -> list[tuple[UUID, Outcome]]:
    """What the lines say of transactions, executions first: money comes back after it went."""
    ordered = sorted(lines, key=lambda line: line.role is Role.RETURN)
    return [(line.transaction_id, line.outcome) for line in ordered if line.transaction_id and line.outcome]


def _content(part: _Booked, file_id: UUID, lines: Sequence[Line], moved: int) -> StatementContent:
    matched, breaks = Sum(), Sum()
    for line in lines:
        if line.transaction_id is not None:
            matched += Sum.of(line.money.minor)
        else:
            breaks += Sum.of(line.money.minor)
    remarks = []
    if isinstance(part, camt.Notification) and breaks.count:
        remarks.append(
            Remark(
                "NOT_MATCHED",
                "{count} of its lines match no payment; the account's statement will show them as breaks.",
                {"count": breaks.count},
            )
        )
        breaks = Sum()
    return StatementContent(
        name=part.id,
        file_id=file_id.bytes,
        message_id=part.message_id,
        created_at=part.created_at,
        account=part.account.iban,
        sequence=part.sequence,
        currency=part.entries[0].money.currency if part.entries else "",
        matched=matched,
        breaks=breaks,
        not_booked=sum(entry.status is not camt.EntryStatus.BOOKED for entry in part.entries),
        moved=moved,
        remarks=remarks,
    )


def _with_balances(content: StatementContent, statement: camt.Statement, remarks: Sequence[Remark]) -> StatementContent:
    return msgspec.structs.replace(
        content,
        currency=statement.opening.money.currency,
        opening=statement.opening.money.minor,
        opening_on=statement.opening.on,
        closing=statement.closing.money.minor,
        closing_on=statement.closing.on,
        remarks=[*content.remarks, *remarks],
    )


async def _remarks_on_series(op: Operation, statement: camt.Statement) -> list[Remark]:
    """Whether statements seem to be missing before this one, by the bank's numbers (which may start again each year),
    and whether it goes on from the balance where the one before ended."""
    if statement.sequence is None:
        return []
    rows = await op.rows(
        "select statement_id, sealed from statements where tenant_id = %s and kind = %s "
        "order by statement_id desc limit %s",
        op.tenant,
        STATEMENT,
        RECENT,
    )
    contents = (open_statement(op, statement_id, sealed) for statement_id, sealed in rows)
    earlier = {
        content.sequence: content
        for content in contents
        if content.account == statement.account.iban and content.sequence and content.sequence < statement.sequence
    }
    if not earlier:
        return []
    last = earlier[max(earlier)]
    if last.sequence != statement.sequence - 1:
        return [
            Remark(
                "STATEMENTS_MISSING",
                "The last statement of this account before it has the number {last}, this one {sequence}: ask the bank "
                "for those in between.",
                {"last": max(earlier), "sequence": statement.sequence},
            )
        ]
    if last.closing != statement.opening.money.minor:
        return [
            Remark(
                "BALANCE_NOT_CARRIED_OVER",
                "It doesn't begin with the balance with which number {last} ended: ask the bank.",
                {"last": max(earlier)},
            )
        ]
    return []


async def _insert(
    op: Operation,
    statement_id: UUID,
    kind: str,
    *,
    identity: str,
    digest: str,
    sealed: bytes,
    sensitive: bytes | None = None,
) -> None:
    await op.run(
        "insert into statements (tenant_id, statement_id, content_hash, identity_hash, kind, sealed, sensitive, "
        "imported_at) values (%s, %s, %s, %s, %s, %s, %s, %s)",
        op.tenant,
        statement_id,
        op.cipher.index("statements", "content_hash", digest),
        op.cipher.index("statements", "identity_hash", identity),
        kind,
        sealed,
        sensitive,
        op.now,
    )


async def _insert_lines(
    op: Operation, statement_id: StatementId, statement: camt.Statement, lines: Sequence[Line]
) -> None:
    for start in range(0, len(lines), _CHUNK):
        chunk = lines[start : start + _CHUNK]
        envelopes = [
            seal_line(op, statement_id, number, _line_content(line)) for number, line in enumerate(chunk, start + 1)
        ]
        await op.run(
            """
            insert into statement_entries
                (tenant_id, statement_id, entry_no, state, transaction_id, role, booked_on, sealed, sensitive)
            select %s, %s, %s + n::integer, state, transaction_id, role, booked_on, sealed, nullif(sensitive, '')
            from unnest(%s, %s, %s, %s, %s, %s) with ordinality
                 as t(state, transaction_id, role, booked_on, sealed, sensitive, n)
            """,
            op.tenant,
            statement_id,
            start,
            pack_texts(["BREAK" if line.transaction_id is None else "MATCHED" for line in chunk]),
            pack_uuids([line.transaction_id.bytes if line.transaction_id else None for line in chunk]),
            pack_texts([line.role for line in chunk]),
            pack_dates([line.entry.booked_on or statement.closing.on for line in chunk]),
            pack_bytes([sealed for sealed, _ in envelopes]),
            pack_bytes([sensitive or b"" for _, sensitive in envelopes]),
        )


def _line_content(line: Line) -> LineContent:
    entry, detail = line.entry, line.detail
    return LineContent(
        entry=line.position,
        minor=line.money.minor,
        currency=line.money.currency,
        reason=line.reason or "",
        reference=line.reference or (detail.end_to_end_id if detail else ""),
        about=line.about.hex if line.about else "",
        bank_reference=(detail.bank_reference if detail else "") or entry.bank_reference,
        bank_transaction_code=entry.bank_transaction_code,
        value_on=entry.value_on,
        counterparty=detail.counterparty.holder if detail else "",
        counterparty_account=(detail.counterparty.iban or detail.counterparty.number) if detail else "",
        remittance=detail.remittance if detail else entry.additional_information,
    )


async def _record(op: Operation, statement_id: StatementId, kind: str, content: StatementContent) -> None:
    detail = f"kind={kind} matched={content.matched.count} breaks={content.breaks.count} moved={content.moved}"
    await record(op, "statement.import", "statement", statement_id, detail=detail)
