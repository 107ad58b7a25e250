"""Writing orders and instructions, many at a time: each gets its own verdict, and nothing of a refused one is kept."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.assembly import App
from strongroom.kernel.errors import Collided, Forbidden, StrongroomError
from strongroom.kernel.money import EXPONENTS
from strongroom.payments import bulk
from strongroom.payments._writing import ASK_FROM
from strongroom.payments.contents import Defaults, NewInstruction, NewOrder
from strongroom.payments.instructions import add_instruction, get_instruction
from strongroom.payments.instruments import add_many
from strongroom.payments.orders import Order, create_orders, get_order
from tests.fixtures.platform import Client, Platform
from tests.payments.world import World, bank_account, publish_scheme


@pytest.fixture
async def world(app: App, tenant: Client) -> World:
    return World.of(app, tenant)


def new_instruction(ref: str = "i", customer_ref: str = "c", **changed: Any) -> NewInstruction:
    values: dict[str, Any] = {
        "direction": "CREDIT", "minor": 100, "currency": "EUR", "country": "DE", "settled_by": date(2030, 1, 2),
    } | changed  # fmt: skip
    return NewInstruction(ref, customer_ref, **values)


async def create(world: World, *orders: NewOrder) -> list[str]:
    """Make orders together; a code for each, or nothing."""
    async with world.operation() as op:
        verdicts = await create_orders(op, orders, [f"request-{number}" for number in range(len(orders))])
    for verdict, order in zip(verdicts, orders, strict=True):
        assert isinstance(verdict, StrongroomError) or verdict is order
    return [verdict.code if isinstance(verdict, StrongroomError) else "" for verdict in verdicts]


async def read(world: World, ref: str) -> Order:
    async with world.operation() as op:
        return await get_order(op, ref)


async def count(world: World, table: str) -> int:
    async with world.operation() as op:
        row = await op.row(f"select count(*) from {table} where tenant_id = %s", op.tenant)  # noqa: S608  a name of ours
    assert row is not None
    return int(row[0])


async def test_each_order_gets_its_own_verdict(world: World) -> None:
    await create(world, NewOrder("there", []))
    assert await create(
        world,
        NewOrder("a", [new_instruction(), new_instruction("j")]),
        NewOrder("there", [new_instruction(customer_ref="only-there")]),
        NewOrder("b", [new_instruction(scheme_id="0" * 32)]),
        NewOrder("a", [new_instruction("k")]),
        NewOrder("c", [], {"k": "v"}),
    ) == ["", "ORDER_ALREADY_EXISTS", "SCHEME_ID_NOT_RECOGNISED", "ORDER_ALREADY_EXISTS", ""]
    assert [item.ref for item in (await read(world, "a")).instructions] in (["i", "j"], ["j", "i"])
    assert (await read(world, "there")).instructions == []
    assert (await read(world, "c")).metadata == {"k": "v"}
    assert (await count(world, "orders"), await count(world, "instructions")) == (3, 2)
    assert await count(world, "customers") == 1, "nobody is made for an order that is refused"


async def test_a_customer_is_made_by_whichever_order_is_made(world: World) -> None:
    """The first order that names a new customer is refused; the second is made, and so is the customer."""
    await create(world, NewOrder("there", []))
    refused, made = NewOrder("there", [new_instruction()]), NewOrder("new", [new_instruction()])
    assert await create(world, refused, made, NewOrder("more", [new_instruction()])) == ["ORDER_ALREADY_EXISTS", "", ""]
    assert [item.customer_ref for item in (await read(world, "new")).instructions] == ["c"]
    by_default = NewOrder("default", [], {}, {"d": Defaults(metadata={"a": "b"})})
    again = NewOrder("there", [], {}, {"d": Defaults()})
    assert await create(world, again, by_default) == ["ORDER_ALREADY_EXISTS", ""]
    assert (await read(world, "default")).customer_defaults == {"d": Defaults(metadata={"a": "b"})}


@pytest.mark.parametrize("customers", [1, ASK_FROM - 1, ASK_FROM + 1])
async def test_customers_are_made_once(world: World, customers: int) -> None:
    def order(ref: str) -> NewOrder:
        return NewOrder(ref, [new_instruction(f"i-{n}", f"c-{n % customers}") for n in range(customers + 5)])

    assert await create(world, order("a"), order("b")) == ["", ""]
    assert await create(world, order("c")) == [""]
    assert await count(world, "customers") == customers
    assert await count(world, "instructions") == 3 * (customers + 5)


async def test_an_order_is_recorded_with_its_request(world: World) -> None:
    await create(world, NewOrder("a", [new_instruction()]), NewOrder("b", []))
    async with world.operation() as op:
        rows = await op.rows(
            "select action, outcome, detail, correlation_id from audit_entries where tenant_id = %s and action = %s "
            "order by entry_id",
            op.tenant,
            "order.create",
        )
    assert sorted(tuple(row) for row in rows) == [
        ("order.create", "done", "instructions=0", "request-1"),
        ("order.create", "done", "instructions=1", "request-0"),
    ]


async def test_what_is_ready_is_due_the_day_before(world: World) -> None:
    async with world.operation() as op:
        scheme = await publish_scheme(op)
        [instrument] = await add_many(op, [("c", bank_account())])
    ready = {"scheme_id": scheme, "financial_instrument_id": instrument}
    await create(
        world,
        NewOrder("a", [new_instruction("1", **ready), new_instruction("2", **ready), new_instruction("3")]),
        NewOrder("b", [new_instruction("1", settled_by=date(2031, 1, 1), **ready)]),
        NewOrder("c", [new_instruction("1", settled_by=date(2032, 1, 1))]),
    )
    async with world.operation() as op:
        rows = await op.rows("select due_on from due_work where tenant_id = %s order by due_on", op.tenant)
    assert [row[0] for row in rows] == [date(2030, 1, 1), date(2030, 12, 31)]


async def test_two_at_once_make_it_once(world: World) -> None:
    """Two operations write the same orders in opposite order; neither waits for ever, and each order is made once."""
    refs = [f"o-{number}" for number in range(40)]

    def orders(mark: str, names: list[str]) -> list[NewOrder]:
        return [NewOrder(name, [new_instruction(customer_ref=f"c-{name}")], {"by": mark}) for name in names]

    first, second = await asyncio.gather(
        create(world, *orders("first", refs)), create(world, *orders("second", refs[::-1]))
    )
    assert sorted([*first, *second]) == [""] * 40 + ["ORDER_ALREADY_EXISTS"] * 40
    for ref, verdict in zip(refs, first, strict=True):
        assert (await read(world, ref)).metadata == {"by": "second" if verdict else "first"}
    assert await count(world, "instructions") == 40


async def test_two_uploads_of_the_same_lines_at_once(world: World) -> None:
    lines = [bulk.InstructionLine(f"o-{number % 7}", new_instruction(f"i-{number}")) for number in range(60)]

    async def write(wanted: list[bulk.InstructionLine]) -> tuple[int, int]:
        async with world.operation() as op:
            job = await bulk.begin_job(op, None)
        async with world.operation() as op:
            return await bulk.write_lines(op, job.job_id, list(enumerate(wanted, 1)), len(wanted), b"digest")

    first, second = await asyncio.gather(write(lines), write(lines[::-1]))
    assert sorted([first, second]) == [(0, 60), (60, 0)]
    assert await count(world, "instructions") == 60


async def test_what_goes_away_meanwhile_is_no_outage(world: World) -> None:
    """The scheme is removed between the look-up and the write: the database itself refuses, and nothing is kept."""
    async with world.operation() as op:
        scheme = await publish_scheme(op)
    with pytest.raises(Collided):
        async with world.operation() as op:
            order = NewOrder("a", [new_instruction(scheme_id=scheme)])
            await op.run("set constraints all deferred")
            known = (await op.rows("select scheme_id from schemes where tenant_id = %s", op.tenant))[0][0]
            assert known == scheme
            assert await create_orders(op, [order], [""]) == [order]
            await op.run("delete from schemes where tenant_id = %s", op.tenant)
    assert await count(world, "orders") == 0


_COPY = """
insert into instructions (tenant_id, order_id, instruction_id, customer_id, direction, currency, country, status,
                          settled_by, scheme_source, financial_instrument_source, sealed, created_at, updated_at)
