"""Audit entries.

Written in the operation of the change they tell of, so that neither exists without the other; a refusal is written in
an operation of its own. The application's role may insert and read, never change or remove. Entries hold ids, keyed
hashes and codes: nothing that describes a payment or a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from strongroom.database import Operation, pack_texts

Outcome = Literal["done", "refused"]


class Entry(msgspec.Struct, frozen=True, gc=False):
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
    await op.rows_named(
        """
        with written as (
            insert into audit_entries (at, account_id, tenant_id, actor_kind, actor_id,
                                       action, subject_kind, subject_id, outcome, detail, correlation_id)
            select %(now)s, %(account)s, %(tenant)s, %(actor_kind)s, %(actor_id)s,
                   action, subject_kind, subject_id, outcome, detail, correlation_id
            from unnest(%(actions)s, %(kinds)s, %(subjects)s, %(outcomes)s, %(details)s, %(correlations)s)
                 as t(action, subject_kind, subject_id, outcome, detail, correlation_id))
        select 1
        """,
        {
            "now": op.now,
            "account": op.account_id,
            "tenant": op.tenant_id,
            "actor_kind": op.actor.kind.value,
            "actor_id": str(op.actor.key_id or op.actor.name),
            "actions": pack_texts([entry.action for entry in entries]),
            "kinds": pack_texts([entry.subject_kind for entry in entries]),
            "subjects": pack_texts([entry.subject_id for entry in entries]),
            "outcomes": pack_texts([entry.outcome for entry in entries]),
            "details": pack_texts([entry.detail for entry in entries]),
            "correlations": pack_texts([entry.correlation_id for entry in entries]),
        },
    )
