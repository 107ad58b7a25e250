from __future__ import annotations

import time
from dataclasses import replace
from datetime import date, timedelta

import pytest
from lxml import etree

from strongroom.kernel.errors import Invalid
from strongroom.kernel.money import Money
from strongroom.rails.contract import Address, BankAccount, Direction, Payment
from strongroom.rails.formats import accounts
from strongroom.rails.formats.pain001 import AddressStyle, Batch, Rules, check, split, write
from tests.rails.formats.samples import CREDITOR, DEBTOR, NOW, TODAY, file_of, file_with, payment

NS = {"p": "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"}


def find(document: bytes, path: str) -> list[str]:
    """The texts at an XPath in which every name is of the message."""
    found = etree.fromstring(document).xpath(path, namespaces=NS)
    assert isinstance(found, list)
    return [element.text or "" for element in found if isinstance(element, etree._Element)]


def codes(sample: Payment, debtor: BankAccount = DEBTOR) -> list[str]:
    return [failure.code for failure in check(sample, debtor=debtor, rules=Rules())]


def test_what_a_file_says() -> None:
    document = write(file_of(payment(1), payment(2, money=Money(1, "EUR"), due_on=TODAY + timedelta(days=1))))
    assert find(document, "//p:GrpHdr/p:MsgId") == ["MSG-1"]
    assert find(document, "//p:GrpHdr/p:CreDtTm") == ["2026-11-22T09:30:00Z"]
    assert find(document, "//p:NbOfTxs") == ["2", "1", "1"]
    assert find(document, "//p:CtrlSum") == ["123.46", "123.45", "0.01"]
    assert find(document, "//p:PmtInfId") == ["MSG-1001", "MSG-1002"]
    assert find(document, "//p:ReqdExctnDt/p:Dt") == ["2026-11-22", "2026-11-23"]
    assert find(document, "//p:BtchBookg") == ["true", "true"]
    assert find(document, "//p:SvcLvl/p:Cd") == ["SEPA", "SEPA"]
    assert find(document, "//p:ChrgBr") == ["SLEV", "SLEV"]
    assert find(document, "//p:InstrId") == find(document, "//p:EndToEndId") == [f"{1:032x}", f"{2:032x}"]
    assert find(document, "//p:Cdtr/p:Nm") == ["Zoe Lecka", "Zoe Lecka"]
    assert find(document, "//p:Cdtr/p:PstlAdr/p:*")[:5] == ["Oudegracht", "12 bis", "3511 AB", "Utrecht", "NL"]
    assert find(document, "//p:DbtrAcct/p:Id/p:IBAN")[0] == DEBTOR.iban
    assert find(document, "//p:CdtrAgt//p:BICFI")[0] == "ABNANL2A"


def test_the_same_values_give_the_same_bytes() -> None:
    assert write(file_of(payment(1), payment(2))) == write(file_of(payment(1), payment(2)))


def test_a_hybrid_address_says_nothing_twice() -> None:
    rules = Rules(address_style=AddressStyle.HYBRID)
    long = Address(country="NL", town="Utrecht", street="Lange " * 20, building="7", post_code="3511")
    document = write(file_of(payment(counterparty=replace(CREDITOR, address=long)), rules=rules))
    lines = find(document, "//p:Cdtr/p:PstlAdr/p:AdrLine")
    assert " ".join(lines) == ("Lange " * 20 + "7")
    assert all(len(line) <= 70 for line in lines)
    assert not find(document, "//p:StrtNm | //p:BldgNb")
    assert find(document, "//p:Cdtr/p:PstlAdr/p:TwnNm") == ["Utrecht"]


def test_the_bank_may_take_other_characters() -> None:
    document = write(file_of(payment(), rules=Rules(sepa_characters=False)))
    assert find(document, "//p:Cdtr/p:Nm") == ["Zoë Łęcka"]


def test_parts_that_are_not_known_are_left_out() -> None:
    bare = BankAccount(holder="Ada", iban="nl91 abna 0417 1643 00", address=Address(country="NL"))
    document = write(file_of(payment(counterparty=bare, remittance=""), debtor=replace(DEBTOR, bic="")))
    assert find(document, "//p:CdtTrfTxInf//p:IBAN") == ["NL91ABNA0417164300"]
    assert not find(document, "//p:CdtrAgt | //p:RmtInf | //p:Cdtr/p:PstlAdr")
    assert find(document, "//p:DbtrAgt//p:Othr/p:Id") == ["NOTPROVIDED"]


