"""Work of an account's key inside the tenant that the path names."""

from __future__ import annotations

from functools import partial

from strongroom.api import idempotency
from strongroom.api.routing import Call, OperationHandler, Reply
from strongroom.database import in_operation
from strongroom.kernel.errors import Failure, NotFound
from strongroom.kernel.ids import AccountId, TenantId, parse_uuid


async def in_named_tenant(call: Call, handler: OperationHandler) -> Reply:
    """Run a handler in an operation of the path's `tenantId`, with idempotency around it.

    Raises as `find_named_tenant`.
    """
    account, tenant, region = await find_named_tenant(call)
    begin = partial(
        call.services.databases.operation,
        call.actor,
        account=account,
        tenant=tenant,
        region=region,
        correlation_id=call.correlation_id,
    )
    return await in_operation(begin, lambda op: idempotency.once(op, call, handler))


async def find_named_tenant(call: Call) -> tuple[AccountId, TenantId, str]:
    """The account of the path's `tenantId`, the tenant, and its region.

    Raises errors.NotFound (`TENANT_NOT_FOUND`), also when the tenant is somebody else's.
    """
    tenant_id = parse_uuid(call.path["tenantId"])
    if tenant_id is None:
        raise _not_found()
    tenant = TenantId(tenant_id)
    account, region = await call.services.databases.locate_tenant(tenant)
    if account != call.actor.account_id:
        raise _not_found()
    return account, tenant, region


def _not_found() -> NotFound:
    return NotFound(Failure("TENANT_NOT_FOUND", "There is no such tenant."))
