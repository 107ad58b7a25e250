"""Scope keys of many tenants are renewed together: all of them, at any moment, whatever else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from strongroom.assembly import App
from strongroom.kernel.actors import operator
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Forbidden, Unavailable
from strongroom.vault import Layer, Renewed, Scope, list_work, renew_scope_keys, renewal
from tests.fixtures.platform import Platform
from tests.payments.world import IBAN
from tests.vault.desk import Owner
from tests.vault.holding import Elsewhere

KEYS_OF = {Layer.PLATFORM: 3, Layer.CUSTOMER: 1}
"""Data keys of a tenant, by layer."""


@pytest.fixture
async def owners(near: Platform, elsewhere: Elsewhere, allowed: set[UUID]) -> AsyncIterator[list[Owner]]:
    """Five tenants of two accounts."""
    accounts = [await near.new_account() for _ in range(2)]
    made = [
        await Owner.make(near.app, await account.new_tenant(), elsewhere)
        for account, count in zip(accounts, (3, 2), strict=True)
        for _ in range(count)
    ]
    allowed.update(owner.account for owner in made)
    yield made


def scopes_of(owners: list[Owner]) -> list[Scope]:
    return [owner.scope for owner in owners]


async def renew(
    owners: list[Owner], layer: Layer, clock: ManualClock, progress: renewal.Progress | None = None
) -> Renewed:
    """Renew what was made before this moment."""
    app = owners[0].app
    clock.advance(timedelta(seconds=1))
    before = clock.now()
    clock.advance(timedelta(seconds=1))
    return await renew_scope_keys(
        app.databases, app.keyring, operator("o"), layer, scopes_of(owners), before=before, progress=progress
    )


@pytest.mark.parametrize("layer", list(Layer))
async def test_every_scope_passes_to_its_new_key(
    owners: list[Owner], far: Platform, layer: Layer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "AT_ONCE", 2)
    instruments = [await owner.put_account() for owner in owners]
    told: list[Renewed] = []
    renewed = await renew(owners, layer, clock, progress=told.append)
    expected = Renewed(seen=5, scope_keys=5, data_keys=5 * KEYS_OF[layer], left=0)
    assert renewed == expected
    assert [each.seen for each in told] == sorted(each.seen for each in told)
    assert told[-1] == expected
    assert len(told) == 3
    for owner, instrument in zip(owners, instruments, strict=True):
        assert await owner.states(layer) == [(1, "RETIRING", "kept"), (2, "ACTIVE", "kept")]
        keys = await owner.keys()
        assert {key.scope_key_version for key in keys.data_keys if key.layer is layer} == {2}
        assert {key.scope_key_version for key in keys.data_keys if key.layer is not layer} == {1}
        assert keys.scope_keys[[key.layer for key in keys.scope_keys].index(layer)].retired_at is not None
        assert await owner.iban(instrument) == IBAN
        assert await owner.seen_by(far.app).iban(instrument) == IBAN
        async with owner.operation() as op:
            [work] = [work for work in await list_work(op) if work.kind == "rewrap"]
        assert (work.is_done, work.layer, work.version, work.done) == (True, layer, 2, KEYS_OF[layer])
        assert await owner.actions("key.rotate") == [
            ("key.rotate", str(owner.tenant), f"{layer.value} version=2 source=kept"),
            ("key.rotated", str(owner.tenant), f"rewrap {layer.value} version=2"),
        ]


async def test_it_goes_on_where_it_broke_off(
    owners: list[Owner], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same moment only what is left is done."""
    monkeypatch.setattr(renewal, "AT_ONCE", 2)
    clock.advance(timedelta(seconds=1))
    before = clock.now()
    clock.advance(timedelta(seconds=1))
    app = owners[0].app

    def break_off(done: Renewed) -> None:
        if done.seen >= 2:
            raise KeyboardInterrupt

    async def go(progress: renewal.Progress | None = None) -> Renewed:
        return await renew_scope_keys(
            app.databases, app.keyring, operator(), Layer.CUSTOMER, scopes_of(owners), before=before, progress=progress
        )

    with pytest.raises(KeyboardInterrupt):
        await go(break_off)
    assert (await go()).scope_keys == 3
    assert (await go()).scope_keys == 0
    for owner in owners:
        assert [version for version, _, _ in await owner.states("customer")] == [1, 2]


