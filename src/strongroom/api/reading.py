"""Reading request bodies: from bytes to plain values, and from plain values to what a route asks for.

The contract wants every failure of a request listed together, in field order, each with its own code. So a route reads
its fields one after another through a `Collector` and at the end asks it to `check`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec

from strongroom.kernel.errors import Failure, Invalid
from strongroom.kernel.ids import parse_uuid
from strongroom.kernel.money import COUNTRIES

Object = Mapping[str, Any]
T = TypeVar("T")
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
NUL: Final = b"\\u0000"
"""How a NUL character is written in JSON: no body that lacks these bytes holds one."""


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number with a fraction or an exponent, as it was written (integers are read as `int`)."""

    text: str


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body (RFC 8259), the last of duplicate keys winning.

    Raises errors.Invalid: `REQUEST_BODY_IS_REQUIRED` when there is none, `REQUEST_BODY_INVALID` when it is malformed,
    truncated, not UTF-8, nested too deeply, holds NUL or half of a surrogate pair, or isn't an object.
    """
    if not body:
        raise Invalid(Failure("REQUEST_BODY_IS_REQUIRED", "Send a JSON object as the request's body."))
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        # The decoder's words say where the mistake is, never what stands there.
        raise _invalid(f"it is not JSON that can be read ({error})") from None
    if type(value) is not dict:
        raise _invalid("it is not an object")
    if NUL in body and holds_nul(value):
        raise _invalid("it holds a NUL character")
    return value


class Collector:
    """Gathers what is wrong with a request, in the order in which its fields are read.

    `code` is the field's prefix in the codes: `NAME` makes `NAME_IS_REQUIRED`, `NAME_LENGTH_OUT_OF_RANGE`… A missing,
    null or empty value is `…_IS_REQUIRED` where one is required, and otherwise None or empty.
    """

    __slots__ = ("failures",)

    def __init__(self) -> None:
        self.failures: list[Failure] = []

    def add(self, code: str, template: str, /, **values: object) -> None:
        """One more failure."""
        self.failures.append(Failure(code, template, values))

    def check(self) -> None:
        """Go on only if nothing is wrong. Raises errors.Invalid with all that is."""
        if self.failures:
            raise Invalid(*self.failures)

    def text(
        self,
        source: Object,
        field: str,
        code: str,
        *,
        max_length: int,
        required: bool = True,
        pattern: re.Pattern[str] | None = None,
    ) -> str:
        """A text of at most `max_length` characters without control characters, wholly of `pattern`; or empty."""
        value = source.get(field)
        if value is None or value == "" or (isinstance(value, str) and value.isspace()):
            if required:
                self.required(field, code)
            return ""
        if not isinstance(value, str):
            self.add(f"{code}_IS_INVALID", "{field} must be a text.", field=field)
            return ""
        if len(value) > max_length:
            self.add(
                f"{code}_LENGTH_OUT_OF_RANGE",
                "{field} has at most {maxLength} characters.",
                field=field,
                maxLength=max_length,
            )
        elif _CONTROLS.search(value) or (pattern is not None and not pattern.fullmatch(value)):
            self.add(
                f"{code}_CONTAINS_INVALID_CHARACTERS", "{field} contains characters that it can't have.", field=field
            )
        else:
            return value
        return ""

    def flag(self, source: Object, field: str, code: str) -> bool | None:
        """A boolean, or None when it is left out."""
        value = source.get(field)
        if value is None or isinstance(value, bool):
            return value
        self.add(f"{code}_IS_INVALID", "{field} must be true or false.", field=field)
        return None

    def uuid(self, source: Object, field: str, code: str, *, required: bool = True) -> UUID | None:
        """A UUID, or None."""
        value = source.get(field)
        if value is None or value == "":
            if required:
                self.required(field, code)
            return None
        found = parse_uuid(value)
        if found is None:
            self.add(f"{code}_IS_INVALID", "{field} must be a UUID.", field=field)
        return found

    def choice(self, source: Object, field: str, code: str, choices: Collection[str], *, required: bool = True) -> str:
        """One of several words (case-sensitive), or empty. What isn't one is `…_NOT_RECOGNISED`."""
        value = source.get(field)
        if value is None or value == "":
            if required:
                self.required(field, code)
        elif isinstance(value, str) and value in choices:
            return value
        else:
            known = ", ".join(sorted(choices))
            self.add(f"{code}_NOT_RECOGNISED", "{field} must be one of {known}.", field=field, known=known)
        return ""

    def choices(self, source: Object, field: str, code: str, choices: Collection[str]) -> tuple[str, ...]:
        """At least one of several words, each once, in the order given."""
        value = source.get(field)
        if value is None or value == []:
            self.required(field, code)
        elif not isinstance(value, list):
            self.add(f"{code}_IS_INVALID", "{field} must be a list.", field=field)
        elif all(isinstance(item, str) and item in choices for item in value):
            return tuple(dict.fromkeys(value))
        else:
            known = ", ".join(sorted(choices))
            self.add(f"{code}_NOT_RECOGNISED", "{field} must be of {known}.", field=field, known=known)
        return ()

    def country(self, source: Object, field: str = "country", code: str = "COUNTRY", *, required: bool = True) -> str:
        """An ISO 3166-1 alpha-2 code, or empty."""
        value = source.get(field)
        if value is None or value == "":
            if required:
                self.required(field, code)
        elif not isinstance(value, str) or len(value) != 2:
            self.add(f"{code}_LENGTH_OUT_OF_RANGE", "{field} has {length} letters.", field=field, length=2)
        elif value not in COUNTRIES:
            self.add(f"{code}_NOT_SUPPORTED", "{field} must be a country's ISO 3166-1 code, such as DE.", field=field)
        else:
            return value
        return ""

    def instant(self, source: Object, field: str, code: str) -> datetime | None:
        """An instant (RFC 3339 section 5.6: with its offset), or None when it is left out."""
        value = source.get(field)
        if value is None:
            return None
        try:
            if _INSTANT.fullmatch(value):
                return datetime.fromisoformat(value).astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            pass  # no text, no such day, or one before the first
        self.add(f"{code}_IS_INVALID", "{field} must be an instant such as 2030-01-31T12:00:00Z.", field=field)
        return None

    def object(self, source: Object, field: str, code: str, read: Callable[[Object], T]) -> T | None:
        """An object, read by `read`; or None when it is left out."""
        value = source.get(field)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.add(f"{code}_IS_INVALID", "{field} must be an object.", field=field)
            return None
        return read(value)

    def required(self, field: str, code: str) -> None:
        """The field is missing, null or empty."""
        self.add(f"{code}_IS_REQUIRED", "{field} is required.", field=field)


def holds_nul(value: object) -> bool:
    """Whether a NUL character is anywhere in a JSON value: databases and files of banks can't take it."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(holds_nul(item) for item in value)


def _invalid(reason: str) -> Invalid:
    return Invalid(
        Failure("REQUEST_BODY_INVALID", "The request's body can't be used: {reason}.", {"reason": reason[:200]})
    )


_decode: Final = msgspec.json.Decoder(float_hook=Number).decode
