"""What is kept of payments in a tenant that has rules for approval: who made them, and what exactly is approved.

One row for each instruction, from its making on, also where nothing waits yet: whoever made a small payment is an
author of the large one that it becomes. Every change counts up the version, and an approval is of one version.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

import msgspec

from strongroom.database import Operation, pack_bytes, pack_uuids
from strongroom.kernel.actors import UNKNOWN_MAKER
from strongroom.payments.approval_rules import Wanted


class Terms(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """All that an approval is for: change any of it, and it is another payment."""

    direction: str
    minor: int
    currency: str
    country: str
    settled_by: date
    scheme_id: str | None
    financial_instrument_id: str | None
    customer_ref: str

    def seal(self, op: Operation) -> bytes:
        """A keyed hash of it, the tenant's own."""
        return op.cipher.index("approvals", "content_hash", msgspec.json.encode(self).decode())


class Awaiting(msgspec.Struct, frozen=True, gc=False):
    """A row of `approvals` to be written."""

    order_id: bytes
    instruction_id: bytes
    terms: Terms
    wanted: Wanted


def state_of(wanted: Wanted) -> str:
    """The state in which a payment begins, and begins again when it is changed."""
    return "PENDING" if wanted.approvals else "NOT_NEEDED"


async def authors_of(op: Operation) -> tuple[list[str], list[str]]:
    """The operation's actor, as an author, and whoever made the key that they act with."""
    actor = op.actor
    if actor.key_id is None:
        return [f"{actor.kind.value}:{actor.name}"], []
    row = await op.row("select made_by from api_keys where public_key = %s", actor.key_id)
    return [f"{actor.kind.value}:{actor.key_id}"], list(row[0] if row else ()) or [UNKNOWN_MAKER]


async def write_new(op: Operation, made: Sequence[Awaiting], batch: UUID | None) -> None:
    """Write rows for instructions that were just made."""
    if not made:
        return
    authors, makers = await authors_of(op)
    await op.run(
        "insert into approvals (tenant_id, order_id, instruction_id, batch_id, content_hash, state, needed, authors, "
        "makers, created_at, expires_at) "
        "select %s, t.order_id, t.instruction_id, %s::uuid, t.content_hash, t.state, t.needed, %s, %s, %s, "
        "t.expires_at "
        "from unnest(%s, %s, %s, %s::text[], %s::integer[], %s::timestamptz[]) "
        "as t(order_id, instruction_id, content_hash, state, needed, expires_at)",
        op.tenant,
        batch,
        authors,
        makers,
        op.now,
        pack_uuids([item.order_id for item in made]),
        pack_uuids([item.instruction_id for item in made]),
        pack_bytes([item.terms.seal(op) for item in made]),
        [state_of(item.wanted) for item in made],
        [item.wanted.approvals for item in made],
        [_end(op, item.wanted) for item in made],
    )
    await _plan_sweeps(op, [item.wanted for item in made])


async def write_changed(op: Operation, changed: Awaiting) -> None:
    """Write what an instruction has become; what was approved before isn't any more, and authors add up.

    It isn't what came with a bulk upload any more, so it is approved by itself.
    """
    authors, makers = await authors_of(op)
    await op.run(
        "insert into approvals (tenant_id, order_id, instruction_id, content_hash, state, needed, authors, makers, "
        "created_at, expires_at) values (%s, %s::uuid, %s::uuid, %s, %s, %s, %s, %s, %s, %s) "
        "on conflict (tenant_id, order_id, instruction_id) do update set content_hash = excluded.content_hash, "
        "state = excluded.state, needed = excluded.needed, authors = approvals.authors || excluded.authors, "
        "makers = approvals.makers || excluded.makers, expires_at = excluded.expires_at, "
        "version = approvals.version + 1, batch_id = null, ended_at = null",
        op.tenant,
        changed.order_id.hex(),
        changed.instruction_id.hex(),
        changed.terms.seal(op),
        state_of(changed.wanted),
        changed.wanted.approvals,
        authors,
        makers,
        op.now,
        _end(op, changed.wanted),
    )
    await _plan_sweeps(op, [changed.wanted])


async def end(op: Operation, order_id: bytes, instruction_id: bytes, state: str) -> None:
    """No approval is waited for any more."""
    await op.run(
        "update approvals set state = %s, ended_at = %s where order_id = %s::uuid and instruction_id = %s::uuid "
        "and state = 'PENDING'",
        state,
        op.now,
        order_id.hex(),
        instruction_id.hex(),
    )


async def lift(op: Operation, order_id: bytes, instruction_id: bytes) -> None:
    """A change after which no rule wants an approval any more, because there are none."""
    await op.run(
        "update approvals set state = 'NOT_NEEDED', needed = 0, expires_at = null, version = version + 1, "
        "batch_id = null where order_id = %s::uuid and instruction_id = %s::uuid",
        order_id.hex(),
        instruction_id.hex(),
    )


async def _plan_sweeps(op: Operation, wanted: Sequence[Wanted]) -> None:
    """Have the worker look in on the days on which payments have waited for too long."""
    days = {(op.now + item.within).date() for item in wanted if item.approvals}
    if days:
        await op.run(
            "insert into due_work (tenant_id, due_on) select %s, unnest(%s::date[]) on conflict do nothing",
            op.tenant,
            sorted(days),
        )


def _end(op: Operation, wanted: Wanted) -> datetime | None:
    return op.now + wanted.within if wanted.approvals else None
