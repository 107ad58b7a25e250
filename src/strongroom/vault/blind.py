"""Blind indexes: finding a row again by something sealed in it. What they tell: `docs/internals/blind-index.md`.

An entry is the version of the tenant's search key (4 bytes, big-endian), then the first 16 bytes of HMAC-SHA-256 (RFC
2104) under a key of the column, derived from that key, over what counts as equal. Where keys are being changed an entry
may be under either, so a look-up asks for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.database.catalogue import BLIND_INDEXES, Indexed
from strongroom.kernel.errors import Failure, Unavailable
from strongroom.kernel.mail_addresses import find_address
from strongroom.kernel.secret import Secret

VERSION_BYTES: Final = 4
HASH_BYTES: Final = 16
"""Half of the hash, the least that RFC 2104 section 5 advises: among 10^9 values of a tenant two differing ones are the
same here with a chance of 10^-21, so that what is found is what was asked for, and needn't be opened to be sure."""
_KEY_BYTES: Final = 32


class BlindIndexes:
    """Makes the entries of one tenant."""

    def __init__(self, scope: UUID, keys: Mapping[int, Secret[bytes]]) -> None:
        """`keys` by version; the newest makes entries. None at all: the tenant hasn't got its first one yet."""
        self._scope = scope
        self._keys = dict(sorted(keys.items(), reverse=True))
        self._columns: dict[tuple[str, str], list[tuple[bytes, HMAC]]] = {}

    def entries(self, table: str, column: str, value: str) -> list[bytes]:
        """What the column may hold for a value: under the newest key first, then under those that are on their way out.

        Raises errors.Unavailable (`SEARCH_KEY_MISSING`).
        """
        normal = normalise(BLIND_INDEXES[table, column].kind, value).encode()
        found = []
        for version, keyed in self._columns.get((table, column)) or self._derive(table, column):
            mac = keyed.copy()
            mac.update(normal)
            found.append(version + mac.finalize()[:HASH_BYTES])
        return found

    def _derive(self, table: str, column: str) -> list[tuple[bytes, HMAC]]:
        if not self._keys:
            raise Unavailable(
                Failure(
                    "SEARCH_KEY_MISSING", "The key for searching is yet to be made in this tenant. Try again later."
                )
            )
        derived = self._columns[table, column] = [
            (
                version.to_bytes(VERSION_BYTES, "big"),
                HMAC(_column_key(self._scope, version, key, table, column), SHA256()),
            )
            for version, key in self._keys.items()
        ]
        return derived


def normalise(kind: Indexed, value: str) -> str:
    """What counts as equal: two values are when this is the same of both.

    Mail addresses: see `kernel.mail_addresses.find_address`. IBANs: without blanks, upper case (ISO 13616 prints
    them in groups of four). What is neither stays as it is, so that it is found by itself.
    """
    return _NORMAL[kind](value)


def _email(value: str) -> str:
    return find_address(value) or value


def _iban(value: str) -> str:
    return "".join(value.split()).upper()


def _column_key(scope: UUID, version: int, key: Secret[bytes], table: str, column: str) -> bytes:
    """The key of one column (HKDF-SHA-256, RFC 5869)."""
    info = b"strongroom blind index 1\0" + scope.bytes + version.to_bytes(VERSION_BYTES, "big")
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=info + f"{table}\0{column}".encode()).derive(key.reveal())


_NORMAL: Final[Mapping[Indexed, Callable[[str], str]]] = {Indexed.EMAIL: _email, Indexed.IBAN: _iban}
