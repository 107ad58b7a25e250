"""Opening XML from outside: limits, no external anything, and errors that say what is wrong and where.

Error values hold paths, line numbers and limits, never content: statements and payment files are personal data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from lxml import etree

from strongroom.kernel.errors import Failure, Invalid, TooLarge
from strongroom.kernel.money import EXPONENTS, Money

MAX_DOCUMENT_BYTES: Final = 64 * 1024 * 1024
"""Largest file that is read."""

_NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:"
_DECIMAL = re.compile(r"\+?([0-9]*)(?:\.([0-9]*))?", re.ASCII)
_MAX_DIGITS = 18
_DATE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:T.*|Z|[+-][0-9]{2}:[0-9]{2})?", re.ASCII)
_INSTANT = re.compile(r"[0-9-]{10}T[0-9:]{8}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})?", re.ASCII)


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

    def malformed(self, problem: str, element: etree._Element | None = None) -> Invalid:
        """The error for content that breaks the standard."""
        if element is None:
            return Invalid(Failure(self.malformed_code, f"the {self.noun} can't be read: {problem}"))
        return Invalid(
            Failure(
                self.malformed_code,
                f"the {self.noun} can't be read: {{problem}} (in {{element}}, line {{line}})",
                {"problem": problem, "element": element.tag, "line": element.sourceline or 0},
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """An opened message: `root` is its `Document` element with the message's namespace taken off every name."""

    kind: Kind
    version: int
    root: etree._Element


def open_document(document: bytes, *kinds: Kind) -> Document:
    """Parse `document` as one of `kinds`; errors use the words of the first.

    Raises errors.TooLarge (the kind's `size_code`), and errors.Invalid: its `malformed_code` (not well-formed, not in
    UTF-8 or an 8-bit encoding, holds a document type) or its `version_code` (another message, or another version).
    """
    first = kinds[0]
    if len(document) > MAX_DOCUMENT_BYTES:
        raise TooLarge(
            Failure(
                first.size_code,
                f"the {first.noun} has {{size}} bytes; at most {{limit}} are read. Split it.",
                {"size": len(document), "limit": MAX_DOCUMENT_BYTES},
            )
        )
    root = _parse(document, first)
    kind, version = _identify(root, kinds)
    prefix = f"{{{etree.QName(root).namespace}}}"
    for element in root.iter(f"{prefix}*"):
        element.tag = etree.QName(element).localname
    return Document(kind=kind, version=version, root=root)


def _parse(document: bytes, kind: Kind) -> etree._Element:
    if b"\x00" in document:
        raise kind.malformed("it is not text in UTF-8 or an 8-bit encoding")
    if b"<!DOCTYPE" in document:
        raise kind.malformed("it holds a document type (DOCTYPE), which is never needed and not allowed")
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(document, parser)
    except (etree.XMLSyntaxError, LookupError, ValueError) as error:
        line, column = error.position if isinstance(error, etree.XMLSyntaxError) else (0, 0)
        raise Invalid(
            Failure(
                kind.malformed_code,
                f"the {kind.noun} is not well-formed XML (line {{line}}, column {{column}}); was it cut off?",
                {"line": line, "column": column},
            )
        ) from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise kind.malformed("it holds a document type (DOCTYPE), which is never needed and not allowed")
    return root


def _identify(root: etree._Element, kinds: tuple[Kind, ...]) -> tuple[Kind, int]:
    name = etree.QName(root)
    namespace = name.namespace or ""
    for kind in kinds:
        found = re.fullmatch(re.escape(f"{_NAMESPACE}{kind.message}.") + r"([0-9]{2})", namespace, re.ASCII)
        if found and name.localname == "Document" and int(found[1]) in kind.versions:
            return kind, int(found[1])
    read = ", ".join(
        f"{kind.message}.{kind.versions[0]:02}"
        + (
            f" to .{kind.versions[-1]:02}"
            if kind.versions.step == 1
            else "".join(f" and .{v:02}" for v in kind.versions[1:])
        )
        for kind in kinds
    )
    raise Invalid(
        Failure(
            kinds[0].version_code,
            f"this is not a {kinds[0].noun} in a version that is read: its namespace must be that of {{read}}",
            {"read": read},
        )
    )


