"""Postal addresses of accounts and tenants."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A postal address; `country` is ISO 3166-1 alpha-2, what isn't known is empty."""

    street_address: str
    country: str
    extended_address: str = ""
    locality: str = ""
    region: str = ""
    post_code: str = ""
