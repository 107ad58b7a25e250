"""Alerts: what somebody should look at, for a tenant and for an account over all its tenants."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from strongroom.access import Permission
from strongroom.api.reading import Collector
from strongroom.api.routing import Access, Call, Reply, Route
from strongroom.database import Operation
from strongroom.monitoring import Alert, list_alerts

DEFAULT_TAKE: Final = 100
MAX_TAKE: Final = 1000
_PAGING: Final = {
    "cursor": "Where the page begins, as the one before told.",
    "take": f"How many at most: 1 to {MAX_TAKE}; {DEFAULT_TAKE} unless given.",
}


class AlertBody(msgspec.Struct, rename="camel"):
    """What somebody should look at. `kind` says what was noticed, the subject about whom; `detail` gives figures."""

    alert_id: UUID
    tenant_id: UUID
    kind: str
    subject_kind: str
    subject_id: str
    detail: str
    raised_on: datetime


class AlertsBody(msgspec.Struct, rename="camel"):
    """A page of alerts, newest first; `cursor` is for the next one, null at the end."""

    alerts: list[AlertBody]
    cursor: str | None


async def _of_tenant(op: Operation, call: Call) -> Reply:
    before, take = _page(call)
    return _reply(await list_alerts(op, before=before, take=take + 1), take)


async def _of_account(call: Call) -> Reply:
    """Every region has the alerts of its own tenants."""
    before, take = _page(call)
    databases, actor = call.services.databases, call.actor
    found: list[Alert] = []
    for region in databases.regions:
        async with databases.operation(
            actor, account=actor.account_id, region=region, correlation_id=call.correlation_id
        ) as op:
            found += await list_alerts(op, before=before, take=take + 1)
    return _reply(sorted(found, key=lambda alert: alert.alert_id, reverse=True)[: take + 1], take)


def _page(call: Call) -> tuple[UUID | None, int]:
    found = Collector()
    cursor = found.uuid(call.query, "cursor", "CURSOR", required=False)
    given = call.query.get("take") or str(DEFAULT_TAKE)
    take = int(given) if given.isascii() and given.isdigit() and len(given) <= len(str(MAX_TAKE)) else 0
    if not 1 <= take <= MAX_TAKE:
        found.add("TAKE_OUT_OF_RANGE", "take must be a whole number from 1 to {limit}.", limit=MAX_TAKE)
    found.check()
    return cursor, take


def _reply(alerts: Sequence[Alert], take: int) -> Reply:
    page = [
        AlertBody(
            alert_id=alert.alert_id,
            tenant_id=alert.tenant_id,
            kind=alert.kind,
            subject_kind=alert.subject_kind,
            subject_id=alert.subject_id,
            detail=alert.detail,
            raised_on=alert.raised_at,
        )
        for alert in alerts[:take]
    ]
    return Reply(200, AlertsBody(page, str(page[-1].alert_id) if len(alerts) > take else None))


ROUTES: Final[Sequence[Route]] = (
    Route(
        method="GET",
        path="/v1/alerts",
        summary="The tenant's alerts",
        tag="Alerts",
        access=Access.TENANT,
        permission=Permission.ALERTS_READ,
        operation=_of_tenant,
        replies={200: AlertsBody},
        query=_PAGING,
    ),
    Route(
        method="GET",
        path="/v1/account/alerts",
        summary="The alerts of all the account's tenants",
        tag="Alerts",
        access=Access.ACCOUNT,
        permission=Permission.ALERTS_READ,
        call=_of_account,
        replies={200: AlertsBody},
        query=_PAGING,
    ),
)
