"""API keys: an account's own, a tenant's as its account sees them, and a tenant's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from strongroom.access import Permission
from strongroom.api.named_tenant import in_named_tenant
from strongroom.api.reading import Collector, read_object
from strongroom.api.routing import Access, Call, OperationHandler, Reply, Route
from strongroom.database import Operation
from strongroom.identity import (
    DEFAULT_NAME,
    ApiKey,
    PublicKey,
    create_key,
    delete_key,
    get_key,
    list_keys,
    read_public_keys,
    register_key,
    roles_for,
    update_key,
)
from strongroom.kernel.errors import Failure, Invalid, NotFound
from strongroom.kernel.ids import ApiKeyId, parse_uuid

MAX_NAME: Final = 100
T = TypeVar("T")


class KeyBody(msgspec.Struct, rename="camel"):
    """A key. `identity` is the same as its public half."""

    identity: str
    name: str
    public_key: str
    roles: list[str]
    created_on: datetime
    expires_on: datetime | None
    """When it stops signing in; null: never."""
    last_used_on: datetime | None
    """When it last signed in, to the minute."""
    jwks: dict[str, Any] | None
    """The public keys that it signs with (RFC 7517); null: its private half is ours."""
    scopes: list[str] | None
    """The permissions that its tokens are confined to; null: all that its roles include."""
    requests_per_minute: int | None
    """Most requests that it may make; null: any number."""


class NewKeyBody(msgspec.Struct, rename="camel"):
    """A key just made, with its private half, which is never shown again (null where it has a jwks)."""

    identity: str
    name: str
    public_key: str
    private_key: str | None
    roles: list[str]
    created_on: datetime
    expires_on: datetime | None
    last_used_on: None
    jwks: dict[str, Any] | None
    scopes: list[str] | None
    requests_per_minute: int | None


class AccountKeysBody(msgspec.Struct, rename="camel"):
    """An account's keys."""

    account_keys: list[KeyBody]


class TenantKeysBody(msgspec.Struct, rename="camel"):
    """A tenant's keys."""

    tenant_keys: list[KeyBody]


class KeyRequest(msgspec.Struct, rename="camel"):
    """A key's name and roles, an instant at which it ends, and what confines it.

    What is left out of a change, of `expiresOn` and what follows, stays as it is; null takes it away. A key that is
    made with a `jwks` signs with private keys of its holder's; a change replaces all of its public keys, so old and new
    ones overlap for as long as both are sent.
    """

    roles: list[str]
    name: str | None = None
    expires_on: datetime | UnsetType | None = UNSET
    jwks: dict[str, Any] | UnsetType = UNSET
    scopes: list[str] | UnsetType | None = UNSET
    requests_per_minute: int | UnsetType | None = UNSET


async def _list(op: Operation, _: Call) -> Reply:
    keys = [_body(key) for key in await list_keys(op)]
    return Reply(200, AccountKeysBody(keys) if op.tenant_id is None else TenantKeysBody(keys))


async def _create(op: Operation, call: Call) -> Reply:
    asked = await _read(op, call)
    databases, private_key = call.services.databases, None
    common: dict[str, Any] = {
        "name": asked.name or DEFAULT_NAME,
        "roles": asked.roles,
        "expires_at": _given(asked.expires_on),
        "scopes": _given(asked.scopes),
        "per_minute": _given(asked.requests_per_minute),
    }
    if isinstance(asked.public_keys, UnsetType):
        key, made = await create_key(op, databases, **common)
        private_key = made.reveal()
    else:
        key = await register_key(op, databases, public_keys=asked.public_keys, **common)
    body = NewKeyBody(private_key=private_key, **{**msgspec.structs.asdict(_body(key)), "last_used_on": None})
    return Reply(201, body, unrepeatable=("privateKey",))


def _given(value: T | UnsetType | None) -> T | None:
    """What a new key has, of something that may be left out."""
    return None if isinstance(value, UnsetType) else value


async def _get(op: Operation, call: Call) -> Reply:
    return Reply(200, _body(await get_key(op, _public_key(call))))


async def _put(op: Operation, call: Call) -> Reply:
    public_key = _public_key(call)
    asked = await _read(op, call)
    await update_key(
        op,
        call.services.databases,
        public_key,
        name=asked.name or DEFAULT_NAME,
        roles=asked.roles,
        expires_at=asked.expires_on,
        public_keys=asked.public_keys,
        scopes=asked.scopes,
        per_minute=asked.requests_per_minute,
    )
    return Reply(204)


