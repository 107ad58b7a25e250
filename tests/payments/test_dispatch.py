"""Dispatch against the real simulator, over TLS: whatever happens, money moves once or nobody knows until asked."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from strongroom.assembly import App
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Broken, Conflict
from strongroom.payments import apps, schemes
from strongroom.payments.dispatch import (
    ACT_WITHIN,
    CONCURRENCY,
    ENQUIRE_AFTER,
    FIRST_REST,
    PENDING_ENQUIRE_AFTER,
    SILENCES,
    Dispatcher,
    run_forever,
    write_once,
)
from strongroom.payments.instructions import Change, cancel_instruction, change_instruction
from strongroom.payments.payment_files import LEASE
from strongroom.rails.formats import pain001
from tests.fixtures.platform import Client, Platform
from tests.payments.paying import BANK, Payer, Rail
from tests.payments.world import SEPA, SIMULATOR, bank_account, draft, rule
from tests.rails.simulator.process import HASTY, SECRET, SimulatorProcess

A_MOMENT = timedelta(milliseconds=1)


async def work_off(dispatcher: Dispatcher, payer: Payer) -> None:
    while not (await dispatcher.round(payer.tenant)).idle:
        pass


async def until_completed(payer: Payer, named: str) -> None:
    async with asyncio.timeout(20):
        while await payer.status(named) != "COMPLETED":  # noqa: ASYNC110  # nothing tells when it is
            await asyncio.sleep(0.05)


async def calm(payer: Payer, named: str) -> None:
    """Ask for good behaviour the next time."""
    async with payer.operation() as op:
        await change_instruction(op, *named.split("/"), Change(metadata={"remittanceInformation": "no tricks"}))


async def test_what_is_due_is_paid(payer: Payer) -> None:
    named = await payer.instruct("Claim 1", "Claim 2", "")
    [later] = await payer.instruct("Claim 3", days=2)
    async with payer.rail() as rail:
        tally = await payer.dispatcher(rail).round(payer.tenant)
        assert (tally.intended, tally.settled, tally.idle) == (3, 3, False)
        assert (await payer.dispatcher(rail).round(payer.tenant)).idle
    assert [await payer.status(name) for name in (*named, later)] == ["COMPLETED"] * 3 + ["READY"]
    assert await payer.executions(*named, later) == [1, 1, 1, 0]
    assert [payment.remittance for payment in rail.submitted if payment.money.minor == 10_002] == [
        named[2].split("/")[0]  # without a text of its own, the customer reads the order's reference
    ]
    assert await payer.reasons(named[0]) == ["", ""]
    assert [detail for _, _, detail in await payer.actions("dispatch.intend")] == ["instructions=3"]
    assert [detail for _, _, detail in await payer.actions("transaction.outcome")] == ["SUCCESS"] * 3


@pytest.mark.parametrize("status", ["DELETED", "REJECTED", "AWAITING_APPROVAL"])
async def test_who_is_not_approved_any_more_sends_nothing(  # noqa: PLR0917  # fixtures
    process: App, tenant: Client, simulator: SimulatorProcess, tmp_path: Path, clock: ManualClock, status: str
) -> None:
    """Nobody could cancel it: the keys of such a tenant are blocked. What was sent before comes to its end."""
    rules = (rule(0, countries=frozenset({"AT"})), rule(1, SEPA))
    payer = await Payer.make(process, tenant, simulator, tmp_path / "outbox", *rules, bank=True)
    [sent] = await payer.instruct("SIM:PENDING-ENQUIRY", country="AT")
    async with payer.rail() as rail:
        await payer.dispatcher(rail).round(payer.tenant)
        waiting = [*await payer.instruct("by provider", country="AT"), *await payer.instruct("by file", days=1)]
        async with payer.operation() as op:
            await op.run("update tenants set status = %s where tenant_id = %s", status, op.tenant)
        clock.advance(timedelta(hours=1))
        tally = await payer.dispatcher(rail).round(payer.tenant)
        assert (tally.intended, tally.settled, tally.files) == (0, 1, [])
        assert [await payer.status(name) for name in (sent, *waiting)] == ["COMPLETED", "READY", "READY"]
        assert len(rail.submitted) == 1
        async with payer.operation() as op:
            await op.run("update tenants set status = 'APPROVED' where tenant_id = %s", op.tenant)
        assert len((await payer.dispatcher(rail).round(payer.tenant)).files) == 1
    assert [await payer.status(name) for name in waiting] == ["COMPLETED", "PROCESSING"]


@pytest.mark.parametrize("put", [False, True], ids=["not in the outbox", "in the outbox"])
async def test_a_file_on_its_way_when_its_tenant_is_deleted_comes_to_an_end(
    process: App, tenant: Client, simulator: SimulatorProcess, tmp_path: Path, clock: ManualClock, *, put: bool
) -> None:
    """Nobody knows whether a file that isn't there was fetched; that isn't guessed."""
    outbox = tmp_path / "outbox"
    payer = await Payer.make(process, tenant, simulator, outbox, rule(0, SEPA), bank=True)
    [named] = await payer.instruct("by file", days=1)
    outbox.write_text("not a folder")  # so that no file gets there
    async with payer.rail() as rail:
        assert (await payer.dispatcher(rail).round(payer.tenant)).files == []
        assert (await payer.status(named), await payer.attempts(named)) == ("PROCESSING", ["INTENDED"])
        outbox.unlink()
        async with payer.operation() as op:
            [file_id] = (await op.rows("select file_id from payment_files"))[0]
            await op.run("update tenants set status = 'DELETED' where tenant_id = %s", op.tenant)
        if put:  # by a process that then died
            (outbox / str(payer.tenant)).mkdir(parents=True)
            (outbox / str(payer.tenant) / f"{file_id.hex}.xml").write_bytes(b"<Document/>")
        await payer.dispatcher(rail).round(payer.tenant)
        assert await payer.attempts(named) == ["INTENDED"]  # somebody may be writing it at this moment
        clock.advance(timedelta(minutes=2))
        await payer.dispatcher(rail).round(payer.tenant)
    assert [await payer.status(named), *await payer.attempts(named)] == ["PROCESSING" if put else "UNCONFIRMED"] * 2
    told = await payer.actions("payment-file.deliver" if put else "payment-file.withdraw")
    assert len(told) == 1


async def test_an_attempt_in_no_file_yet_when_its_tenant_is_deleted_was_not_sent(
    process: App, tenant: Client, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    payer = await Payer.make(process, tenant, simulator, tmp_path / "outbox", rule(0, SEPA), bank=True)
    [named] = await payer.instruct("by file", days=1)
    async with payer.rail() as rail:
        await payer.dispatcher(rail).round(payer.tenant)
        async with payer.operation() as op:  # as when the key was away between the two
            await op.run("update transactions set status = 'INTENDED', file_id = null")
            await op.run("update tenants set status = 'DELETED' where tenant_id = %s", op.tenant)
        await payer.dispatcher(rail).round(payer.tenant)
    assert (await payer.status(named), await payer.attempts(named)) == ("READY", ["FAILED"])


async def test_a_day_ahead_is_early_enough(payer: Payer, clock: ManualClock) -> None:
    [named] = await payer.instruct("Claim 1", days=2)
    async with payer.rail() as rail:
        assert (await payer.dispatcher(rail).round(payer.tenant)).idle
        clock.advance(timedelta(days=1))
        assert (await payer.dispatcher(rail).round(payer.tenant)).settled == 1
    assert await payer.status(named) == "COMPLETED"


async def test_what_the_provider_refuses_has_failed_with_its_reason(payer: Payer) -> None:
    [named] = await payer.instruct("SIM:REFUSE-AC04")
    async with payer.rail() as rail:
        await work_off(payer.dispatcher(rail), payer)
    assert (await payer.status(named), await payer.attempts(named)) == ("FAILED", ["FAILED"])
    assert await payer.reasons(named) == ["", "AC04"]


async def test_money_that_has_been_asked_for_can_not_be_changed_or_cancelled(payer: Payer) -> None:
    [named] = await payer.instruct("SIM:PENDING-ENQUIRY")
    async with payer.rail() as rail:
        await payer.dispatcher(rail).round(payer.tenant)
    assert await payer.status(named) == "PROCESSING"
    with pytest.raises(Conflict, match="can't be changed or cancelled"):
        async with payer.operation() as op:
            await cancel_instruction(op, *named.split("/"), "no longer")
    with pytest.raises(Conflict, match="can't be changed or cancelled"):
        await calm(payer, named)


async def test_a_provider_that_is_down_is_not_hammered(
    process: App, tenant: Client, mortal: SimulatorProcess, tmp_path: Path, clock: ManualClock
) -> None:
    payer = await Payer.make(process, tenant, mortal, tmp_path / "outbox")
    named = await payer.instruct(*["Claim"] * 12)
    async with payer.rail() as rail:
        dispatcher = payer.dispatcher(rail)
        first = await dispatcher.round(payer.tenant)
        assert (first.intended, first.refused) == (12, 12)
        assert len(rail.submitted) <= CONCURRENCY  # the others were given back without being sent
        assert {await payer.status(name) for name in named} == {"READY"}
        assert set(await payer.reasons(named[0])) == {"", "NOT_SENT"}

        asked = len(rail.submitted)
        rest = FIRST_REST
        for _ in range(4):
            for _ in range(5):
                assert (await dispatcher.round(payer.tenant)).idle
            clock.advance(rest - A_MOMENT)
            assert (await dispatcher.round(payer.tenant)).idle
            clock.advance(A_MOMENT)
            assert (await dispatcher.round(payer.tenant)).intended == 1  # one goes ahead of the others
            rest *= 2
        assert len(rail.submitted) == asked + 4

        await mortal.start()
        clock.advance(rest)
        await work_off(dispatcher, payer)
    assert {await payer.status(name) for name in named} == {"COMPLETED"}
    assert await payer.executions(*named) == [1] * 12
    assert {attempts[-1] for attempts in [await payer.attempts(name) for name in named]} == {"SUCCESS"}


async def test_what_waits_for_a_resting_app_does_not_stand_in_the_way(
    process: App, tenant: Client, mortal: SimulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when more instructions wait than fit into one first beat."""
    monkeypatch.setattr("strongroom.payments.dispatch.CLAIM", 5)
    rules = (rule(0, SEPA, currencies=frozenset({"EUR"})), rule(1, SIMULATOR))
    payer = await Payer.make(process, tenant, mortal, tmp_path / "outbox", *rules, bank=True)
    waiting = await payer.instruct(*["Claim"] * 12, currency="CHF")
    by_file = await payer.instruct(*["Claim"] * 3, days=1)
    async with payer.rail() as rail:
        dispatcher = payer.dispatcher(rail)
        for _ in range(6):
            await dispatcher.round(payer.tenant)
    assert {await payer.status(name) for name in waiting} == {"READY"}
    assert {await payer.status(name) for name in by_file} == {"PROCESSING"}


