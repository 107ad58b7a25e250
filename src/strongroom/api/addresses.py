"""Postal addresses on the wire."""

from __future__ import annotations

from typing import Final

import msgspec

from strongroom.api.reading import Collector, Object
from strongroom.tenancy import Address

MAX_LINE: Final = 100
"""Most characters of a line of an address."""
MAX_POST_CODE: Final = 16


class AddressBody(msgspec.Struct, rename="camel"):
    """A postal address; `country` is ISO 3166-1 alpha-2."""

    street_address: str
    extended_address: str | None
    locality: str | None
    region: str | None
    post_code: str | None
    country: str


class AddressRequest(msgspec.Struct, rename="camel"):
    """A postal address; `country` is ISO 3166-1 alpha-2."""

    street_address: str
    country: str
    extended_address: str | None = None
    locality: str | None = None
    region: str | None = None
    post_code: str | None = None


def read_address(collector: Collector, source: Object, field: str, code: str) -> Address | None:
    """The address in a field, or None when it is left out; its lines have codes of their own (`STREET_ADDRESS_…`)."""

    def read(lines: Object) -> Address:
        return Address(
            street_address=collector.text(lines, "streetAddress", "STREET_ADDRESS", max_length=MAX_LINE),
            extended_address=collector.text(
                lines, "extendedAddress", "EXTENDED_ADDRESS", max_length=MAX_LINE, required=False
            ),
            locality=collector.text(lines, "locality", "LOCALITY", max_length=MAX_LINE, required=False),
            region=collector.text(lines, "region", "ADDRESS_REGION", max_length=MAX_LINE, required=False),
            post_code=collector.text(lines, "postCode", "POST_CODE", max_length=MAX_POST_CODE, required=False),
            country=collector.country(lines),
        )

    return collector.object(source, field, code, read)


def address_body(address: Address | None) -> AddressBody | None:
    """The address as it is answered."""
    if address is None:
        return None
    return AddressBody(
        street_address=address.street_address,
        extended_address=address.extended_address or None,
        locality=address.locality or None,
        region=address.region or None,
        post_code=address.post_code or None,
        country=address.country,
    )
