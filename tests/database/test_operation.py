"""The operation: whose rows are in sight, what is committed, and what a lost database means."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from strongroom.assembly import App
from strongroom.database import Databases, Operation
from strongroom.database.databases import url_of
from strongroom.database.operation import Stage
from strongroom.kernel.actors import Actor, ActorKind, system
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import NotFound, Unauthenticated, Unavailable
from strongroom.kernel.ids import AccountId, ApiKeyId, TenantId
from strongroom.payments.contents import NewOrder
from strongroom.payments.orders import create_orders
from tests.api.paying import ORDERS, codes, instruction, make_order, order
from tests.fixtures.platform import Client, Platform
from tests.payments.world import World

INSERT = "insert into orders (tenant_id, order_id, sealed, created_at, updated_at) values (%s, %s, '', now(), now())"
COUNT = "select count(*) from orders"


async def count(world: World) -> int:
    async with world.operation() as op:
        row = await op.row(COUNT)
    assert row is not None
    return int(row[0])


@pytest.fixture
async def world(app: App, tenant: Client) -> World:
    return World.of(app, tenant)


async def test_what_ends_well_is_kept(world: World) -> None:
    async with world.operation() as op:
        await op.run(INSERT, op.tenant, uuid4())
    assert await count(world) == 1


@pytest.mark.parametrize("error", [ValueError("x"), asyncio.CancelledError()])
async def test_what_raises_is_not(world: World, error: BaseException) -> None:
    with pytest.raises(type(error)):
        async with world.operation() as op:
            await op.run(INSERT, op.tenant, uuid4())
            raise error
    assert await count(world) == 0


async def test_a_swallowed_error_of_the_database_is_not_taken_for_success(world: World) -> None:
    order_id = uuid4()
    with pytest.raises(RuntimeError, match="swallowed"):
        async with world.operation() as op:
            await op.run(INSERT, op.tenant, order_id)
            with contextlib.suppress(psycopg.errors.UniqueViolation):
                await op.run(INSERT, op.tenant, order_id)
    assert await count(world) == 0


async def test_the_settings_end_with_the_operation(app: App, tenant: Client) -> None:
    """The next operation on the same connection sees nothing of the last one's tenant."""
    world = World.of(app, tenant)
    await make_order(tenant)
    for _ in range(8):
        assert await count(world) == 1
        async with app.operation(system("test"), region="eu") as op:
            row = await op.row(
                "select current_setting('strongroom.tenant', true), current_setting('strongroom.account', true)"
            )
            assert row == ("", "")
            assert await op.row(COUNT) == (0,)


async def test_a_row_of_another_tenant_can_not_be_written(app: App, tenant: Client, platform: Platform) -> None:
    stranger = await platform.new_tenant()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with World.of(app, tenant).operation() as op:
            await op.run(INSERT, UUID(str(stranger.tenant_id)), uuid4())


async def test_the_role_owns_nothing_and_can_not_step_out(world: World) -> None:
    for statement in (
        "set role postgres",
        "set session authorization postgres",
        "alter table orders disable row level security",
        "drop policy tenancy on orders",
        "create table mine (a int)",
        "delete from audit_entries",
        "truncate orders",
    ):
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue)):
            async with world.operation() as op:
                await op.run(statement)
    async with world.operation() as op:
        row = await op.row(
            "select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication from pg_roles "
            "where rolname = current_user"
        )
        assert row == (False,) * 5
        assert await op.rows("select oid from pg_class where relowner = current_user::regrole") == []


async def test_an_operation_names_whom_it_is_for(app: App, tenant: Client) -> None:
    account, region = await app.databases.locate_tenant(TenantId(UUID(str(tenant.tenant_id))))
    assert (str(account), region) == (tenant.account_id, "eu")
    with pytest.raises(LookupError):
        async with app.operation(system("test")):
            raise AssertionError
    for wrong in ({"tenant": TenantId(uuid4())}, {"account": AccountId(uuid4())}):
        with pytest.raises(NotFound):
            async with app.operation(system("test"), **wrong):  # type: ignore[arg-type]  # one of the two
                raise AssertionError
    async with app.operation(system("test"), region="ch") as op:
        with pytest.raises(LookupError):
            _ = op.tenant
        with pytest.raises(LookupError):
            _ = op.account


