"""Verifying: all of a scope's fields are opened, none is missed, and none is called broken that isn't."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from strongroom.access import Permission
from strongroom.database import Operation
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Forbidden
from strongroom.kernel.secret import Secret
from strongroom.vault import Layer, Verified, _walking, count_sealed, verify_scope, verifying
from strongroom.vault._walking import SealedRow, count_envelopes, read_batch
from strongroom.vault.holders.contract import Reason
from tests.api.paying import make_order
from tests.fixtures.platform import Client, Platform
from tests.vault.desk import Owner
from tests.vault.holding import Elsewhere


async def verify(owner: Owner) -> Verified:
    return await verify_scope(owner.app.databases, owner.first, owner.scope)


async def test_every_field_is_opened_in_batches(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "BATCH", 2)
    for number in range(5):
        await owner.put_account(f"C-{number}")
    seen: list[int] = []
    verified = await verify_scope(
        owner.app.databases, owner.first, owner.scope, lambda verified: seen.append(verified.seen)
    )
    async with owner.operation() as op:
        envelopes = await count_envelopes(op)
        platform, customer = await count_sealed(op, Layer.PLATFORM), await count_sealed(op, Layer.CUSTOMER)
    assert (verified.opened, verified.away, verified.findings) == (envelopes, 0, [])
    assert seen == sorted(seen)
    assert seen[-1] == envelopes
    assert sum(platform.values()) == envelopes
    assert customer == {"financial_instruments": 5}
    [(_, _, detail)] = await owner.actions("key.verify")
    assert detail == f"opened={envelopes} away=0 lost=0 broken=0"


async def test_what_needs_a_key_that_is_away_is_counted_apart(owner: Owner, elsewhere: Elsewhere) -> None:
    await owner.put_account()
    await owner.desk.attach(owner.first, owner.scope, "hsm", elsewhere.add("a"))
    await owner.finish()
    elsewhere.wrong = Reason.DISABLED
    await owner.desk.disable(owner.first, owner.scope)
    verified = await verify(owner)
    assert (verified.away, verified.findings) == (1, [])
    assert verified.opened >= 3


async def test_what_was_under_a_destroyed_key_is_lost_and_not_broken(owner: Owner, clock: ManualClock) -> None:
    await owner.put_account("C-1")
    await owner.desk.ask_to_destroy(owner.first, owner.scope)
    await owner.desk.approve_destroying(owner.second, owner.scope)
    clock.advance(timedelta(days=7))
    await owner.desk.tend(owner.scope)
    verified = await verify(owner)
    assert (verified.away, verified.lost, verified.findings) == (0, 1, []), "it won't be back"
    await owner.desk.bring(owner.first, owner.scope, Secret(os.urandom(32)))
    await owner.put_account("C-2")
    verified = await verify(owner)
    assert (verified.away, verified.lost, verified.findings) == (0, 1, [])


async def test_fields_of_another_row_or_tenant_are_found(owner: Owner) -> None:
    first, second = [UUID(bytes=await owner.put_account(customer)) for customer in ("C-1", "C-2")]
    async with owner.operation() as op:
        rows = await op.rows("select financial_instrument_id, sealed from financial_instruments")
        swapped = {row[0]: row[1] for row in rows}
        for instrument, other in ((first, second), (second, first)):
            await op.run(
                "update financial_instruments set sealed = %s where financial_instrument_id = %s",
                swapped[other], instrument,
            )  # fmt: skip
    verified = await verify(owner)
    assert {(found.table, found.column, found.row, found.code) for found in verified.findings} == {
        ("financial_instruments", "sealed", str(instrument), "ENVELOPE_BROKEN") for instrument in (first, second)
    }


async def test_what_is_sealed_by_a_key_younger_than_the_look_is_not_called_broken(
    owner: Owner, far: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the beginning of the operation and its reading, another process rotates and writes."""
    assert owner.first.key_id is not None
    there = Client(
        http=far.http, account_id=str(owner.account), tenant_id=str(owner.tenant), public_key=str(owner.first.key_id),
        private_key="", token=far.app.tokens.issue(
            owner.first.key_id, account=owner.account, tenant=owner.tenant, roles=("tenant-admin",)
        ).token.reveal(),
    )  # fmt: skip
    looked: list[str] = []

    async def read(op: Operation, table: str, *position: Any) -> tuple[list[SealedRow], str]:
        looked.append(table)
        if table == "orders" and looked.count("orders") == 1:
            await far.app.key_desk.rotate_data_key(owner.second, owner.scope, Layer.PLATFORM)
            await make_order(there)
        return await read_batch(op, table, *position)

    monkeypatch.setattr(_walking, "read_batch", read)
    verified = await verify(owner)
    assert looked.count("orders") == 2
    assert verified.findings == []


async def test_who_may(owner: Owner) -> None:
    reader = replace(owner.first, roles=frozenset({"tenant-encryption-key-read"}))
    with pytest.raises(Forbidden) as refused:
        await verify_scope(owner.app.databases, reader, owner.scope)
    assert refused.value.failures[0].values["permission"] == Permission.ENCRYPTION_KEYS_MANAGE
