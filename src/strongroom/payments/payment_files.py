"""Payment files of rails that work by file: what goes into which, and what has become of it.

A file is INTENDED, with its exact bytes and its attempts, before anything is written (`dispatch` does that), and
DELIVERED once it stands in the outbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from strongroom.audit import record
from strongroom.database import Operation
from strongroom.kernel.ids import new_uuid
from strongroom.kernel.money import Money
from strongroom.payments.apps import get_settings
from strongroom.payments.contents import InstructionContent, decode_instruction
from strongroom.payments.instruments import open_accounts
from strongroom.payments.transactions import NOT_SENT, apply_outcomes, reference_of
from strongroom.rails.bank import profile
from strongroom.rails.contract import Direction, Outcome, OutcomeKind, Payment
from strongroom.rails.formats import pain001

LEASE: Final = timedelta(seconds=90)
"""How long an attempt belongs to the process that wrote it."""
REMITTANCE_KEY: Final = "remittanceInformation"
"""The metadata key whose value the customer reads on their statement; without it, the order's reference."""
MAX_REMITTANCE: Final = 140


async def intend_files(op: Operation) -> None:
    """Put attempts of file rails that are in no file yet into files."""
    rows = await op.rows(
        """
        select t.transaction_id, t.app_id, i.direction, i.currency, i.settled_by, i.financial_instrument_id,
               i.instruction_id, i.sealed
        from transactions t join instructions i using (tenant_id, order_id, instruction_id)
        where t.status = 'INTENDED' and t.claimed_until is null and t.file_id is null
        order by t.transaction_id limit %s for update of t skip locked
        """,
        pain001.MAX_TRANSACTIONS,
    )
    if not rows:
        return
    accounts = await open_accounts(op, {row[5].bytes for row in rows})
    by_app: dict[str, list[Payment]] = {}
    ids: dict[str, UUID] = {}
    for transaction_id, app_id, direction, currency, settled_by, instrument_id, instruction_id, sealed in rows:
        # A customer with a payment under way can't be forgotten, so the account is still there.
        content = decode_instruction(op.cipher.open("instructions", "sealed", instruction_id.bytes, sealed))
        reference = reference_of(transaction_id)
        ids[reference] = transaction_id
        by_app.setdefault(app_id, []).append(
            Payment(
                reference=reference,
                direction=Direction(direction),
                money=Money(content.minor, currency),
                counterparty=accounts[instrument_id.bytes],
                due_on=settled_by,
                remittance=remittance_of(content),
            )
        )
    for app_id, payments in by_app.items():
        bank = profile.parse(await get_settings(op, app_id))
        for batches in pain001.split(payments, bank.rules, not_before=op.today):
            await _keep_file(op, app_id, bank, batches, ids)


async def mark_delivered(op: Operation, file_id: UUID) -> None:
    """Third beat for a file; of several dispatchers that wrote it, one records it."""
    first = await op.run(
        "update payment_files set status = 'DELIVERED', updated_at = %s where file_id = %s and status = 'INTENDED'",
        op.now,
        file_id,
    )
    if not first:
        return
    await op.run(
        "update transactions set status = 'PROCESSING', updated_at = %s where file_id = %s and status = 'INTENDED'",
        op.now,
        file_id,
    )
    await record(op, "payment-file.deliver", "payment-file", file_id)


async def withdraw(op: Operation, outbox: Path) -> None:
    """Bring to an end what a tenant that may not pay any more had on its way to files.

    What is in no file yet was never sent. A file that stands in the outbox is delivered, whoever put it there. One that
    doesn't may have been put there and fetched before that was written down; only the bank knows then.
    """
    rows = await op.rows(
        "select transaction_id from transactions where status = 'INTENDED' and claimed_until is null "
        "and file_id is null order by transaction_id limit %s for update skip locked",
        pain001.MAX_TRANSACTIONS,
    )
    await apply_outcomes(op, [outcome_of(row[0], OutcomeKind.NOT_SENT, NOT_SENT) for row in rows])
    files = await op.rows(
        "select file_id from payment_files where status = 'INTENDED' and updated_at < %s and exists "
        "(select from transactions t where t.file_id = payment_files.file_id and t.status = 'INTENDED') "
        "order by file_id for update skip locked",
        op.now - LEASE,
    )
    for (file_id,) in files:
        if await asyncio.to_thread((outbox / f"{file_id.hex}.xml").exists):
            await mark_delivered(op, file_id)
            continue
        rows = await op.rows(
            "select transaction_id from transactions where file_id = %s and status = 'INTENDED' "
            "order by transaction_id for update",
            file_id,
        )
        await apply_outcomes(op, [outcome_of(row[0], OutcomeKind.UNCONFIRMED, "FILE_NOT_DELIVERED") for row in rows])
        await record(op, "payment-file.withdraw", "payment-file", file_id, detail=f"payments={len(rows)}")


def outcome_of(transaction_id: UUID, kind: OutcomeKind, reason: str) -> tuple[UUID, Outcome]:
    """What became of an attempt, as `transactions.apply_outcomes` takes it."""
    return transaction_id, Outcome(kind=kind, reference=reference_of(transaction_id), reason=reason)


def remittance_of(content: InstructionContent) -> str:
    """What the customer reads on their statement."""
    return (content.metadata.get(REMITTANCE_KEY) or content.order_ref)[:MAX_REMITTANCE]


async def _keep_file(
    op: Operation,
    app_id: str,
    bank: profile.BankProfile,
    batches: Sequence[pain001.Batch],
    ids: Mapping[str, UUID],
) -> None:
    file_id = new_uuid()
    content = pain001.write(bank.file(file_id.hex, op.now, tuple(batches)))
    await op.run(
        "insert into payment_files (tenant_id, file_id, app_id, status, sealed, created_at, updated_at) "
        "values (%s, %s, %s, 'INTENDED', %s, %s, %s)",
        op.tenant,
        file_id,
        app_id,
        op.cipher.seal("payment_files", "sealed", file_id.bytes, content),
        op.now,
        op.now,
    )
    members = [ids[payment.reference] for batch in batches for payment in batch.payments]
    await op.run(
        "update transactions set file_id = %s, updated_at = %s where transaction_id = any(%s)", file_id, op.now, members
    )
    await record(op, "payment-file.create", "payment-file", file_id, detail=f"payments={len(members)}")
