"""A key's cryptoperiod ends: what is ours to replace is replaced, once; of what isn't, its owner is told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from strongroom.cli.key_views import scope_keys_table
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Unavailable
from strongroom.vault import RETIRED_KEPT, DataKey, Keys, KeyState, Layer, ScopeKey, Source, get_scope_key, is_over
from strongroom.vault.overdue import TOLD_AGAIN_AFTER
from strongroom.vault.records import DATA_KEY_PERIOD, SCOPE_KEY_PERIOD, Purpose, find_due
from tests.fixtures.platform import Platform
from tests.payments.world import IBAN
from tests.vault.desk import Owner
from tests.vault.holding import Elsewhere

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def scope_key(layer: Layer, expires_at: datetime, *, source: Source = Source.KEPT) -> ScopeKey:
    return ScopeKey(
        layer=layer,
        version=1,
        state=KeyState.ACTIVE,
        source=source,
        holder="file",
        reference="x",
        wrapped=None,
        created_at=NOW,
        changed_at=NOW,
        expires_at=expires_at,
        retired_at=None,
        destroy_after=None,
        destroy_asked_by=None,
        destroy_approved_by=None,
    )


def data_key(layer: Layer, purpose: Purpose, expires_at: datetime | None) -> DataKey:
    return DataKey(
        layer=layer,
        purpose=purpose,
        version=1,
        state=KeyState.ACTIVE,
        wrapped=b"",
        scope_key_version=1,
        created_at=NOW,
        expires_at=expires_at,
    )


def test_what_is_due_is_chosen_by_who_may_replace_it() -> None:
    platform, customer = scope_key(Layer.PLATFORM, NOW + SECOND), scope_key(Layer.CUSTOMER, NOW)
    seal, index = data_key(Layer.PLATFORM, "seal", NOW), data_key(Layer.PLATFORM, "index", NOW)
    theirs = data_key(Layer.CUSTOMER, "seal", NOW)
    later = [data_key(Layer.PLATFORM, "seal", NOW + SECOND), data_key(Layer.PLATFORM, "search", None), index]
    assert find_due(Keys([platform, customer], [seal, theirs]), NOW) is seal
    assert find_due(Keys([platform, customer], [*later, theirs]), NOW) is customer
    assert find_due(Keys([platform, customer], [*later, theirs]), NOW - SECOND) is None
    for source in (Source.HELD, Source.IMPORTED):
        held = scope_key(Layer.CUSTOMER, NOW, source=source)
        assert find_due(Keys([platform, held], [*later, theirs]), NOW) is theirs
        assert find_due(Keys([platform, held], later), NOW) is None
        assert is_over(held, NOW)
    for shut in (
        replace(customer, state=KeyState.DISABLED),
        replace(customer, state=KeyState.DESTROYED),
        replace(customer, destroy_asked_by="somebody"),
    ):
        assert find_due(Keys([platform, shut], [*later, theirs]), NOW) is None
    assert not is_over(replace(seal, state=KeyState.RETIRING), NOW)


async def is_found_due(owner: Owner) -> bool:
    """Whether the worker would look at this tenant."""
    return owner.scope in {scope for scope, _ in await owner.desk._find_due(again=False)}


async def versions(owner: Owner) -> dict[tuple[str, str], list[tuple[int, str]]]:
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for key in (await owner.keys()).data_keys:
        found.setdefault((key.layer.value, key.purpose), []).append((key.version, key.state.value))
    return found


async def test_data_keys_are_rotated_after_a_year_by_one_of_several_workers(
    owner: Owner, far: Platform, clock: ManualClock
) -> None:
    instrument = await owner.put_account()
    desks = [owner.desk, far.app.key_desk]
    await owner.desk.tend(owner.scope)
    clock.advance(DATA_KEY_PERIOD - timedelta(minutes=5))
    assert (await versions(owner))["platform", "seal"] == [(1, "ACTIVE")]
    await asyncio.gather(*(desk.tend(owner.scope) for desk in desks))
    assert (await versions(owner))["platform", "seal"] == [(1, "ACTIVE")]
    clock.advance(timedelta(minutes=10))
    assert await is_found_due(owner)
    # Whoever finds another at it leaves the rest for the next time.
    for _ in range(3):
        await asyncio.gather(*(desk.tend(owner.scope) for desk in desks))
    changed = [(1, "DESTROYED"), (2, "ACTIVE")]
    assert await versions(owner) == {
        ("platform", "seal"): changed,
        ("platform", "search"): changed,
        ("platform", "index"): [(1, "ACTIVE")],
        ("customer", "seal"): changed,
    }
    assert sorted(detail for _, _, detail in await owner.actions("key.rotate") if "version" in detail) == sorted(
        [
            "platform version=2", "platform version=2", "customer version=2",
            "re-encrypt platform version=2", "re-encrypt customer version=2", "re-index platform version=2",
        ]
    )  # fmt: skip
    assert await owner.iban(instrument) == IBAN
    clock.advance(-2 * DATA_KEY_PERIOD)
    await owner.desk.tend(owner.scope)
    assert await versions(owner) == await versions(owner.seen_by(far.app))
    assert (await versions(owner))["platform", "seal"] == changed


async def test_scope_keys_are_rotated_after_two_years_and_end_when_no_backup_needs_them(
    owner: Owner, clock: ManualClock
) -> None:
    instrument = await owner.put_account()
    clock.advance(SCOPE_KEY_PERIOD)
    await owner.finish()
    for layer in Layer:
        assert await owner.states(layer) == [(1, "RETIRING", "kept"), (2, "ACTIVE", "kept")]
    assert await owner.iban(instrument) == IBAN
    clock.advance(RETIRED_KEPT)
    await owner.desk.tend(owner.scope)
    for layer in Layer:
        assert await owner.states(layer) == [(1, "DESTROYED", "kept"), (2, "ACTIVE", "kept")]
    async with owner.operation() as op:
        old = await get_scope_key(op, Layer.CUSTOMER, 1)
    assert (await owner.app.keyring.holders.own.describe(old.reference)).state == "GONE"
    assert await owner.iban(instrument) == IBAN


async def test_of_a_key_that_only_they_can_replace_its_owner_is_told(
    owner: Owner, elsewhere: Elsewhere, clock: ManualClock
) -> None:
    await owner.desk.attach(owner.first, owner.scope, "hsm", elsewhere.add("k"))
    await owner.finish()
    clock.advance(SCOPE_KEY_PERIOD)
    assert await is_found_due(owner)
    for _ in range(2):
        await owner.desk.tend(owner.scope)
    # What of the layer is ours is rotated all the same, under the key that they have.
    assert (await versions(owner))["customer", "seal"] == [(1, "DESTROYED"), (2, "ACTIVE")]
    assert (await owner.states("customer"))[-1] == (2, "ACTIVE", "held")
    expired = clock.now().date().isoformat()
    [(_, _, told)] = await owner.actions("alert.raise")
    assert told == f"key.overdue key={owner.tenant} version=2 source=held expired={expired}"
    assert not await is_found_due(owner)
    [shown] = (
        scope_keys_table([(await owner.keys()).current(Layer.CUSTOMER) or pytest.fail()], clock.now()).columns[5]._cells
    )
    assert shown == f"[red]{expired} (over: its owner has to replace it)[/]"
    clock.advance(TOLD_AGAIN_AFTER - SECOND)
    assert not await is_found_due(owner)
    clock.advance(SECOND)
    assert await is_found_due(owner)
    await owner.desk.tend(owner.scope)
    assert len(await owner.actions("alert.raise")) == 2


async def test_a_holder_that_is_away_or_a_key_that_is_disabled_is_waited_for(
    owner: Owner, elsewhere: Elsewhere, clock: ManualClock
) -> None:
    await owner.desk.attach(owner.first, owner.scope, "hsm", elsewhere.add("k"))
    await owner.finish()
    clock.advance(DATA_KEY_PERIOD)
    await owner.desk.disable(owner.first, owner.scope)
    await owner.desk.tend(owner.scope)
    # The platform's layer doesn't wait for the customer's.
    assert (await versions(owner))["platform", "seal"] == [(1, "DESTROYED"), (2, "ACTIVE")]
    assert (await versions(owner))["customer", "seal"] == [(1, "ACTIVE")]
    assert not await is_found_due(owner)
    await owner.desk.enable(owner.first, owner.scope)
    elsewhere.keys.clear()
    with pytest.raises(Unavailable) as refused:
        await owner.desk.tend(owner.scope)
    assert refused.value.code == "KEY_UNAVAILABLE"
    assert (await versions(owner))["customer", "seal"] == [(1, "ACTIVE")]
    assert await is_found_due(owner)
