"""Keys that change while requests are under way: nobody notices."""

from __future__ import annotations

import asyncio

import psycopg

from strongroom.assembly import App
from strongroom.database.databases import url_of
from strongroom.kernel.actors import operator
from strongroom.vault import Layer, Scope
from strongroom.vault.envelopes import HEADER_BYTES
from tests.api.paying import ORDERS, instruction, make_order, order
from tests.fixtures.platform import Client, Platform
from tests.payments.world import World


async def rotate(platform: Platform, world: World) -> None:
    """A new data key, made by another process, which remembers nothing of what this one knows."""
    async with platform.another_process() as other:
        scope = Scope(account=world.account, tenant=world.tenant)
        await other.app.key_desk.rotate_data_key(operator(), scope, Layer.PLATFORM)
        await other.app.key_desk.tend(scope)


async def test_orders_go_on_when_the_data_key_is_rotated(app: App, tenant: Client, platform: Platform) -> None:
    """The process that writes expects the keys that it knows; the database tells it better, and it seals again."""
    world = World.of(app, tenant)
    await make_order(tenant, "before")
    known = app.keyring.known("eu", world.tenant)
    await rotate(platform, world)
    answers = await asyncio.gather(
        *(tenant.post(ORDERS, order(f"after-{number}", instruction())) for number in range(5))
    )
    assert [answer.status_code for answer in answers] == [202] * 5
    now = app.keyring.known("eu", world.tenant)
    assert known is not None
    assert now is not None
    assert now[1] > known[1], "the keys were loaded anew"
    async with world.operation() as op:
        rows = await op.rows(
            "select distinct substr(sealed, 1, %s) from orders where tenant_id = %s", HEADER_BYTES, op.tenant
        )
    assert len(rows) == 1, "all that is there is sealed by the newest key"
    for ref in ("before", "after-0"):
        assert (await tenant.get(f"{ORDERS}/{ref}")).json()["orderRef"] == ref


async def test_what_a_newer_key_sealed_is_read_again(app: App, tenant: Client, platform: Platform) -> None:
    """A read begins, waits, and finds a row that was sealed meanwhile by a key it hasn't got."""
    world = World.of(app, tenant)
    await make_order(tenant, "o-1")
    with psycopg.connect(url_of(app.installation.admin_url, "eu").reveal()) as admin:
        admin.execute("lock table orders in access exclusive mode")
        reading = asyncio.create_task(tenant.get(f"{ORDERS}/o-1"))
        await until_waiting(app)
        async with platform.another_process() as other:
            scope = Scope(account=world.account, tenant=world.tenant)
            await other.app.key_desk.rotate_data_key(operator(), scope, Layer.PLATFORM)
            async with other.app.operation(operator(), tenant=world.tenant) as op:
                newest = op.cipher
        row = admin.execute("select order_id, sealed from orders where tenant_id = %s", (world.tenant,)).fetchone()
        assert row is not None
        content = newest.open("orders", "sealed", row[0].bytes, row[1])
        sealed = newest.seal("orders", "sealed", row[0].bytes, content)
        assert sealed[:HEADER_BYTES] != row[1][:HEADER_BYTES]
        admin.execute("update orders set sealed = %s where tenant_id = %s", (sealed, world.tenant))
        admin.commit()
        answer = await asyncio.wait_for(reading, timeout=20)
    assert (answer.status_code, answer.json()["orderRef"]) == (200, "o-1")


async def until_waiting(app: App) -> None:
    """Return when somebody waits for the lock on orders."""
    with psycopg.connect(url_of(app.installation.admin_url, "eu").reveal(), autocommit=True) as admin:
        for _ in range(200):
            row = admin.execute(
                "select count(*) from pg_locks where not granted and relation = 'orders'::regclass"
            ).fetchone()
            if row is not None and row[0]:
                return
            await asyncio.sleep(0.05)
    raise AssertionError("nobody waits")
