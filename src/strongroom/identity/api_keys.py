"""API keys: a public half, which names the key, and a private half, which signs.

A key belongs to an account or to one tenant and holds at least one role of that level. The private half is shown once;
it is kept sealed, since a signature is checked with it, and nothing reads it back out. The directory says where a key
lives; a key that isn't in the directory can't sign in.

A key's directory row is written after its own and just before both count; it goes first when the key is deleted. So a
crash in between can leave a key that is refused, never one that works by half.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from strongroom.access import Permission, check_grant, grantable, require
from strongroom.audit import record
from strongroom.database import Databases, Operation
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKey:
    """What is sealed of a key."""

    name: str
    private_key: bytes


async def roles_for(op: Operation, databases: Databases) -> frozenset[str]:
    """The roles that a key of the operation's tenant (or, above tenants, account) can hold."""
    return await grantable(databases, op.account, op.tenant_id)


async def create_key(
    op: Operation, databases: Databases, *, name: str, roles: Collection[str], expires_at: datetime | None = None
) -> tuple[ApiKey, Secret[str]]:
    """Make a key for the operation's tenant (or account); the secret is its private half in base64.

    Raises errors.Invalid (`ROLES_IS_REQUIRED`, `ROLES_NOT_RECOGNISED`, `EXPIRES_ON_OUT_OF_RANGE`), errors.Conflict
    (`API_KEY_LIMIT_REACHED`) and as `access.check_grant`.
    """
    _require(op, writes=True)
    await _check_roles(op, databases, roles)
    _check_end(op, expires_at)
    row = await op.row("select count(*) from api_keys where deleted_at is null")
    if row is not None and row[0] >= MAX_KEYS:
        raise Conflict(
            Failure("API_KEY_LIMIT_REACHED", "There are {limit} keys already. Delete one first.", {"limit": MAX_KEYS})
        )
    key = ApiKey(
        public_key=ApiKeyId(new_uuid()),
        name=name,
        roles=tuple(sorted(set(roles))),
        created_at=op.now,
        expires_at=expires_at,
    )
    private_key = os.urandom(PRIVATE_KEY_BYTES)
    made_by = await _makers(op, databases)
    await op.run(
        "insert into api_keys (public_key, account_id, tenant_id, environment, roles, sealed, created_at, expires_at, "
        "made_by) values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        key.public_key,
        op.account,
        op.tenant_id,
        op.environment.value,
        list(key.roles),
        _seal(op, key.public_key, SealedKey(name=name, private_key=private_key)),
        op.now,
        expires_at,
        made_by,
    )
    await record(op, "api-key.create", "api-key", key.public_key, detail=" ".join(key.roles))
    async with databases.directory() as directory:
        await directory.execute(
            "insert into api_keys (public_key, environment, account_id, tenant_id, region, made_by) "
            "values (%s, %s, %s, %s, %s, %s)",
            (key.public_key, op.environment.value, op.account, op.tenant_id, op.region, made_by),
        )
    return key, Secret(base64.b64encode(private_key).decode())


async def list_keys(op: Operation) -> Sequence[ApiKey]:
    """The live keys of the operation's tenant (or account), oldest first."""
    _require(op, writes=False)
    rows = await op.rows(
        "select public_key, roles, sealed, created_at, expires_at, last_used_at from api_keys "
        "where deleted_at is null order by public_key limit %s",
        MAX_KEYS,
    )
    return [_key(op, row) for row in rows]


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
    return _key(op, row)


async def update_key(
    op: Operation,
    databases: Databases,
    public_key: ApiKeyId,
    *,
    name: str,
    roles: Collection[str],
    expires_at: datetime | UnsetType | None = UNSET,
) -> None:
    """Replace a key's name and roles, and its end unless that is left out (None: it has none).

    Tokens that it has keep theirs until they end, 15 minutes at most.

    Raises errors.NotFound (`API_KEY_NOT_FOUND`), errors.Invalid (`ROLES_IS_REQUIRED`, `ROLES_NOT_RECOGNISED`,
    `EXPIRES_ON_OUT_OF_RANGE`), errors.Conflict (`LAST_ADMIN_KEY`) and as `access.check_grant`.
    """
    _require(op, writes=True)
    await _check_roles(op, databases, roles)
    row = await op.row(
        "select sealed, expires_at from api_keys where public_key = %s and deleted_at is null", public_key
    )
    if row is None:
        raise _not_found()
    if isinstance(expires_at, UnsetType):
        expires_at = row[1]
    else:
        _check_end(op, expires_at)
    await _keep_an_admin(op, public_key, () if expires_at is not None else roles)
    sealed = _open(op, public_key, row[0])
    kept = tuple(sorted(set(roles)))
    await op.run(
        "update api_keys set roles = %s, sealed = %s, expires_at = %s where public_key = %s",
        list(kept),
        _seal(op, public_key, SealedKey(name=name, private_key=sealed.private_key)),
        expires_at,
        public_key,
    )
    await record(op, "api-key.update", "api-key", public_key, detail=" ".join(kept))


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


async def _makers(op: Operation, databases: Databases) -> list[str]:
    """Who makes a key: the actor, and whoever made the actor's key, up to a person or the installation's operator."""
    actor = op.actor
    if actor.key_id is None:
        return [f"{actor.kind.value}:{actor.name}"]
    rows = await databases.directory_rows("select made_by from api_keys where public_key = %s", actor.key_id)
    return [f"{actor.kind.value}:{actor.key_id}", *(rows[0][0] if rows else ())]


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


def _key(op: Operation, row: tuple[Any, ...]) -> ApiKey:
    public_key, roles, sealed, created_at, expires_at, last_used_at = row
    return ApiKey(
        public_key=public_key,
        name=_open(op, public_key, sealed).name,
        roles=tuple(roles),
        created_at=created_at,
        expires_at=expires_at,
        last_used_at=last_used_at,
    )


def _seal(op: Operation, public_key: ApiKeyId, sealed: SealedKey) -> bytes:
    return op.cipher.seal("api_keys", "sealed", public_key.bytes, msgspec.msgpack.encode(sealed))


def _open(op: Operation, public_key: ApiKeyId, envelope: bytes) -> SealedKey:
    return _DECODER.decode(op.cipher.open("api_keys", "sealed", public_key.bytes, envelope))


def private_key_of(op: Operation, public_key: ApiKeyId, envelope: bytes) -> Secret[bytes]:
    """The private half, for checking a signature (`strongroom.identity.hmac_signin`) and nothing else."""
    return Secret(_open(op, public_key, envelope).private_key)


def _not_found() -> NotFound:
    return NotFound(Failure("API_KEY_NOT_FOUND", "There is no such key."))


_DECODER: Final = msgspec.msgpack.Decoder(SealedKey)
