"""Approvals: payouts that wait for others than those who made them.

An instruction that a rule wants approved is AWAITING_APPROVAL and isn't dispatched. It becomes READY when as many have
approved it as the rule wants, CANCELLED when one of them rejects it, or when it has waited for too long: nothing is
paid then. An approval is of exactly what there is: whatever is changed afterwards begins anew.

Nobody approves what they have a part in. A key has no part in what another made, unless one of the two made the other
(or the one that made it…), or the same person made both. Nor do two count as two others who have a part in each other:
all that approve a payout are apart. The database holds to all of this by itself: it takes no vote of an author, nor one
of somebody who has approved already, and lets nothing that awaits approval become ready without the votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from strongroom.access import Payment, Permission, require
from strongroom.audit import record
from strongroom.database import Operation
from strongroom.kernel.errors import Conflict, Failure, Forbidden, Invalid, NotFound
from strongroom.kernel.money import Money
from strongroom.payments import _awaiting
from strongroom.payments.contents import (
    InstructionContent,
    decode_instruction,
    encode,
    instruction_id_of,
    order_id_of,
)
from strongroom.payments.instructions import add_event, instruction_not_found

MAX_LISTED: Final = 1_000
"""Most that is listed, or voted on together, at a time."""
Word = Literal["APPROVE", "REJECT"]
REJECTED: Final = "APPROVAL_REJECTED"
EXPIRED: Final = "APPROVAL_EXPIRED"
"""Why an instruction was cancelled, as its history says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A payout that waits. `given` counts the approvals that it has, of those `needed`."""

    order_ref: str
    instruction_ref: str
    customer_ref: str
    money: Money
    country: str
    settled_by: date
    needed: int
    given: int
    content_hash: bytes
    created_at: datetime
    expires_at: datetime
    batch_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Locked:
    """A payout that waits, and whose rows are locked until the operation's end."""

    order_id: UUID
    instruction_id: UUID
    version: int
    needed: int
    content_hash: bytes
    authors: Sequence[str]
    makers: Sequence[str]
    expires_at: datetime
    terms: _awaiting.Terms
    content: InstructionContent


_COLUMNS: Final = """
    i.order_id, i.instruction_id, i.direction, i.currency, i.country, i.settled_by, i.scheme_id,
    i.financial_instrument_id, i.sealed, a.version, a.needed, a.content_hash, a.authors, a.makers, a.created_at,
    a.expires_at, a.batch_id
"""
_FROM: Final = (
    "from approvals a join instructions i using (tenant_id, order_id, instruction_id) where a.state = 'PENDING'"
)
_VOTED: Final = """
    select from approval_votes v where v.version = a.version and v.approver = %s
    and (v.tenant_id, v.order_id, v.instruction_id) = (a.tenant_id, a.order_id, a.instruction_id)
"""


async def list_waiting(op: Operation) -> Sequence[Waiting]:
    """What waits for approval, the next to expire first. Raises errors.Forbidden."""
    require(op, Permission.PAYMENTS_APPROVE)
    rows = await op.rows(
        f"select {_COLUMNS}, (select count(*) from approval_votes v where v.version = a.version "  # noqa: S608  constants
        "and (v.tenant_id, v.order_id, v.instruction_id) = (a.tenant_id, a.order_id, a.instruction_id)) "
        f"{_FROM} and a.expires_at > %s order by a.expires_at, i.instruction_id limit %s",
        op.now,
        MAX_LISTED,
    )
    return [_waiting(op, row) for row in rows]


async def decide(
    op: Operation, order_ref: str, instruction_ref: str, word: Word, content_hash: bytes | None = None
) -> None:
    """Approve or reject a payout. `content_hash`: only if that is what it still is; nobody approves without it.

    Raises errors.Forbidden (also `APPROVER_IS_AUTHOR`, `APPROVER_HAS_APPROVED`), errors.Invalid
    (`CONTENT_HASH_IS_REQUIRED`), errors.NotFound (`INSTRUCTION_NOT_FOUND`) and errors.Conflict (`NOTHING_TO_APPROVE`,
    `APPROVAL_EXPIRED`, `APPROVAL_CONTENT_CHANGED`, `ALREADY_DECIDED`).
    """
    require(op, Permission.PAYMENTS_APPROVE)
    if word == "APPROVE" and content_hash is None:
        raise Invalid(
            Failure(
                "CONTENT_HASH_IS_REQUIRED",
                "Send the contentHash that the list of what waits has, so that what is approved is what you looked at.",
            )
        )
    order_id, instruction_id = order_id_of(op, order_ref), instruction_id_of(op, order_ref, instruction_ref)
    # Whoever changes an instruction locks it first, so this does too.
    found = await op.row(
        "select from instructions where order_id = %s::uuid and instruction_id = %s::uuid for update",
        order_id.hex(),
        instruction_id.hex(),
    )
    if found is None:
        raise instruction_not_found()
    rows = await op.rows(
        f"select {_COLUMNS} {_FROM} and a.order_id = %s::uuid and a.instruction_id = %s::uuid for update of a",
        order_id.hex(),
        instruction_id.hex(),
    )
    if not rows:
        raise Conflict(Failure("NOTHING_TO_APPROVE", "The instruction doesn't wait for approval."))
    locked = _locked(op, rows[0])
    if content_hash is not None and content_hash != locked.content_hash:
        raise _changed()
    await _decide(op, locked, word)


