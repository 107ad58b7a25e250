"""The stage: accounts and tenants of our own, in the running installation, for checks to act on.

Their ids are fixed, so that they are recognised everywhere and made only once: two accounts, one with a tenant in the
first region and one in the last, the other with a tenant in the first. What checks put into them is swept away before
and after every run; their entries in the record stay. No customer's data is ever touched.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

from psycopg import sql

from strongroom.database.databases import DIRECTORY
from strongroom.identity import create_key
from strongroom.kernel.actors import operator
from strongroom.kernel.errors import Conflict, Failure
from strongroom.kernel.ids import AccountId, TenantId
from strongroom.kernel.secret import Secret
from strongroom.tenancy import (
    Account,
    License,
    create_account,
    create_tenant,
    find_account,
    find_tenant,
    plan_tenant,
    register_account,
    register_tenant,
)
from strongroom.trust.client import Caller, Client, Key
from strongroom.trust.workbench import AdminConnection, Workbench
from strongroom.vault import KeyState, Layer, Scope, ScopeKey, ensure_keys, get_scope_key
from strongroom.vault.holders.contract import KEY_BYTES, HeldState

PROVER: Final = operator("prove")
COMPANY: Final = "strongroom prove (made by the checks, not a customer)"
_ONE_AT_A_TIME: Final = 7_305_808_869_231_650_930
"""Advisory lock: two runs on one stage would sweep each other away."""

_OF_PEOPLE: Final = (
    "due_mails", "mails", "session_settings", "sessions", "devices", "recovery_codes", "credentials", "grants",
    "single_sign_ons", "provider_subjects", "sign_in_requests", "spent_assertions", "email_domains", "persons",
    "admissions", "invitations",
)  # fmt: skip
SWEPT: Final = (
    "statement_entries", "statements", "instruction_events", "transactions", "payment_files", "approval_votes",
    "approvals", "approval_rules", "instructions",
    "order_customer_defaults", "orders", "financial_instruments", "customers", "schemes", "scheme_drafts",
    "installed_apps", "bulk_results", "bulk_jobs", "due_work", "idempotency_keys", "key_work", "nonces",
    "api_keys", "openings", "alerts", "ip_lists", "revoked_tokens", "ended_persons", "day_totals", *_OF_PEOPLE,
)  # fmt: skip
"""A region's tables that are emptied of the stage's rows, those that refer to others first."""
KEPT: Final = ("schema_migrations", "accounts", "tenants", "scope_keys", "data_keys", "key_epochs", "audit_entries")
"""Those that aren't: what the stage is made of (of its keys, what is still good for anything), and the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A tenant of the stage, with an admin's key of its own and of its account."""

    account_id: AccountId
    tenant_id: TenantId
    region: str
    key: Key
    account_key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Three tenants: `here` and `abroad` belong to one account and live in two regions, `other` is somebody else's."""

    here: Seat
    abroad: Seat
    other: Seat
    client: Client

    @property
    def seats(self) -> tuple[Seat, ...]:
        """All three."""
        return (self.here, self.abroad, self.other)

    async def caller(self, seat: Seat) -> Caller:
        """A tenant's admin, signed in."""
        return await self.client.caller(seat.key)

    async def account_caller(self, seat: Seat) -> Caller:
        """The admin of a tenant's account, signed in."""
        return await self.client.caller(seat.account_key)


def account_of(number: int) -> AccountId:
    """The id of one of the stage's accounts (UUID version 8: RFC 9562 section 5.8)."""
    return AccountId(UUID(f"5f726f76-6500-8000-8000-00000000000{number}"))


def tenant_of(number: int) -> TenantId:
    """The id of one of the stage's tenants."""
    return TenantId(UUID(f"5f726f76-6500-8000-8001-00000000000{number}"))


ACCOUNTS: Final = (account_of(1), account_of(2))
TENANTS: Final = (tenant_of(1), tenant_of(2), tenant_of(3))


@asynccontextmanager
async def stage(bench: Workbench) -> AsyncIterator[Stage]:
    """Set the stage, and sweep it afterwards.

    Raises errors.Conflict (`PROVE_RUNNING`) when another run has it.
    """
    async with bench.admin(DIRECTORY) as lock:
        cursor = await lock.execute("select pg_try_advisory_lock(%s)", (_ONE_AT_A_TIME,))
        row = await cursor.fetchone()
        if row is None or not row[0]:
            raise Conflict(
                Failure("PROVE_RUNNING", "Checks are being run on this installation already. Wait until they are done.")
            )
        await _sweep(bench)
        try:
            yield await _set(bench)
        finally:
            await _sweep(bench)


async def _set(bench: Workbench) -> Stage:
    first, last = bench.config.regions[0], bench.config.regions[-1]
    accounts = {number: await _open_account(bench, number, first) for number in ACCOUNTS}
    account_keys = {number: await _key(bench, number, None) for number in ACCOUNTS}
    seats = []
    for tenant, account, region in zip(
        TENANTS, (ACCOUNTS[0], ACCOUNTS[0], ACCOUNTS[1]), (first, last, first), strict=True
    ):
        await _open_tenant(bench, accounts[account], tenant, region)
        key = await _key(bench, account, tenant)
        seats.append(
            Seat(account_id=account, tenant_id=tenant, region=region, key=key, account_key=account_keys[account])
        )
    here, abroad, other = seats
    return Stage(here=here, abroad=abroad, other=other, client=Client(bench))


