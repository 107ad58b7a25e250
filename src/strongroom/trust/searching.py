"""Searching for what must not be found: a value in every form in which it could stand somewhere, in any amount of data.

Data is read in pieces, each looked through together with the end of the one before, so that memory stays small and
nothing hides on a seam.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final

PIECE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pattern:
    """Bytes to look for; `form` says which form of which value they are."""

    form: str
    content: bytes


def text_patterns(what: str, text: str) -> Sequence[Pattern]:
    """Every form in which an ASCII text is likely to be written down.

    As it is, backwards, in UTF-16 of either order, hexadecimal, base64 (at each of the three places where it can
    begin), JSON escapes and percent encoding.
    """
    plain = text.encode("ascii")
    forms = {
        "clear": plain,
        "backwards": plain[::-1],
        # Without its last zero, little-endian is also what big-endian is without its first.
        "UTF-16": text.encode("utf-16-le")[:-1],
        "hexadecimal": plain.hex().encode(),
        "hexadecimal, capitals": plain.hex().upper().encode(),
        "JSON escapes": "".join(f"\\u{ord(letter):04x}" for letter in text).encode(),
        "JSON escapes, capitals": "".join(f"\\u{ord(letter):04X}" for letter in text).encode(),
        "percent encoding": "".join(f"%{ord(letter):02X}" for letter in text).encode(),
        **{f"base64 at {offset}": inner for offset, inner in enumerate(_base64_forms(plain))},
    }
    return [Pattern(f"{what}, {form}", content) for form, content in forms.items()]


def amount_patterns(what: str, amount: Decimal, minor: int) -> Sequence[Pattern]:
    """Every form in which an amount could be stored: as text (whole units) and as binary numbers.

    64-bit integers and floating-point numbers of either byte order, and PostgreSQL's numeric, on disk and on the wire,
    of major and of minor units.
    """
    found = list(text_patterns(what, str(int(amount))))
    for unit, value in (("major", amount), ("minor", Decimal(minor))):
        digits = _numeric_digits(value)
        for order, name in ((">", "big-endian"), ("<", "little-endian")):
            numeric = struct.pack(f"{order}{len(digits)}H", *digits)
            found.append(Pattern(f"{what}, numeric of {unit} units, {name}", numeric))
            found.append(Pattern(f"{what}, float of {unit} units, {name}", struct.pack(f"{order}d", float(value))))
    for order, name in ((">", "big-endian"), ("<", "little-endian")):
        # Zeros at the high end are left out: a shorter integer type would not have them.
        found.append(Pattern(f"{what}, integer, {name}", struct.pack(f"{order}q", minor).strip(b"\0")))
    return found


@dataclass(slots=True)
class Search:
    """A running search of one place: how much was looked through, and what was found where."""

    place: str
    patterns: Sequence[Pattern]
    expected: Sequence[bytes] = ()
    """What has to be found somewhere, or the search didn't see what it should."""
    size: int = 0
    found: list[str] = field(default_factory=list)
    _seen: set[bytes] = field(default_factory=set)

    @property
    def saw_everything(self) -> bool:
        """Whether all that had to be found was found."""
        return len(self._seen) == len(self.expected)

    def file(self, path: Path, name: str) -> None:
        """Look through a file."""
        with path.open("rb") as file:
            tail = b""
            while piece := file.read(PIECE):
                tail = self._look(tail, piece, name)

    async def stream(self, pieces: AsyncIterable[memoryview | bytes | bytearray], name: str) -> None:
        """Look through a stream."""
        tail, gathered = b"", bytearray()
        async for piece in pieces:
            gathered += piece
            if len(gathered) >= PIECE:
                tail = self._look(tail, bytes(gathered), name)
                gathered.clear()
        self._look(tail, bytes(gathered), name)

    def _look(self, tail: bytes, piece: bytes, name: str) -> bytes:
        self.size += len(piece)
        if not piece.strip(b"\0"):
            return b""  # what was allocated and never written: no pattern begins or ends with a zero
        window = tail + piece
        for pattern in self.patterns:
            if pattern.content in window:
                finding = f"{pattern.form}, in {name}"
                if finding not in self.found:
                    self.found.append(finding)
        self._seen.update(wanted for wanted in self.expected if wanted in window)
        contents = (*(pattern.content for pattern in self.patterns), *self.expected)
        return window[-max((len(content) for content in contents), default=1) :]


def _base64_forms(plain: bytes) -> Iterator[bytes]:
    """What base64 makes of a text in the middle of others, whichever of its three places it begins at: the characters
    that depend on nothing else."""
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + plain)
        first = (offset * 8 + 5) // 6
        last = (offset + len(plain)) * 8 // 6
        yield encoded[first:last]


def _numeric_digits(value: Decimal) -> Sequence[int]:
    """The base-10,000 digits of PostgreSQL's numeric, aligned at the decimal point, without zeros at the end."""
    whole, _, decimals = f"{value:f}".partition(".")
    whole = whole.rjust(-(-len(whole) // 4) * 4, "0")
    decimals = decimals.ljust(-(-len(decimals) // 4) * 4, "0")
    text = whole + decimals
    digits = [int(text[at : at + 4]) for at in range(0, len(text), 4)]
    while digits and digits[-1] == 0:
        digits.pop()
    while digits and digits[0] == 0:
        digits.pop(0)
    return digits
