"""Statements and notifications, taken in: once, whole or not at all, nothing matched twice."""

from __future__ import annotations

import asyncio
import time

import pytest

from strongroom.assembly import App
from strongroom.kernel.errors import Collided, Conflict, Forbidden, Invalid, NotFound, Refused
from strongroom.payments.instructions import decode_transaction
from strongroom.payments.transactions import apply_outcomes
from strongroom.rails.contract import Outcome, OutcomeKind
from strongroom.reconciliation import (
    Imported,
    get_statement,
    import_report,
    list_breaks,
    list_lines,
    list_statements,
    read_document,
    read_report,
)
from strongroom.reconciliation.contents import Sum
from tests.fixtures.platform import Client
from tests.reconciliation.bank import (
    FOREIGN,
    OPENER,
    OWN,
    READER,
    WRITER,
    BankWorld,
    Paid,
    entry,
    execution,
    file_of,
    give_back,
    notification,
    part,
    statement,
    tx,
)


async def one(bank: BankWorld, document: bytes) -> Imported:
    [imported] = await bank.take_in(document)
    return imported


async def reasons(bank: BankWorld) -> list[str]:
    async with bank.operation(READER) as op:
        return [line.content.reason for line in await list_breaks(op)]


async def pay(bank: BankWorld, *amounts: int) -> list[Paid]:
    return await bank.pay(*((f"Holder {n}", amount) for n, amount in enumerate(amounts)))


async def test_a_statement_is_kept_with_its_lines_and_its_very_bytes(bank: BankWorld) -> None:
    [paid] = await pay(bank, 5_000)
    document = statement(execution(paid), entry(777, credit=True), entry(50, status="PDNG"), sequence=4)

    imported = await one(bank, document)

    assert imported.is_new
    async with bank.operation(READER) as op:
        kept = await get_statement(op, str(imported.statement_id))
        lines = await list_lines(op, kept.statement_id)
    async with bank.operation(OPENER) as op:
        assert await read_document(op, kept) == document
    content = kept.content
    assert (kept.kind, content.account, content.name, content.sequence) == ("STATEMENT", OWN, "S-1", 4)
    assert (content.opening, content.closing, content.currency) == (1_000_000, 995_777, "EUR")
    assert (content.matched, content.breaks, content.not_booked) == (Sum(1, 5_000, 0), Sum(1, 0, 777), 1)
    assert content.moved == 1
    assert [(line.entry_no, line.state, line.role, line.transaction_id) for line in lines] == [
        (1, "MATCHED", "EXECUTION", paid.transaction_id),
        (2, "BREAK", "OTHER", None),
    ]
    assert (lines[0].content.minor, lines[0].content.remittance) == (-5_000, "Claim")
    assert lines[0].booked_on.isoformat() == "2026-11-20"
    [took_in, opened] = await bank.actions("statement.")
    assert took_in == ("statement.import", str(imported.statement_id), "kind=STATEMENT matched=1 breaks=1 moved=1")
    assert opened[:2] == ("statement.open", imported.statement_id.hex)
    assert opened[2].endswith(" purpose=reconciliation reason=none fields=document")


async def test_a_matched_payment_is_settled_with_the_banks_reference(bank: BankWorld) -> None:
    [paid] = await pay(bank, 5_000)
    await one(bank, statement(execution(paid, reference="BANK-4711")))
    assert (await bank.states())[paid.reference] == ("SUCCESS", "COMPLETED")
    async with bank.operation() as op:
        row = await op.row("select sealed from transactions where transaction_id = %s", paid.transaction_id)
        assert row is not None
        said = decode_transaction(op.cipher.open("transactions", "sealed", paid.transaction_id.bytes, row[0]))
    assert said.provider_reference == "BANK-4711"


async def test_the_same_statement_again_changes_nothing(bank: BankWorld) -> None:
    [paid] = await pay(bank, 5_000)
    document = statement(execution(paid), entry(1))
    first = await one(bank, document)
    before = await bank.stored()

    again = await one(bank, document)
    copy = await one(bank, statement(execution(paid), entry(1), copy="DUPL", at="2026-11-23T07:00:00Z"))

    assert (again.is_new, again.statement_id, again.content) == (False, first.statement_id, first.content)
    assert (copy.is_new, copy.statement_id) == (False, first.statement_id)
    assert await bank.stored() == before


