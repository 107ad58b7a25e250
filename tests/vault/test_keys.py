"""The life of a tenant's keys: who may, what it does, what it refuses, and what can be read afterwards."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import pytest

from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Broken, StrongroomError, Unavailable
from strongroom.kernel.secret import Secret
from strongroom.payments.customers import get_customer, put_details
from strongroom.payments.instruments import list_instruments
from strongroom.vault import RETIRED_KEPT, Layer, get_scope_key
from strongroom.vault.holders.contract import Reason
from tests.fixtures.platform import Platform
from tests.payments.world import IBAN
from tests.vault.desk import Owner
from tests.vault.holding import Elsewhere

T = TypeVar("T")
WITHIN_S = 5.0
"""How long a disabled key may still be used anywhere."""
PATIENCE_S = 30.0
"""How long what comes back may take, on a machine that has other things to do."""


async def refusal(attempt: Awaitable[object]) -> str:
    with pytest.raises(StrongroomError) as refused:
        await attempt
    return refused.value.code


async def until_refused(attempt: Callable[[], Awaitable[object]]) -> float:
    """How long it takes until it is refused as KEY_UNAVAILABLE, in seconds."""
    began = time.monotonic()
    while time.monotonic() - began < 2 * WITHIN_S:
        try:
            await attempt()
        except Unavailable as error:
            assert error.code == "KEY_UNAVAILABLE"
            return time.monotonic() - began
        await asyncio.sleep(0.05)
    raise AssertionError("it is never refused")


async def once_available(attempt: Callable[[], Awaitable[T]]) -> T:
    """What comes of it when it isn't refused as KEY_UNAVAILABLE any more."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await attempt()
        except StrongroomError as error:
            if error.code != "KEY_UNAVAILABLE" or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.05)


async def test_a_new_tenant_has_both_layers(owner: Owner) -> None:
    keys = await owner.keys()
    assert [(key.layer, key.version, key.state, key.source) for key in keys.scope_keys] == [
        ("customer", 1, "ACTIVE", "kept"),
        ("platform", 1, "ACTIVE", "kept"),
    ]
    assert [(key.layer, key.purpose, key.version, key.scope_key_version) for key in keys.data_keys] == [
        ("customer", "seal", 1, 1),
        ("platform", "index", 1, 1),
        ("platform", "seal", 1, 1),
        ("platform", "search", 1, 1),
    ]
    for key in (*keys.scope_keys, *keys.data_keys):
        assert key.expires_at is not None
        assert key.expires_at > key.created_at
        assert not key.wrapped
    async with owner.operation() as op:
        assert (await get_scope_key(op, Layer.CUSTOMER)).version == 1
        assert await refusal(get_scope_key(op, Layer.CUSTOMER, 2)) == "KEY_NOT_FOUND"


async def test_every_act_needs_its_permission(owner: Owner) -> None:
    nobody = replace(owner.first, roles=frozenset({"tenant-transaction-write"}))
    desk, scope = owner.desk, owner.scope
    for attempt in (
        desk.rotate_scope_key(nobody, scope, Layer.CUSTOMER),
        desk.rotate_data_key(nobody, scope, Layer.PLATFORM),
        desk.attach(nobody, scope, "hsm", "a"),
        desk.bring(nobody, scope, Secret(os.urandom(32))),
        desk.test(nobody, scope),
        desk.disable(nobody, scope),
        desk.enable(nobody, scope),
        desk.ask_to_destroy(nobody, scope),
        desk.approve_destroying(nobody, scope),
        desk.cancel_destroying(nobody, scope),
        desk.stop_rotation(nobody, scope),
    ):
        assert await refusal(attempt) == "FORBIDDEN"
    async with owner.operation("tenant-transaction-read") as op:
        assert await refusal(get_scope_key(op, Layer.CUSTOMER)) == "FORBIDDEN"
    assert await owner.actions("key.") == []
    assert await owner.states("customer") == [(1, "ACTIVE", "kept")]


