"""Reconciliation over the wire: sending in a bank's reports, reading what they said, resolving breaks.

Not in the public API that the contract follows; all of it is ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

from strongroom.access import Permission
from strongroom.api import idempotency
from strongroom.api.reading import Collector, read_object
from strongroom.api.routing import Access, Call, Reply, Route
from strongroom.database import Operation
from strongroom.kernel.errors import Failure, Invalid, NotFound, TooLarge, UnsupportedMedia
from strongroom.kernel.ids import StatementId, TransactionId, parse_uuid
from strongroom.kernel.money import Money
from strongroom.reconciliation import (
    MAX_REPORT_BYTES,
    Imported,
    KeptLine,
    KeptStatement,
    Missing,
    ReportReader,
    get_statement,
    import_report,
    list_breaks,
    list_lines,
    list_missing,
    list_statements,
    read_document,
    resolve_break,
    summarise,
)
from strongroom.reconciliation.breaks import MAX_ENTRY_NO, MAX_NOTE, MISSING_FROM_STATEMENTS
from strongroom.reconciliation.contents import StatementContent, Sum

DEFAULT_TAKE: Final = 100
MAX_TAKE: Final = 1000
REPORT_WITHIN_S: Final = 180.0
"""How long a report may take to come in; it holds one of few places."""
_MEDIA: Final = frozenset({"application/xml", "text/xml", ""})
_STATES: Final = ("OPEN", "RESOLVED", "MISSING")


class RemarkBody(msgspec.Struct, rename="camel"):
    """Something to know of a report that was taken in all the same."""

    code: str
    message: str


class SumBody(msgspec.Struct, rename="camel"):
    """So many lines, and what they took from the account and brought to it."""

    count: int
    debits: Decimal
    credits: Decimal


class StatementBody(msgspec.Struct, rename="camel"):
    """A report as it was taken in. `kind` is STATEMENT (camt.053), NOTIFICATION (camt.054) or STATUS_REPORT (pain.002).

    `name` is the bank's own id of it, `account` the last four characters of the IBAN. Only statements have balances and
    breaks. `moved` counts payments that came to another state by it.
    """

    statement_id: UUID
    kind: str
    name: str
    account: str | None
    sequence: int | None
    imported_on: datetime | None
    currency: str | None
    opening_balance: Decimal | None
    opening_date: date | None
    closing_balance: Decimal | None
    closing_date: date | None
    matched: SumBody
    breaks: SumBody
    not_booked: int
    moved: int
    remarks: list[RemarkBody]


class ReportBody(StatementBody, rename="camel", kw_only=True):
    """What became of one report of a file: `outcome` is IMPORTED, or SEEN_BEFORE when nothing was changed."""

    outcome: str


class ReportsBody(msgspec.Struct, rename="camel"):
    """What became of a file."""

    reports: list[ReportBody]


class StatementsBody(msgspec.Struct, rename="camel"):
    """A page of reports, newest first; `cursor` is for the next one, null at the end."""

    statements: list[StatementBody]
    cursor: str | None


class LineBody(msgspec.Struct, rename="camel"):
    """A statement's line. `amount` is negative for a debit; `state` is MATCHED, BREAK or RESOLVED.

    A break has a `reason`, and names in `about` the transaction that it concerns, if there is one.
    """

    entry_no: int
    state: str
    role: str
    amount: Decimal
    currency: str
    booked_date: date
    value_date: date | None
    transaction_id: UUID | None
    reason: str | None
    about: UUID | None
    reference: str | None
    bank_reference: str | None
    bank_transaction_code: str | None
    note: str | None


class StatementDetailBody(StatementBody, rename="camel", kw_only=True):
    """A report with a page of its lines; `cursor` is for the next page, null at the end."""

    lines: list[LineBody]
    cursor: str | None


class BreakBody(LineBody, rename="camel", kw_only=True):
    """A break, and how long it has stood."""

    statement_id: UUID
    age_days: int
    resolved_on: datetime | None
    resolved_by: str | None


class MissingBody(msgspec.Struct, rename="camel"):
    """A payment that no statement shows, though the bank was to execute it on `dueDate`."""

    transaction_id: UUID
    order_ref: str
    instruction_ref: str
    amount: Decimal
    currency: str
    status: str
    due_date: date
    age_days: int
    reason: str


class BreaksBody(msgspec.Struct, rename="camel"):
    """A page of breaks, or of missing payments; `cursor` is for the next one, null at the end."""

    breaks: list[BreakBody]
    missing: list[MissingBody]
    cursor: str | None


class CurrencyBody(msgspec.Struct, rename="camel"):
    """One currency's figures over all statements."""

    currency: str
    matched: SumBody
    open_breaks: SumBody
    resolved_breaks: SumBody
    missing: SumBody


