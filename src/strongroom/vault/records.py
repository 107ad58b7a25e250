"""What the database holds of a scope's keys: its scope keys and its data keys, as rows.

A scope key wraps the data keys of its layer; a data key seals fields, or makes keyed hashes. The newest ACTIVE version
is the one in use; RETIRING ones open what is not yet under it; a DESTROYED one opens nothing any more. DISABLED (scope
keys of the customer's layer only) stands for: back when somebody enables it.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from strongroom.database.operation import Connection
from strongroom.kernel.config import Environment
from strongroom.kernel.ids import AccountId, TenantId, new_uuid
from strongroom.vault.envelopes import Layer

Purpose = Literal["seal", "index", "search"]
SCOPE_KEY_PERIOD: Final = timedelta(days=2 * 365)
"""How long a scope key wraps (NIST SP 800-57 part 1, section 5.3.6: at most 2 years for a key that wraps keys)."""
DATA_KEY_PERIOD: Final = timedelta(days=365)
"""How long a data key seals (the same section: at most 2 years for a key that encrypts data)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose keys: a tenant's, or above tenants an account's."""

    account: AccountId
    tenant: TenantId | None = None

    @property
    def id(self) -> UUID:
        """As the keys' rows have it."""
        return self.tenant or self.account


class KeyState(enum.StrEnum):
    """Where a key is in its life."""

    ACTIVE = "ACTIVE"
    RETIRING = "RETIRING"
    DISABLED = "DISABLED"
    DESTROYED = "DESTROYED"


class Source(enum.StrEnum):
    """Where a scope key comes from."""

    KEPT = "kept"
    """We made it, and the installation's holder keeps it."""
    IMPORTED = "imported"
    """The customer made it and brought it; the installation's holder keeps it."""
    HELD = "held"
    """It is in a holder of the customer's own, and only used there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeKey:
    """One version of a scope key. `wrapped` (under the root) is None in the customer's layer."""

    layer: Layer
    version: int
    state: KeyState
    source: Source
    holder: str
    reference: str
    wrapped: bytes | None
    created_at: datetime
    changed_at: datetime
    expires_at: datetime
    retired_at: datetime | None
    destroy_after: datetime | None
    destroy_asked_by: str | None
    destroy_approved_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKey:
    """One version of a data key. `scope_key_version` is None where it is wrapped under the root itself."""

    layer: Layer
    purpose: Purpose
    version: int
    state: KeyState
    wrapped: bytes
    scope_key_version: int | None
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys of a scope, by layer and version."""

    scope_keys: Sequence[ScopeKey]
    data_keys: Sequence[DataKey]

    def current(self, layer: Layer) -> ScopeKey | None:
        """The layer's newest scope key; None when the layer has none."""
        return max((key for key in self.scope_keys if key.layer is layer), key=lambda key: key.version, default=None)

    def find(self, layer: Layer, version: int) -> ScopeKey | None:
        """One version of a layer's scope key."""
        return next((key for key in self.scope_keys if key.layer is layer and key.version == version), None)

    def data(self, layer: Layer, purpose: Purpose = "seal") -> Sequence[DataKey]:
        """A layer's data keys that aren't destroyed, oldest first."""
        found = [key for key in self.data_keys if (key.layer, key.purpose) == (layer, purpose)]
        return sorted((key for key in found if key.state is not KeyState.DESTROYED), key=lambda key: key.version)


