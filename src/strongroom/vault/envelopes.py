"""Envelopes: sealed fields. The format, byte by byte, and why it is as it is: `docs/internals/envelope.md`.

A `LayerCipher` seals under one layer's data keys; a `ScopeCipher` is what an operation carries: it seals every column
under the platform's layer, and what the catalogue calls SENSITIVE under the customer's layer first. What is one
person's alone (PERSONAL) is sealed there under a key made of the layer's and of the person's secret.
"""

from __future__ import annotations

import copy
import enum
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.database import KeysChanged
from strongroom.database.catalogue import OPENED_FOR, PERSONAL, SENSITIVE
from strongroom.kernel.errors import Broken, Failure, Forbidden
from strongroom.kernel.secret import Secret
from strongroom.vault.blind import BlindIndexes
from strongroom.vault.holders.contract import KeyUnavailable, Reason

FORMAT: Final = 2
COMMITMENT_BYTES: Final = 16
HEADER_BYTES: Final = 6 + COMMITMENT_BYTES
"""Format, layer, key version (4 bytes), key commitment."""
PERSON_FORMAT: Final = 3
"""Of the inner envelopes of what is one person's alone."""
PERSON_HEADER_BYTES: Final = HEADER_BYTES + 8
"""The same, with the person's number (8 bytes) before the commitment."""
FIRST_HEADER_BYTES: Final = 5
NONCE_BYTES: Final = 12
_START: Final = HEADER_BYTES + NONCE_BYTES
INDEX_BYTES: Final = 16
PREFIX_BYTES: Final = 10
"""The random part of a nonce; the rest counts."""
_FIRST: Final = b"\x01"
"""How envelopes of format 1 begin."""
_VERSION_END: Final = 6
"""Where an envelope's format, layer and key version end."""
_OF_PERSON: Final = bytes([PERSON_FORMAT])
_KEY_BYTES: Final = 32
MAX_PERSONS: Final = 1_024
"""Persons for whom a process has what it needs to open at hand, for each customer's layer."""
Decrypt = Callable[[bytes, bytes, bytes], bytes]
"""Nonce, ciphertext and tag, associated data → content."""
_COUNTS: Final = tuple(count.to_bytes(2, "big") for count in range(1 << 16))


class Layer(enum.StrEnum):
    """Whose key an envelope is sealed under."""

    PLATFORM = "platform"
    CUSTOMER = "customer"

    @property
    def code(self) -> int:
        """The byte that stands for it in a header: P or C."""
        return self.value.upper().encode()[0]