async def decide_batch(op: Operation, batch: UUID, word: Word) -> tuple[int, int]:
    """Approve or reject what waits of a bulk job; how many were, and how many more wait for another call.

    All of it or, where one can't be decided, none. What was changed after the upload isn't of the job any more. Raises
    as `decide`, and errors.NotFound (`BULK_JOB_NOT_FOUND`) and errors.Conflict (`BULK_JOB_NOT_COMPLETED`: an upload
    that can grow isn't approved).
    """
    require(op, Permission.PAYMENTS_APPROVE)
    job = await op.row("select status from bulk_jobs where job_id = %s for share", batch)
    if job is None:
        raise NotFound(Failure("BULK_JOB_NOT_FOUND", "There is no such bulk job in this tenant."))
    if word == "APPROVE" and job[0] != "COMPLETED":
        raise Conflict(
            Failure(
                "BULK_JOB_NOT_COMPLETED",
                "The upload hasn't ended and may bring more. Wait for it, or approve its payouts one by one.",
            )
        )
    (approver,), _ = await _awaiting.authors_of(op)
    rows = await op.rows(
        f"select {_COLUMNS} {_FROM} and a.batch_id = %s and a.expires_at > %s and not exists "
        f"({_VOTED}) order by i.order_id, i.instruction_id limit %s for update of i, a",
        batch,
        op.now,
        approver,
        MAX_LISTED,
    )
    for row in rows:
        await _decide(op, _locked(op, row), word)
    await record(op, f"payment-batch.{word.lower()}", "bulk-job", batch, detail=f"instructions={len(rows)}")
    return len(rows), await _count_waiting(op, batch, approver)


async def expire(op: Operation) -> int:
    """Cancel what has waited for too long; how many. For the worker."""
    rows = await op.rows(
        f"select {_COLUMNS} {_FROM} and a.expires_at <= %s order by i.order_id, i.instruction_id limit %s "
        "for update of i, a skip locked",
        op.now,
        MAX_LISTED,
    )
    for row in rows:
        await _cancel(op, _locked(op, row), "EXPIRED", EXPIRED)
    return len(rows)


async def _decide(op: Operation, locked: _Locked, word: Word) -> None:
    if op.now >= locked.expires_at:
        raise Conflict(Failure("APPROVAL_EXPIRED", "The instruction has waited for too long, and will be cancelled."))
    if locked.terms.seal(op) != locked.content_hash:
        raise _changed()
    (approver,), makers = await _awaiting.authors_of(op)
    if word == "APPROVE":
        await _check_apart(op, locked, approver, makers)
    terms = locked.terms
    require(
        op,
        Permission.PAYMENTS_APPROVE,
        Payment(country=terms.country, currency=terms.currency, minor=terms.minor, today=terms.minor),
    )
    voted = await op.run(
        "insert into approval_votes (tenant_id, order_id, instruction_id, version, approver, makers, verdict, "
        "content_hash, at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
        op.tenant,
        locked.order_id,
        locked.instruction_id,
        locked.version,
        approver,
        makers,
        word,
        locked.content_hash,
        op.now,
    )
    if not voted:
        raise Conflict(Failure("ALREADY_DECIDED", "You have said so already; it takes others as well."))
    row = await op.row(
        "select count(*) from approval_votes where order_id = %s and instruction_id = %s and version = %s "
        "and verdict = 'APPROVE'",
        locked.order_id,
        locked.instruction_id,
        locked.version,
    )
    given = 0 if row is None else row[0]
    detail = f"{given} of {locked.needed}"
    await record(op, f"payment.{word.lower()}", "instruction", locked.instruction_id.hex, detail=detail)
    if word == "REJECT":
        await _cancel(op, locked, "REJECTED", REJECTED)
    elif given >= locked.needed:
        await _release(op, locked)


async def _count_waiting(op: Operation, batch: UUID, approver: str) -> int:
    row = await op.row(
        f"select count(*) {_FROM} and a.batch_id = %s and a.expires_at > %s and not exists ({_VOTED})",
        batch,
        op.now,
        approver,
    )
    return 0 if row is None else int(row[0])


