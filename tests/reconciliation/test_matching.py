"""The rules of matching, one by one, without a database."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from strongroom.kernel.money import Money
from strongroom.rails.contract import OutcomeKind
from strongroom.rails.formats.camt import Entry, read_notifications
from strongroom.reconciliation.matching import Knowledge, Known, Line, Reason, Role, match, named
from tests.reconciliation.bank import entry, notification, tx

A, B, C = UUID(int=0xA << 124), UUID(int=0xB << 124), UUID(int=0xC << 124)
FILE = UUID(int=0xF << 124)
BATCH = f"{FILE.hex}001"


def entries(*written: tuple[str, int]) -> tuple[Entry, ...]:
    [read] = read_notifications(notification(*written))
    return read.entries


def known(transaction: UUID, minor: int = 100, status: str = "PROCESSING", reason: str = "", *seen: Role) -> Known:
    return Known(
        transaction_id=transaction,
        money=Money(minor, "EUR"),
        status=status,
        reason=reason,
        seen=frozenset(seen),
    )


def knowing(*transactions: Known) -> Knowledge:
    references = [transaction.transaction_id.hex for transaction in transactions]
    return Knowledge(
        transactions=dict(zip(references, transactions, strict=True)),
        batches={BATCH: references, FILE.hex: references},
    )


def judge(knowledge: Knowledge, *written: tuple[str, int]) -> list[Line]:
    return match(entries(*written), knowledge)


def verdicts(lines: list[Line]) -> list[tuple[Reason | None, UUID | None, int]]:
    return [(line.reason, line.transaction_id, line.money.minor) for line in lines]


def outgoing(minor: int = 100, reference: str = A.hex, **more: str) -> tuple[str, int]:
    return entry(minor, tx(minor, end_to_end=reference, **more))


def incoming(
    minor: int = 100, returned: str = "AC06", *, code: str = "ESCT", reversal: bool = False
) -> tuple[str, int]:
    detail = tx(minor, end_to_end=A.hex, credit=True, returned=returned)
    return entry(minor, detail, credit=True, code=code, reversal=reversal)


@pytest.mark.parametrize("status", ["INTENDED", "PROCESSING", "UNCONFIRMED"])
def test_a_debit_of_an_open_payment_settles_it(status: str) -> None:
    [line] = judge(knowing(known(A, status=status)), outgoing())
    assert (line.transaction_id, line.role, line.reason) == (A, Role.EXECUTION, None)
    assert line.outcome is not None
    assert (line.outcome.kind, line.outcome.reference) == (OutcomeKind.SETTLED, A.hex)
    assert line.outcome.provider_reference == "BANK-1"


@pytest.mark.parametrize(("status", "reason"), [("SUCCESS", ""), ("FAILED", "RETURNED-AC06"), ("FAILED", "RETURNED")])
def test_a_debit_that_was_told_before_is_matched_and_says_nothing_new(status: str, reason: str) -> None:
    [line] = judge(knowing(known(A, 100, status, reason)), outgoing())
    assert (line.transaction_id, line.role, line.outcome) == (A, Role.EXECUTION, None)


@pytest.mark.parametrize("status", ["INTENDED", "PROCESSING", "UNCONFIRMED", "SUCCESS"])
def test_a_return_refuses_the_payment_with_its_code(status: str) -> None:
    [line] = judge(knowing(known(A, status=status)), incoming())
    assert (line.transaction_id, line.role, line.money.minor) == (A, Role.RETURN, 100)
    assert line.outcome is not None
    assert (line.outcome.kind, line.outcome.reason) == (OutcomeKind.RETURNED, "RETURNED-AC06")
    assert line.outcome.detail == "account closed"


def test_a_return_that_was_told_before_is_matched_and_says_nothing_new() -> None:
    [line] = judge(knowing(known(A, 100, "FAILED", "RETURNED-AC06")), incoming())
    assert (line.transaction_id, line.role, line.outcome) == (A, Role.RETURN, None)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (incoming(returned="", code="RRTN"), "RETURNED"),
        (incoming(returned="", code="RPCR"), "RETURNED"),
        (incoming(returned="Mr Smith has moved"), "RETURNED"),
        (incoming(returned="MD06", reversal=True), "RETURNED-MD06"),
    ],
)
def test_a_return_is_told_by_its_code_and_texts_never_become_reasons(written: tuple[str, int], reason: str) -> None:
    [line] = judge(knowing(known(A)), written)
    assert line.outcome is not None
    assert line.outcome.reason == reason


@pytest.mark.parametrize(
    ("knowledge", "written", "reason"),
    [
        (knowing(), outgoing(), Reason.UNKNOWN_REFERENCE),
        (knowing(known(A)), outgoing(reference="NOTPROVIDED"), Reason.UNKNOWN_REFERENCE),
        (knowing(known(A)), outgoing(reference="INVOICE 4711"), Reason.UNKNOWN_REFERENCE),
        (knowing(known(A)), entry(100), Reason.UNKNOWN_REFERENCE),
        (knowing(known(A), known(B)), outgoing(instruction=B.hex), Reason.REFERENCES_DIFFER),
        (knowing(known(A)), incoming(returned=""), Reason.WRONG_DIRECTION),
        (knowing(known(A)), entry(100, tx(100, end_to_end=A.hex, returned="AC06")), Reason.WRONG_DIRECTION),
        (knowing(known(A, status="SUCCESS")), incoming(returned="", reversal=True), Reason.REVERSED),
        (knowing(known(A)), entry(100, tx(100, end_to_end=A.hex), reversal=True), Reason.REVERSED),
        (knowing(known(A)), outgoing(101), Reason.AMOUNT_DIFFERS),
        (knowing(known(A)), outgoing(99), Reason.AMOUNT_DIFFERS),
        (knowing(known(A)), incoming(99), Reason.AMOUNT_DIFFERS),
        (knowing(known(A)), entry(100, tx(90, end_to_end=A.hex)), Reason.AMOUNT_DIFFERS),
        (
            knowing(known(A)),
            entry(100, tx(100, end_to_end=A.hex, currency="USD"), currency="USD"),
            Reason.CURRENCY_DIFFERS,
        ),
        (knowing(known(A)), entry(100, tx(100, end_to_end=A.hex, currency="USD")), Reason.CURRENCY_DIFFERS),
        (knowing(known(A, 100, "SUCCESS", "", Role.EXECUTION)), outgoing(), Reason.ALREADY_MATCHED),
        (knowing(known(A, 100, "FAILED", "RETURNED-AC06", Role.RETURN)), incoming(), Reason.ALREADY_MATCHED),
        (knowing(known(A, 100, "FAILED", "AC04")), outgoing(), Reason.BOOKED_THOUGH_REFUSED),
        (knowing(known(A, 100, "FAILED", "AC04")), incoming(), Reason.BOOKED_THOUGH_REFUSED),
    ],
)
def test_what_does_not_fit_is_a_break(knowledge: Knowledge, written: tuple[str, int], reason: Reason) -> None:
    lines = judge(knowledge, written)
    assert verdicts(lines) == [(reason, None, written[1])]
    assert lines[0].outcome is None


def test_a_break_names_the_transaction_that_it_is_about() -> None:
    [line] = judge(knowing(known(A)), outgoing(101))
    assert (line.about, line.reference) == (A, A.hex)


def test_the_same_booking_twice_in_one_report_is_matched_once() -> None:
    lines = judge(knowing(known(A)), outgoing(), outgoing(), incoming(), incoming())
    assert verdicts(lines) == [
        (None, A, -100),
        (Reason.ALREADY_MATCHED, None, -100),
        (None, A, 100),
        (Reason.ALREADY_MATCHED, None, 100),
    ]


def test_an_amount_that_fits_is_no_reference() -> None:
    [line] = judge(knowing(known(A, 12_345)), entry(12_345, tx(12_345, end_to_end="NOTPROVIDED")))
    assert line.reason is Reason.UNKNOWN_REFERENCE


def test_the_instruction_id_serves_where_the_end_to_end_id_is_not_ours() -> None:
    [line] = judge(knowing(known(A)), outgoing(reference="NOTPROVIDED", instruction=A.hex.upper()))
    assert line.transaction_id == A


@pytest.mark.parametrize("status", ["PDNG", "INFO", "FUTR"])
def test_what_is_not_booked_is_no_line(status: str) -> None:
    written = entry(100, tx(100, end_to_end=A.hex), status=status)
    assert judge(knowing(known(A)), written) == []
    assert named(entries(written)).references == frozenset()


WAYS = [
    entry(300, batches=[(FILE.hex, BATCH)]),
    entry(300, batches=[(FILE.hex, "")]),
    entry(300, batches=[("", BATCH)]),
    entry(300, tx(300, message=FILE.hex, batch=BATCH)),
    entry(300, tx(300, message=FILE.hex, batch=BATCH, end_to_end="NOTPROVIDED")),
    entry(300, tx(None, batch=BATCH)),
    entry(300, tx(None, end_to_end=A.hex), tx(None, end_to_end=B.hex)),
    entry(300, tx(100, end_to_end=A.hex), tx(None, end_to_end=B.hex)),
]
"""One entry for A and B, as banks write it."""


class TestBatches:
    """Entries that book many payments at once."""

    def test_details_are_matched_one_by_one(self) -> None:
        written = entry(600, tx(100, end_to_end=A.hex), tx(200, end_to_end=B.hex), tx(300, end_to_end=uuid4().hex))
        lines = judge(knowing(known(A, 100), known(B, 201)), written)
        assert verdicts(lines) == [
            (None, A, -100),
            (Reason.AMOUNT_DIFFERS, None, -200),
            (Reason.UNKNOWN_REFERENCE, None, -300),
        ]

    @pytest.mark.parametrize("written", WAYS)
    def test_without_amounts_all_are_matched_if_ours_come_to_the_entry(self, written: tuple[str, int]) -> None:
        lines = judge(knowing(known(A, 100), known(B, 200)), written)
        assert verdicts(lines) == [(None, A, -100), (None, B, -200)]
        assert [line.outcome and line.outcome.kind for line in lines] == [OutcomeKind.SETTLED] * 2

    @pytest.mark.parametrize("written", WAYS)
    def test_and_none_of_them_if_not(self, written: tuple[str, int]) -> None:
        lines = judge(knowing(known(A, 100), known(B, 201)), written)
        assert verdicts(lines) == [(Reason.AMOUNT_DIFFERS, None, -300)]

    def test_amounts_that_are_given_must_be_ours(self) -> None:
        written = entry(300, tx(100, end_to_end=A.hex), tx(None, end_to_end=B.hex))
        lines = judge(knowing(known(A, 150), known(B, 150)), written)
        assert verdicts(lines) == [(Reason.AMOUNT_DIFFERS, None, -300)]

    def test_what_the_bank_refused_is_not_in_its_batch(self) -> None:
        knowledge = knowing(known(A, 100), known(B, 200), known(C, 50, "FAILED", "AC04"))
        lines = judge(knowledge, entry(300, batches=[(FILE.hex, BATCH)]))
        assert [line.transaction_id for line in lines] == [A, B]

    def test_what_came_back_was_in_its_batch(self) -> None:
        knowledge = knowing(known(A, 100), known(B, 200, "FAILED", "RETURNED-AC06"))
        lines = judge(knowledge, entry(300, batches=[(FILE.hex, BATCH)]))
        assert [(line.transaction_id, line.outcome is None) for line in lines] == [(A, False), (B, True)]

    def test_a_batch_is_booked_once(self) -> None:
        written = entry(300, batches=[(FILE.hex, BATCH)])
        lines = judge(knowing(known(A, 100), known(B, 200)), written, written, outgoing(100))
        assert [line.reason for line in lines] == [None, None, Reason.ALREADY_MATCHED, Reason.ALREADY_MATCHED]

    def test_a_batch_of_refused_payments_is_never_booked(self) -> None:
        lines = judge(knowing(known(A, 100, "FAILED", "AC04")), entry(100, batches=[("", BATCH)]))
        assert verdicts(lines) == [(Reason.BOOKED_THOUGH_REFUSED, None, -100)]

    def test_a_batch_that_is_not_ours_is_unknown(self) -> None:
        lines = judge(knowing(known(A)), entry(100, batches=[("", f"{uuid4().hex}001")]))
        assert verdicts(lines) == [(Reason.UNKNOWN_REFERENCE, None, -100)]

    def test_a_batch_does_not_come_in(self) -> None:
        lines = judge(knowing(known(A)), entry(100, credit=True, batches=[("", BATCH)]))
        assert verdicts(lines) == [(Reason.WRONG_DIRECTION, None, 100)]

    def test_a_payment_that_is_not_ours_does_not_ride_on_our_batch(self) -> None:
        lines = judge(knowing(known(A, 300)), entry(300, tx(300, end_to_end="INVOICE 4711", batch=BATCH)))
        assert verdicts(lines) == [(Reason.UNKNOWN_REFERENCE, None, -300)]

    def test_one_unknown_payment_leaves_a_group_without_amounts_unmatched(self) -> None:
        written = entry(300, tx(None, end_to_end=A.hex), tx(None, end_to_end=C.hex))
        assert verdicts(judge(knowing(known(A, 300)), written)) == [(Reason.UNKNOWN_REFERENCE, None, -300)]
        written = entry(300, tx(None, end_to_end=A.hex), tx(None, end_to_end="NOTPROVIDED"))
        assert verdicts(judge(knowing(known(A, 300)), written)) == [(Reason.UNKNOWN_REFERENCE, None, -300)]

    def test_a_batch_is_asked_for_only_where_no_payment_is_named(self) -> None:
        found = named(entries(outgoing(batch=BATCH), entry(100, tx(100, batch=BATCH)), entry(5, batches=[(C.hex, "")])))
        assert found.references == {A.hex}
        assert found.batches == {BATCH, C.hex}