class LayerCipher:
    """Seals with the newest data key of one layer of a scope, opens with any that it has."""

    def __init__(self, scope: UUID, layer: Layer, keys: Mapping[int, Secret[bytes]]) -> None:
        """`keys` by version, at least one; the newest of them seals."""
        self.layer = layer
        self.newest = max(keys)
        self.versions = frozenset(keys)
        self._scope = scope
        self._keys = keys
        self._decrypt: dict[bytes, Decrypt] = {}
        self._persons: dict[tuple[int, int], tuple[bytes, PersonCipher]] = {}
        for version, key in keys.items():
            derived = derive(scope, layer, version, key)
            header = bytes([FORMAT, layer.code]) + version.to_bytes(4, "big") + derived[_KEY_BYTES:]
            cipher = AESGCM(derived[:_KEY_BYTES])
            self._decrypt[header] = cipher.decrypt
            if version == self.newest:
                self.header, self._encrypt = header, cipher.encrypt
        self._first = (
            {version: AESGCM(key.reveal()) for version, key in keys.items()} if layer is Layer.PLATFORM else {}
        )
        self.draw_nonces()
        _drawing.add(self)

    def draw_nonces(self) -> None:
        """Begin a new series of 2^16 nonces: a fresh random prefix, then a count."""
        self._nonces: Iterator[bytes] = map(os.urandom(PREFIX_BYTES).__add__, _COUNTS)

    def seal(self, context: bytes, row: bytes, plaintext: bytes) -> bytes:
        """An envelope of format 2."""
        nonce = next(self._nonces, None) or self.next_nonce()
        header = self.header
        return header + nonce + self._encrypt(nonce, plaintext, context + row + header)

    def open(self, context: bytes, row: bytes, envelope: bytes) -> bytes | None:
        """What an envelope of format 2 holds; None when it doesn't open here."""
        header = envelope[:HEADER_BYTES]
        decrypt = self._decrypt.get(header)
        if decrypt is None:
            return None
        try:
            return decrypt(envelope[HEADER_BYTES:_START], envelope[_START:], context + row + header)
        except (InvalidTag, ValueError):
            return None

    def is_younger(self, envelope: bytes) -> bool:
        """Whether an envelope says that it is under a younger key of this layer than any here."""
        is_ours = envelope[:1] in {self.header[:1], _OF_PERSON} and envelope[1:2] == self.header[1:2]
        return is_ours and version_of(envelope) > self.newest

    def for_person(self, version: int, person: int, persons: Persons) -> PersonCipher | None:
        """What seals and opens for one person under the data key of this version, which there must be.

        None when the person's secret was destroyed. Whether it stands is looked up each time; what is made of it is
        kept for as long as this cipher, which is the customer's and no older than its lease.

        Raises as `Persons`.
        """
        kept = persons.read(person)
        place = version, person
        known = self._persons.get(place)
        if known is not None and known[0] == kept:
            return known[1]
        self._persons.pop(place, None)
        if kept is None:
            return None
        derived = derive_for_person(
            self._scope, self.layer, version, self._keys[version], person=person, secret=persons.open(person, kept)
        )
        cipher = PersonCipher(self.layer, version, person, derived)
        if len(self._persons) >= MAX_PERSONS:
            del self._persons[next(iter(self._persons))]
        self._persons[place] = kept, cipher
        return cipher

    def next_nonce(self) -> bytes:
        """One that this layer, in this process, uses once."""
        nonce = next(self._nonces, None)
        while nonce is None:
            self.draw_nonces()
            nonce = next(self._nonces, None)
        return nonce

    def open_first(self, context: bytes, row: bytes, envelope: bytes) -> bytes | None:
        """The same for format 1, which only the platform's layer has."""
        header = envelope[:FIRST_HEADER_BYTES]
        cipher = self._first.get(int.from_bytes(header[1:], "big"))
        if cipher is None:
            return None
        start = FIRST_HEADER_BYTES + NONCE_BYTES
        try:
            return cipher.decrypt(envelope[FIRST_HEADER_BYTES:start], envelope[start:], context + row + header)
        except (InvalidTag, ValueError):
            return None


class PersonCipher:
    """Seals and opens for one person."""

    def __init__(self, layer: Layer, version: int, person: int, derived: bytes) -> None:
        """`derived` is what `derive_for_person` makes of the layer's data key of this version."""
        names = bytes([PERSON_FORMAT, layer.code]) + version.to_bytes(4, "big") + person.to_bytes(8, "big")
        self._header = names + derived[_KEY_BYTES:]
        self._cipher = AESGCM(derived[:_KEY_BYTES])

    def seal(self, nonce: bytes, context: bytes, row: bytes, plaintext: bytes) -> bytes:
        """An envelope of format 3. `nonce` is the layer's next."""
        header = self._header
        return header + nonce + self._cipher.encrypt(nonce, plaintext, context + row + header)

    def open(self, context: bytes, row: bytes, envelope: bytes) -> bytes | None:
        """What an envelope of format 3 holds; None when it doesn't open here."""
        header, start = envelope[:PERSON_HEADER_BYTES], PERSON_HEADER_BYTES + NONCE_BYTES
        if header != self._header:
            return None
        try:
            return self._cipher.decrypt(envelope[PERSON_HEADER_BYTES:start], envelope[start:], context + row + header)
        except (InvalidTag, ValueError):
            return None


_drawing: Final[weakref.WeakSet[LayerCipher]] = weakref.WeakSet()


