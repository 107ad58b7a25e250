"""API keys: a public half, which names the key, and a private half, which signs.

A key belongs to an account or to one tenant and holds at least one role of that level. The private half is shown once;
it is kept sealed, since a signature is checked with it, and nothing reads it back out. A key may have public keys of
its holder's instead, whose private halves we never see; they are sealed as well, so that nobody who writes to the
database can put others in their place. The directory says where a key lives; a key that isn't in the directory can't
sign in.

A key's directory row is written after its own and just before both count; it goes first when the key is deleted. So a
crash in between can leave a key that is refused, never one that works by half.

A key is known to come from whoever made it, and made that one's key, and so on (`made_by`), lest somebody approve by
another key of theirs what they did themselves. Whoever puts public keys into it may sign with it from then on, so they
count as its makers too.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from strongroom.access import Permission, check_grant, grantable, may_allow, require
from strongroom.audit import record
from strongroom.database import Databases, Operation
from strongroom.identity.public_keys import PublicKey, thumbprints
from strongroom.kernel.actors import UNKNOWN_MAKER
from strongroom.kernel.errors import Conflict, Failure, Invalid, NotFound
from strongroom.kernel.ids import ApiKeyId, new_uuid
from strongroom.kernel.secret import Secret

DEFAULT_NAME: Final = "API Key"
MAX_KEYS: Final = 1_000
"""Most live keys of an account, and of a tenant."""
PRIVATE_KEY_BYTES: Final = 32
MAX_LIFETIME: Final = timedelta(days=10 * 365)
"""A key that ends does so within this."""
USE_NOTED_EVERY: Final = timedelta(minutes=1)
MAX_PER_MINUTE: Final = 1_000_000
"""Largest limit of requests a minute."""
_ADMIN: Final = "account-admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What may be known of a key at any time."""

    public_key: ApiKeyId
    name: str
    roles: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    """When it stops signing in; tokens that it has end then as well."""
    last_used_at: datetime | None = None
    """When it last signed in, to the minute."""
    public_keys: tuple[PublicKey, ...] = ()
    """What it signs with, when that isn't a private half that we made."""
    scopes: tuple[str, ...] | None = None
    """The names of permissions that its tokens are confined to; None: all that its roles include."""
    per_minute: int | None = None
    """Most requests a minute; None: any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKey:
    """What is sealed of a key. It has a private key or public ones, never both."""

    name: str
    private_key: bytes | None = None
    public_keys: tuple[PublicKey, ...] = ()
    scopes: tuple[str, ...] | None = None
    per_minute: int | None = None


async def roles_for(op: Operation, databases: Databases) -> frozenset[str]:
    """The roles that a key of the operation's tenant (or, above tenants, account) can hold."""
    return await grantable(databases, op.account, op.tenant_id)


async def create_key(
    op: Operation,
    databases: Databases,
    *,
    name: str,
    roles: Collection[str],
    expires_at: datetime | None = None,
    scopes: Collection[str] | None = None,
    per_minute: int | None = None,
) -> tuple[ApiKey, Secret[str]]:
    """Make a key for the operation's tenant (or account); the secret is its private half in base64.

    Raises errors.Invalid (`ROLES_IS_REQUIRED`, `ROLES_NOT_RECOGNISED`, `EXPIRES_ON_OUT_OF_RANGE`,
    `SCOPES_NOT_RECOGNISED`, `REQUESTS_PER_MINUTE_OUT_OF_RANGE`), errors.Conflict (`API_KEY_LIMIT_REACHED`) and as
    `access.check_grant`.
    """
    private_key = os.urandom(PRIVATE_KEY_BYTES)
    sealed = SealedKey(name=name, private_key=private_key, scopes=_sorted(scopes), per_minute=per_minute)
    return await _create(op, databases, sealed, roles, expires_at), Secret(base64.b64encode(private_key).decode())


async def register_key(
    op: Operation,
    databases: Databases,
    *,
    name: str,
    roles: Collection[str],
    public_keys: Sequence[PublicKey],
    expires_at: datetime | None = None,
    scopes: Collection[str] | None = None,
    per_minute: int | None = None,
) -> ApiKey:
    """The same for a key that signs with private keys of its holder's, of which we get the public halves.

    Raises as `create_key`.
    """
    sealed = SealedKey(name=name, public_keys=tuple(public_keys), scopes=_sorted(scopes), per_minute=per_minute)
    return await _create(op, databases, sealed, roles, expires_at)