select tenant_id, {order_id}, gen_random_uuid(), {customer_id}, direction, currency, country, status, settled_by,
       scheme_source, financial_instrument_source, sealed, created_at, updated_at from instructions
"""


@pytest.mark.parametrize("parent", ["order_id", "customer_id"])
async def test_the_database_refuses_an_instruction_without_its_order_or_customer(
    world: World, platform: Platform, parent: str
) -> None:
    """Whoever writes, and also where the parent is another tenant's; what is there already doesn't excuse a new row."""
    assert await create(world, NewOrder("a", [new_instruction()])) == [""]
    stranger = World.of(platform.app, await platform.new_tenant())
    assert await create(stranger, NewOrder("b", [new_instruction()])) == [""]
    async with stranger.operation() as op:
        row = await op.row(f"select {parent} from instructions")  # noqa: S608  # one of two constants
    assert row is not None
    columns = {"order_id": "order_id", "customer_id": "customer_id"}
    async with world.operation() as op:
        assert await op.run(_COPY.format(**columns)) == 1
    for wrong in ("gen_random_uuid()", f"'{row[0]}'::uuid"):
        for statement in (
            _COPY.format(**columns | {parent: wrong}),
            _COPY.format(**columns | {parent: f"case when random() < 2 then {wrong} else {parent} end"}),
            f"update instructions set {parent} = {wrong}",  # noqa: S608  # constants
        ):
            with pytest.raises(Collided):
                async with world.operation() as op:
                    await op.run(statement)
    assert await count(world, "instructions") == 2


async def test_only_who_may_writes(world: World, platform: Platform) -> None:
    order = NewOrder("a", [new_instruction()])
    for roles in (("tenant-transaction-read",), ("tenant-management",), ("account-admin",)):
        with pytest.raises(Forbidden):
            async with world.operation(*roles) as op:
                await create_orders(op, [order], [""])
        with pytest.raises(Forbidden):
            async with world.operation(*roles) as op:
                await add_instruction(op, "a", new_instruction())
    assert await create(world, order) == [""]
    other = World.of(platform.app, await platform.new_tenant())
    assert await create(other, order) == [""]


async def test_ids_tell_nothing_and_differ_between_tenants(world: World, platform: Platform) -> None:
    other = World.of(platform.app, await platform.new_tenant())
    ids: list[tuple[UUID, ...]] = []
    for one in (world, other):
        await create(one, NewOrder("same", [new_instruction("same", "same")]))
        async with one.operation() as op:
            [row] = await op.rows(
                "select order_id, instruction_id, customer_id from instructions where tenant_id = %s", op.tenant
            )
            ids.append(tuple(row))
    assert len({*ids[0], *ids[1]}) == 6


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
instructions = st.builds(
    lambda currency, minor, direction, day, metadata: (currency, minor, direction, day, metadata),
    st.sampled_from(sorted(EXPONENTS)),
    st.integers(1, 10**12 - 1),
    st.sampled_from(["CREDIT", "DEBIT"]),
    st.dates(date(1900, 1, 1), date(9999, 12, 31)),
    st.dictionaries(texts.filter(bool), texts, max_size=4),
)


async def test_what_is_written_is_read(world: World) -> None:
    """Whatever an instruction holds comes back exactly."""
    examples: list[tuple[str, int, str, date, dict[str, str]]] = []

    @given(instructions)
    @settings(max_examples=150, database=None)
    def collect(example: tuple[str, int, str, date, dict[str, str]]) -> None:
        examples.append(example)

    collect()
    await create(
        world,
        NewOrder(
            "o",
            [
                new_instruction(
                    str(n), currency=currency, minor=minor, direction=direction, settled_by=day, metadata=data
                )
                for n, (currency, minor, direction, day, data) in enumerate(examples)
            ],
        ),
    )
    async with world.operation() as op:
        for n, (currency, minor, direction, day, metadata) in enumerate(examples):
            found = await get_instruction(op, "o", str(n))
            assert (found.money.minor, found.money.currency, found.direction) == (minor, currency, direction)
            assert (found.settled_by, found.metadata, found.status) == (day, metadata, "INCOMPLETE")
