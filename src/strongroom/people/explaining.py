"""Why a key or a person may do something, or not: asked of what they hold now, whoever asks."""

from __future__ import annotations

from strongroom.access import Explanation, Payment, Permission, explain, situation_of, with_own_roles
from strongroom.database import Databases, Operation
from strongroom.identity import get_key
from strongroom.kernel.actors import Actor, ActorKind
from strongroom.kernel.ids import ApiKeyId, PersonId
from strongroom.people.grants import roles_of
from strongroom.people.persons import get_person


async def explain_key(
    op: Operation, databases: Databases, key: ApiKeyId, permission: Permission, payment: Payment | None = None
) -> Explanation:
    """Why a key of the operation's tenant (or account) may do this here and now, or not.

    Raises errors.Forbidden and errors.NotFound (`API_KEY_NOT_FOUND`).
    """
    held = (await get_key(op, key)).roles
    actor = await _actor(op, databases, ActorKind.API_KEY, str(key), held)
    return explain(actor, permission, situation_of(op, payment))


async def explain_person(op: Operation, databases: Databases, person: PersonId, permission: Permission) -> Explanation:
    """Why a person may do this in the operation's account now, or not; as if they had not proven themselves lately.

    Raises errors.NotFound (`USER_NOT_FOUND`).
    """
    found = await get_person(op, person)
    held = await roles_of(op, found.person_id, None)
    actor = await _actor(op, databases, ActorKind.PERSON, str(person), held)
    return explain(actor, permission, situation_of(op))


async def _actor(op: Operation, databases: Databases, kind: ActorKind, name: str, held: tuple[str, ...]) -> Actor:
    actor = Actor(kind=kind, name=name, account_id=op.account_id, tenant_id=op.tenant_id, roles=frozenset(held))
    return await with_own_roles(databases, actor)
