"""What providers tell us on their own: callbacks, read by the provider's connector and recorded like any other answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from strongroom.audit import record
from strongroom.database import Databases
from strongroom.kernel.actors import system
from strongroom.kernel.errors import Failure, NotFound
from strongroom.kernel.ids import TenantId
from strongroom.payments.apps import get_settings
from strongroom.payments.dispatch import ProviderFor
from strongroom.payments.transactions import apply_outcome
from strongroom.rails.marketplace import get_app

RECEIVER: Final = system("notifications")


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
        async with self._databases.operation(RECEIVER, tenant=tenant, correlation_id=correlation_id) as op:
            settings = await get_settings(op, app_id)
        outcomes = self._providers(tenant, app_id, settings).read_notification(headers, body)
        changed = 0
        for outcome in outcomes:
            async with self._databases.operation(RECEIVER, tenant=tenant, correlation_id=correlation_id) as op:
                try:
                    transaction_id = UUID(hex=outcome.reference)
                    changed += await apply_outcome(op, transaction_id, outcome)
                except (ValueError, NotFound):
                    await record(op, "notification.unknown-reference", "app", app_id, outcome="refused")
        return changed
