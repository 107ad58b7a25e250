"""An account's tenants, and the tenant of the key that asks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

import msgspec

from strongroom.access import Permission
from strongroom.api import idempotency
from strongroom.api.addresses import AddressBody, AddressRequest, address_body, read_address
from strongroom.api.named_tenant import in_named_tenant
from strongroom.api.reading import Collector, Object, read_object
from strongroom.api.routing import Access, Call, Reply, Route
from strongroom.database import Operation, in_operation
from strongroom.kernel.ids import TenantId, new_uuid
from strongroom.tenancy import (
    Account,
    Address,
    Tenant,
    approve_tenant,
    count_tenants,
    create_tenant,
    delete_tenant,
    find_account,
    find_tenant,
    get_tenant,
    plan_tenant,
    register_tenant,
    reject_tenant,
    update_tenant,
)
from strongroom.vault import Keyring, ensure_keys

MAX_NAME: Final = 100
MAX_REASON: Final = 500
MAX_TAKE: Final = 1_000
DEFAULT_TAKE: Final = 100


class StatusDetailsBody(msgspec.Struct, rename="camel"):
    """When the tenant came to each status, and by whom."""

    created_on: datetime
    created_by: str
    approved_on: datetime | None
    approved_by: str | None
    rejected_on: datetime | None
    rejected_by: str | None
    rejection_reason: str | None
    deleted_on: datetime | None
    deleted_by: str | None


class TenantBody(msgspec.Struct, rename="camel"):
    """A tenant. `region` is where its data lives."""

    account_id: str
    tenant_id: str
    name: str
    status: str
    address: AddressBody | None
    status_details: StatusDetailsBody
    region: str


class TenantsBody(msgspec.Struct, rename="camel"):
    """A page of tenants; `cursor` is for the next one, null at the end."""

    tenants: list[TenantBody]
    cursor: str | None


class NewTenantRequest(msgspec.Struct, rename="camel"):
    """A tenant to be made, in the account's home region unless another is named."""

    name: str
    address: AddressRequest | None = None
    region: str | None = None


class TenantRequest(msgspec.Struct, rename="camel"):
    """What can be changed of a tenant. An address that is left out is emptied."""

    name: str
    address: AddressRequest | None = None


class RejectionRequest(msgspec.Struct, rename="camel"):
    """Why a tenant is rejected."""

    reason: str


async def _list(call: Call) -> Reply:
    databases, actor = call.services.databases, call.actor
    found = Collector()
    take = _take(found, call.query.get("take", ""))
    cursor = found.uuid(call.query, "cursor", "CURSOR", required=False)
    found.check()
    async with call.operation() as op:
        known = await databases.list_tenants(op.account)
    after = [entry for entry in known if cursor is None or entry[0] > cursor]
    page: list[TenantBody] = []
    for tenant_id, region in after[:take]:
        begin = partial(databases.operation, actor, account=actor.account_id, tenant=tenant_id, region=region)
        tenant = await in_operation(begin, find_tenant)
        if tenant is not None:
            page.append(_body(tenant))
    more = len(after) > take
    return Reply(200, TenantsBody(tenants=page, cursor=str(after[take - 1][0]) if more else None))


async def _create(call: Call) -> Reply:
    services = call.services
    databases, actor = services.databases, call.actor
    source, found = read_object(call.body), Collector()
    name, address = _read(found, source)
    region = found.choice(source, "region", "REGION", databases.regions, required=False)
    found.check()
    assert actor.account_id is not None  # noqa: S101  # a route for accounts
    account_id = actor.account_id
    in_use = await count_tenants(databases, actor, account_id, databases.regions)

    async def look(op: Operation) -> tuple[Account | None, TenantId, str]:
        return await find_account(op), _id_for(op, call), op.region

    account, tenant_id, home = await call.run(look)
    assert account is not None  # noqa: S101  # its key has signed in

    async def make(op: Operation, _: Call) -> Reply:
        tenant = plan_tenant(op, account, name=name, address=address, in_use=in_use)
        await create_tenant(op, tenant)
        await register_tenant(databases, tenant)
        return Reply(201, _body(tenant))

    def operation() -> AbstractAsyncContextManager[Operation]:
        return databases.operation(
            actor,
            account=account_id,
            tenant=tenant_id,
            region=region or home,
            correlation_id=call.correlation_id,
        )

    await ensure_keys(services.part(Keyring), operation)
    return await in_operation(operation, lambda op: idempotency.once(op, call, make))


def _id_for(op: Operation, call: Call) -> TenantId:
    """A new id; the same one for the same Idempotency-Key, so that a repeat finds what the first one made.

    UUID version 8 (RFC 9562 section 5.8): a keyed hash instead of a time.
    """
    key = idempotency.key_of(call)
    if key is None:
        return TenantId(new_uuid())
    bits = int.from_bytes(op.cipher.index("tenants", "tenant_id", key), "big")
    bits = bits & ~(0xF << 76) | 0x8 << 76
    return TenantId(UUID(int=bits & ~(0x3 << 62) | 0x2 << 62))


async def _get_one(call: Call) -> Reply:
    return await in_named_tenant(call, _get)


async def _put_one(call: Call) -> Reply:
    return await in_named_tenant(call, _put)