async def test_disabled_it_opens_nowhere_and_everything_else_goes_on(owner: Owner, far: Platform) -> None:
    instrument, there = await owner.put_account(), owner.seen_by(far.app)
    async with owner.operation() as op:
        await put_details(op, "C-1", {"note": "calls at night"})
    assert await there.iban(instrument) == await owner.iban(instrument) == IBAN
    stranger = await Owner.make(far.app, await far.new_tenant(), owner.elsewhere)
    other = await stranger.put_account()
    await owner.desk.disable(owner.first, owner.scope)
    await owner.desk.disable(owner.first, owner.scope)
    for seat in (owner, there):
        assert await until_refused(lambda seat=seat: seat.iban(instrument)) < WITHIN_S
        async with seat.operation() as op:
            [shown] = await list_instruments(op, "C-1")
            assert shown.display_name == "DE** **** **** 3000"
            assert await refusal(get_customer(op, "C-1")) == "KEY_UNAVAILABLE"
        assert await refusal(seat.put_account("C-2")) == "KEY_UNAVAILABLE"
    assert await stranger.iban(other) == IBAN
    assert await owner.states("customer") == [(1, "DISABLED", "kept")]
    assert await refusal(owner.desk.rotate_scope_key(owner.first, owner.scope, Layer.CUSTOMER)) == "KEY_DISABLED"
    await owner.desk.enable(owner.second, owner.scope)
    assert await owner.iban(instrument) == await there.iban(instrument) == IBAN
    assert [action for action, *_ in await owner.actions("key.")] == ["key.disable", "key.disable", "key.enable"]


async def test_through_the_api_it_is_a_503_that_says_when_to_try_again(near: Platform, elsewhere: Elsewhere) -> None:
    client = await near.new_tenant()
    owner = await Owner.make(near.app, client, elsewhere)
    account = {"type": "BANK_ACCOUNT", "accountHolderName": "Erika Mustermann", "iban": IBAN}
    made = await client.post("/v1/customer-vault/C-1/financial-instrument", account)
    assert made.status_code == 202
    await owner.desk.disable(owner.first, owner.scope)
    refused = await client.post("/v1/customer-vault/C-2/financial-instrument", account)
    assert (refused.status_code, refused.json()["errors"][0]["errorCode"]) == (503, "KEY_UNAVAILABLE")
    assert int(refused.headers["retry-after"]) > 0
    shown = await client.get(f"/v1/customer-vault/C-1/financial-instrument/{made.json()['id']}")
    assert (shown.status_code, shown.json()["displayName"]) == (200, "DE** **** **** 3000")


async def test_a_held_key_is_tried_taken_and_from_then_on_used(
    owner: Owner, elsewhere: Elsewhere, far: Platform
) -> None:
    instrument = await owner.put_account()
    reference = elsewhere.add("arn:of-ours")
    assert await refusal(owner.desk.attach(owner.first, owner.scope, "hsm", "arn:nobody")) == "KEY_UNAVAILABLE"
    for wrong in ("", "x" * 513):
        assert await refusal(owner.desk.attach(owner.first, owner.scope, "hsm", wrong)) == "KEY_REFERENCE_INVALID"
    assert await refusal(owner.desk.attach(owner.first, owner.scope, "file", "root")) == "KEY_HOLDER_IS_OURS"
    assert await refusal(owner.desk.attach(owner.first, owner.scope, "other", reference)) == "HOLDER_NOT_FOUND"
    work = await owner.desk.attach(owner.first, owner.scope, "hsm", reference)
    assert (work.kind, work.layer, work.version) == ("rewrap", "customer", 2)
    assert (await owner.finish()).done == 1
    assert await owner.states("customer") == [(1, "RETIRING", "kept"), (2, "ACTIVE", "held")]
    asked = elsewhere.asked
    assert await owner.seen_by(far.app).iban(instrument) == IBAN
    assert elsewhere.asked > asked
    tested = await owner.desk.test(owner.first, owner.scope)
    assert (tested.held.reference, tested.held.is_extractable) == (reference, False)
    elsewhere.wrong = Reason.AWAY
    assert await refusal(owner.desk.test(owner.first, owner.scope)) == "KEY_UNAVAILABLE"
    async with owner.operation() as op:
        rows = await op.rows("select outcome from audit_entries where action = 'key.test' order by entry_id")
    assert [row[0] for row in rows] == ["done", "refused"]


