"""The catalogue: what is kept in clear is a short list, checked in, and every column says why it is there."""

from __future__ import annotations

from strongroom.database.catalogue import CATALOGUE, Column, DataClass, Purpose, Retention
from tests.guards.golden import GOLDEN, differences


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
        if entry.data_class is not DataClass.SEALED
    ]
    assert not (text := differences(GOLDEN / "columns_in_clear.txt", "\n".join(sorted(clear)) + "\n")), text


def test_every_column_says_why_and_how_long() -> None:
    for database, table, column, entry in entries():
        where = f"{database}.{table}.{column}"
        assert isinstance(entry.purpose, Purpose), where
        assert isinstance(entry.retention, Retention), where
    assert {entry.purpose for *_, entry in entries()} == set(Purpose)


def test_the_directory_holds_nothing_sealed_and_nothing_of_persons() -> None:
    classes = {entry.data_class for database, *_, entry in entries() if database == "directory"}
    assert DataClass.SEALED not in classes
    assert set(CATALOGUE) == {"directory", "region", "cards"}


def test_what_describes_payments_and_persons_has_a_sealed_column() -> None:
    region = CATALOGUE["region"]
    for table in ("customers", "financial_instruments", "orders", "instructions", "transactions", "statement_entries"):
        assert region[table]["sealed"].data_class is DataClass.SEALED, table
    telling = {"amount", "minor", "name", "iban", "holder", "reference", "metadata", "address", "email", "note"}
    for _, table, column, entry in entries():
        if entry.data_class is not DataClass.SEALED and (table, column) not in {
            ("schema_migrations", "name"),
            ("scheme_drafts", "name"),
        }:
            assert column not in telling, f"{table}.{column} is in clear"
