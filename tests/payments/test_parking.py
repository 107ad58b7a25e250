"""Payments whose customer's key is away wait for it: never failed, never lost, carried out once when it is back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg

from strongroom.assembly import App
from strongroom.database.databases import url_of
from strongroom.kernel.actors import operator
from strongroom.kernel.clock import ManualClock
from strongroom.payments.dispatch import PENDING_ENQUIRE_AFTER
from strongroom.vault import Layer, Scope
from tests.api.test_keys_changing import until_waiting
from tests.fixtures.platform import Client, Platform
from tests.payments.paying import Payer
from tests.payments.test_dispatch import work_off
from tests.payments.world import SEPA, rule
from tests.rails.simulator.process import SimulatorProcess


def scope_of(payer: Payer) -> Scope:
    return Scope(account=payer.account, tenant=payer.tenant)


async def test_what_is_due_waits_for_the_key_and_is_then_paid_once(payer: Payer) -> None:
    named = await payer.instruct("Claim 1", "Claim 2", "Claim 3")
    desk = payer.app.key_desk
    await desk.disable(operator(), scope_of(payer))
    async with payer.rail() as rail:
        dispatcher = payer.dispatcher(rail)
        for _ in range(3):
            assert (await dispatcher.round(payer.tenant)).idle
        assert rail.submitted == []
        assert [await payer.status(name) for name in named] == ["READY"] * 3
        assert [await payer.attempts(name) for name in named] == [[]] * 3
        await desk.enable(operator(), scope_of(payer))
        await work_off(dispatcher, payer)
    assert [await payer.status(name) for name in named] == ["COMPLETED"] * 3
    assert await payer.executions(*named) == [1, 1, 1]


async def test_what_was_asked_before_is_found_out_about_all_the_same(payer: Payer, clock: ManualClock) -> None:
    [named] = await payer.instruct("Claim SIM:PENDING-ENQUIRY")
    async with payer.rail() as rail:
        await payer.dispatcher(rail).round(payer.tenant)
        assert await payer.status(named) == "PROCESSING"
        [waiting] = await payer.instruct("Claim 2")
        await payer.app.key_desk.disable(operator(), scope_of(payer))
        clock.advance(2 * PENDING_ENQUIRE_AFTER)
        await payer.dispatcher(rail).round(payer.tenant)
        assert rail.enquired
    assert await payer.status(named) == "COMPLETED"
    assert (await payer.status(waiting), await payer.executions(waiting)) == ("READY", [0])


async def test_a_key_that_comes_meanwhile_holds_nothing_as_broken(payer: Payer) -> None:
    """The worker begins, waits, and finds a payment sealed by a key that it hasn't got: it begins again and pays it."""
    [named] = await payer.instruct("Claim 1")
    async with payer.rail() as rail:
        with psycopg.connect(url_of(payer.app.installation.admin_url, "eu").reveal()) as admin:
            admin.execute("lock table instructions in access exclusive mode")
            working = asyncio.create_task(payer.dispatcher(rail).round(payer.tenant))
            await until_waiting(payer.app, "instructions")
            async with Platform(payer.app).another_process() as other:
                await other.app.key_desk.rotate_data_key(operator(), scope_of(payer), Layer.PLATFORM)
                async with other.app.operation(operator(), tenant=payer.tenant) as op:
                    newest = op.cipher
            [(row_id, envelope)] = admin.execute(
                "select instruction_id, sealed from instructions where tenant_id = %s", (payer.tenant,)
            ).fetchall()
            content = newest.open("instructions", "sealed", row_id.bytes, envelope)
            sealed = newest.seal("instructions", "sealed", row_id.bytes, content)
            admin.execute("update instructions set sealed = %s where instruction_id = %s", (sealed, row_id))
            admin.commit()
            assert (await asyncio.wait_for(working, timeout=20)).intended == 1
        await work_off(payer.dispatcher(rail), payer)
    assert await payer.status(named) == "COMPLETED"
    assert await payer.executions(named) == [1]


async def test_files_wait_too_and_none_is_half_written(
    process: App, tenant: Client, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    payer = await Payer.make(process, tenant, simulator, tmp_path / "outbox", rule(0, SEPA), bank=True)
    named = await payer.instruct("Claim 1", "Claim 2", days=1)
    desk = payer.app.key_desk
    await desk.disable(operator(), scope_of(payer))
    async with payer.rail() as rail:
        assert (await payer.dispatcher(rail).round(payer.tenant)).files == []
        assert [await payer.status(name) for name in named] == ["READY", "READY"]
        await desk.enable(operator(), scope_of(payer))
        [written] = (await payer.dispatcher(rail).round(payer.tenant)).files
        await desk.disable(operator(), scope_of(payer))
        # Made and not delivered: its content is sealed with the key that is away now.
        async with payer.operation() as op:
            await op.run("update payment_files set status = 'INTENDED'")
        written.unlink()
        assert (await payer.dispatcher(rail).round(payer.tenant)).files == []
        await desk.enable(operator(), scope_of(payer))
        assert (await payer.dispatcher(rail).round(payer.tenant)).files == [written]
    assert [await payer.attempts(name) for name in named] == [["PROCESSING"], ["PROCESSING"]]
