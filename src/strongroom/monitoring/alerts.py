"""Reading alerts: a tenant its own, an account those of all its tenants in the operation's region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from strongroom.access import Permission, require
from strongroom.database import Operation
from strongroom.kernel.ids import TenantId

_LAST = UUID(int=(1 << 128) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What somebody should look at. Ids grow with time."""

    alert_id: UUID
    tenant_id: TenantId
    kind: str
    subject_kind: str
    subject_id: str
    detail: str
    raised_at: datetime


async def list_alerts(op: Operation, *, before: UUID | None = None, take: int = 100) -> Sequence[Alert]:
    """Newest first; `before` is the last one of the page before."""
    require(op, Permission.ALERTS_READ)
    rows = await op.rows(
        "select alert_id, tenant_id, kind, subject_kind, subject_id, detail, raised_at from alerts "
        "where account_id = %s and tenant_id = coalesce(%s, tenant_id) and alert_id < %s "
        "order by alert_id desc limit %s",
        op.account,
        op.tenant_id,
        before or _LAST,
        take,
    )
    return [
        Alert(
            alert_id=row[0],
            tenant_id=row[1],
            kind=row[2],
            subject_kind=row[3],
            subject_id=row[4],
            detail=row[5],
            raised_at=row[6],
        )
        for row in rows
    ]