async def list_keys(op: Operation) -> Sequence[ApiKey]:
    """The live keys of the operation's tenant (or account), oldest first."""
    _require(op, writes=False)
    rows = await op.rows(
        "select public_key, roles, sealed, created_at, expires_at, last_used_at from api_keys "
        "where deleted_at is null order by public_key limit %s",
        MAX_KEYS,
    )
    return [_opened(op, row) for row in rows]


async def get_key(op: Operation, public_key: ApiKeyId) -> ApiKey:
    """A live key. Raises errors.NotFound (`API_KEY_NOT_FOUND`)."""
    _require(op, writes=False)
    row = await op.row(
        "select public_key, roles, sealed, created_at, expires_at, last_used_at from api_keys "
        "where public_key = %s and deleted_at is null",
        public_key,
    )
    if row is None:
        raise _not_found()
    return _opened(op, row)


async def update_key(
    op: Operation,
    databases: Databases,
    public_key: ApiKeyId,
    *,
    name: str,
    roles: Collection[str],
    expires_at: datetime | UnsetType | None = UNSET,
    public_keys: Sequence[PublicKey] | UnsetType = UNSET,
    scopes: Collection[str] | UnsetType | None = UNSET,
    per_minute: int | UnsetType | None = UNSET,
) -> None:
    """Replace a key's name and roles, and what else isn't left out (None: it has none).

    Tokens that it has keep theirs until they end, 15 minutes at most. A public key that isn't among `public_keys` any
    more signs nothing from now on.

    Raises errors.NotFound (`API_KEY_NOT_FOUND`), errors.Invalid (`ROLES_IS_REQUIRED`, `ROLES_NOT_RECOGNISED`,
    `EXPIRES_ON_OUT_OF_RANGE`, `SCOPES_NOT_RECOGNISED`, `REQUESTS_PER_MINUTE_OUT_OF_RANGE`), errors.Conflict
    (`LAST_ADMIN_KEY`; `KEY_HAS_PRIVATE_HALF` for public keys of a key that signs with a private half of ours) and as
    `access.check_grant`.
    """
    _require(op, writes=True)
    await _check_roles(op, databases, roles)
    # Admins' keys too and in this order, since `_keep_an_admin` locks them so: no two changes wait in a ring.
    await op.rows(
        "select from api_keys where public_key = %s or (%s = any(roles) and deleted_at is null) order by public_key "
        "for update",
        public_key,
        _ADMIN,
    )
    row = await op.row(
        "select sealed, expires_at, made_by from api_keys where public_key = %s and deleted_at is null", public_key
    )
    if row is None:
        raise _not_found()
    if isinstance(expires_at, UnsetType):
        expires_at = row[1]
    else:
        _check_end(op, expires_at)
    await _keep_an_admin(op, public_key, () if expires_at is not None else roles)
    before = _open(op, public_key, row[0])
    sealed, made_by = replace(before, name=name), list(row[2])
    if not isinstance(public_keys, UnsetType):
        if before.private_key is not None:
            raise Conflict(
                Failure(
                    "KEY_HAS_PRIVATE_HALF",
                    "This key signs with a private half that was shown once. Make another key with a jwks.",
                )
            )
        sealed = replace(sealed, public_keys=tuple(public_keys))
        made_by = list(dict.fromkeys([*(made_by or [UNKNOWN_MAKER]), *await _makers(op, databases)]))
    if not isinstance(scopes, UnsetType):
        sealed = replace(sealed, scopes=_sorted(scopes))
        _check_scopes(roles, sealed.scopes)
    if not isinstance(per_minute, UnsetType):
        sealed = replace(sealed, per_minute=per_minute)
        _check_rate(per_minute)
    kept = tuple(sorted(set(roles)))
    await op.run(
        "update api_keys set roles = %s, sealed = %s, expires_at = %s, made_by = %s where public_key = %s",
        list(kept),
        _seal(op, public_key, sealed),
        expires_at,
        made_by,
        public_key,
    )
    await record(op, "api-key.update", "api-key", public_key, detail=_told(kept, sealed))
    if made_by != row[2]:
        async with databases.directory() as directory:
            await directory.execute("update api_keys set made_by = %s where public_key = %s", (made_by, public_key))