@pytest.mark.parametrize("change", ["amount", "missing", "reference", "opening"])
async def test_one_of_the_same_name_that_says_something_else_is_refused(bank: BankWorld, change: str) -> None:
    first, second = await pay(bank, 5_000, 6_000)
    await one(bank, statement(execution(first), entry(1)))
    before = await bank.stored()
    other = {
        "amount": statement(execution(first), entry(2)),
        "missing": statement(execution(first)),
        "reference": statement(execution(second, 5_000), entry(1)),
        "opening": statement(execution(first), entry(1), opening=7),
    }[change]

    with pytest.raises(Conflict) as refused:
        await bank.take_in(other)

    assert refused.value.code == "STATEMENT_DIFFERS"
    assert await bank.stored() == before
    assert (await bank.states())[second.reference] == ("PROCESSING", "PROCESSING")


async def test_a_statement_of_another_account_leaves_nothing_behind(bank: BankWorld) -> None:
    [paid] = await pay(bank, 5_000)
    ours, theirs = part(execution(paid)), part(entry(1), name="S-9", iban=FOREIGN)

    for document in (statement(execution(paid), iban=FOREIGN), file_of(ours, theirs), notification(iban=FOREIGN)):
        with pytest.raises(Refused) as refused:
            await bank.take_in(document)
        assert refused.value.code == "STATEMENT_OF_ANOTHER_ACCOUNT"

    assert await bank.stored() == (0, 0)
    assert (await bank.states())[paid.reference] == ("PROCESSING", "PROCESSING")


async def test_another_tenants_statement_is_of_another_account(
    bank: BankWorld, app: App, account: Client, tmp_path: object
) -> None:
    other = await BankWorld.open(app, await account.new_tenant(), bank.files / "other", iban=FOREIGN, bic="ABNANL2A")
    [paid] = await pay(bank, 5_000)
    with pytest.raises(Refused, match="doesn't pay from"):
        await other.take_in(statement(execution(paid)))
    # Nor does a payment of one tenant exist for another, whatever its statements say.
    await other.take_in(statement(execution(paid), iban=FOREIGN))
    assert await reasons(other) == ["UNKNOWN_REFERENCE"]
    assert (await bank.states())[paid.reference] == ("PROCESSING", "PROCESSING")


