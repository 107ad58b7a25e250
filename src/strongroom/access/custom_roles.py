"""Roles that accounts make themselves, and what may not be held together.

A role belongs to an account and is held in it, or in its tenants. Changing it makes another version, ending it a last
one, so that what somebody could do on a past day can still be told; the name of a role that has ended is never given
again, lest somebody who held the old one hold the new one. Definitions are in the directory, since an account acts in
every region; every request of somebody who holds such a role asks for them, so a change counts from the next one on.

Nobody gives away more than they have: who grants a role at their own level must hold all that it allows, without
conditions, and who lifts a denial what it denied. And nobody gets what an account wants apart (`DEFAULT_CONFLICTS`,
unless it says otherwise): making payments, approving them, and saying which are to be approved. Admins, who hold
everything of their level by the wire contract, are the exception.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import msgspec

from strongroom.access.decision import ACCOUNT_ROLES, TENANT_ROLES, holds_always, permissions_of, require
from strongroom.access.policies import check_rendered
from strongroom.access.roles import CUSTOM, Permission
from strongroom.audit import record
from strongroom.database import Databases, Operation
from strongroom.kernel.actors import Actor
from strongroom.kernel.custom_roles import CustomRole
from strongroom.kernel.errors import AlreadyExists, Broken, Conflict, Failure, Forbidden, NotFound

MAX_ROLES: Final = 100
"""Most roles of its own that an account has at a time."""
MAX_VERSIONS: Final = 10_000
"""Most versions of one role."""
MAX_PAIRS: Final = 100
NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}", re.ASCII)
"""How a role may be named; it is held as `custom:NAME`."""
LEVELS: Final = ("account", "tenant")
ADMINS: Final[Mapping[str, str]] = {"account": "account-admin", "tenant": "tenant-admin"}
"""The built-in role that holds all of a level."""
Pair = tuple[str, str]
DEFAULT_CONFLICTS: Final[tuple[Pair, ...]] = (
    (Permission.TRANSACTIONS_WRITE.value, Permission.PAYMENTS_APPROVE.value),
    (Permission.PAYMENTS_APPROVE.value, Permission.APPROVAL_RULES_MANAGE.value),
    (Permission.TRANSACTIONS_WRITE.value, Permission.APPROVAL_RULES_MANAGE.value),
)
"""What nobody holds together, where an account doesn't say otherwise."""


def permissions_of_level(level: str) -> frozenset[str]:
    """All permissions that can be held at a level (`account` or `tenant`)."""
    return frozenset(permission.value for permission in permissions_of(frozenset({ADMINS[level]})))


async def with_own_roles(databases: Databases, actor: Actor) -> Actor:
    """The actor, with what the account's own roles among theirs come to now. Roles that have ended come to nothing."""
    names = _own_names(actor.roles)
    if not names or actor.account_id is None:
        return actor
    level = "account" if actor.tenant_id is None else "tenant"
    known = await _find(databases, actor.account_id)
    held = (known.get(name) for name in names)
    return replace(actor, custom_roles=tuple(role for role in held if role is not None and role.level == level))


async def grantable(databases: Databases, account: UUID, tenant: UUID | None) -> frozenset[str]:
    """The names of all roles that can be held in a tenant, or (None) in the account itself."""
    level = "account" if tenant is None else "tenant"
    own = (role for role in (await _find(databases, account)).values() if role.level == level)
    names = {CUSTOM + role.name for role in own if tenant is None or not role.tenants or tenant in role.tenants}
    return (ACCOUNT_ROLES if tenant is None else TENANT_ROLES) | names


async def check_grant(op: Operation, databases: Databases, tenant: UUID | None, roles: Collection[str]) -> None:
    """Go on only if these roles may be held together, and the operation's actor may give them.

    Raises errors.Conflict (`ROLES_CONFLICT`) and errors.Forbidden (`GRANT_EXCEEDS_OWN`).
    """
    wanted = await check_apart(databases, op.account, tenant, roles)
    if op.actor.account_id is None or (op.actor.tenant_id is None) != (tenant is None):
        return  # Ourselves, or an account on behalf of its tenant, whose permissions it can't hold itself.
    _check_own(op.actor, wanted)


