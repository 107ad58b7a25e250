"""Rotation while everything goes on: every envelope anew, none lost, resumable at any point."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from uuid import UUID

import msgspec
import psycopg
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.assembly import SPLITS
from strongroom.database import Operation
from strongroom.database.catalogue import OPENED_FOR
from strongroom.database.databases import url_of
from strongroom.database.sealed_tables import SEALED_TABLES
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Broken, StrongroomError, Unavailable
from strongroom.kernel.secret import Secret
from strongroom.payments.customers import get_customer, put_details
from strongroom.payments.instruments import list_instruments
from strongroom.payments.orders import get_order
from strongroom.vault import Layer, Work, carry_over, list_work, work
from strongroom.vault._walking import TABLES, read_batch
from strongroom.vault.envelopes import version_of
from strongroom.vault.holders.contract import Reason
from strongroom.vault.holders.file import FileHolder
from strongroom.vault.records import first_data_key_context, read_keys
from tests.fixtures.platform import Platform
from tests.payments.world import IBAN, instruct, publish_scheme
from tests.vault.desk import Owner
from tests.vault.holding import Elsewhere

NEW = 2


async def furnish(owner: Owner, count: int = 3) -> list[bytes]:
    """Orders, customers with metadata, accounts; returns the accounts."""
    instruments = [await owner.put_account(f"C-{number}") for number in range(count)]
    async with owner.operation() as op:
        scheme = await publish_scheme(op)
        for number, instrument in enumerate(instruments):
            await instruct(op, f"O-{number}", f"C-{number}", scheme, instrument)
            await put_details(op, f"C-{number}", {"note": f"number {number}"})
    return instruments


async def outer_versions(owner: Owner) -> dict[str, set[int]]:
    """Table.column → the versions of data keys of the platform's layer that its envelopes say."""
    found: dict[str, set[int]] = {}
    async with owner.operation() as op:
        for table in TABLES:
            rows, _ = await read_batch(op, table, "", 1000)
            for row in rows:
                for column, envelope in zip(SEALED_TABLES[table].columns, row.envelopes, strict=True):
                    if envelope is not None:
                        found.setdefault(f"{table}.{column}", set()).add(version_of(envelope))
    return found


async def all_is_well(owner: Owner, instruments: list[bytes]) -> None:
    for number, instrument in enumerate(instruments):
        assert await owner.iban(instrument) == IBAN
        async with owner.operation() as op:
            assert (await get_customer(op, f"C-{number}")).metadata == {"note": f"number {number}"}
            assert (await get_order(op, f"O-{number}")).instructions[0].customer_ref == f"C-{number}"
            assert len(await list_instruments(op, f"C-{number}")) == 1


@pytest.mark.parametrize("layer", list(Layer))
async def test_every_envelope_is_sealed_anew_and_the_old_key_ends(owner: Owner, layer: Layer) -> None:
    instruments = await furnish(owner)
    started = await owner.desk.rotate_data_key(owner.first, owner.scope, layer)
    assert (started.kind, started.layer, started.version) == ("re-encrypt", layer, NEW)
    told: list[Work] = []
    done = await owner.desk.tend(owner.scope, SPLITS, told.append)
    assert done is not None
    assert done.is_done
    assert [work for work in told if work.kind == "re-encrypt"][-1] == done
    assert done.passes >= 2
    assert done.done >= 12 if layer is Layer.PLATFORM else done.done == 6
    expected = {NEW} if layer is Layer.PLATFORM else {1}
    versions = await outer_versions(owner)
    assert set(versions) >= {
        "orders.sealed", "instructions.sealed", "customers.sealed", "customers.sensitive", "api_keys.sealed",
        "financial_instruments.sealed", "financial_instruments.sensitive", "tenants.sealed",
    }  # fmt: skip
    if layer is Layer.PLATFORM:
        assert set().union(*versions.values()) == expected
    states = [
        (key.version, key.state)
        for key in (await owner.keys()).data_keys
        if (key.layer, key.purpose) == (layer, "seal")
    ]
    assert states == [(1, "DESTROYED"), (2, "ACTIVE")]
    async with owner.operation() as op:
        rows = await op.rows("select wrapped from data_keys where state = 'DESTROYED'")
    assert [row[0] for row in rows] == [b""]
    await all_is_well(owner, instruments)
    assert ("key.rotated", str(owner.tenant), f"re-encrypt {layer} version=2") in await owner.actions("key.rotated")
    assert await owner.desk.tend(owner.scope, SPLITS) is None


