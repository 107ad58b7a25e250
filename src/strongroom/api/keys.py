"""API keys: an account's own, a tenant's as its account sees them, and a tenant's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

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
    create_key,
    delete_key,
    get_key,
    list_keys,
    roles_for,
    update_key,
)
from strongroom.kernel.errors import Failure, NotFound
from strongroom.kernel.ids import ApiKeyId, parse_uuid

MAX_NAME: Final = 100


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


class NewKeyBody(msgspec.Struct, rename="camel"):
    """A key just made, with its private half, which is never shown again."""

    identity: str
    name: str
    public_key: str
    private_key: str
    roles: list[str]
    created_on: datetime
    expires_on: datetime | None
    last_used_on: None = None


class AccountKeysBody(msgspec.Struct, rename="camel"):
    """An account's keys."""

    account_keys: list[KeyBody]


class TenantKeysBody(msgspec.Struct, rename="camel"):
    """A tenant's keys."""

    tenant_keys: list[KeyBody]


class KeyRequest(msgspec.Struct, rename="camel"):
    """A key's name and roles, and an instant at which it ends.

    `expiresOn` left out of a change leaves it as it is; null takes it away.
    """

    roles: list[str]
    name: str | None = None
    expires_on: datetime | UnsetType | None = UNSET


async def _list(op: Operation, _: Call) -> Reply:
    keys = [_body(key) for key in await list_keys(op)]
    return Reply(200, AccountKeysBody(keys) if op.tenant_id is None else TenantKeysBody(keys))


async def _create(op: Operation, call: Call) -> Reply:
    name, roles, end = await _read(op, call)
    key, private_key = await create_key(
        op,
        call.services.databases,
        name=name or DEFAULT_NAME,
        roles=roles,
        expires_at=None if isinstance(end, UnsetType) else end,
    )
    body = NewKeyBody(
        identity=str(key.public_key),
        name=key.name,
        public_key=str(key.public_key),
        private_key=private_key.reveal(),
        roles=list(key.roles),
        created_on=key.created_at,
        expires_on=key.expires_at,
    )
    return Reply(201, body, unrepeatable=("privateKey",))


async def _get(op: Operation, call: Call) -> Reply:
    return Reply(200, _body(await get_key(op, _public_key(call))))


async def _put(op: Operation, call: Call) -> Reply:
    public_key = _public_key(call)
    name, roles, end = await _read(op, call)
    await update_key(op, call.services.databases, public_key, name=name or DEFAULT_NAME, roles=roles, expires_at=end)
    return Reply(204)


async def _delete(op: Operation, call: Call) -> Reply:
    await delete_key(op, call.services.databases, _public_key(call))
    return Reply(204)


async def _read(op: Operation, call: Call) -> tuple[str, tuple[str, ...], datetime | UnsetType | None]:
    source, found = read_object(call.body), Collector()
    name = found.text(source, "name", "NAME", max_length=MAX_NAME, required=False)
    roles = found.choices(source, "roles", "ROLES", await roles_for(op, call.services.databases))
    end = found.instant(source, "expiresOn", "EXPIRES_ON") if "expiresOn" in source else UNSET
    found.check()
    return name, roles, end


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
