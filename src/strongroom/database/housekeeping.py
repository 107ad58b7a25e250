"""Forgetting what the catalogue keeps for minutes or a day: spent nonces and idempotency keys.

Rows are in sight of their own account or tenant only, so the whole directory is walked, one operation for each.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from strongroom.database.databases import Databases
from strongroom.kernel.actors import Actor
from strongroom.kernel.ids import AccountId, TenantId

IDEMPOTENCY_KEPT: Final = timedelta(hours=24)
"""How long an idempotency key stands for its answer (wire contract, section 4)."""


async def forget_expired(databases: Databases, actor: Actor) -> int:
    """Delete nonces and idempotency keys whose time is over; returns how many.

    Raises errors.Unavailable (`DATABASE_UNAVAILABLE`).
    """
    return sum([await _forget_of(databases, actor, *scope) for scope in await _scopes(databases)])


async def _scopes(databases: Databases) -> list[tuple[AccountId, TenantId | None, str]]:
    """Every account and every tenant, each with its region."""
    async with databases.directory() as connection:
        accounts = await (await connection.execute("select account_id, region from accounts", binary=True)).fetchall()
        tenants = await (
            await connection.execute("select account_id, tenant_id, region from tenants", binary=True)
        ).fetchall()
    return [(AccountId(account), None, region) for account, region in accounts] + [
        (AccountId(account), TenantId(tenant), region) for account, tenant, region in tenants
    ]


async def _forget_of(
    databases: Databases, actor: Actor, account: AccountId, tenant: TenantId | None, region: str
) -> int:
    async with databases.operation(actor, account=account, tenant=tenant, region=region) as op:
        nonces = await op.run(
            "delete from nonces where expires_at < %s and public_key in (select public_key from api_keys)", op.now
        )
        keys = await op.run(
            "delete from idempotency_keys where scope_id = %s and created_at < %s", op.scope, op.now - IDEMPOTENCY_KEPT
        )
    return nonces + keys