class SummaryBody(msgspec.Struct, rename="camel"):
    """What has been reconciled, and what hasn't."""

    currencies: list[CurrencyBody]


class ResolutionRequest(msgspec.Struct, rename="camel"):
    """How a break was resolved, in words."""

    note: str


async def _receive(call: Call) -> Reply:
    """POST a bank's report; 201 when anything of it is new, 200 when all of it was there already."""
    media = call.header("content-type").partition(";")[0].strip().lower()
    if media not in _MEDIA:
        raise UnsupportedMedia(
            Failure("MEDIA_TYPE_NOT_SUPPORTED", "Send application/xml, not {media}.", {"media": media[:100]})
        )
    reader: ReportReader = call.services.part(ReportReader)
    assert call.actor.tenant_id is not None  # noqa: S101  # the route is a tenant's
    with reader.place(call.actor.tenant_id):
        call.body = await _read_all(call)
        report = await reader.read(call.body)

        async def take_in(op: Operation, _: Call) -> Reply:
            imported = await import_report(op, report)
            is_new = any(part.is_new for part in imported)
            return Reply(201 if is_new else 200, ReportsBody(reports=[_report(part) for part in imported]))

        return await call.run(lambda op: idempotency.once(op, call, take_in))


async def _list_statements(op: Operation, call: Call) -> Reply:
    found = Collector()
    take = _take(found, call)
    cursor = found.uuid(call.query, "cursor", "CURSOR", required=False)
    found.check()
    statements = await list_statements(op, after=StatementId(cursor) if cursor else None, take=take + 1)
    page = statements[:take]
    following = str(page[-1].statement_id) if len(statements) > take else None
    return Reply(200, StatementsBody(statements=[_statement(statement) for statement in page], cursor=following))


async def _get_statement(op: Operation, call: Call) -> Reply:
    found = Collector()
    take = _take(found, call)
    after = _number(found, call.query.get("cursor") or "0")
    found.check()
    statement = await get_statement(op, call.path["statementId"])
    lines = await list_lines(op, statement.statement_id, after=after, take=take + 1)
    page = lines[:take]
    body = StatementDetailBody(
        **_fields(statement.statement_id, statement.kind, statement.content, statement.imported_at),
        lines=[LineBody(**_line_fields(line)) for line in page],
        cursor=str(page[-1].entry_no) if len(lines) > take else None,
    )
    return Reply(200, body)


async def _get_document(op: Operation, call: Call) -> Reply:
    statement = await get_statement(op, call.path["statementId"])
    return Reply(200, content=await read_document(op, statement), media=b"application/xml")


async def _list_breaks(op: Operation, call: Call) -> Reply:
    found = Collector()
    take = _take(found, call)
    state = found.choice(call.query, "state", "STATE", _STATES, required=False) or "OPEN"
    cursor = call.query.get("cursor", "")
    if state == "MISSING":
        last = found.uuid(call.query, "cursor", "CURSOR", required=False)
        found.check()
        missing = await list_missing(op, after=TransactionId(last) if last else None, take=take + 1)
        following = str(missing[take - 1].transaction_id) if len(missing) > take else None
        return Reply(
            200, BreaksBody(breaks=[], missing=[_missing(payment) for payment in missing[:take]], cursor=following)
        )
    after = _break_cursor(found, cursor)
    found.check()
    breaks = await list_breaks(op, state="BREAK" if state == "OPEN" else state, after=after, take=take + 1)
    page = breaks[:take]
    following = f"{page[-1].statement_id}.{page[-1].entry_no}" if len(breaks) > take else None
    return Reply(200, BreaksBody(breaks=[_break(op, line) for line in page], missing=[], cursor=following))


