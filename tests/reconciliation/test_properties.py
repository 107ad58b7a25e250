"""Whatever banks write about whatever was paid: lines add up to entries, and nothing is matched twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.kernel.money import Money
from strongroom.payments.transactions import step
from strongroom.rails.formats.camt import EntryStatus, Statement, read_statements
from strongroom.reconciliation.matching import Knowledge, Known, Line, Role, match, named
from tests.reconciliation.bank import (
    BankWorld,
    Paid,
    entry,
    execution,
    give_back,
    notification,
    statement,
    tx,
)

Written = tuple[str, int]
FILE = UUID(int=0xF << 124)
BATCHES = [f"{FILE.hex}001", f"{FILE.hex}002"]
REFERENCES = [UUID(int=number << 100).hex for number in range(1, 7)]
AMOUNTS = st.integers(min_value=1, max_value=4)
NAMES = st.sampled_from([*REFERENCES, "NOTPROVIDED", "", "4711", FILE.hex])


@st.composite
def payments(draw: st.DrawFn) -> dict[str, Known]:
    """What was paid: small amounts, so that many are equal."""
    states = st.sampled_from(
        [("INTENDED", ""), ("PROCESSING", ""), ("SUCCESS", ""), ("FAILED", "AC04"), ("FAILED", "RETURNED-AC06")]
    )
    seen = st.frozensets(st.sampled_from([Role.EXECUTION, Role.RETURN]))
    known = {}
    for reference in draw(st.lists(st.sampled_from(REFERENCES), unique=True)):
        status, reason = draw(states)
        known[reference] = Known(
            transaction_id=UUID(reference),
            money=Money(draw(AMOUNTS), "EUR"),
            status=status,
            reason=reason,
            seen=draw(seen),
        )
    return known


@st.composite
def details(draw: st.DrawFn, *, is_credit: bool, with_amounts: bool) -> tuple[str, int]:
    minor = draw(AMOUNTS)
    xml = tx(
        minor if with_amounts or draw(st.booleans()) else None,
        end_to_end=draw(NAMES),
        instruction=draw(NAMES),
        batch=draw(st.sampled_from(["", *BATCHES])),
        credit=is_credit,
        returned=draw(st.sampled_from(["", "AC06"])) if is_credit else "",
    )
    return xml, minor


@st.composite
def booked(draw: st.DrawFn) -> Written:
    """An entry: with details that add up, with some left out, or none at all."""
    is_credit = draw(st.booleans())
    code = draw(st.sampled_from(["ESCT", "RRTN"]))
    status = draw(st.sampled_from(["BOOK", "BOOK", "BOOK", "PDNG"]))
    reversal = draw(st.sampled_from([False, False, False, True]))
    with_amounts = draw(st.booleans())
    inside = draw(st.lists(details(is_credit=is_credit, with_amounts=with_amounts), max_size=4))
    batches = [("", draw(st.sampled_from(BATCHES)))] if not inside and draw(st.booleans()) else []
    total = sum(minor for _, minor in inside) if inside else draw(st.integers(min_value=1, max_value=20))
    xml = [one for one, _ in inside]
    return entry(
        total, *xml, credit=is_credit, code=code, status=status, reversal=reversal, batches=batches, reference="B"
    )


def knowledge_of(known: dict[str, Known]) -> Knowledge:
    references = list(known)
    half = len(references) // 2
    return Knowledge(
        transactions=known,
        batches={BATCHES[0]: references[:half], BATCHES[1]: references[half:], FILE.hex: references},
    )


def read(written: Sequence[Written]) -> Statement:
    [found] = read_statements(statement(*written))
    return found


def total(lines: Sequence[Line]) -> int:
    return sum(line.money.minor for line in lines)


@settings(max_examples=150)
@given(known=payments(), written=st.lists(booked(), max_size=8))
def test_every_statement_is_accounted_for_to_the_cent(known: dict[str, Known], written: list[Written]) -> None:
    found = read(written)
    lines = match(found.entries, knowledge_of(known))

    matched = [line for line in lines if line.transaction_id is not None]
    breaks = [line for line in lines if line.transaction_id is None]
    assert total(matched) + total(breaks) == found.closing.money.minor - found.opening.money.minor
    for position, one in enumerate(found.entries, start=1):
        expected = one.signed.minor if one.status is EntryStatus.BOOKED else 0
        assert total([line for line in lines if line.position == position]) == expected
    uses = Counter((line.transaction_id, line.role) for line in matched)
    assert set(uses.values()) <= {1}
    assert all(line.reason is None and line.role is not Role.OTHER for line in matched)
    assert all(line.reason is not None and line.outcome is None and line.role is Role.OTHER for line in breaks)
    for line in matched:
        assert line.transaction_id is not None
        transaction = known[line.transaction_id.hex]
        assert line.role not in transaction.seen
        assert not transaction.is_refused
        sign = 1 if line.role is Role.RETURN else -1
        assert line.money == Money(sign * transaction.money.minor, "EUR")


@settings(max_examples=80)
@given(known=payments(), written=st.lists(booked(), max_size=8))
def test_what_a_line_newly_says_always_moves_its_transaction(known: dict[str, Known], written: list[Written]) -> None:
    status = {transaction.transaction_id: transaction.status for transaction in known.values()}
    lines = match(read(written).entries, knowledge_of(known))
    for line in sorted(lines, key=lambda line: line.role is Role.RETURN):
        if line.outcome is not None and line.transaction_id is not None:
            taken = step(status[line.transaction_id], line.outcome.kind)
            assert taken is not None
            status[line.transaction_id] = taken.transaction


@settings(max_examples=80)
@given(known=payments(), written=st.lists(booked(), max_size=8))
def test_only_what_is_named_decides(known: dict[str, Known], written: list[Written]) -> None:
    """Payments that no entry names, nor any batch it names, change nothing by being known."""
    entries = read(written).entries
    asked = named(entries)
    everything = knowledge_of(known)
    batches = {name: members for name, members in everything.batches.items() if name in asked.batches}
    members = {reference for batch in batches.values() for reference in batch}
    only = Knowledge(
        transactions={name: one for name, one in known.items() if name in asked.references | members},
        batches=batches,
    )
    assert match(entries, only) == match(entries, everything)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_month_of_reports_in_any_order_adds_up_in_the_books(bank: BankWorld, seed: int) -> None:
    """Bookings, returns, doubles, strangers and wrong amounts, told of by notifications and statements, some twice."""
    chance = random.Random(seed)
    payments = await bank.pay(*(("Ada Lovelace", minor) for minor in range(100, 140)))

    def line(paid: Paid) -> Written:
        return chance.choice([execution, execution, execution, give_back])(paid, chance.choice([None, None, None, 7]))

    days = [
        [line(paid) if chance.random() < 0.9 else entry(5, credit=True) for paid in chance.choices(payments, k=12)]
        for _ in range(8)
    ]
    reports = [
        statement(*lines, name=f"S-{number}", sequence=number)
        if kind == "statement"
        else notification(*lines, name=f"N-{number}")
        for number, lines in enumerate(days, start=1)
        for kind in ("statement", "notification")
    ]
    for document in chance.sample(reports, len(reports)) + chance.sample(reports, 4):
        await bank.take_in(document)

    summary = await bank.summary()
    booked = [minor for lines in days for _, minor in lines]
    assert summary.matched.count + summary.open_breaks.count == len(booked)
    for side, sign in (("debits", -1), ("credits", 1)):
        expected = sum(sign * minor for minor in booked if sign * minor > 0)
        assert getattr(summary.matched, side) + getattr(summary.open_breaks, side) == expected
    async with bank.operation() as op:
        rows = await op.rows(
            "select transaction_id, role from statement_entries where tenant_id = %s and state = 'MATCHED'", bank.tenant
        )
    roles = Counter((row[0], Role(row[1])) for row in rows)
    assert set(roles.values()) == {1}
    states = await bank.states()
    for paid in payments:
        seen = {role for transaction_id, role in roles if transaction_id == paid.transaction_id}
        if Role.RETURN in seen:
            assert states[paid.reference] == ("FAILED", "FAILED")
        elif Role.EXECUTION in seen:
            assert states[paid.reference] == ("SUCCESS", "COMPLETED")
        else:
            assert states[paid.reference] == ("PROCESSING", "PROCESSING")
