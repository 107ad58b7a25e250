"""Where instructions stand: told for those that exist here, to those who may know."""

from __future__ import annotations

from datetime import date

import pytest

from strongroom.assembly import App
from strongroom.kernel.errors import Forbidden
from strongroom.kernel.money import Money
from strongroom.payments.instruments import add_many
from strongroom.payments.standing import MAX_REFS, count_attempts, count_due, find_standings
from tests.fixtures.platform import Client, Platform
from tests.payments.world import World, bank_account, instruct, publish_scheme

DUE = date(2026, 12, 1)
"""The day on which `instruct` has it settled."""


async def test_standings_of_what_exists_in_the_tenant(app: App, platform: Platform, tenant: Client) -> None:
    world, other = World.of(app, tenant), World.of(app, await platform.new_tenant())
    async with world.operation() as op:
        scheme_id = await publish_scheme(op)
        [instrument_id] = await add_many(op, [("K-1", bank_account())])
        await instruct(op, "C-1", "K-1", scheme_id, instrument_id)
        await instruct(op, "C-2", "K-1", scheme_id, instrument_id)
    asked = [("C-1", "1"), ("C-1", "2"), ("none", "1"), ("C-2", "1")]
    async with world.operation("tenant-transaction-read") as op:
        found = await find_standings(op, asked)
        assert await count_due(op, DUE) == 2
        assert await count_due(op, date(2026, 11, 30)) == 0
        assert await count_attempts(op) == {}
    assert sorted((standing.order_ref, standing.ref) for standing in found) == [("C-1", "1"), ("C-2", "1")]
    assert {standing.money for standing in found} == {Money(10_000, "EUR")}
    assert {(standing.status, standing.app_id, standing.is_matched) for standing in found} == {("READY", "", False)}
    async with other.operation() as op:
        assert await find_standings(op, asked) == []
        assert await count_due(op, DUE) == 0


async def test_who_may_not_read_transactions_is_not_told(app: App, tenant: Client) -> None:
    world = World.of(app, tenant)
    async with world.operation("tenant-app-read") as op:
        with pytest.raises(Forbidden):
            await find_standings(op, [("C-1", "1")])
        with pytest.raises(Forbidden):
            await count_due(op, DUE)
        with pytest.raises(Forbidden):
            await count_attempts(op)


async def test_there_is_a_limit(app: App, tenant: Client) -> None:
    async with World.of(app, tenant).operation() as op:
        with pytest.raises(ValueError, match="at most"):
            await find_standings(op, [("C-1", "1")] * (MAX_REFS + 1))
