"""Alerts: what somebody should look at.

Written in the operation that gives the reason, beside an entry in the record and a line in the log. An alert holds
codes, ids and numbers, never values; it is read through `strongroom.monitoring`.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from strongroom.audit.record import record
from strongroom.database import Operation
from strongroom.kernel.ids import new_uuid

log = structlog.get_logger(__name__)


async def raise_alert(
    op: Operation, kind: str, subject_kind: str, subject_id: object, *, detail: str, again_after: timedelta
) -> bool:
    """Raise an alert of the operation's tenant unless one of this kind about the subject is younger than `again_after`.

    `kind` is `noun.what`; `detail` is made of codes and numbers. Returns whether it was raised.
    """
    is_known = await op.row(
        "select from alerts where tenant_id = %s and kind = %s and subject_id = %s and raised_at > %s limit 1",
        op.tenant,
        kind,
        str(subject_id),
        op.now - again_after,
    )
    if is_known is not None:
        return False
    alert_id = new_uuid()
    await op.run(
        "insert into alerts (tenant_id, alert_id, account_id, kind, subject_kind, subject_id, detail, raised_at) "
        "values (%s, %s, %s, %s, %s, %s, %s, %s)",
        op.tenant,
        alert_id,
        op.account,
        kind,
        subject_kind,
        str(subject_id),
        detail,
        op.now,
    )
    await record(op, "alert.raise", "alert", alert_id, detail=f"{kind} {subject_kind}={subject_id} {detail}")
    log.warning("alert.raised", kind=kind, tenant=str(op.tenant), subject=f"{subject_kind} {subject_id}", detail=detail)
    return True
