"""What the card vault asks about the holders of access tokens that come to its own door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from strongroom.access import Permission
from strongroom.api.routing import Access, Call, Reply, Route
from strongroom.database import Operation


class RightBody(msgspec.Struct, rename="camel"):
    """The token's key exists, and its holder may do this, in this tenant."""

    tenant_id: str
    public_key: str


async def _right(op: Operation, call: Call) -> Reply:
    return Reply(200, RightBody(tenant_id=str(op.tenant), public_key=str(call.actor.key_id)))


def _route(right: str, summary: str, permission: Permission) -> Route:
    return Route(
        method="GET",
        path=f"/v1/card-vault/rights/{right}",
        summary=summary,
        tag="Card vault",
        access=Access.TENANT,
        permission=permission,
        operation=_right,
        replies={200: RightBody},
    )


ROUTES: Final[Sequence[Route]] = (
    _route("take", "Whether this token may give card numbers to the card vault", Permission.CARDS_WRITE),
    _route("move", "Whether this token may move cards between vaults", Permission.CARDS_MOVE),
)
