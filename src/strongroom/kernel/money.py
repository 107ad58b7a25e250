"""Money: an exact amount in a currency's minor units.

Currencies are ISO 4217's active list (by `pycountry`); codes that aren't money (precious metals, testing, funds codes
without minor units) are left out. Minor-unit exponents other than two are listed here, after ISO 4217 table A.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import pycountry

MAX_INTEGER_DIGITS: Final = 12
"""Most digits before the decimal point (wire contract)."""

_NOT_MONEY = {"XAG", "XAU", "XBA", "XBB", "XBC", "XBD", "XDR", "XPD", "XPT", "XSU", "XTS", "XUA", "XXX"}
_EXPONENTS = {
    code: decimals
    for decimals, codes in (
        (0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"),
        (3, "BHD IQD JOD KWD LYD OMR TND"),
        (4, "CLF UYW"),
    )
    for code in codes.split()
}
EXPONENTS: Final[dict[str, int]] = {
    entry.alpha_3: _EXPONENTS.get(entry.alpha_3, 2) for entry in pycountry.currencies if entry.alpha_3 not in _NOT_MONEY
}
"""Currency code → number of decimals."""

COUNTRIES: Final[frozenset[str]] = frozenset(entry.alpha_2 for entry in pycountry.countries)
"""ISO 3166-1 alpha-2 codes."""

_PLAIN = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII)


class NotANumber(ValueError):
    """The text is not a plain decimal number."""


class OutOfRange(ValueError):
    """Zero, negative, too long, or with more decimals than the currency has."""


@dataclass(frozen=True, slots=True, order=False)
class Money:
    """`minor` units (cents, yen, fils…) of `currency`. Adds and subtracts only within one currency."""

    minor: int
    currency: str

    @classmethod
    def parse(cls, text: str, currency: str) -> Money:
        """Read a plain decimal such as `200.00`.

        Raises NotANumber for exponents, signs other than a leading minus, blanks, NaN and infinities, and OutOfRange
        for zero, negative amounts, more than 12 digits before the point or more decimals than the currency has.
        """
        if not _PLAIN.fullmatch(text):
            raise NotANumber(text)
        whole, _, decimals = text.partition(".")
        whole = whole.lstrip("0")
        exponent = EXPONENTS[currency]
        if text[0] == "-" or len(whole) > MAX_INTEGER_DIGITS or len(decimals) > exponent:
            raise OutOfRange(text)
        minor = int(f"0{whole}{decimals.ljust(exponent, '0')}")
        if minor <= 0:
            raise OutOfRange(text)
        return cls(minor, currency)

    @property
    def decimal(self) -> Decimal:
        """The amount in major units, with exactly the currency's decimals."""
        return Decimal(self.minor).scaleb(-EXPONENTS[self.currency])

    def __str__(self) -> str:
        return f"{self.decimal} {self.currency}"

    def __add__(self, other: Money) -> Money:
        self._same_currency(other)
        return Money(self.minor + other.minor, self.currency)

    def __sub__(self, other: Money) -> Money:
        self._same_currency(other)
        return Money(self.minor - other.minor, self.currency)

    def _same_currency(self, other: Money) -> None:
        if self.currency != other.currency:
            raise TypeError(f"{self.currency} and {other.currency} don't add up")
