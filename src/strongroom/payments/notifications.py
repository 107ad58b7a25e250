"""What providers tell us on their own: callbacks, read by their connectors and recorded like any other answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Final
from uuid import UUID

from strongroom.audit import record
from strongroom.database import Databases, Operation, in_operation
from strongroom.kernel.actors import system
from strongroom.kernel.errors import Failure, NotFound
from strongroom.kernel.ids import TenantId
from strongroom.payments.apps import get_settings
from strongroom.payments.dispatch import ProviderFor
from strongroom.payments.transactions import apply_outcome
from strongroom.rails.contract import Outcome, OutcomeKind
from strongroom.rails.marketplace import get_app

RECEIVER: Final = system("notifications")
_REFERENCE: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


class NotificationReceiver:
    """Takes callbacks for any tenant's installed apps."""

    def __init__(self, databases: Databases, providers: ProviderFor) -> None:
        self._databases = databases
        self._providers = providers

    async def receive(
        self, tenant: TenantId, app_id: str, headers: Mapping[str, str], body: bytes, correlation_id: str
    ) -> int:
        """Record a callback's outcomes; returns how many changed something. Duplicates and late ones change nothing.

        Raises errors.NotFound (`TENANT_NOT_FOUND`, `APP_NOT_INSTALLED`, `NOTIFICATION_NOT_EXPECTED`) and
        errors.Unauthenticated (`NOTIFICATION_SIGNATURE_INVALID`).
        """
        if get_app(app_id).is_file_rail:
            raise NotFound(Failure("NOTIFICATION_NOT_EXPECTED", "This app sends no notifications."))
        begin = partial(self._databases.operation, RECEIVER, tenant=tenant, correlation_id=correlation_id)
        settings = await in_operation(begin, lambda op: get_settings(op, app_id))
        outcomes = self._providers(tenant, app_id, settings).read_notification(headers, body)
        changed = 0
        for outcome in outcomes:
            changed += await in_operation(begin, partial(_apply, app_id, outcome))
        return changed


async def _apply(app_id: str, outcome: Outcome, op: Operation) -> bool:
    """Record what a callback says of one payment; whether that changed something."""
    transaction_id = await _find(op, app_id, outcome.reference)
    if transaction_id is None:
        await record(op, "notification.unknown-reference", "app", app_id, outcome="refused")
    elif outcome.kind is OutcomeKind.UNCONFIRMED:
        # The provider is telling us something, and we don't know what; an enquiry will.
        await record(op, "notification.not-understood", "transaction", transaction_id, outcome="refused")
    else:
        return await apply_outcome(op, transaction_id, outcome)
    return False


async def _find(op: Operation, app_id: str, reference: str) -> UUID | None:
    """The transaction of this reference, if it is one of this app's: an app speaks for its own payments only."""
    if not _REFERENCE.fullmatch(reference):
        return None
    row = await op.row(
        "select transaction_id from transactions where tenant_id = %s and transaction_id = %s and app_id = %s",
        op.tenant,
        UUID(hex=reference),
        app_id,
    )
    return None if row is None else row[0]
