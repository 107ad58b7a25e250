"""Arrays for `unnest`, packed by hand.

Rows that are written together travel as one array a column. psycopg dumps lists element by element in Python; joining
bytes that are binary already is about ten times as fast, and it is what makes coalesced writes cheap. The layout is
PostgreSQL's array_send: dimensions, flags, element type, (length, lower bound), then each element with its length.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Final
from uuid import UUID

import psycopg
from psycopg.abc import Buffer, DumperKey
from psycopg.adapt import Dumper, PyFormat
from psycopg.pq import Format

_UUID: Final = (2950, 2951)
_BYTEA: Final = (17, 1001)
_TEXT: Final = (25, 1009)
_DATE: Final = (1082, 1182)
_TIMESTAMPTZ: Final = (1184, 1185)
_NULL: Final = b"\xff\xff\xff\xff"
_SIXTEEN: Final = b"\x00\x00\x00\x10"
_FOUR: Final = b"\x00\x00\x00\x04"
_EIGHT: Final = b"\x00\x00\x00\x08"
_EPOCH_DAY: Final = date(2000, 1, 1).toordinal()
_EPOCH_S: Final = 946_684_800
_length = struct.Struct(">i").pack
_int64 = struct.Struct(">q").pack


class Packed:
    """A one-dimensional array in PostgreSQL's binary form."""

    __slots__ = ("array_oid", "data")

    def __init__(self, types: tuple[int, int], count: int, body: bytes, *, nulls: bool) -> None:
        element, self.array_oid = types
        header = struct.pack(">iiI", 1, int(nulls), element) + struct.pack(">ii", count, 1)
        self.data = header + body if count else struct.pack(">iiI", 0, 0, element)


def pack_uuids(values: Sequence[bytes | None]) -> Packed:
    """A `uuid[]` of 16-byte values."""
    if None in values:
        body = b"".join([_NULL if value is None else _SIXTEEN + value for value in values])
        return Packed(_UUID, len(values), body, nulls=True)
    return Packed(_UUID, len(values), _SIXTEEN + _SIXTEEN.join(values) if values else b"", nulls=False)  # type: ignore[arg-type]  # no None here


def pack_bytes(values: Sequence[bytes]) -> Packed:
    """A `bytea[]`."""
    return Packed(_BYTEA, len(values), b"".join([_length(len(value)) + value for value in values]), nulls=False)


def pack_texts(values: Sequence[str | None]) -> Packed:
    """A `text[]`."""
    if None not in values:
        encoded_all = [value.encode() for value in values if value is not None]
        body = b"".join([_length(len(encoded)) + encoded for encoded in encoded_all])
        return Packed(_TEXT, len(values), body, nulls=False)
    parts: list[bytes] = []
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            encoded = value.encode()
            parts.append(_length(len(encoded)) + encoded)
    return Packed(_TEXT, len(values), b"".join(parts), nulls=True)


def pack_codes(values: Sequence[str]) -> Packed:
    """A `text[]` of codes: texts of which there are few, such as currencies and states."""
    return Packed(_TEXT, len(values), b"".join([_packed_code(value) for value in values]), nulls=False)


@lru_cache(maxsize=4096)
def _packed_code(value: str) -> bytes:
    encoded = value.encode()
    return _length(len(encoded)) + encoded


def pack_dates(values: Sequence[date]) -> Packed:
    """A `date[]`."""
    body = b"".join([_FOUR + _length(value.toordinal() - _EPOCH_DAY) for value in values])
    return Packed(_DATE, len(values), body, nulls=False)


def pack_instants(values: Sequence[datetime]) -> Packed:
    """A `timestamptz[]`."""
    body = b"".join([_EIGHT + _int64(_microseconds(value)) for value in values])
    return Packed(_TIMESTAMPTZ, len(values), body, nulls=False)


def _microseconds(value: datetime) -> int:
    return (math.floor(value.timestamp()) - _EPOCH_S) * 1_000_000 + value.microsecond


_MARKERS: Final = {
    array_oid: type(f"Packed{array_oid}", (), {}) for _, array_oid in (_UUID, _BYTEA, _TEXT, _DATE, _TIMESTAMPTZ)
}
"""A type for each array, since psycopg keeps dumpers by type."""


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Packed) -> Buffer:
        return obj.data

    def get_key(self, obj: Packed, format: PyFormat) -> DumperKey:
        return (Packed, _MARKERS[obj.array_oid])

    def upgrade(self, obj: Packed, format: PyFormat) -> Dumper:
        dumper = _PackedDumper(Packed)
        dumper.oid = obj.array_oid
        return dumper


class _UuidBytesDumper(Dumper):
    """UUIDs as their 16 bytes (psycopg's own goes by way of text in the default format)."""

    format = Format.BINARY
    oid = _UUID[0]

    def dump(self, obj: UUID) -> Buffer:
        return obj.bytes


def register(adapters: psycopg.adapt.AdaptersMap) -> None:
    """Teach psycopg these types."""
    adapters.register_dumper(Packed, _PackedDumper)
    adapters.register_dumper(UUID, _UuidBytesDumper)
