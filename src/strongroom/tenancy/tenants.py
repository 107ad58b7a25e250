"""Tenants: the isolated worlds of an account, in which everything about payments happens.

A tenant lives in one region, chosen when it is made and never changed; its name, address and history are sealed under
its own data key. Its life is `strongroom.tenancy.lifecycle`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from strongroom.access import Permission, require
from strongroom.audit import record
from strongroom.database import Databases, Operation
from strongroom.kernel.errors import AlreadyExists, Conflict, Failure, NotFound
from strongroom.kernel.ids import AccountId, TenantId
from strongroom.tenancy.accounts import UNLIMITED, Account
from strongroom.tenancy.addresses import Address
from strongroom.tenancy.lifecycle import TenantStatus, TenantStep, after


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusDetails:
    """When the tenant came to each status, and by whom (an API key's public half, or the operator)."""

    created_on: datetime
    created_by: str
    approved_on: datetime | None = None
    approved_by: str | None = None
    rejected_on: datetime | None = None
    rejected_by: str | None = None
    rejection_reason: str | None = None
    deleted_on: datetime | None = None
    deleted_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant."""

    account_id: AccountId
    tenant_id: TenantId
    name: str
    status: TenantStatus
    address: Address | None
    status_details: StatusDetails
    region: str


def plan_tenant(op: Operation, account: Account, *, name: str, address: Address | None, in_use: int) -> Tenant:
    """The tenant that the account would get in this operation; nothing is written. `in_use` counts those it has.

    Raises errors.Conflict (`TENANT_LIMIT_REACHED`) when the account's license allows no more.
    """
    require(op, Permission.TENANTS_WRITE)
    limit = account.license.max_tenants
    if limit != UNLIMITED and in_use >= limit:
        raise Conflict(
            Failure("TENANT_LIMIT_REACHED", "The account's license allows {maxTenants} tenants.", {"maxTenants": limit})
        )
    who = _who(op)
    details = StatusDetails(created_on=op.now, created_by=who)
    status = TenantStatus.AWAITING_APPROVAL
    if not account.tenant_creation_approval_required:
        status = after(status, TenantStep.APPROVE)
        details = dataclasses.replace(details, approved_on=op.now, approved_by=who)
    return Tenant(
        account_id=account.account_id,
        tenant_id=op.tenant,
        name=name,
        status=status,
        address=address,
        status_details=details,
        region=op.region,
    )


async def create_tenant(op: Operation, tenant: Tenant) -> None:
    """Write the tenant in its region; the operation's scope has data keys already.

    Raises errors.AlreadyExists (`TENANT_ALREADY_EXISTS`).
    """
    require(op, Permission.TENANTS_WRITE)
    written = await op.run(
        "insert into tenants (tenant_id, account_id, status, sealed, created_at, updated_at) "
        "values (%s, %s, %s, %s, %s, %s) on conflict do nothing",
        tenant.tenant_id,
        tenant.account_id,
        tenant.status.value,
        _seal(op, tenant),
        op.now,
        op.now,
    )
    if not written:
        raise AlreadyExists(Failure("TENANT_ALREADY_EXISTS", "This tenant exists already."))
    await record(op, "tenant.create", "tenant", tenant.tenant_id, detail=tenant.status.value)


async def register_tenant(databases: Databases, tenant: Tenant) -> None:
    """Tell the directory where the tenant lives, after its row is written there."""
    async with databases.directory() as directory:
        await directory.execute(
            "insert into tenants (tenant_id, account_id, region) values (%s, %s, %s) on conflict do nothing",
            (tenant.tenant_id, tenant.account_id, tenant.region),
        )


async def get_tenant(op: Operation) -> Tenant:
    """The operation's tenant. Raises errors.NotFound (`TENANT_NOT_FOUND`)."""
    tenant = await find_tenant(op)
    if tenant is None:
        raise NotFound(Failure("TENANT_NOT_FOUND", "There is no such tenant."))
    return tenant


async def find_tenant(op: Operation) -> Tenant | None:
    """The operation's tenant, or None."""
    require(op, Permission.TENANTS_READ if op.actor.tenant_id is None else Permission.TENANT_MANAGE)
    row = await op.row("select sealed from tenants where tenant_id = %s", op.tenant)
    return None if row is None else _DECODER.decode(op.cipher.open("tenants", "sealed", op.tenant.bytes, row[0]))


async def update_tenant(op: Operation, *, name: str, address: Address | None) -> Tenant:
    """Replace the tenant's name and address. Raises errors.NotFound, errors.Conflict (`TENANT_STATUS_CONFLICT`)."""
    require(op, Permission.TENANTS_WRITE if op.actor.tenant_id is None else Permission.TENANT_MANAGE)
    tenant = await _take(op)
    status = after(tenant.status, TenantStep.UPDATE)
    return await _write(op, dataclasses.replace(tenant, status=status, name=name, address=address), TenantStep.UPDATE)


async def approve_tenant(op: Operation) -> Tenant:
    """Let the tenant act. Raises errors.NotFound, errors.Conflict (`TENANT_STATUS_CONFLICT`)."""
    require(op, Permission.TENANTS_APPROVE)
    tenant = await _take(op)
    details = dataclasses.replace(tenant.status_details, approved_on=op.now, approved_by=_who(op))
    return await _step(op, tenant, TenantStep.APPROVE, details)


async def reject_tenant(op: Operation, *, reason: str) -> Tenant:
    """Refuse the tenant. Raises errors.NotFound, errors.Conflict (`TENANT_STATUS_CONFLICT`)."""
    require(op, Permission.TENANTS_APPROVE)
    tenant = await _take(op)
    details = dataclasses.replace(
        tenant.status_details, rejected_on=op.now, rejected_by=_who(op), rejection_reason=reason
    )
    return await _step(op, tenant, TenantStep.REJECT, details)


async def delete_tenant(op: Operation) -> Tenant:
    """End the tenant: its keys stop at once, its records stay as long as the law asks.

    Raises errors.NotFound, errors.Conflict (`TENANT_STATUS_CONFLICT`).
    """
    require(op, Permission.TENANTS_WRITE)
    tenant = await _take(op)
    details = dataclasses.replace(tenant.status_details, deleted_on=op.now, deleted_by=_who(op))
    return await _step(op, tenant, TenantStep.DELETE, details)


async def _step(op: Operation, tenant: Tenant, step: TenantStep, details: StatusDetails) -> Tenant:
    changed = dataclasses.replace(tenant, status=after(tenant.status, step), status_details=details)
    return await _write(op, changed, step)


async def _take(op: Operation) -> Tenant:
    """The tenant, locked until the operation's end, so that two steps can't both start from one status."""
    await op.run("select from tenants where tenant_id = %s for update", op.tenant)
    row = await op.row("select sealed from tenants where tenant_id = %s", op.tenant)
    if row is None:
        raise NotFound(Failure("TENANT_NOT_FOUND", "There is no such tenant."))
    return _DECODER.decode(op.cipher.open("tenants", "sealed", op.tenant.bytes, row[0]))


async def _write(op: Operation, tenant: Tenant, step: TenantStep) -> Tenant:
    await op.run(
        "update tenants set status = %s, sealed = %s, updated_at = %s where tenant_id = %s",
        tenant.status.value,
        _seal(op, tenant),
        op.now,
        tenant.tenant_id,
    )
    await record(op, f"tenant.{step.value}", "tenant", tenant.tenant_id, detail=tenant.status.value)
    return tenant


def _who(op: Operation) -> str:
    return str(op.actor.key_id or op.actor.name)


def _seal(op: Operation, tenant: Tenant) -> bytes:
    return op.cipher.seal("tenants", "sealed", tenant.tenant_id.bytes, msgspec.msgpack.encode(tenant))


_DECODER: Final = msgspec.msgpack.Decoder(Tenant)
