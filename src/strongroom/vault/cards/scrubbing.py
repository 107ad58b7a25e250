"""Scrubbing: a provider's answer, without the card number that some providers send back.

The number is looked for with up to three other characters between any two of its digits (blanks, hyphens, dots, the
zeros of UTF-16…), in the text and in what JSON makes of it, and replaced by its mask. Where it shows in a form that
can't be replaced in place (percent encoding, HTML entities, base64, hexadecimal, backwards), the whole answer is
withheld: nothing is better than a number. Fields that are named like a security code lose their value.
"""

from __future__ import annotations

import base64
import html
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

_BETWEEN: Final = "[^0-9A-Za-z]{0,3}"
_CODE_NAME: Final = re.compile(r"(?:^|[^a-z])(?:cvv|cvc|cvn|csc|cid|security[^a-z]?code|verification[^a-z]?value)2?$")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_HIDDEN: Final = "***"
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode
_decode: Final = msgspec.json.Decoder(float_hook=Decimal).decode


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What may go back. `withheld`: the answer had the number in a form that couldn't be taken out, so nothing goes."""

    content: bytes
    withheld: bool = False


class Scrubber:
    """Takes one number out of anything."""

    def __init__(self, number: str, mask: str) -> None:
        self._number = number
        self._mask = mask
        spaced = _BETWEEN.join(number)
        self._spaced = re.compile(spaced.encode())
        self._spaced_text = re.compile(spaced)
        self._traces = tuple(_traces(number.encode()))

    def scrub(self, content: bytes) -> Scrubbed:
        """An answer's body."""
        try:
            value = _decode(content)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
        else:
            cleaned = self._clean(value)
            # What needs nothing taken out goes back byte for byte.
            content = content if cleaned == value else _encode(cleaned)
        content = self._spaced.sub(self._mask.encode(), content)
        if self._shows_in(content):
            return Scrubbed(b"", withheld=True)
        return Scrubbed(content)

    def scrub_text(self, text: str) -> str:
        """A header's value; nothing when the number can't be taken out."""
        scrubbed = self.scrub(text.encode())
        return "" if scrubbed.withheld else scrubbed.content.decode(errors="replace")

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._spaced_text.sub(self._mask, value)
        if isinstance(value, list):
            return [self._clean(item) for item in value]
        if isinstance(value, dict):
            return {
                self._spaced_text.sub(self._mask, name): _HIDDEN if _is_code(name, item) else self._clean(item)
                for name, item in value.items()
            }
        if isinstance(value, int | Decimal) and not isinstance(value, bool) and self._is_number(value):
            return self._mask
        return value

    def _is_number(self, value: int | Decimal) -> bool:
        return value == int(self._number) or self._number in f"{value:f}"

    def _shows_in(self, content: bytes) -> bool:
        readings = (content, unquote_to_bytes(content), html.unescape(content.decode("latin-1")).encode())
        return any(
            self._spaced.search(reading) or any(trace in reading for trace in self._traces) for reading in readings
        )


def _is_code(name: str, value: object) -> bool:
    spaced = _HUMP.sub("_", name).lower()
    return isinstance(value, str | int) and value != "" and _CODE_NAME.search(spaced) is not None


def _traces(number: bytes) -> list[bytes]:
    """Forms of a number that tell it, and that no mask can stand in for."""
    found = [number[::-1], number.hex().encode(), number.hex().upper().encode()]
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + number)
        found.append(encoded[(offset * 8 + 5) // 6 : (offset + len(number)) * 8 // 6])
    return found
