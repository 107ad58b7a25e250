"""Reading orders and instructions: every rule of the wire contract, every failure listed, in field order.

This is the hottest code of the product, so it is written for speed. An order is read strictly first: msgspec decodes
into structs of typed fields (which also drops what the contract doesn't know), and each rule that is left is one
comparison. What doesn't pass that way is read again into structs of untyped fields, by rules that find every failure
and take all that the contract lets pass; they alone decide what is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from strongroom.api.reading import NUL, holds_nul
from strongroom.kernel.errors import Failure, Invalid
from strongroom.kernel.ids import parse_uuid
from strongroom.kernel.money import COUNTRIES, EXPONENTS, MAX_INTEGER_DIGITS
from strongroom.payments.contents import MAX_METADATA_KEYS, Defaults, NewInstruction, NewOrder
from strongroom.payments.instructions import Change
from strongroom.payments.orders import MAX_INSTRUCTIONS

MAX_REF: Final = 50
MAX_METADATA_KEY: Final = 40
MAX_METADATA_VALUE: Final = 500
MAX_DEFAULTS: Final = MAX_INSTRUCTIONS
"""Most customers for whom a new order brings defaults."""
MAX_REASON: Final = 500
MAX_FAILURES: Final = 10_000
"""About so many failures of a request are listed: more than all fields of the largest order have, so that a small
request doesn't get an enormous answer."""
_REF: Final = re.compile(r"[a-zA-Z0-9._-]{1,50}", re.ASCII)
_REF_CHARACTERS: Final = re.compile(r"[a-zA-Z0-9._-]*", re.ASCII)
_PLAIN_AMOUNT: Final = re.compile(rf"([0-9]{{1,{MAX_INTEGER_DIGITS}}})(?:\.([0-9]+))?", re.ASCII)
_SCHEME_ID: Final = re.compile(r"[0-9A-F]{32}", re.ASCII)
_AMOUNT: Final = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?", re.ASCII)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_NO_AMOUNT: Final = msgspec.Raw(b"null")
_NO_METADATA: Final[dict[str, str]] = {}
T = TypeVar("T")


class InstructionBody(msgspec.Struct, rename="camel", gc=False):
    """An instruction as sent; any type in any field, since each failure has its own code."""

    instruction_ref: Any = None
    customer_ref: Any = None
    direction: Any = None
    financial_instrument_id: Any = None
    amount: msgspec.Raw = _NO_AMOUNT
    currency: Any = None
    country: Any = None
    settled_by_date: Any = None
    scheme_id: Any = None
    metadata: Any = None


class OrderBody(msgspec.Struct, rename="camel", gc=False):
    """An order as sent."""

    order_ref: Any = None
    instructions: list[InstructionBody] | None = None
    metadata: Any = None
    customer_defaults: Any = None


PlainMetadata = Annotated[
    dict[
        Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_METADATA_KEY)],
        Annotated[str, msgspec.Meta(max_length=MAX_METADATA_VALUE)],
    ],
    msgspec.Meta(max_length=MAX_METADATA_KEYS),
]


class PlainInstruction(msgspec.Struct, rename="camel", gc=False):
    """An instruction as nearly all are sent."""

    instruction_ref: str
    customer_ref: str
    direction: Literal["DEBIT", "CREDIT"]
    amount: str
    currency: str
    country: str
    settled_by_date: str
    financial_instrument_id: str | None = None
    scheme_id: str | None = None
    metadata: PlainMetadata | None = None


class PlainOrder(msgspec.Struct, rename="camel", gc=False):
    """An order as nearly all are sent."""

    order_ref: str
    instructions: Annotated[list[PlainInstruction], msgspec.Meta(max_length=MAX_INSTRUCTIONS)] | None = None
    metadata: PlainMetadata | None = None
    customer_defaults: msgspec.Raw | None = None


class DefaultsBody(msgspec.Struct, rename="camel"):
    """Defaults of a customer as sent."""

    financial_instrument_id: Any = None
    scheme_id: Any = None
    metadata: Any = None


