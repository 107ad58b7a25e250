"""The machine's clock is moved by a day, forth and back: nothing of the keys ends earlier or later than it should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from strongroom.assembly import SPLITS, Installation
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Conflict
from strongroom.vault import DESTROY_DELAY, RETIRED_KEPT, Layer
from tests.payments.world import IBAN
from tests.vault.conftest import clock
from tests.vault.desk import Owner, process
from tests.vault.holding import Elsewhere
from tests.vault.test_keys import WITHIN_S, refusal, until_refused

__all__ = ["clock"]
DAY = timedelta(days=1)


@pytest.fixture
async def owner(installation: Installation, clock: ManualClock) -> AsyncIterator[Owner]:
    allowed: set[UUID] = set()
    elsewhere = Elsewhere()
    async with process(installation, elsewhere, allowed, clock) as platform:
        made = await Owner.make(platform.app, await platform.new_tenant(), elsewhere)
        allowed.add(made.account)
        yield made


async def customer_key_is(owner: Owner, state: str) -> bool:
    found = await owner.states("customer")
    return found[-1][1] == state


async def test_leases_don_t_go_by_it(owner: Owner, clock: ManualClock) -> None:
    """A day forth ends no lease, and a day back prolongs none."""
    reference = owner.elsewhere.add("a")
    await owner.desk.attach(owner.first, owner.scope, "hsm", reference)
    await owner.finish()
    instrument = await owner.put_account()
    for step in (DAY, -2 * DAY, DAY):
        asked = owner.elsewhere.asked
        clock.advance(step)
        assert await owner.iban(instrument) == IBAN
        assert owner.elsewhere.asked == asked, "the lease went on"
    clock.advance(-DAY)
    del owner.elsewhere.keys[reference]
    assert await until_refused(lambda: owner.iban(instrument)) < WITHIN_S


async def test_a_destruction_waits_its_delay_and_is_not_taken_back(owner: Owner, clock: ManualClock) -> None:
    await owner.desk.ask_to_destroy(owner.first, owner.scope)
    approved = await owner.desk.approve_destroying(owner.second, owner.scope)
    due = clock.now() + DESTROY_DELAY
    assert approved.destroy_after == due
    for step in (DAY, -2 * DAY, DAY):
        clock.advance(step)
        await owner.desk.tend(owner.scope, SPLITS)
        again = await owner.desk.approve_destroying(owner.second, owner.scope)
        assert again.destroy_after == due, "agreeing again, with another clock, doesn't move the day"
        assert await customer_key_is(owner, "ACTIVE")
    clock.advance(DESTROY_DELAY)
    await owner.desk.tend(owner.scope, SPLITS)
    assert await customer_key_is(owner, "DESTROYED")
    clock.advance(-DAY - DESTROY_DELAY)
    await owner.desk.tend(owner.scope, SPLITS)
    assert await refusal(owner.desk.cancel_destroying(owner.first, owner.scope)) == "KEY_DESTROY_NOT_ASKED"
    assert await refusal(owner.desk.enable(owner.first, owner.scope)) == "KEY_DESTROYED"
    assert await customer_key_is(owner, "DESTROYED")


async def test_a_cancelled_destruction_is_cancelled_by_any_clock(owner: Owner, clock: ManualClock) -> None:
    instrument = await owner.put_account()
    await owner.desk.ask_to_destroy(owner.first, owner.scope)
    await owner.desk.approve_destroying(owner.second, owner.scope)
    clock.advance(-DAY)
    await owner.desk.cancel_destroying(owner.first, owner.scope)
    clock.advance(DAY + 2 * DESTROY_DELAY)
    await owner.desk.tend(owner.scope, SPLITS)
    assert await owner.iban(instrument) == IBAN


async def test_rotations_go_by_versions_and_retired_keys_keep_their_time(owner: Owner, clock: ManualClock) -> None:
    """Made with the clock set back, the new key is the one in use all the same, though it looks older."""
    instrument = await owner.put_account()
    before = {key.layer: key for key in (await owner.keys()).scope_keys}
    clock.advance(-DAY)
    for layer in Layer:
        await owner.desk.rotate_scope_key(owner.first, owner.scope, layer)
        await owner.finish()
        await owner.desk.rotate_data_key(owner.first, owner.scope, layer)
        await owner.finish()
    keys = await owner.keys()
    for layer in Layer:
        current = keys.current(layer)
        assert current is not None
        assert (current.version, current.state) == (2, "ACTIVE")
        assert current.created_at < before[layer].created_at
        assert current.expires_at - current.created_at == before[layer].expires_at - before[layer].created_at
        assert {key.version for key in keys.data(layer)} == {2}
    assert await owner.iban(instrument) == IBAN
    retired = clock.now()
    for moment, state in ((retired + DAY, "RETIRING"), (retired - DAY, "RETIRING"),
                          (retired + RETIRED_KEPT - DAY, "RETIRING"), (retired + RETIRED_KEPT, "DESTROYED"),
                          (retired, "DESTROYED")):  # fmt: skip
        clock.advance(moment - clock.now())
        await owner.desk.tend(owner.scope, SPLITS)
        for layer in Layer:
            assert (await owner.states(layer))[0][1] == state, moment - retired
        assert await owner.iban(instrument) == IBAN


async def test_two_processes_whose_clocks_are_a_day_apart_agree(installation: Installation, owner: Owner) -> None:
    late = ManualClock(datetime.now(UTC) - DAY)
    async with process(installation, owner.elsewhere, {owner.account}, late) as behind:
        there = owner.seen_by(behind.app)
        instrument = await there.put_account()
        assert await owner.iban(instrument) == IBAN
        await there.desk.rotate_data_key(owner.first, owner.scope, Layer.CUSTOMER)
        # Of two that begin at once one is refused, by whichever clock.
        with pytest.raises(Conflict) as refused:
            await owner.desk.rotate_scope_key(owner.second, owner.scope, Layer.CUSTOMER)
        assert refused.value.code == "KEY_WORK_RUNNING"
        await asyncio.gather(owner.desk.tend(owner.scope), there.desk.tend(owner.scope))
        assert await owner.iban(instrument) == await there.iban(instrument) == IBAN
        await owner.desk.disable(owner.first, owner.scope)
        for seat in (owner, there):
            assert await until_refused(lambda seat=seat: seat.iban(instrument)) < WITHIN_S