async def check_apart(
    databases: Databases, account: UUID, tenant: UUID | None, roles: Collection[str]
) -> frozenset[str]:
    """What these roles allow together in a tenant, or (None) in the account itself, if one may hold all of them.

    Raises errors.Conflict (`ROLES_CONFLICT`).
    """
    known = await _find(databases, account)
    own = [role for name in roles if (role := known.get(name.removeprefix(CUSTOM))) and name.startswith(CUSTOM)]
    wanted = {permission.value for permission in permissions_of(frozenset(roles))}
    wanted |= {permission for role in own for permission in role.permissions}
    if ADMINS["account" if tenant is None else "tenant"] not in roles:
        _check_apart(await _conflicts(databases, account), wanted)
    return frozenset(wanted)


async def list_roles(op: Operation, databases: Databases) -> Sequence[CustomRole]:
    """The account's own roles, by name. Raises errors.Forbidden."""
    require(op, Permission.ROLES_READ)
    known = await _find(databases, op.account)
    return [known[name] for name in sorted(known)]


async def get_role(op: Operation, databases: Databases, name: str) -> CustomRole:
    """One of the account's own roles. Raises errors.Forbidden and errors.NotFound (`ROLE_NOT_FOUND`)."""
    require(op, Permission.ROLES_READ)
    found = (await _find(databases, op.account)).get(name)
    if found is None:
        raise _not_found()
    return found


async def create_role(op: Operation, databases: Databases, role: CustomRole) -> None:
    """Make a role. The caller has checked its form.

    Raises errors.Forbidden, errors.AlreadyExists (`ROLE_NAME_IN_USE`, also by a role that has ended) and
    errors.Conflict (`ROLES_CONFLICT`, `ROLE_LIMIT_REACHED`).
    """
    require(op, Permission.ROLES_MANAGE)
    if len(await _find(databases, op.account)) >= MAX_ROLES:
        raise Conflict(
            Failure("ROLE_LIMIT_REACHED", "There are {limit} roles already. End one first.", {"limit": MAX_ROLES})
        )
    await _check(op, databases, role)
    await record(op, "role.create", "role", role.name, detail=_told(role))
    if not await _write(op, databases, role.name, 1, role):
        raise AlreadyExists(
            Failure(
                "ROLE_NAME_IN_USE",
                "There is, or was, a role {name}. Take another name: keys and people may still hold the old one.",
                {"name": role.name},
            )
        )


async def replace_role(op: Operation, databases: Databases, role: CustomRole) -> None:
    """Change what a role comes to, for all who hold it, from their next request on. Its level stays.

    Raises errors.Forbidden (also `GRANT_EXCEEDS_OWN`: what is denied no more is given), errors.NotFound
    (`ROLE_NOT_FOUND`) and errors.Conflict (`ROLES_CONFLICT`, `ROLE_LEVEL_IS_FIXED`, `ROLE_CHANGED_MEANWHILE`).
    """
    require(op, Permission.ROLES_MANAGE)
    before, version = await _latest(databases, op.account, role.name)
    if before.level != role.level:
        raise Conflict(Failure("ROLE_LEVEL_IS_FIXED", "A role stays at its level. Make another role instead."))
    await _check(op, databases, role)
    _check_lifted(op.actor, before, set(before.denied) - set(role.denied))
    await record(op, "role.change", "role", role.name, detail=f"{_told(before)} > {_told(role)}")
    await _next(op, databases, role.name, version, role)


async def end_role(op: Operation, databases: Databases, name: str) -> None:
    """End a role: whoever holds it holds nothing by it from their next request on, and is denied nothing by it.

    Raises errors.Forbidden (also `GRANT_EXCEEDS_OWN`), errors.NotFound (`ROLE_NOT_FOUND`) and errors.Conflict
    (`ROLE_CHANGED_MEANWHILE`).
    """
    require(op, Permission.ROLES_MANAGE)
    before, version = await _latest(databases, op.account, name)
    _check_lifted(op.actor, before, before.denied)
    await record(op, "role.end", "role", name, detail=_told(before))
    await _next(op, databases, name, version, None)


async def get_conflicts(op: Operation, databases: Databases) -> tuple[Pair, ...]:
    """The pairs of permissions that nobody holds together. Raises errors.Forbidden."""
    require(op, Permission.ROLES_READ)
    return await _conflicts(databases, op.account)


