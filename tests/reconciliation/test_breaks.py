"""Breaks grow older until somebody resolves them; missing payments are missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from strongroom.assembly import App, Installation
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Conflict, Forbidden, NotFound
from strongroom.reconciliation import list_breaks, list_missing, resolve_break, summarise
from strongroom.reconciliation.contents import Sum
from tests.fixtures.platform import Client, opened
from tests.reconciliation.bank import (
    READER,
    WRITER,
    BankWorld,
    entry,
    execution,
    give_back,
    notification,
    statement,
    status_report,
)


async def test_breaks_are_listed_in_pages_and_resolved_once(bank: BankWorld) -> None:
    [imported] = await bank.take_in(statement(*(entry(minor) for minor in range(1, 8))))
    async with bank.operation(READER) as op:
        first = await list_breaks(op, take=4)
        rest = await list_breaks(op, after=(first[-1].statement_id, first[-1].entry_no), take=4)
    assert [-line.content.minor for line in (*first, *rest)] == list(range(1, 8))

    async with bank.operation(WRITER) as op:
        resolved = await resolve_break(op, str(imported.statement_id), 3, "The bank booked its own fee.")

    assert (resolved.state, resolved.content.note) == ("RESOLVED", "The bank booked its own fee.")
    assert resolved.content.resolved_by == "key"
    async with bank.operation(READER) as op:
        assert 3 not in [line.entry_no for line in await list_breaks(op)]
        [kept] = await list_breaks(op, state="RESOLVED")
    assert (kept.entry_no, kept.content) == (3, resolved.content)
    with pytest.raises(Conflict) as refused:
        async with bank.operation(WRITER) as op:
            await resolve_break(op, str(imported.statement_id), 3, "Or was it?")
    assert refused.value.code == "BREAK_RESOLVED_BEFORE"
    assert await bank.actions("break.") == [("break.resolve", f"{imported.statement_id}/3", "UNKNOWN_REFERENCE")]


async def test_only_breaks_are_resolved_and_only_by_those_who_may(bank: BankWorld, app: App, account: Client) -> None:
    [paid] = await bank.pay(("Ada Lovelace", 5_000))
    [imported] = await bank.take_in(statement(execution(paid), entry(1)))
    statement_id = str(imported.statement_id)
    for wrong in ((statement_id, 1), (statement_id, 9), (statement_id, 0), (statement_id, 2**31), ("x", 2)):
        with pytest.raises(NotFound):
            async with bank.operation(WRITER) as op:
                await resolve_break(op, *wrong, "A note")
    with pytest.raises(Forbidden):
        async with bank.operation(READER) as op:
            await resolve_break(op, statement_id, 2, "A note")
    other = await BankWorld.open(app, await account.new_tenant(), bank.files / "other")
    with pytest.raises(NotFound):
        async with other.operation(WRITER) as op:
            await resolve_break(op, statement_id, 2, "A note")
    async with bank.operation(READER) as op:
        assert len(await list_breaks(op)) == 1


async def test_the_note_is_sealed(bank: BankWorld) -> None:
    [imported] = await bank.take_in(statement(entry(1)))
    async with bank.operation(WRITER) as op:
        await resolve_break(op, str(imported.statement_id), 1, "Erika told us")
    async with bank.operation() as op:
        row = await op.row("select e::text from statement_entries e where statement_id = %s", imported.statement_id)
    assert row is not None
    assert b"Erika told us".hex() not in row[0]


async def test_figures_add_up_by_currency(bank: BankWorld) -> None:
    paid, returned = await bank.pay(("Ada Lovelace", 5_000), ("Ben Franklin", 7_000))
    lines = [execution(paid), execution(returned), give_back(returned), entry(11), entry(13, credit=True)]
    [imported] = await bank.take_in(statement(*lines))
    async with bank.operation(WRITER) as op:
        await resolve_break(op, str(imported.statement_id), 4, "A fee")
    summary = await bank.summary()
    assert summary.currency == "EUR"
    assert summary.matched == Sum(3, 12_000, 7_000)
    assert summary.open_breaks == Sum(1, 0, 13)
    assert summary.resolved == Sum(1, 11, 0)
    assert summary.missing == Sum()


class TestMissing:
    """Payments that the bank was given and no statement shows."""

    async def missing(self, bank: BankWorld, installation: Installation, days: int) -> dict[str, int]:
        """What is missing so many days from now: reference → days."""
        clock = ManualClock(datetime.now(UTC) + timedelta(days=days))
        async with opened(installation, clock) as later:
            world = BankWorld(later.app, bank.tenant, bank.account, bank.files, bank.scheme_id)
            async with world.operation(READER) as op:
                found = await list_missing(op)
                [summary] = await summarise(op)
        assert summary.missing == Sum(len(found), sum(payment.money.minor for payment in found), 0)
        return {payment.transaction_id.hex: payment.days for payment in found}

    async def test_what_no_statement_shows_is_missing_after_some_days(
        self, bank: BankWorld, installation: Installation
    ) -> None:
        booked, silent, refused, told, back = await bank.pay(
            ("Ada Lovelace", 1), ("Ben Franklin", 2), ("Cy Twombly", 3), ("Dee Dee", 4), ("Eve Arden", 5)
        )
        rejection = (f"{refused.file_id.hex}001", refused.reference, "RJCT", "AC04")
        await bank.take_in(status_report(refused.file_id.hex, rejection, group="PART"))
        await bank.take_in(notification(execution(told), give_back(back)))
        await bank.take_in(statement(execution(booked)))

        assert await self.missing(bank, installation, 3) == {}
        assert await self.missing(bank, installation, 4) == {silent.reference: 4, told.reference: 4}

        await bank.take_in(statement(execution(silent), name="S-2", sequence=2))
        assert await self.missing(bank, installation, 5) == {told.reference: 5}

    async def test_a_payment_for_a_later_day_is_not_missing_before_it(
        self, bank: BankWorld, installation: Installation
    ) -> None:
        await bank.instruct(("Ada Lovelace", 100), days=1)
        await bank.dispatch()
        [paid] = await bank.paid()
        await bank.take_in(statement(entry(1)))
        assert await self.missing(bank, installation, 4) == {}
        assert await self.missing(bank, installation, 5) == {paid.reference: 4}

    async def test_it_is_named_by_its_order_and_paged(self, bank: BankWorld) -> None:
        await bank.pay(*(("Ada Lovelace", minor) for minor in range(1, 6)))
        async with bank.operation(READER) as op:
            past = timedelta(days=-1)
            first = await list_missing(op, overdue=past, take=2)
            rest = await list_missing(op, overdue=past, after=first[-1].transaction_id, take=9)
        assert sorted(payment.money.minor for payment in (*first, *rest)) == [1, 2, 3, 4, 5]
        assert {payment.status for payment in first} == {"PROCESSING"}
        assert {payment.instruction_ref for payment in (*first, *rest)} == {"0", "1", "2", "3", "4"}
        assert {payment.due_on for payment in first} == {first[0].due_on}
        assert datetime.now(UTC).date() - first[0].due_on <= timedelta(days=1)
