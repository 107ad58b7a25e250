"""Breaks: what the bank says and we can't account for, and what we wait for and the bank doesn't say.

A *break* is a statement's line that matches nothing; it stays open, and grows older, until a person resolves it with a
note. A *missing* payment went to the bank in a file and is in no statement, days after it should have been; it ends by
itself when a statement or a status report names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final
from uuid import UUID

import msgspec

from strongroom.access import Permission, require
from strongroom.audit import record
from strongroom.database import Operation
from strongroom.kernel.errors import Conflict, Failure, NotFound
from strongroom.kernel.ids import FileId, StatementId, TransactionId, parse_uuid
from strongroom.kernel.money import Money
from strongroom.payments.contents import decode_instruction
from strongroom.reconciliation.contents import Sum, open_line, open_shown, open_statement, seal_shown, with_party
from strongroom.reconciliation.statements import STATEMENT, KeptLine

OVERDUE: Final = timedelta(days=3)
"""A payment is missing when no statement has it so long after the day on which the bank was to execute it."""
MAX_NOTE: Final = 1000
MAX_ENTRY_NO: Final = 2**31 - 1
MISSING_FROM_STATEMENTS: Final = "MISSING_FROM_STATEMENTS"
"""The reason code of what is missing, beside `matching.Reason` for what is a break."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A payment that a bank was given and no statement shows. `status` is the transaction's: SUCCESS when only a
    notification told of it."""

    transaction_id: TransactionId
    file_id: FileId
    order_ref: str
    instruction_ref: str
    money: Money
    status: str
    due_on: date
    days: int


@dataclass(slots=True, kw_only=True)
class CurrencySummary:
    """A currency's figures over all statements, and what is missing from them now."""

    currency: str
    matched: Sum
    open_breaks: Sum
    resolved: Sum
    missing: Sum


async def list_breaks(
    op: Operation, *, state: str = "BREAK", after: tuple[StatementId, int] | None = None, take: int = 100
) -> Sequence[KeptLine]:
    """Breaks in one state (BREAK: open, or RESOLVED), in the order in which they were taken in; `after` is the last one
    of the page before."""
    require(op, Permission.TRANSACTIONS_READ)
    statement_id, entry_no = after or (UUID(int=0), 0)
    rows = await op.rows(
        "select statement_id, entry_no, role, booked_on, sealed, sensitive from statement_entries "
        "where tenant_id = %s and state = %s and (statement_id, entry_no) > (%s, %s) "
        "order by statement_id, entry_no limit %s",
        op.tenant,
        state,
        statement_id,
        entry_no,
        take,
    )
    return [
        KeptLine(
            statement_id=StatementId(row[0]),
            entry_no=row[1],
            state=state,
            role=row[2],
            transaction_id=None,
            booked_on=row[3],
            content=open_line(op, row[0], row[1], row[4], row[5]),
        )
        for row in rows
    ]


async def resolve_break(op: Operation, statement_id: str, entry_no: int, note: str) -> KeptLine:
    """Close a break, saying how; who and when is kept with it. Nothing about payments changes.

    Raises errors.NotFound (`BREAK_NOT_FOUND`) and errors.Conflict (`BREAK_RESOLVED_BEFORE`).
    """
    require(op, Permission.TRANSACTIONS_WRITE)
    wanted = parse_uuid(statement_id)
    row = None
    if wanted is not None and 0 < entry_no <= MAX_ENTRY_NO:
        row = await op.row(
            "select state, role, booked_on, sealed, sensitive from statement_entries "
            "where tenant_id = %s and statement_id = %s and entry_no = %s and state <> 'MATCHED' for update",
            op.tenant,
            wanted,
            entry_no,
        )
    if wanted is None or row is None:
        raise NotFound(Failure("BREAK_NOT_FOUND", "There is no such break in this tenant."))
    state, role, booked_on, sealed, sensitive = row
    if state == "RESOLVED":
        raise Conflict(Failure("BREAK_RESOLVED_BEFORE", "The break was resolved before; its note stays as it is."))
    content = msgspec.structs.replace(
        open_shown(op, wanted, entry_no, sealed),
        note=note,
        resolved_by=str(op.actor.key_id or op.actor.name),
        resolved_at=op.now,
    )
    await op.run(
        "update statement_entries set state = 'RESOLVED', sealed = %s "
        "where tenant_id = %s and statement_id = %s and entry_no = %s",
        seal_shown(op, wanted, entry_no, content),
        op.tenant,
        wanted,
        entry_no,
    )
    await record(op, "break.resolve", "statement-entry", f"{wanted}/{entry_no}", detail=content.reason)
    return KeptLine(
        statement_id=StatementId(wanted),
        entry_no=entry_no,
        state="RESOLVED",
        role=role,
        transaction_id=None,
        booked_on=booked_on,
        content=with_party(op, wanted, entry_no, content, sensitive),
    )


