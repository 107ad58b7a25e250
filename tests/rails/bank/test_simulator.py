from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiso20022.camt.camt_053_001_08 import camt_053_001_08 as iso_statement
from pyiso20022.pain.pain_002_001_10 import pain_002_001_10 as iso_report
from xsdata.formats.dataclass.parsers import XmlParser

from strongroom.kernel.errors import Invalid
from strongroom.kernel.money import Money
from strongroom.rails.bank.simulator import BankAnswer, Behaviour, Books, answer
from strongroom.rails.contract import Payment
from strongroom.rails.formats import camt, pain001, pain002
from strongroom.rails.formats.camt import Statement
from strongroom.rails.formats.pain001 import Rules
from strongroom.rails.formats.pain002 import Verdict
from tests.rails.formats.published import CAMT053, CAMT054, PAIN002, judge
from tests.rails.formats.samples import DEBTOR, IBANS, NOW, TODAY, file_of, payment, to
from tests.rails.formats.test_hostile import mutations

OPENING = 10_000_000_00


def ask(
    *payments: Payment, books: Books | None = None, behaviour: Behaviour | None = None, **file: object
) -> BankAnswer:
    document = pain001.write(file_of(*payments, **file))  # type: ignore[arg-type]  # arguments of file_of
    return answer(document, books or Books(), NOW, behaviour or Behaviour())


def verdicts(result: BankAnswer, *payments: Payment) -> list[Verdict | None]:
    report = pain002.read(result.pain002)
    orders = [("MSG-1001", payment.reference) for payment in payments]
    found = report.verdicts(orders)
    return [found.get(order) for order in orders]


def statement(result: BankAnswer) -> Statement:
    (only,) = camt.read_statements(result.camt053[0])
    return only


def movements(read: Statement) -> list[tuple[str, int]]:
    """End-to-end id and signed cents of every booked transaction."""
    return [
        (detail.end_to_end_id, detail.money.minor if detail.is_credit else -detail.money.minor)
        for entry in read.entries
        for detail in entry.details
        if detail.money is not None
    ]


def test_the_last_word_of_the_name_decides() -> None:
    chosen = [
        to("Ada Paid", 1, cents=100),
        to("Bob RJCT-AC04", 2, cents=200),
        to("Cleo RTRN-AC06", 3, cents=400),
        to("Dan SILENT", 4, cents=800),
        to("SILENT Eve", 5, cents=1600),
    ]
    result = ask(*chosen)
    report = pain002.read(result.pain002)
    assert (report.original_message_id, report.status) == ("MSG-1", "PART")
    assert [verdict and (verdict.status, verdict.reason) for verdict in verdicts(result, *chosen)] == [
        ("ACCP", ""),
        ("RJCT", "AC04"),
        ("ACCP", ""),
        ("ACCP", ""),
        ("ACCP", ""),
    ]
    read = statement(result)
    one, _, three, _, five = (payment.reference for payment in chosen)
    assert movements(read) == [(one, -100), (three, -400), (five, -1600), (three, 400)]
    assert read.entries[1].details[0].return_reason == "AC06"
    assert read.entries[1].bank_transaction_code == "PMNT/ICDT/RRTN"
    assert read.entries[1].details[0].counterparty.holder == "Cleo RTRN-AC06"
    assert (read.opening.money.minor, read.closing.money.minor) == (OPENING, OPENING - 1700)
    assert (read.account.iban, read.sequence) == (DEBTOR.iban, 1)
    assert result.books.accounts[DEBTOR.iban].balance == Money(OPENING - 1700, "EUR")


def test_a_message_is_executed_once() -> None:
    first = ask(payment(1))
    again = ask(payment(1), books=first.books)
    assert again.camt053 == ()
    assert again.books == first.books
    (verdict,) = verdicts(again, payment(1))
    assert verdict is not None
    assert verdict.is_duplicate
    assert not verdict.is_rejected


def test_an_order_is_executed_once_whatever_message_brings_it() -> None:
    first = ask(payment(1), to("Dan SILENT", 2))
    result = ask(payment(1), payment(2), payment(3), books=first.books, message_id="MSG-2")
    report = pain002.read(result.pain002)
    assert [t.reasons[0].code if t.reasons else t.status for t in report.batches[0].transactions] == [
        "DUPL",
        "DUPL",
        "ACCP",
    ]
    assert movements(statement(result)) == [(payment(3).reference, -123_45)]
    assert statement(result).sequence == 2
    assert statement(result).opening.money == statement(first).closing.money


