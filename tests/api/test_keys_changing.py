"""Keys that change while requests are under way: nobody notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
import psycopg
import pytest

from strongroom.assembly import SPLITS, App
from strongroom.database.databases import url_of
from strongroom.kernel.actors import operator
from strongroom.kernel.errors import Broken
from strongroom.payments.instruments import add_many
from strongroom.payments.orders import get_order
from strongroom.vault import Layer, Scope, ScopeCipher, Work, part_persons
from strongroom.vault.envelopes import HEADER_BYTES, version_of
from tests.api.paying import ORDERS, instruction, make_order, order
from tests.fixtures.platform import Client, Platform
from tests.payments.world import World, bank_account

T = TypeVar("T")


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


async def while_resealed(
    platform: Platform, world: World, table: str, key: str, act: Callable[[], Awaitable[T]], *, column: str = "sealed"
) -> T:
    """What something gives that begins, waits for a table, and finds its rows sealed by a key it hasn't got.

    The key is another process's, made in between; that table alone is sealed again under it.
    """
    with psycopg.connect(url_of(platform.app.installation.admin_url, "eu").reveal()) as admin:
        admin.execute(f"lock table {table} in access exclusive mode")
        acting = asyncio.ensure_future(act())
        await until_waiting(platform.app, table)
        async with platform.another_process() as other:
            scope = Scope(account=world.account, tenant=world.tenant)
            await other.app.key_desk.rotate_data_key(operator(), scope, Layer.PLATFORM)
            async with other.app.operation(operator(), tenant=world.tenant) as op:
                newest = op.cipher
        assert isinstance(newest, ScopeCipher)
        owner = "scope_id" if table == "idempotency_keys" else "tenant_id"
        rows = admin.execute(f"select {key}, {column} from {table} where {owner} = %s", (world.tenant,)).fetchall()  # noqa: S608  # a test's own names
        assert rows
        for row_id, envelope in rows:
            bound = row_id if isinstance(row_id, bytes) else row_id.bytes
            sealed = newest.reseal(table, column, bound, envelope)
            assert sealed is not None
            assert version_of(sealed) > version_of(envelope)
            admin.execute(f"update {table} set {column} = %s where {key} = %s", (sealed, row_id))  # noqa: S608  # as before
        admin.commit()
        return await asyncio.wait_for(acting, timeout=20)


async def test_what_a_newer_key_sealed_is_read_again(app: App, tenant: Client, platform: Platform) -> None:
    await make_order(tenant, "o-1")
    answer = await while_resealed(
        platform, World.of(app, tenant), "orders", "order_id", lambda: tenant.get(f"{ORDERS}/o-1")
    )
    assert (answer.status_code, answer.json()["orderRef"]) == (200, "o-1")


async def test_a_bulk_upload_ends_whose_job_a_newer_key_sealed(app: App, tenant: Client, platform: Platform) -> None:
    """It begins operations of its own, each of which is begun again for itself: no line is lost or done twice."""
    world, content = (
        World.of(app, tenant),
        b"".join(json.dumps({"orderRef": f"bulk-{number}", **instruction()}).encode() + b"\n" for number in range(3)),
    )
    headers = {"content-type": "application/x-ndjson", "Idempotency-Key": "again"}

    async def upload() -> httpx.Response:
        return await tenant.post(f"{ORDERS}/bulk", content=content, headers=headers)

    first = await upload()
    assert (first.status_code, first.json()["accepted"]) == (202, 3)
    again = await while_resealed(platform, world, "bulk_jobs", "job_id", upload)
    assert (again.status_code, again.json()["jobId"]) == (202, first.json()["jobId"])


async def test_signing_in_goes_on_with_a_key_sealed_anew(app: App, tenant: Client, platform: Platform) -> None:
    answer = await while_resealed(platform, World.of(app, tenant), "api_keys", "public_key", tenant.sign_in)
    assert answer.status_code == 201


async def test_a_repeated_request_about_keys_finds_its_answer_sealed_anew(
    app: App, tenant: Client, platform: Platform
) -> None:
    async def ask() -> httpx.Response:
        path = "/v1/tenant/encryption-keys/customer/test"
        return await tenant.post(path, headers={"Idempotency-Key": "again"})

    first = await ask()
    assert first.status_code == 200, first.text
    again = await while_resealed(platform, World.of(app, tenant), "idempotency_keys", "key_hash", ask)
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotency-replayed"] == "true"


async def test_work_on_every_row_goes_on_with_one_sealed_anew(app: App, tenant: Client, platform: Platform) -> None:
    """The worker's batch that meets it is begun again with the keys that there are now."""
    world = World.of(app, tenant)
    async with world.operation() as op:
        await add_many(op, [("C-1", bank_account())])
    scope = Scope(account=world.account, tenant=world.tenant)
    await app.key_desk.tend(scope, SPLITS)
    async with world.operation() as op:
        reopened = (
            "update key_work set state = 'RUNNING', position_table = '', position = '' where kind = 'part-persons'"
        )
        assert await op.run(reopened) == 1
    done: list[Work] = []
    parted = await while_resealed(
        platform,
        world,
        "financial_instruments",
        "financial_instrument_id",
        lambda: part_persons(app.databases, scope, done.append),
        column="sensitive",
    )
    assert parted == 0
    assert done[-1].is_done


async def test_an_altered_version_is_broken_and_not_for_ever_young(app: App, tenant: Client) -> None:
    """No key of that version ever was: asked once more, the database says so."""
    await make_order(tenant, "o-1")
    world = World.of(app, tenant)
    async with world.operation() as op:
        await op.run("update orders set sealed = set_byte(sealed, 2, 9) where tenant_id = %s", op.tenant)
    for _ in range(2):
        answer = await tenant.get(f"{ORDERS}/o-1")
        assert (answer.status_code, answer.json()["errors"][0]["errorCode"]) == (500, "ENVELOPE_BROKEN")
    async with world.operation() as op:
        with pytest.raises(Broken):
            await get_order(op, "o-1")


async def until_waiting(app: App, table: str) -> None:
    """Return when somebody waits for the lock on a table."""
    with psycopg.connect(url_of(app.installation.admin_url, "eu").reveal(), autocommit=True) as admin:
        for _ in range(200):
            row = admin.execute(
                "select count(*) from pg_locks where not granted and relation = %s::regclass", (table,)
            ).fetchone()
            if row is not None and row[0]:
                return
            await asyncio.sleep(0.05)
    raise AssertionError("nobody waits")
