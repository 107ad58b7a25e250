"""Payment status reports (pain.002): what a bank says of a file of ours before it books anything.

A rejection is final and refuses its payments, with the bank's reason. Acceptance of any degree leaves them pending:
that money moved is for the statement to say. A rejection as a duplicate says nothing about the first delivery, so
nothing is done with it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from strongroom.audit import record
from strongroom.database import Operation
from strongroom.kernel.errors import Failure, Refused
from strongroom.payments.transactions import apply_outcomes, contradicts
from strongroom.rails.contract import Outcome, OutcomeKind
from strongroom.rails.formats.pain002 import StatusReport, Verdict
from strongroom.reconciliation.contents import Remark, StatementContent, Sum
from strongroom.reconciliation.knowledge import find_file, find_knowledge
from strongroom.reconciliation.matching import Known, Named

ACCEPTED: Final = frozenset({"RCVD", "PDNG", "ACTC", "ACCP", "ACSP", "ACWC", "ACWP", "ACFC", "ACPD", "ACSC", "ACCC"})
"""Statuses (ISO 20022 ExternalPaymentTransactionStatus1Code) after which the end is still to come for us: it is told by
the statement, even where the bank calls the payment settled."""
_MESSAGE_ID: Final = re.compile(r"[0-9a-fA-F]{32}", re.ASCII)
_REASON_CODE: Final = re.compile(r"[A-Z0-9]{4}", re.ASCII)


async def apply(op: Operation, report: StatusReport, document_id: UUID) -> StatementContent:
    """Do what a status report says to the payments of the file that it answers; returns what to keep of it.

    Raises errors.Refused (`REPORT_OF_UNKNOWN_FILE`) when the file isn't one of this tenant's.
    """
    named = _MESSAGE_ID.fullmatch(report.original_message_id)
    file_id = UUID(named[0]) if named else None
    file = await find_file(op, file_id) if file_id else None
    if file_id is None or file is None:
        raise Refused(
            Failure(
                "REPORT_OF_UNKNOWN_FILE",
                "The report answers a payment file that this tenant didn't send. Send it to the tenant that did; "
                "nothing of it was taken in.",
            )
        )
    orders = [(payment.batch_id, payment.end_to_end_id) for payment in file.payments]
    verdicts = report.verdicts(orders)
    references = frozenset(reference for _, reference in orders)
    knowledge = await find_knowledge(op, Named(references=references, batches=frozenset()), with_seen=False)
    said = [
        (knowledge.transactions[reference], verdict)
        for (_, reference), verdict in verdicts.items()
        if reference in knowledge.transactions
    ]
    outcomes = [(known, outcome) for known, verdict in said if (outcome := _outcome(known, verdict)) is not None]
    changed = await apply_outcomes(op, [(known.transaction_id, outcome) for known, outcome in outcomes])
    await op.run(
        "update payment_files set status = 'ANSWERED', updated_at = %s "
        "where tenant_id = %s and file_id = %s and status = 'DELIVERED'",
        op.now,
        op.tenant,
        file_id,
    )
    await record(op, "payment-file.answer", "payment-file", file_id, detail=f"payments={len(said)}")
    listed = {transaction.end_to_end_id for batch in report.batches for transaction in batch.transactions}
    matched = Sum()
    for known, _ in said:
        matched += Sum.of(-known.money.minor)
    return StatementContent(
        name=report.message_id,
        file_id=document_id.bytes,
        message_id=report.message_id,
        created_at=report.created_at,
        currency=file.payments[0].money.currency,
        matched=matched,
        moved=sum(changed),
        remarks=list(
            _remarks(
                strangers=len(listed - references),
                duplicates=sum(verdict.is_duplicate for _, verdict in said),
                contradictions=sum(contradicts(known.status, outcome.kind) for known, outcome in outcomes),
                unclear=Counter(
                    verdict.status
                    for _, verdict in said
                    if not (verdict.is_rejected or verdict.is_duplicate or verdict.status in ACCEPTED)
                ),
            )
        ),
        about=file_id.hex,
    )


def _outcome(known: Known, verdict: Verdict) -> Outcome | None:
    """What a verdict says of a transaction; None for one that says nothing for certain."""
    reference = known.transaction_id.hex
    if verdict.is_rejected:
        return Outcome(
            kind=OutcomeKind.REFUSED,
            reference=reference,
            reason=verdict.reason if _REASON_CODE.fullmatch(verdict.reason) else "REJECTED",
            detail=verdict.detail,
        )
    if verdict.status in ACCEPTED:
        return Outcome(kind=OutcomeKind.PENDING, reference=reference)
    return None


def _remarks(*, strangers: int, duplicates: int, contradictions: int, unclear: Counter[str]) -> Iterator[Remark]:
    if strangers:
        yield Remark(
            "PAYMENTS_NOT_IN_FILE",
            "{count} payments that it names were not in the file that it answers; ask the bank.",
            {"count": strangers},
        )
    if duplicates:
        yield Remark(
            "REJECTED_AS_DUPLICATES",
            "{count} payments were rejected only because the bank has them already; what becomes of those still holds.",
            {"count": duplicates},
        )
    if contradictions:
        yield Remark(
            "CONTRADICTS_STATEMENT",
            "{count} payments that it rejects were booked before, and stay so; ask the bank.",
            {"count": contradictions},
        )
    for status, count in sorted(unclear.items()):
        yield Remark(
            "STATUS_NOT_RECOGNISED",
            "{count} payments have the status {status}, which says nothing for certain; the statement will.",
            {"count": count, "status": status},
        )
