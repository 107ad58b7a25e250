"""What providers tell us on their own: callbacks, read by their connectors and recorded like any other answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from time import monotonic
from typing import Final
from uuid import UUID

import structlog

from strongroom.audit import record
from strongroom.database import Databases, Operation, in_operation
from strongroom.kernel.actors import system
from strongroom.kernel.clock import sleep_until
from strongroom.kernel.errors import Failure, Forbidden, NotFound, Unauthenticated
from strongroom.kernel.ids import TenantId
from strongroom.payments.apps import get_settings
from strongroom.payments.dispatch import ProviderFor
from strongroom.payments.transactions import apply_outcome
from strongroom.rails.contract import Outcome, OutcomeKind, Provider
from strongroom.rails.marketplace import get_app

log = structlog.get_logger(__name__)

RECEIVER: Final = system("notifications")
REFUSED_AFTER_S: Final = 0.25
"""How long after it came a callback is refused: long enough to have found out, whatever had to be looked for."""
_REFERENCE: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


class NotificationReceiver:
    """Takes callbacks for any tenant's installed apps."""

    def __init__(self, databases: Databases, providers: ProviderFor) -> None:
        self._databases = databases
        self._providers = providers

    async def receive(
        self, tenant: TenantId | None, app_id: str, headers: Mapping[str, str], body: bytes, correlation_id: str
    ) -> int:
        """Record a callback's outcomes; returns how many changed something. Duplicates and late ones change nothing.

        `tenant` is None when what was sent can't be one's id. Raises errors.Unauthenticated
        (`NOTIFICATION_SIGNATURE_INVALID`) whether the tenant, its app or the signature is wrong, after the same time:
        who can't sign learns nothing of who is here and what they use. Raises errors.Unavailable when something needed
        to tell is away, and what the app's connector raises for a genuine callback that says nothing.
        """
        refuse_at = monotonic() + REFUSED_AFTER_S
        begin = partial(self._databases.operation, RECEIVER, tenant=tenant, correlation_id=correlation_id)
        try:
            provider = await self._find_provider(tenant, app_id, begin)
            outcomes = provider.read_notification(headers, body)
        except (NotFound, Forbidden, Unauthenticated) as error:
            log.info("notification.refused", code=error.code, tenant=str(tenant), correlation_id=correlation_id)
            await sleep_until(refuse_at)
            raise Unauthenticated(
                Failure(
                    "NOTIFICATION_SIGNATURE_INVALID",
                    "There is no such tenant with such an app, or the signature is not its provider's, or it is older "
                    "than five minutes.",
                )
            ) from None
        changed = 0
        for outcome in outcomes:
            changed += await in_operation(begin, partial(_apply, app_id, outcome))
        return changed

    async def _find_provider(
        self, tenant: TenantId | None, app_id: str, begin: Callable[[], AbstractAsyncContextManager[Operation]]
    ) -> Provider:
        """The provider behind the app. Raises errors.NotFound when there is none that calls back."""
        if tenant is None:
            raise NotFound(Failure("TENANT_NOT_FOUND", "There is no such tenant."))
        if get_app(app_id).is_file_rail:
            raise NotFound(Failure("NOTIFICATION_NOT_EXPECTED", "This app sends no notifications."))
        settings = await in_operation(begin, lambda op: get_settings(op, app_id))
        return self._providers(tenant, app_id, settings)


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
