from __future__ import annotations

import pytest

from strongroom.kernel.errors import Invalid
from strongroom.rails.bank.profile import SETTINGS, parse
from strongroom.rails.contract import Address, BankAccount
from strongroom.rails.formats.pain001 import AddressStyle, Rules, read, split, write
from tests.rails.formats.samples import NOW, TODAY, payment

LEAST = {"iban": "DE02 1203 0000 0000 2020 51", "holder": "Musterhaft Versicherung AG", "bic": "byladem1001"}


def failures(settings: dict[str, str]) -> list[tuple[str, object]]:
    with pytest.raises(Invalid) as caught:
        parse(settings)
    return [(failure.code, failure.values["setting"]) for failure in caught.value.failures]


def test_the_least_there_must_be() -> None:
    profile = parse(LEAST)
    assert profile.account == BankAccount(
        holder="Musterhaft Versicherung AG", iban="DE02120300000000202051", bic="BYLADEM1001"
    )
    assert profile.initiating_party == "Musterhaft Versicherung AG"
    assert profile.rules == Rules()


def test_every_setting() -> None:
    profile = parse(
        LEAST
        | {
            "initiatingParty": "Musterhaft Service GmbH",
            "street": "Domplatz",
            "building": "1",
            "postCode": "50667",
            "town": "Köln",
            "region": "NRW",
            "country": "DE",
            "addressStyle": "hybrid",
            "batchBooking": "false",
            "sepaCharacters": "false",
            "maxTransactionsPerFile": "500",
            "maxTransactionsPerBatch": "50",
        }
    )
    assert profile.initiating_party == "Musterhaft Service GmbH"
    assert profile.account.address == Address(
        country="DE", street="Domplatz", building="1", post_code="50667", town="Köln", region="NRW"
    )
    assert profile.rules == Rules(
        address_style=AddressStyle.HYBRID,
        batch_booking=False,
        sepa_characters=False,
        max_transactions_per_file=500,
        max_transactions_per_batch=50,
    )


def test_all_failures_are_listed_in_the_order_of_the_settings() -> None:
    bad = {
        "postal": "x",
        "iban": "DE03120300000000202051",
        "bic": "X",
        "street": "Domplatz",
        "country": "XX",
        "addressStyle": "unstructured",
        "batchBooking": "yes",
        "maxTransactionsPerFile": "0",
        "maxTransactionsPerBatch": "²",
    }
    assert failures(bad) == [
        ("SETTING_IS_INVALID", "iban"),
        ("SETTING_IS_REQUIRED", "holder"),
        ("SETTING_IS_INVALID", "bic"),
        ("SETTING_IS_REQUIRED", "town"),
        ("SETTING_IS_INVALID", "country"),
        ("SETTING_IS_INVALID", "addressStyle"),
        ("SETTING_IS_INVALID", "batchBooking"),
        ("SETTING_IS_INVALID", "maxTransactionsPerFile"),
        ("SETTING_IS_INVALID", "maxTransactionsPerBatch"),
        ("SETTING_NOT_RECOGNISED", "postal"),
    ]


def test_an_empty_setting_is_as_good_as_none() -> None:
    assert failures(dict.fromkeys(SETTINGS, " ")) == [
        ("SETTING_IS_REQUIRED", name) for name in ("iban", "holder", "bic")
    ]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"iban": "CH9300762011623852957"}, ["town", "country"]),
        ({"iban": "BR1800360305000010009795493C1"}, ["iban"]),
        ({"holder": "王"}, ["holder"]),
        ({"town": "Köln"}, ["country"]),
        ({"maxTransactionsPerFile": "100001"}, ["maxTransactionsPerFile"]),
        ({"maxTransactionsPerFile": "9" * 5000}, ["maxTransactionsPerFile"]),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, str], wrong: list[str]) -> None:
    assert [name for _, name in failures(LEAST | changes)] == wrong


def test_no_value_is_given_away() -> None:
    with pytest.raises(Invalid) as caught:
        parse(LEAST | {"iban": "DE03120300000000202051"})
    assert "DE03" not in str(caught.value)


def test_a_profile_makes_files() -> None:
    profile = parse(LEAST | {"maxTransactionsPerFile": "2"})
    plans = split((payment(number) for number in range(3)), profile.rules, not_before=TODAY)
    files = [profile.file(f"F{number}", NOW, batches) for number, batches in enumerate(plans)]
    read_back = [read(write(file)) for file in files]
    assert [(file.message_id, len(file.payments)) for file in read_back] == [("F0", 2), ("F1", 1)]
    assert read_back[0].batches[0].debtor.iban == "DE02120300000000202051"