def test_batch_booking() -> None:
    chosen = [payment(1), payment(2), payment(3, due_on=TODAY + timedelta(days=1))]
    together = [[2, 1], [1, 1, 1]]
    cases = [
        (Rules(batch_booking=True), Behaviour(), together[0]),
        (Rules(batch_booking=False), Behaviour(), together[1]),
        (Rules(batch_booking=True), Behaviour(batch_booked=False), together[1]),
        (Rules(batch_booking=False), Behaviour(batch_booked=True), together[0]),
    ]
    for rules, behaviour, sizes in cases:
        read = statement(ask(*chosen, rules=rules, behaviour=behaviour))
        assert [len(entry.details) for entry in read.entries] == sizes
        assert read.entries[-1].booked_on == TODAY
        assert read.entries[-1].value_on == TODAY + timedelta(days=1)


def test_a_statement_sent_twice_is_the_same() -> None:
    first, second = ask(payment(), behaviour=Behaviour(statement_twice=True)).camt053
    assert first == second


def test_an_unrelated_incoming_payment() -> None:
    result = ask(payment(), behaviour=Behaviour(unrelated_incoming=True))
    read = statement(result)
    assert movements(read) == [(payment().reference, -123_45), ("NOTPROVIDED", 123_45)]
    assert read.entries[1].details[0].counterparty.holder == "Erika Beispiel"
    assert result.books.accounts[DEBTOR.iban].balance.minor == OPENING


def test_a_broken_balance_is_noticed_and_the_books_stay_right() -> None:
    result = ask(payment(), behaviour=Behaviour(broken_balance=True))
    with pytest.raises(Invalid) as caught:
        camt.read_statements(result.camt053[0])
    assert caught.value.code == "STATEMENT_BALANCE_BROKEN"
    assert caught.value.failures[0].values["difference"] == "0.01"
    assert result.books.accounts[DEBTOR.iban].balance.minor == OPENING - 123_45


def test_a_notification_has_the_same_entries() -> None:
    result = ask(payment(1), to("Cleo RTRN-AC06", 2), behaviour=Behaviour(notification=True))
    assert result.camt054 is not None
    (read,) = camt.read_notifications(result.camt054)
    assert read.entries == statement(result).entries
    assert ask(payment()).camt054 is None


def test_a_report_may_name_only_what_is_rejected() -> None:
    result = ask(payment(1), to("Bob RJCT-AC04", 2), behaviour=Behaviour(lists_accepted=False))
    report = pain002.read(result.pain002)
    assert [found.end_to_end_id for found in report.batches[0].transactions] == [payment(2).reference]


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"NL91ABNA0417164300", b"NL92ABNA0417164300", "AC01"),
        (b"NL91ABNA0417164300", b"BR1800360305000010009795493C1", "AG01"),
        (b'Ccy="EUR"', b'Ccy="CHF"', "AM03"),
        (b"<TwnNm>Utrecht</TwnNm>\n            <Ctry>NL</Ctry>", b"<AdrLine>Utrecht</AdrLine>", "BE04"),
        (b"DE02120300000000202051", b"DE03120300000000202051", "AC02"),
    ],
)
def test_what_any_bank_rejects(before: bytes, after: bytes, reason: str) -> None:
    document = pain001.write(file_of(payment()))
    assert before in document
    result = answer(document.replace(before, after), Books(), NOW, Behaviour())
    (verdict,) = verdicts(result, payment())
    assert verdict is not None
    assert (verdict.is_rejected, verdict.reason) == (True, reason)
    assert not result.camt053 or movements(statement(result)) == []


def test_what_the_balance_does_not_cover() -> None:
    chosen = [to("Ada", 1, cents=600), to("Bob", 2, cents=500), to("Cleo", 3, cents=400)]
    result = ask(*chosen, behaviour=Behaviour(opening_balance=Money(10_00, "EUR")))
    assert [verdict and verdict.reason for verdict in verdicts(result, *chosen)] == ["", "AM04", ""]
    assert statement(result).closing.money.minor == 0


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"<NbOfTxs>1", b"<NbOfTxs>2", "AM18"),
        (b"<CtrlSum>123.45", b"<CtrlSum>123.46", "AM10"),
        (b"<PmtMtd>TRF", b"<PmtMtd>CHK", "FF01"),
        (b"</Document>", b"", "FF01"),
    ],
)
def test_files_that_are_rejected_whole(before: bytes, after: bytes, reason: str) -> None:
    document = pain001.write(file_of(payment())).replace(before, after)
    result = answer(document, Books(), NOW, Behaviour())
    report = pain002.read(result.pain002)
    assert (report.original_message_id, report.status) == ("MSG-1", "RJCT")
    assert report.reasons[0].code == reason
    assert (result.camt053, result.books) == ((), Books())


