"""Grants: who holds which role where, from when to when.

A role is held in the account itself or in one of its tenants. A grant is made and ended, never changed, so that what
somebody could do on a past day can still be told. `roles_of` is the one place that says what a person may do now:
custom roles and conditions come in here.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from strongroom.access import Permission, check_grant, grantable, require
from strongroom.audit import record
from strongroom.database import Databases, Operation
from strongroom.kernel.errors import Conflict, Failure, Invalid, NotFound
from strongroom.kernel.ids import PersonId, TenantId, new_uuid

_ADMIN: Final = "account-admin"


async def roles_in(op: Operation, databases: Databases, tenant: TenantId | None) -> frozenset[str]:
    """The roles that can be held in a tenant, or (None) in the account itself."""
    return await grantable(databases, op.account, tenant)


def require_users(op: Operation, tenant: TenantId | None, *, writes: bool) -> None:
    """Go on only if the actor may see (or change) who belongs to the account, or to one of its tenants.

    Raises errors.Forbidden (`FORBIDDEN`).
    """
    if tenant is None:
        require(op, Permission.USERS_MANAGE if writes else Permission.USERS_READ)
    else:
        require(op, Permission.TENANTS_WRITE if writes else Permission.TENANTS_READ)


async def check_roles(op: Operation, databases: Databases, tenant: TenantId | None, roles: Collection[str]) -> None:
    """Raises errors.Invalid (`ROLES_IS_REQUIRED`, `ROLES_NOT_RECOGNISED`), and as `access.check_grant`."""
    if not roles:
        raise Invalid(Failure("ROLES_IS_REQUIRED", "A person needs at least one role."))
    known = await roles_in(op, databases, tenant)
    if not known.issuperset(roles):
        choice = ", ".join(sorted(known))
        raise Invalid(Failure("ROLES_NOT_RECOGNISED", "The roles to choose from are {known}.", {"known": choice}))
    await check_grant(op, databases, tenant, roles)


async def check_tenant(databases: Databases, op: Operation, tenant: TenantId | None) -> None:
    """Raises errors.NotFound (`TENANT_NOT_FOUND`) unless it is one of the operation's account."""
    if tenant is not None and (await databases.locate_tenant(tenant))[0] != op.account:
        raise NotFound(Failure("TENANT_NOT_FOUND", "There is no such tenant."))


async def roles_of(op: Operation, person: PersonId, tenant: TenantId | None) -> tuple[str, ...]:
    """The roles that a person holds now in the account, or in one of its tenants; sorted."""
    rows = await op.rows(
        "select role from grants where person_id = %s and for_tenant is not distinct from %s and ended_at is null "
        "order by role",
        person,
        tenant,
    )
    return tuple(row[0] for row in rows)


async def set_roles(op: Operation, person: PersonId, tenant: TenantId | None, roles: Collection[str]) -> None:
    """End what a person holds there and isn't in `roles`, and grant what is missing. The caller has asked `require`.

    Raises errors.Conflict (`LAST_ADMIN`) when the account would be left without a person who is account-admin.
    """
    before = frozenset(await roles_of(op, person, tenant))
    wanted = frozenset(roles)
    if tenant is None and _ADMIN in before - wanted:
        await _keep_an_admin(op, person)
    by = op.actor.name
    await op.run(
        "update grants set ended_by = %s, ended_at = %s where person_id = %s and for_tenant is not distinct from %s "
        "and ended_at is null and role = any(%s)",
        by,
        op.now,
        person,
        tenant,
        sorted(before - wanted),
    )
    for role in sorted(wanted - before):
        await op.run(
            "insert into grants (account_id, grant_id, person_id, for_tenant, role, granted_by, granted_at) "
            "values (%s, %s, %s, %s, %s, %s, %s)",
            op.account,
            new_uuid(),
            person,
            tenant,
            role,
            by,
            op.now,
        )
    if before != wanted:
        where = "account" if tenant is None else f"tenant {tenant}"
        detail = f"{where}: {' '.join(sorted(before)) or 'none'} > {' '.join(sorted(wanted)) or 'none'}"
        await record(op, "grant.change", "person", person, detail=detail)


async def end_grants(op: Operation, person: PersonId) -> None:
    """End all that a person holds. Raises errors.Conflict (`LAST_ADMIN`)."""
    if _ADMIN in await roles_of(op, person, None):
        await _keep_an_admin(op, person)
    await op.run(
        "update grants set ended_by = %s, ended_at = %s where person_id = %s and ended_at is null",
        op.actor.name,
        op.now,
        person,
    )


async def _keep_an_admin(op: Operation, person: PersonId) -> None:
    """The rows stay locked until the operation's end, so that two admins can't remove each other at once."""
    rows = await op.rows(
        "select person_id from grants where role = %s and for_tenant is null and ended_at is null "
        "order by grant_id for update",
        _ADMIN,
    )
    if {row[0] for row in rows} <= {person}:
        raise Conflict(
            Failure("LAST_ADMIN", "This is the account's last person with the role account-admin. Grant another first.")
        )