async def test_rewrapping_touches_no_field(owner: Owner) -> None:
    instruments = await furnish(owner)
    before = await outer_versions(owner)
    for layer in Layer:
        await owner.desk.rotate_scope_key(owner.first, owner.scope, layer)
        done = await owner.finish()
        assert done.done == (3 if layer is Layer.PLATFORM else 1)
    assert await outer_versions(owner) == before
    assert {key.scope_key_version for key in (await owner.keys()).data_keys} == {NEW}
    await all_is_well(owner, instruments)


async def test_under_load_no_request_fails_and_nothing_stays_behind(
    owner: Owner, far: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "BATCH", 7)
    instruments = await furnish(owner, 10)
    there, stop, failed, count = owner.seen_by(far.app), asyncio.Event(), list[BaseException](), 0

    async def traffic(seat: Owner, name: str) -> None:
        nonlocal count
        while not stop.is_set():
            try:
                made = await seat.put_account(f"{name}-{count}")
                assert await seat.iban(made) == IBAN
                async with seat.operation() as op:
                    await put_details(op, "C-1", {"note": "number 1"})
                    assert (await get_customer(op, "C-1")).metadata == {"note": "number 1"}
            except Exception as error:
                failed.append(error)
                return
            count += 1

    busy = [asyncio.create_task(traffic(seat, name)) for seat, name in ((owner, "a"), (there, "b"), (owner, "c"))]
    for layer in Layer:
        await owner.desk.rotate_data_key(owner.first, owner.scope, layer)
        # Two workers at once take turns.
        first, second = await asyncio.gather(owner.desk.tend(owner.scope), there.desk.tend(owner.scope))
        assert first is not None
        assert first.is_done
        assert second is None or second.is_done
        await owner.desk.rotate_scope_key(owner.first, owner.scope, layer)
        await owner.finish()
    stop.set()
    await asyncio.gather(*busy)
    assert failed == []
    assert count > 10
    assert set().union(*(await outer_versions(owner)).values()) == {NEW}
    await all_is_well(owner, instruments)


@pytest.mark.parametrize("is_renewed", [False, True])
async def test_what_a_destroyed_key_took_along_holds_up_no_rotation(
    owner: Owner, clock: ManualClock, is_renewed: bool
) -> None:
    """What is lost stays lost, sealed anew outside only; the rest is sealed anew as ever."""
    lost = await furnish(owner)
    await owner.desk.ask_to_destroy(owner.first, owner.scope)
    await owner.desk.approve_destroying(owner.second, owner.scope)
    clock.advance(timedelta(days=7))
    await owner.desk.tend(owner.scope)
    if is_renewed:
        await owner.desk.bring(owner.first, owner.scope, Secret(os.urandom(32)))
        await owner.finish()
        kept = await owner.put_account("C-new")
    for layer in Layer if is_renewed else (Layer.PLATFORM,):
        await owner.desk.rotate_data_key(owner.first, owner.scope, layer)
        done = await owner.desk.tend(owner.scope, SPLITS)
        assert done is not None
        assert done.is_done
    assert set().union(*(await outer_versions(owner)).values()) == {NEW}
    for instrument in lost:
        with pytest.raises(StrongroomError) as refused:
            await owner.iban(instrument)
        assert refused.value.code == "KEY_UNAVAILABLE"
        assert refused.value.failures[0].values["reason"] == "GONE"
    if is_renewed:
        assert await owner.iban(kept) == IBAN