async def test_a_held_key_belongs_to_one_account(
    owner: Owner, near: Platform, elsewhere: Elsewhere, allowed: set[object]
) -> None:
    reference = elsewhere.add("shared")
    await owner.desk.attach(owner.first, owner.scope, "hsm", reference)
    stranger = await Owner.make(near.app, await near.new_tenant(), elsewhere)
    assert await refusal(stranger.desk.attach(stranger.first, stranger.scope, "hsm", reference)) == "HOLDER_NOT_FOUND"
    allowed.add(stranger.account)
    taken = await refusal(stranger.desk.attach(stranger.first, stranger.scope, "hsm", reference))
    assert taken == "KEY_OF_ANOTHER_ACCOUNT"
    assert await stranger.states("customer") == [(1, "ACTIVE", "kept")]
    async with near.app.databases.directory() as directory:
        rows = await (await directory.execute("select * from key_owners")).fetchall()
    assert reference not in str(rows)


@pytest.mark.parametrize("reason", [Reason.AWAY, Reason.SLOW, Reason.DISABLED, Reason.GONE])
async def test_a_holder_s_trouble_is_its_own_tenant_s(
    owner: Owner, near: Platform, elsewhere: Elsewhere, reason: Reason
) -> None:
    instrument = await owner.put_account()
    await owner.desk.attach(owner.first, owner.scope, "hsm", elsewhere.add("a"))
    await owner.finish()
    stranger = await Owner.make(near.app, await near.new_tenant(), elsewhere)
    other = await stranger.put_account()
    assert await owner.iban(instrument) == IBAN
    if reason is Reason.SLOW:
        elsewhere.delay_s = 60
    elsewhere.wrong = reason
    assert await until_refused(lambda: owner.iban(instrument)) < WITHIN_S
    began = time.monotonic()
    for _ in range(20):
        assert await stranger.iban(other) == IBAN
        async with owner.operation() as op:
            assert len(await list_instruments(op, "C-1")) == 1
    assert time.monotonic() - began < 10, "each of the twenty waited for a holder that isn't its own"
    elsewhere.wrong, elsewhere.delay_s = None, 0
    assert await once_available(lambda: owner.iban(instrument)) == IBAN


async def test_garbage_and_foreign_wrappings_are_told_apart(owner: Owner, near: Platform, elsewhere: Elsewhere) -> None:
    instrument, reference = await owner.put_account(), elsewhere.add("a")
    await owner.desk.attach(owner.first, owner.scope, "hsm", reference)
    await owner.finish()
    elsewhere.garbage = b"short"
    assert await until_refused(lambda: owner.iban(instrument)) < WITHIN_S
    elsewhere.garbage = None
    elsewhere.replace(reference)
    with pytest.raises(Broken) as broken:
        await once_available(lambda: owner.iban(instrument))
    assert broken.value.code == "DATA_KEY_BROKEN"


async def test_an_imported_key_takes_over(owner: Owner) -> None:
    instrument = await owner.put_account()
    for size in (0, 16, 33):
        assert await refusal(owner.desk.bring(owner.first, owner.scope, Secret(bytes(size)))) == "KEY_SIZE_INVALID"
    await owner.desk.bring(owner.first, owner.scope, Secret(os.urandom(32)))
    await owner.finish()
    assert await owner.states("customer") == [(1, "RETIRING", "kept"), (2, "ACTIVE", "imported")]
    assert await owner.iban(instrument) == IBAN


