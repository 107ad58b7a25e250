"""The column catalogue: every column of every table, its class, its purposes and how long it is kept.

A guard compares it with the databases as migrated, so that no column exists unclassified; the search for clear text
(promise ENC-2) and the data map are generated from it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
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
    SENSITIVE = "sensitive"
    """Envelopes within envelopes: what tells a person or an account, sealed under the customer's own key first."""
    BLIND = "blind"
    """Blind indexes: keyed hashes of something sensitive, for finding it again (see `BLIND_INDEXES`)."""
    WRAPPED = "wrapped"
    """Keys, encrypted under other keys."""
    RECORD = "record"
    """Audit and evidence: codes, never values."""
    COUNTER = "counter"


class Purpose(enum.StrEnum):
    """Why a column exists, or why something sensitive is opened (see `OPENED_FOR`)."""

    TENANCY = "tenancy"
    EXECUTION = "execution"
    RECONCILIATION = "reconciliation"
    AUTHENTICATION = "authentication"
    ACCOUNTABILITY = "accountability"
    SETUP = "setup"
    NOTICES = "notices"
    """To tell people what they have to know."""
    NOTES = "own-notes"
    """For the tenant's own notes, which a read of the customer shows and a change of something else keeps."""
    INDEXING = "indexing"
    """To keep blind indexes and what is opened in agreement."""
    CUSTOMER_CONTACT = "customer-contact"
    CUSTOMER_SERVICE = "customer-service"
    FRAUD_PREVENTION = "fraud-prevention"
    LEGAL_OBLIGATION = "legal-obligation"
    SUBJECT_REQUEST = "data-subject-request"