def _draw_anew() -> None:
    for cipher in _drawing:
        cipher.draw_nonces()


# A forked child would go on with its parent's prefix and count.
os.register_at_fork(after_in_child=_draw_anew)


class CustomerLayer(Protocol):
    """The customer's layer of a scope, as far as it can be used now."""

    @property
    def newest(self) -> int:
        """The version of its data key that seals, whether or not it can be used now; 0 when all are destroyed."""
        ...

    def cipher(self) -> LayerCipher:
        """Its cipher.

        Raises errors.Unavailable (`KEY_UNAVAILABLE`) when the customer's key is away, disabled or gone, and
        errors.Broken (`DATA_KEY_BROKEN`) when its data keys don't open.
        """
        ...


class Persons(Protocol):
    """The secrets of persons, by number; the implementation is `holders.persons.PersonSecrets`.

    Both raise errors.Unavailable (`KEY_UNAVAILABLE`) and errors.Broken (`KEY_FILE_BROKEN`, `KEY_FILE_UNSAFE`).
    """

    def read(self, person: int) -> bytes | None:
        """A person's secret as it is kept at this moment, encrypted; None when it was destroyed."""
        ...

    def open(self, person: int, kept: bytes) -> Secret[bytes]:
        """What `read` gave, decrypted."""
        ...


