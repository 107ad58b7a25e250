"""The bodies of the routes of encryption keys. None ever holds a key, but for the public one of an import."""

from __future__ import annotations

from datetime import datetime

import msgspec

from strongroom.api.customer_vault import Link, SelfLink
from strongroom.api.routing import wire_name
from strongroom.vault import DataKey, ScopeKey, Source, Work, is_over


class DestructionBody(msgspec.Struct, rename=wire_name):
    """A destruction under way: asked for by one API key, final at `after` once another has approved it."""

    asked_by: str
    approved_by: str | None
    after: datetime | None


class ScopeKeyBody(msgspec.Struct, rename=wire_name):
    """A version of a scope key: it wraps the data keys of its layer.

    `source` is kept (made and kept here), imported (brought, and kept here) or held (used in `holder`, where it is
    called `reference`). `expiresOn` is the end of its cryptoperiod. A kept key is then rotated without being asked; one
    that is imported or held only its owner can replace, and `rotationDue` says that it is time.
    """

    links: SelfLink
    layer: str
    version: int
    purpose: str
    state: str
    source: str
    holder: str
    reference: str | None
    created_on: datetime
    changed_on: datetime
    expires_on: datetime
    rotation_due: bool
    destruction: DestructionBody | None


class DataKeyBody(msgspec.Struct, rename=wire_name):
    """A version of a data key: it seals fields (`seal`), or makes keyed hashes (`index` of ids, `search`)."""

    layer: str
    version: int
    purpose: str
    state: str
    scope_key_version: int | None
    created_on: datetime
    expires_on: datetime | None
    rotation_due: bool


class RotationBody(msgspec.Struct, rename=wire_name):
    """A rotation: `rewrap` wraps data keys under a new scope key, `re-encrypt` seals fields under a new data key,
    `re-index` indexes them under a new search key.

    `version` is of that new key. `seen` and `done` count data keys or fields: those looked at, those changed. A
    re-encryption is over after a pass that found nothing more to do, so `seen` comes to about twice `total`, which is
    counted only where a single rotation is asked for that is running.
    """

    links: SelfLink
    rotation_id: str
    kind: str
    layer: str
    version: int
    status: str
    passes: int
    seen: int
    done: int
    total: int | None
    started_on: datetime
    updated_on: datetime


class KeysLinks(msgspec.Struct):
    """What there is beside the keys."""

    self: Link
    rotations: Link
    holders: Link


class EncryptionKeysBody(msgspec.Struct, rename=wire_name):
    """All keys, in all versions, and the rotation that is under way."""

    links: KeysLinks
    scope_keys: list[ScopeKeyBody]
    data_keys: list[DataKeyBody]
    rotation: RotationBody | None


class AccountEncryptionKeysBody(msgspec.Struct, rename=wire_name):
    """The account's own keys."""

    links: SelfLink
    scope_keys: list[ScopeKeyBody]
    data_keys: list[DataKeyBody]
    rotation: RotationBody | None


class RotationsBody(msgspec.Struct, rename=wire_name):
    """Rotations, newest first."""

    links: SelfLink
    rotations: list[RotationBody]


class HoldersBody(msgspec.Struct, rename=wire_name):
    """The holders in which the account may have keys of its own."""

    links: SelfLink
    holders: list[str]


class RotationRequest(msgspec.Struct, rename=wire_name):
    """What to rotate: the `scope` key or the `data` key of a layer, or the platform layer's `search` key."""

    layer: str
    key: str


class AttachRequest(msgspec.Struct, rename="camel"):
    """A key that is held elsewhere: in which holder, and what it is called there."""

    holder: str
    reference: str


class ImportLinks(msgspec.Struct):
    """Where to send the wrapped key."""

    key: Link


class ImportBody(msgspec.Struct, rename=wire_name):
    """An import under way. `publicKey` is PEM (SubjectPublicKeyInfo, RSA with 4096 bits)."""

    links: ImportLinks
    import_token: str
    public_key: str
    algorithms: list[str]
    expires_on: datetime


class ImportRequest(msgspec.Struct, rename="camel"):
    """A key of 256 bits, wrapped under the import's public key, in base64."""

    algorithm: str
    wrapped_key: str


class TestedBody(msgspec.Struct, rename="camel"):
    """A key that has just wrapped something and opened it again; how its holder describes it, and how long it took."""

    holder: str
    algorithm: str
    extractable: bool
    milliseconds: float


class DestructionRequest(msgspec.Struct, rename="camel"):
    """Which key is meant: the version of the customer's scope key that is in use."""

    version: int


def link(base: str, *parts: object) -> Link:
    """A place below `base`."""
    return Link("/".join((base, *map(str, parts))))


def scope_key_body(base: str, key: ScopeKey, now: datetime) -> ScopeKeyBody:
    """A scope key as it is at `now`, linked below `base`."""
    destruction = None
    if key.destroy_asked_by is not None:
        destruction = DestructionBody(key.destroy_asked_by, key.destroy_approved_by, key.destroy_after)
    return ScopeKeyBody(
        links=SelfLink(link(base, key.layer.value, "versions", key.version)),
        layer=key.layer.value,
        version=key.version,
        purpose="wrap",
        state=key.state.value,
        source=key.source.value,
        holder=key.holder,
        reference=key.reference if key.source is Source.HELD else None,
        created_on=key.created_at,
        changed_on=key.changed_at,
        expires_on=key.expires_at,
        rotation_due=is_over(key, now),
        destruction=destruction,
    )


def data_key_body(key: DataKey, now: datetime) -> DataKeyBody:
    """A data key as it is at `now`."""
    return DataKeyBody(
        layer=key.layer.value,
        version=key.version,
        purpose=key.purpose,
        state=key.state.value,
        scope_key_version=key.scope_key_version,
        created_on=key.created_at,
        expires_on=key.expires_at,
        rotation_due=is_over(key, now),
    )


def rotation_body(base: str, work: Work, total: int | None = None) -> RotationBody:
    """A rotation, linked below `base`."""
    return RotationBody(
        links=SelfLink(link(base, "rotations", work.work_id)),
        rotation_id=str(work.work_id),
        kind=work.kind,
        layer=work.layer.value,
        version=work.version,
        status="DONE" if work.is_done else "RUNNING",
        passes=work.passes,
        seen=work.seen,
        done=work.done,
        total=total,
        started_on=work.started_at,
        updated_on=work.updated_at,
    )
