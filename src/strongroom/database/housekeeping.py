"""Forgetting what has had its time: spent nonces, revoked tokens, idempotency keys, failures, challenges, days' totals,
sessions long ended.

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

SESSIONS_KEPT: Final = timedelta(days=90)
"""How long it can be seen that somebody was signed in."""


async def forget_expired(databases: Databases, actor: Actor) -> int:
    """Delete what has had its time; returns how many rows.

    Raises errors.Unavailable (`DATABASE_UNAVAILABLE`).
    """
    forgotten = sum([await _forget_of(databases, actor, *scope) for scope in await _scopes(databases)])
    now = databases.clock.now()
    async with databases.directory() as connection:
        for table in ("sign_in_failures", "passkey_challenges", "revoked_tokens"):
            cursor = await connection.execute(f"delete from {table} where expires_at < %s".encode(), (now,))  # noqa: S608  names of ours
            forgotten += cursor.rowcount
    return forgotten


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
        sessions = await op.run("delete from sessions where expires_at < %s", op.now - SESSIONS_KEPT)
        spent = await op.run("delete from day_totals where day < %s", op.today)
        for table in ("revoked_tokens", "sign_in_requests", "spent_assertions"):
            spent += await op.run(f"delete from {table} where expires_at < %s", op.now)  # noqa: S608  names of ours
    return nonces + keys + sessions + spent