async def test_a_key_that_is_not_there_begins_nothing(app: App, tenant: Client) -> None:
    world = World.of(app, tenant)
    actor = Actor(
        kind=ActorKind.API_KEY,
        name="key",
        account_id=world.account,
        tenant_id=world.tenant,
        key_id=ApiKeyId(uuid4()),
        roles=frozenset({"tenant-admin"}),
    )
    with pytest.raises(Unauthenticated) as refused:
        async with app.operation(actor, tenant=world.tenant):
            raise AssertionError
    assert refused.value.code == "TOKEN_REVOKED"


@contextlib.asynccontextmanager
async def lazily(world: World, actor: Actor | None = None) -> AsyncIterator[Operation]:
    """An operation that begins with its first statement; the cipher is at hand after a first one."""
    async with world.operation():
        pass
    async with world.app.databases.operation(
        actor or system("test"), account=world.account, tenant=world.tenant, lazily=True
    ) as op:
        yield op


async def test_a_whole_operation_takes_one_exchange(world: World) -> None:
    """It begins with the statement and is over with it: nothing is left to commit, or to roll back."""
    async with lazily(world) as op:  # from now on the process remembers the tenant's rules for approvals
        await create_orders(op, [NewOrder("o-0", [])], [""])
    new = [NewOrder("o-1", [])]
    async with lazily(world) as op:
        assert op.session.stage is Stage.NEW
        assert op.connection.info.transaction_status is TransactionStatus.IDLE
        assert await create_orders(op, new, [""]) == new
        assert op.session.stage is Stage.DONE
        assert op.connection.info.transaction_status is TransactionStatus.IDLE
        assert await count(world) == 2
    assert await count(world) == 2


async def test_a_whole_statement_after_another_ends_with_the_operation(world: World) -> None:
    with pytest.raises(ValueError, match="rolled back"):
        async with lazily(world) as op:
            assert await op.row(COUNT) == (0,)
            await create_orders(op, [NewOrder("o-1", [])], [""])
            raise ValueError("rolled back")
    assert await count(world) == 0


@pytest.mark.parametrize("orders", [[NewOrder("o-1", [])], []])
async def test_a_key_that_is_gone_does_nothing_lazily(world: World, orders: list[NewOrder]) -> None:
    """Not even find out what would be answered: an operation that asked nothing is checked at its end."""
    gone = Actor(
        kind=ActorKind.API_KEY,
        name="gone",
        account_id=world.account,
        tenant_id=world.tenant,
        key_id=ApiKeyId(uuid4()),
        roles=frozenset({"tenant-admin"}),
    )
    with pytest.raises(Unauthenticated) as refused:
        async with lazily(world, gone) as op:
            await create_orders(op, orders, [""] * len(orders))
    assert refused.value.code == "TOKEN_REVOKED"
    assert await count(world) == 0


async def test_where_there_is_no_room_a_whole_operation_is_refused(app: App, world: World) -> None:
    full = Databases(
        app.installation.admin_url,
        app.installation.app_password,
        regions=app.config.regions,
        environment=app.config.environment,
        clock=app.clock,
        ciphers=app.keyring,
        has_room=lambda: False,
    )
    await full.open()
    try:
        async with world.operation():
            assert app.keyring.known("eu", world.tenant) is not None
        with pytest.raises(Unavailable) as refused:
            async with full.operation(system("test"), tenant=world.tenant, lazily=True) as op:
                await create_orders(op, [NewOrder("o-1", [])], [""])
    finally:
        await full.close()
    assert refused.value.code == "DATABASE_TAKES_NO_CHANGES"
    assert await count(world) == 0