async def _delete(op: Operation, call: Call) -> Reply:
    await delete_key(op, call.services.databases, _public_key(call))
    return Reply(204)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request about a key, read."""

    name: str
    roles: tuple[str, ...]
    expires_on: datetime | UnsetType | None
    public_keys: tuple[PublicKey, ...] | UnsetType
    scopes: tuple[str, ...] | UnsetType | None
    requests_per_minute: int | UnsetType | None


async def _read(op: Operation, call: Call) -> _Asked:
    source, found = read_object(call.body), Collector()
    asked = _Asked(
        name=found.text(source, "name", "NAME", max_length=MAX_NAME, required=False),
        roles=found.choices(source, "roles", "ROLES", await roles_for(op, call.services.databases)),
        expires_on=found.instant(source, "expiresOn", "EXPIRES_ON") if "expiresOn" in source else UNSET,
        public_keys=_read_jwks(source, found),
        scopes=_read_scopes(source, found),
        requests_per_minute=_read_rate(source, found),
    )
    found.check()
    return asked


def _read_jwks(source: Mapping[str, Any], found: Collector) -> tuple[PublicKey, ...] | UnsetType:
    if source.get("jwks") is None:
        return UNSET
    try:
        return read_public_keys(source["jwks"])
    except Invalid as invalid:
        found.failures += invalid.failures
        return ()


def _read_scopes(source: Mapping[str, Any], found: Collector) -> tuple[str, ...] | UnsetType | None:
    if "scopes" not in source or source["scopes"] is None:
        return None if "scopes" in source else UNSET
    return found.choices(source, "scopes", "SCOPES", [permission.value for permission in Permission])


def _read_rate(source: Mapping[str, Any], found: Collector) -> int | UnsetType | None:
    value = source.get("requestsPerMinute", UNSET)
    if value is None or isinstance(value, UnsetType) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    found.add("REQUESTS_PER_MINUTE_IS_INVALID", "The requestsPerMinute are a whole number.")
    return None


def _public_key(call: Call) -> ApiKeyId:
    public_key = parse_uuid(call.path["publicKey"])
    if public_key is None:
        raise NotFound(Failure("API_KEY_NOT_FOUND", "There is no such key."))
    return ApiKeyId(public_key)


def _body(key: ApiKey) -> KeyBody:
    return KeyBody(
        identity=str(key.public_key),
        name=key.name,
        public_key=str(key.public_key),
        roles=list(key.roles),
        created_on=key.created_at,
        expires_on=key.expires_at,
        last_used_on=key.last_used_at,
        jwks={"keys": [public.as_jwk() for public in key.public_keys]} if key.public_keys else None,
        scopes=None if key.scopes is None else list(key.scopes),
        requests_per_minute=key.per_minute,
    )


def _routes(path: str, tag: str, access: Access, reads: Permission, writes: Permission) -> Sequence[Route]:
    """The five routes of one kind of keys. Where the path names a tenant, its account asks."""
    listed = AccountKeysBody if path.startswith("/v1/account/") else TenantKeysBody
    named = "{tenantId}" in path
    whose = "account" if listed is AccountKeysBody else "tenant"

    def route(method: str, path: str, summary: str, *, handler: OperationHandler, replies: Mapping[int, Any]) -> Route:
        async def call_in_tenant(call: Call) -> Reply:
            return await in_named_tenant(call, handler)

        return Route(
            method=method,
            path=path,
            summary=summary,
            tag=tag,
            access=access,
            permission=reads if method == "GET" else writes,
            operation=None if named else handler,
            call=call_in_tenant if named else None,
            request=KeyRequest if method in {"POST", "PUT"} else None,
            replies=replies,
        )

    one = f"{path}/{{publicKey}}"
    return (
        route("GET", path, f"The {whose}'s keys", handler=_list, replies={200: listed}),
        route("POST", path, f"Make a key of the {whose}", handler=_create, replies={201: NewKeyBody}),
        route("GET", one, f"One of the {whose}'s keys", handler=_get, replies={200: KeyBody}),
        route("PUT", one, "Change a key's name, roles and end", handler=_put, replies={204: None}),
        route("DELETE", one, "Block a key at once", handler=_delete, replies={204: None}),
    )


ROUTES: Final[Sequence[Route]] = (
    *_routes(
        "/v1/account/keys",
        "Account keys",
        Access.ACCOUNT,
        Permission.ACCOUNT_KEYS_MANAGE,
        Permission.ACCOUNT_KEYS_MANAGE,
    ),
    *_routes(
        "/v1/tenant/keys",
        "Tenant keys",
        Access.TENANT,
        Permission.TENANT_KEYS_MANAGE,
        Permission.TENANT_KEYS_MANAGE,
    ),
    *_routes(
        "/v1/tenant/{tenantId}/keys",
        "Tenant keys",
        Access.ACCOUNT,
        Permission.TENANTS_READ,
        Permission.TENANTS_WRITE,
    ),
)
