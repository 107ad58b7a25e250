"""Transactions: attempts to move an instruction's money, each under a reference of its own that is never used again.

INTENDED is written before the rail is told; PROCESSING: the rail has it, the end comes later; SUCCESS and FAILED are
ends; UNCONFIRMED: nobody knows, and only the rail's own word (an enquiry, a notification, a statement) resolves it. The
database keeps an instruction from having two attempts that haven't failed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec

from strongroom.audit import Entry, record_many
from strongroom.database import Operation, pack_bytes, pack_texts, pack_uuids
from strongroom.kernel.errors import Failure, NotFound
from strongroom.kernel.ids import new_uuid_bytes
from strongroom.kernel.money import Money
from strongroom.payments.contents import decode_instruction, encode
from strongroom.payments.instructions import TransactionContent, decode_transaction
from strongroom.rails.contract import Outcome, OutcomeKind

NOT_SENT: Final = "NOT_SENT"
"""The reason that is kept when it is certain that the rail wasn't told, after which the instruction is READY again."""
RETURNED: Final = "RETURNED"
"""How the reason begins that is kept of a return: the bank gave the money back."""


@dataclass(frozen=True, slots=True)
class Step:
    """What an outcome does: the transaction's and the instruction's next states."""

    transaction: str
    instruction: str


_OPEN: Final = frozenset({"INTENDED", "PROCESSING", "UNCONFIRMED"})
_NOTHING_HAPPENED: Final = frozenset({OutcomeKind.NEVER_RECEIVED, OutcomeKind.NOT_SENT})


def step(status: str, kind: OutcomeKind) -> Step | None:
    """The state table. None: the outcome says nothing new (a duplicate, or one that comes too late).

    Reasons have no say: they are the rail's words, and one that could bring a payment back to READY with them would be
    paid again and again.
    """
    if status == "SUCCESS" and kind is OutcomeKind.RETURNED:
        return Step("FAILED", "FAILED")
    if status not in _OPEN:
        return None
    if kind is OutcomeKind.SETTLED:
        return Step("SUCCESS", "COMPLETED")
    if kind in {OutcomeKind.REFUSED, OutcomeKind.RETURNED}:
        return Step("FAILED", "FAILED")
    if status == "PROCESSING":
        # The rail has said that it has it. An enquiry without an answer doesn't change that; see also `contradicts`.
        return None
    if kind in _NOTHING_HAPPENED:
        return Step("FAILED", "READY")
    if kind is OutcomeKind.PENDING:
        return Step("PROCESSING", "PROCESSING")
    return None if status == "UNCONFIRMED" else Step("UNCONFIRMED", "UNCONFIRMED")


def contradicts(status: str, kind: OutcomeKind) -> bool:
    """Whether a rail now says the opposite of what it told before: never applied, always recorded.

    A rail that accepted a payment and now has never seen it may have lost its memory rather than the payment, so that
    isn't a reason to pay again.
    """
    if status == "PROCESSING":
        return kind in _NOTHING_HAPPENED
    if status == "SUCCESS":
        return kind is OutcomeKind.REFUSED or kind in _NOTHING_HAPPENED
    return status == "FAILED" and kind is OutcomeKind.SETTLED


async def apply_outcome(op: Operation, transaction_id: UUID, outcome: Outcome) -> bool:
    """Record what a rail says about a transaction; returns whether anything changed. See `apply_outcomes`."""
    [changed] = await apply_outcomes(op, [(transaction_id, outcome)])
    return changed


async def apply_outcomes(op: Operation, outcomes: Sequence[tuple[UUID, Outcome]]) -> list[bool]:
    """Record what a rail says about transactions, in order; returns for each outcome whether it changed anything.

    Locks the transactions, so outcomes that arrive together are taken one after the other. What contradicts an end, or
    speaks of another amount, is recorded in the audit and changes nothing: a person has to look at it. A handful of
    statements, however many there are, so that a statement of thousands of entries is one short operation.

    Raises errors.NotFound (`TRANSACTION_NOT_FOUND`).
    """
    held = await _hold(op, {transaction_id for transaction_id, _ in outcomes})
    asked = await _asked(op, {transaction_id for transaction_id, outcome in outcomes if outcome.money is not None})
    changed: list[bool] = []
    entries: list[Entry] = []
    events: list[tuple[_Held, str, str]] = []
    for transaction_id, outcome in outcomes:
        transaction = held[transaction_id]
        status = transaction.status
        taken = step(status, outcome.kind)
        if contradicts(status, outcome.kind):
            entries.append(_entry(op, "transaction.contradiction", transaction_id, f"{status} {outcome.kind}"))
        elif taken is not None and outcome.money is not None and outcome.money != asked[transaction_id]:
            taken = None
            detail = f"{status} {outcome.kind} of another amount"
            entries.append(_entry(op, "transaction.contradiction", transaction_id, detail))
        changed.append(taken is not None)
        if taken is None:
            continue
        transaction.status = taken.transaction
        transaction.instruction_status = taken.instruction
        transaction.said = msgspec.structs.replace(
            transaction.said,
            provider_reference=outcome.provider_reference or transaction.said.provider_reference,
            reason=outcome.reason,
            detail=outcome.detail,
        )
        reason = outcome.reason if outcome.reason.isascii() and len(outcome.reason) <= 40 else "OTHER"
        events.append((transaction, taken.instruction, reason))
        entries.append(_entry(op, "transaction.outcome", transaction_id, taken.transaction))
    await _write(op, [transaction for transaction in held.values() if transaction.instruction_status])
    await _append(op, events)
    await record_many(op, entries)
    return changed


