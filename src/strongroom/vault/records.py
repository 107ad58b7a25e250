"""What the database holds of a scope's keys: its scope keys and its data keys, as rows.

A scope key wraps the data keys of its layer; a data key seals fields, or makes keyed hashes. The newest ACTIVE version
is the one in use; RETIRING ones open what is not yet under it; a DESTROYED one opens nothing any more. DISABLED (scope
keys of the customer's layer only) stands for: back when somebody enables it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from strongroom.database import Databases, Packed, pack_bytes, pack_texts, pack_uuids
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


def is_over(key: ScopeKey | DataKey, now: datetime) -> bool:
    """Whether a key is in use beyond its cryptoperiod (NIST SP 800-57 part 1 revision 5, section 5.3).

    Not so the key that makes ids, which has to last as long as they do (docs/internals/keys.md).
    """
    if key.state is not KeyState.ACTIVE or key.expires_at is None or key.expires_at > now:
        return False
    return isinstance(key, ScopeKey) or key.purpose != "index"


def find_due(keys: Keys, now: datetime) -> ScopeKey | DataKey | None:
    """The first key whose cryptoperiod is over and that is ours to replace; a layer's scope key goes before the others.

    A scope key of the customer's making isn't. Nothing of a layer is, while its key is disabled or to be destroyed.
    """
    for layer in Layer:
        current = keys.current(layer)
        if current is None or current.state is not KeyState.ACTIVE or current.destroy_asked_by is not None:
            continue
        if current.source is Source.KEPT and is_over(current, now):
            return current
        for key in keys.data_keys:
            if key.layer is layer and is_over(key, now):
                return key
    return None


async def read_keys(connection: Connection, scope: UUID) -> Keys:
    """All keys of a scope. `connection` is in a transaction that sees the scope's rows."""
    scope_rows = await _rows(connection, _SCOPE_KEYS + "scope_keys where scope_id = %s order by layer, version", scope)
    data_rows = await _rows(
        connection, _DATA_KEYS + "data_keys where scope_id = %s order by layer, purpose, version", scope
    )
    return Keys([_scope_key(row) for row in scope_rows], [_data_key(row) for row in data_rows])


async def read_keys_of(connection: Connection, scopes: Sequence[Scope]) -> list[tuple[int, Keys]]:
    """All keys of each of these scopes, with the epoch that they are at least of.

    `connection` is in a transaction in their region; whose rows it sees afterwards is not to be relied on.
    """
    whose = pack_scopes(scopes)
    epochs = dict(await _rows(connection, "select scope_id, epoch from epochs_of(%s, %s)", *whose))
    scope_keys: dict[UUID, list[ScopeKey]] = {scope.id: [] for scope in scopes}
    for row in await _rows(connection, _SCOPE_KEYS + "scope_keys_of(%s, %s)", *whose):
        scope_keys[row[-1]].append(_scope_key(row))
    data_keys: dict[UUID, list[DataKey]] = {scope.id: [] for scope in scopes}
    for row in await _rows(connection, _DATA_KEYS + "data_keys_of(%s, %s)", *whose):
        data_keys[row[-1]].append(_data_key(row))
    return [(epochs.get(scope.id, 0), Keys(scope_keys[scope.id], data_keys[scope.id])) for scope in scopes]


def pack_scopes(scopes: Sequence[Scope]) -> tuple[Packed, Packed]:
    """The accounts and the tenants (or null) of scopes, as functions over many scopes take them."""
    return (
        pack_uuids([scope.account.bytes for scope in scopes]),
        pack_uuids([None if scope.tenant is None else scope.tenant.bytes for scope in scopes]),
    )


async def by_region(databases: Databases, scopes: Sequence[Scope]) -> Mapping[str, Sequence[Scope]]:
    """Scopes by where they live, in the order of their ids, so that whoever locks many of them does it in one order."""
    found: dict[str, list[Scope]] = {}
    for scope in sorted(scopes, key=lambda scope: scope.id):
        if scope.tenant is None:
            region = await databases.locate_account(scope.account)
        else:
            _, region = await databases.locate_tenant(scope.tenant)
        found.setdefault(region, []).append(scope)
    return found


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


async def write_rewrapped(connection: Connection, scope: UUID, keys: Sequence[DataKey]) -> None:
    """Write new wrappings of data keys, under one scope key. Only who holds the scope's lock may."""
    if not keys:
        return
    await connection.execute(
        b"update data_keys d set wrapped = u.wrapped, scope_key_version = %s "
        b"from unnest(%s, %s, %s::integer[], %s) as u(layer, purpose, version, wrapped) "
        b"where d.scope_id = %s and (d.layer, d.purpose, d.version) = (u.layer, u.purpose, u.version)",
        (
            keys[0].scope_key_version,
            pack_texts([key.layer.value for key in keys]),
            pack_texts([key.purpose for key in keys]),
            [key.version for key in keys],
            pack_bytes([key.wrapped for key in keys]),
            scope,
        ),
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


_SCOPE_KEYS: Final = (
    "select layer, version, state, source, holder, reference, wrapped, created_at, changed_at, expires_at, retired_at, "
    "destroy_after, destroy_asked_by, destroy_approved_by, scope_id from "
)
_DATA_KEYS: Final = (
    "select layer, purpose, version, state, wrapped, scope_key_version, created_at, expires_at, scope_id from "
)


def _scope_key(row: Sequence[Any]) -> ScopeKey:
    return ScopeKey(
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


def _data_key(row: Sequence[Any]) -> DataKey:
    return DataKey(
        layer=Layer(row[0]),
        purpose=row[1],
        version=row[2],
        state=KeyState(row[3]),
        wrapped=row[4],
        scope_key_version=row[5],
        created_at=row[6],
        expires_at=row[7],
    )


async def _rows(connection: Connection, statement: str, *parameters: object) -> Sequence[tuple[Any, ...]]:
    cursor = await connection.execute(statement.encode(), parameters, binary=True)
    return await cursor.fetchall()
