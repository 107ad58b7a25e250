"""Templates: a request's body with places for a card's parts, filled at the last moment.

The language is this and nothing more: inside the string values of a JSON document (RFC 8259), or inside the values of a
form (application/x-www-form-urlencoded), `{{number}}`, `{{expiry_month}}`, `{{expiry_year}}`, `{{holder}}` and
`{{cvv}}` are replaced, and what is put in is encoded for the place. Names of fields, numbers, headers and addresses are
no places. Anything else between double braces is refused, so that a mistyped placeholder never reaches a provider.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from strongroom.kernel.errors import Failure, Invalid

PLACEHOLDERS: Final = frozenset({"number", "expiry_month", "expiry_year", "holder", "cvv"})
JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
MAX_FIELDS: Final = 1_000
_PLACE: Final = re.compile(r"(?<!\{)\{\{([^{}]*)\}\}(?!\})")
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode
_decode: Final = msgspec.json.Decoder(float_hook=Decimal).decode


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template."""

    media: str
    content: Any
    """A JSON value, or a list of pairs."""
    places: frozenset[str]
    """The placeholders that are used."""

    def fill(self, values: Mapping[str, str]) -> bytes:
        """The body, with `values` in all of its places."""

        def put(text: str) -> str:
            return _PLACE.sub(lambda place: values[place[1]], text)

        if self.media == FORM:
            return urlencode([(name, put(value)) for name, value in self.content]).encode()
        return _encode(_map_strings(self.content, put))


def parse(content_type: str, body: str) -> Template:
    """Read a template.

    Raises errors.Invalid: `TEMPLATE_TYPE_NOT_SUPPORTED`, `TEMPLATE_INVALID` (not JSON, not a form, a brace too many),
    `TEMPLATE_PLACEHOLDER_NOT_RECOGNISED`, `TEMPLATE_PLACEHOLDER_MISPLACED` (in a field's name),
    `TEMPLATE_WITHOUT_PLACEHOLDER`.
    """
    media = content_type.partition(";")[0].strip().lower()
    places: set[str] = set()

    def look(text: str) -> str:
        places.update(_places_in(text))
        return text

    if media == JSON:
        try:
            content = _decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise _invalid("it is not JSON that can be read") from None
        _map_strings(content, look)
    elif media == FORM:
        try:
            content = parse_qsl(body, keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_FIELDS)
        except ValueError:
            raise _invalid("it is not a form that can be read") from None
        for name, value in content:
            _check_name(name)
            look(value)
    else:
        raise Invalid(
            Failure(
                "TEMPLATE_TYPE_NOT_SUPPORTED",
                "Only {json} and {form} can be filled.",
                {"json": JSON, "form": FORM},
            )
        )
    if not places:
        raise Invalid(
            Failure(
                "TEMPLATE_WITHOUT_PLACEHOLDER",
                "The template has no place for a card's parts. What needs no card goes to the provider directly.",
            )
        )
    return Template(media, content, frozenset(places))


def _places_in(text: str) -> set[str]:
    found = set(_PLACE.findall(text))
    unknown = found - PLACEHOLDERS
    if unknown:
        raise Invalid(
            Failure(
                "TEMPLATE_PLACEHOLDER_NOT_RECOGNISED",
                "The template has a placeholder that isn't one of {known}.",
                {"known": ", ".join(sorted(PLACEHOLDERS))},
            )
        )
    rest = _PLACE.sub("", text)
    if "{{" in rest or "}}" in rest:
        raise _invalid("double braces stand for a placeholder, and one of them is not whole")
    return found


def _check_name(name: str) -> None:
    if "{{" in name or "}}" in name:
        raise Invalid(
            Failure("TEMPLATE_PLACEHOLDER_MISPLACED", "Placeholders stand in values, not in the names of fields.")
        )


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with its string values changed; its fields' names are checked."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_strings(item, change) for item in value]
    if isinstance(value, dict):
        for name in value:
            _check_name(name)
        return {name: _map_strings(item, change) for name, item in value.items()}
    return value


def _invalid(reason: str) -> Invalid:
    return Invalid(Failure("TEMPLATE_INVALID", "The template can't be used: {reason}.", {"reason": reason}))