def test_payments_are_split_by_day_and_by_the_banks_limits() -> None:
    days = [TODAY - timedelta(days=3), TODAY + timedelta(days=2), TODAY, TODAY + timedelta(days=2), TODAY]
    samples = [payment(number, due_on=day) for number, day in enumerate(days)]
    rules = Rules(max_transactions_per_file=4, max_transactions_per_batch=2)
    files = split(samples, rules, not_before=TODAY)
    shape = [[(batch.execution_on, [int(p.reference, 16) for p in batch.payments]) for batch in file] for file in files]
    later = TODAY + timedelta(days=2)
    assert shape == [[(TODAY, [0, 2]), (TODAY, [4]), (later, [1])], [(later, [3])]]
    assert split([], rules, not_before=TODAY) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"reference": "F" * 32}, "REFERENCE_IS_INVALID"),
        ({"reference": "0" * 32 + "\n"}, "REFERENCE_IS_INVALID"),
        ({"direction": Direction.DEBIT}, "DIRECTION_NOT_SUPPORTED"),
        ({"money": Money(1, "CHF")}, "CURRENCY_NOT_SUPPORTED"),
        ({"money": Money(0, "EUR")}, "AMOUNT_OUT_OF_RANGE"),
        ({"money": Money(-1, "EUR")}, "AMOUNT_OUT_OF_RANGE"),
        ({"money": Money(1_000_000_000_00, "EUR")}, "AMOUNT_OUT_OF_RANGE"),
        ({"remittance": "x" * 141}, "REMITTANCE_LENGTH_OUT_OF_RANGE"),
    ],
)
def test_terms_that_cannot_be_written(changes: dict[str, object], code: str) -> None:
    assert codes(payment(1, **changes)) == [code]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"holder": " "}, "HOLDER_IS_REQUIRED"),
        ({"holder": "王小明"}, "HOLDER_CONTAINS_INVALID_CHARACTERS"),
        ({"iban": ""}, "IBAN_IS_REQUIRED"),
        ({"iban": "NL92ABNA0417164300"}, "IBAN_IS_INVALID"),
        ({"iban": "NL91ABNA041716430"}, "IBAN_IS_INVALID"),
        ({"iban": "BR1800360305000010009795493C1"}, "IBAN_COUNTRY_NOT_SUPPORTED"),
        ({"bic": "ABNA"}, "BIC_IS_INVALID"),
        ({"bic": "ABNAXX2A"}, "BIC_IS_INVALID"),
        ({"address": Address(country="NL", street="Oudegracht")}, "ADDRESS_TOWN_IS_REQUIRED"),
        ({"address": Address(country="NL", town="?", street="Oudegracht")}, "ADDRESS_TOWN_IS_REQUIRED"),
        ({"address": Address(country="", town="Utrecht")}, "ADDRESS_COUNTRY_IS_REQUIRED"),
        ({"address": Address(country="XX", town="Utrecht")}, "COUNTRY_NOT_SUPPORTED"),
    ],
)
def test_accounts_that_cannot_be_written(changes: dict[str, object], code: str) -> None:
    creditor = replace(CREDITOR, **changes)  # type: ignore[arg-type]  # the cases name fields of BankAccount
    assert codes(payment(counterparty=creditor)) == [code]


def test_beyond_the_eea_the_payers_address_is_needed() -> None:
    swiss = payment(counterparty=replace(CREDITOR, iban="CH9300762011623852957"))
    assert codes(swiss) == []
    assert codes(swiss, replace(DEBTOR, address=None)) == ["DEBTOR_ADDRESS_IS_REQUIRED"]
    assert codes(payment(), replace(DEBTOR, address=None)) == []
    from_britain = replace(DEBTOR, iban="GB29NWBK60161331926819", address=None)
    assert codes(payment(), from_britain) == ["DEBTOR_ADDRESS_IS_REQUIRED"]


def test_the_scope_of_sepa() -> None:
    assert len(accounts.EEA) == 30
    assert len(accounts.SEPA) == 42
    assert {"CH", "GB", "RS", "MD"} <= accounts.NON_EEA
    assert not {"US", "TR", "UA", "XK"} & accounts.SEPA


def test_failures_name_the_payment_and_nothing_personal() -> None:
    bad = payment(7, counterparty=replace(CREDITOR, iban="NL92ABNA0417164300"), money=Money(1, "USD"))
    with pytest.raises(Invalid) as caught:
        write(file_of(payment(1), bad))
    assert [failure.code for failure in caught.value.failures] == ["CURRENCY_NOT_SUPPORTED", "IBAN_IS_INVALID"]
    assert all(failure.values == {"reference": f"{7:032x}"} for failure in caught.value.failures)
    assert "ABNA" not in str(caught.value)


def test_a_file_lists_at_most_a_hundred_failures() -> None:
    bad = [payment(number, money=Money(1, "USD")) for number in range(300)]
    with pytest.raises(Invalid) as caught:
        write(file_of(*bad))
    assert len(caught.value.failures) == 100


def test_files_that_cannot_be_written() -> None:
    day = (Batch(execution_on=TODAY, payments=(payment(),)),)
    twice = (Batch(execution_on=TODAY, payments=(payment(), payment())),)
    tight = Rules(max_transactions_per_batch=1)
    cases = [
        (file_with(day, message_id="A//B"), "MESSAGE_ID_IS_INVALID"),
        (file_with(day, message_id="A" * 33), "MESSAGE_ID_IS_INVALID"),
        (file_with(day, created_at=NOW.replace(tzinfo=None)), "CREATED_AT_IS_INVALID"),
        (replace(file_with(day), initiating_party="…"), "INITIATING_PARTY_IS_REQUIRED"),
        (file_with(day, debtor=replace(DEBTOR, iban="DE1")), "DEBTOR_IS_INVALID"),
        (file_with(()), "PAYMENT_FILE_EMPTY"),
        (file_with((Batch(execution_on=TODAY, payments=()),)), "PAYMENT_FILE_EMPTY"),
        (file_with(twice), "REFERENCE_DUPLICATED"),
        (
            file_with((Batch(execution_on=TODAY, payments=(payment(1), payment(2))),), rules=tight),
            "PAYMENT_FILE_TOO_LONG",
        ),
    ]
    for file, code in cases:
        with pytest.raises(Invalid) as caught:
            write(file)
        assert [failure.code for failure in caught.value.failures] == [code]


def test_ten_thousand_payments_take_seconds() -> None:
    file = file_of(*(payment(number, due_on=date(2026, 11, 22)) for number in range(10_000)))
    began = time.process_time()
    document = write(file)
    assert time.process_time() - began < 10
    assert document.count(b"<EndToEndId>") == 10_000