async def put_conflicts(op: Operation, databases: Databases, pairs: Sequence[Pair]) -> None:
    """Replace them; what is held already stays, and is refused at the next grant. Raises errors.Forbidden."""
    require(op, Permission.ROLES_MANAGE)
    before = await _conflicts(databases, op.account)
    await record(op, "role-conflicts.change", "account", op.account, detail=f"{_listed(before)} > {_listed(pairs)}")
    async with databases.directory() as directory:
        await directory.execute(
            "insert into role_conflicts (account_id, pairs, updated_at) values (%s, %s, %s) "
            "on conflict (account_id) do update set pairs = excluded.pairs, updated_at = excluded.updated_at",
            (op.account, msgspec.json.encode(pairs).decode(), op.now),
        )


async def _check(op: Operation, databases: Databases, role: CustomRole) -> None:
    _check_apart(await _conflicts(databases, op.account), role.permissions)
    if role.level == "account":
        _check_own(op.actor, role.permissions)
    if errors := check_rendered(role):
        raise Broken(Failure("POLICY_FAILED", "This role makes no policy: {error}", {"error": errors[0]}))


def _check_lifted(actor: Actor, role: CustomRole, permissions: Collection[str]) -> None:
    """Whom a role denies something doesn't lift that. Nobody who changes roles can hold one of a tenant's."""
    if role.level == "account":
        _check_own(actor, permissions)


def _check_own(actor: Actor, permissions: Collection[str]) -> None:
    missing = [name for name in permissions if not holds_always(actor, Permission(name))]
    if missing:
        raise Forbidden(
            Failure(
                "GRANT_EXCEEDS_OWN",
                "Nobody can give what they don't hold without conditions themselves: {permissions}.",
                {"permissions": ", ".join(sorted(missing))},
            )
        )


def _check_apart(conflicts: Collection[Pair], permissions: Collection[str]) -> None:
    for one, other in conflicts:
        if one in permissions and other in permissions:
            raise Conflict(
                Failure(
                    "ROLES_CONFLICT",
                    "{one} and {other} may not be held together: who does the one doesn't do the other.",
                    {"one": one, "other": other},
                )
            )


async def _find(databases: Databases, account: UUID) -> Mapping[str, CustomRole]:
    """The account's roles that haven't ended, by name."""
    rows = await databases.directory_rows(
        "select distinct on (role) definition from custom_roles where account_id = %s order by role, version desc",
        account,
    )
    roles = [msgspec.convert(row[0], CustomRole) for row in rows if row[0] is not None]
    return {role.name: role for role in roles}


async def _latest(databases: Databases, account: UUID, name: str) -> tuple[CustomRole, int]:
    rows = await databases.directory_rows(
        "select definition, version from custom_roles where account_id = %s and role = %s "
        "order by version desc limit 1",
        account,
        name,
    )
    if not rows or rows[0][0] is None:
        raise _not_found()
    return msgspec.convert(rows[0][0], CustomRole), rows[0][1]


async def _next(op: Operation, databases: Databases, name: str, version: int, role: CustomRole | None) -> None:
    if version >= MAX_VERSIONS or not await _write(op, databases, name, version + 1, role):
        raise Conflict(Failure("ROLE_CHANGED_MEANWHILE", "Somebody changed the role at the same moment. Look again."))


async def _write(op: Operation, databases: Databases, name: str, version: int, role: CustomRole | None) -> bool:
    """Write a version, last of all in the operation; whether there was none of that number."""
    definition: Any = None if role is None else msgspec.json.encode(role).decode()
    async with databases.directory() as directory:
        cursor = await directory.execute(
            "insert into custom_roles (account_id, role, version, definition, made_at) values (%s, %s, %s, %s, %s) "
            "on conflict do nothing",
            (op.account, name, version, definition, op.now),
        )
        return cursor.rowcount == 1


async def _conflicts(databases: Databases, account: UUID) -> tuple[Pair, ...]:
    rows = await databases.directory_rows("select pairs from role_conflicts where account_id = %s", account)
    return msgspec.convert(rows[0][0], tuple[Pair, ...]) if rows else DEFAULT_CONFLICTS


@lru_cache(maxsize=4096)
def _own_names(roles: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(role.removeprefix(CUSTOM) for role in roles if role.startswith(CUSTOM)))


def _told(role: CustomRole) -> str:
    """What the record says of a role: codes and figures, all of which the account's admins set."""
    return msgspec.json.encode(role).decode()


def _listed(pairs: Sequence[Pair]) -> str:
    return " ".join("+".join(pair) for pair in pairs) or "none"


def _not_found() -> NotFound:
    return NotFound(Failure("ROLE_NOT_FOUND", "The account has made no such role."))
