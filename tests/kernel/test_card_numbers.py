"""What makes a card number, whose it is, and how much of it may be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.kernel.card_numbers import RANGES, Brand, find_brand, has_luhn_digit, is_card_number, luhn_digit, mask
from tests.vault.cards.numbers import ALL as PUBLISHED
from tests.vault.cards.numbers import AMEX, DINERS, MAESTRO, MASTERCARD, VISA, VISA_13


@pytest.mark.parametrize(("number", "brand"), PUBLISHED.items())
def test_published_test_numbers_are_of_their_scheme(number: str, brand: str) -> None:
    assert find_brand(number) == Brand(brand)
    assert is_card_number(number)


@pytest.mark.parametrize(
    ("first", "brand"),
    [
        ("2220999999999999", None),
        ("2221000000000000", Brand.MASTERCARD),
        ("2720999999999999", Brand.MASTERCARD),
        ("2721000000000000", None),
        ("5099999999999999", Brand.MAESTRO),
        ("5100000000000000", Brand.MASTERCARD),
        ("5599999999999999", Brand.MASTERCARD),
        ("5600000000000000", Brand.MAESTRO),
        ("3527999999999999", None),
        ("3528000000000000", Brand.JCB),
        ("3589999999999999", Brand.JCB),
        ("3590000000000000", None),
        ("6439999999999999", None),
        ("6440000000000000", Brand.DISCOVER),
        ("6011000000000000", Brand.DISCOVER),
        ("6012000000000000", None),
        ("5019000000000000", Brand.DANKORT),
        ("2205000000000000", None),
        ("2204999999999999", Brand.MIR),
        ("340000000000000", Brand.AMEX),
        ("3400000000000000", None),
        ("41111111111111", None),
        ("999999999999999999", None),
    ],
)
def test_ranges_end_where_they_end(first: str, brand: Brand | None) -> None:
    assert find_brand(first) is brand


def test_ranges_are_well_formed() -> None:
    for found in RANGES:
        assert len(found.first) == len(found.last)
        assert found.first <= found.last
        assert all(12 <= length <= 19 for length in found.lengths)


@given(st.text("0123456789", min_size=11, max_size=18), st.integers(0, 18), st.integers(1, 9))
def test_one_wrong_digit_is_always_noticed(body: str, at: int, by: int) -> None:
    number = body + luhn_digit(body)
    assert has_luhn_digit(number)
    at %= len(number)
    assert not has_luhn_digit(number[:at] + str((int(number[at]) + by) % 10) + number[at + 1 :])


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (VISA, "41111111****1111"),
        (VISA_13, "422222***2222"),
        (MASTERCARD, "55555555****4444"),
        (AMEX, "378282*****0005"),
        (DINERS, "305693****5904"),
        (MAESTRO, "675964******8453"),
    ],
)
def test_no_more_is_shown_than_the_issuer_and_the_last_four(number: str, shown: str) -> None:
    brand = find_brand(number)
    assert brand is not None
    assert mask(number, brand) == shown


@pytest.mark.parametrize(
    "text",
    ["", "4111 1111 1111 1111", "４１１１１１１１１１１１１１１１", "41111111111111111111", "0" * 16, VISA[:-1] + "2"],
)
def test_what_is_no_number(text: str) -> None:
    assert not is_card_number(text)
