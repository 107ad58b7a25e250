"""What comes in: a card as it was typed, checked, and every mistake told at once, in field order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from strongroom.kernel.card_numbers import MAX_DIGITS, MIN_DIGITS, Brand, find_brand, has_luhn_digit
from strongroom.kernel.errors import Failure, Invalid

MAX_HOLDER: Final = 140
MAX_YEARS_AHEAD: Final = 20
_MONTHS: Final = range(1, 13)
_YEARS: Final = range(2000, 3000)
_SEPARATORS: Final = re.compile(r"[ \u00a0-]")
_NUMBER: Final = re.compile(rf"[0-9]{{{MIN_DIGITS},{MAX_DIGITS}}}", re.ASCII)
_CODE: Final = re.compile(r"[0-9]{3,4}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LONG_NUMBER: Final = re.compile(r"(?:[0-9][ -]?){12,}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """The last month in which a card is good."""

    month: int
    year: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCard:
    """A card that `check_card` found good. Its secret parts don't print."""

    number: str = field(repr=False)
    brand: Brand
    expiry: Expiry
    holder: str = field(repr=False)
    cvv: str = field(repr=False)
    """Empty when none was given."""


def check_card(sent: Mapping[str, Any], today: date) -> NewCard:
    """A card as it was sent (untyped JSON): `number`, `expiryMonth`, `expiryYear`, `holder`, `cvv`.

    Blanks and hyphens in the number are what people type and don't count. Raises errors.Invalid with every failure, in
    field order: `CARD_NUMBER_IS_REQUIRED`, `CARD_NUMBER_INVALID`, `CARD_BRAND_NOT_SUPPORTED`, `EXPIRY_MONTH_…`,
    `EXPIRY_YEAR_…`, `CARD_EXPIRED`, `CARD_EXPIRY_TOO_FAR`, `CARD_HOLDER_…`, `CVV_INVALID`. None of them says what was
    sent.
    """
    failures: list[Failure] = []
    number, brand = _check_number(failures, sent.get("number"))
    expiry = _check_expiry(failures, sent.get("expiryMonth"), sent.get("expiryYear"), today)
    holder = _check_holder(failures, sent.get("holder"))
    cvv = _check_cvv(failures, sent.get("cvv"), brand)
    if failures or brand is None:
        raise Invalid(*failures)
    return NewCard(number=number, brand=brand, expiry=expiry, holder=holder, cvv=cvv)


def _check_number(failures: list[Failure], value: object) -> tuple[str, Brand | None]:
    if value is None or value == "":
        failures.append(Failure("CARD_NUMBER_IS_REQUIRED", "number is required."))
        return "", None
    number = _SEPARATORS.sub("", value) if isinstance(value, str) else ""
    if not _NUMBER.fullmatch(number) or not has_luhn_digit(number):
        failures.append(
            Failure(
                "CARD_NUMBER_INVALID",
                "number is not a card number: send it as text of {minDigits} to {maxDigits} digits, and look for a "
                "mistyped digit.",
                {"minDigits": MIN_DIGITS, "maxDigits": MAX_DIGITS},
            )
        )
        return "", None
    brand = find_brand(number)
    if brand is None:
        known = ", ".join(sorted(Brand))
        failures.append(
            Failure(
                "CARD_BRAND_NOT_SUPPORTED",
                "number is of no card scheme that is known here ({known}).",
                {"known": known},
            )
        )
    return number, brand


def _check_expiry(failures: list[Failure], month: object, year: object, today: date) -> Expiry:
    before = len(failures)
    expiry = Expiry(
        month=_whole(failures, month, "expiryMonth", "EXPIRY_MONTH", among=_MONTHS),
        year=_whole(failures, year, "expiryYear", "EXPIRY_YEAR", among=_YEARS),
    )
    if len(failures) > before:
        return expiry
    if (expiry.year, expiry.month) < (today.year, today.month):
        failures.append(Failure("CARD_EXPIRED", "The card has expired. Ask for another one."))
    elif (expiry.year, expiry.month) > (today.year + MAX_YEARS_AHEAD, today.month):
        failures.append(
            Failure(
                "CARD_EXPIRY_TOO_FAR",
                "The card's expiry is more than {years} years away, which no card's is.",
                {"years": MAX_YEARS_AHEAD},
            )
        )
    return expiry


def _whole(failures: list[Failure], value: object, name: str, code: str, *, among: range) -> int:
    """A whole number, also as text; 0 when it is none."""
    if value is None or value == "":
        failures.append(Failure(f"{code}_IS_REQUIRED", "{field} is required.", {"field": name}))
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 4:
        value = int(value)
    if type(value) is not int or value not in among:
        failures.append(
            Failure(
                f"{code}_IS_INVALID",
                "{field} is a whole number from {least} to {most}.",
                {"field": name, "least": among[0], "most": among[-1]},
            )
        )
        return 0
    return value


def is_holder(text: str) -> bool:
    """Whether a name is one that `check_card` lets in as it stands."""
    failures: list[Failure] = []
    return _check_holder(failures, text) == text and not failures


def _check_holder(failures: list[Failure], value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or _CONTROL.search(text := " ".join(value.split(" ")).strip()):
        failures.append(Failure("CARD_HOLDER_CONTAINS_INVALID_CHARACTERS", "holder is one line of text."))
        return ""
    if len(text) > MAX_HOLDER:
        failures.append(
            Failure(
                "CARD_HOLDER_LENGTH_OUT_OF_RANGE",
                "holder has at most {maxLength} letters.",
                {"maxLength": MAX_HOLDER},
            )
        )
        return ""
    if _LONG_NUMBER.search(text):
        # A number typed into the wrong field would be sealed as a name, and be shown where names may be.
        failures.append(Failure("CARD_HOLDER_IS_A_NUMBER", "holder is the name on the card, not its number."))
        return ""
    return text


def _check_cvv(failures: list[Failure], value: object, brand: Brand | None) -> str:
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not _CODE.fullmatch(value) or (brand and len(value) != brand.security_digits):
        failures.append(
            Failure(
                "CVV_INVALID",
                "cvv is text of {digits} digits.",
                {"digits": brand.security_digits if brand is not None else "3 or 4"},
            )
        )
        return ""
    return value
