"""The card vault's keys: a root of its own, and under it, for every tenant, a key that seals and one that fingerprints.

The root is held by a file of the vault's own folder (`holders.file`), under a passphrase if one is given; tenants' keys
are kept in the vault's database, wrapped under it. Each of them has versions: one is ACTIVE, those before it are
RETIRING (they open, and seal nothing) until nothing is under them, and DESTROYED from then on (`rotation`).

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
from strongroom.vault.holders import ROOT, FileHolder

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
COMMITMENT_BYTES: Final = 32
HEADER_BYTES: Final = 5
FORMAT: Final = 1
FINGERPRINT_BYTES: Final = 20
MAX_REMEMBERED: Final = 1_000
"""Most tenants whose keys are kept unwrapped in memory."""
Purpose = Literal["seal", "fingerprint"]
PURPOSES: Final[tuple[Purpose, Purpose]] = ("seal", "fingerprint")


class TenantKeys:
    """Seals, opens and fingerprints for one tenant."""

    def __init__(
        self, tenant: UUID, keys: Mapping[Purpose, Mapping[int, Secret[bytes]]], active: Mapping[Purpose, int]
    ) -> None:
        """`keys` by purpose and version, `active` the version of each that is used for what is written."""
        self._tenant = tenant
        self._seal = keys["seal"]
        self._fingerprint = keys["fingerprint"]
        self.active = dict(active)

    @property
    def header(self) -> bytes:
        """How an envelope that is sealed now begins."""
        return header_of(self.active["seal"])

    @property
    def fingerprint_version(self) -> int:
        """The version of the key that fingerprints now."""
        return self.active["fingerprint"]

    @property
    def fingerprint_versions(self) -> list[int]:
        """All versions of the fingerprint key that are there, the one in use first."""
        return sorted(self._fingerprint, key=lambda version: (version != self.fingerprint_version, -version))

    def seal(self, token: str, field: str, plaintext: bytes | bytearray) -> bytes:
        """An envelope that opens for this tenant, token and field only."""
        header = self.header
        key, commitment = self._derive(self.active["seal"], token, field)
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

    def fingerprint(self, value: bytes, version: int | None = None) -> bytes:
        """A keyed hash of a whole number (HMAC-SHA-256, first 160 bits): equal for equal numbers of one tenant, telling
        nothing without the key (PCI DSS 4.0.1 requirement 3.5.1.1). Under the version in use unless one is named."""
        key = self._fingerprint[self.fingerprint_version if version is None else version]
        return hmac.digest(key.reveal(), value, "sha256")[:FINGERPRINT_BYTES]

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

    def __init__(self, holder: FileHolder, environment: Environment) -> None:
        """`holder` has the root. It is asked within transactions: a file of ours is neither slow nor away."""
        self._holder = holder
        self._environment = environment
        self._known: dict[UUID, TenantKeys] = {}

    async def of(self, connection: Connection, tenant: UUID) -> TenantKeys:
        """The tenant's keys as they are from the transaction's beginning to its end, made when there are none.

        `connection` is in a transaction of the tenant. Raises errors.Broken (`CARD_KEY_BROKEN`) when they don't open
        under this root.
        """
        rows = await self._active(connection, tenant)
        if not rows:
            for purpose in PURPOSES:
                await self.add(connection, tenant, purpose, 1)
            # Not remembered yet: what made them may still be rolled back.
            return await self._load(connection, tenant)
        known = self._known.get(tenant)
        if known is None or known.active != rows:
            loaded = await self._load(connection, tenant)
            self.forget(tenant)
            if len(self._known) >= MAX_REMEMBERED:
                del self._known[next(iter(self._known))]
            known = self._known[tenant] = loaded
        return known

    async def add(self, connection: Connection, tenant: UUID, purpose: Purpose, version: int) -> None:
        """Make a version of a key, which is the ACTIVE one. When it is there already, nothing changes."""
        wrapped = await self._wrap(tenant, purpose, version, Secret(os.urandom(KEY_BYTES)))
        await connection.execute(
            "insert into card_keys (tenant_id, purpose, version, wrapped, created_at) "
            "values (%s, %s, %s, %s, now()) on conflict do nothing",
            (tenant, purpose, version, wrapped),
        )

    async def rewrap(self, tenant: UUID, purpose: Purpose, version: int, wrapped: bytes) -> bytes:
        """A wrapped key under the root as it is now. Raises errors.Broken (`CARD_KEY_BROKEN`)."""
        return await self._wrap(tenant, purpose, version, await self._unwrap(tenant, purpose, version, wrapped))

    def forget(self, tenant: UUID) -> None:
        """Let go of the tenant's keys in memory: they have changed."""
        self._known.pop(tenant, None)

    async def _active(self, connection: Connection, tenant: UUID) -> dict[Purpose, int]:
        cursor = await connection.execute(
            "select purpose, version from card_keys where tenant_id = %s and state = 'ACTIVE'", (tenant,), binary=True
        )
        return {row[0]: row[1] for row in await cursor.fetchall()}

    async def _load(self, connection: Connection, tenant: UUID) -> TenantKeys:
        cursor = await connection.execute(
            "select purpose, version, wrapped, state from card_keys where tenant_id = %s and state <> 'DESTROYED'",
            (tenant,),
            binary=True,
        )
        keys: dict[Purpose, dict[int, Secret[bytes]]] = {"seal": {}, "fingerprint": {}}
        active: dict[Purpose, int] = {}
        for row in await cursor.fetchall():
            purpose, version, wrapped, state = _typed(row)
            keys[purpose][version] = await self._unwrap(tenant, purpose, version, wrapped)
            if state == "ACTIVE":
                active[purpose] = version
        return TenantKeys(tenant, keys, active)

    async def _wrap(self, tenant: UUID, purpose: Purpose, version: int, key: Secret[bytes]) -> bytes:
        return await self._holder.wrap(ROOT, key, self._context(tenant, purpose, version))

    async def _unwrap(self, tenant: UUID, purpose: Purpose, version: int, wrapped: bytes) -> Secret[bytes]:
        try:
            return await self._holder.unwrap(ROOT, wrapped, self._context(tenant, purpose, version))
        except Broken:
            raise Broken(
                Failure(
                    "CARD_KEY_BROKEN",
                    "A key of the card vault does not open under its root key: it was altered, or it belongs to "
                    "another installation. Restore the root.key that it was made with.",
                )
            ) from None

    def _context(self, tenant: UUID, purpose: Purpose, version: int) -> bytes:
        place = (b"strongroom card key", self._environment.encode(), tenant.bytes, purpose.encode())
        return b"\0".join((*place, version.to_bytes(4, "big")))


def header_of(version: int) -> bytes:
    """How an envelope under this version of a sealing key begins."""
    return bytes([FORMAT]) + version.to_bytes(4, "big")


def _typed(row: tuple[Any, ...]) -> tuple[Purpose, int, bytes, str]:
    purpose, version, wrapped, state = row
    return purpose, version, bytes(wrapped), state


def _broken() -> Broken:
    return Broken(
        Failure(
            "CARD_ENVELOPE_BROKEN",
            "A sealed card does not open where it stands: it was altered, or it belongs elsewhere.",
        )
    )
