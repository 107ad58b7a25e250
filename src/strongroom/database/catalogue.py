"""The column catalogue: every column of every table, its class, its purposes and how long it is kept.

A guard compares it with the databases as migrated, so that no column exists unclassified; the search for clear text
(promise ENC-2) and the data map are generated from it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class DataClass(enum.StrEnum):
    """What a column may hold."""

    IDENTIFIER = "identifier"
    """Ids and keyed hashes that tell nothing without a key."""
    ROUTING = "routing"
    """What the engine needs in clear to work: states, direction, currency, country, days, regions."""
    INSTANT = "instant"
    CONFIGURATION = "configuration"
    """Set up by the tenant, describing neither a payment nor a person."""
    SEALED = "sealed"
    """Envelopes (AES-256-GCM); what is inside describes a transaction or a person."""
    RECORD = "record"
    """Audit and evidence: codes, never values."""
    COUNTER = "counter"


class Purpose(enum.StrEnum):
    """Why a column exists."""

    TENANCY = "tenancy"
    EXECUTION = "execution"
    RECONCILIATION = "reconciliation"
    AUTHENTICATION = "authentication"
    ACCOUNTABILITY = "accountability"
    SETUP = "setup"


class Retention(enum.StrEnum):
    """How long."""

    CONTRACT = "while the account or tenant lives"
    LEDGER = "10 years after the end of the business relationship (tax and anti-money-laundering law)"
    RECORD = "10 years"
    MINUTES = "minutes: until the clock window has passed"
    DAY = "24 hours"
    DAYS_90 = "90 days"


@dataclass(frozen=True, slots=True)
class Column:
    """One column's entry."""

    data_class: DataClass
    purpose: Purpose
    retention: Retention


def _table(purpose: Purpose, retention: Retention, **classes: str) -> dict[str, Column]:
    return {
        column: Column(DataClass(data_class), purpose, retention)
        for data_class, columns in classes.items()
        for column in columns.split()
    }


_MIGRATIONS = _table(Purpose.SETUP, Retention.CONTRACT, configuration="name checksum", instant="applied_at")