async def test_what_is_not_ours_to_renew_is_left_alone(owners: list[Owner], clock: ManualClock) -> None:
    held, disabled, leaving, working, plain = owners
    await held.desk.attach(held.first, held.scope, "hsm", held.elsewhere.add("a"))
    await held.finish()
    await disabled.desk.disable(disabled.first, disabled.scope)
    await leaving.desk.ask_to_destroy(leaving.first, leaving.scope)
    await working.desk.rotate_data_key(working.first, working.scope, Layer.PLATFORM)
    kept = set(plain.app.installation.holder.references())
    renewed = await renew(owners, Layer.CUSTOMER, clock)
    assert (renewed.scope_keys, renewed.left) == (1, 1), "one is being worked on"
    assert [version for version, _, _ in await plain.states("customer")] == [1, 2]
    assert [len(await owner.states("customer")) for owner in (disabled, leaving, working)] == [1, 1, 1]
    assert await held.states("customer") == [(1, "RETIRING", "kept"), (2, "ACTIVE", "held")]
    made = set(plain.app.installation.holder.references()) - kept
    assert len(made) == 1, "keys that came to nothing are destroyed"
    await working.finish()
    assert (await renew(owners, Layer.CUSTOMER, clock)).left == 0


async def test_a_key_that_does_not_open_costs_its_own_scope_alone(owners: list[Owner], clock: ManualClock) -> None:
    broken, *others = owners
    [reference] = [key.reference for key in (await broken.keys()).scope_keys if key.layer is Layer.CUSTOMER]
    await broken.app.installation.holder.disable(reference)
    renewed = await renew(owners, Layer.CUSTOMER, clock)
    assert (renewed.scope_keys, renewed.left) == (4, 1)
    await broken.app.installation.holder.enable(reference)
    assert len(await broken.states("customer")) == 1
    for owner in others:
        assert len(await owner.states("customer")) == 2


async def test_two_at_once_and_changes_meanwhile_make_one_new_key_each(
    owners: list[Owner], far: Platform, clock: ManualClock
) -> None:
    instruments = [await owner.put_account() for owner in owners]
    clock.advance(timedelta(seconds=1))
    before = clock.now()
    clock.advance(timedelta(seconds=1))

    async def go(seat: App) -> Renewed:
        return await renew_scope_keys(
            seat.databases, seat.keyring, operator(), Layer.PLATFORM, scopes_of(owners), before=before
        )

    ends = await asyncio.gather(
        go(owners[0].app), go(far.app), owners[0].desk.disable(owners[0].first, owners[0].scope)
    )
    await owners[0].desk.enable(owners[0].first, owners[0].scope)
    again = await go(owners[0].app)
    assert ends[0].scope_keys + ends[1].scope_keys + again.scope_keys == len(owners)
    for owner, instrument in zip(owners, instruments, strict=True):
        assert [(version, state) for version, state, _ in await owner.states("platform")] == [
            (1, "RETIRING"), (2, "ACTIVE"),
        ]  # fmt: skip
        assert await owner.iban(instrument) == IBAN


async def test_only_operators_renew(owners: list[Owner], clock: ManualClock) -> None:
    app, insider = owners[0].app, replace(owners[0].first, key_id=None)
    with pytest.raises(Forbidden):
        await renew_scope_keys(
            app.databases,
            app.keyring,
            insider,
            Layer.PLATFORM,
            scopes_of(owners),
            before=clock.now() + timedelta(days=1),
        )
    assert len(await owners[0].states("platform")) == 1


async def test_a_database_that_takes_no_changes_leaves_everything_as_it_was(
    owners: list[Owner], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = owners[0].app
    monkeypatch.setattr(app.databases, "_has_room", lambda: False)
    with pytest.raises(Unavailable) as refused:
        await renew(owners, Layer.PLATFORM, clock)
    assert refused.value.code == "DATABASE_TAKES_NO_CHANGES"
    monkeypatch.undo()
    assert (await renew(owners, Layer.PLATFORM, clock)).scope_keys == 5
