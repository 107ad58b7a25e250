"""The card vault's keys: a root of its own in a file, and under it two keys per tenant, kept wrapped in its database.

Layout of an envelope, version 1: one byte `0x01`; the tenant key's version, 4 bytes big-endian; 32 bytes that commit to
the key; a random 96-bit nonce; AES-256-GCM ciphertext with its 128-bit tag (NIST SP 800-38D). Key and commitment come
out of HKDF-SHA-256 (RFC 5869) of the tenant's key for this tenant, token and field alone, so that every field has a key
of its own, under which nonces are drawn only when the field is written: they can't run out. The associated data repeats
where the envelope stands.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from typing import Any, Final, Literal
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.database.operation import Connection
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Broken, Failure
from strongroom.kernel.secret import Secret

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
COMMITMENT_BYTES: Final = 32
HEADER_BYTES: Final = 5
FORMAT: Final = 1
FINGERPRINT_BYTES: Final = 20
MAX_REMEMBERED: Final = 1_000
"""Most tenants whose keys are kept unwrapped in memory."""
Purpose = Literal["seal", "fingerprint"]


class TenantKeys:
    """Seals, opens and fingerprints for one tenant."""

    def __init__(self, tenant: UUID, seal: Mapping[int, Secret[bytes]], fingerprint: Secret[bytes]) -> None:
        self._tenant = tenant
        self._seal = seal
        self._newest = max(seal)
        self._fingerprint = fingerprint

    def seal(self, token: str, field: str, plaintext: bytes | bytearray) -> bytes:
        """An envelope that opens for this tenant, token and field only."""
        header = bytes([FORMAT]) + self._newest.to_bytes(4, "big")
        key, commitment = self._derive(self._newest, token, field)
        nonce = os.urandom(NONCE_BYTES)
        return header + commitment + nonce + AESGCM(key).encrypt(nonce, plaintext, self._place(token, field) + header)

    def open(self, token: str, field: str, envelope: bytes) -> bytes:
        """The plaintext. Raises errors.Broken (`CARD_ENVELOPE_BROKEN`) when it was altered or belongs elsewhere."""
        header, rest = bytes(envelope[:HEADER_BYTES]), bytes(envelope[HEADER_BYTES:])
        version = int.from_bytes(header[1:], "big")
        if len(header) < HEADER_BYTES or header[0] != FORMAT or version not in self._seal:
            raise _broken()
        key, commitment = self._derive(version, token, field)
        if not hmac.compare_digest(commitment, rest[:COMMITMENT_BYTES]):
            raise _broken()
        rest = rest[COMMITMENT_BYTES:]
        try:
            return AESGCM(key).decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], self._place(token, field) + header)
        except (InvalidTag, ValueError):
            raise _broken() from None

    def fingerprint(self, value: bytes) -> bytes:
        """A keyed hash of a whole number (HMAC-SHA-256, first 160 bits): equal for equal numbers of one tenant, telling
        nothing without the key (PCI DSS 4.0.1 requirement 3.5.1.1)."""
        return hmac.digest(self._fingerprint.reveal(), value, "sha256")[:FINGERPRINT_BYTES]

    def _derive(self, version: int, token: str, field: str) -> tuple[bytes, bytes]:
        info = b"strongroom card\0" + self._place(token, field)
        derived = HKDF(algorithm=SHA256(), length=KEY_BYTES + COMMITMENT_BYTES, salt=None, info=info).derive(
            self._seal[version].reveal()
        )
        return derived[:KEY_BYTES], derived[KEY_BYTES:]

    def _place(self, token: str, field: str) -> bytes:
        return self._tenant.bytes + f"{token}\0{field}\0".encode()


class CardKeys:
    """Makes and unwraps tenants' keys under the root."""

    def __init__(self, root: Secret[bytes], environment: Environment) -> None:
        if len(root.reveal()) != KEY_BYTES:
            raise ValueError(f"the root key has {KEY_BYTES} bytes")
        self._root = AESGCM(root.reveal())
        self._environment = environment
        self._known: dict[UUID, TenantKeys] = {}

    async def of(self, connection: Connection, tenant: UUID) -> TenantKeys:
        """The tenant's keys, made when there are none. `connection` is in a transaction of the tenant.

        Raises errors.Broken (`CARD_KEY_BROKEN`) when they don't open under this root.
        """
        known = self._known.get(tenant)
        if known is None:
            rows = await self._rows(connection, tenant)
            if not rows:
                await self._make(connection, tenant)
                rows = await self._rows(connection, tenant)
                # Not remembered yet: what made them may still be rolled back.
                return self._unwrap(tenant, rows)
            if len(self._known) >= MAX_REMEMBERED:
                del self._known[next(iter(self._known))]
            known = self._known[tenant] = self._unwrap(tenant, rows)
        return known

    async def _rows(self, connection: Connection, tenant: UUID) -> list[tuple[Any, ...]]:
        cursor = await connection.execute(
            "select purpose, version, wrapped from card_keys where tenant_id = %s", (tenant,), binary=True
        )
        return await cursor.fetchall()

    async def _make(self, connection: Connection, tenant: UUID) -> None:
        purposes: tuple[Purpose, Purpose] = ("seal", "fingerprint")
        for purpose in purposes:
            await connection.execute(
                "insert into card_keys (tenant_id, purpose, version, wrapped, created_at) "
                "values (%s, %s, 1, %s, now()) on conflict do nothing",
                (tenant, purpose, self._wrap(tenant, purpose, 1, os.urandom(KEY_BYTES))),
            )

    def _wrap(self, tenant: UUID, purpose: Purpose, version: int, key: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._root.encrypt(nonce, key, self._context(tenant, purpose, version))

    def _unwrap(self, tenant: UUID, rows: list[tuple[Any, ...]]) -> TenantKeys:
        keys: dict[Purpose, dict[int, Secret[bytes]]] = {"seal": {}, "fingerprint": {}}
        for purpose, version, wrapped in rows:
            context = self._context(tenant, purpose, version)
            try:
                key = self._root.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], context)
            except (InvalidTag, ValueError):
                raise Broken(
                    Failure(
                        "CARD_KEY_BROKEN",
                        "A key of the card vault does not open under its root key: it was altered, or it belongs to "
                        "another installation. Restore the root.key that it was made with.",
                    )
                ) from None
            keys[purpose][version] = Secret(key)
        return TenantKeys(tenant, keys["seal"], keys["fingerprint"][1])

    def _context(self, tenant: UUID, purpose: Purpose, version: int) -> bytes:
        place = (b"strongroom card key", self._environment.encode(), tenant.bytes, purpose.encode())
        return b"\0".join((*place, version.to_bytes(4, "big")))


def _broken() -> Broken:
    return Broken(
        Failure(
            "CARD_ENVELOPE_BROKEN",
            "A sealed card does not open where it stands: it was altered, or it belongs elsewhere.",
        )
    )
