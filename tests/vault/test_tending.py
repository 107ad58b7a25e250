"""The worker looks after everybody's keys: one holder that hangs, or one big tenant, holds up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import UUID

import pytest

from strongroom.assembly import SPLITS, Installation
from strongroom.vault import Layer, Work, keyring, keys, leases, list_work, work
from strongroom.vault._walking import TABLES
from strongroom.vault.holders.contract import Reason
from tests.fixtures.platform import Platform, public_folder, started
from tests.vault.desk import Owner
from tests.vault.holding import Elsewhere

PATIENCE_S = 120.0
"""Far more than anything takes, on a machine that has other things to do, too."""


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    """One of its own: in the common one hundreds of tenants are looked after by now."""
    with public_folder() as folder, started(folder) as made:
        yield made


@pytest.fixture
async def owners(near: Platform, elsewhere: Elsewhere, allowed: set[UUID]) -> list[Owner]:
    """Six tenants, of whom nothing is due."""
    account = await near.new_account()
    made = [await Owner.make(near.app, await account.new_tenant(), elsewhere) for _ in range(6)]
    allowed.add(made[0].account)
    await until_nothing_is_due(made[0])
    return made


async def until_nothing_is_due(owner: Owner) -> None:
    while await owner.desk.tend_all(SPLITS):
        pass


async def rotation_of(owner: Owner) -> Work:
    """The tenant's newest."""
    async with owner.operation() as op:
        return next(each for each in await list_work(op) if each.kind != "carry-over")


async def test_a_holder_that_hangs_holds_up_its_own_tenants_alone(
    owners: list[Owner], elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    *held, plain = owners
    for owner in held:
        await owner.desk.attach(owner.first, owner.scope, "hsm", elsewhere.add("a"))
    await plain.desk.rotate_scope_key(plain.first, plain.scope, Layer.CUSTOMER)
    # It hangs until it is told otherwise, and is waited for all that time: for its answers are events here.
    for module in (keyring, leases):
        monkeypatch.setattr(module, "ANSWER_WITHIN_S", PATIENCE_S)
    elsewhere.gate = asyncio.Event()
    asked = elsewhere.asked
    turn = asyncio.create_task(plain.desk.tend_all(SPLITS))
    while not (await rotation_of(plain)).is_done:
        assert not turn.done(), "it waited for a holder that isn't its own"
        await asyncio.sleep(0.02)
    assert not turn.done()
    elsewhere.wrong = Reason.SLOW
    elsewhere.gate.set()
    assert await turn is False
    # The first ones have found out for all of them.
    assert elsewhere.asked - asked <= 2 * keys.AT_ONCE_ELSEWHERE
    assert [(await rotation_of(owner)).is_done for owner in held] == [False] * len(held)
    elsewhere.wrong = None
    await until_nothing_is_due(plain)
    assert [(await rotation_of(owner)).is_done for owner in held] == [True] * len(held)


async def test_what_takes_long_is_done_by_turns(owners: list[Owner], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "BATCH", 1)
    monkeypatch.setattr(keys, "TURN_S", 0.0)
    monkeypatch.setattr(keys, "AT_ONCE", 1)
    for owner in owners:
        await owner.put_account()
        await owner.desk.rotate_data_key(owner.first, owner.scope, Layer.PLATFORM)
    is_more = await owners[0].desk.tend_all(SPLITS)
    assert is_more
    for owner in owners:
        begun = await rotation_of(owner)
        assert (begun.is_done, begun.table) == (False, TABLES[1]), "everybody has had a turn"
    await until_nothing_is_due(owners[0])
    assert [(await rotation_of(owner)).is_done for owner in owners] == [True] * len(owners)


async def test_whoever_has_nothing_due_is_not_looked_at_one_by_one(owners: list[Owner]) -> None:
    await owners[2].desk.rotate_scope_key(owners[2].first, owners[2].scope, Layer.PLATFORM)
    due = {scope for scope, _ in await owners[0].desk._find_due(again=False)}
    assert due & {owner.scope for owner in owners} == {owners[2].scope}
