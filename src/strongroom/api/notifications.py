"""Where providers call back. Authenticated by the provider's own signature, which its connector checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from strongroom.api.routing import Access, Call, Reply, Route
from strongroom.kernel.ids import TenantId, parse_uuid
from strongroom.payments.notifications import NotificationReceiver

PATH: Final = "/v1/notifications/{tenantId}/{appId}"


async def receive(call: Call) -> Reply:
    """POST a provider's notification: 204 once what it says is recorded."""
    tenant = parse_uuid(call.path["tenantId"])
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in call.headers.items()}
    receiver: NotificationReceiver = call.services.part(NotificationReceiver)
    await receiver.receive(
        None if tenant is None else TenantId(tenant), call.path["appId"], headers, call.body, call.correlation_id
    )
    return Reply(204)


ROUTES: Final[Sequence[Route]] = (
    Route(
        method="POST",
        path=PATH,
        summary="Tell what became of a payment (for providers)",
        tag="Notifications",
        access=Access.PUBLIC,
        call=receive,
        request=dict[str, Any],
        replies={204: None},
        errors=(401,),
    ),
)
