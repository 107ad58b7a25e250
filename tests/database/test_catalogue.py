"""The catalogue: what is kept in clear is a short list, checked in, and every column says why it is there."""

from __future__ import annotations

from uuid import UUID

from strongroom.database.catalogue import (
    BLIND_INDEXES,
    CATALOGUE,
    OPENED_FOR,
    OPENING_PURPOSES,
    SENSITIVE,
    Column,
    DataClass,
    Purpose,
    Retention,
)
from strongroom.database.sealed_tables import SEALED_TABLES, row_bytes
from tests.guards.golden import GOLDEN, differences

UNREADABLE = {DataClass.SEALED, DataClass.SENSITIVE, DataClass.WRAPPED}


def entries() -> list[tuple[str, str, str, Column]]:
    return [
        (database, table, column, entry)
        for database, tables in CATALOGUE.items()
        for table, columns in tables.items()
        for column, entry in columns.items()
    ]


def test_what_is_in_clear_is_listed() -> None:
    clear = [
        f"{database}.{table}.{column} {entry.data_class.value}"
        for database, table, column, entry in entries()
        if entry.data_class not in UNREADABLE
    ]
    assert not (text := differences(GOLDEN / "columns_in_clear.txt", "\n".join(sorted(clear)) + "\n")), text


def test_every_column_says_why_and_how_long() -> None:
    for database, table, column, entry in entries():
        where = f"{database}.{table}.{column}"
        assert isinstance(entry.purpose, Purpose), where
        assert isinstance(entry.retention, Retention), where
    opened_for = frozenset[Purpose]().union(*OPENED_FOR.values())
    assert {entry.purpose for *_, entry in entries()} | opened_for == set(Purpose)
    assert opened_for >= OPENING_PURPOSES


def test_every_sensitive_column_says_what_it_may_be_opened_for() -> None:
    assert set(OPENED_FOR) == SENSITIVE
    assert all(OPENED_FOR.values())


def test_every_blind_index_says_what_it_is_of() -> None:
    blind = {
        (table, column)
        for table, columns in CATALOGUE["region"].items()
        for column, entry in columns.items()
        if entry.data_class is DataClass.BLIND
    }
    assert set(BLIND_INDEXES) == blind
    assert all((table, index.source) in SENSITIVE for (table, _), index in BLIND_INDEXES.items())


def test_the_directory_holds_nothing_sealed_and_nothing_of_persons() -> None:
    classes = {entry.data_class for database, *_, entry in entries() if database == "directory"}
    assert not classes & UNREADABLE
    assert set(CATALOGUE) == {"directory", "region", "cards"}


def test_what_describes_payments_and_persons_has_a_sealed_column() -> None:
    region = CATALOGUE["region"]
    for table in ("customers", "financial_instruments", "orders", "instructions", "transactions", "statement_entries"):
        assert region[table]["sealed"].data_class is DataClass.SEALED, table
    telling = {"amount", "minor", "name", "iban", "holder", "reference", "metadata", "address", "email", "note"}
    for _, table, column, entry in entries():
        if entry.data_class not in UNREADABLE and (table, column) not in {
            ("schema_migrations", "name"),
            ("scheme_drafts", "name"),
            ("scope_keys", "holder"),
            ("scope_keys", "reference"),
        }:
            assert column not in telling, f"{table}.{column} is in clear"


def test_every_sealed_column_is_walked() -> None:
    sealed = {
        (table, column)
        for table, columns in CATALOGUE["region"].items()
        for column, entry in columns.items()
        if entry.data_class in {DataClass.SEALED, DataClass.SENSITIVE}
    }
    assert {(table, column) for table, entry in SEALED_TABLES.items() for column in entry.columns} == sealed
    for table, entry in SEALED_TABLES.items():
        assert set(entry.row) <= set(entry.key)
        assert {*entry.owner, *entry.key} <= set(CATALOGUE["region"][table])


def test_what_tells_persons_and_accounts_is_sensitive() -> None:
    assert {
        ("customers", "sensitive"),
        ("financial_instruments", "sensitive"),
        ("payment_files", "sealed"),
        ("statements", "sensitive"),
        ("statement_entries", "sensitive"),
    } == SENSITIVE


def test_a_row_s_bytes_are_those_of_its_key() -> None:
    order, customer = UUID(int=1), UUID(int=2)

    def index(*place: str) -> bytes:
        return repr(place).encode()

    assert row_bytes("orders", [order], index) == order.bytes
    assert row_bytes("order_customer_defaults", [order, customer], index) == order.bytes + customer.bytes
    assert row_bytes("statement_entries", [order, 7], index) == order.bytes + bytes([0, 0, 0, 0, 0, 0, 0, 7])
    assert row_bytes("idempotency_keys", [b"hash"], index) == b"hash"
    assert row_bytes("installed_apps", ["simulator"], index) == b"('installed_apps', 'app_id', 'simulator')"