async def read_keys(connection: Connection, scope: UUID) -> Keys:
    """All keys of a scope. `connection` is in a transaction that sees the scope's rows."""
    scope_rows = await _rows(
        connection,
        "select layer, version, state, source, holder, reference, wrapped, created_at, changed_at, expires_at, "
        "retired_at, destroy_after, destroy_asked_by, destroy_approved_by from scope_keys where scope_id = %s "
        "order by layer, version",
        scope,
    )
    data_rows = await _rows(
        connection,
        "select layer, purpose, version, state, wrapped, scope_key_version, created_at, expires_at from data_keys "
        "where scope_id = %s order by layer, purpose, version",
        scope,
    )
    return Keys(
        [
            ScopeKey(
                layer=Layer(row[0]),
                version=row[1],
                state=KeyState(row[2]),
                source=Source(row[3]),
                holder=row[4],
                reference=row[5],
                wrapped=row[6],
                created_at=row[7],
                changed_at=row[8],
                expires_at=row[9],
                retired_at=row[10],
                destroy_after=row[11],
                destroy_asked_by=row[12],
                destroy_approved_by=row[13],
            )
            for row in scope_rows
        ],
        [
            DataKey(
                layer=Layer(row[0]),
                purpose=row[1],
                version=row[2],
                state=KeyState(row[3]),
                wrapped=row[4],
                scope_key_version=row[5],
                created_at=row[6],
                expires_at=row[7],
            )
            for row in data_rows
        ],
    )


async def insert_scope_key(connection: Connection, scope: UUID, key: ScopeKey) -> None:
    """Write a scope key's row."""
    await connection.execute(
        b"insert into scope_keys (scope_id, layer, version, state, source, holder, reference, wrapped, created_at, "
        b"changed_at, expires_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            scope,
            key.layer.value,
            key.version,
            key.state.value,
            key.source.value,
            key.holder,
            key.reference,
            key.wrapped,
            key.created_at,
            key.changed_at,
            key.expires_at,
        ),
        binary=True,
    )


async def insert_data_key(connection: Connection, scope: UUID, key: DataKey) -> None:
    """Write a data key's row."""
    await connection.execute(
        b"insert into data_keys (scope_id, layer, purpose, version, state, wrapped, scope_key_version, created_at, "
        b"expires_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            scope,
            key.layer.value,
            key.purpose,
            key.version,
            key.state.value,
            key.wrapped,
            key.scope_key_version,
            key.created_at,
            key.expires_at,
        ),
        binary=True,
    )


async def insert_indexing(connection: Connection, scope: UUID, now: datetime) -> None:
    """Have what was written before a tenant had a search key indexed under its first one (see `vault.work`)."""
    await connection.execute(
        b"insert into key_work (scope_id, work_id, kind, layer, version, state, started_at, updated_at) "
        b"values (%s, %s, 're-index', 'platform', 1, 'RUNNING', %s, %s)",
        (scope, new_uuid(), now, now),
        binary=True,
    )


async def write_rewrapped(connection: Connection, scope: UUID, key: DataKey) -> None:
    """Write a data key's new wrapping. Only who holds the scope's lock may."""
    await connection.execute(
        b"update data_keys set wrapped = %s, scope_key_version = %s "
        b"where scope_id = %s and layer = %s and purpose = %s and version = %s",
        (key.wrapped, key.scope_key_version, scope, key.layer.value, key.purpose, key.version),
        binary=True,
    )


def scope_key_context(environment: Environment, scope: UUID, version: int) -> bytes:
    """What a platform's scope key is bound to where it is wrapped under the root."""
    return b"strongroom scope key\0" + environment.encode() + b"\0" + scope.bytes + version.to_bytes(4, "big")


def data_key_context(environment: Environment, scope: UUID, layer: Layer, purpose: str, version: int) -> bytes:
    """What a data key is bound to where it is wrapped under a scope key."""
    named = f"strongroom data key 2\0{environment.value}\0{layer.value}\0{purpose}\0".encode()
    return named + scope.bytes + version.to_bytes(4, "big")


def first_data_key_context(environment: Environment, scope: UUID, purpose: str, version: int) -> bytes:
    """The same where it is wrapped under the root itself, as all were before there were scope keys."""
    parts = (b"strongroom data key", environment.encode(), scope.bytes, purpose.encode(), version.to_bytes(4, "big"))
    return b"\0".join(parts)


async def _rows(connection: Connection, statement: str, *parameters: object) -> Sequence[tuple[Any, ...]]:
    cursor = await connection.execute(statement.encode(), parameters, binary=True)
    return await cursor.fetchall()
