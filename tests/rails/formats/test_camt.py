from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.kernel.errors import Invalid, StrongroomError
from strongroom.kernel.money import Money
from strongroom.rails.contract import BankAccount
from strongroom.rails.formats.camt import (
    Balance,
    Entry,
    EntryDetail,
    EntryStatus,
    Statement,
    read_notifications,
    read_statements,
)
from tests.rails.formats.published import CAMT053, CAMT054, judge
from tests.rails.formats.statements import (
    OTHER,
    OWN,
    balance,
    detail,
    document,
    entry,
    notification,
    statement,
    usual,
)

ADA = BankAccount(holder="Ada", iban=OTHER, bic="ABNANL2A")
DETAIL = EntryDetail(
    money=Money(100_00, "EUR"),
    is_credit=False,
    end_to_end_id="E-1",
    message_id="MSG-1",
    batch_id="MSG-1001",
    instruction_id="I-E-1",
    bank_reference="BANK-E-1",
    counterparty=ADA,
    remittance="Claim 4711",
)
SECOND = replace(
    DETAIL, money=Money(50_50, "EUR"), end_to_end_id="E-2", instruction_id="I-E-2", bank_reference="BANK-E-2"
)
ENTRY = Entry(
    money=Money(150_50, "EUR"),
    is_credit=False,
    is_reversal=False,
    status=EntryStatus.BOOKED,
    booked_on=date(2026, 11, 20),
    value_on=date(2026, 11, 21),
    reference="N-1",
    bank_reference="BANK-1",
    bank_transaction_code="PMNT/ICDT/ESCT",
    additional_information="SEPA",
    details=(DETAIL, SECOND),
)
RETURNED = replace(SECOND, is_credit=True, return_reason="AC04", return_detail="closed")


def refusal(text: bytes) -> StrongroomError:
    with pytest.raises(StrongroomError) as caught:
        read_statements(text)
    return caught.value


def only(text: bytes) -> Statement:
    (found,) = read_statements(text)
    return found


@pytest.mark.parametrize("version", CAMT053)
def test_every_version_of_statements(version: int) -> None:
    text = usual(version)
    judge(text, CAMT053[version])
    last = replace(
        DETAIL, money=Money(20_00, "EUR"), end_to_end_id="E-9", instruction_id="I-E-9", bank_reference="BANK-E-9"
    )
    assert only(text) == Statement(
        message_id="M-1",
        id="S-1",
        sequence=17,
        created_at=datetime(2026, 11, 20, 23, tzinfo=UTC),
        account=BankAccount(holder="Musterhaft AG", iban=OWN, bic="BYLADEM1001"),
        opening=Balance(code="OPBD", money=Money(1000_00, "EUR"), on=date(2026, 11, 20)),
        closing=Balance(code="CLBD", money=Money(880_00, "EUR"), on=date(2026, 11, 20)),
        entries=(
            ENTRY,
            replace(ENTRY, money=Money(50_50, "EUR"), is_credit=True, details=(RETURNED,)),
            replace(
                ENTRY,
                money=Money(10_00, "EUR"),
                status=EntryStatus.PENDING,
                booked_on=None,
                value_on=date(2026, 11, 22),
                details=(),
            ),
            replace(ENTRY, money=Money(20_00, "EUR"), details=(last,)),
        ),
        copy_indicator="DUPL",
    )


@pytest.mark.parametrize("version", CAMT054)
def test_every_version_of_notifications(version: int) -> None:
    two = detail(version, "E-1", "100.00") + detail(version, "E-2", "50.50")
    text = notification(version, entry(version, "150.50", two))
    judge(text, CAMT054[version])
    (read,) = read_notifications(text)
    assert (read.id, read.sequence, read.account.iban) == ("N-1", 18, OWN)
    assert read.entries == (ENTRY,)


