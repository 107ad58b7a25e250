"""ENC-5 turns red for every lock of tenancy that is taken off."""

from __future__ import annotations

import dataclasses

import pytest

from strongroom.api import Access, Call, Reply, Route
from strongroom.api.table import ROUTES
from strongroom.assembly import Installation
from strongroom.cli.workbenches import served_here
from strongroom.kernel.actors import operator
from strongroom.kernel.ids import TenantId, parse_uuid
from strongroom.trust import Workbench
from strongroom.trust.checks.segregation import check_segregation
from strongroom.trust.stage import TENANTS, account_of, tenant_of
from tests.trust.breaking import SharedKeyring

POLICY = "create policy tenancy on customers using (tenant_id = current_tenant())"
BROKEN_LOCKS = {
    "not forced": (
        "alter table orders no force row level security",
        "alter table orders force row level security",
        "eu.orders does not force row-level security on its owner",
    ),
    "not enabled": (
        "alter table instructions disable row level security",
        "alter table instructions enable row level security",
        "eu.instructions has no row-level security",
    ),
    "dropped policy": ("drop policy tenancy on customers", POLICY, "eu.customers has no policy"),
    "policy that lets everything through": (
        "create policy everybody on financial_instruments using (true)",
        "drop policy everybody on financial_instruments",
        "financial_instruments: 2 rows of another tenant can be changed",
    ),
    "policy that lets rows in": (
        "create policy everybody on statements for insert with check (true)",
        "drop policy everybody on statements",
        "statements: 1 rows of another tenant can be added",
    ),
    "role that gets round it": (
        "alter role strongroom_app bypassrls",
        "alter role strongroom_app nobypassrls",
        "the application's role can get round row-level security",
    ),
    "role that owns": (
        "alter table bulk_jobs owner to strongroom_app",
        "alter table bulk_jobs owner to postgres; grant select, insert, update on bulk_jobs to strongroom_app",
        "eu.bulk_jobs belongs to the application's role",
    ),
}


@pytest.mark.parametrize("name", BROKEN_LOCKS)
async def test_a_lock_that_is_taken_off_is_red(bench: Workbench, name: str) -> None:
    breaking, mending, breach = BROKEN_LOCKS[name]
    async with bench.admin("eu") as connection:
        await connection.execute(breaking.encode())
        try:
            figure = await check_segregation(bench)
        finally:
            await connection.execute(mending.encode())
    assert breach in figure.breaches


async def test_with_every_lock_on_it_is_green(bench: Workbench) -> None:
    figure = await check_segregation(bench)
    assert figure.breaches == ()
    assert "49 tables and " in figure.text
    assert figure.text.endswith("3 tenants each in one of 2 regions")


async def test_a_row_in_the_wrong_region_is_red(bench: Workbench) -> None:
    async with bench.admin("ch") as connection:
        await connection.execute(
            "insert into tenants values (%s, %s, 'APPROVED', '', now(), now())", (tenant_of(1), account_of(1))
        )
        try:
            figure = await check_segregation(bench)
        finally:
            await connection.execute("delete from tenants where tenant_id = %s", (tenant_of(1),))
    assert "ch.tenants has rows of 1 tenants from elsewhere" in figure.breaches
    assert "a tenant of eu is found 1 times in ch" in figure.breaches


async def test_a_row_that_opens_where_it_was_copied_to_is_red(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.assembly.Keyring", SharedKeyring)
    async with served_here(Installation(bench.config)) as careless:
        await forget_stage(careless)
        try:
            figure = await check_segregation(careless)
        finally:
            await forget_stage(careless)
    assert "an envelope of orders.sealed opens in another tenant" in figure.breaches


async def test_a_route_that_asks_nobody_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def keys_of(call: Call) -> Reply:
        tenant = parse_uuid(call.path["tenantId"])
        assert tenant is not None
        async with call.services.databases.operation(operator(), tenant=TenantId(tenant)) as op:
            rows = await op.rows("select public_key from api_keys")
        return Reply(200, [str(row[0]) for row in rows])

    leak = Route(
        method="GET", path="/v1/leak/{tenantId}", summary="Leaks", tag="Leaks", access=Access.TENANT, call=keys_of
    )
    for module in ("strongroom.assembly", "strongroom.cli.workbenches"):
        monkeypatch.setattr(f"{module}.ROUTES", (*ROUTES, leak))
    async with served_here(Installation(bench.config)) as leaking:
        figure = await check_segregation(leaking)
    assert "GET /v1/leak/{tenantId} shows another tenant's data" in figure.breaches
    assert "GET /v1/leak/{tenantId} answers 200 for another tenant's id" in figure.breaches


async def test_a_check_that_sees_nothing_is_red(bench: Workbench) -> None:
    """Ids that don't fit would be refused as well; so the owner has to be let in with them."""
    blind = dataclasses.replace(
        bench,
        endpoints=[dataclasses.replace(bench.endpoints[0], method="GET", path="/v1/nothing/{jobId}", level="tenant")],
    )
    figure = await check_segregation(blind)
    assert "GET /v1/nothing/{jobId} answers 404 to the owner: nothing is shown" in figure.breaches


async def forget_stage(bench: Workbench) -> None:
    """Remove the stage's own rows, sealed as they are under keys that the next one must not share."""
    for region in bench.config.regions:
        async with bench.admin(region) as connection:
            await connection.execute("delete from tenants where tenant_id = any(%s)", (list(TENANTS),))
            await connection.execute(
                "delete from accounts where account_id = any(%s)", ([account_of(1), account_of(2)],)
            )