async def test_the_fallback_carries_what_could_not_be_sent(
    process: App, tenant: Client, mortal: SimulatorProcess, tmp_path: Path
) -> None:
    payer = await Payer.make(process, tenant, mortal, tmp_path / "outbox", rule(0, SIMULATOR, SEPA), bank=True)
    [first] = await payer.instruct("Claim 1")
    async with payer.rail() as rail:
        dispatcher = payer.dispatcher(rail)
        await work_off(dispatcher, payer)
        [second] = await payer.instruct("Claim 2")
        await work_off(dispatcher, payer)
    assert (await payer.status(first), await payer.attempts(first)) == ("PROCESSING", ["FAILED", "PROCESSING"])
    assert (await payer.status(second), await payer.attempts(second)) == ("PROCESSING", ["PROCESSING"])
    assert len(rail.submitted) == 1
    assert len(list(payer.outbox.rglob("*.xml"))) == 2


@pytest.mark.parametrize("word", ["TIMEOUT-AFTER", "ERROR-200", "SLOW-DRIP"])
async def test_executed_but_not_answered_is_unknown_until_asked(payer: Payer, clock: ManualClock, word: str) -> None:
    [named] = await payer.instruct(f"SIM:{word}")
    async with payer.rail(HASTY) as rail:
        dispatcher = payer.dispatcher(rail)
        assert (await dispatcher.round(payer.tenant)).unconfirmed == 1
        assert await payer.status(named) == "UNCONFIRMED"
        for _ in range(3):
            assert (await dispatcher.round(payer.tenant)).idle
        assert rail.enquired == []
        clock.advance(ENQUIRE_AFTER + A_MOMENT)
        await work_off(dispatcher, payer)
    assert (await payer.status(named), await payer.attempts(named)) == ("COMPLETED", ["SUCCESS"])
    assert rail.enquired == await payer.references(named)
    assert await payer.executions(named) == [1]