async def test_time_is_the_clocks(tenant: Client, platform: Platform) -> None:
    instant = datetime(2031, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)
    async with platform.another_process(ManualClock(instant)) as other, World.of(other.app, tenant).operation() as op:
        assert (op.now, op.today) == (instant, instant.date())


def kill(app: App, pid: int) -> None:
    """End a database session, as a crash of the server would."""
    with psycopg.connect(url_of(app.installation.admin_url, "eu").reveal(), autocommit=True) as connection:
        connection.execute("select pg_terminate_backend(%s, 5000)", (pid,))


async def test_a_lost_database_is_unavailable_and_changes_nothing(app: App, world: World) -> None:
    with pytest.raises(Unavailable) as lost:
        async with world.operation() as op:
            await op.run(INSERT, op.tenant, uuid4())
            await asyncio.to_thread(kill, app, op.connection.info.backend_pid)
            await op.run(INSERT, op.tenant, uuid4())
    assert lost.value.code == "DATABASE_UNAVAILABLE"
    assert await count(world) == 0, "and the next operation has a connection that works"


async def test_lost_while_committing_the_outcome_is_unknown(app: App, world: World) -> None:
    with pytest.raises(Unavailable) as lost:
        async with world.operation() as op:
            await op.run(INSERT, op.tenant, uuid4())
            await asyncio.to_thread(kill, app, op.connection.info.backend_pid)
    assert lost.value.code == "OUTCOME_UNKNOWN"
    assert await count(world) == 0


async def test_nothing_is_acknowledged_that_was_not_committed(app: App, tenant: Client) -> None:
    """The session that writes coalesced orders dies in the middle: every caller is told, and nothing was made."""
    await tenant.sign_in()
    world = World.of(app, tenant)
    await make_order(tenant, "before")
    # The lock makes the writer wait in its statement, where it is found and ended.
    with psycopg.connect(url_of(app.installation.admin_url, "eu").reveal()) as admin:
        admin.execute("lock table orders in exclusive mode")
        sending = [asyncio.create_task(tenant.post(ORDERS, order(f"o-{number}", instruction()))) for number in range(5)]
        kill(app, await waiting(app))
        admin.rollback()
        answers = await asyncio.wait_for(asyncio.gather(*sending), timeout=20)
    statuses = [answer.status_code for answer in answers]
    assert statuses[0] == 503
    assert set(statuses) <= {503, 202}
    # Its commit goes with the statement, so nobody but the server knows whether it was made.
    assert codes(answers[0]) == ["OUTCOME_UNKNOWN"]
    told = [codes(answer) for answer in answers[1:] if answer.status_code == 503]
    assert all(told_codes in (["OUTCOME_UNKNOWN"], ["DATABASE_UNAVAILABLE"]) for told_codes in told)
    assert await count(world) == 1 + statuses.count(202)
    for number, status in enumerate(statuses):
        assert (await tenant.get(f"{ORDERS}/o-{number}")).status_code == (200 if status == 202 else 400)


async def waiting(app: App) -> int:
    """The session of ours that waits for a lock."""
    for _ in range(200):
        async with app.operation(system("test"), region="eu") as op:
            rows = await op.rows(
                "select l.pid from pg_locks l join pg_database d on d.oid = l.database "
                "where not l.granted and d.datname = current_database() and l.relation = 'orders'::regclass"
            )
        if rows:
            return int(rows[0][0])
        await asyncio.sleep(0.05)
    raise AssertionError("nobody waits")


async def test_what_the_database_refuses(world: World) -> None:
    for statement, parameters, expected in (
        (INSERT, (world.tenant, None), "CHANGED_MEANWHILE"),
        ("select pg_sleep(5)", (), "DATABASE_UNAVAILABLE"),
    ):
        with pytest.raises(Unavailable) as refused:
            async with world.operation() as op:
                await op.run("set local statement_timeout = '50ms'")
                await op.run(statement, *parameters)
        assert refused.value.code == expected
    with pytest.raises(psycopg.errors.UndefinedTable):
        async with world.operation() as op:
            await op.run("select * from nothing")
