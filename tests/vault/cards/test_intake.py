"""A card as it was typed: every mistake told at once, in field order, and never what was sent."""

from __future__ import annotations

from datetime import date

import pytest

from strongroom.kernel.errors import Invalid
from strongroom.vault.cards.intake import Expiry, check_card
from tests.vault.cards.numbers import AMEX, VISA, card

TODAY = date(2026, 11, 22)


def refusals(**changed: object) -> list[str]:
    with pytest.raises(Invalid) as refused:
        check_card(card(**changed), TODAY)
    return [failure.code for failure in refused.value.failures]


def test_a_good_card() -> None:
    new = check_card(card("4111 1111-1111\u00a01111", expiryMonth="03", expiryYear="2027"), TODAY)
    assert (new.number, new.brand, new.expiry, new.holder, new.cvv) == (
        VISA, "VISA", Expiry(month=3, year=2027), "Erika Mustermann", "123",
    )  # fmt: skip
    assert not {VISA, "123", "Mustermann"} & set(repr(new).replace("'", " ").split())


def test_holder_and_code_may_be_left_out() -> None:
    new = check_card(card(holder=None, cvv=None), TODAY)
    assert (new.holder, new.cvv) == ("", "")


@pytest.mark.parametrize(
    ("changed", "codes"),
    [
        ({"number": None}, ["CARD_NUMBER_IS_REQUIRED"]),
        ({"number": ""}, ["CARD_NUMBER_IS_REQUIRED"]),
        ({"number": "4111111111111112"}, ["CARD_NUMBER_INVALID"]),
        ({"number": 4111111111111111}, ["CARD_NUMBER_INVALID"]),
        ({"number": "4111"}, ["CARD_NUMBER_INVALID"]),
        ({"number": "4111x1111111111111"}, ["CARD_NUMBER_INVALID"]),
        ({"number": "４１１１１１１１１１１１１１１１"}, ["CARD_NUMBER_INVALID"]),
        ({"number": "9999999999999995"}, ["CARD_BRAND_NOT_SUPPORTED"]),
        ({"expiryMonth": None}, ["EXPIRY_MONTH_IS_REQUIRED"]),
        ({"expiryMonth": 13}, ["EXPIRY_MONTH_IS_INVALID"]),
        ({"expiryMonth": True}, ["EXPIRY_MONTH_IS_INVALID"]),
        ({"expiryMonth": "١٢"}, ["EXPIRY_MONTH_IS_INVALID"]),
        ({"expiryYear": None}, ["EXPIRY_YEAR_IS_REQUIRED"]),
        ({"expiryYear": 31}, ["EXPIRY_YEAR_IS_INVALID"]),
        ({"expiryYear": 2031.5}, ["EXPIRY_YEAR_IS_INVALID"]),
        ({"expiryYear": 2025}, ["CARD_EXPIRED"]),
        ({"expiryMonth": 10, "expiryYear": 2026}, ["CARD_EXPIRED"]),
        ({"expiryMonth": 12, "expiryYear": 2046}, ["CARD_EXPIRY_TOO_FAR"]),
        ({"holder": "a\nb"}, ["CARD_HOLDER_CONTAINS_INVALID_CHARACTERS"]),
        ({"holder": ["a"]}, ["CARD_HOLDER_CONTAINS_INVALID_CHARACTERS"]),
        ({"holder": "a" * 141}, ["CARD_HOLDER_LENGTH_OUT_OF_RANGE"]),
        ({"holder": "5555 5555 5555 4444"}, ["CARD_HOLDER_IS_A_NUMBER"]),
        ({"cvv": 123}, ["CVV_INVALID"]),
        ({"cvv": "12"}, ["CVV_INVALID"]),
        ({"cvv": "1234"}, ["CVV_INVALID"]),
        ({"number": AMEX, "cvv": "123"}, ["CVV_INVALID"]),
    ],
)
def test_what_is_wrong_is_told_by_its_code(changed: dict[str, object], codes: list[str]) -> None:
    assert refusals(**changed) == codes


def test_everything_that_is_wrong_is_told_in_field_order() -> None:
    wrong = {"number": "1", "expiryMonth": 0, "expiryYear": "x", "holder": "\0", "cvv": "1"}
    assert refusals(**wrong) == [
        "CARD_NUMBER_INVALID", "EXPIRY_MONTH_IS_INVALID", "EXPIRY_YEAR_IS_INVALID",
        "CARD_HOLDER_CONTAINS_INVALID_CHARACTERS", "CVV_INVALID",
    ]  # fmt: skip


@pytest.mark.parametrize(("month", "year"), [(11, 2026), (11, 2046)])
def test_a_card_is_good_to_the_end_of_its_month_and_for_twenty_years(month: int, year: int) -> None:
    assert check_card(card(expiryMonth=month, expiryYear=year), TODAY).expiry == Expiry(month=month, year=year)


def test_no_message_says_what_was_sent() -> None:
    sent = card("4111111111111112", holder="5555555555554444", cvv="98765")
    with pytest.raises(Invalid) as refused:
        check_card(sent, TODAY)
    for failure in refused.value.failures:
        told = f"{failure.message} {failure.values}"
        assert not any(secret in told for secret in ("4111111111111112", "5555555555554444", "98765"))


def test_a_four_digit_code_is_american_express_s() -> None:
    assert check_card(card(AMEX, cvv="1234"), TODAY).cvv == "1234"