async def _open_account(bench: Workbench, account_id: AccountId, region: str) -> Account:
    operation = partial(bench.databases.operation, PROVER, account=account_id, region=region)
    await ensure_keys(bench.keyring, operation)
    async with operation() as op:
        account = await find_account(op)
        if account is None:
            account = Account(account_id=account_id, company_name=COMPANY, license=License())
            await create_account(op, account)
    await register_account(bench.databases, account_id, region)
    return account


async def _open_tenant(bench: Workbench, account: Account, tenant_id: TenantId, region: str) -> None:
    operation = partial(bench.databases.operation, PROVER, account=account.account_id, tenant=tenant_id, region=region)
    await ensure_keys(bench.keyring, operation)
    async with operation() as op:
        tenant = await find_tenant(op)
        if tenant is None:
            tenant = plan_tenant(op, account, name=COMPANY, address=None, in_use=0)
            await create_tenant(op, tenant)
    await register_tenant(bench.databases, tenant)
    await _mend_keys(bench, Scope(account=account.account_id, tenant=tenant_id))


async def _mend_keys(bench: Workbench, scope: Scope) -> None:
    """Give a tenant its own key back that a check disabled or destroyed."""
    desk = bench.key_desk
    await desk.tend(scope)
    key = await _own_key(bench, scope)
    if key.destroy_asked_by is not None and key.state is not KeyState.DESTROYED:
        await desk.cancel_destroying(PROVER, scope)
    held = await bench.keyring.holders.own.describe(key.reference)
    if key.state is KeyState.DISABLED or held.state is HeldState.DISABLED:
        await desk.enable(PROVER, scope)
    if key.state is KeyState.DESTROYED:
        await desk.bring(PROVER, scope, Secret(os.urandom(KEY_BYTES)))
        await desk.tend(scope)


async def _own_key(bench: Workbench, scope: Scope) -> ScopeKey:
    async with bench.databases.operation(PROVER, account=scope.account, tenant=scope.tenant) as op:
        return await get_scope_key(op, Layer.CUSTOMER)


async def _key(bench: Workbench, account: AccountId, tenant: TenantId | None) -> Key:
    role = "account-admin" if tenant is None else "tenant-admin"
    async with bench.databases.operation(PROVER, account=account, tenant=tenant) as op:
        made, private_key = await create_key(op, bench.databases, name="prove", roles=[role])
    return Key(public_key=made.public_key, private_key=private_key, account_id=account, tenant_id=tenant)


async def _sweep(bench: Workbench) -> None:
    async with bench.admin(DIRECTORY) as connection:
        for table in ("api_keys", "account_networks", "sign_in_addresses", "custom_roles", "role_conflicts"):
            statement = sql.SQL("delete from {} where account_id = any(%s)").format(sql.Identifier(table))
            await connection.execute(statement, (list(ACCOUNTS),))
    for region in bench.config.regions:
        async with bench.admin(region) as connection, connection.transaction():
            for table in SWEPT:
                await _empty(connection, table)
            for table in ("data_keys", "scope_keys"):
                await _forget_keys(connection, table)
            # A check that finds something badly broken may have lost us a tenant: it is made anew.
            await connection.execute(
                "delete from tenants where tenant_id = any(%s) and status <> 'APPROVED'", (list(TENANTS),)
            )


async def _forget_keys(connection: AdminConnection, table: str) -> None:
    """Remove the rows of keys that are destroyed and have a successor, which every run would add to."""
    more = {
        "data_keys": "n.purpose = k.purpose and n.version > k.version",
        "scope_keys": "n.version > k.version and not exists (select from data_keys d where d.scope_id = k.scope_id "
        "and d.layer = k.layer and d.scope_key_version = k.version)",
    }[table]
    await connection.execute(
        f"delete from {table} k where scope_id = any(%s) and state = 'DESTROYED' "  # noqa: S608  names of ours
        f"and exists (select from {table} n where n.scope_id = k.scope_id and n.layer = k.layer and {more})".encode(),
        ([*ACCOUNTS, *TENANTS],),
    )


async def _empty(connection: AdminConnection, table: str) -> None:
    condition = {
        "nonces": sql.SQL("public_key in (select public_key from api_keys where account_id = any(%(owners)s))"),
        "api_keys": sql.SQL("account_id = any(%(owners)s)"),
        "idempotency_keys": sql.SQL("scope_id = any(%(owners)s)"),
        "key_work": sql.SQL("scope_id = any(%(owners)s)"),
        **dict.fromkeys(_OF_PEOPLE, sql.SQL("account_id = any(%(owners)s)")),
        **dict.fromkeys(("ip_lists", "revoked_tokens", "approval_rules"), sql.SQL("scope_id = any(%(owners)s)")),
    }.get(table, sql.SQL("tenant_id = any(%(owners)s)"))
    statement = sql.SQL("delete from {} where {}").format(sql.Identifier(table), condition)
    await connection.execute(statement, {"owners": [*ACCOUNTS, *TENANTS]})
