"""Money: exact, in the currency's own minor units."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.kernel.money import COUNTRIES, EXPONENTS, Money, NotANumber, OutOfRange

currencies = st.sampled_from(sorted(EXPONENTS))
amounts = st.builds(Money, st.integers(1, 10**12 - 1), currencies)


@given(amounts)
def test_what_is_written_reads_back_equal(money: Money) -> None:
    assert Money.parse(str(money.decimal), money.currency) == money


@given(amounts)
def test_the_decimal_has_exactly_the_currencys_decimals(money: Money) -> None:
    assert -money.decimal.as_tuple().exponent == EXPONENTS[money.currency]
    assert money.decimal * 10 ** EXPONENTS[money.currency] == money.minor


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("200.00", "EUR", 20_000),
        ("200", "EUR", 20_000),
        ("0.1", "EUR", 10),
        ("000000000000001.00", "EUR", 100),
        ("0" * 5_000 + "1", "EUR", 100),
        ("5", "JPY", 5),
        ("1.234", "KWD", 1_234),
        ("999999999999.99", "EUR", 99_999_999_999_999),
    ],
)
def test_plain_decimals_are_read(text: str, currency: str, minor: int) -> None:
    assert Money.parse(text, currency).minor == minor


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1e3",
        "1E3",
        "NaN",
        "Infinity",
        "-Infinity",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "1,00",
        "1_0",
        ".5",
        "5.",
        "٣",
        "0x1",
    ],
)
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(NotANumber):
        Money.parse(text, "EUR")


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("0", "EUR"), ("0.00", "EUR"), ("-1", "EUR"), ("-0", "EUR"), ("1.000", "EUR"), ("1.0", "JPY"),
        ("1.2345", "KWD"),
        ("1000000000000", "EUR"), ("0.30000000000000004", "EUR"),
    ],
)  # fmt: skip
def test_what_no_payment_can_be_is_refused(text: str, currency: str) -> None:
    with pytest.raises(OutOfRange):
        Money.parse(text, currency)


@given(amounts, amounts)
def test_sums_stay_within_one_currency(first: Money, second: Money) -> None:
    if first.currency == second.currency:
        assert (first + second - second) == first
        assert (first + second).decimal == first.decimal + second.decimal
    else:
        with pytest.raises(TypeError):
            first + second


def test_the_lists_are_those_of_iso_with_what_is_no_money_left_out() -> None:
    assert {"EUR": 2, "JPY": 0, "KWD": 3, "CLF": 4}.items() <= EXPONENTS.items()
    assert not {"XAU", "XTS", "XXX", "XDR"} & EXPONENTS.keys()
    assert {"DE", "CH", "GB", "US"} <= COUNTRIES
    assert "XX" not in COUNTRIES
    assert Money(1, "EUR").decimal == Decimal("0.01")
