"""Finding customers by mail address, IBAN or reference, exactly.

In a query string these values end up in the logs of whatever stands between, so POST with a body is to be preferred;
our own logs hold neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from strongroom.access import Permission
from strongroom.api.customer_vault import Link, SelfLink
from strongroom.api.order_bodies import check_ref
from strongroom.api.reading import Collector, Object, read_object
from strongroom.api.routing import Access, Call, Reply, Route, wire_name
from strongroom.database import Operation
from strongroom.kernel.clock import epoch_ms
from strongroom.kernel.errors import Failure
from strongroom.payments.customer_search import Found, SearchBy, search_customers

DEFAULT_TAKE: Final = 100
MAX_TAKE: Final = 1000
MAX_TERM: Final = 320
"""Characters in what is searched for: more than any mail address or IBAN has, in whatever spelling."""
_VAULT: Final = "/v1/customer-vault"
_CURSOR_DIGITS: Final = 32


class SearchRequest(msgspec.Struct, rename="camel"):
    """Exactly one of `email`, `iban` and `customerRef`; `cursor` and `take` page."""

    email: str | UnsetType = UNSET
    iban: str | UnsetType = UNSET
    customer_ref: str | UnsetType = UNSET
    cursor: str | UnsetType = UNSET
    take: int | UnsetType = UNSET


class FoundBody(msgspec.Struct, rename=wire_name):
    """A customer that was found. `email` is masked, and left out when there is none."""

    links: SelfLink
    customer_ref: str
    status: str
    created_timestamp: int
    email: str | UnsetType = UNSET


class FoundPageBody(msgspec.Struct, rename="camel"):
    """A page of customers; `cursor` is for the next one, null at the end."""

    customers: list[FoundBody]
    cursor: str | None


async def _get(op: Operation, call: Call) -> Reply:
    return await _search(op, call.query)


async def _post(op: Operation, call: Call) -> Reply:
    return await _search(op, read_object(call.body))


async def _search(op: Operation, source: Object) -> Reply:
    by, value, after, take = _read(source)
    found = await search_customers(op, by, value, after=after, take=take + 1)
    page = found[:take]
    following = page[-1].customer_id.hex() if len(found) > take else None
    return Reply(200, FoundPageBody([_body(customer) for customer in page], following))


def _read(source: Object) -> tuple[SearchBy, str, bytes, int]:
    found = Collector()
    terms = [by for by in SearchBy if source.get(by.value)] if _are_texts(source, found) else []
    by, value = SearchBy.REF, ""
    if len(terms) == 1:
        by = terms[0]
        value = source[by.value]
        if by is SearchBy.REF and (failure := check_ref(value, "CUSTOMER_REF", "customerRef")) is not None:
            found.failures.append(failure)
        elif len(value) > MAX_TERM:
            found.add(f"{by.value.upper()}_IS_INVALID", "{field} is too long to be one.", field=by.value)
    elif not found.failures:
        _one_of(found, "SEARCH_TERM_IS_REQUIRED" if not terms else "SEARCH_TERMS_TOO_MANY")
    after = _cursor(found, source.get("cursor"))
    take = _take(found, source.get("take"))
    found.check()
    return by, value, after, take


def _are_texts(source: Object, found: Collector) -> bool:
    for by in SearchBy:
        if not isinstance(source.get(by.value), str | None):
            code = (
                "CUSTOMER_REF_CONTAINS_INVALID_CHARACTERS" if by is SearchBy.REF else f"{by.value.upper()}_IS_INVALID"
            )
            found.add(code, "{field} must be a text.", field=by.value)
    return not found.failures


def _one_of(found: Collector, code: str) -> None:
    known = ", ".join(by.value for by in SearchBy)
    found.failures.append(Failure(code, "Search by exactly one of {known}.", {"known": known}))


def _cursor(found: Collector, given: object) -> bytes:
    if given is None or given == "":
        return bytes(16)
    if isinstance(given, str) and len(given) == _CURSOR_DIGITS:
        try:
            return bytes.fromhex(given)
        except ValueError:
            pass
    found.add("CURSOR_IS_INVALID", "cursor must be one that an earlier page gave.")
    return bytes(16)


def _take(found: Collector, given: object) -> int:
    text = DEFAULT_TAKE if given is None else given
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= len(str(MAX_TAKE)):
        text = int(text)
    if isinstance(text, int) and not isinstance(text, bool) and 1 <= text <= MAX_TAKE:
        return text
    found.add("TAKE_OUT_OF_RANGE", "take must be a whole number from 1 to {limit}.", limit=MAX_TAKE)
    return DEFAULT_TAKE


def _body(customer: Found) -> FoundBody:
    return FoundBody(
        links=SelfLink(Link(f"{_VAULT}/{customer.ref}")),
        customer_ref=customer.ref,
        status="ACTIVE",
        created_timestamp=epoch_ms(customer.created_at),
        email=customer.email_mask or UNSET,
    )


def _route(method: str, path: str, summary: str, **more: Any) -> Route:
    return Route(
        method=method,
        path=path,
        summary=summary,
        tag="Customer vault",
        access=Access.TENANT,
        permission=Permission.TRANSACTIONS_READ,
        replies={200: FoundPageBody},
        **more,
    )


ROUTES: Final[Sequence[Route]] = (
    _route(
        "POST", f"{_VAULT}/search", "Find customers by mail address, IBAN or reference", operation=_post,
        request=SearchRequest,
    ),
    _route(
        "GET", _VAULT, "Find customers (POST to …/search keeps the value out of the logs in between)", operation=_get,
        query={
            "email": "A mail address, percent-encoded (a plus sign as %2B).",
            "iban": "An IBAN, with or without blanks.",
            "customerRef": "A customer's reference. Give exactly one of the three.",
            "cursor": "Where the page begins, as the one before told.",
            "take": f"How many at most: 1 to {MAX_TAKE}; {DEFAULT_TAKE} unless given.",
        },
    ),
)  # fmt: skip