async def delete_key(op: Operation, databases: Databases, public_key: ApiKeyId) -> None:
    """Block a key, and every token that it has, at once.

    Raises errors.NotFound (`API_KEY_NOT_FOUND`) and errors.Conflict (`LAST_ADMIN_KEY`).
    """
    _require(op, writes=True)
    await _keep_an_admin(op, public_key, ())
    if await op.row("select from api_keys where public_key = %s and deleted_at is null for update", public_key) is None:
        raise _not_found()
    async with databases.directory() as directory:
        await directory.execute("delete from api_keys where public_key = %s", (public_key,))
    await op.run("update api_keys set deleted_at = %s where public_key = %s", op.now, public_key)
    await record(op, "api-key.delete", "api-key", public_key)


async def _create(
    op: Operation, databases: Databases, sealed: SealedKey, roles: Collection[str], expires_at: datetime | None
) -> ApiKey:
    _require(op, writes=True)
    await _check_roles(op, databases, roles)
    _check_end(op, expires_at)
    _check_scopes(roles, sealed.scopes)
    _check_rate(sealed.per_minute)
    row = await op.row("select count(*) from api_keys where deleted_at is null")
    if row is not None and row[0] >= MAX_KEYS:
        raise Conflict(
            Failure("API_KEY_LIMIT_REACHED", "There are {limit} keys already. Delete one first.", {"limit": MAX_KEYS})
        )
    made_by = await _makers(op, databases)
    public_key, kept = ApiKeyId(new_uuid()), tuple(sorted(set(roles)))
    await op.run(
        "insert into api_keys (public_key, account_id, tenant_id, environment, roles, sealed, created_at, expires_at, "
        "made_by) values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        public_key,
        op.account,
        op.tenant_id,
        op.environment.value,
        list(kept),
        _seal(op, public_key, sealed),
        op.now,
        expires_at,
        made_by,
    )
    await record(op, "api-key.create", "api-key", public_key, detail=_told(kept, sealed))
    async with databases.directory() as directory:
        await directory.execute(
            "insert into api_keys (public_key, environment, account_id, tenant_id, region, made_by) "
            "values (%s, %s, %s, %s, %s, %s)",
            (public_key, op.environment.value, op.account, op.tenant_id, op.region, made_by),
        )
    return _key((public_key, kept, None, op.now, expires_at, None), sealed)


async def _makers(op: Operation, databases: Databases) -> list[str]:
    """Who makes a key: the actor, and whoever made the actor's key, up to a person or the installation's operator."""
    actor = op.actor
    if actor.key_id is None:
        return [f"{actor.kind.value}:{actor.name}"]
    rows = await databases.directory_rows("select made_by from api_keys where public_key = %s", actor.key_id)
    known = [maker for row in rows for maker in row[0] if maker != UNKNOWN_MAKER]
    return [f"{actor.kind.value}:{actor.key_id}", *known]


def _require(op: Operation, *, writes: bool) -> None:
    """Keys are the business of admins of their own level, and of those who look after an account's tenants."""
    if op.tenant_id is None:
        require(op, Permission.ACCOUNT_KEYS_MANAGE)
    elif op.actor.tenant_id is not None:
        require(op, Permission.TENANT_KEYS_MANAGE)
    else:
        require(op, Permission.TENANTS_WRITE if writes else Permission.TENANTS_READ)


async def _check_roles(op: Operation, databases: Databases, roles: Collection[str]) -> None:
    if not roles:
        raise Invalid(Failure("ROLES_IS_REQUIRED", "A key needs at least one role."))
    known = await roles_for(op, databases)
    if not known.issuperset(roles):
        choice = ", ".join(sorted(known))
        raise Invalid(Failure("ROLES_NOT_RECOGNISED", "The roles to choose from are {known}.", {"known": choice}))
    await check_grant(op, databases, op.tenant_id, roles)


