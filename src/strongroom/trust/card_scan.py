"""Looking for card numbers where none may be: in any bytes, without knowing which numbers.

A finding is a run of digits that some scheme could have issued (range, length, last digit: `kernel.card_numbers`) and
that stands by itself: no letter, digit, dot or hyphen directly before it, no letter or digit after. Read as ASCII, in
the groups in which cards are printed, in UTF-16, in hexadecimal and in base64. A run of 17 to 19 digits counts in
groups only, since memory is full of 64-bit integers written out, of which many would look like a card. For this, and
because numbers may stand in the middle of words, a check that knows its own numbers looks for those too, in every form
and context (`searching.text_patterns`).

Where digits are is found on a copy in which every digit is the same byte, and where base64 of digits may be likewise;
that is many times as fast as a regular expression, which is asked only about what is left.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.kernel.card_numbers import find_brand, is_card_number, mask
from strongroom.trust.searching import PIECE, Search

_SHAPES: Final = bytes.maketrans(
    bytes(range(256)), bytes(ord("d" if chr(at) in "0123456789" else ".") for at in range(256))
)
_RUN: Final = re.compile(rb"[0-9]+")
_SPACED: Final = {
    b"dddd.dddd.dddd.d": re.compile(rb"[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?"),
    b"dddd.dddddd.dddd": re.compile(rb"[0-9]{4}([ -])[0-9]{6}\1[0-9]{4,5}"),
    b"d." * 12 + b"d": re.compile(rb"[0-9]([ \0-])(?:[0-9]\1){11,17}[0-9]"),
}
"""The shapes of numbers with something between their digits; a NUL between all of them is UTF-16."""
_BASE64: Final = re.compile(rb"[M-O][DTjz][AEIMQUYcgk][w-z0-5](?:[M-O][DTjz][AEIMQUYcgk][w-z0-5]){2,5}")
"""Three digits become four characters, of which each has a small alphabet of its own."""
_GROUP_ENDS: Final = bytes.maketrans(
    bytes(range(256)),
    bytes(ord("a" if chr(at) in "MNO" else "z" if chr(at) in "wxyz012345" else ".") for at in range(256)),
)
"""The first character of such a group, and its last, each as one byte."""
_DIGITS: Final = re.compile(rb"(?<![0-9])[0-9]{13,16}(?![0-9])")
_HEXADECIMAL: Final = re.compile(rb"(?:3[0-9])+")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_WORD: Final = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_JOINED: Final = _WORD | frozenset(b".-")
_SHORTEST: Final = 13
_LONGEST_RUN: Final = 16
_BEGINNING: Final = b"\n"
"""Stands before what is looked through, so that a number at its very beginning is not taken for the end of one."""
_LONGEST: Final = 128
"""More than any form of a number has: 19 digits in UTF-16, in hexadecimal, or with something between them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A number: where it begins, in which form, and itself with its middle hidden."""

    at: int
    end: int
    form: str
    masked: str


def find_numbers(content: bytes) -> Iterator[Finding]:
    """All that look like card numbers."""
    shapes = content.translate(_SHAPES)
    yield from _runs(content, shapes)
    for shape, form in _SPACED.items():
        at = shapes.find(shape)
        while at >= 0:
            found = form.match(content, at)
            if found is not None and _stands_alone(content, *found.span()):
                digits = bytes(byte for byte in found[0] if byte in _WORD)
                yield from _finding(*found.span(), "UTF-16" if found[1] == b"\0" else "clear, in groups", digits)
            at = shapes.find(shape, at + 1 if found is None else found.end())
    for found in _base64_runs(content):
        for digits in _in_base64(content, found):
            yield from _finding(*found.span(), "base64", digits)


class CardSearch(Search):
    """A search that also reports what looks like a card number, known or not."""

    def file(self, path: Path, name: str) -> None:
        """Look through a file."""
        with path.open("rb") as file:
            self.pieces(iter(lambda: file.read(PIECE), b""), name)

    def pieces(self, pieces: Iterator[bytes], name: str) -> None:
        """Look through what comes in pieces."""
        tail = _BEGINNING
        for piece in pieces:
            tail = self._look(tail, piece, name)
        self._scan(tail, b"", name, is_last=True)

    async def stream(self, pieces: AsyncIterable[memoryview | bytes | bytearray], name: str) -> None:
        """Look through a stream."""
        tail, gathered = _BEGINNING, bytearray()
        async for piece in pieces:
            gathered += piece
            if len(gathered) >= PIECE:
                tail = self._look(tail, bytes(gathered), name)
                gathered.clear()
        tail = self._look(tail, bytes(gathered), name)
        self._scan(tail, b"", name, is_last=True)

    def _look(self, tail: bytes, piece: bytes, name: str) -> bytes:
        self._scan(tail, piece, name, is_last=False)
        kept = super()._look(tail, piece, name)
        return kept and (tail + piece)[-max(len(kept), _LONGEST) :]

    def _scan(self, tail: bytes, piece: bytes, name: str, *, is_last: bool) -> None:
        """What touches an edge may be cut there, and is seen whole in the window before or after."""
        is_padding = not piece.strip(b"\0")
        window = tail + (b"\n" if is_padding or is_last else piece)
        for found in find_numbers(window):
            if (found.at == 0 and tail) or (found.end == len(window) and not is_last):
                continue
            finding = f"card number {found.masked}, {found.form}, in {name}"
            if finding not in self.found:
                self.found.append(finding)


def memory_of(process: int) -> Iterator[bytes]:
    """What a process can write to of its memory, in pieces: what a core file would hold. Linux.

    Raises PermissionError when this process may not look (it has to be the same user's parent, or root).
    """
    maps = Path(f"/proc/{process}/maps").read_text()
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        for line in maps.splitlines():
            span, rights, *_, _inode = line.split(maxsplit=5)[:5]
            if not rights.startswith("rw"):
                continue
            at, end = (int(number, 16) for number in span.split("-"))
            while at < end:
                try:
                    memory.seek(at)
                    piece = memory.read(min(PIECE, end - at))
                except (OSError, ValueError, OverflowError):
                    break  # given back meanwhile, or a device's
                if not piece:
                    break
                yield piece
                at += len(piece)


def log_files_of(processes: Sequence[int]) -> Mapping[Path, str]:
    """The files that processes write their output to, each with a name."""
    found: dict[Path, str] = {}
    for process in processes:
        for descriptor in (1, 2):
            target = Path(f"/proc/{process}/fd/{descriptor}").resolve()
            if target.is_file():
                found[target] = f"log {target.name}"
    return found


def _runs(content: bytes, shapes: bytes) -> Iterator[Finding]:
    """Digits without anything between them: numbers, and numbers in hexadecimal, whose characters are digits again."""
    at = shapes.find(b"d" * _SHORTEST)
    while at >= 0:
        run = _RUN.match(content, at)
        end = at + _SHORTEST if run is None else run.end()
        if end - at <= _LONGEST_RUN and _stands_alone(content, at, end):
            yield from _finding(at, end, "clear", content[at:end])
        for found in _HEXADECIMAL.finditer(content, at, end):
            if 2 * _SHORTEST <= found.end() - found.start() <= 2 * _LONGEST_RUN:
                yield from _finding(at, end, "hexadecimal", bytes.fromhex(found[0].decode()))
        at = shapes.find(b"d" * _SHORTEST, end)


def _stands_alone(content: bytes, at: int, end: int) -> bool:
    return (at == 0 or content[at - 1] not in _JOINED) and (end >= len(content) or content[end] not in _WORD)


def _base64_runs(content: bytes) -> Iterator[re.Match[bytes]]:
    """What `_BASE64.finditer` finds, asked only about places where one group ends and another begins."""
    ends = content.translate(_GROUP_ENDS)
    at = ends.find(b"za", 3)
    while at >= 0:
        found = _BASE64.match(content, at - 3)
        if found is not None:
            yield found
        at = ends.find(b"za", at + 1 if found is None else found.end() + 3)


def _in_base64(content: bytes, groups: re.Match[bytes]) -> Iterator[bytes]:
    """The numbers in at least three groups of digits and the groups before and after, where one may begin or end."""
    start, end = groups.span()
    for first, last in ((max(start - 4, 0), end + 4), (start, end + 4), (max(start - 4, 0), end), (start, end)):
        part = content[first:last].translate(_STANDARD)
        # An incomplete group at the end tells one or two digits more, or nothing.
        part = part[:-1] if len(part) % 4 == 1 else part
        try:
            decoded = base64.b64decode(part + b"=" * (-len(part) % 4), validate=True)
        except ValueError:
            continue  # what is before or after is no base64
        yield from _DIGITS.findall(decoded)
        return


def _finding(at: int, end: int, form: str, digits: bytes) -> Iterator[Finding]:
    number = digits.decode("ascii")
    brand = find_brand(number)
    if brand is not None and is_card_number(number):
        yield Finding(at, end, form, mask(number, brand))