@dataclass(slots=True)
class _Held:
    """A transaction that is locked, and where its outcomes have brought it."""

    transaction_id: UUID
    order_id: UUID
    instruction_id: UUID
    status: str
    said: TransactionContent
    instruction_status: str = ""


async def _hold(op: Operation, ids: Collection[UUID]) -> dict[UUID, _Held]:
    rows = await op.rows(
        "select transaction_id, order_id, instruction_id, status, sealed from transactions "
        "where tenant_id = %s and transaction_id = any(%s) order by transaction_id for update",
        op.tenant,
        pack_uuids([transaction_id.bytes for transaction_id in ids]),
    )
    if len(rows) < len(ids):
        raise NotFound(Failure("TRANSACTION_NOT_FOUND", "There is no such transaction in this tenant."))
    return {
        transaction_id: _Held(
            transaction_id,
            order_id,
            instruction_id,
            status,
            decode_transaction(op.cipher.open("transactions", "sealed", transaction_id.bytes, sealed)),
        )
        for transaction_id, order_id, instruction_id, status, sealed in rows
    }


async def _asked(op: Operation, ids: Collection[UUID]) -> dict[UUID, Money]:
    """What was to be moved. An instruction doesn't change once it has been asked for."""
    if not ids:
        return {}
    rows = await op.rows(
        "select t.transaction_id, i.instruction_id, i.currency, i.sealed "
        "from transactions t join instructions i using (tenant_id, order_id, instruction_id) "
        "where t.tenant_id = %s and t.transaction_id = any(%s)",
        op.tenant,
        pack_uuids([transaction_id.bytes for transaction_id in ids]),
    )
    return {
        transaction_id: Money(
            decode_instruction(op.cipher.open("instructions", "sealed", instruction_id.bytes, sealed)).minor, currency
        )
        for transaction_id, instruction_id, currency, sealed in rows
    }


async def _write(op: Operation, changed: Sequence[_Held]) -> None:
    if not changed:
        return
    await op.run(
        """
        update transactions t set status = n.status, claimed_until = null, sealed = n.sealed, updated_at = %s
        from unnest(%s, %s, %s) as n(transaction_id, status, sealed)
        where t.tenant_id = %s and t.transaction_id = n.transaction_id
        """,
        op.now,
        pack_uuids([transaction.transaction_id.bytes for transaction in changed]),
        pack_texts([transaction.status for transaction in changed]),
        pack_bytes([seal_content(op, transaction.transaction_id, transaction.said) for transaction in changed]),
        op.tenant,
    )
    await op.run(
        """
        update instructions i set status = n.status, updated_at = %s
        from unnest(%s, %s, %s) as n(order_id, instruction_id, status)
        where i.tenant_id = %s and i.order_id = n.order_id and i.instruction_id = n.instruction_id
        """,
        op.now,
        pack_uuids([transaction.order_id.bytes for transaction in changed]),
        pack_uuids([transaction.instruction_id.bytes for transaction in changed]),
        pack_texts([transaction.instruction_status for transaction in changed]),
        op.tenant,
    )


async def _append(op: Operation, events: Sequence[tuple[_Held, str, str]]) -> None:
    if not events:
        return
    await op.run(
        """
        insert into instruction_events
            (tenant_id, order_id, instruction_id, event_id, at, status, transaction_id, reason)
        select %s, order_id, instruction_id, event_id, %s, status, transaction_id, reason
        from unnest(%s, %s, %s, %s, %s, %s) as t(order_id, instruction_id, event_id, status, transaction_id, reason)
        """,
        op.tenant,
        op.now,
        pack_uuids([transaction.order_id.bytes for transaction, _, _ in events]),
        pack_uuids([transaction.instruction_id.bytes for transaction, _, _ in events]),
        pack_uuids(sorted(new_uuid_bytes() for _ in events)),  # what comes later sorts later, within a millisecond too
        pack_texts([status for _, status, _ in events]),
        pack_uuids([transaction.transaction_id.bytes for transaction, _, _ in events]),
        pack_texts([reason for _, _, reason in events]),
    )


def _entry(op: Operation, action: str, transaction_id: UUID, detail: str) -> Entry:
    return Entry(action, "transaction", str(transaction_id), "done", detail, op.correlation_id)


def reference_of(transaction_id: UUID) -> str:
    """Our reference at the rail: the transaction's id, 32 hexadecimal digits."""
    return transaction_id.hex


def seal_content(op: Operation, transaction_id: UUID, content: TransactionContent) -> bytes:
    """The envelope of what a rail said."""
    return op.cipher.seal("transactions", "sealed", transaction_id.bytes, encode(content))