class ScopeCipher:
    """The ciphers of a scope; implements `kernel.cipher.Cipher`."""

    def __init__(
        self,
        scope: UUID,
        platform: LayerCipher,
        index_key: Secret[bytes],
        customer: CustomerLayer | None = None,
        search_keys: Mapping[int, Secret[bytes]] | None = None,
        *,
        persons: Persons | None = None,
    ) -> None:
        """`customer` and `persons` are None for a scope without sensitive columns: an account.

        `search_keys` are by version.
        """
        self._scope = scope
        self.persons = persons
        """The region's, for a tenant."""
        self._person: int | None = None
        self._purpose = ""
        self._blind = BlindIndexes(scope, search_keys or {})
        self._declared: dict[str, ScopeCipher] = {}
        self._openable: dict[tuple[str, str], tuple[bytes, bytes | None]] = {}
        """Of `_places`, those that may be opened for the purpose."""
        self._dismissed: set[bytes] = set()
        """Beginnings of envelopes that name a version younger than any that there is: they were altered."""
        self._platform = platform
        self._customer = customer
        self._index_key = index_key
        self._columns: dict[tuple[str, str], HMAC] = {}
        self._places: dict[tuple[str, str], tuple[bytes, bytes | None]] = {}

    def seal(self, table: str, column: str, row: bytes, plaintext: bytes) -> bytes:
        """See `kernel.cipher.Cipher.seal`."""
        outer, inner = self._places.get((table, column)) or self._place(table, column)
        if inner is not None:
            cipher, person = self._inner(table, column), None
            if (table, column) in PERSONAL:
                person = self._person
                if person is None:
                    raise LookupError(f"{table}.{column} is one person's alone, and this cipher is for nobody's")
            plaintext = self._sealed_inside(cipher, person, inner, row, plaintext)
        return self._platform.seal(outer, row, plaintext)

    def seal_for_nobody(self, table: str, column: str, row: bytes, plaintext: bytes) -> bytes:
        """As `seal`, what is one person's alone as well: for work that finds out later whose it is."""
        outer, inner = self._places.get((table, column)) or self._place(table, column)
        if inner is not None:
            plaintext = self._inner(table, column).seal(inner, row, plaintext)
        return self._platform.seal(outer, row, plaintext)

    def open(self, table: str, column: str, row: bytes, envelope: bytes) -> bytes:
        """See `kernel.cipher.Cipher.open`."""
        place = self._openable.get((table, column)) or self._openable_place(table, column)
        return self._opened(table, column, row, envelope, place)

    def check(self, table: str, column: str, row: bytes, envelope: bytes) -> None:
        """Go on only if it opens. Raises as `open`, but for want of a purpose: nobody gets to see the content."""
        place = self._places.get((table, column)) or self._place(table, column)
        self._opened(table, column, row, envelope, place)

    def _opened(self, table: str, column: str, row: bytes, envelope: bytes, place: tuple[bytes, bytes | None]) -> bytes:
        """The content. What opens at once comes first; why something doesn't is found out afterwards."""
        outer, inner = place
        opened = self._platform.open(outer, row, envelope)
        if opened is None:
            return self._opened_first(table, column, row, envelope)
        if inner is None:
            return opened
        cipher = self._inner(table, column)
        content = cipher.open(inner, row, opened)
        if content is None:
            if _is_past(cipher, opened):
                raise KeyUnavailable("none", Reason.GONE, "it was destroyed, and with it what it sealed")
            content = self._opened_inside(cipher, inner, row, opened)
            if content is None:
                raise self._refusal(table, column, cipher, opened)
        return content

    def _opened_first(self, table: str, column: str, row: bytes, envelope: bytes) -> bytes:
        """The same from before there were layers (format 1); re-encryption ends them."""
        opened = None
        if envelope[:1] == _FIRST:
            opened = self._platform.open_first(self._first_context(table, column), row, envelope)
        if opened is None:
            raise self._refusal(table, column, self._platform, envelope)
        return opened

    def for_purpose(self, purpose: str) -> ScopeCipher:
        """See `kernel.cipher.Cipher.for_purpose`."""
        declared = self._declared.get(purpose)
        if declared is None:
            declared = copy.copy(self)
            declared._purpose, declared._openable = purpose, {}
            self._declared[purpose] = declared
        return declared

    def for_person(self, person: int) -> ScopeCipher:
        """See `kernel.cipher.Cipher.for_person`."""
        found = copy.copy(self)
        found._person = person
        found._declared = {}
        return found

    def reseal(self, table: str, column: str, row: bytes, envelope: bytes) -> bytes | None:
        """The same content under the newest data keys; None when it is sealed by them already.

        The customer's key is needed only for what is sealed by an older data key of the customer's layer, or was never
        sealed under it. What is lost with a destroyed key is left as it is inside. What is one person's alone stays
        that person's; where it isn't yet, it becomes the person's whom this cipher is for, if any. Nobody gets to see
        the content, so no purpose is needed. Raises as `open`.
        """
        outer, inner = self._places.get((table, column)) or self._place(table, column)
        if envelope[:1] == _FIRST:
            first = self._platform.open_first(self._first_context(table, column), row, envelope)
            if first is None:
                raise broken(table, column)
            return self.seal_for_nobody(table, column, row, first)
        is_newest = envelope[:HEADER_BYTES] == self._platform.header
        if is_newest and inner is None:
            return None
        content = self._platform.open(outer, row, envelope)
        if content is None:
            raise self._refusal(table, column, self._platform, envelope)
        is_behind = self._customer is not None and version_of(content) != self._customer.newest
        person = person_of(content)
        if person is None and self._person is not None and (table, column) in PERSONAL:
            person, is_behind = self._person, True
        if inner is not None and is_behind and not self._is_lost(table, column, content):
            cipher = self._inner(table, column)
            opened = self._opened_inside(cipher, inner, row, content)
            if opened is None:
                raise self._refusal(table, column, cipher, content)
            content = self._sealed_inside(cipher, person, inner, row, opened)
        elif is_newest:
            return None
        return self._platform.seal(outer, row, content)

    def is_personal(self, table: str, column: str, row: bytes, envelope: bytes) -> bool:
        """Whether it is sealed for a person. Raises as `open`, but for want of a purpose."""
        outer, _ = self._places.get((table, column)) or self._place(table, column)
        content = self._platform.open(outer, row, envelope)
        if content is None:
            raise self._refusal(table, column, self._platform, envelope)
        return person_of(content) is not None

    def is_lost(self, table: str, column: str, row: bytes, envelope: bytes) -> bool:
        """Whether something sensitive is sealed for good: under a data key of the customer's that is destroyed, or for
        a person whose secret is.

        Raises as `open`, but for want of a purpose: nobody gets to see the content.
        """
        outer, _ = self._places.get((table, column)) or self._place(table, column)
        if envelope[:1] == _FIRST:
            return False
        content = self._platform.open(outer, row, envelope)
        if content is None:
            raise self._refusal(table, column, self._platform, envelope)
        return self._is_lost(table, column, content)

    def _is_lost(self, table: str, column: str, content: bytes) -> bool:
        """The same of an inner envelope. A version newer than the newest known is no such thing: it came meanwhile."""
        if self._customer is not None and not self._customer.newest:
            return True
        if _is_past(self._inner(table, column), content):
            return True
        person = person_of(content)
        return person is not None and self._known_persons().read(person) is None

    def _opened_inside(self, cipher: LayerCipher, inner: bytes, row: bytes, content: bytes) -> bytes | None:
        """What the customer's layer's envelope holds; None when it doesn't open here."""
        person, version = person_of(content), version_of(content)
        if person is None:
            return cipher.open(inner, row, content)
        if version not in cipher.versions:
            return None
        return self._of_person(cipher, version, person).open(inner, row, content)

    def _sealed_inside(
        self, cipher: LayerCipher, person: int | None, inner: bytes, row: bytes, plaintext: bytes
    ) -> bytes:
        if person is None:
            return cipher.seal(inner, row, plaintext)
        return self._of_person(cipher, cipher.newest, person).seal(cipher.next_nonce(), inner, row, plaintext)

    def _of_person(self, cipher: LayerCipher, version: int, person: int) -> PersonCipher:
        found = cipher.for_person(version, person, self._known_persons())
        if found is None:
            raise KeyUnavailable("none", Reason.GONE, "the person was forgotten, and it was destroyed with them")
        return found

    def _known_persons(self) -> Persons:
        if self.persons is None:
            raise LookupError("this cipher knows no persons")
        return self.persons

    def index(self, table: str, column: str, value: str) -> bytes:
        """See `kernel.cipher.Cipher.index`: HMAC-SHA-256 (RFC 2104) under a key of the column, first 16 bytes."""
        keyed = self._columns.get((table, column))
        if keyed is None:
            key = _mac(HMAC(self._index_key.reveal(), SHA256()), f"{table}\0{column}".encode())
            keyed = self._columns[table, column] = HMAC(key, SHA256())
        return _mac(keyed, value.encode())[:INDEX_BYTES]

    def blind(self, table: str, column: str, value: str) -> bytes:
        """See `kernel.cipher.Cipher.blind`. Raises as `blinds`."""
        return self._blind.entries(table, column, value)[0]

    def blinds(self, table: str, column: str, value: str) -> Sequence[bytes]:
        """See `kernel.cipher.Cipher.blinds`. Raises errors.Unavailable (`SEARCH_KEY_MISSING`)."""
        return self._blind.entries(table, column, value)

    def _refusal(self, table: str, column: str, layer: LayerCipher, envelope: bytes) -> KeysChanged | Broken:
        """Why an envelope doesn't open: perhaps its key is younger than this cipher, else it is broken."""
        named = envelope[:_VERSION_END]
        if not layer.is_younger(envelope) or named in self._dismissed:
            return broken(table, column)

        def there_is_none() -> Broken:
            self._dismissed.add(named)
            return broken(table, column)

        return KeysChanged(there_is_none)

    def _openable_place(self, table: str, column: str) -> tuple[bytes, bytes | None]:
        """As `_place`, if it may be opened for the purpose."""
        outer, inner = self._places.get((table, column)) or self._place(table, column)
        if inner is not None:
            self._check_purpose(table, column)
        place = self._openable[table, column] = outer, inner
        return place

    def _check_purpose(self, table: str, column: str) -> None:
        if not self._purpose:
            raise Forbidden(
                Failure(
                    "PURPOSE_NOT_DECLARED",
                    "{table}.{column} opens only for a purpose, and none was declared.",
                    {"table": table, "column": column},
                )
            )
        if self._purpose not in OPENED_FOR[table, column]:
            raise Forbidden(
                Failure(
                    "PURPOSE_NOT_ALLOWED",
                    "{table}.{column} may not be opened for {purpose}.",
                    {"table": table, "column": column, "purpose": str(self._purpose)},
                )
            )

    def _place(self, table: str, column: str) -> tuple[bytes, bytes | None]:
        """What an envelope of this column is bound to, outside and (for sensitive ones) inside, but for its row."""
        place = self._places[table, column] = (
            context_of(self._scope, Layer.PLATFORM, table, column),
            context_of(self._scope, Layer.CUSTOMER, table, column) if (table, column) in SENSITIVE else None,
        )
        return place

    def _first_context(self, table: str, column: str) -> bytes:
        return b"strongroom envelope\0" + self._scope.bytes + f"{table}\0{column}\0".encode()

    def _inner(self, table: str, column: str) -> LayerCipher:
        if self._customer is None:
            raise Broken(
                Failure(
                    "DATA_KEY_MISSING",
                    "There is no data key for {table}.{column} in this account or tenant.",
                    {"table": table, "column": column},
                )
            )
        return self._customer.cipher()