async def test_it_goes_on_where_it_stopped(owner: Owner, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies after every batch, and the customer's key is away in between."""
    monkeypatch.setattr(work, "BATCH", 2)
    instruments = await furnish(owner, 5)
    await owner.desk.attach(owner.first, owner.scope, "hsm", elsewhere.add("a"))
    await owner.finish()
    await owner.desk.rotate_data_key(owner.first, owner.scope, Layer.CUSTOMER)
    positions: list[tuple[str, str]] = []

    class Killed(Exception):
        pass

    def die(at: Work) -> None:
        positions.append((at.table, at.position))
        if not at.is_done:
            raise Killed

    was_away = False
    for _ in range(400):
        try:
            if await owner.desk.tend(owner.scope, SPLITS, die) is not None:
                break
        except Killed:
            pass
        if not was_away and positions[-1][0] == "customers":
            was_away = True
            elsewhere.wrong = Reason.DISABLED
            await asyncio.sleep(2.5)
            with pytest.raises(Unavailable) as refused:
                await owner.desk.tend(owner.scope, SPLITS)
            assert refused.value.code == "KEY_UNAVAILABLE"
            elsewhere.wrong = None
            await asyncio.sleep(1.5)
            await owner.iban(instruments[0])
    assert positions[0] != positions[-1]
    assert len(positions) > 30
    async with owner.operation() as op:
        assert (await list_work(op))[0].is_done
    await all_is_well(owner, instruments)


@pytest.mark.parametrize("spoil", ["substr(wrapped, 1, 40)", "''", "set_byte(wrapped, 20, get_byte(wrapped, 20) # 1)"])
async def test_a_wrapped_key_that_was_cut_or_altered_stops_a_rotation_and_nothing_is_lost(
    owner: Owner, spoil: str
) -> None:
    instrument = await owner.put_account()
    await owner.desk.rotate_scope_key(owner.first, owner.scope, Layer.CUSTOMER)
    async with owner.operation() as op:
        [[whole]] = await op.rows("select wrapped from data_keys where layer = 'customer'")
        await op.run(f"update data_keys set wrapped = {spoil} where layer = 'customer'")  # noqa: S608  # of the test
    with pytest.raises(Broken) as refused:
        await owner.desk.tend(owner.scope, SPLITS)
    assert refused.value.code == "DATA_KEY_BROKEN"
    async with owner.operation() as op:
        await op.run("update data_keys set wrapped = %s where layer = 'customer'", whole)
    assert (await owner.finish()).done == 1
    assert await owner.states("customer") == [(1, "RETIRING", "kept"), (2, "ACTIVE", "kept")]
    assert await owner.iban(instrument) == IBAN


async def test_a_row_that_does_not_open_stops_it_and_nothing_is_lost(owner: Owner) -> None:
    instruments = await furnish(owner)
    first = "order_id = (select order_id from orders order by order_id limit 1)"
    async with owner.operation() as op:
        await op.run(f"update orders set sealed = sealed || '\\x00'::bytea where {first}")  # noqa: S608  a constant
    await owner.desk.rotate_data_key(owner.first, owner.scope, Layer.PLATFORM)
    with pytest.raises(Broken) as broken:
        await owner.desk.tend(owner.scope)
    assert broken.value.failures[0].values == {"table": "orders", "column": "sealed"}
    async with owner.operation() as op:
        await op.run(f"update orders set sealed = substr(sealed, 1, length(sealed) - 1) where {first}")  # noqa: S608  a constant
    await owner.finish()
    await all_is_well(owner, instruments)


async def test_an_operation_from_before_the_rotation_is_waited_for(
    owner: Owner, far: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It seals with the old key, after the pass has gone by; the old key doesn't end before that is found."""
    async with owner.seen_by(far.app).operation() as late:
        await late.run("select 1")
        await owner.desk.rotate_data_key(owner.first, owner.scope, Layer.PLATFORM)
        monkeypatch.setattr(work, "DRAIN_WITHIN", work.timedelta(seconds=0.5))
        with pytest.raises(Unavailable) as refused:
            await owner.desk.tend(owner.scope)
        assert refused.value.code == "OPERATIONS_UNDER_WAY"
        row = bytes(16)
        await late.run(
            "insert into orders (tenant_id, order_id, sealed, created_at, updated_at) values (%s, %s, %s, %s, %s)",
            late.tenant,
            UUID(bytes=row),
            late.cipher.seal("orders", "sealed", row, b"late"),
            late.now,
            late.now,
        )
    await owner.finish()
    async with owner.operation() as op:
        found = await op.row("select sealed from orders where order_id = %s", UUID(bytes=row))
        assert found is not None
        assert version_of(found[0]) == NEW
        assert op.cipher.open("orders", "sealed", row, found[0]) == b"late"


async def make_old(owner: Owner) -> None:
    """Put a tenant back to how it was before the hierarchy: data keys under the root itself, no customer's layer,
    envelopes of format 1, everything in `sealed`."""
    keyring, scope = owner.app.keyring, owner.scope
    own = keyring.holders.own
    assert isinstance(own, FileHolder)
    async with owner.operation() as op:
        keys = await read_keys(op.connection, scope.id)
        contents = [
            (table, row, [envelope and opened_by(op, table, column, row.row, envelope)
                          for column, envelope in zip(SEALED_TABLES[table].columns, row.envelopes, strict=True)])
            for table in TABLES for row in (await read_batch(op, table, "", 1000))[0]
        ]  # fmt: skip
    opened = {key.purpose: await keyring._unwrapped(scope, keys, key) for key in keys.data(Layer.PLATFORM, "seal")}
    opened |= {key.purpose: await keyring._unwrapped(scope, keys, key) for key in keys.data(Layer.PLATFORM, "index")}
    url = url_of(owner.app.installation.admin_url, "eu").reveal()
    async with await psycopg.AsyncConnection.connect(url) as admin:
        await admin.execute(
            "delete from data_keys where scope_id = %s and (layer = 'customer' or purpose = 'search')", (scope.id,)
        )
        await admin.execute("update financial_instruments set iban_index = null where tenant_id = %s", (scope.id,))
        for purpose, key in opened.items():
            nonce = os.urandom(12)
            context = first_data_key_context(keyring.environment, scope.id, purpose, 1)
            wrapped = nonce + own._root.root.ciphers[1].encrypt(nonce, key.reveal(), context)
            await admin.execute(
                "update data_keys set wrapped = %s, scope_key_version = null, expires_at = null "
                "where scope_id = %s and purpose = %s",
                (wrapped, scope.id, purpose),
            )
        await admin.execute("delete from scope_keys where scope_id = %s", (scope.id,))
        for table, row, (sealed, *rest) in contents:
            whole = sealed
            if rest and rest[0] is not None:
                whole = rest[0]
                if table == "customers":
                    whole = msgspec.msgpack.encode(
                        [*msgspec.msgpack.decode(sealed)[:1], *msgspec.msgpack.decode(whole)[:1]]
                    )
            envelope = whole if whole is None else first_format(opened["seal"], scope.id, table, row.row, whole)
            condition = " and ".join(f"{name} = %s" for name in SEALED_TABLES[table].key)
            more = ", sensitive = null" if rest else ""
            await admin.execute(f"update {table} set sealed = %s{more} where {condition}", (envelope, *row.key))  # noqa: S608  names of the catalogue


def opened_by(op: Operation, table: str, column: str, row: bytes, envelope: bytes) -> bytes:
    """What an envelope holds, for one of the purposes that it may be opened for."""
    return op.cipher.for_purpose(next(iter(OPENED_FOR.get((table, column), {""})))).open(table, column, row, envelope)


def first_format(key: Secret[bytes], scope: UUID, table: str, row: bytes, content: bytes) -> bytes:
    header, nonce = b"\x01\0\0\0\x01", os.urandom(12)
    context = b"strongroom envelope\0" + scope.bytes + f"{table}\0sealed\0".encode() + row + header
    return header + nonce + AESGCM(key.reveal()).encrypt(nonce, content, context)


async def test_a_tenant_from_before_the_hierarchy_is_brought_up(owner: Owner, far: Platform) -> None:
    instruments = await furnish(owner)
    await make_old(owner)
    there = owner.seen_by(far.app)
    # Readable as it is, listings too; the keys are there with the first operation.
    await all_is_well(there, instruments)
    assert await owner.states("customer") == await owner.states("platform") == [(1, "ACTIVE", "kept")]
    assert {key.scope_key_version for key in (await owner.keys()).data_keys} == {1}
    async with owner.operation() as op:
        assert await op.row("select from financial_instruments where sensitive is not null") is None
    new = await there.put_account("C-new")
    done = await there.desk.tend(there.scope, SPLITS)
    assert done is not None
    assert (done.kind, done.done) == ("re-index", len(instruments))
    assert await there.desk.tend(there.scope, SPLITS) is None
    async with owner.operation() as op:
        rows = await op.rows("select done, seen from key_work where kind = 'carry-over'")
        assert [tuple(row) for row in rows] == [(6, 7)]
        assert await op.row("select from financial_instruments where sensitive is null") is None
    await all_is_well(owner, instruments)
    assert await carry_over(there.app.databases, there.scope, SPLITS) == 0
    # From now on their content is out of the platform's own reach; rotation ends format 1.
    await owner.desk.rotate_data_key(owner.first, owner.scope, Layer.PLATFORM)
    await owner.finish()
    assert set().union(*(await outer_versions(owner)).values()) == {NEW}
    await all_is_well(there, instruments)
    await owner.desk.disable(owner.first, owner.scope)
    for instrument in (*instruments, new):
        with pytest.raises(StrongroomError) as refused:
            await there.iban(instrument)
        assert refused.value.code == "KEY_UNAVAILABLE"


async def test_several_processes_that_bring_a_tenant_up_make_its_keys_once(owner: Owner, far: Platform) -> None:
    instruments = await furnish(owner)
    await make_old(owner)
    there = owner.seen_by(far.app)
    await asyncio.gather(*(seat.iban(instruments[0]) for seat in (owner, there) for _ in range(4)))
    assert await owner.states("customer") == [(1, "ACTIVE", "kept")]
    made = [name for name in owner.app.installation.holder.references() if owner.scope.id.hex in name]
    assert len(made) == 2  # the one from before it was put back, and one