async def _resolve(op: Operation, call: Call) -> Reply:
    found = Collector()
    note = found.text(read_object(call.body), "note", "NOTE", max_length=MAX_NOTE)
    found.check()
    number = call.path["entryNo"]
    if not _is_number(number):
        raise NotFound(Failure("BREAK_NOT_FOUND", "There is no such break in this tenant."))
    return Reply(200, _break(op, await resolve_break(op, call.path["statementId"], int(number), note)))


async def _summarise(op: Operation, _: Call) -> Reply:
    currencies = [
        CurrencyBody(
            currency=summary.currency,
            matched=_sum(summary.matched, summary.currency),
            open_breaks=_sum(summary.open_breaks, summary.currency),
            resolved_breaks=_sum(summary.resolved, summary.currency),
            missing=_sum(summary.missing, summary.currency),
        )
        for summary in await summarise(op)
    ]
    return Reply(200, SummaryBody(currencies=currencies))


async def _read_all(call: Call) -> bytes:
    """The streamed body, as far as the largest report that is read, if it comes in time."""
    assert call.chunks is not None  # noqa: S101  # the route streams
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(REPORT_WITHIN_S):
            while (chunk := await call.chunks()) is not None:
                size += len(chunk)
                if size > MAX_REPORT_BYTES:
                    raise TooLarge(
                        Failure("REQUEST_TOO_LARGE", "A report has at most {limit} bytes.", {"limit": MAX_REPORT_BYTES})
                    )
                parts.append(chunk)
    except TimeoutError:
        raise Invalid(
            Failure(
                "REQUEST_TOO_SLOW",
                "The report didn't come within {whole} seconds. Split it, or send it over a faster line.",
                {"whole": int(REPORT_WITHIN_S)},
            )
        ) from None
    return b"".join(parts)


def _take(found: Collector, call: Call) -> int:
    given = call.query.get("take") or str(DEFAULT_TAKE)
    if _is_number(given) and 1 <= int(given) <= MAX_TAKE:
        return int(given)
    found.add("TAKE_OUT_OF_RANGE", "take must be a whole number from 1 to {limit}.", limit=MAX_TAKE)
    return DEFAULT_TAKE


def _number(found: Collector, given: str) -> int:
    if _is_number(given):
        return int(given)
    found.add("CURSOR_IS_INVALID", "cursor must be one that an earlier page gave.")
    return 0


def _break_cursor(found: Collector, given: str) -> tuple[StatementId, int] | None:
    if not given:
        return None
    statement_id, _, number = given.partition(".")
    parsed = parse_uuid(statement_id)
    if parsed is None:
        found.add("CURSOR_IS_INVALID", "cursor must be one that an earlier page gave.")
        return None
    return StatementId(parsed), _number(found, number)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_ENTRY_NO


def _report(part: Imported) -> ReportBody:
    outcome = "IMPORTED" if part.is_new else "SEEN_BEFORE"
    return ReportBody(**_fields(part.statement_id, part.kind, part.content, None), outcome=outcome)


def _statement(statement: KeptStatement) -> StatementBody:
    return StatementBody(**_fields(statement.statement_id, statement.kind, statement.content, statement.imported_at))


def _fields(statement_id: UUID, kind: str, content: StatementContent, imported_on: datetime | None) -> dict[str, Any]:
    return {
        "statement_id": statement_id,
        "kind": kind,
        "name": content.name,
        "account": content.account[-4:] or None,
        "sequence": content.sequence,
        "imported_on": imported_on,
        "currency": content.currency or None,
        "opening_balance": Money(content.opening, content.currency).decimal if content.opening_on else None,
        "opening_date": content.opening_on,
        "closing_balance": Money(content.closing, content.currency).decimal if content.closing_on else None,
        "closing_date": content.closing_on,
        "matched": _sum(content.matched, content.currency),
        "breaks": _sum(content.breaks, content.currency),
        "not_booked": content.not_booked,
        "moved": content.moved,
        "remarks": [RemarkBody(code=remark.code, message=remark.message) for remark in content.remarks],
    }