def text(element: etree._Element, *paths: str) -> str:
    """The text at the first of `paths` that has any, without white space at its ends; empty when there is none."""
    for path in paths:
        value = element.findtext(path)
        if value and (stripped := value.strip()):
            return stripped
    return ""


class Reading:
    """Takes typed facts out of a document; every miss is an error of the document's own kind."""

    __slots__ = ("kind",)

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def element(self, parent: etree._Element, path: str) -> etree._Element:
        """The element at `path`, which must be there."""
        found = parent.find(path)
        if found is None:
            raise self.kind.malformed(f"{path} is missing", parent)
        return found

    def text(self, parent: etree._Element, *paths: str, limit: int | None = None) -> str:
        """The text at the first of `paths`, which must be there, at most `limit` characters."""
        value = text(parent, *paths)
        if not value:
            raise self.kind.malformed(f"{' or '.join(paths)} is missing", parent)
        if limit is not None and len(value) > limit:
            raise self.kind.malformed(f"{paths[0]} has more than {limit} characters", parent)
        return value

    def optional(self, parent: etree._Element, path: str, *, limit: int) -> str:
        """The text at `path`, at most `limit` characters; empty when it is not there."""
        return self.text(parent, path, limit=limit) if text(parent, path) else ""

    def one_of(self, parent: etree._Element, values: dict[str, bool], *paths: str) -> bool:
        """What `values` has for the text at `paths`, which must be one of its keys."""
        value = self.text(parent, *paths)
        if value not in values:
            raise self.kind.malformed(f"{paths[0]} must be one of {', '.join(values)}", parent)
        return values[value]

    def flag(self, parent: etree._Element, path: str) -> bool | None:
        """The boolean at `path` (XML Schema: true, false, 1, 0); None when it is not there."""
        if parent.find(path) is None:
            return None
        return self.one_of(parent, {"true": True, "1": True, "false": False, "0": False}, path)

    def count(self, parent: etree._Element, path: str) -> int:
        """The whole number at `path`, which must be there, up to 18 digits."""
        value = self.text(parent, path, limit=_MAX_DIGITS)
        if not re.fullmatch(r"[0-9]+", value, re.ASCII):
            raise self.kind.malformed(f"{path} is not a whole number", parent)
        return int(value)

    def money(self, parent: etree._Element, path: str) -> Money:
        """The amount at `path` with its `Ccy`; zero is allowed, more decimals than the currency has are not."""
        element = self.element(parent, path)
        currency = element.get("Ccy", "")
        if currency not in EXPONENTS:
            raise self.kind.malformed(f"{path} has no known currency", parent)
        if len(element):  # its text would only be what stands before them
            raise self.kind.malformed(f"{path} holds other elements", element)
        minor = self.minor_units(element, element.text or "", EXPONENTS[currency])
        return Money(minor, currency)

    def minor_units(self, element: etree._Element, value: str, exponent: int) -> int:
        """A non-negative decimal of XML Schema, exactly, in units of 10^-exponent."""
        found = _DECIMAL.fullmatch(value.strip())
        whole, decimals = (found[1], (found[2] or "").rstrip("0")) if found else ("", "")
        if found is None or not any(found.groups()) or len(whole) + len(decimals) > _MAX_DIGITS:
            raise self.kind.malformed("an amount is not a plain decimal number of at most 18 digits", element)
        if len(decimals) > exponent:
            raise self.kind.malformed("an amount has more decimals than its currency", element)
        return int(f"{whole or '0'}{decimals.ljust(exponent, '0')}")

    def day(self, parent: etree._Element, *paths: str) -> date:
        """The date at the first of `paths` that has one: an `ISODate`, or the date written in an `ISODateTime`."""
        found = _DATE.fullmatch(self.text(parent, *paths))
        try:
            return date.fromisoformat(found[1] if found else "")
        except ValueError:
            raise self.kind.malformed(f"{' or '.join(paths)} is not a date", parent) from None

    def instant(self, parent: etree._Element, path: str) -> datetime:
        """The `ISODateTime` at `path`; one without an offset is taken as UTC."""
        written = self.text(parent, path)
        try:
            value = datetime.fromisoformat(written if _INSTANT.fullmatch(written) else "")
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        except (ValueError, OverflowError):
            raise self.kind.malformed(f"{path} is not a date and time", parent) from None