class MetadataBody(msgspec.Struct):
    """A metadata change as sent: the object itself, or the object below `metadata`."""

    metadata: Any = None


class ReasonBody(msgspec.Struct):
    """A cancellation as sent."""

    reason: Any = None


_plain_order = msgspec.json.Decoder(PlainOrder).decode
_order = msgspec.json.Decoder(OrderBody).decode
_instruction = msgspec.json.Decoder(InstructionBody).decode
_defaults = msgspec.json.Decoder(DefaultsBody).decode
_reason = msgspec.json.Decoder(ReasonBody).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


def read_order(body: bytes) -> NewOrder:
    """The order in a request body or a bulk line. Raises errors.Invalid with every failure."""
    return _read_plain_order(body) or _read_any_order(body)


def _read_plain_order(body: bytes) -> NewOrder | None:
    """The order, if it is as nearly all are; else None, which says nothing about whether it may pass."""
    if NUL in body:
        return None
    try:
        if not body.isascii():
            body.decode()  # the decoder doesn't look into what it doesn't keep
        sent = _plain_order(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if sent.customer_defaults is not None or not _REF.fullmatch(sent.order_ref):
        return None
    instructions: list[NewInstruction] = []
    if sent.instructions:
        for item in sent.instructions:
            new = _plain_instruction(item)
            if new is None:
                return None
            instructions.append(new)
        if len(instructions) > 1 and len({new.ref for new in instructions}) < len(instructions):
            return None
    return NewOrder(sent.order_ref, instructions, _NO_METADATA if sent.metadata is None else sent.metadata)


def _plain_instruction(sent: PlainInstruction) -> NewInstruction | None:
    exponent = EXPONENTS.get(sent.currency)
    amount = _PLAIN_AMOUNT.fullmatch(sent.amount)
    settled_by = _parse_date(sent.settled_by_date)
    scheme_id = sent.scheme_id
    if (
        exponent is None
        or amount is None
        or settled_by is None
        or sent.country not in COUNTRIES
        or not _REF.fullmatch(sent.instruction_ref)
        or not _REF.fullmatch(sent.customer_ref)
        or (scheme_id is not None and not _SCHEME_ID.fullmatch(scheme_id))
    ):
        return None
    whole, decimals = amount.groups("")
    minor = int(whole + decimals.ljust(exponent, "0")) if len(decimals) <= exponent else 0
    if minor == 0:
        return None
    return NewInstruction(
        sent.instruction_ref,
        sent.customer_ref,
        sent.direction,
        minor,
        sent.currency,
        sent.country,
        settled_by,
        scheme_id,
        None if sent.financial_instrument_id is None else _instrument_id(sent.financial_instrument_id),
        _NO_METADATA if sent.metadata is None else sent.metadata,
    )


def _read_any_order(body: bytes) -> NewOrder:
    sent = decode_body(_order, body)
    failures: list[Failure] = []
    ref = sent.order_ref
    if type(ref) is not str or not _REF.fullmatch(ref):
        _ref_failure(failures, "ORDER_REF", "orderRef", ref)
    instructions: list[NewInstruction] = []
    if sent.instructions:
        if len(sent.instructions) > MAX_INSTRUCTIONS:
            failures.append(
                Failure(
                    "INSTRUCTION_COUNT_OUT_OF_RANGE",
                    "An order is made with at most {maximum} instructions, not {count}. Send the rest through "
                    "/v1/order-management/bulk or one by one.",
                    {"maximum": MAX_INSTRUCTIONS, "count": len(sent.instructions)},
                )
            )
        else:
            many = len(sent.instructions) > 1
            refs: set[str] = set()
            for position, item in enumerate(sent.instructions):
                where = f"instructions[{position}]." if many else ""
                new = _new_instruction(item, failures, where)
                if new is None:
                    continue
                if new.ref in refs:
                    failures.append(
                        Failure(
                            "INSTRUCTION_ALREADY_EXISTS",
                            "The instructionRef {instructionRef} is there twice in this request.",
                            {"instructionRef": new.ref, **_where(where, "instructionRef")},
                        )
                    )
                refs.add(new.ref)
                instructions.append(new)
    metadata = _metadata(sent.metadata, failures, "") if sent.metadata is not None else _NO_METADATA
    defaults = _customer_defaults(sent.customer_defaults, failures) if sent.customer_defaults is not None else {}
    if failures:
        raise Invalid(*failures)
    return NewOrder(ref, instructions, metadata, defaults)


def read_instruction(body: bytes) -> NewInstruction:
    """The instruction in a request body. Raises errors.Invalid with every failure."""
    return check_instruction(decode_body(_instruction, body))


def check_instruction(sent: InstructionBody) -> NewInstruction:
    """An instruction as sent, checked. Raises errors.Invalid with every failure."""
    failures: list[Failure] = []
    new = _new_instruction(sent, failures, "")
    if new is None or failures:
        raise Invalid(*failures)
    return new


def read_change(body: bytes) -> Change:
    """The fields of an instruction that a PUT gives; what it leaves out stays. Raises errors.Invalid."""
    sent = decode_body(_instruction, body)
    failures: list[Failure] = []
    if sent.customer_ref is not None and not (type(sent.customer_ref) is str and _REF.fullmatch(sent.customer_ref)):
        _ref_failure(failures, "CUSTOMER_REF", "customerRef", sent.customer_ref)
    if sent.direction is not None and not (type(sent.direction) is str and sent.direction in _DIRECTIONS):
        _direction_failure(failures, sent.direction, "")
    amount = None
    raw = bytes(sent.amount)
    if raw != b"null":
        amount = _amount_text(raw, failures, "")
    if sent.currency is not None and not (type(sent.currency) is str and sent.currency in EXPONENTS):
        _currency_failure(failures, sent.currency, "")
    if sent.country is not None and not (type(sent.country) is str and sent.country in COUNTRIES):
        _country_failure(failures, sent.country, "")
    settled_by = None if sent.settled_by_date is None else _settled_by(sent.settled_by_date, failures, "")
    scheme_id = _scheme_id(sent.scheme_id, failures, "")
    metadata = None if sent.metadata is None else _metadata(sent.metadata, failures, "")
    if failures:
        raise Invalid(*failures)
    return Change(
        customer_ref=sent.customer_ref,
        direction=sent.direction,
        amount=amount,
        currency=sent.currency,
        country=sent.country,
        settled_by=settled_by,
        scheme_id=scheme_id,
        financial_instrument_id=_instrument_id(sent.financial_instrument_id),
        metadata=metadata,
    )


def read_defaults(body: bytes) -> Defaults:
    """A customer's defaults. Raises errors.Invalid."""
    failures: list[Failure] = []
    defaults = _check_defaults(decode_body(_defaults, body), failures, "")
    if failures:
        raise Invalid(*failures)
    return defaults


def read_metadata(body: bytes) -> dict[str, str]:
    """A metadata object, either bare or below `metadata`. Raises errors.Invalid."""
    sent = decode_body(_object, body)
    inner = sent.get("metadata")
    failures: list[Failure] = []
    metadata = _metadata(inner if isinstance(inner, dict) else sent, failures, "")
    if failures:
        raise Invalid(*failures)
    return metadata


def read_reason(body: bytes) -> str:
    """A cancellation's reason; none needs to be given. Raises errors.Invalid (`REASON_LENGTH_OUT_OF_RANGE`)."""
    if not body.strip():
        return ""
    reason = decode_body(_reason, body).reason
    if reason is None:
        return ""
    if type(reason) is not str or len(reason) > MAX_REASON:
        raise Invalid(
            Failure(
                "REASON_LENGTH_OUT_OF_RANGE",
                "reason is text of at most {maxLength} characters.",
                {"maxLength": MAX_REASON},
            )
        )
    return reason


def check_ref(value: object, code: str, field: str) -> Failure | None:
    """What is wrong with a reference in a path, if anything."""
    if type(value) is str and _REF.fullmatch(value):
        return None
    failures: list[Failure] = []
    _ref_failure(failures, code, field, value)
    return failures[0]


_DIRECTIONS: Final = frozenset({"DEBIT", "CREDIT"})


def _new_instruction(sent: InstructionBody, failures: list[Failure], where: str) -> NewInstruction | None:
    before = len(failures)
    ref = sent.instruction_ref
    if type(ref) is not str or not _REF.fullmatch(ref):
        _ref_failure(failures, "INSTRUCTION_REF", "instructionRef", ref, where)
    customer_ref = sent.customer_ref
    if type(customer_ref) is not str or not _REF.fullmatch(customer_ref):
        _ref_failure(failures, "CUSTOMER_REF", "customerRef", customer_ref, where)
    direction = sent.direction
    if type(direction) is not str or direction not in _DIRECTIONS:
        _direction_failure(failures, direction, where)
    currency = sent.currency
    exponent = EXPONENTS.get(currency) if type(currency) is str else None
    minor = _minor(bytes(sent.amount), exponent, failures, where)
    if exponent is None:
        _currency_failure(failures, currency, where)
    country = sent.country
    if type(country) is not str or country not in COUNTRIES:
        _country_failure(failures, country, where)
    settled_by = _settled_by(sent.settled_by_date, failures, where)
    scheme_id = None if sent.scheme_id is None else _scheme_id(sent.scheme_id, failures, where)
    metadata = _NO_METADATA if sent.metadata is None else _metadata(sent.metadata, failures, where)
    if len(failures) != before or settled_by is None:
        return None
    return NewInstruction(
        ref,
        customer_ref,
        direction,
        minor,
        currency,
        country,
        settled_by,
        scheme_id,
        None if sent.financial_instrument_id is None else _instrument_id(sent.financial_instrument_id),
        metadata,
    )


def _minor(raw: bytes, exponent: int | None, failures: list[Failure], where: str) -> int:
    """The amount in minor units; 0 and a failure when it isn't one."""
    text = _amount_text(raw, failures, where)
    if text is None:
        return 0
    match = _AMOUNT.fullmatch(text)
    assert match is not None  # noqa: S101  # _amount_text has matched it
    # Python refuses to read thousands of digits, leading zeros included.
    sign, whole, decimals = match.group(1), match.group(2).lstrip("0"), match.group(3) or ""
    most = 4 if exponent is None else exponent
    minor = (
        int(f"0{whole}{decimals.ljust(most, '0')}") if len(decimals) <= most and len(whole) <= MAX_INTEGER_DIGITS else 0
    )
    if minor == 0 or sign:
        failures.append(
            Failure(
                "AMOUNT_OUT_OF_RANGE",
                "amount must be greater than 0, with at most {maxDigits} digits before the point and {maxDecimals} "
                "decimals in this currency.",
                {"maxDigits": MAX_INTEGER_DIGITS, "maxDecimals": most, **_where(where, "amount")},
            )
        )
        return 0
    return minor


def _amount_text(raw: bytes, failures: list[Failure], where: str) -> str | None:
    """A plain decimal's digits, from a JSON string or number."""
    if raw[:1] == b'"':
        text = raw[1:-1].decode() if b"\\" not in raw else str(msgspec.json.decode(raw))
    else:
        text = "" if raw == b"null" else raw.decode()
    if not text:
        failures.append(Failure("AMOUNT_IS_REQUIRED", "amount is required.", _where(where, "amount")))
        return None
    if not _AMOUNT.fullmatch(text):
        failures.append(
            Failure(
                "AMOUNT_IS_INVALID",
                'amount must be a plain decimal number such as "200.00", without exponent, blanks or separators.',
                _where(where, "amount"),
            )
        )
        return None
    return text


def _settled_by(value: object, failures: list[Failure], where: str) -> date | None:
    if value is None or value == "":
        failures.append(
            Failure("SETTLED_BY_DATE_IS_REQUIRED", "settledByDate is required.", _where(where, "settledByDate"))
        )
        return None
    found = _parse_date(value) if type(value) is str else None
    if found is None:
        failures.append(
            Failure(
                "SETTLED_BY_DATE_IS_INVALID",
                "settledByDate must be a calendar date in the form YYYY-MM-DD.",
                _where(where, "settledByDate"),
            )
        )
    return found


@lru_cache(maxsize=4096)
def _parse_date(text: str) -> date | None:
    if not _DATE.fullmatch(text):
        return None
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    return found if found.year >= 1900 else None


def _scheme_id(value: object, failures: list[Failure], where: str) -> str | None:
    if value is None or value == "":
        return None
    if type(value) is str and _SCHEME_ID.fullmatch(value):
        return value
    failures.append(
        Failure(
            "SCHEME_ID_NOT_RECOGNISED",
            "schemeId must be the 32 upper-case hexadecimal digits of a scheme of this tenant.",
            _where(where, "schemeId"),
        )
    )
    return None


def _instrument_id(value: object) -> bytes | None:
    found = parse_uuid(value)
    return found.bytes if found is not None else None


def _metadata(value: object, failures: list[Failure], where: str) -> dict[str, str]:
    if type(value) is not dict:
        failures.append(
            Failure("METADATA_IS_INVALID", "metadata must be an object of texts.", _where(where, "metadata"))
        )
        return {}
    kept: dict[str, str] = {}
    for key, item in value.items():
        if len(failures) >= MAX_FAILURES:
            break
        if item is None:
            continue
        if not 1 <= len(key) <= MAX_METADATA_KEY:
            failures.append(
                Failure(
                    "METADATA_KEY_SIZE_OUT_OF_RANGE",
                    "A metadata key has 1 to {maxLength} characters.",
                    {"maxLength": MAX_METADATA_KEY, **_where(where, "metadata")},
                )
            )
        elif type(item) is not str:
            failures.append(Failure("METADATA_IS_INVALID", "Metadata values must be texts.", _where(where, "metadata")))
        elif len(item) > MAX_METADATA_VALUE:
            failures.append(
                Failure(
                    "METADATA_VALUE_SIZE_OUT_OF_RANGE",
                    "A metadata value has at most {maxLength} characters.",
                    {"maxLength": MAX_METADATA_VALUE, **_where(where, "metadata")},
                )
            )
        else:
            kept[key] = item
    if len(kept) > MAX_METADATA_KEYS:
        failures.append(
            Failure(
                "METADATA_COUNT_OUT_OF_RANGE",
                "metadata has at most {maximum} keys.",
                {"maximum": MAX_METADATA_KEYS, **_where(where, "metadata")},
            )
        )
    return kept


def _customer_defaults(value: object, failures: list[Failure]) -> dict[str, Defaults]:
    if type(value) is not dict:
        failures.append(
            Failure("CUSTOMER_DEFAULTS_INVALID", "customerDefaults must be an object of customerRef to defaults.")
        )
        return {}
    found: dict[str, Defaults] = {}
    if len(value) > MAX_DEFAULTS:
        failures.append(
            Failure(
                "CUSTOMER_DEFAULTS_COUNT_OUT_OF_RANGE",
                "An order is made with defaults for at most {maximum} customers, not {count}. Set the rest one by one.",
                {"maximum": MAX_DEFAULTS, "count": len(value)},
            )
        )
        return found
    for customer_ref, item in value.items():
        where = "customerDefaults."
        if not _REF.fullmatch(customer_ref):
            _ref_failure(failures, "CUSTOMER_REF", "customerRef", customer_ref, where)
            continue
        if item is None:
            continue
        try:
            sent = msgspec.convert(item, DefaultsBody)
        except msgspec.ValidationError:
            failures.append(
                Failure("CUSTOMER_DEFAULTS_INVALID", "customerDefaults must be an object of customerRef to defaults.")
            )
            continue
        found[customer_ref] = _check_defaults(sent, failures, where)
    return found


def _check_defaults(sent: DefaultsBody, failures: list[Failure], where: str) -> Defaults:
    return Defaults(
        _instrument_id(sent.financial_instrument_id),
        _scheme_id(sent.scheme_id, failures, where),
        {} if sent.metadata is None else _metadata(sent.metadata, failures, where),
    )


def _ref_failure(failures: list[Failure], code: str, field: str, value: object, where: str = "") -> None:
    if value is None or value == "":
        failures.append(Failure(f"{code}_IS_REQUIRED", f"{field} is required.", _where(where, field)))
        return
    if type(value) is str and len(value) > MAX_REF:
        failures.append(
            Failure(
                f"{code}_LENGTH_OUT_OF_RANGE",
                f"{field} has at most {{maxLength}} characters.",
                {"maxLength": MAX_REF, **_where(where, field)},
            )
        )
    if type(value) is not str or not _REF_CHARACTERS.fullmatch(value):
        failures.append(
            Failure(
                f"{code}_CONTAINS_INVALID_CHARACTERS",
                f"{field} is text of the characters a-z A-Z 0-9 - _ . only.",
                _where(where, field),
            )
        )


def _direction_failure(failures: list[Failure], value: object, where: str) -> None:
    if value is None or value == "":
        failures.append(Failure("DIRECTION_IS_REQUIRED", "direction is required.", _where(where, "direction")))
    else:
        failures.append(
            Failure(
                "DIRECTION_IS_NOT_RECOGNISED",
                "direction must be DEBIT (collect) or CREDIT (pay out), in upper case.",
                _where(where, "direction"),
            )
        )


def _currency_failure(failures: list[Failure], value: object, where: str) -> None:
    _code_failure(failures, "currency", value, length=3, what="an ISO 4217 currency code", where=where)


def _country_failure(failures: list[Failure], value: object, where: str) -> None:
    _code_failure(failures, "country", value, length=2, what="an ISO 3166-1 alpha-2 country code", where=where)


def _code_failure(failures: list[Failure], field: str, value: object, *, length: int, what: str, where: str) -> None:
    code = field.upper()
    if value is None or value == "":
        failures.append(Failure(f"{code}_IS_REQUIRED", f"{field} is required.", _where(where, field)))
    elif type(value) is str and len(value) != length:
        failures.append(
            Failure(
                f"{code}_LENGTH_OUT_OF_RANGE",
                f"{field} has exactly {{length}} characters.",
                {"length": length, **_where(where, field)},
            )
        )
    else:
        failures.append(
            Failure(f"{code}_NOT_SUPPORTED", f"{field} must be {what}, in upper case.", _where(where, field))
        )


def _where(where: str, field: str) -> Mapping[str, object]:
    return {"field": where + field}


def decode_body(decode: Callable[[bytes], T], body: bytes) -> T:
    """A body decoded. Raises errors.Invalid (`REQUEST_BODY_IS_REQUIRED`, `REQUEST_BODY_INVALID`)."""
    if not body.strip():
        raise Invalid(Failure("REQUEST_BODY_IS_REQUIRED", "Send a JSON object."))
    try:
        if not body.isascii():
            body.decode()  # the decoder doesn't look into what it doesn't keep
        decoded = decode(body)
        if NUL in body and holds_nul(msgspec.json.decode(body)):
            raise _unreadable("it holds a NUL character")
    except RecursionError:
        raise _unreadable("it is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(str(error)[:200]) from None
    return decoded


def _unreadable(what: str) -> Invalid:
    return Invalid(
        Failure("REQUEST_BODY_INVALID", "The body is not the JSON that is read here: {what}.", {"what": what})
    )