def _check_end(op: Operation, expires_at: datetime | None) -> None:
    if expires_at is not None and not op.now < expires_at <= op.now + MAX_LIFETIME:
        raise Invalid(
            Failure(
                "EXPIRES_ON_OUT_OF_RANGE",
                "A key ends in the future, within {years} years. Leave expiresOn out for one that doesn't end.",
                {"years": MAX_LIFETIME.days // 365},
            )
        )


def _check_scopes(roles: Collection[str], scopes: Collection[str] | None) -> None:
    """A key can be confined to what its roles allow, which takes at least one thing."""
    allowed = {permission.value for permission in may_allow(roles)}
    if scopes is not None and not (scopes and allowed.issuperset(scopes)):
        choice = ", ".join(sorted(allowed))
        raise Invalid(
            Failure(
                "SCOPES_NOT_RECOGNISED", "The scopes that these roles leave to choose from: {known}.", {"known": choice}
            )
        )


def _check_rate(per_minute: int | None) -> None:
    if per_minute is not None and not 1 <= per_minute <= MAX_PER_MINUTE:
        raise Invalid(
            Failure(
                "REQUESTS_PER_MINUTE_OUT_OF_RANGE",
                "A limit is 1 to {most} requests a minute. Leave it out for none.",
                {"most": MAX_PER_MINUTE},
            )
        )


def _sorted(scopes: Collection[str] | None) -> tuple[str, ...] | None:
    return None if scopes is None else tuple(sorted(set(scopes)))


def _told(roles: Collection[str], sealed: SealedKey) -> str:
    """A key for the record: its roles, and what confines it."""
    more = [
        f"scopes={','.join(sealed.scopes)}" if sealed.scopes is not None else "",
        f"per-minute={sealed.per_minute}" if sealed.per_minute is not None else "",
        f"keys={thumbprints(sealed.public_keys)}" if sealed.public_keys else "",
    ]
    return " ".join([*roles, *filter(None, more)])


async def mark_used(op: Operation, public_key: ApiKeyId) -> None:
    """Note that a key has signed in now; to the minute, so that busy keys don't write each time."""
    await op.run(
        "update api_keys set last_used_at = %s where public_key = %s and (last_used_at is null or last_used_at <= %s)",
        op.now,
        public_key,
        op.now - USE_NOTED_EVERY,
    )


async def _keep_an_admin(op: Operation, public_key: ApiKeyId, roles: Collection[str]) -> None:
    """An account without an admin's key would be locked out; the rows stay locked until the operation's end."""
    if op.tenant_id is not None or _ADMIN in roles:
        return
    rows = await op.rows(
        "select public_key from api_keys where %s = any(roles) and deleted_at is null and expires_at is null "
        "order by public_key for update",
        _ADMIN,
    )
    if [row[0] for row in rows] == [public_key]:
        raise Conflict(
            Failure(
                "LAST_ADMIN_KEY",
                "This is the account's last key with the role account-admin that doesn't end. Make another first.",
            )
        )


def _opened(op: Operation, row: tuple[Any, ...]) -> ApiKey:
    return _key(row, _open(op, row[0], row[2]))


def _key(row: tuple[Any, ...], sealed: SealedKey) -> ApiKey:
    public_key, roles, _, created_at, expires_at, last_used_at = row
    return ApiKey(
        public_key=public_key,
        name=sealed.name,
        roles=tuple(roles),
        created_at=created_at,
        expires_at=expires_at,
        last_used_at=last_used_at,
        public_keys=sealed.public_keys,
        scopes=sealed.scopes,
        per_minute=sealed.per_minute,
    )


def _seal(op: Operation, public_key: ApiKeyId, sealed: SealedKey) -> bytes:
    return op.cipher.seal("api_keys", "sealed", public_key.bytes, msgspec.msgpack.encode(sealed))


def _open(op: Operation, public_key: ApiKeyId, envelope: bytes) -> SealedKey:
    return _DECODER.decode(op.cipher.open("api_keys", "sealed", public_key.bytes, envelope))


def open_key(op: Operation, public_key: ApiKeyId, envelope: bytes) -> SealedKey:
    """What is sealed of a key, for checking what it signed (`strongroom.identity.clients`) and nothing else."""
    return _open(op, public_key, envelope)


def _not_found() -> NotFound:
    return NotFound(Failure("API_KEY_NOT_FOUND", "There is no such key."))


_DECODER: Final = msgspec.msgpack.Decoder(SealedKey)