async def test_destroying_takes_two_people_and_a_delay(owner: Owner, clock: ManualClock, far: Platform) -> None:
    instrument, there = await owner.put_account(), owner.seen_by(far.app)
    desk, scope = owner.desk, owner.scope
    assert await refusal(desk.approve_destroying(owner.second, scope)) == "KEY_DESTROY_NOT_ASKED"
    assert await refusal(desk.cancel_destroying(owner.second, scope)) == "KEY_DESTROY_NOT_ASKED"
    await desk.ask_to_destroy(owner.first, scope)
    assert await refusal(desk.ask_to_destroy(owner.second, scope)) == "KEY_BEING_DESTROYED"
    assert await refusal(desk.rotate_scope_key(owner.first, scope, Layer.CUSTOMER)) == "KEY_BEING_DESTROYED"
    assert await refusal(desk.approve_destroying(owner.first, scope)) == "KEY_DESTROY_NEEDS_ANOTHER"
    approved = await desk.approve_destroying(owner.second, scope)
    assert approved.destroy_after == clock.now() + timedelta(days=7)
    await desk.cancel_destroying(owner.first, scope)
    clock.advance(timedelta(days=8))
    await desk.tend(scope)
    assert await owner.iban(instrument) == IBAN
    await desk.ask_to_destroy(owner.second, scope)
    await desk.approve_destroying(owner.first, scope)
    clock.advance(timedelta(days=6, hours=23))
    await desk.tend(scope)
    assert await there.iban(instrument) == await owner.iban(instrument) == IBAN
    clock.advance(timedelta(hours=1))
    assert await refusal(desk.cancel_destroying(owner.first, scope)) == "KEY_DESTROYED"
    await desk.tend(scope)
    await desk.tend(scope)
    assert await owner.states("customer") == [(1, "DESTROYED", "kept")]
    for seat in (owner, there):
        assert await refusal(seat.iban(instrument)) == "KEY_UNAVAILABLE"
    for attempt in (
        desk.enable(owner.first, scope),
        desk.disable(owner.first, scope),
        desk.ask_to_destroy(owner.first, scope),
        desk.rotate_scope_key(owner.first, scope, Layer.CUSTOMER),
        desk.rotate_data_key(owner.first, scope, Layer.CUSTOMER),
    ):
        assert await refusal(attempt) == "KEY_DESTROYED"
    assert [action for action, *_ in await owner.actions("key.destroy")] == ["key.destroy"]


async def test_destroyed_is_shredded_also_for_a_restored_backup(owner: Owner, clock: ManualClock) -> None:
    """The rows of before are put back byte for byte: all of them are there, and none opens."""
    instruments = [await owner.put_account(f"C-{number}") for number in range(5)]
    await owner.desk.rotate_scope_key(owner.first, owner.scope, Layer.CUSTOMER)
    await owner.finish()
    async with owner.operation() as op:
        scope_keys = await op.rows("select layer, version, state from scope_keys")
        data_keys = await op.rows("select layer, purpose, version, state, wrapped from data_keys")
    await owner.desk.ask_to_destroy(owner.first, owner.scope)
    await owner.desk.approve_destroying(owner.second, owner.scope)
    clock.advance(timedelta(days=7))
    await owner.desk.tend(owner.scope)
    async with owner.operation() as op:
        for layer, version, state in sorted(scope_keys, key=lambda row: row[2], reverse=True):
            await op.run("update scope_keys set state = %s where layer = %s and version = %s", state, layer, version)
        for layer, purpose, version, state, wrapped in data_keys:
            await op.run(
                "update data_keys set state = %s, wrapped = %s where layer = %s and purpose = %s and version = %s",
                state, wrapped, layer, purpose, version,
            )  # fmt: skip
    opened = 0
    for instrument in instruments:
        try:
            await owner.iban(instrument)
            opened += 1
        except Unavailable as error:
            assert error.failures[0].values["reason"] == "GONE"
    assert opened == 0
    async with owner.operation() as op:
        assert len(await list_instruments(op, "C-0")) == 1


