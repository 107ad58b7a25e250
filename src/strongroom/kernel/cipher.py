"""What domain code needs of encryption: seal, open, and index for look-up.

The implementation lives in `strongroom.vault`; an operation carries the one of its tenant (or, above tenants, of its
account). Everything sealed is bound to where it stands: scope, table, column and row.
"""

from __future__ import annotations

from typing import Protocol


class Cipher(Protocol):
    """Seals and opens the fields of one scope (a tenant, or an account)."""

    def seal(self, table: str, column: str, row: bytes, plaintext: bytes) -> bytes:
        """An envelope that opens only in this scope, table, column and row (16-byte row id)."""
        ...

    def open(self, table: str, column: str, row: bytes, envelope: bytes) -> bytes:
        """The plaintext.

        Raises errors.Broken (`ENVELOPE_BROKEN`) when the envelope was altered, or belongs anywhere else.
        """
        ...

    def index(self, table: str, column: str, value: str) -> bytes:
        """A 16-byte keyed hash, equal for equal values of one scope and column, telling nothing without the key."""
        ...