async def _delete_one(call: Call) -> Reply:
    async def delete(op: Operation, _: Call) -> Reply:
        return Reply(200, _body(await delete_tenant(op)))

    return await in_named_tenant(call, delete)


async def _approve(call: Call) -> Reply:
    async def approve(op: Operation, _: Call) -> Reply:
        return Reply(200, _body(await approve_tenant(op)))

    return await in_named_tenant(call, approve)


async def _reject(call: Call) -> Reply:
    async def reject(op: Operation, call: Call) -> Reply:
        found = Collector()
        reason = found.text(read_object(call.body), "reason", "REASON", max_length=MAX_REASON)
        found.check()
        return Reply(200, _body(await reject_tenant(op, reason=reason)))

    return await in_named_tenant(call, reject)


async def _get(op: Operation, _: Call) -> Reply:
    return Reply(200, _body(await get_tenant(op)))


async def _put(op: Operation, call: Call) -> Reply:
    found = Collector()
    name, address = _read(found, read_object(call.body))
    found.check()
    return Reply(200, _body(await update_tenant(op, name=name, address=address)))


async def _put_own(op: Operation, call: Call) -> Reply:
    reply = await _put(op, call)
    reply.status = 202
    return reply


def _read(found: Collector, source: Object) -> tuple[str, Address | None]:
    return found.text(source, "name", "NAME", max_length=MAX_NAME), read_address(found, source, "address", "ADDRESS")


def _take(found: Collector, text: str) -> int:
    if not text:
        return DEFAULT_TAKE
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_TAKE):
        found.add("TAKE_OUT_OF_RANGE", "take is a number from 1 to {max}.", max=MAX_TAKE)
        return DEFAULT_TAKE
    return int(text)


def _body(tenant: Tenant) -> TenantBody:
    details = tenant.status_details
    return TenantBody(
        account_id=str(tenant.account_id),
        tenant_id=str(tenant.tenant_id),
        name=tenant.name,
        status=tenant.status.value,
        address=address_body(tenant.address),
        status_details=StatusDetailsBody(
            created_on=details.created_on,
            created_by=details.created_by,
            approved_on=details.approved_on,
            approved_by=details.approved_by,
            rejected_on=details.rejected_on,
            rejected_by=details.rejected_by,
            rejection_reason=details.rejection_reason,
            deleted_on=details.deleted_on,
            deleted_by=details.deleted_by,
        ),
        region=tenant.region,
    )


_TENANTS: Final = "/v1/account/tenants"
_TENANT: Final = f"{_TENANTS}/{{tenantId}}"

ROUTES: Final[Sequence[Route]] = (
    Route(
        method="GET",
        path=_TENANTS,
        summary="The account's tenants",
        tag="Tenants",
        access=Access.ACCOUNT,
        permission=Permission.TENANTS_READ,
        call=_list,
        replies={200: TenantsBody},
        query={
            "cursor": "The `cursor` of the page before.",
            "take": f"How many (1–{MAX_TAKE}, {DEFAULT_TAKE} when left out).",
        },
    ),
    Route(
        method="POST",
        path=_TENANTS,
        summary="Make a tenant",
        tag="Tenants",
        access=Access.ACCOUNT,
        permission=Permission.TENANTS_WRITE,
        call=_create,
        request=NewTenantRequest,
        replies={201: TenantBody},
    ),
    Route(
        method="GET",
        path=_TENANT,
        summary="A tenant",
        tag="Tenants",
        access=Access.ACCOUNT,
        permission=Permission.TENANTS_READ,
        call=_get_one,
        replies={200: TenantBody},
    ),
    Route(
        method="PUT",
        path=_TENANT,
        summary="Change a tenant",
        tag="Tenants",
        access=Access.ACCOUNT,
        permission=Permission.TENANTS_WRITE,
        call=_put_one,
        request=TenantRequest,
        replies={200: TenantBody},
    ),
    Route(
        method="DELETE",
        path=_TENANT,
        summary="End a tenant; its keys stop at once",
        tag="Tenants",
        access=Access.ACCOUNT,
        permission=Permission.TENANTS_WRITE,
        call=_delete_one,
        replies={200: TenantBody},
    ),
    Route(
        method="POST",
        path=f"{_TENANT}/approve",
        summary="Let a tenant act",
        tag="Tenants",
        access=Access.ACCOUNT,
        permission=Permission.TENANTS_APPROVE,
        call=_approve,
        replies={200: TenantBody},
    ),
    Route(
        method="POST",
        path=f"{_TENANT}/reject",
        summary="Refuse a tenant",
        tag="Tenants",
        access=Access.ACCOUNT,
        permission=Permission.TENANTS_APPROVE,
        call=_reject,
        request=RejectionRequest,
        replies={200: TenantBody},
    ),
    Route(
        method="GET",
        path="/v1/tenant",
        summary="The tenant",
        tag="Tenant",
        access=Access.TENANT,
        permission=Permission.TENANT_MANAGE,
        operation=_get,
        replies={200: TenantBody},
    ),
    Route(
        method="PUT",
        path="/v1/tenant",
        summary="Change the tenant",
        tag="Tenant",
        access=Access.TENANT,
        permission=Permission.TENANT_MANAGE,
        operation=_put_own,
        request=TenantRequest,
        replies={202: TenantBody},
    ),
)