def test_a_file_of_several_accounts_has_several_statements() -> None:
    one, two = (pain001.write(file_of(payment(n), debtor=replace(DEBTOR, iban=IBANS[n]))) for n in (0, 2))
    batch = two[two.index(b"<PmtInf>") : two.index(b"</PmtInf>") + len(b"</PmtInf>")]
    both = one.replace(b"</PmtInf>", b"</PmtInf>" + batch.replace(b"MSG-1001", b"MSG-1002"))
    both = both.replace(b"<NbOfTxs>1", b"<NbOfTxs>2", 1).replace(b"<CtrlSum>123.45", b"<CtrlSum>246.90", 1)
    read = camt.read_statements(answer(both, Books(), NOW, Behaviour()).camt053[0])
    assert [found.account.iban for found in read] == [IBANS[0], IBANS[2]]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Ada", "Bob RJCT-MD07", "Cleo RTRN-AC04", "Dan SILENT", "Zoë & Łęcka <x>"]),
            st.integers(1, 5_000_000_00),
        ),
        min_size=1,
        max_size=6,
    ),
    st.builds(
        Behaviour,
        batch_booked=st.sampled_from([None, True, False]),
        unrelated_incoming=st.booleans(),
        notification=st.just(True),
        lists_accepted=st.booleans(),
    ),
)
def test_answers_follow_the_schemas_that_others_publish(chosen: list[tuple[str, int]], behaviour: Behaviour) -> None:
    document = pain001.write(file_of(*(to(name, number, cents=cents) for number, (name, cents) in enumerate(chosen))))
    first = answer(document, Books(), NOW, behaviour)
    for result in (first, answer(document, first.books, NOW, behaviour), answer(b"?", first.books, NOW, behaviour)):
        # Version 10 itself is in none of the packages; what we send of it is the same in version 12.
        judge(result.pain002.replace(b"pain.002.001.10", b"pain.002.001.12"), PAIN002[12])
        assert XmlParser().from_bytes(result.pain002, iso_report.Document).cstmr_pmt_sts_rpt is not None
    assert first.camt054 is not None
    judge(first.camt053[0], CAMT053[8])
    judge(first.camt054, CAMT054[8])


def test_another_library_reads_the_statement_alike() -> None:
    result = ask(payment(1), to("Cleo RTRN-AC06", 2, cents=7), behaviour=Behaviour(batch_booked=False))
    (theirs,) = XmlParser().from_bytes(result.camt053[0], iso_statement.Document).bk_to_cstmr_stmt.stmt
    ours = statement(result)
    assert [balance.amt.value for balance in theirs.bal] == [ours.opening.money.decimal, ours.closing.money.decimal]
    assert [(entry.amt.value, entry.cdt_dbt_ind.value == "CRDT") for entry in theirs.ntry] == [
        (entry.money.decimal, entry.is_credit) for entry in ours.entries
    ]
    assert [entry.ntry_dtls[0].tx_dtls[0].refs.end_to_end_id for entry in theirs.ntry] == [
        entry.details[0].end_to_end_id for entry in ours.entries
    ]


deliveries = st.lists(
    st.tuples(st.integers(1, 4), st.lists(st.integers(1, 8), min_size=1, max_size=5, unique=True)), max_size=8
)


@settings(max_examples=60)
@given(deliveries)
def test_the_books_agree_with_a_model(files: list[tuple[int, list[int]]]) -> None:
    """Whatever is delivered how often under which names: each order once, and never for a message seen before."""
    books = Books()
    messages: set[int] = set()
    paid: dict[int, int] = {}
    for message, orders in files:
        document = pain001.write(
            file_of(*(to("Ada", order, cents=order) for order in orders), message_id=f"MSG-{message}")
        )
        books = answer(document, books, NOW, Behaviour()).books
        if message not in messages:
            messages.add(message)
            paid |= {order: order for order in orders}
    assert books.orders == {f"{order:032x}" for order in paid}
    if files:
        assert books.accounts[DEBTOR.iban].balance.minor == OPENING - sum(paid.values())
        assert books.accounts[DEBTOR.iban].sequence == len(messages)


@settings(max_examples=150)
@given(mutations())
def test_altered_files_are_always_answered(mutate: object) -> None:
    assert callable(mutate)
    altered = mutate(pain001.write(file_of(payment(1), to("Cleo RTRN-AC06", 2))))
    result = answer(altered, Books(), NOW, Behaviour(notification=True))
    report = pain002.read(result.pain002)
    if not result.camt053:
        assert report.status == "RJCT"
        assert result.books.orders == frozenset()
    for document in result.camt053:
        judge(document, CAMT053[8])
        assert camt.read_statements(document)