def derive(scope: UUID, layer: Layer, version: int, key: Secret[bytes]) -> bytes:
    """The 32 bytes that seal and the 16 that commit to them, from a data key (HKDF-SHA-256, RFC 5869)."""
    info = b"strongroom envelope 2\0" + scope.bytes + bytes([layer.code]) + version.to_bytes(4, "big")
    return HKDF(SHA256(), _KEY_BYTES + COMMITMENT_BYTES, salt=None, info=info).derive(key.reveal())


def derive_for_person(
    scope: UUID, layer: Layer, version: int, key: Secret[bytes], *, person: int, secret: Secret[bytes]
) -> bytes:
    """The same of a data key and a person's secret together: neither is of use without the other.

    Two-step key derivation (NIST SP 800-56C revision 2, section 5) of the hybrid secret of section 2, data key first,
    as HKDF-SHA-256 (RFC 5869).
    """
    info = b"strongroom person 1\0" + scope.bytes + bytes([layer.code]) + version.to_bytes(4, "big")
    derivation = HKDF(SHA256(), _KEY_BYTES + COMMITMENT_BYTES, salt=None, info=info + person.to_bytes(8, "big"))
    return derivation.derive(key.reveal() + secret.reveal())


def context_of(scope: UUID, layer: Layer, table: str, column: str) -> bytes:
    """The associated data of an envelope of format 2, up to its row (and then its header)."""
    return b"strongroom envelope 2\0" + scope.bytes + bytes([layer.code]) + f"{table}\0{column}\0".encode()