def _line_fields(line: KeptLine) -> dict[str, Any]:
    content = line.content
    return {
        "entry_no": line.entry_no,
        "state": line.state,
        "role": line.role,
        "amount": Money(content.minor, content.currency).decimal,
        "currency": content.currency,
        "booked_date": line.booked_on,
        "value_date": content.value_on,
        "transaction_id": line.transaction_id,
        "reason": content.reason or None,
        "about": UUID(content.about) if content.about else None,
        "reference": content.reference or None,
        "bank_reference": content.bank_reference or None,
        "bank_transaction_code": content.bank_transaction_code or None,
        "note": content.note or None,
    }


def _break(op: Operation, line: KeptLine) -> BreakBody:
    content = line.content
    until = content.resolved_at.date() if content.resolved_at else op.today
    return BreakBody(
        **_line_fields(line),
        statement_id=line.statement_id,
        age_days=max((until - line.booked_on).days, 0),
        resolved_on=content.resolved_at,
        resolved_by=content.resolved_by or None,
    )


def _missing(payment: Missing) -> MissingBody:
    return MissingBody(
        transaction_id=payment.transaction_id,
        order_ref=payment.order_ref,
        instruction_ref=payment.instruction_ref,
        amount=payment.money.decimal,
        currency=payment.money.currency,
        status=payment.status,
        due_date=payment.due_on,
        age_days=payment.days,
        reason=MISSING_FROM_STATEMENTS,
    )


def _sum(total: Sum, currency: str) -> SumBody:
    """A sum in major units; without a currency nothing was counted."""
    if not currency:
        return SumBody(count=total.count, debits=Decimal(0), credits=Decimal(0))
    return SumBody(
        count=total.count,
        debits=Money(total.debits, currency).decimal,
        credits=Money(total.credits, currency).decimal,
    )


_PATH: Final = "/v1/reconciliation"
_PAGING: Final = {
    "cursor": "The `cursor` of the page before.",
    "take": f"How many (1–{MAX_TAKE}, {DEFAULT_TAKE} when left out).",
}

ROUTES: Sequence[Route] = (
    Route(
        method="POST", path=f"{_PATH}/reports", summary="Send in a bank's report", tag="Reconciliation",
        access=Access.TENANT, permission=Permission.TRANSACTIONS_WRITE, call=_receive, streams=True, request=str,
        request_media=("application/xml", "text/xml"), replies={200: ReportsBody, 201: ReportsBody},
        errors=(429,),
    ),
    Route(
        method="GET", path=f"{_PATH}/statements", summary="The reports that were taken in", tag="Reconciliation",
        access=Access.TENANT, permission=Permission.TRANSACTIONS_READ, operation=_list_statements,
        replies={200: StatementsBody}, query=_PAGING,
    ),
    Route(
        method="GET", path=f"{_PATH}/statements/{{statementId}}", summary="A report with its lines",
        tag="Reconciliation", access=Access.TENANT, permission=Permission.TRANSACTIONS_READ, operation=_get_statement,
        replies={200: StatementDetailBody}, query=_PAGING,
    ),
    Route(
        method="GET", path=f"{_PATH}/statements/{{statementId}}/document", summary="The file that a report came in",
        tag="Reconciliation", access=Access.TENANT, permission=Permission.CUSTOMERS_OPEN, operation=_get_document,
        replies={200: bytes}, reply_media="application/xml", errors=(429,),
    ),
    Route(
        method="GET", path=f"{_PATH}/breaks", summary="What doesn't match, and what is missing", tag="Reconciliation",
        access=Access.TENANT, permission=Permission.TRANSACTIONS_READ, operation=_list_breaks,
        replies={200: BreaksBody}, query=_PAGING | {"state": f"{', '.join(_STATES)} ({_STATES[0]} when left out)."},
    ),
    Route(
        method="POST", path=f"{_PATH}/breaks/{{statementId}}/{{entryNo}}/resolve", summary="Resolve a break",
        tag="Reconciliation", access=Access.TENANT, permission=Permission.TRANSACTIONS_WRITE, operation=_resolve,
        request=ResolutionRequest, replies={200: BreakBody},
    ),
    Route(
        method="GET", path=f"{_PATH}/summary", summary="Figures by currency", tag="Reconciliation",
        access=Access.TENANT, permission=Permission.TRANSACTIONS_READ, operation=_summarise,
        replies={200: SummaryBody},
    ),
)  # fmt: skip