@pytest.mark.parametrize(("word", "late_s"), [("TIMEOUT-BEFORE", 0.0), ("LATE", 3.5)])
async def test_never_received_is_tried_again_under_another_reference(
    payer: Payer, clock: ManualClock, word: str, late_s: float
) -> None:
    [named] = await payer.instruct(f"SIM:{word}")
    async with payer.rail(HASTY) as rail:
        dispatcher = payer.dispatcher(rail)
        await dispatcher.round(payer.tenant)
        clock.advance(ENQUIRE_AFTER + A_MOMENT)
        await dispatcher.round(payer.tenant)
        assert (await payer.status(named), await payer.attempts(named)) == ("READY", ["FAILED"])
        await calm(payer, named)
        await work_off(dispatcher, payer)
        await asyncio.sleep(late_s)  # until the first request has come through, and met a closed reference
    assert (await payer.status(named), await payer.attempts(named)) == ("COMPLETED", ["FAILED", "SUCCESS"])
    assert len(set(await payer.references(named))) == 2
    assert await payer.executions(named) == [1]


async def test_an_outage_is_unknown_until_it_is_over_and_enquiries_grow_rare(payer: Payer, clock: ManualClock) -> None:
    [named] = await payer.instruct("Claim 1")
    async with payer.rail() as rail:
        dispatcher = payer.dispatcher(rail)
        await payer.simulator.call("POST", "/behaviour", {"behaviour": "outage"})
        try:
            assert (await dispatcher.round(payer.tenant)).unconfirmed == 1
            for _ in range(120):  # ten minutes
                clock.advance(timedelta(seconds=5))
                await dispatcher.round(payer.tenant)
        finally:
            await payer.simulator.call("POST", "/behaviour", {"behaviour": None})
        assert await payer.status(named) == "UNCONFIRMED"
        assert 10 <= len(rail.enquired) <= 30
        clock.advance(timedelta(minutes=5))
        await work_off(dispatcher, payer)
    assert (await payer.status(named), await payer.attempts(named)) == ("COMPLETED", ["FAILED", "SUCCESS"])
    assert await payer.executions(named) == [1]