def test_the_other_side_of_incoming_payments_and_of_accounts_not_named() -> None:
    incoming = detail(8, "E-1", "5.00", credit=True)
    nameless = detail(8, "E-2", "5.00", credit=True, parties=False)
    returned = detail(8, "E-3", "5.00", credit=True, returned="AC04")
    outgoing = detail(8, "E-4", "5.00")
    text = document(
        8,
        statement(
            8,
            balance("PRCD", "5.00", credit=False),
            balance("CLBD", "5.00"),
            entry(8, "5.00", incoming, credit=True),
            entry(8, "5.00", nameless, credit=True),
            entry(8, "5.00", returned, credit=True),
            entry(8, "5.00", outgoing),
            own="<Othr><Id>0815</Id></Othr>",
        ),
    )
    read = only(text)
    assert (read.account.iban, read.account.number) == ("", "0815")
    assert read.opening.money == Money(-5_00, "EUR")
    assert [found.details[0].counterparty for found in read.entries] == [
        ADA,
        BankAccount(holder="", bic="ABNANL2A"),
        ADA,
        ADA,
    ]


def test_a_reversal_goes_the_way_its_indicator_says() -> None:
    undone = entry(8, "7.00", detail(8, "E-1", "7.00", credit=True, returned="MS03"), credit=True, reversal="true")
    read = only(document(8, statement(8, balance("OPBD", "1.00"), balance("CLBD", "8.00"), undone)))
    assert read.entries[0].is_reversal
    assert read.entries[0].signed == Money(7_00, "EUR")
    assert read.entries[0].details[0].counterparty == ADA


def test_several_statements_in_one_file() -> None:
    one = statement(8, balance("OPBD", "1.00"), balance("CLBD", "1.00"), identity="S-1")
    two = statement(8, balance("OPBD", "0"), balance("CLBD", "0.00"), identity="S-2")
    read = read_statements(document(8, one, two))
    assert [found.id for found in read] == ["S-1", "S-2"]
    assert read[1].closing.money == Money(0, "EUR")


def test_pages_carry_interim_balances() -> None:
    spent = entry(8, "3.00")
    first = statement(8, balance("OPBD", "10.00"), balance("ITBD", "7.00"), spent, identity="P-1")
    middle = statement(8, balance("ITBD", "7.00"), balance("ITBD", "4.00"), spent, identity="P-2")
    last = statement(8, balance("ITBD", "4.00"), balance("CLBD", "1.00"), spent, identity="P-3")
    read = read_statements(document(8, first, middle, last))
    assert [(page.opening.money.minor, page.closing.money.minor) for page in read] == [
        (1000, 700),
        (700, 400),
        (400, 100),
    ]


def test_a_broken_balance_is_refused_with_its_figures() -> None:
    error = refusal(usual(8).replace(b">880<", b">880.01<"))
    assert error.code == "STATEMENT_BALANCE_BROKEN"
    assert error.failures[0].values == {
        "statement": "S-1",
        "currency": "EUR",
        "opening": "1000.00",
        "credits": "50.50",
        "debits": "170.50",
        "closing": "880.01",
        "difference": "0.01",
    }


def test_a_batch_that_does_not_add_up_is_refused() -> None:
    text = usual(8).replace(b'<Amt Ccy="EUR">100.00</Amt>', b'<Amt Ccy="EUR">100.01</Amt>')
    assert refusal(text).code == "ENTRY_SUM_BROKEN"
    two = detail(8, "E-1", "1.00") + detail(8, "E-2", "1.00")
    with pytest.raises(Invalid) as caught:
        read_notifications(notification(8, entry(8, "3.00", two)))
    assert caught.value.code == "ENTRY_SUM_BROKEN"


def test_an_amount_that_is_not_given_is_not_guessed() -> None:
    blank = detail(8, "E-1", "1.00").replace('<Amt Ccy="EUR">1.00</Amt>', "").replace("<CdtDbtInd>DBIT</CdtDbtInd>", "")
    alone, together = entry(8, "4.00", blank), entry(8, "6.00", blank + detail(8, "E-2", "1.00"))
    read = only(document(8, statement(8, balance("OPBD", "10.00"), balance("CLBD", "0.00"), alone, together)))
    assert [found.money for line in read.entries for found in line.details] == [
        Money(4_00, "EUR"),
        None,
        Money(1_00, "EUR"),
    ]


