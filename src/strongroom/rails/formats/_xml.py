"""Opening XML from outside: limits, no external anything, and errors that say what is wrong and where.

A file is read as it comes, never held as a tree: what repeats in it (entries, transactions) is handed over piece by
piece and forgotten. So what a file takes is what its reader makes of it, and not many times its size.

Error values hold paths, line numbers and limits, never content: statements and payment files are personal data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Final
from xml.parsers import expat

from strongroom.kernel.errors import Failure, Invalid, TooLarge
from strongroom.kernel.money import EXPONENTS, Money

MAX_DOCUMENT_BYTES: Final = 64 * 1024 * 1024
"""Largest file that is read."""
MAX_PIECES: Final = 150_000
"""Most pieces that a file is made of: a statement's entries and their transactions, a file's payments."""
MAX_KEPT: Final = 100_000
"""Most elements that are held at a time: those outside of pieces, and those of the piece at hand."""
MAX_DEPTH: Final = 60
"""Most elements inside one another; the messages that are read have about fifteen."""
MAX_TEXT: Final = 100_000
"""Longest text of an element, in characters. ISO 20022 has none longer than 25,000 in these messages."""
MAX_TAG_BYTES: Final = 1024 * 1024
"""Longest tag or comment."""

_NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:"
_FEED_BYTES: Final = 64 * 1024
_DECIMAL = re.compile(r"\+?([0-9]*)(?:\.([0-9]*))?", re.ASCII)
_MAX_DIGITS = 18
_DATE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:T.*|Z|[+-][0-9]{2}:[0-9]{2})?", re.ASCII)
_INSTANT = re.compile(r"[0-9-]{10}T[0-9:]{8}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})?", re.ASCII)


@lru_cache(maxsize=1024)
def _steps(path: str) -> Sequence[str]:
    return path.split("/")


class Element:
    """An element as far as it was read.

    `tag` is its name, without the message's own namespace; `text` is what stands before the first element inside;
    `line` counts from 1; `parent` is there until it ends. `pieces` are what was made of those inside that are handed
    over one by one: they are not among `children`.
    """

    __slots__ = ("attributes", "children", "line", "parent", "pieces", "size_before", "tag", "text")

    def __init__(self, tag: str, attributes: Mapping[str, str], parent: Element | None, line: int) -> None:
        self.tag = tag
        self.attributes = attributes
        self.parent = parent
        self.line = line
        self.text = ""
        self.children: list[Element] = []
        self.pieces: list[Any] = []
        self.size_before = 0

    def find(self, path: str) -> Element | None:
        """The first element at `path`, names parted by slashes."""
        return self._find(_steps(path), 0)

    def _find(self, steps: Sequence[str], at: int) -> Element | None:
        name = steps[at]
        for child in self.children:
            if child.tag == name:
                found = child if at + 1 == len(steps) else child._find(steps, at + 1)
                if found is not None:
                    return found
        return None

    def iterfind(self, path: str) -> Iterator[Element]:
        """The elements at `path`, in order."""
        name, _, rest = path.partition("/")
        for child in self.children:
            if child.tag == name:
                if rest:
                    yield from child.iterfind(rest)
                else:
                    yield child


Take = Callable[[Element], Any]
"""Makes of a piece what is kept of it. Elements around it are there as far as they were read before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A family of messages: its name in a namespace, the versions that are read, and the words of its errors."""

    message: str
    """Such as `camt.053.001`."""
    versions: range
    noun: str
    """What people call it, such as `statement`."""
    malformed_code: str
    version_code: str
    size_code: str

    def malformed(self, problem: str, element: Element | None = None) -> Invalid:
        """The error for content that breaks the standard."""
        if element is None:
            return Invalid(Failure(self.malformed_code, f"the {self.noun} can't be read: {problem}"))
        return Invalid(
            Failure(
                self.malformed_code,
                f"the {self.noun} can't be read: {{problem}} (in {{element}}, line {{line}})",
                {"problem": problem, "element": element.tag, "line": element.line},
            )
        )

    def too_large(self, what: str, limit: int) -> TooLarge:
        """The error for a file that would take more than is given to one."""
        return TooLarge(
            Failure(
                self.size_code,
                f"the {self.noun} has more than {{limit}} {{what}}, which is more than is read at once. Split it.",
                {"limit": limit, "what": what},
            )
        )


def read_document(document: bytes, kind: Kind, pieces: Mapping[str, Take]) -> Element:
    """Read `document` as one of `kind`, and return its `Document` element.

    Elements with a name in `pieces` are handed to its function when they are complete, wherever they stand; what that
    gives is kept in `pieces` of the element they stand in, in order, unless it is None, and they themselves are
    forgotten.

    Raises errors.TooLarge (the kind's `size_code`), and errors.Invalid: its `malformed_code` (not well-formed, not in
    UTF-8 or an 8-bit encoding, holds a document type), its `version_code` (another message, or another version), and
    what the functions raise.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise kind.too_large("bytes", MAX_DOCUMENT_BYTES)
    if b"\x00" in document:
        raise kind.malformed("it is not text in UTF-8 or an 8-bit encoding")
    return _Reader(kind, pieces).read(document)