def version_of(envelope: bytes) -> int:
    """The version of the data key that a well-formed envelope says it is sealed by."""
    if envelope[:1] == _FIRST:
        return int.from_bytes(envelope[1:5], "big")
    return int.from_bytes(envelope[2:_VERSION_END], "big")


def person_of(envelope: bytes) -> int | None:
    """The number of the person for whom a well-formed envelope is sealed, if it is one person's alone."""
    return int.from_bytes(envelope[6:14], "big") if envelope[:1] == _OF_PERSON else None


def broken(table: str, column: str) -> Broken:
    """The refusal of an envelope that doesn't open."""
    return Broken(
        Failure(
            "ENVELOPE_BROKEN",
            "A sealed field ({table}.{column}) does not open where it stands: it was altered, or it belongs elsewhere.",
            {"table": table, "column": column},
        )
    )


def _is_past(cipher: LayerCipher, envelope: bytes) -> bool:
    """Whether an envelope is under a data key that was destroyed: an older one than there are."""
    version = version_of(envelope)
    return version not in cipher.versions and version < max(cipher.versions)


def _mac(keyed: HMAC, value: bytes) -> bytes:
    """HMAC (RFC 2104) of a value; the copy saves setting the key up again, which costs more than the hash."""
    mac = keyed.copy()
    mac.update(value)
    return mac.finalize()