async def test_a_provider_that_says_nothing_time_after_time_is_given_a_rest(payer: Payer, clock: ManualClock) -> None:
    named = await payer.instruct(*["Claim"] * 60)
    async with payer.rail() as rail:
        dispatcher = payer.dispatcher(rail)
        await payer.simulator.call("POST", "/behaviour", {"behaviour": "outage"})
        try:
            await dispatcher.round(payer.tenant)
        finally:
            await payer.simulator.call("POST", "/behaviour", {"behaviour": None})
        assert SILENCES <= len(rail.submitted) < SILENCES + CONCURRENCY
        assert (await dispatcher.round(payer.tenant)).idle
        clock.advance(timedelta(seconds=10))
        for _ in range(3):
            await work_off(dispatcher, payer)
    assert {await payer.status(name) for name in named} == {"COMPLETED"}
    assert await payer.executions(*named) == [1] * 60


async def test_what_the_rail_ends_later_is_asked_about(payer: Payer, clock: ManualClock) -> None:
    [named] = await payer.instruct("SIM:PENDING-ENQUIRY")
    async with payer.rail() as rail:
        dispatcher = payer.dispatcher(rail)
        assert (await dispatcher.round(payer.tenant)).pending == 1
        clock.advance(PENDING_ENQUIRE_AFTER - A_MOMENT)
        assert (await dispatcher.round(payer.tenant)).idle
        assert await payer.status(named) == "PROCESSING"
        clock.advance(2 * A_MOMENT)
        await work_off(dispatcher, payer)
    assert await payer.status(named) == "COMPLETED"
    assert await payer.executions(named) == [1]