async def test_after_a_destroyed_key_a_new_one_begins_anew(owner: Owner, clock: ManualClock) -> None:
    old = await owner.put_account("C-1")
    await owner.desk.ask_to_destroy(owner.first, owner.scope)
    await owner.desk.approve_destroying(owner.second, owner.scope)
    clock.advance(timedelta(days=7))
    await owner.desk.tend(owner.scope)
    await owner.desk.bring(owner.first, owner.scope, Secret(os.urandom(32)))
    assert (await owner.finish()).done == 0
    assert await owner.iban(await owner.put_account("C-2")) == IBAN
    assert await refusal(owner.iban(old)) == "KEY_UNAVAILABLE", "for good: it is not broken, its key is destroyed"


async def test_a_retired_key_is_kept_for_backups_and_then_ended(owner: Owner, clock: ManualClock) -> None:
    instrument = await owner.put_account()
    for layer in Layer:
        await owner.desk.rotate_scope_key(owner.first, owner.scope, layer)
        await owner.finish()
    clock.advance(RETIRED_KEPT - timedelta(seconds=1))
    await owner.desk.tend(owner.scope)
    assert await owner.states("customer") == [(1, "RETIRING", "kept"), (2, "ACTIVE", "kept")]
    clock.advance(timedelta(seconds=1))
    await owner.desk.tend(owner.scope)
    for layer in Layer:
        assert await owner.states(layer) == [(1, "DESTROYED", "kept"), (2, "ACTIVE", "kept")]
    assert await owner.iban(instrument) == IBAN
    async with owner.operation() as op:
        old = await get_scope_key(op, Layer.CUSTOMER, 1)
    held = await owner.app.keyring.holders.own.describe(old.reference)
    assert held.state == "GONE"


async def test_two_rotations_at_once_and_destroying_meanwhile_are_refused(owner: Owner) -> None:
    desk, scope = owner.desk, owner.scope
    answers = await asyncio.gather(
        *(desk.rotate_scope_key(owner.first, scope, Layer.CUSTOMER) for _ in range(4)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, StrongroomError)]
    assert len(refused) == 3
    assert {error.code for error in refused} <= {"KEY_WORK_RUNNING", "KEY_CHANGED"}
    for attempt in (
        desk.rotate_scope_key(owner.first, scope, Layer.PLATFORM),
        desk.rotate_data_key(owner.first, scope, Layer.PLATFORM),
        desk.bring(owner.first, scope, Secret(os.urandom(32))),
        desk.ask_to_destroy(owner.first, scope),
    ):
        assert await refusal(attempt) == "KEY_WORK_RUNNING"
    await owner.finish()
    assert await owner.states("customer") == [(1, "RETIRING", "kept"), (2, "ACTIVE", "kept")]
    assert (await desk.rotate_data_key(owner.first, scope, Layer.PLATFORM)).kind == "re-encrypt"


async def test_a_rotation_whose_old_key_is_gone_can_be_given_up(owner: Owner, elsewhere: Elsewhere) -> None:
    await owner.desk.attach(owner.first, owner.scope, "hsm", elsewhere.add("a"))
    await owner.finish()
    await owner.desk.rotate_scope_key(owner.first, owner.scope, Layer.CUSTOMER)
    elsewhere.keys.clear()
    assert await refusal(owner.desk.tend(owner.scope)) == "KEY_UNAVAILABLE"
    assert await refusal(owner.desk.ask_to_destroy(owner.first, owner.scope)) == "KEY_WORK_RUNNING"
    assert (await owner.desk.stop_rotation(owner.first, owner.scope)).is_done
    assert await refusal(owner.desk.stop_rotation(owner.first, owner.scope)) == "KEY_WORK_NOT_FOUND"
    await owner.desk.ask_to_destroy(owner.first, owner.scope)