class _Reader:
    """Reads one document. The parser is expat, which by itself opens nothing and knows no entities but XML's five."""

    def __init__(self, kind: Kind, pieces: Mapping[str, Take]) -> None:
        self._kind = kind
        self._take = pieces
        self._names: dict[str, str] = {}
        self._namespace = ""
        self._root: Element | None = None
        self._at: Element | None = None
        self._depth = 0
        self._kept = 0
        self._pieces = 0
        self._parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._doctype

    def read(self, document: bytes) -> Element:
        if b"<!DOCTYPE" in document:
            self._doctype()
        view = memoryview(document)
        try:
            for start in range(0, len(document) + 1, _FEED_BYTES):
                self._parser.Parse(view[start : start + _FEED_BYTES], start + _FEED_BYTES > len(document))
                if start - self._parser.CurrentByteIndex > MAX_TAG_BYTES:
                    raise self._kind.too_large("bytes in one tag or comment", MAX_TAG_BYTES)
        except expat.ExpatError:
            raise self._not_well_formed() from None
        except (LookupError, ValueError):
            if self._root is not None:
                raise
            raise self._not_well_formed() from None  # an encoding that there isn't, or that isn't of 8 bits
        assert self._root is not None  # noqa: S101  # expat refuses a document without elements
        return self._root

    def _not_well_formed(self) -> Invalid:
        return Invalid(
            Failure(
                self._kind.malformed_code,
                f"the {self._kind.noun} is not well-formed XML (line {{line}}, column {{column}}); was it cut off?",
                {"line": self._parser.ErrorLineNumber, "column": self._parser.ErrorColumnNumber + 1},
            )
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        parent = self._at
        if parent is None:
            self._namespace, _, _ = name.rpartition(" ")
            _identify(name, self._kind)
        tag = self._names.get(name)
        if tag is None:
            namespace, _, local = name.rpartition(" ")
            tag = local if namespace == self._namespace else name
            self._names[name] = tag
            if len(self._names) > MAX_KEPT:
                raise self._kind.too_large("different elements", MAX_KEPT)
        element = Element(tag, attributes, parent, self._parser.CurrentLineNumber)
        element.size_before = self._kept
        self._kept += 1 + len(attributes)
        if self._kept > MAX_KEPT:
            raise self._kind.too_large("elements outside of entries and transactions, or in one of them", MAX_KEPT)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._kind.malformed(f"its elements go deeper than {MAX_DEPTH} into one another")
        if parent is None:
            self._root = element
        elif tag not in self._take:
            parent.children.append(element)
        self._at = element

    def _end(self, _: str) -> None:
        element = self._at
        assert element is not None  # noqa: S101  # expat has them in pairs
        self._at = parent = element.parent
        self._depth -= 1
        take = self._take.get(element.tag)
        if take is not None and parent is not None:
            self._pieces += 1
            if self._pieces > MAX_PIECES:
                raise self._kind.too_large("entries and transactions", MAX_PIECES)
            made = take(element)
            if made is not None:
                parent.pieces.append(made)
            self._kept = element.size_before
        element.parent = None  # without a circle it is gone as soon as nobody needs it

    def _text(self, data: str) -> None:
        element = self._at
        if element is None or element.children or element.pieces or (not element.text and data.isspace()):
            return
        element.text += data
        if len(element.text) > MAX_TEXT:
            raise self._kind.too_large("characters in one text", MAX_TEXT)

    def _doctype(self, *_: object) -> None:
        raise self._kind.malformed("it holds a document type (DOCTYPE), which is never needed and not allowed")


def _identify(name: str, kind: Kind) -> None:
    """Refuse a root element (`namespace name`) that isn't this kind's."""
    namespace, _, local = name.rpartition(" ")
    found = re.fullmatch(re.escape(f"{_NAMESPACE}{kind.message}.") + r"([0-9]{2})", namespace, re.ASCII)
    if found and local == "Document" and int(found[1]) in kind.versions:
        return
    versions = kind.versions
    read = f"{kind.message}.{versions[0]:02}" + (
        f" to .{versions[-1]:02}" if versions.step == 1 else "".join(f" and .{v:02}" for v in versions[1:])
    )
    raise Invalid(
        Failure(
            kind.version_code,
            f"this is not a {kind.noun} in a version that is read: its namespace must be that of {{read}}",
            {"read": read},
        )
    )


def text(element: Element, *paths: str) -> str:
    """The text at the first of `paths` that has any, without white space at its ends; empty when there is none."""
    for path in paths:
        found = element.find(path)
        if found is not None and (stripped := found.text.strip()):
            return stripped
    return ""


class Reading:
    """Takes typed facts out of a document; every miss is an error of the document's own kind."""

    __slots__ = ("kind",)

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def element(self, parent: Element, path: str) -> Element:
        """The element at `path`, which must be there."""
        found = parent.find(path)
        if found is None:
            raise self.kind.malformed(f"{path} is missing", parent)
        return found

    def text(self, parent: Element, *paths: str, limit: int | None = None) -> str:
        """The text at the first of `paths`, which must be there, at most `limit` characters."""
        value = text(parent, *paths)
        if not value:
            raise self.kind.malformed(f"{' or '.join(paths)} is missing", parent)
        if limit is not None and len(value) > limit:
            raise self.kind.malformed(f"{paths[0]} has more than {limit} characters", parent)
        return value

    def optional(self, parent: Element, path: str, *, limit: int) -> str:
        """The text at `path`, at most `limit` characters; empty when it is not there."""
        return self.text(parent, path, limit=limit) if text(parent, path) else ""

    def one_of(self, parent: Element, values: dict[str, bool], *paths: str) -> bool:
        """What `values` has for the text at `paths`, which must be one of its keys."""
        value = self.text(parent, *paths)
        if value not in values:
            raise self.kind.malformed(f"{paths[0]} must be one of {', '.join(values)}", parent)
        return values[value]

    def flag(self, parent: Element, path: str) -> bool | None:
        """The boolean at `path` (XML Schema: true, false, 1, 0); None when it is not there."""
        if parent.find(path) is None:
            return None
        return self.one_of(parent, {"true": True, "1": True, "false": False, "0": False}, path)

    def count(self, parent: Element, path: str) -> int:
        """The whole number at `path`, which must be there, up to 18 digits."""
        value = self.text(parent, path, limit=_MAX_DIGITS)
        if not re.fullmatch(r"[0-9]+", value, re.ASCII):
            raise self.kind.malformed(f"{path} is not a whole number", parent)
        return int(value)

    def money(self, parent: Element, path: str) -> Money:
        """The amount at `path` with its `Ccy`; zero is allowed, more decimals than the currency has are not."""
        element = self.element(parent, path)
        currency = element.attributes.get("Ccy", "")
        if currency not in EXPONENTS:
            raise self.kind.malformed(f"{path} has no known currency", parent)
        if element.children:  # its text would only be what stands before them
            raise self.kind.malformed(f"{path} holds other elements", element)
        minor = self.minor_units(element, element.text, EXPONENTS[currency])
        return Money(minor, currency)

    def minor_units(self, element: Element, value: str, exponent: int) -> int:
        """A non-negative decimal of XML Schema, exactly, in units of 10^-exponent."""
        found = _DECIMAL.fullmatch(value.strip())
        whole, decimals = (found[1], (found[2] or "").rstrip("0")) if found else ("", "")
        if found is None or not any(found.groups()) or len(whole) + len(decimals) > _MAX_DIGITS:
            raise self.kind.malformed("an amount is not a plain decimal number of at most 18 digits", element)
        if len(decimals) > exponent:
            raise self.kind.malformed("an amount has more decimals than its currency", element)
        return int(f"{whole or '0'}{decimals.ljust(exponent, '0')}")

    def day(self, parent: Element, *paths: str) -> date:
        """The date at the first of `paths` that has one: an `ISODate`, or the date written in an `ISODateTime`."""
        found = _DATE.fullmatch(self.text(parent, *paths))
        try:
            return date.fromisoformat(found[1] if found else "")
        except ValueError:
            raise self.kind.malformed(f"{' or '.join(paths)} is not a date", parent) from None

    def instant(self, parent: Element, path: str) -> datetime:
        """The `ISODateTime` at `path`; one without an offset is taken as UTC."""
        written = self.text(parent, path)
        try:
            value = datetime.fromisoformat(written if _INSTANT.fullmatch(written) else "")
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        except (ValueError, OverflowError):
            raise self.kind.malformed(f"{path} is not a date and time", parent) from None
