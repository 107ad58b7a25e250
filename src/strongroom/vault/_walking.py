"""Walking over every envelope of a scope, table by table in the order of the primary keys, as the catalogue describes
them: read a batch, change what has to be changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec

from strongroom.database import Operation, pack_bytes, pack_texts, pack_uuids
from strongroom.database.sealed_tables import SEALED_TABLES, Value, row_bytes

TABLES: Final = tuple(SEALED_TABLES)
"""The order in which tables are walked."""


@dataclass(frozen=True, slots=True)
class SealedRow:
    """A row's envelopes. `key` is the primary key without its owner; `row` is what binds the envelopes to it."""

    key: tuple[Value, ...]
    row: bytes
    envelopes: tuple[bytes | None, ...]


async def read_batch(
    op: Operation, table: str, after: str, take: int, *, condition: str = "true"
) -> tuple[list[SealedRow], str]:
    """Rows of the operation's scope after a position (empty: from the beginning), and the position of the last one.

    `condition` is SQL of ours. The position is empty at the table's end.
    """
    sealed = SEALED_TABLES[table]
    beyond, bound = "true", []
    if after:
        beyond, bound = f"({', '.join(sealed.key)}) > ({', '.join(['%s'] * len(sealed.key))})", list(_decode(after))
    rows = await op.rows(
        f"select {', '.join((*sealed.key, *sealed.columns))} from {table} "  # noqa: S608  names of the catalogue
        f"where {_owned(table)} and {beyond} and {condition} order by {', '.join(sealed.key)} limit %s",
        op.scope,
        *bound,
        take,
    )
    found = [_row(op, table, row) for row in rows]
    return found, _encode(found[-1].key) if len(found) == take else ""


async def lock_rows(
    op: Operation, table: str, keys: Sequence[tuple[Value, ...]], *, wait: bool = False
) -> list[SealedRow]:
    """These rows as they are now, locked until the operation's end; those that somebody else has locked are left out.

    So this never waits for anybody while it holds locks, and no ring of waiting can come of it. With `wait` none is
    left out.
    """
    if not keys:
        return []
    sealed = SEALED_TABLES[table]
    names = ", ".join(sealed.key)
    rows = await op.rows(
        f"select {', '.join((*sealed.key, *sealed.columns))} from {table} "  # noqa: S608  names of the catalogue
        f"where {_owned(table)} and ({names}) in (select * from unnest({', '.join(['%s'] * len(sealed.key))})) "
        f"order by {names} for no key update{'' if wait else ' skip locked'}",
        op.scope,
        *_packed(keys),
    )
    return [_row(op, table, row) for row in rows]


async def write_column(
    op: Operation, table: str, column: str, keys: Sequence[tuple[Value, ...]], envelopes: Sequence[bytes]
) -> None:
    """Put new envelopes into a column of rows that this operation has locked."""
    if not keys:
        return
    sealed = SEALED_TABLES[table]
    matches = " and ".join(f"t.{name} = u.{name}" for name in sealed.key)
    await op.run(
        f"update {table} t set {column} = u.envelope "  # noqa: S608  names of the catalogue
        f"from unnest({', '.join(['%s'] * len(sealed.key))}, %s) as u({', '.join(sealed.key)}, envelope) "
        f"where {_owned(table, 't.')} and {matches}",
        *_packed(keys),
        pack_bytes(envelopes),
        op.scope,
    )


async def count_by_column(op: Operation) -> dict[tuple[str, str], int]:
    """How many envelopes each sealed column of the operation's scope has."""
    counts: dict[tuple[str, str], int] = {}
    for table, sealed in SEALED_TABLES.items():
        counted = ", ".join(f"count({column})" for column in sealed.columns)
        row = await op.row(f"select {counted} from {table} where {_owned(table)}", op.scope)  # noqa: S608  as above
        assert row is not None  # noqa: S101  an aggregate has one row
        counts.update(zip(((table, column) for column in sealed.columns), row, strict=True))
    return counts


async def count_envelopes(op: Operation) -> int:
    """How many envelopes the operation's scope has."""
    return sum((await count_by_column(op)).values())


def _owned(table: str, prefix: str = "") -> str:
    owner = [prefix + name for name in SEALED_TABLES[table].owner]
    return f"{owner[0]} = %s" if len(owner) == 1 else f"coalesce({', '.join(owner)}) = %s"


def _row(op: Operation, table: str, row: Sequence[object]) -> SealedRow:
    sealed = SEALED_TABLES[table]
    width = len(sealed.key)
    key: tuple[Value, ...] = tuple(row[:width])  # type: ignore[arg-type]  # the types of primary keys
    bound = [key[sealed.key.index(name)] for name in sealed.row]
    envelopes: tuple[bytes | None, ...] = tuple(row[width:])  # type: ignore[arg-type]  # bytea columns
    return SealedRow(key, row_bytes(table, bound, op.cipher.index), envelopes)


def _packed(keys: Sequence[tuple[Value, ...]]) -> list[object]:
    """The keys column by column, as arrays."""
    packed: list[object] = []
    for values in zip(*keys, strict=True):
        match values[0]:
            case UUID():
                packed.append(pack_uuids([value.bytes for value in values]))
            case bytes():
                packed.append(pack_bytes(values))
            case str():
                packed.append(pack_texts(values))
            case _:
                packed.append(list(values))
    return packed


def _encode(key: tuple[Value, ...]) -> str:
    """A position as text: each value with its type."""
    return msgspec.json.encode(
        [
            ["b", value.hex()] if isinstance(value, bytes) else [type(value).__name__[0].lower(), str(value)]
            for value in key
        ]
    ).decode()


def _decode(position: str) -> tuple[Value, ...]:
    values: list[Value] = []
    for kind, text in msgspec.json.decode(position, type=list[tuple[str, str]]):
        match kind:
            case "u":
                values.append(UUID(text))
            case "b":
                values.append(bytes.fromhex(text))
            case "i":
                values.append(int(text))
            case _:
                values.append(text)
    return tuple(values)
