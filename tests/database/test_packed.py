"""Arrays packed by hand arrive as they were, judged by the database itself."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.assembly import App
from strongroom.database import Packed, pack_bytes, pack_codes, pack_dates, pack_instants, pack_texts, pack_uuids
from strongroom.kernel.actors import system

ID = UUID("01a20324-2a65-7c27-83b7-de0fb39deea5")


async def arrived(app: App, packed: Packed, kind: str) -> list[Any]:
    async with app.operation(system("test"), region="eu") as op:
        query = "select value from unnest(%s::{}[]) with ordinality as t(value, n) order by n"
        rows = await op.rows(query.format(kind), packed)
    return [row[0] for row in rows]


@pytest.mark.parametrize("values", [[], [ID.bytes], [ID.bytes, None, bytes(16), b"\xff" * 16, None], [None]])
async def test_uuids(app: App, values: list[bytes | None]) -> None:
    expected = [value if value is None else UUID(bytes=value) for value in values]
    assert await arrived(app, pack_uuids(values), "uuid") == expected


@pytest.mark.parametrize("values", [[], [b""], [b"\x00", b"", b"x" * 100_000, bytes(range(256))]])
async def test_bytes(app: App, values: list[bytes]) -> None:
    assert await arrived(app, pack_bytes(values), "bytea") == values


@pytest.mark.parametrize("values", [[], [""], ["a", None, "", "ÄÖ🙂\n\\'\"{},", "NULL", "x" * 100_000], [None, None]])
async def test_texts(app: App, values: list[str | None]) -> None:
    assert await arrived(app, pack_texts(values), "text") == values


@pytest.mark.parametrize("values", [[], ["EUR"], ["EUR", "CHF", "EUR", "READY", "", "INCOMPLETE"] * 50])
async def test_codes(app: App, values: list[str]) -> None:
    assert await arrived(app, pack_codes(values), "text") == values


@pytest.mark.parametrize(
    "values", [[], [date(2000, 1, 1)], [date(1999, 12, 31), date(1900, 1, 1), date(9999, 12, 31), date(2028, 2, 29)]]
)
async def test_dates(app: App, values: list[date]) -> None:
    assert await arrived(app, pack_dates(values), "date") == values


@pytest.mark.parametrize(
    "values",
    [
        [],
        [datetime(2000, 1, 1, tzinfo=UTC)],
        [
            datetime(2026, 11, 22, 12, 0, 0, 999_999, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
            datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2026, 6, 1, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
        ],
    ],
)
async def test_instants(app: App, values: list[datetime]) -> None:
    assert await arrived(app, pack_instants(values), "timestamptz") == values


@given(st.lists(st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\0"))), max_size=20))
@settings(max_examples=200)
def test_the_layout_is_array_sends(values: list[str | None]) -> None:
    """Read back by hand, after PostgreSQL's array_send."""
    data = pack_texts(values).data
    dimensions, has_nulls, element = (int.from_bytes(data[at : at + 4], "big") for at in (0, 4, 8))
    assert (dimensions, element) == (1 if values else 0, 25)
    assert has_nulls == int(None in values)
    if not values:
        assert len(data) == 12
        return
    assert data[12:20] == len(values).to_bytes(4, "big") + b"\0\0\0\1"
    at, found = 20, list[str | None]()
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big", signed=True)
        at += 4
        found.append(None if size < 0 else data[at : at + size].decode())
        at += max(size, 0)
    assert found == values
