"""The decision: may this actor do this here?"""

from __future__ import annotations

from strongroom.access.roles import Permission, permissions_of
from strongroom.database import Operation
from strongroom.kernel.actors import Actor, ActorKind
from strongroom.kernel.errors import Failure, Forbidden


def allows(actor: Actor, permission: Permission) -> bool:
    """Whether the actor holds the permission. Our own processes and the installation's operator hold all."""
    if actor.kind in {ActorKind.API_KEY, ActorKind.PERSON}:
        return permission in permissions_of(actor.roles) and is_within_scopes(actor, permission)
    return actor.kind is not ActorKind.STRANGER


def is_within_scopes(actor: Actor, permission: Permission) -> bool:
    """Whether the token that the actor came with is good for the permission at all (RFC 6749 section 3.3)."""
    return actor.scopes is None or permission.value in actor.scopes


def require(op: Operation, permission: Permission) -> None:
    """Go on only if the operation's actor holds the permission and acts where it belongs.

    Raises errors.Forbidden (`FORBIDDEN`) otherwise, naming the permission that is missing.
    """
    actor = op.actor
    if (
        allows(actor, permission)
        and (actor.account_id is None or actor.account_id == op.account_id)
        and (actor.tenant_id is None or actor.tenant_id == op.tenant_id)
    ):
        return
    raise Forbidden(
        Failure(
            "FORBIDDEN",
            "This needs the permission {permission}, which the roles of this key don't include here.",
            {"permission": permission.value},
        )
    )