async def test_an_enquiry_without_an_answer_changes_nothing(
    process: App, tenant: Client, mortal: SimulatorProcess, tmp_path: Path, clock: ManualClock
) -> None:
    payer = await Payer.make(process, tenant, mortal, tmp_path / "outbox")
    await mortal.start()
    pending, silent = await payer.instruct("SIM:PENDING-ENQUIRY", "SIM:TIMEOUT-AFTER")
    async with payer.rail(HASTY) as rail:
        dispatcher = payer.dispatcher(rail)
        await dispatcher.round(payer.tenant)
        mortal.kill()
        clock.advance(PENDING_ENQUIRE_AFTER + A_MOMENT)
        await dispatcher.round(payer.tenant)
        assert len(rail.enquired) == 2
        assert [await payer.status(name) for name in (pending, silent)] == ["PROCESSING", "UNCONFIRMED"]
        await mortal.start()
        clock.advance(PENDING_ENQUIRE_AFTER + A_MOMENT)
        await work_off(dispatcher, payer)
    assert [await payer.status(name) for name in (pending, silent)] == ["COMPLETED", "COMPLETED"]
    assert await payer.executions(pending, silent) == [1, 1]


async def test_two_dispatchers_never_take_the_same_instruction(payer: Payer, platform: Platform) -> None:
    named = await payer.instruct(*["Claim"] * 120)
    async with payer.rail() as one, payer.rail() as two, platform.another_process() as other:
        there = Dispatcher(other.app.databases, lambda tenant, app_id, settings: two, payer.outbox)
        here = payer.dispatcher(one)
        await asyncio.gather(*(work_off(dispatcher, payer) for dispatcher in (here, there, here, there)))
    assert len(one.submitted) + len(two.submitted) == 120
    assert {await payer.status(name) for name in named} == {"COMPLETED"}
    assert await payer.executions(*named) == [1] * 120


async def test_an_attempt_whose_turn_comes_too_late_is_given_back(payer: Payer, clock: ManualClock) -> None:
    """Its lease may have run out, so that somebody else asks about it."""
    named = await payer.instruct(*["Claim"] * (CONCURRENCY + 4))
    async with payer.rail() as rail:
        dispatcher = payer.dispatcher(rail)

        def dawdle(_: object) -> None:
            rail.after = lambda _: None
            clock.advance(ACT_WITHIN)

        rail.after = dawdle
        tally = await dispatcher.round(payer.tenant)
        assert tally.refused > 0
        assert tally.settled + tally.refused == CONCURRENCY + 4
        await work_off(dispatcher, payer)
    assert {await payer.status(name) for name in named} == {"COMPLETED"}
    assert await payer.executions(*named) == [1] * len(named)