CATALOGUE: Final[dict[str, dict[str, dict[str, Column]]]] = {
    "directory": {
        "schema_migrations": _MIGRATIONS,
        "accounts": _table(Purpose.TENANCY, Retention.CONTRACT, identifier="account_id", routing="region"),
        "tenants": _table(Purpose.TENANCY, Retention.CONTRACT, identifier="tenant_id account_id", routing="region"),
        "api_keys": _table(
            Purpose.AUTHENTICATION,
            Retention.CONTRACT,
            identifier="public_key account_id tenant_id",
            routing="environment region",
        ),
        "evidence": _table(
            Purpose.ACCOUNTABILITY, Retention.RECORD, record="control_id verdict figure", instant="checked_at"
        ),
    },
    "region": {
        "schema_migrations": _MIGRATIONS,
        "accounts": _table(
            Purpose.TENANCY,
            Retention.CONTRACT,
            identifier="account_id",
            sealed="sealed",
            instant="created_at updated_at",
        ),
        "tenants": _table(
            Purpose.TENANCY,
            Retention.CONTRACT,
            identifier="tenant_id account_id",
            routing="status",
            sealed="sealed",
            instant="created_at updated_at",
        ),
        "data_keys": _table(
            Purpose.TENANCY,
            Retention.CONTRACT,
            identifier="scope_id",
            routing="purpose version",
            sealed="wrapped",
            instant="created_at",
        ),
        "api_keys": _table(
            Purpose.AUTHENTICATION,
            Retention.CONTRACT,
            identifier="public_key account_id tenant_id",
            routing="environment roles",
            sealed="sealed",
            instant="created_at deleted_at",
        ),
        "nonces": _table(
            Purpose.AUTHENTICATION, Retention.MINUTES, identifier="public_key nonce_hash", instant="expires_at"
        ),
        "audit_entries": _table(
            Purpose.ACCOUNTABILITY,
            Retention.RECORD,
            identifier="entry_id account_id tenant_id actor_id subject_id correlation_id",
            record="actor_kind action outcome subject_kind detail",
            instant="at",
        ),
        "idempotency_keys": _table(
            Purpose.EXECUTION,
            Retention.DAY,
            identifier="scope_id key_hash request_hash",
            routing="status",
            sealed="sealed",
            instant="created_at",
        ),
        "installed_apps": _table(
            Purpose.SETUP,
            Retention.CONTRACT,
            identifier="tenant_id",
            configuration="app_id",
            sealed="sealed",
            instant="installed_at updated_at",
        ),
        "schemes": _table(
            Purpose.SETUP,
            Retention.CONTRACT,
            identifier="tenant_id scheme_id published_draft_id",
            configuration="kind",
            instant="created_at",
        ),
        "scheme_drafts": _table(
            Purpose.SETUP,
            Retention.CONTRACT,
            identifier="tenant_id draft_id scheme_id",
            configuration="name code agreement_type rules",
            instant="last_modified",
        ),
        "customers": _table(
            Purpose.EXECUTION,
            Retention.LEDGER,
            identifier="tenant_id customer_id",
            routing="status",
            sealed="sealed",
            instant="created_at updated_at",
        ),
        "financial_instruments": _table(
            Purpose.EXECUTION,
            Retention.LEDGER,
            identifier="tenant_id financial_instrument_id customer_id fingerprint",
            routing="type status country",
            sealed="sealed",
            instant="created_at",
        ),
        "orders": _table(
            Purpose.EXECUTION,
            Retention.LEDGER,
            identifier="tenant_id order_id",
            sealed="sealed",
            instant="created_at updated_at",
        ),
        "order_customer_defaults": _table(
            Purpose.EXECUTION,
            Retention.LEDGER,
            identifier="tenant_id order_id customer_id financial_instrument_id scheme_id",
            sealed="sealed",
            instant="updated_at",
        ),
        "instructions": _table(
            Purpose.EXECUTION,
            Retention.LEDGER,
            identifier="tenant_id order_id instruction_id customer_id scheme_id financial_instrument_id",
            routing="direction currency country status settled_by scheme_source financial_instrument_source",
            sealed="sealed",
            instant="created_at updated_at",
        ),
        "instruction_events": _table(
            Purpose.EXECUTION,
            Retention.LEDGER,
            identifier="tenant_id order_id instruction_id event_id transaction_id",
            routing="status",
            record="reason",
            instant="at",
        ),
        "payment_files": _table(
            Purpose.EXECUTION,
            Retention.LEDGER,
            identifier="tenant_id file_id",
            configuration="app_id",
            routing="status",
            sealed="sealed",
            instant="created_at updated_at",
        ),
        "transactions": _table(
            Purpose.EXECUTION,
            Retention.LEDGER,
            identifier="tenant_id transaction_id order_id instruction_id file_id",
            configuration="app_id",
            routing="status",
            sealed="sealed",
            instant="claimed_until created_at updated_at",
        ),
        "due_work": _table(Purpose.EXECUTION, Retention.DAYS_90, identifier="tenant_id", routing="due_on"),
        "bulk_jobs": _table(
            Purpose.EXECUTION,
            Retention.DAYS_90,
            identifier="tenant_id job_id key_hash",
            routing="status",
            sealed="sealed",
            counter="lines_done accepted refused",
            instant="created_at updated_at",
        ),
        "bulk_results": _table(
            Purpose.EXECUTION,
            Retention.DAYS_90,
            identifier="tenant_id job_id",
            counter="first_line last_line",
            sealed="sealed",
        ),
        "statements": _table(
            Purpose.RECONCILIATION,
            Retention.LEDGER,
            identifier="tenant_id statement_id content_hash identity_hash",
            routing="kind",
            sealed="sealed",
            instant="imported_at",
        ),
        "statement_entries": _table(
            Purpose.RECONCILIATION,
            Retention.LEDGER,
            identifier="tenant_id statement_id transaction_id",
            counter="entry_no",
            routing="state role booked_on",
            sealed="sealed",
        ),
    },
    "cards": {
        "schema_migrations": _MIGRATIONS,
        "card_keys": _table(
            Purpose.TENANCY,
            Retention.CONTRACT,
            identifier="tenant_id",
            routing="purpose version",
            sealed="wrapped",
            instant="created_at",
        ),
        "card_sessions": _table(
            Purpose.AUTHENTICATION,
            Retention.MINUTES,
            identifier="session_hash tenant_id customer",
            counter="attempts",
            instant="used_at expires_at",
        ),
        "cards": _table(
            Purpose.EXECUTION,
            Retention.CONTRACT,
            identifier="tenant_id token customer fingerprint transfer_id",
            routing="status brand",
            sealed="number_sealed shown_sealed",
            instant="created_at",
        ),
        "forwards": _table(
            Purpose.EXECUTION,
            Retention.DAYS_90,
            identifier="tenant_id forward_id token request_hash",
            configuration="destination",
            routing="state code status",
            sealed="answer_sealed",
            instant="claimed_until created_at updated_at",
        ),
        "transfers": _table(
            Purpose.ACCOUNTABILITY,
            Retention.RECORD,
            identifier="tenant_id transfer_id requested_by approved_by expected_chain chain last_token",
            configuration="receiver_key",
            routing="kind state",
            record="failure",
            counter="expected_count parts cards",
            instant="approved_at created_at updated_at",
        ),
        "transfer_parts": _table(
            Purpose.EXECUTION,
            Retention.DAYS_90,
            identifier="tenant_id transfer_id digest",
            counter="part_no",
            sealed="content_sealed",
        ),
        "card_events": _table(
            Purpose.ACCOUNTABILITY,
            Retention.RECORD,
            identifier="event_id tenant_id actor token correlation_id",
            record="action outcome detail",
            instant="at",
        ),
    },
}
"""Database → table → column → entry; `region` stands for every region's database."""
