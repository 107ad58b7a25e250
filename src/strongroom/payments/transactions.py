"""Transactions: attempts to move an instruction's money, each under a reference of its own that is never used again.

INTENDED is written before the rail is told; PROCESSING: the rail has it, the end comes later; SUCCESS and FAILED are
ends; UNCONFIRMED: nobody knows, and only the rail's own word (an enquiry, a notification, a statement) resolves it. The
database keeps an instruction from having two attempts that haven't failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec

from strongroom.audit import record
from strongroom.database import Operation
from strongroom.kernel.errors import Failure, NotFound
from strongroom.payments.contents import encode
from strongroom.payments.instructions import TransactionContent, add_event, decode_transaction
from strongroom.rails.contract import Outcome, OutcomeKind

RETRYABLE: Final = frozenset({"NOT_SENT", "NEVER_RECEIVED"})
"""Reasons of a failed attempt after which the instruction is READY again: it is certain that no money moved or will."""
RETURNED: Final = "RETURNED"
"""The only thing that ends a SUCCESS: the bank gave the money back."""


@dataclass(frozen=True, slots=True)
class Step:
    """What an outcome does: the transaction's and the instruction's next states."""

    transaction: str
    instruction: str


_OPEN: Final = frozenset({"INTENDED", "PROCESSING", "UNCONFIRMED"})


def step(status: str, kind: OutcomeKind, reason: str) -> Step | None:
    """The state table. None: the outcome says nothing new (a duplicate, or one that comes too late)."""
    if status == "SUCCESS" and kind is OutcomeKind.REFUSED and reason.startswith(RETURNED):
        return Step("FAILED", "FAILED")
    if status not in _OPEN:
        return None
    if kind is OutcomeKind.SETTLED:
        return Step("SUCCESS", "COMPLETED")
    if kind is OutcomeKind.REFUSED:
        return Step("FAILED", "READY" if reason == "NOT_SENT" else "FAILED")
    if kind is OutcomeKind.NEVER_RECEIVED:
        return Step("FAILED", "READY")
    if kind is OutcomeKind.PENDING:
        return None if status == "PROCESSING" else Step("PROCESSING", "PROCESSING")
    return None if status == "UNCONFIRMED" else Step("UNCONFIRMED", "UNCONFIRMED")


def contradicts(status: str, kind: OutcomeKind, reason: str) -> bool:
    """Whether a rail now says the opposite of an end that it told before: never applied, always recorded."""
    if status == "SUCCESS":
        return kind in {OutcomeKind.REFUSED, OutcomeKind.NEVER_RECEIVED} and not reason.startswith(RETURNED)
    return status == "FAILED" and kind is OutcomeKind.SETTLED


async def apply_outcome(op: Operation, transaction_id: UUID, outcome: Outcome) -> bool:
    """Record what a rail says about a transaction; returns whether anything changed.

    Locks the transaction, so outcomes that arrive together are taken one after the other. What contradicts an end is
    recorded in the audit and changes nothing: a person has to look at it.

    Raises errors.NotFound (`TRANSACTION_NOT_FOUND`).
    """
    row = await op.row(
        "select status, order_id, instruction_id, sealed from transactions where transaction_id = %s for update",
        transaction_id,
    )
    if row is None:
        raise NotFound(Failure("TRANSACTION_NOT_FOUND", "There is no such transaction in this tenant."))
    status, order_id, instruction_id, sealed = row
    if contradicts(status, outcome.kind, outcome.reason):
        await record(op, "transaction.contradiction", "transaction", transaction_id, detail=f"{status} {outcome.kind}")
        return False
    taken = step(status, outcome.kind, outcome.reason)
    if taken is None:
        return False
    said = decode_transaction(op.cipher.open("transactions", "sealed", transaction_id.bytes, sealed))
    said = msgspec.structs.replace(
        said,
        provider_reference=outcome.provider_reference or said.provider_reference,
        reason=outcome.reason,
        detail=outcome.detail,
    )
    await op.run(
        "update transactions set status = %s, claimed_until = null, sealed = %s, updated_at = %s "
        "where transaction_id = %s",
        taken.transaction,
        op.cipher.seal("transactions", "sealed", transaction_id.bytes, encode(said)),
        op.now,
        transaction_id,
    )
    await op.run(
        "update instructions set status = %s, updated_at = %s where order_id = %s and instruction_id = %s",
        taken.instruction,
        op.now,
        order_id,
        instruction_id,
    )
    reason = outcome.reason if outcome.reason.isascii() and len(outcome.reason) <= 40 else "OTHER"
    await add_event(
        op, order_id.bytes, instruction_id.bytes, taken.instruction, transaction_id=transaction_id, reason=reason
    )
    await record(op, "transaction.outcome", "transaction", transaction_id, detail=taken.transaction)
    return True


def reference_of(transaction_id: UUID) -> str:
    """Our reference at the rail: the transaction's id, 32 hexadecimal digits."""
    return transaction_id.hex


def seal_content(op: Operation, transaction_id: UUID, content: TransactionContent) -> bytes:
    """The envelope of what a rail said."""
    return op.cipher.seal("transactions", "sealed", transaction_id.bytes, encode(content))
