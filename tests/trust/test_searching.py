"""The search finds a value in every form, wherever the pieces are cut, and nothing where nothing is."""

from __future__ import annotations

import base64
import os
import secrets
import struct
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from strongroom.trust import Workbench
from strongroom.trust.checks.at_rest import draw_canaries
from strongroom.trust.columns import search_columns
from strongroom.trust.searching import PIECE, Search, amount_patterns, text_patterns
from strongroom.trust.verdicts import Findings

TEXT = "Q7ZKW3XNVB4J2P"
AMOUNT, MINOR = Decimal("836192740531.17"), 83619274053117


@pytest.mark.parametrize(
    "written",
    [
        TEXT.encode(),
        TEXT[::-1].encode(),
        f"Ada {TEXT} é".encode("utf-16-le"),
        f"Ada {TEXT} é".encode("utf-16-be"),
        f"Ada {TEXT}".encode().hex().encode(),
        f"Ada {TEXT}".encode().hex().upper().encode(),
        base64.b64encode(f"A{TEXT}, Berlin".encode()),
        base64.b64encode(f"Ad{TEXT}, Berlin".encode()),
        base64.urlsafe_b64encode(f"Ada{TEXT}, Berlin".encode()),
        "".join(f"\\u{ord(letter):04x}" for letter in TEXT).encode(),
        "".join(f"\\u{ord(letter):04X}" for letter in TEXT).encode(),
        "".join(f"%{ord(letter):02X}" for letter in TEXT).encode(),
    ],
)
def test_a_text_is_found_in_every_form(written: bytes, tmp_path: Path) -> None:
    assert found_in(os.urandom(999) + written + os.urandom(999), tmp_path, Search("file", text_patterns("text", TEXT)))


@pytest.mark.parametrize(
    "written",
    [
        b'{"amount":836192740531.17}',
        b"83619274053117",
        struct.pack(">q", MINOR),
        struct.pack("<q", MINOR),
        b"\xcf" + struct.pack(">Q", MINOR),  # as MessagePack writes it
        struct.pack("<d", 836192740531.17),
        struct.pack(">d", float(MINOR)),
    ],
)
def test_an_amount_is_found_in_every_form(written: bytes, tmp_path: Path) -> None:
    search = Search("file", amount_patterns("amount", AMOUNT, MINOR))
    assert found_in(bytes(64) + written + bytes(64), tmp_path, search)


def test_chance_and_emptiness_hold_nothing(tmp_path: Path) -> None:
    canaries = draw_canaries()
    search = Search("file", canaries.patterns, [TEXT.encode()])
    assert not found_in(os.urandom(1 << 20) + bytes(PIECE) + b"Ada Sample, 836192740531.16", tmp_path, search)
    assert search.size == (1 << 20) + PIECE + 27
    assert not search.saw_everything


@pytest.mark.parametrize("before", [PIECE - 1, PIECE - 13, PIECE, 2 * PIECE - 7])
def test_nothing_hides_on_a_seam(before: int, tmp_path: Path) -> None:
    search = Search("file", text_patterns("text", TEXT), [b"a thing that is there"])
    assert found_in(b"x" * before + TEXT.encode() + b"a thing that is there", tmp_path, search)
    assert search.saw_everything


async def test_streams_are_searched_across_their_pieces() -> None:
    async def drips() -> AsyncIterator[bytes]:
        for letter in f"Ada {TEXT} Sample":
            yield letter.encode()

    search = Search("stream", text_patterns("text", TEXT))
    await search.stream(drips(), "drips")
    assert search.found == ["text, clear, in drips"]


def test_canaries_are_valid_and_new() -> None:
    one, other = draw_canaries(), draw_canaries()
    assert len({one.text, other.text, one.account, other.account, one.number, other.number}) == 6
    digits = "".join(str(int(letter, 36)) for letter in one.iban[4:] + one.iban[:4])
    assert int(digits) % 97 == 1
    assert len(one.iban) == 22
    assert 0 not in one.minor.to_bytes(6, "big")
    assert one.count_in(f"{one.text} {one.iban} {one.amount} {one.text}".encode()) == 4


@pytest.mark.parametrize("kind", ["numeric", "bigint", "double precision", "text", "bytea", "jsonb"])
async def test_postgresql_s_own_forms_are_found_on_disk(bench: Workbench, kind: str) -> None:
    """What each type leaves in the server's files."""
    canaries = draw_canaries()
    assert bench.server is not None
    value: object = {
        "numeric": canaries.amount,
        "bigint": canaries.minor,
        "double precision": float(canaries.amount),
        "jsonb": f'{{"to": "{canaries.text}"}}',
        "bytea": canaries.text.encode(),
    }.get(kind, canaries.text)
    async with bench.admin("eu") as connection:
        await connection.execute(f"create table leak (value {kind})".encode())
        try:
            await connection.execute("insert into leak values (%s)", (value,))
            await connection.execute("checkpoint")
            cursor = await connection.execute("select pg_relation_filepath('leak')")
            row = await cursor.fetchone()
            assert row is not None
            on_disk, in_column = Search("file", canaries.patterns), Search("columns", canaries.patterns)
            on_disk.file(bench.server.data / row[0], "leak")
            findings = Findings()
            await search_columns(bench, findings, in_column)
        finally:
            await connection.execute("drop table leak")
    assert on_disk.found
    assert any(found.endswith("in table eu.leak") for found in in_column.found)
    assert findings.breaches == ["eu.leak has columns that aren't catalogued: value"]


async def test_what_the_database_compresses_is_found_in_its_column(bench: Workbench) -> None:
    assert bench.server is not None
    canaries = draw_canaries()
    figure = "".join(f"{canaries.text[at % 14]}{'long and dull ' * 9}" for at in range(500)) + canaries.text
    async with bench.admin("directory") as connection:
        await connection.execute(
            "insert into evidence (control_id, checked_at, verdict, figure) values ('TEST', now(), 'red', %s)",
            (figure,),
        )
        try:
            search = Search("columns", canaries.patterns)
            await search_columns(bench, Findings(), search)
        finally:
            await connection.execute("delete from evidence where control_id = 'TEST'")
    assert search.found == ["text, clear, in table directory.evidence"]


def found_in(content: bytes, folder: Path, search: Search) -> bool:
    path = folder / secrets.token_hex(4)
    path.write_bytes(content)
    search.file(path, "here")
    return bool(search.found)
