"""Audit entries.

Written in the operation of the change they tell of, so that neither exists without the other; a refusal is written in an
operation of its own. The application's role may insert and read, never change or remove. Entries hold ids, keyed hashes
and codes: nothing that describes a payment or a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from strongroom.database import Operation, pack_texts

Outcome = Literal["done", "refused"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened. `action` is `noun.verb`; `detail` is a short code or list of names, never a value."""

    action: str
    subject_kind: str
    subject_id: str
    outcome: Outcome = "done"
    detail: str = ""
    correlation_id: str = ""


async def record(
    op: Operation, action: str, subject_kind: str, subject_id: object, *, outcome: Outcome = "done", detail: str = ""
) -> None:
    """Add one entry to the record, in this operation."""
    await record_many(op, [Entry(action, subject_kind, str(subject_id), outcome, detail, op.correlation_id)])


async def record_many(op: Operation, entries: Sequence[Entry]) -> None:
    """Add entries to the record, in this operation, in order."""
    if not entries:
        return
    await op.run(
        """
        insert into audit_entries (at, account_id, tenant_id, actor_kind, actor_id,
                                   action, subject_kind, subject_id, outcome, detail, correlation_id)
        select %s, %s, %s, %s, %s, a, k, s, o, d, c
        from unnest(%s, %s, %s, %s, %s, %s) as t(a, k, s, o, d, c)
        """,
        op.now,
        op.account_id,
        op.tenant_id,
        op.actor.kind.value,
        str(op.actor.key_id or op.actor.name),
        pack_texts([entry.action for entry in entries]),
        pack_texts([entry.subject_kind for entry in entries]),
        pack_texts([entry.subject_id for entry in entries]),
        pack_texts([entry.outcome for entry in entries]),
        pack_texts([entry.detail for entry in entries]),
        pack_texts([entry.correlation_id for entry in entries]),
    )