@pytest.mark.parametrize("missing", ["OPBD", "CLBD"])
def test_a_statement_without_balances_cannot_be_checked(missing: str) -> None:
    error = refusal(usual(8).replace(missing.encode(), b"CLAV"))
    assert error.code == "STATEMENT_BALANCE_MISSING"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"<Id>S-1</Id>", b""),
        (b"<MsgId>M-1</MsgId>", b""),
        (b"<Cd>BOOK</Cd>", b"<Cd>DONE</Cd>"),
        (b"<Sts><Cd>BOOK</Cd></Sts>", b""),
        (b"<CdtDbtInd>DBIT</CdtDbtInd>", b"<CdtDbtInd>OUT</CdtDbtInd>"),
        (b"<CdtDbtInd>CRDT</CdtDbtInd>", b""),
        (b'<Amt Ccy="EUR">150.50</Amt>', b""),
        (b'<Amt Ccy="EUR">150.50</Amt>', b'<Amt Ccy="CHF">150.50</Amt>'),
        (b'<Amt Ccy="EUR">150.50</Amt>', b'<Amt Ccy="EUR">150,50</Amt>'),
        (b'<Amt Ccy="EUR">150.50</Amt>', b'<Amt Ccy="EUR">1e2</Amt>'),
        (b'<Amt Ccy="EUR">150.50</Amt>', b'<Amt Ccy="EUR">1234567890123456789</Amt>'),
        (b"<IBAN>" + OWN.encode() + b"</IBAN></Id><Ccy>", b"</Id><Ccy>"),
        (b"<ElctrncSeqNb>17", b"<ElctrncSeqNb>-1"),
        (b"<Dt>2026-11-20</Dt>", b"<Dt>2026-13-20</Dt>"),
        (b"<BookgDt><Dt>2026-11-20</Dt></BookgDt>", b"<BookgDt/>"),
        (b"<BkToCstmrStmt>", b"<BkToCstmrStmt/><X>"),
        (b"</Ntry>", b""),
    ],
)
def test_malformed_statements(before: bytes, after: bytes) -> None:
    text = usual(8)
    assert before in text
    assert refusal(text.replace(before, after, 1)).code == "STATEMENT_MALFORMED"


@pytest.mark.parametrize("namespace", [b"camt.053.001.01", b"camt.053.001.15", b"camt.052.001.08", b"camt.054.001.08"])
def test_other_namespaces_say_what_is_read(namespace: bytes) -> None:
    error = refusal(usual(8).replace(b"camt.053.001.08", namespace))
    assert error.code == "STATEMENT_VERSION_NOT_SUPPORTED"
    assert "camt.053.001.02 to .14" in str(error)
    with pytest.raises(Invalid) as caught:
        read_notifications(usual(8))
    assert caught.value.code == "NOTIFICATION_VERSION_NOT_SUPPORTED"


def test_prefixed_names_and_8_bit_encodings_are_read() -> None:
    text = usual(8).decode().replace("Musterhaft AG", "Müller AG").replace("UTF-8", "ISO-8859-1").encode("latin-1")
    assert only(text).account.holder == "Müller AG"
    one = statement(8, balance("OPBD", "1.00"), balance("CLBD", "1.00")).replace("</", "</c:").replace("<", "<c:")
    one = one.replace("<c:/c:", "</c:")
    prefixed = (
        '<c:Document xmlns:c="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><c:BkToCstmrStmt><c:GrpHdr>'
        f"<c:MsgId>M</c:MsgId></c:GrpHdr>{one}</c:BkToCstmrStmt></c:Document>"
    )
    assert only(prefixed.encode()).id == "S-1"


cents = st.integers(-10_000_000_00, 10_000_000_00)


def _decimal(minor: int) -> str:
    return f"{abs(minor) // 100}.{abs(minor) % 100:02}"


@given(cents, st.lists(cents.filter(bool), max_size=8), st.sampled_from([0, 0, 1, -1, 100]))
def test_only_statements_that_add_up_are_believed(opening: int, amounts: list[int], error: int) -> None:
    closing = opening + sum(amounts) + error
    text = document(
        8,
        statement(
            8,
            balance("OPBD", _decimal(opening), credit=opening >= 0),
            balance("CLBD", _decimal(closing), credit=closing >= 0),
            *(entry(8, _decimal(amount), credit=amount > 0) for amount in amounts),
        ),
    )
    if error:
        assert refusal(text).code == "STATEMENT_BALANCE_BROKEN"
    else:
        read = only(text)
        assert read.closing.money.minor == closing
        assert [found.signed.minor for found in read.entries] == amounts
