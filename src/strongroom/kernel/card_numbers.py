"""Card numbers: what makes one (ISO/IEC 7812-1), whose it is, and how much of it may be shown.

Pure rules. A number itself exists in the card vault only (`strongroom.vault.cards`); others use these rules to look
for numbers where none may be.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MIN_DIGITS: Final = 12
MAX_DIGITS: Final = 19
"""ISO/IEC 7812-1 has at most 19; no card that is issued has fewer than 12."""
SHOWN_AT_END: Final = 4
_DIGITS: Final = re.compile(r"[0-9]{12,19}", re.ASCII)


class Brand(enum.StrEnum):
    """A card scheme, as it is told on the wire."""

    AMEX = "AMEX"
    DANKORT = "DANKORT"
    DINERS = "DINERS"
    DISCOVER = "DISCOVER"
    JCB = "JCB"
    MAESTRO = "MAESTRO"
    MASTERCARD = "MASTERCARD"
    MIR = "MIR"
    TROY = "TROY"
    UNIONPAY = "UNIONPAY"
    VISA = "VISA"

    @property
    def security_digits(self) -> int:
        """How long the security code is: four on the front of an American Express card, else three on the back."""
        return 4 if self is Brand.AMEX else 3


@dataclass(frozen=True, slots=True)
class IssuerRange:
    """Numbers that begin with `first` to `last` (equally many digits) and have one of these lengths."""

    first: str
    last: str
    brand: Brand
    lengths: range | tuple[int, ...]

    def holds(self, number: str) -> bool:
        """Whether a number (digits only) is of this range."""
        return self.first <= number[: len(self.first)] <= self.last and len(number) in self.lengths


_LONG: Final = range(16, 20)
RANGES: Final[Sequence[IssuerRange]] = (
    IssuerRange("34", "34", Brand.AMEX, (15,)),
    IssuerRange("37", "37", Brand.AMEX, (15,)),
    IssuerRange("5019", "5019", Brand.DANKORT, (16,)),
    IssuerRange("300", "305", Brand.DINERS, range(14, 20)),
    IssuerRange("3095", "3095", Brand.DINERS, range(14, 20)),
    IssuerRange("36", "36", Brand.DINERS, range(14, 20)),
    IssuerRange("38", "39", Brand.DINERS, range(14, 20)),
    IssuerRange("6011", "6011", Brand.DISCOVER, _LONG),
    IssuerRange("644", "649", Brand.DISCOVER, _LONG),
    IssuerRange("65", "65", Brand.DISCOVER, _LONG),
    IssuerRange("3528", "3589", Brand.JCB, _LONG),
    IssuerRange("2200", "2204", Brand.MIR, _LONG),
    IssuerRange("2221", "2720", Brand.MASTERCARD, (16,)),
    IssuerRange("51", "55", Brand.MASTERCARD, (16,)),
    IssuerRange("9792", "9792", Brand.TROY, (16,)),
    IssuerRange("62", "62", Brand.UNIONPAY, _LONG),
    IssuerRange("81", "81", Brand.UNIONPAY, _LONG),
    IssuerRange("4", "4", Brand.VISA, (13, 16, 19)),
    IssuerRange("50", "50", Brand.MAESTRO, range(12, 20)),
    IssuerRange("56", "58", Brand.MAESTRO, range(12, 20)),
    IssuerRange("6304", "6304", Brand.MAESTRO, range(12, 20)),
    IssuerRange("67", "67", Brand.MAESTRO, range(12, 20)),
)
"""Ranges as the schemes publish them; the first that fits counts."""

_EIGHT_DIGIT_ISSUERS: Final = frozenset(
    {Brand.VISA, Brand.MASTERCARD, Brand.DISCOVER, Brand.JCB, Brand.UNIONPAY, Brand.MIR, Brand.TROY}
)
"""Schemes whose issuers are told apart by eight digits (ISO/IEC 7812-1:2017)."""


def has_luhn_digit(number: str) -> bool:
    """Whether the last digit is right (ISO/IEC 7812-1 annex B). `number` is digits only."""
    odd, even = number[-1::-2], number[-2::-2]
    doubled = sum(map(int, even)) * 2 - 9 * sum(digit > "4" for digit in even)
    return (sum(map(int, odd)) + doubled) % 10 == 0


def luhn_digit(body: str) -> str:
    """The digit that makes a number of `body` (digits only)."""
    return next(digit for digit in "0123456789" if has_luhn_digit(body + digit))


def find_brand(number: str) -> Brand | None:
    """The scheme of a number (digits only), by range and length; None when no scheme issues such numbers."""
    return next((found.brand for found in RANGES if found.holds(number)), None)


def is_card_number(number: str) -> bool:
    """Whether digits are a number that some scheme could have issued: length, range and last digit are right."""
    return _DIGITS.fullmatch(number) is not None and has_luhn_digit(number) and find_brand(number) is not None


def shown_at_start(number: str, brand: Brand) -> int:
    """How many of the first digits may be shown: the issuer's, which is as much as PCI DSS 4.0.1 requirement 3.4.1 lets
    be seen together with the last four. Eight where issuers have eight and at least four stay hidden, else six."""
    return 8 if brand in _EIGHT_DIGIT_ISSUERS and len(number) >= 16 else 6


def mask(number: str, brand: Brand) -> str:
    """The number with its middle hidden: `41111111****1111`."""
    start = shown_at_start(number, brand)
    return number[:start] + "*" * (len(number) - start - SHOWN_AT_END) + number[-SHOWN_AT_END:]