async def test_a_statement_that_does_not_add_up_is_not_believed(bank: BankWorld) -> None:
    [paid] = await pay(bank, 5_000)
    with pytest.raises(Invalid) as refused:
        await bank.take_in(statement(execution(paid), error=1))
    assert refused.value.code == "STATEMENT_BALANCE_BROKEN"
    assert await bank.stored() == (0, 0)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\x00\x01",
        b"<Document/>",
        b'<?xml version="1.0"?><Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"/>',
        b"orderRef,instructionRef\n",
    ],
)
def test_what_is_no_report_is_not_recognised(document: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        read_report(document)
    assert refused.value.code == "REPORT_NOT_RECOGNISED"


async def test_a_returned_payment_fails_whatever_came_first(bank: BankWorld) -> None:
    same, later, earlier = await pay(bank, 1_000, 2_000, 3_000)
    await one(bank, statement(give_back(same), execution(same), execution(later), give_back(earlier, "MD06")))
    assert (await bank.states())[later.reference] == ("SUCCESS", "COMPLETED")

    second = await one(bank, statement(give_back(later, "AC06"), execution(earlier), name="S-2", sequence=2))

    assert second.content.matched == Sum(2, 3_000, 2_000)
    states = await bank.states()
    assert {states[paid.reference] for paid in (same, later, earlier)} == {("FAILED", "FAILED")}
    assert await bank.events(same) == [("PROCESSING", ""), ("COMPLETED", ""), ("FAILED", "RETURNED-AC06")]
    assert await bank.events(later) == [("PROCESSING", ""), ("COMPLETED", ""), ("FAILED", "RETURNED-AC06")]
    assert await bank.events(earlier) == [("PROCESSING", ""), ("FAILED", "RETURNED-MD06")]
    assert await bank.actions("transaction.contradiction") == []
    assert await reasons(bank) == []


async def test_a_payment_that_is_booked_again_later_is_a_break(bank: BankWorld) -> None:
    [paid] = await pay(bank, 5_000)
    await one(bank, statement(execution(paid)))
    second = await one(bank, statement(execution(paid), name="S-2", sequence=2))
    assert second.content.breaks == Sum(1, 5_000, 0)
    assert await reasons(bank) == ["ALREADY_MATCHED"]


async def test_the_database_itself_keeps_a_payment_from_being_matched_twice(bank: BankWorld) -> None:
    [paid] = await pay(bank, 5_000)
    imported = await one(bank, statement(execution(paid), entry(1)))
    with pytest.raises(Collided) as refused:
        async with bank.operation() as op:
            await op.run(
                "update statement_entries set state = 'MATCHED', role = 'EXECUTION', transaction_id = %s "
                "where statement_id = %s and entry_no = 2",
                paid.transaction_id,
                imported.statement_id,
            )
    assert "statement_entries_once" in str(refused.value.__cause__)


class TestNotifications:
    """camt.054 tells of bookings; camt.053 is the book."""

    async def test_it_moves_payments_and_the_statement_then_matches_them(self, bank: BankWorld) -> None:
        paid, returned = await pay(bank, 5_000, 6_000)
        told = await one(bank, notification(execution(paid), execution(returned), give_back(returned)))
        assert (told.kind, told.content.matched, told.content.moved) == ("NOTIFICATION", Sum(3, 11_000, 6_000), 3)
        assert await bank.stored() == (1, 0)
        states = await bank.states()
        assert states[paid.reference] == ("SUCCESS", "COMPLETED")
        assert states[returned.reference] == ("FAILED", "FAILED")

        booked = await one(bank, statement(execution(paid), execution(returned), give_back(returned)))

        assert (booked.content.matched, booked.content.breaks) == (Sum(3, 11_000, 6_000), Sum())
        assert booked.content.moved == 0
        assert await bank.states() == states
        assert (await bank.summary()).matched == Sum(3, 11_000, 6_000)
        assert await bank.actions("transaction.contradiction") == []

    async def test_the_other_way_round_it_says_nothing_new(self, bank: BankWorld) -> None:
        [paid] = await pay(bank, 5_000)
        await one(bank, statement(execution(paid)))
        told = await one(bank, notification(execution(paid)))
        assert (told.content.matched, told.content.moved, told.content.remarks) == (Sum(1, 5_000, 0), 0, [])
        assert await reasons(bank) == []

    async def test_a_second_booking_shows_in_the_statement(self, bank: BankWorld) -> None:
        [paid] = await pay(bank, 5_000)
        await one(bank, notification(execution(paid)))
        await one(bank, statement(execution(paid), execution(paid)))
        assert await reasons(bank) == ["ALREADY_MATCHED"]

    async def test_what_it_does_not_match_is_left_to_the_statement(self, bank: BankWorld) -> None:
        [paid] = await pay(bank, 5_000)
        told = await one(bank, notification(entry(1), execution(paid, 4_999)))
        assert [(remark.code, remark.values) for remark in told.content.remarks] == [("NOT_MATCHED", {"count": 2})]
        assert "2 of its lines" in told.content.remarks[0].message
        assert await reasons(bank) == []
        assert (await bank.states())[paid.reference] == ("PROCESSING", "PROCESSING")

    async def test_it_is_taken_in_once(self, bank: BankWorld) -> None:
        [paid] = await pay(bank, 5_000)
        first = await one(bank, notification(execution(paid)))
        again = await one(bank, notification(execution(paid)))
        assert (again.is_new, again.statement_id) == (False, first.statement_id)


class TestBatches:
    """One entry for many payments."""

    @pytest.fixture
    async def batch(self, bank: BankWorld) -> list[Paid]:
        return await pay(bank, 1_000, 2_000, 4_000)

    async def test_a_batch_without_details_is_matched_by_our_file(self, bank: BankWorld, batch: list[Paid]) -> None:
        file_id = batch[0].file_id.hex
        imported = await one(bank, statement(entry(7_000, batches=[(file_id, f"{file_id}001")])))
        assert imported.content.matched == Sum(3, 7_000, 0)
        assert set((await bank.states()).values()) == {("SUCCESS", "COMPLETED")}
        async with bank.operation(READER) as op:
            lines = await list_lines(op, imported.statement_id)
        assert sorted(-line.content.minor for line in lines) == [1_000, 2_000, 4_000]
        assert {line.content.entry for line in lines} == {1}

    async def test_a_batch_that_does_not_come_to_our_file_matches_nothing(
        self, bank: BankWorld, batch: list[Paid]
    ) -> None:
        file_id = batch[0].file_id.hex
        await one(bank, statement(entry(6_999, batches=[(file_id, f"{file_id}001")])))
        assert await reasons(bank) == ["AMOUNT_DIFFERS"]
        assert set((await bank.states()).values()) == {("PROCESSING", "PROCESSING")}

    async def test_a_batch_with_details_is_matched_one_by_one(self, bank: BankWorld, batch: list[Paid]) -> None:
        details = [tx(paid.minor, end_to_end=paid.reference) for paid in batch[:2]]
        imported = await one(bank, statement(entry(3_500, *details, tx(500, end_to_end="NOTPROVIDED"))))
        assert (imported.content.matched, imported.content.breaks) == (Sum(2, 3_000, 0), Sum(1, 500, 0))

    async def test_a_batch_of_another_tenant_is_unknown(
        self, app: App, account: Client, bank: BankWorld, batch: list[Paid]
    ) -> None:
        other = await BankWorld.open(app, await account.new_tenant(), bank.files / "other")
        file_id = batch[0].file_id.hex
        await one(other, statement(entry(7_000, batches=[(file_id, f"{file_id}001")])))
        assert await reasons(other) == ["UNKNOWN_REFERENCE"]
        assert set((await bank.states()).values()) == {("PROCESSING", "PROCESSING")}


async def test_several_statements_in_a_file_are_taken_in_together(bank: BankWorld) -> None:
    first, second = await pay(bank, 1_000, 2_000)
    monday = part(execution(first), name="S-1", sequence=1)
    tuesday = part(execution(second), execution(first), name="S-2", sequence=2, opening=999_000)
    imported = await bank.take_in(file_of(monday, tuesday))
    assert [part.content.matched.count for part in imported] == [1, 1]
    assert await reasons(bank) == ["ALREADY_MATCHED"]

    wednesday = part(name="S-3", sequence=3, opening=996_000)
    again = await bank.take_in(file_of(tuesday, wednesday))
    assert [part.is_new for part in again] == [False, True]


async def test_statements_that_seem_to_be_missing_are_remarked_on(bank: BankWorld) -> None:
    def remarks(imported: Imported) -> list[tuple[str, dict[str, int | str]]]:
        return [(remark.code, remark.values) for remark in imported.content.remarks]

    assert remarks(await one(bank, statement(name="S-7", sequence=7))) == []
    assert remarks(await one(bank, statement(name="S-8", sequence=8))) == []
    assert remarks(await one(bank, statement(name="S-11", sequence=11))) == [
        ("STATEMENTS_MISSING", {"last": 8, "sequence": 11})
    ]
    assert remarks(await one(bank, statement(name="S-10", sequence=10))) == [
        ("STATEMENTS_MISSING", {"last": 8, "sequence": 10})
    ]
    assert remarks(await one(bank, statement(name="S-9", sequence=9))) == []
    assert remarks(await one(bank, statement(name="S-12", sequence=12, opening=5))) == [
        ("BALANCE_NOT_CARRIED_OVER", {"last": 11})
    ]
    assert remarks(await one(bank, statement(name="S-1/27", sequence=1))) == []
    assert remarks(await one(bank, statement(name="S-X", sequence=None))) == []


async def test_pages_of_a_long_statement_are_not_the_same_statement(bank: BankWorld) -> None:
    first, second = await pay(bank, 1_000, 2_000)
    page_one = statement(execution(first)).replace(b"CLBD", b"ITBD")
    page_two = statement(execution(second), opening=999_000).replace(b"OPBD", b"ITBD")
    assert (await one(bank, page_one)).is_new
    assert (await one(bank, page_two)).is_new
    assert not (await one(bank, page_two)).is_new
    assert set((await bank.states()).values()) == {("SUCCESS", "COMPLETED")}


async def test_reports_are_listed_newest_first_in_pages(bank: BankWorld) -> None:
    for number in range(1, 6):
        await one(bank, statement(name=f"S-{number}", sequence=number))
    async with bank.operation(READER) as op:
        first = await list_statements(op, take=3)
        rest = await list_statements(op, after=first[-1].statement_id, take=3)
    assert [kept.content.name for kept in (*first, *rest)] == ["S-5", "S-4", "S-3", "S-2", "S-1"]


async def test_readers_read_and_do_not_send_in(bank: BankWorld) -> None:
    document = statement(entry(1))
    with pytest.raises(Forbidden):
        await bank.take_in(document, READER)
    [imported] = await bank.take_in(document, WRITER)
    async with bank.operation("tenant-app-read") as op:
        with pytest.raises(Forbidden):
            await list_statements(op)
        with pytest.raises(Forbidden):
            await get_statement(op, str(imported.statement_id))
        with pytest.raises(Forbidden):
            await list_lines(op, imported.statement_id)


async def test_another_tenants_reports_are_not_there(bank: BankWorld, app: App, account: Client) -> None:
    imported = await one(bank, statement(entry(1)))
    other = await BankWorld.open(app, await account.new_tenant(), bank.files / "other")
    async with other.operation(READER) as op:
        assert await list_statements(op) == []
        assert await list_lines(op, imported.statement_id) == []
        with pytest.raises(NotFound):
            await get_statement(op, str(imported.statement_id))
    async with bank.operation(READER) as op:
        with pytest.raises(NotFound):
            await get_statement(op, "no-uuid")


async def test_imports_at_the_same_time_match_once(bank: BankWorld) -> None:
    payments = await pay(bank, *range(1_000, 1_010))
    lines = [execution(paid) for paid in payments]
    documents = [statement(*lines), statement(*lines), statement(*lines, name="S-2"), notification(*lines)]

    results = await asyncio.gather(*(bank.take_in(document) for document in documents))

    new = [part.is_new for [part] in results]
    assert sorted(new) == [False, True, True, True]
    summary = await bank.summary()
    total = sum(paid.minor for paid in payments)
    assert (summary.matched, summary.open_breaks) == (Sum(10, total, 0), Sum(10, total, 0))
    assert set(await reasons(bank)) == {"ALREADY_MATCHED"}
    for paid in payments:
        assert await bank.events(paid) == [("PROCESSING", ""), ("COMPLETED", "")]


async def test_many_outcomes_at_once_are_as_one_after_another(bank: BankWorld) -> None:
    paid, other = await pay(bank, 1_000, 2_000)

    def said(kind: OutcomeKind, reason: str = "") -> Outcome:
        return Outcome(kind=kind, reference="", reason=reason)

    async with bank.operation() as op:
        changed = await apply_outcomes(
            op,
            [
                (paid.transaction_id, said(OutcomeKind.PENDING)),
                (paid.transaction_id, said(OutcomeKind.SETTLED)),
                (other.transaction_id, said(OutcomeKind.REFUSED, "AC04")),
                (paid.transaction_id, said(OutcomeKind.SETTLED)),
                (paid.transaction_id, said(OutcomeKind.REFUSED, "AC04")),
                (paid.transaction_id, said(OutcomeKind.RETURNED, "RETURNED-AC06")),
                (other.transaction_id, said(OutcomeKind.SETTLED)),
            ],
        )
    assert changed == [False, True, True, False, False, True, False]
    assert set((await bank.states()).values()) == {("FAILED", "FAILED")}
    assert await bank.events(paid) == [("PROCESSING", ""), ("COMPLETED", ""), ("FAILED", "RETURNED-AC06")]
    assert await bank.events(other) == [("PROCESSING", ""), ("FAILED", "AC04")]
    assert [detail for _, _, detail in await bank.actions("transaction.")] == [
        "SUCCESS",
        "FAILED",
        "SUCCESS REFUSED",
        "FAILED",
        "FAILED SETTLED",
    ]


async def test_ten_thousand_entries_are_one_short_operation(bank: BankWorld) -> None:
    count = 10_000
    payments = await bank.hand_over(*(("Ada Lovelace", minor) for minor in range(1, count + 1)))
    report = read_report(statement(*(execution(paid) for paid in payments), opening=10**12))

    began = time.process_time()  # our own, whoever else uses the machine
    async with bank.operation() as op:
        [imported] = await import_report(op, report)
    took = time.process_time() - began

    assert imported.content.matched.count == imported.content.moved == count
    assert set((await bank.states()).values()) == {("SUCCESS", "COMPLETED")}
    assert took < 10
