"""The tables with envelopes: how their rows are found, and what binds an envelope to its row.

Derived from the column catalogue where it can be; what opens and seals everything anew (`strongroom.vault`) goes by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from strongroom.database.catalogue import CATALOGUE, DataClass

Value = UUID | bytes | int | str
"""What a column of a primary key holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedTable:
    """A table with envelopes: whose they are, in which order its rows are walked, what binds each to its row."""

    owner: tuple[str, ...]
    """Columns of which the first that isn't null is the scope whose keys seal the row."""
    key: tuple[str, ...]
    """The rest of the primary key."""
    row: tuple[str, ...]
    """Those columns of the key that make the row's bytes (see `row_bytes`)."""
    columns: tuple[str, ...]
    """The columns that hold envelopes."""


def _sealed(table: str, owner: str, key: str, row: str = "") -> SealedTable:
    classes = {DataClass.SEALED, DataClass.SENSITIVE}
    return SealedTable(
        owner=tuple(owner.split()),
        key=tuple(key.split()),
        row=tuple((row or key).split()),
        columns=tuple(name for name, column in CATALOGUE["region"][table].items() if column.data_class in classes),
    )


SEALED_TABLES: Final[Mapping[str, SealedTable]] = {
    "accounts": _sealed("accounts", "account_id", "account_id"),
    "tenants": _sealed("tenants", "tenant_id", "tenant_id"),
    "api_keys": _sealed("api_keys", "tenant_id account_id", "public_key"),
    "ip_lists": _sealed("ip_lists", "scope_id", "scope_id"),
    "day_totals": _sealed("day_totals", "tenant_id", "total_id"),
    "idempotency_keys": _sealed("idempotency_keys", "scope_id", "key_hash"),
    "installed_apps": _sealed("installed_apps", "tenant_id", "app_id"),
    "customers": _sealed("customers", "tenant_id", "customer_id"),
    "financial_instruments": _sealed("financial_instruments", "tenant_id", "financial_instrument_id"),
    "orders": _sealed("orders", "tenant_id", "order_id"),
    "order_customer_defaults": _sealed("order_customer_defaults", "tenant_id", "order_id customer_id"),
    "instructions": _sealed("instructions", "tenant_id", "order_id instruction_id", "instruction_id"),
    "payment_files": _sealed("payment_files", "tenant_id", "file_id"),
    "transactions": _sealed("transactions", "tenant_id", "transaction_id"),
    "bulk_jobs": _sealed("bulk_jobs", "tenant_id", "job_id"),
    "bulk_results": _sealed("bulk_results", "tenant_id", "job_id first_line"),
    "openings": _sealed("openings", "tenant_id", "opening_id"),
    "statements": _sealed("statements", "tenant_id", "statement_id"),
    "statement_entries": _sealed("statement_entries", "tenant_id", "statement_id entry_no"),
    "invitations": _sealed("invitations", "account_id", "invitation_id"),
    "persons": _sealed("persons", "account_id", "person_id"),
    "credentials": _sealed("credentials", "account_id", "credential_id"),
    "devices": _sealed("devices", "account_id", "device_id"),
    "sessions": _sealed("sessions", "account_id", "session_id"),
    "mails": _sealed("mails", "account_id", "mail_id"),
    "single_sign_ons": _sealed("single_sign_ons", "account_id", "account_id"),
    "email_domains": _sealed("email_domains", "account_id", "domain_id"),
    "sign_in_requests": _sealed("sign_in_requests", "account_id", "request_id"),
}
"""Every table with envelopes."""


def row_bytes(table: str, values: Sequence[Value], index: Callable[[str, str, str], bytes]) -> bytes:
    """What binds a row's envelopes to it, from the values of the columns `SEALED_TABLES[table].row`, in order.

    A UUID counts as its 16 bytes, a number as 8 bytes (big-endian), bytes as they are, a text as its keyed hash:
    `index` is the scope's (see `kernel.cipher.Cipher.index`).
    """
    parts = []
    for name, value in zip(SEALED_TABLES[table].row, values, strict=True):
        match value:
            case UUID():
                parts.append(value.bytes)
            case int():
                parts.append(value.to_bytes(8, "big"))
            case str():
                parts.append(index(table, name, value))
            case bytes():
                parts.append(value)
    return b"".join(parts)