async def list_missing(
    op: Operation, *, overdue: timedelta = OVERDUE, after: TransactionId | None = None, take: int = 100
) -> Sequence[Missing]:
    """Payments that went out by file and that no statement shows, oldest first; `after` is the last one of the page
    before.

    What the bank refused is not missing. A payment is due on its settlement day, or on the day of its file when that is
    later.
    """
    require(op, Permission.TRANSACTIONS_READ)
    rows = await op.rows(
        """
        select t.transaction_id, t.file_id, t.status, i.currency, i.instruction_id, i.sealed,
               greatest(i.settled_by, (f.created_at at time zone 'UTC')::date) as due_on
        from transactions t
            join payment_files f using (tenant_id, file_id)
            join instructions i using (tenant_id, order_id, instruction_id)
        where t.tenant_id = %s and t.status <> 'FAILED' and t.transaction_id > %s
            and greatest(i.settled_by, (f.created_at at time zone 'UTC')::date) < %s
            and not exists (select from statement_entries e
                            where e.tenant_id = t.tenant_id and e.transaction_id = t.transaction_id
                                and e.role = 'EXECUTION')
        order by t.transaction_id limit %s
        """,
        op.tenant,
        after or UUID(int=0),
        op.today - overdue,
        take,
    )
    missing = []
    for transaction_id, file_id, status, currency, instruction_id, sealed, due_on in rows:
        content = decode_instruction(op.cipher.open("instructions", "sealed", instruction_id.bytes, sealed))
        missing.append(
            Missing(
                transaction_id=transaction_id,
                file_id=file_id,
                order_ref=content.order_ref,
                instruction_ref=content.ref,
                money=Money(content.minor, currency),
                status=status,
                due_on=due_on,
                days=(op.today - due_on).days,
            )
        )
    return missing


async def summarise(op: Operation, *, overdue: timedelta = OVERDUE) -> Sequence[CurrencySummary]:
    """The figures of every currency, in alphabetical order.

    Statements keep their own totals, so what is read is one row for each statement, and what is open or missing.
    """
    require(op, Permission.TRANSACTIONS_READ)
    summaries: dict[str, CurrencySummary] = {}

    def of(currency: str) -> CurrencySummary:
        return summaries.setdefault(
            currency,
            CurrencySummary(currency=currency, matched=Sum(), open_breaks=Sum(), resolved=Sum(), missing=Sum()),
        )

    for statement_id, sealed in await op.rows(
        "select statement_id, sealed from statements where tenant_id = %s and kind = %s", op.tenant, STATEMENT
    ):
        statement = open_statement(op, statement_id, sealed)
        summary = of(statement.currency)
        summary.matched += statement.matched
        summary.resolved += statement.breaks
    for statement_id, entry_no, sealed in await op.rows(
        "select statement_id, entry_no, sealed from statement_entries where tenant_id = %s and state = 'BREAK'",
        op.tenant,
    ):
        line = open_shown(op, statement_id, entry_no, sealed)
        summary = of(line.currency)
        summary.open_breaks += Sum.of(line.minor)
        summary.resolved -= Sum.of(line.minor)
    after: TransactionId | None = None
    while page := await list_missing(op, overdue=overdue, after=after, take=1000):
        for payment in page:
            of(payment.money.currency).missing += Sum.of(-payment.money.minor)
        after = page[-1].transaction_id
    return [summaries[currency] for currency in sorted(summaries)]