async def test_an_outcome_that_can_not_be_recorded_at_once_is_not_given_up(
    payer: Payer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be unknown until the lease has run out and the rail has been asked."""
    [named] = await payer.instruct("Claim 1")
    async with payer.rail() as rail, AsyncExitStack() as without_room:

        def fill_the_disk(_: object) -> None:
            patch = without_room.enter_context(monkeypatch.context())
            patch.setattr("strongroom.database.embedded.RESERVE_BYTES", 1 << 60)

        rail.after = fill_the_disk
        paying = asyncio.create_task(payer.dispatcher(rail).round(payer.tenant))
        await asyncio.sleep(1.2)
        assert (await payer.status(named), paying.done()) == ("PROCESSING", False)
        await without_room.aclose()
        assert (await paying).settled == 1
    assert await payer.status(named) == "COMPLETED"


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("beat", ["intended", "acted"])
async def test_a_process_that_dies_between_the_beats(payer: Payer, clock: ManualClock, beat: str) -> None:
    [named] = await payer.instruct("Claim 1")

    def die(_: object) -> None:
        raise Killed

    async with payer.rail() as rail:
        if beat == "intended":
            rail.before = die
        else:
            rail.after = die
        with pytest.raises(Killed):
            await payer.dispatcher(rail).round(payer.tenant)
    assert (await payer.status(named), await payer.attempts(named)) == ("PROCESSING", ["INTENDED"])

    async with payer.rail() as rail:
        successor = payer.dispatcher(rail)
        clock.advance(LEASE - A_MOMENT)
        assert (await successor.round(payer.tenant)).idle  # it may still be alive
        clock.advance(2 * A_MOMENT)
        await successor.round(payer.tenant)
        assert (await payer.status(named), await payer.attempts(named)) == ("UNCONFIRMED", ["UNCONFIRMED"])
        assert (await payer.reasons(named))[-1] == "PROCESS_DIED"
        clock.advance(ENQUIRE_AFTER + A_MOMENT)
        for _ in range(3):
            await successor.round(payer.tenant)
    assert await payer.status(named) == "COMPLETED"
    assert await payer.attempts(named) == (["FAILED", "SUCCESS"] if beat == "intended" else ["SUCCESS"])
    assert await payer.executions(named) == [1]


async def test_a_rule_that_no_longer_takes_the_payment_holds_it(payer: Payer) -> None:
    [named] = await payer.instruct("Claim 1")
    async with payer.operation() as op:
        narrow = await schemes.create_draft(
            op, "payout", payer.scheme_id, draft("Narrow", rule(0, currencies=frozenset({"USD"})))
        )
        await schemes.publish(op, "payout", payer.scheme_id, str(narrow.draft_id))
    async with payer.rail() as rail:
        await payer.dispatcher(rail).round(payer.tenant)
    assert (await payer.status(named), await payer.reasons(named)) == ("INCOMPLETE", ["NO_ROUTE"])
    assert [detail for _, _, detail in await payer.actions("instruction.hold")] == ["NO_ROUTE"]


async def test_one_that_can_not_be_read_or_has_no_account_does_not_hold_up_the_others(payer: Payer) -> None:
    broken, orphan, sound = await payer.instruct("Claim 1", "Claim 2", "Claim 3")
    async with payer.operation() as op:
        await op.run(
            "update instructions set sealed = '\\x00' || sealed where instruction_id = %s::uuid",
            payer.id_of(op, broken),
        )
        await op.run(
            """
            with gone as (
                insert into financial_instruments
                select tenant_id, gen_random_uuid(), customer_id, type, 'INACTIVE', country, 'gone', sealed, created_at
                from financial_instruments returning financial_instrument_id)
            update instructions set financial_instrument_id = (select financial_instrument_id from gone)
            where instruction_id = %s::uuid
            """,
            payer.id_of(op, orphan),
        )
    async with payer.rail() as rail:
        await work_off(payer.dispatcher(rail), payer)
    assert [await payer.status(name) for name in (broken, orphan, sound)] == ["INCOMPLETE", "INCOMPLETE", "COMPLETED"]
    assert (await payer.reasons(broken), await payer.reasons(orphan)) == (
        ["ENVELOPE_BROKEN"],
        ["FINANCIAL_INSTRUMENT_NOT_FOUND"],
    )


async def test_it_runs_until_told_to_stop_and_one_tenant_does_not_hold_up_another(
    process: App, platform: Platform, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    payer, other = [
        await Payer.make(process, await platform.new_tenant(region="ch"), simulator, tmp_path) for _ in range(2)
    ]
    hanging = await payer.instruct("SIM:TIMEOUT-AFTER")
    quick = await other.instruct("Claim 1")
    stop = asyncio.Event()
    async with payer.rail() as rail:

        def provider(tenant: object, app_id: str, settings: object) -> Rail:
            return rail

        dispatcher = Dispatcher(process.databases, provider, tmp_path / "outbox")
        running = asyncio.create_task(run_forever(dispatcher, ["ch"], stop, 0.05))
        await until_completed(other, quick[0])
        [again] = await payer.instruct("Claim 2")
        await until_completed(payer, again)
        assert await payer.status(hanging[0]) == "PROCESSING"
        stop.set()
        simulator.kill()
        async with asyncio.timeout(10):
            await running
    await simulator.start()
    assert await payer.status(hanging[0]) == "UNCONFIRMED"


async def killed_while_it_dispatches(payer: Payer, when: str) -> None:
    """Dispatch in a process that SIGKILLs itself, and wait for its end."""
    command = [
        *(sys.executable, "-m", "tests.payments.doomed", str(payer.app.config.data_dir), str(payer.tenant)),
        *(payer.simulator.url, str(payer.simulator.authority.ca), SECRET),
        *(str(payer.outbox), when),
    ]
    doomed = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await doomed.communicate()
    assert doomed.returncode == -signal.SIGKILL, said.decode()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_outright_between_the_beats(payer: Payer, clock: ManualClock, when: str) -> None:
    named = await payer.instruct("Claim 1", "Claim 2", "Claim 3")
    await killed_while_it_dispatches(payer, when)
    assert {await payer.status(name) for name in named} == {"PROCESSING"}
    async with payer.rail() as rail:
        successor = payer.dispatcher(rail)
        clock.advance(timedelta(hours=1))
        for _ in range(3):
            await successor.round(payer.tenant)
            clock.advance(ENQUIRE_AFTER + A_MOMENT)
        await work_off(successor, payer)
    assert {await payer.status(name) for name in named} == {"COMPLETED"}
    assert await payer.executions(*named) == [1, 1, 1]


async def test_killed_after_a_file_was_written_it_is_the_same_file(
    process: App, tenant: Client, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    payer = await Payer.make(process, tenant, simulator, tmp_path / "outbox", rule(0, SEPA), bank=True)
    named = await payer.instruct("Claim 1", "Claim 2", days=1)
    await killed_while_it_dispatches(payer, "file")
    [written] = payer.outbox.rglob("*.xml")
    content = written.read_bytes()
    assert {(await payer.status(name), *await payer.attempts(name)) for name in named} == {("PROCESSING", "INTENDED")}
    async with payer.rail() as rail:
        tally = await payer.dispatcher(rail).round(payer.tenant)
        assert tally.files == [written]
        written.unlink()  # the bank has fetched it
        assert (await payer.dispatcher(rail).round(payer.tenant)).files == []
    assert {await payer.status(name) for name in named} == {"PROCESSING"}
    assert {attempt for name in named for attempt in await payer.attempts(name)} == {"PROCESSING"}
    assert content.count(b"<CdtTrfTxInf>") == 2
    assert list(payer.outbox.rglob("*.partial")) == []


async def test_a_file_that_was_fetched_before_it_was_recorded_is_written_again_byte_for_byte(
    process: App, tenant: Client, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    """The bank knows the message id, and takes it once."""
    payer = await Payer.make(process, tenant, simulator, tmp_path / "outbox", rule(0, SEPA), bank=True)
    await payer.instruct("Claim 1", days=1)
    await killed_while_it_dispatches(payer, "file")
    [written] = payer.outbox.rglob("*.xml")
    content = written.read_bytes()
    written.unlink()
    async with payer.rail() as rail:
        await payer.dispatcher(rail).round(payer.tenant)
    assert written.read_bytes() == content


async def test_files_hold_what_a_bank_takes_in_one(
    process: App, tenant: Client, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    payer = await Payer.make(process, tenant, simulator, tmp_path / "outbox", rule(0, SEPA), bank=True)
    async with payer.operation() as op:
        await apps.configure(op, SEPA, {**BANK, "maxTransactionsPerFile": "4", "maxTransactionsPerBatch": "3"})
    named = await payer.instruct(*[f"Claim {at}" for at in range(10)], days=1)
    async with payer.rail() as rail:
        tally = await payer.dispatcher(rail).round(payer.tenant)
    files = [pain001.read(path.read_bytes()) for path in tally.files]
    assert sorted(len(batch.payments) for file in files for batch in file.batches) == [1, 1, 2, 3, 3]
    references = [payment.end_to_end_id for file in files for batch in file.batches for payment in batch.payments]
    assert sorted(references) == sorted([(await payer.references(name))[0] for name in named])
    assert {await payer.status(name) for name in named} == {"PROCESSING"}
    assert [detail for _, _, detail in await payer.actions("payment-file.create")] == [
        "payments=4",
        "payments=4",
        "payments=2",
    ]


async def test_several_dispatchers_put_every_payment_into_one_file_and_record_each_file_once(
    process: App, tenant: Client, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    payer = await Payer.make(process, tenant, simulator, tmp_path / "outbox", rule(0, SEPA), bank=True)
    named = await payer.instruct(*["Claim"] * 40, days=1)
    async with payer.rail() as rail:
        await asyncio.gather(*(work_off(payer.dispatcher(rail), payer) for _ in range(4)))
    files = [pain001.read(path.read_bytes()) for path in payer.outbox.rglob("*.xml")]
    assert sum(len(batch.payments) for file in files for batch in file.batches) == 40
    assert {await payer.status(name) for name in named} == {"PROCESSING"}
    assert len(await payer.actions("payment-file.deliver")) == len(files)


async def test_an_account_that_can_not_be_written_holds_the_instruction(
    process: App, tenant: Client, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    payer = await Payer.make(process, tenant, simulator, tmp_path / "outbox", rule(0, SEPA), bank=True)
    swiss = bank_account("Ada Sample", "CH9300762011623852957")  # outside the EEA, so the payer's address is needed
    [held] = await payer.instruct("Claim 1", account=swiss, country="CH", days=1)
    [sound] = await payer.instruct("Claim 2", days=1)
    async with payer.rail() as rail:
        await work_off(payer.dispatcher(rail), payer)
    assert (await payer.status(held), await payer.reasons(held)) == ("INCOMPLETE", ["DEBTOR_ADDRESS_IS_REQUIRED"])
    assert await payer.status(sound) == "PROCESSING"


async def test_a_folder_that_can_not_be_written_to_delays_the_file_only(
    process: App, tenant: Client, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    payer = await Payer.make(
        process,
        tenant,
        simulator,
        tmp_path / "outbox",
        rule(0, SEPA, high=Decimal(1000)),
        rule(1, SIMULATOR),
        bank=True,
    )
    payer.outbox.write_text("a file where a folder should be")
    [by_file] = await payer.instruct("Claim 1", days=1)
    [silent] = await payer.instruct("SIM:ERROR-200", minor=200_000)
    async with payer.rail() as rail:
        assert (await payer.dispatcher(rail).round(payer.tenant)).files == []
        assert [await payer.status(name) for name in (by_file, silent)] == ["PROCESSING", "UNCONFIRMED"]
        assert await payer.attempts(by_file) == ["INTENDED"]
        payer.outbox.unlink()
        assert len((await payer.dispatcher(rail).round(payer.tenant)).files) == 1
    assert await payer.attempts(by_file) == ["PROCESSING"]


def test_a_file_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.xml"
    write_once(path, b"content")
    write_once(path, b"content")
    assert path.read_bytes() == b"content"
    with pytest.raises(Broken, match="holds something else"):
        write_once(path, b"other")
    assert path.read_bytes() == b"content"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]
