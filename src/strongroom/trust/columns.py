"""Every column of every table, read as administrator: what stands in the databases once it is unpacked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from psycopg import sql

from strongroom.database import CATALOGUE
from strongroom.database.catalogue import Column
from strongroom.database.databases import CARDS, DIRECTORY
from strongroom.trust.searching import Search
from strongroom.trust.verdicts import Findings
from strongroom.trust.workbench import AdminConnection, Workbench


def catalogue_of(name: str) -> Mapping[str, Mapping[str, Column]]:
    """The column catalogue of one of our databases."""
    return CATALOGUE[name if name in {CARDS, DIRECTORY} else "region"]


async def search_columns(bench: Workbench, findings: Findings, search: Search) -> Search:
    """Look through every column of all databases, the card vault's too; one that isn't catalogued is a breach."""
    for name in (*bench.database_names, CARDS):
        catalogue = catalogue_of(name)
        async with bench.admin(name) as connection:
            for table, columns in (await find_columns(connection)).items():
                unknown = columns - catalogue.get(table, {}).keys()
                findings.expect(
                    not unknown, f"{name}.{table} has columns that aren't catalogued: {', '.join(sorted(unknown))}"
                )
                await search.stream(_read(connection, table, sorted(columns)), f"table {name}.{table}")
    return search


async def find_columns(connection: AdminConnection) -> Mapping[str, set[str]]:
    """The tables that there really are, with their columns."""
    cursor = await connection.execute(
        "select table_name, column_name from information_schema.columns join information_schema.tables "
        "using (table_schema, table_name) where table_schema = 'public' and table_type = 'BASE TABLE' "
        "order by table_name"
    )
    found: dict[str, set[str]] = {}
    for table, column in await cursor.fetchall():
        found.setdefault(table, set()).add(column)
    return found


async def _read(connection: AdminConnection, table: str, columns: Sequence[str]) -> AsyncIterator[memoryview]:
    statement = sql.SQL("copy {} ({}) to stdout (format binary)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    async with connection.cursor() as cursor, cursor.copy(statement) as rows:
        async for row in rows:
            yield memoryview(row)
