"""Keys whose cryptoperiod is over and that only their owner can replace: the owner is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from strongroom.audit import raise_alert
from strongroom.database import Operation
from strongroom.vault.envelopes import Layer
from strongroom.vault.records import Keys, Source, is_over

OVERDUE: Final = "key.overdue"
"""The kind of the alert."""
TOLD_AGAIN_AFTER: Final = timedelta(days=30)
"""How often that is told; `scopes_to_tend` has the same figure."""


async def tell_of_overdue(op: Operation, keys: Keys) -> None:
    """Raise an alert, and an entry in the record, if the customer's key is over and not ours to replace."""
    key = keys.current(Layer.CUSTOMER)
    if key is not None and key.source is not Source.KEPT and is_over(key, op.now):
        detail = f"version={key.version} source={key.source.value} expired={key.expires_at.date().isoformat()}"
        await raise_alert(op, OVERDUE, "key", op.scope, detail=detail, again_after=TOLD_AGAIN_AFTER)
