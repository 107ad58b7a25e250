"""What domain code needs of encryption: seal, open, and index for look-up.

The implementation lives in `strongroom.vault`; an operation carries the one of its tenant (or, above tenants, of its
account). Everything sealed is bound to where it stands: scope, table, column and row. What is sensitive opens only for
a purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Cipher(Protocol):
    """Seals and opens the fields of one scope (a tenant, or an account)."""

    def seal(self, table: str, column: str, row: bytes, plaintext: bytes) -> bytes:
        """An envelope that opens only in this scope, table, column and row (16-byte row id)."""
        ...

    def for_person(self, person: int) -> Cipher:
        """The same cipher, sealing what is one person's alone (`database.catalogue.PERSONAL`) for the person of this
        number (see `vault.new_persons`). Without a person such a column can't be sealed.

        Such an envelope says whose it is, so none is needed to open it. Once the person's secret is destroyed, sealing
        and opening raise errors.Unavailable (`KEY_UNAVAILABLE`).
        """
        ...

    def open(self, table: str, column: str, row: bytes, envelope: bytes) -> bytes:
        """The plaintext.

        Raises errors.Broken (`ENVELOPE_BROKEN`) when the envelope was altered, or belongs anywhere else,
        `database.KeysChanged` when its key may have come after the operation had begun, and
        errors.Forbidden (`PURPOSE_NOT_DECLARED`, `PURPOSE_NOT_ALLOWED`) for something sensitive unless this cipher is
        one for a purpose that its column may be opened for.
        """
        ...

    def for_purpose(self, purpose: str) -> Cipher:
        """The same cipher, declared to open for this purpose (of `database.catalogue.Purpose`)."""
        ...

    def index(self, table: str, column: str, value: str) -> bytes:
        """A 16-byte keyed hash, equal for equal values of one scope and column, telling nothing without the key."""
        ...

    def blind(self, table: str, column: str, value: str) -> bytes:
        """What a blind index holds for a value: the same for all values that count as equal, under the newest key."""
        ...

    def blinds(self, table: str, column: str, value: str) -> Sequence[bytes]:
        """All that a blind index may hold for a value: one for each key that entries are still made with."""
        ...
