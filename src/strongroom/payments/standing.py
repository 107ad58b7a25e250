"""Where instructions stand, many at once: for reports that have to add up to the cent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from strongroom.access import Permission, require
from strongroom.database import Operation, pack_uuids
from strongroom.kernel.money import Money
from strongroom.payments.contents import decode_instruction, instruction_id_of, order_id_of
from strongroom.payments.instructions import decode_transaction

MAX_REFS: Final = 10_000
"""Most instructions that can be asked about at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An instruction, and its last attempt if there is one.

    `reason` is what the rail said of the attempt; without an attempt, why the instruction can't be carried out.
    `is_matched`: the bank's statement has the line that pays it.
    """

    order_ref: str
    ref: str
    direction: str
    money: Money
    status: str
    settled_by: date
    app_id: str
    reason: str
    is_matched: bool


async def find_standings(op: Operation, refs: Sequence[tuple[str, str]]) -> list[Standing]:
    """How the instructions with these references (order's, own) stand; those that don't exist are left out."""
    require(op, Permission.TRANSACTIONS_READ)
    if len(refs) > MAX_REFS:
        raise ValueError(f"at most {MAX_REFS} instructions can be asked about at once")
    rows = await op.rows(
        """
        select i.instruction_id, i.direction, i.currency, i.status, i.settled_by, i.sealed,
               t.transaction_id, t.app_id, t.sealed,
               exists (select from statement_entries e
                       where e.tenant_id = t.tenant_id and e.transaction_id = t.transaction_id
                         and e.state = 'MATCHED' and e.role = 'EXECUTION'),
               (select v.reason from instruction_events v
                where (v.tenant_id, v.order_id, v.instruction_id) = (i.tenant_id, i.order_id, i.instruction_id)
                order by v.event_id desc limit 1)
        from unnest(%s, %s) as wanted(order_id, instruction_id)
        join instructions i on i.tenant_id = %s
                           and (i.order_id, i.instruction_id) = (wanted.order_id, wanted.instruction_id)
        left join lateral (
            select * from transactions
            where (tenant_id, order_id, instruction_id) = (i.tenant_id, i.order_id, i.instruction_id)
            order by transaction_id desc limit 1) t on true
        """,
        pack_uuids([order_id_of(op, order_ref) for order_ref, _ in refs]),
        pack_uuids([instruction_id_of(op, order_ref, ref) for order_ref, ref in refs]),
        op.tenant,
    )
    found = []
    for instruction_id, direction, currency, status, settled_by, sealed, attempt_id, app_id, said, matched, why in rows:
        content = decode_instruction(op.cipher.open("instructions", "sealed", instruction_id.bytes, sealed))
        reason = why or ""
        if attempt_id is not None and status != "INCOMPLETE":
            reason = decode_transaction(op.cipher.open("transactions", "sealed", attempt_id.bytes, said)).reason
        found.append(
            Standing(
                order_ref=content.order_ref,
                ref=content.ref,
                direction=direction,
                money=Money(content.minor, currency),
                status=status,
                settled_by=settled_by,
                app_id=app_id or "",
                reason=reason,
                is_matched=matched,
            )
        )
    return found


async def count_attempts(op: Operation) -> Mapping[tuple[str, str], int]:
    """How many of the tenant's attempts are in which state, by app and state."""
    require(op, Permission.TRANSACTIONS_READ)
    rows = await op.rows(
        "select app_id, status, count(*) from transactions where tenant_id = %s group by app_id, status", op.tenant
    )
    return Counter({(app_id, status): count for app_id, status, count in rows})


async def count_due(op: Operation, until: date) -> int:
    """How many of the tenant's instructions are READY and to be settled by that day."""
    require(op, Permission.TRANSACTIONS_READ)
    row = await op.row(
        "select count(*) from instructions where tenant_id = %s and status = 'READY' and settled_by <= %s",
        op.tenant,
        until,
    )
    return row[0] if row else 0
