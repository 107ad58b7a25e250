"""What we know of the payments that a bank's report names, held still while the report is taken in."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from uuid import UUID

from strongroom.database import Operation, Purpose, pack_uuids
from strongroom.kernel.money import Money
from strongroom.payments.contents import decode_instruction
from strongroom.payments.instructions import decode_transaction
from strongroom.payments.transactions import reference_of
from strongroom.rails.formats import pain001
from strongroom.rails.formats.pain001 import InitiatedFile
from strongroom.reconciliation.matching import Knowledge, Known, Named, Role


async def hold_reports(op: Operation) -> None:
    """Let no other report of the tenant be taken in, and no app change its account, until this operation ends.

    Which report says a thing first decides what the others are: told before, or a break. So they queue.
    """
    await op.rows(
        "select from installed_apps where tenant_id = %s order by app_id for no key update",
        op.tenant,
    )


async def find_knowledge(op: Operation, named: Named, *, with_seen: bool) -> Knowledge:
    """What we know of all that is named; locks the transactions. Only payments that went out by file are known.

    `with_seen`: also what earlier statements matched them as.
    """
    batches: dict[str, tuple[str, ...]] = {}
    for file_id in sorted({name[:32] for name in named.batches}):
        file = await find_file(op, UUID(file_id))
        if file is None:
            continue
        batches[file_id] = tuple(payment.end_to_end_id for payment in file.payments)
        for batch in file.batches:
            batches[batch.id] = tuple(payment.end_to_end_id for payment in batch.payments)
    members = {reference for name in named.batches for reference in batches.get(name, ())}
    return Knowledge(
        transactions=await _transactions(op, named.references | members, with_seen=with_seen),
        batches={name: batches[name] for name in named.batches if name in batches},
    )


async def find_file(op: Operation, file_id: UUID) -> InitiatedFile | None:
    """A payment file that we made, as the bank read it; None when it isn't one of this tenant's."""
    row = await op.row(
        "select sealed from payment_files where tenant_id = %s and file_id = %s",
        op.tenant,
        file_id,
    )
    if row is None:
        return None
    with op.opening(Purpose.RECONCILIATION):
        content = op.cipher.open("payment_files", "sealed", file_id.bytes, row[0])
    return await asyncio.to_thread(pain001.read, content)


async def _transactions(op: Operation, references: Collection[str], *, with_seen: bool) -> dict[str, Known]:
    if not references:
        return {}
    ids = pack_uuids([bytes.fromhex(reference) for reference in references])
    rows = await op.rows(
        """
        select t.transaction_id, t.status, t.sealed, i.instruction_id, i.currency, i.sealed
        from transactions t join instructions i using (tenant_id, order_id, instruction_id)
        where t.tenant_id = %s and t.transaction_id = any(%s) and t.file_id is not null
        order by t.transaction_id for update of t
        """,
        op.tenant,
        ids,
    )
    seen: dict[UUID, set[Role]] = {}
    if with_seen:
        for transaction_id, role in await op.rows(
            "select transaction_id, role from statement_entries where tenant_id = %s and transaction_id = any(%s)",
            op.tenant,
            ids,
        ):
            seen.setdefault(transaction_id, set()).add(Role(role))
    known: dict[str, Known] = {}
    for transaction_id, status, said, instruction_id, currency, instruction in rows:
        content = decode_instruction(op.cipher.open("instructions", "sealed", instruction_id.bytes, instruction))
        reason = decode_transaction(op.cipher.open("transactions", "sealed", transaction_id.bytes, said)).reason
        known[reference_of(transaction_id)] = Known(
            transaction_id=transaction_id,
            money=Money(content.minor, currency),
            status=status,
            reason=reason,
            seen=frozenset(seen.get(transaction_id, ())),
        )
    return known
