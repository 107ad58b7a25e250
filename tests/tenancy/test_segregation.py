"""Tenants and accounts see nothing of one another, even below the domain code (promise ENC-5)."""

from __future__ import annotations

import uuid

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from strongroom.database import Operation
from strongroom.kernel.actors import UNKNOWN_MAKER, system
from strongroom.kernel.errors import Broken, NotFound
from strongroom.kernel.ids import AccountId, TenantId
from tests.fixtures.platform import Client, Platform

TABLES = ("accounts", "tenants", "data_keys", "api_keys", "nonces", "audit_entries", "idempotency_keys")


def ids(client: Client) -> tuple[AccountId, TenantId]:
    return AccountId(uuid.UUID(client.account_id)), TenantId(uuid.UUID(str(client.tenant_id)))


async def owners(op: Operation, table: str) -> set[object]:
    """Whose rows of a table are in sight."""
    column = {"data_keys": "scope_id", "idempotency_keys": "scope_id", "accounts": "account_id"}.get(table, "tenant_id")
    if table == "nonces":
        rows = await op.rows("select api_keys.tenant_id from nonces left join api_keys using (public_key)")
    else:
        rows = await op.rows(f"select {column} from {table}")  # noqa: S608  # names from the list above
    return {row[0] for row in rows}


async def busy_tenant(platform: Platform) -> Client:
    """A tenant with a row in every table that has any above payments."""
    tenant = await platform.new_tenant()
    made = await tenant.post("/v1/tenant/keys", {"roles": ["tenant-management"]}, headers={"Idempotency-Key": "a-key"})
    assert made.status_code == 201
    return tenant


async def test_a_tenant_sees_its_own_rows_only(platform: Platform) -> None:
    mine, theirs = await busy_tenant(platform), await busy_tenant(platform)
    account, tenant = ids(mine)
    async with platform.app.operation(system("test"), account=account, tenant=tenant) as op:
        for table in TABLES:
            expected = {account} if table == "accounts" else {tenant}
            assert await owners(op, table) == expected, table
    async with platform.app.operation(system("test"), region="eu") as op:
        for table in TABLES:
            assert await owners(op, table) == set(), f"{table}: nobody's operation sees rows"
    assert theirs.tenant_id != mine.tenant_id


async def test_an_account_sees_its_tenants_but_not_their_keys(platform: Platform, account: Client) -> None:
    tenant = await account.new_tenant()
    await busy_tenant(platform)
    mine = AccountId(uuid.UUID(account.account_id))
    async with platform.app.operation(system("test"), account=mine) as op:
        assert await owners(op, "tenants") == {ids(tenant)[1]}
        assert await owners(op, "api_keys") == {None}
        assert await owners(op, "data_keys") == {mine}
        assert await owners(op, "nonces") == {None}


async def test_a_tenant_can_not_write_into_another(platform: Platform) -> None:
    mine, theirs = await busy_tenant(platform), await busy_tenant(platform)
    (account, tenant), (their_account, their_tenant) = ids(mine), ids(theirs)
    for statement, values in (
        (
            "insert into api_keys (public_key, account_id, tenant_id, environment, roles, sealed, created_at) "
            "values (%s, %s, %s, 'sandbox', '{tenant-admin}', '', now())",
            (uuid.uuid4(), their_account, their_tenant),
        ),
        (
            "insert into data_keys (scope_id, purpose, version, wrapped, created_at) values (%s, 'seal', 2, '', now())",
            (their_tenant,),
        ),
        (
            "insert into audit_entries (at, account_id, tenant_id, actor_kind, actor_id, action, outcome, "
            "subject_kind, subject_id, detail, correlation_id) "
            "values (now(), %s, %s, 'x', 'x', 'x', 'done', 'x', 'x', '', '')",
            (their_account, their_tenant),
        ),
        (
            "update tenants set tenant_id = %s where tenant_id = %s",
            (their_tenant, tenant),
        ),
    ):
        with pytest.raises(psycopg.Error, match="row-level security"):
            async with platform.app.operation(system("test"), account=account, tenant=tenant) as op:
                await op.run(statement, *values)
    async with platform.app.operation(system("test"), account=account, tenant=tenant) as op:
        assert await op.run("update tenants set status = 'DELETED' where tenant_id = %s", their_tenant) == 0
        assert await op.run("update api_keys set deleted_at = now() where tenant_id = %s", their_tenant) == 0
    assert (await theirs.get("/v1/tenant")).status_code == 200


async def test_the_record_can_not_be_changed_or_removed(platform: Platform, tenant: Client) -> None:
    account, tenant_id = ids(tenant)
    for statement in ("update audit_entries set detail = ''", "delete from audit_entries", "truncate audit_entries"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with platform.app.operation(system("test"), account=account, tenant=tenant_id) as op:
                await op.run(statement)


async def test_what_is_sealed_for_one_tenant_opens_for_no_other(platform: Platform) -> None:
    mine, theirs = await busy_tenant(platform), await busy_tenant(platform)
    account, tenant = ids(theirs)
    async with platform.app.operation(system("test"), account=account, tenant=tenant) as op:
        row = await op.row("select sealed from tenants")
        assert row is not None
        envelope = row[0]
        assert op.cipher.open("tenants", "sealed", tenant.bytes, envelope)
    account, own = ids(mine)
    async with platform.app.operation(system("test"), account=account, tenant=own) as op:
        for row_id in (own, tenant):
            with pytest.raises(Broken):
                op.cipher.open("tenants", "sealed", row_id.bytes, envelope)


async def test_an_operation_for_a_tenant_nobody_knows_does_not_begin(platform: Platform) -> None:
    with pytest.raises(NotFound) as refused:
        async with platform.app.operation(system("test"), tenant=TenantId(uuid.uuid4())):
            pass
    assert refused.value.code == "TENANT_NOT_FOUND"


async def test_the_directory_holds_nothing_but_ids_regions_and_environments(platform: Platform) -> None:
    """And of who made a key: what kind of somebody, and their id."""
    account = await platform.new_account(name="Findable Name GmbH")
    await account.new_tenant(name="Findable Tenant")
    await account.sign_in()
    await account.new_key("account-tenant-read")
    kinds = set()
    async with platform.app.databases.directory() as directory:
        for table in ("accounts", "tenants", "api_keys"):
            cursor = await directory.execute(SQL("select to_jsonb({0}) from {0}").format(Identifier(table)))
            for [row] in await cursor.fetchall():
                for kind, _, name in (maker.partition(":") for maker in row.pop("made_by", [])):
                    assert kind in {"operator", "system", UNKNOWN_MAKER} or uuid.UUID(name)
                    kinds.add(kind)
                for value in row.values():
                    assert value in {None, "eu", "ch", "sandbox", "production"} or uuid.UUID(value)
    assert kinds >= {"api-key", "operator"}