class Retention(enum.StrEnum):
    """How long."""

    CONTRACT = "while the account or tenant lives"
    LEDGER = "10 years after the end of the business relationship (tax and anti-money-laundering law)"
    RECORD = "10 years"
    MINUTES = "minutes: until the clock window has passed"
    DAY = "24 hours"
    DAYS = "days: until it is on its way, or given up"
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
            identifier="public_key account_id tenant_id made_by",
            routing="environment region",
        ),
        "custom_roles": _table(
            Purpose.SETUP,
            Retention.RECORD,
            identifier="account_id",
            configuration="role version definition",
            instant="made_at",
        ),
        "role_conflicts": _table(
            Purpose.SETUP,
            Retention.CONTRACT,
            identifier="account_id",
            configuration="pairs",
            instant="updated_at",
        ),
        "account_networks": _table(
            Purpose.AUTHENTICATION, Retention.CONTRACT, identifier="account_id", configuration="api portal"
        ),
        "revoked_tokens": _table(
            Purpose.AUTHENTICATION, Retention.MINUTES, identifier="public_key token_id", instant="expires_at"
        ),
        "key_rates": _table(
            Purpose.AUTHENTICATION,
            Retention.CONTRACT,
            identifier="public_key",
            counter="left_over",
            instant="filled_at",
        ),
        "key_owners": _table(Purpose.TENANCY, Retention.CONTRACT, identifier="key_hash account_id"),
        "sign_in_addresses": _table(Purpose.AUTHENTICATION, Retention.CONTRACT, identifier="address_hash account_id"),
        "email_domains": _table(Purpose.AUTHENTICATION, Retention.CONTRACT, identifier="domain_hash account_id"),
        "sign_in_failures": _table(
            Purpose.AUTHENTICATION,
            Retention.MINUTES,
            identifier="subject_hash",
            counter="failures",
            instant="expires_at",
        ),
        "passkey_challenges": _table(
            Purpose.AUTHENTICATION, Retention.MINUTES, identifier="challenge_hash", instant="expires_at"
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
            routing="layer purpose version state",
            wrapped="wrapped",
            counter="scope_key_version",
            instant="created_at expires_at",
        ),
        "scope_keys": _table(
            Purpose.TENANCY,
            Retention.CONTRACT,
            identifier="scope_id destroy_asked_by destroy_approved_by",
            routing="layer version state",
            configuration="source holder reference",
            wrapped="wrapped",
            instant="created_at changed_at expires_at retired_at destroy_after",
        ),
        "key_epochs": _table(Purpose.TENANCY, Retention.CONTRACT, identifier="scope_id", counter="epoch"),
        "key_work": _table(
            Purpose.TENANCY,
            Retention.CONTRACT,
            identifier="scope_id work_id",
            routing="kind layer state position_table position",
            counter="version passes seen done is_clean",
            instant="started_at updated_at drain_from",
        ),
        "api_keys": _table(
            Purpose.AUTHENTICATION,
            Retention.CONTRACT,
            identifier="public_key account_id tenant_id made_by",
            routing="environment roles",
            sealed="sealed",
            instant="created_at deleted_at expires_at last_used_at",
        ),
        "approval_rules": _table(
            Purpose.SETUP,
            Retention.RECORD,
            identifier="scope_id rule_id",
            configuration="definition",
            instant="made_at ended_at",
        ),
        "approvals": _table(
            Purpose.ACCOUNTABILITY,
            Retention.LEDGER,
            identifier="tenant_id order_id instruction_id batch_id content_hash authors makers",
            routing="state needed",
            counter="version",
            instant="created_at expires_at ended_at",
        ),
        "approval_votes": _table(
            Purpose.ACCOUNTABILITY,
            Retention.LEDGER,
            identifier="tenant_id order_id instruction_id content_hash approver makers",
            routing="verdict",
            counter="version",
            instant="at",
        ),
        "day_totals": _table(
            Purpose.SETUP,
            Retention.DAY,
            identifier="tenant_id total_id",
            routing="day",
            sealed="sealed",
        ),
        "ip_lists": _table(
            Purpose.AUTHENTICATION,
            Retention.CONTRACT,
            identifier="scope_id",
            configuration="is_enabled api portal",
            sealed="sealed",
            instant="updated_at",
        ),
        "nonces": _table(
            Purpose.AUTHENTICATION, Retention.MINUTES, identifier="public_key nonce_hash", instant="expires_at"
        ),
        "revoked_tokens": _table(
            Purpose.AUTHENTICATION, Retention.MINUTES, identifier="scope_id token_id", instant="expires_at"
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
            identifier="scope_id key_hash request_hash attempt",
            routing="status carried_out",
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
            identifier="tenant_id customer_id person",
            routing="status",
            sealed="sealed",
            sensitive="sensitive",
            blind="email_index",
            instant="created_at updated_at",
        ),
        "financial_instruments": _table(
            Purpose.EXECUTION,
            Retention.LEDGER,
            identifier="tenant_id financial_instrument_id customer_id fingerprint",
            routing="type status country",
            sealed="sealed",
            sensitive="sensitive",
            blind="iban_index",
            instant="created_at",
        ),
        "ended_persons": _table(
            Purpose.ACCOUNTABILITY,
            Retention.RECORD,
            identifier="tenant_id person",
            instant="asked_at ended_at",
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
            sensitive="sealed",
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
        "openings": _table(
            Purpose.ACCOUNTABILITY,
            Retention.RECORD,
            identifier="tenant_id opening_id subject_id actor_id",
            record="subject_kind actor_kind purpose fields",
            sealed="sealed",
            instant="opened_at",
        ),
        "alerts": _table(
            Purpose.ACCOUNTABILITY,
            Retention.RECORD,
            identifier="tenant_id alert_id account_id subject_id",
            record="kind subject_kind detail",
            instant="raised_at",
        ),
        "statements": _table(
            Purpose.RECONCILIATION,
            Retention.LEDGER,
            identifier="tenant_id statement_id content_hash identity_hash",
            routing="kind",
            sealed="sealed",
            sensitive="sensitive",
            instant="imported_at",
        ),
        "statement_entries": _table(
            Purpose.RECONCILIATION,
            Retention.LEDGER,
            identifier="tenant_id statement_id transaction_id",
            counter="entry_no",
            routing="state role booked_on",
            sealed="sealed",
            sensitive="sensitive",
        ),
        "invitations": _table(
            Purpose.AUTHENTICATION,
            Retention.CONTRACT,
            identifier="account_id invitation_id person_id for_tenant address_hash secret_hash binding invited_by",
            routing="roles state",
            sealed="sealed",
            instant="created_at expires_at answered_at",
        ),
        "persons": _table(
            Purpose.AUTHENTICATION,
            Retention.CONTRACT,
            identifier="account_id person_id invitation_id admission_id address_hash",
            routing="state",
            sealed="sealed",
            instant="created_at updated_at removed_at",
        ),
        "grants": _table(
            Purpose.ACCOUNTABILITY,
            Retention.RECORD,
            identifier="account_id grant_id person_id for_tenant granted_by ended_by",
            routing="role",
            instant="granted_at ended_at",
        ),
        "credentials": _table(
            Purpose.AUTHENTICATION,
            Retention.CONTRACT,
            identifier="account_id credential_id person_id lookup",
            routing="kind",
            counter="counter",
            sealed="sealed",
            instant="created_at used_at",
        ),
        "recovery_codes": _table(
            Purpose.AUTHENTICATION,
            Retention.CONTRACT,
            identifier="account_id person_id code_hash",
            instant="used_at",
        ),
        "devices": _table(
            Purpose.AUTHENTICATION,
            Retention.CONTRACT,
            identifier="account_id device_id person_id",
            sealed="sealed",
            instant="first_seen_at seen_at",
        ),
        "sessions": _table(
            Purpose.AUTHENTICATION,
            Retention.DAYS_90,
            identifier="account_id session_id person_id session_hash provider_session",
            routing="stage method is_due",
            sealed="sealed",
            instant="created_at proven_at seen_at expires_at ended_at",
        ),
        "session_settings": _table(
            Purpose.SETUP,
            Retention.CONTRACT,
            identifier="account_id",
            configuration="idle_s lifetime_s",
            instant="updated_at",
        ),
        "single_sign_ons": _table(
            Purpose.AUTHENTICATION,
            Retention.CONTRACT,
            identifier="account_id version_id break_glass_id",
            routing="kind",
            configuration="is_enabled is_enforced makes_persons",
            sealed="sealed",
            instant="updated_at",
        ),
        "email_domains": _table(
            Purpose.AUTHENTICATION,
            Retention.CONTRACT,
            identifier="account_id domain_id domain_hash",
            routing="state",
            sealed="sealed",
            instant="created_at verified_at",
        ),
        "admissions": _table(
            Purpose.ACCOUNTABILITY,
            Retention.RECORD,
            identifier="account_id admission_id person_id domain_id",
            instant="admitted_at",
        ),
        "provider_subjects": _table(
            Purpose.AUTHENTICATION,
            Retention.CONTRACT,
            identifier="account_id subject_hash person_id",
            instant="linked_at",
        ),
        "sign_in_requests": _table(
            Purpose.AUTHENTICATION,
            Retention.MINUTES,
            identifier="account_id request_id browser_hash",
            sealed="sealed",
            instant="answered_at expires_at",
        ),
        "spent_assertions": _table(
            Purpose.AUTHENTICATION,
            Retention.MINUTES,
            identifier="account_id assertion_hash",
            instant="expires_at",
        ),
        "mails": _table(
            Purpose.NOTICES,
            Retention.DAYS,
            identifier="account_id mail_id",
            routing="kind",
            counter="attempts",
            sealed="sealed",
            instant="created_at",
        ),
        "due_mails": _table(Purpose.NOTICES, Retention.DAYS, identifier="account_id mail_id", instant="due_at"),
    },
    "cards": {
        "schema_migrations": _MIGRATIONS,
        "card_keys": _table(
            Purpose.TENANCY,
            Retention.CONTRACT,
            identifier="tenant_id",
            routing="purpose version state",
            sealed="wrapped",
            instant="created_at retired_at destroyed_at",
        ),
        "card_tenants": _table(Purpose.TENANCY, Retention.CONTRACT, identifier="tenant_id"),
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
            routing="status brand fingerprint_version",
            sealed="number_sealed shown_sealed",
            instant="created_at",
        ),
        "forwards": _table(
            Purpose.EXECUTION,
            Retention.DAYS_90,
            identifier="tenant_id forward_id token request_hash",
            configuration="destination",
            routing="state code status hash_version answer_by",
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

SENSITIVE: Final = frozenset(
    (table, name)
    for table, columns in CATALOGUE["region"].items()
    for name, column in columns.items()
    if column.data_class is DataClass.SENSITIVE
)
"""(Table, column) of what is sealed under the customer's own key as well."""

PERSONAL: Final[Mapping[tuple[str, str], str]] = {
    ("customers", "sensitive"): "customer_id",
    ("financial_instruments", "sensitive"): "customer_id",
}
"""Sensitive column → the column of its table that says which customer's alone it is. It is sealed with that person's
secret, so that destroying the secret ends it in every copy of the database."""
OF_MANY: Final[Mapping[tuple[str, str], str]] = {
    ("payment_files", "sealed"): "a file for a bank has the accounts of all who are paid with it",
    ("statements", "sensitive"): "a bank's report has the other parties of all its entries",
    ("statement_entries", "sensitive"): "a bank says who paid, and nothing which customer that is; books keep it",
}
"""The other sensitive columns, and why they are nobody's alone. Tests hold both to be all of `SENSITIVE`."""

_BY_PEOPLE: Final = frozenset(
    {
        Purpose.CUSTOMER_SERVICE,
        Purpose.FRAUD_PREVENTION,
        Purpose.LEGAL_OBLIGATION,
        Purpose.SUBJECT_REQUEST,
    }
)
OPENED_FOR: Final[Mapping[tuple[str, str], frozenset[Purpose]]] = {
    ("customers", "sensitive"): _BY_PEOPLE | {Purpose.CUSTOMER_CONTACT, Purpose.NOTES, Purpose.INDEXING},
    ("financial_instruments", "sensitive"): _BY_PEOPLE | {Purpose.EXECUTION, Purpose.INDEXING},
    ("payment_files", "sealed"): frozenset({Purpose.EXECUTION, Purpose.RECONCILIATION}),
    ("statements", "sensitive"): frozenset({Purpose.RECONCILIATION}),
    ("statement_entries", "sensitive"): frozenset({Purpose.RECONCILIATION}),
}
"""Sensitive column → the purposes for which it may be opened, and no other. Tests hold it to be all of `SENSITIVE`."""
OPENING_PURPOSES: Final = _BY_PEOPLE | {Purpose.CUSTOMER_CONTACT}
"""Those that a person names, with a reason, to see something of a customer in clear."""


class Indexed(enum.StrEnum):
    """What a blind index is of, which decides what counts as equal (see `vault.blind.normalise`)."""

    EMAIL = "email"
    IBAN = "iban"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindIndex:
    """Where the content of a blind index stands: at a position of the array in a sensitive column of its row."""

    source: str
    position: int
    kind: Indexed
    condition: str = "true"
    """Which rows hold such an array, in SQL."""


BLIND_INDEXES: Final[Mapping[tuple[str, str], BlindIndex]] = {
    ("customers", "email_index"): BlindIndex(source="sensitive", position=1, kind=Indexed.EMAIL),
    ("financial_instruments", "iban_index"): BlindIndex(
        source="sensitive", position=1, kind=Indexed.IBAN, condition="type = 'BANK_ACCOUNT'"
    ),
}
"""(Table, column) of every blind index; what re-indexes goes by it."""