async def _check_apart(op: Operation, locked: _Locked, approver: str, makers: Sequence[str]) -> None:
    """Approvals come from those who have no part in what was made, nor in who has approved it before."""
    if not await _is_apart(op, approver, makers, locked.authors, locked.makers):
        raise Forbidden(
            Failure(
                "APPROVER_IS_AUTHOR",
                "Somebody else has to approve this: you made or changed it, or have a part in the key that did.",
            )
        )
    votes = await op.rows(
        "select approver, makers from approval_votes where order_id = %s and instruction_id = %s and version = %s "
        "and verdict = 'APPROVE' and approver <> %s",
        locked.order_id,
        locked.instruction_id,
        locked.version,
        approver,
    )
    for earlier, earlier_makers in votes:
        if not await _is_apart(op, approver, makers, [earlier], earlier_makers):
            raise Forbidden(
                Failure(
                    "APPROVER_HAS_APPROVED",
                    "It takes somebody else as well: you have approved this with another key, or have a part in the "
                    "key that did.",
                )
            )


async def _is_apart(
    op: Operation, approver: str, makers: Sequence[str], others: Sequence[str], other_makers: Sequence[str]
) -> bool:
    row = await op.row(
        "select is_independent(%s, %s::text[], %s::text[], %s::text[])",
        approver,
        list(makers),
        list(others),
        list(other_makers),
    )
    return row is not None and bool(row[0])


async def _release(op: Operation, locked: _Locked) -> None:
    """The payment may go. What it is asked for goes by its day, which may have passed."""
    await _end(op, locked, "APPROVED")
    await op.run(
        "update instructions set status = 'READY', updated_at = %s where order_id = %s and instruction_id = %s",
        op.now,
        locked.order_id,
        locked.instruction_id,
    )
    await op.run(
        "insert into due_work (tenant_id, due_on) values (%s, %s::date - 1) on conflict do nothing",
        op.tenant,
        locked.terms.settled_by,
    )
    await add_event(op, locked.order_id.bytes, locked.instruction_id.bytes, "READY", reason="approved")


async def _cancel(op: Operation, locked: _Locked, state: str, reason: str) -> None:
    await _end(op, locked, state)
    sealed = encode(msgspec.structs.replace(locked.content, cancel_reason=reason))
    await op.run(
        "update instructions set status = 'CANCELLED', sealed = %s, updated_at = %s "
        "where order_id = %s and instruction_id = %s",
        op.cipher.seal("instructions", "sealed", locked.instruction_id.bytes, sealed),
        op.now,
        locked.order_id,
        locked.instruction_id,
    )
    await add_event(op, locked.order_id.bytes, locked.instruction_id.bytes, "CANCELLED", reason=reason)
    await record(op, "instruction.cancel", "instruction", locked.instruction_id.hex, detail=reason)


async def _end(op: Operation, locked: _Locked, state: str) -> None:
    await op.run(
        "update approvals set state = %s, ended_at = %s where order_id = %s and instruction_id = %s",
        state,
        op.now,
        locked.order_id,
        locked.instruction_id,
    )


def _locked(op: Operation, row: Sequence[Any]) -> _Locked:
    content = decode_instruction(op.cipher.open("instructions", "sealed", row[1].bytes, row[8]))
    terms = _awaiting.Terms(
        direction=row[2],
        minor=content.minor,
        currency=row[3],
        country=row[4],
        settled_by=row[5],
        scheme_id=row[6],
        financial_instrument_id=None if row[7] is None else row[7].hex,
        customer_ref=content.customer_ref,
    )
    return _Locked(
        order_id=row[0],
        instruction_id=row[1],
        version=row[9],
        needed=row[10],
        content_hash=row[11],
        authors=row[12],
        makers=row[13],
        expires_at=row[15],
        terms=terms,
        content=content,
    )


def _waiting(op: Operation, row: Sequence[Any]) -> Waiting:
    content = decode_instruction(op.cipher.open("instructions", "sealed", row[1].bytes, row[8]))
    return Waiting(
        order_ref=content.order_ref,
        instruction_ref=content.ref,
        customer_ref=content.customer_ref,
        money=Money(content.minor, row[3]),
        country=row[4],
        settled_by=row[5],
        needed=row[10],
        given=row[17],
        content_hash=row[11],
        created_at=row[14],
        expires_at=row[15],
        batch_id=row[16],
    )


def _changed() -> Conflict:
    return Conflict(
        Failure("APPROVAL_CONTENT_CHANGED", "The instruction isn't any more what you looked at. Look at it again.")
    )
