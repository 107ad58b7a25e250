"""Encryption keys: a tenant's as it leads them itself and as its account does, and the account's own.

Whatever changes keys talks to their holders between operations, so these routes open no operation around themselves;
an Idempotency-Key is taken before and answered after.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeVar

from strongroom.access import Permission
from strongroom.api import idempotency
from strongroom.api.customer_vault import Link, SelfLink
from strongroom.api.encryption_key_bodies import (
    AccountEncryptionKeysBody,
    AttachRequest,
    DestructionRequest,
    EncryptionKeysBody,
    HoldersBody,
    ImportBody,
    ImportLinks,
    ImportRequest,
    KeysLinks,
    RotationBody,
    RotationRequest,
    RotationsBody,
    ScopeKeyBody,
    TestedBody,
    data_key_body,
    link,
    rotation_body,
    scope_key_body,
)
from strongroom.api.named_tenant import find_named_tenant
from strongroom.api.reading import Collector, Object, read_object
from strongroom.api.routing import Access, Call, CallHandler, Reply, Route
from strongroom.database import Operation, in_operation
from strongroom.kernel.errors import Conflict, Failure, NotFound
from strongroom.kernel.ids import parse_uuid
from strongroom.vault import (
    ImportDesk,
    KeyDesk,
    Keys,
    Layer,
    Scope,
    Work,
    count_sealed,
    get_rotation,
    get_scope_key,
    list_keys,
    list_rotations,
)
from strongroom.vault.holders import WrappingAlgorithm

T = TypeVar("T")
MAX_NAME: Final = 32
MAX_REFERENCE: Final = 512
MAX_WRAPPED: Final = 2_000
"""Characters of a wrapped key in base64; one that is right has at most 736."""
_LAYERS: Final = tuple(layer.value for layer in Layer)
_ROTATED: Final = ("scope", "data", "search")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Whose keys a call is about, and where they are in the API."""

    call: Call
    scope: Scope
    base: str
    witness: idempotency.Witness | None = None

    @property
    def desk(self) -> KeyDesk:
        desk: KeyDesk = self.call.services.part(KeyDesk)
        return replace(desk, witness=self.witness)

    @property
    def import_desk(self) -> ImportDesk:
        desk: ImportDesk = self.call.services.part(ImportDesk)
        return replace(desk, desk=self.desk)

    def operation(self) -> AbstractAsyncContextManager[Operation]:
        return self.call.services.databases.operation(
            self.call.actor,
            account=self.scope.account,
            tenant=self.scope.tenant,
            correlation_id=self.call.correlation_id,
        )

    async def in_operation(self, act: Callable[[Operation], Awaitable[T]]) -> T:
        """What `act` gives in such an operation; see `database.in_operation`."""
        return await in_operation(self.operation, act)

    def link(self, *parts: object) -> Link:
        return link(self.base, *parts)

    def rotation(self, work: Work, total: int | None = None) -> RotationBody:
        return rotation_body(self.base, work, total)


_Handler = Callable[[_Place], Awaitable[Reply]]


async def _list(place: _Place) -> Reply:
    async def look(op: Operation) -> tuple[Keys, Sequence[Work], datetime]:
        return await list_keys(op), await list_rotations(op), op.now

    keys, rotations, now = await place.in_operation(look)
    running = next((work for work in rotations if not work.is_done), None)
    scope_keys = [scope_key_body(place.base, key, now) for key in keys.scope_keys]
    data_keys = [data_key_body(key, now) for key in keys.data_keys]
    rotation = None if running is None else place.rotation(running)
    if place.scope.tenant is None:
        return Reply(200, AccountEncryptionKeysBody(SelfLink(place.link()), scope_keys, data_keys, rotation))
    links = KeysLinks(place.link(), place.link("rotations"), place.link("holders"))
    return Reply(200, EncryptionKeysBody(links, scope_keys, data_keys, rotation))


async def _get(place: _Place) -> Reply:
    path = place.call.path
    version = path.get("version")
    if path["layer"] not in _LAYERS or (version is not None and not _is_version(version)):
        raise _no_key()

    async def look(op: Operation) -> ScopeKeyBody:
        key = await get_scope_key(op, Layer(path["layer"]), None if version is None else int(version))
        return scope_key_body(place.base, key, op.now)

    return Reply(200, await place.in_operation(look))


async def _list_holders(place: _Place) -> Reply:
    holders = place.desk.keyring.holders
    names = [name for name in holders.names(place.scope.account) if name != holders.own.name]
    return Reply(200, HoldersBody(SelfLink(place.link("holders")), names))


async def _list_rotations(place: _Place) -> Reply:
    rotations = [place.rotation(work) for work in await place.in_operation(list_rotations)]
    return Reply(200, RotationsBody(SelfLink(place.link("rotations")), rotations))


async def _get_rotation(place: _Place) -> Reply:
    async def look(op: Operation) -> RotationBody:
        work = await get_rotation(op, parse_uuid(place.call.path["rotationId"]))
        total = None
        if not work.is_done and work.kind == "re-encrypt":
            total = sum((await count_sealed(op, Layer.PLATFORM)).values())
        elif not work.is_done and work.kind == "rewrap":
            total = sum(key.layer is work.layer for key in (await list_keys(op)).data_keys)
        return place.rotation(work, total)

    return Reply(200, await place.in_operation(look))


async def _rotate(place: _Place) -> Reply:
    source, found = read_object(place.call.body), Collector()
    layer = found.choice(source, "layer", "LAYER", _LAYERS)
    key = found.choice(source, "key", "KEY", _ROTATED)
    found.check()
    desk, actor, scope = place.desk, place.call.actor, place.scope
    if key == "search":
        if Layer(layer) is not Layer.PLATFORM:
            raise _no_key()
        return Reply(202, place.rotation(await desk.rotate_search_key(actor, scope)))
    rotate = desk.rotate_scope_key if key == "scope" else desk.rotate_data_key
    return Reply(202, place.rotation(await rotate(actor, scope, Layer(layer))))


async def _stop_rotation(place: _Place) -> Reply:
    work = await place.in_operation(lambda op: get_rotation(op, parse_uuid(place.call.path["rotationId"])))
    if not work.is_done:
        work = await place.desk.stop_rotation(place.call.actor, place.scope)
    return Reply(200, place.rotation(work))


async def _attach(place: _Place) -> Reply:
    source, found = read_object(place.call.body), Collector()
    holder = found.text(source, "holder", "HOLDER", max_length=MAX_NAME)
    reference = found.text(source, "reference", "REFERENCE", max_length=MAX_REFERENCE)
    found.check()
    work = await place.desk.attach(place.call.actor, place.scope, holder, reference)
    return Reply(202, place.rotation(work))


async def _begin_import(place: _Place) -> Reply:
    begun = await place.import_desk.begin(place.call.actor, place.scope)
    body = ImportBody(
        links=ImportLinks(place.link("imports", begun.token)),
        import_token=begun.token,
        public_key=begun.public_key,
        algorithms=[algorithm.value for algorithm in WrappingAlgorithm],
        expires_on=begun.expires_at,
    )
    return Reply(201, body)


async def _finish_import(place: _Place) -> Reply:
    source, found = read_object(place.call.body), Collector()
    algorithm = found.choice(source, "algorithm", "ALGORITHM", [algorithm.value for algorithm in WrappingAlgorithm])
    wrapped = _read_base64(found, source, "wrappedKey", "WRAPPED_KEY")
    found.check()
    work = await place.import_desk.finish(
        place.call.actor,
        place.scope,
        place.call.path["importToken"],
        algorithm=WrappingAlgorithm(algorithm),
        wrapped=wrapped,
    )
    return Reply(202, place.rotation(work))


async def _test(place: _Place) -> Reply:
    holder = (await place.in_operation(lambda op: get_scope_key(op, Layer.CUSTOMER))).holder
    tested = await place.desk.test(place.call.actor, place.scope)
    body = TestedBody(
        holder=holder,
        algorithm=tested.held.algorithm,
        extractable=tested.held.is_extractable,
        milliseconds=round(tested.milliseconds, 3),
    )
    return Reply(200, body)


async def _disable(place: _Place) -> Reply:
    await place.desk.disable(place.call.actor, place.scope)
    return await _customers_key(place)


async def _enable(place: _Place) -> Reply:
    await place.desk.enable(place.call.actor, place.scope)
    return await _customers_key(place)


async def _ask_to_destroy(place: _Place) -> Reply:
    await _confirm_version(place)
    await place.desk.ask_to_destroy(place.call.actor, place.scope)
    return await _customers_key(place, 202)


async def _approve_destroying(place: _Place) -> Reply:
    await _confirm_version(place)
    await place.desk.approve_destroying(place.call.actor, place.scope)
    return await _customers_key(place, 202)


async def _cancel_destroying(place: _Place) -> Reply:
    await place.desk.cancel_destroying(place.call.actor, place.scope)
    return await _customers_key(place)


async def _customers_key(place: _Place, status: int = 200) -> Reply:
    async def look(op: Operation) -> ScopeKeyBody:
        return scope_key_body(place.base, await get_scope_key(op, Layer.CUSTOMER), op.now)

    return Reply(status, await place.in_operation(look))


async def _confirm_version(place: _Place) -> None:
    """Go on only if the body names the key that is in use. Raises errors.Conflict (`KEY_CHANGED`) otherwise."""
    source, found = read_object(place.call.body), Collector()
    version = source.get("version")
    if version is None:
        found.required("version", "VERSION")
    elif type(version) is not int:
        found.add("VERSION_IS_INVALID", "{field} must be a whole number.", field="version")
    found.check()
    key = await place.in_operation(lambda op: get_scope_key(op, Layer.CUSTOMER))
    if key.version != version:
        raise Conflict(
            Failure(
                "KEY_CHANGED",
                "The key in use is version {version}. Look at it again before you have it destroyed.",
                {"version": key.version},
            )
        )


def _read_base64(found: Collector, source: Object, field: str, code: str) -> bytes:
    """Bytes in base64 (RFC 4648 section 4), line breaks left out."""
    value = source.get(field)
    if isinstance(value, str):
        value = "".join(value.split())
    text = found.text({field: value}, field, code, max_length=MAX_WRAPPED)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        found.add(f"{code}_IS_INVALID", "{field} must be base64.", field=field)
        return b""


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _no_key() -> NotFound:
    return NotFound(Failure("KEY_NOT_FOUND", "There is no such encryption key."))


def _called(handler: _Handler, base: str) -> CallHandler:
    """A route's handler: finds whose keys are meant, and takes care of an Idempotency-Key."""

    async def called(call: Call) -> Reply:
        actor = call.actor
        if "{tenantId}" in base:
            account, tenant, _ = await find_named_tenant(call)
            scope = Scope(account=account, tenant=tenant)
        else:
            assert actor.account_id is not None  # noqa: S101  # a route with a token
            scope = Scope(account=actor.account_id, tenant=actor.tenant_id)
        place = _Place(call=call, scope=scope, base=base.format_map(call.path))
        async with place.operation():
            pass  # Whoever asks with a key that was deleted is told so before anything else.
        return await idempotency.once_around(
            call, place.operation, lambda witness: handler(replace(place, witness=witness))
        )

    return called


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A route before it is known whose keys it is about."""

    method: str
    path: str
    summary: str
    handler: _Handler
    replies: Mapping[int, Any]
    request: Any = None
    codes: tuple[str, ...] = ()


_UNUSABLE: Final = ("KEY_UNAVAILABLE", "DATA_KEY_BROKEN", "KEY_FILE_BROKEN", "KEY_FILE_UNSAFE")
"""What a key's holder may answer whenever it is asked."""
_STORE: Final = ("KEYS_IN_USE", "KEY_FILE_NOT_WRITTEN")
"""What the installation's own holder may answer when it is to change a key."""
_REPLACES: Final = (
    "KEY_NOT_FOUND", "KEY_WORK_RUNNING", "KEY_DISABLED", "KEY_BEING_DESTROYED", "KEY_CHANGED", *_UNUSABLE,
)  # fmt: skip
"""What keeps a key from being replaced."""
_IMPORTS: Final = (
    "IMPORT_NOT_FOUND",
    "IMPORT_USED",
    "IMPORT_EXPIRED",
    "IMPORT_ATTEMPTS_USED_UP",
    "WRAPPED_KEY_INVALID",
)

_ROTATIONS: Final = (
    _Row(
        method="GET",
        path="/rotations",
        summary="Rotations, newest first",
        handler=_list_rotations,
        replies={200: RotationsBody},
    ),
    _Row(
        method="POST",
        path="/rotations",
        summary="Put a new key in the place of a layer's scope key or data key, or of the search key",
        handler=_rotate,
        request=RotationRequest,
        replies={202: RotationBody},
        codes=(
            "LAYER_IS_REQUIRED", "LAYER_NOT_RECOGNISED", "KEY_IS_REQUIRED", "KEY_NOT_RECOGNISED", "KEY_DESTROYED",
            *_REPLACES, *_STORE,
        ),
    ),
    _Row(
        method="GET",
        path="/rotations/{rotationId}",
        summary="How far a rotation has come",
        handler=_get_rotation,
        replies={200: RotationBody},
        codes=("KEY_WORK_NOT_FOUND",),
    ),
    _Row(
        method="POST",
        path="/rotations/{rotationId}/stop",
        summary="Give up a rotation that can't end; what it has done stays done",
        handler=_stop_rotation,
        replies={200: RotationBody},
        codes=("KEY_WORK_NOT_FOUND",),
    ),
)  # fmt: skip
_OWN_KEY: Final = (
    _Row(
        method="GET",
        path="/holders",
        summary="Where the account may have keys of its own",
        handler=_list_holders,
        replies={200: HoldersBody},
    ),
    _Row(
        method="POST",
        path="/imports",
        summary="Begin to import a key: get a public key to wrap it under",
        handler=_begin_import,
        replies={201: ImportBody},
        codes=("TOO_MANY_IMPORTS", *_REPLACES, *_STORE),
    ),
    _Row(
        method="POST",
        path="/imports/{importToken}",
        summary="Put a wrapped key in the place of the customer's",
        handler=_finish_import,
        request=ImportRequest,
        replies={202: RotationBody},
        codes=(
            "ALGORITHM_IS_REQUIRED", "ALGORITHM_NOT_RECOGNISED", "WRAPPED_KEY_IS_REQUIRED", "WRAPPED_KEY_IS_INVALID",
            "WRAPPED_KEY_LENGTH_OUT_OF_RANGE", "WRAPPED_KEY_CONTAINS_INVALID_CHARACTERS", *_IMPORTS, *_REPLACES,
            *_STORE,
        ),
    ),
    _Row(
        method="POST",
        path="/customer/attach",
        summary="Put a key that is held elsewhere in the place of the customer's",
        handler=_attach,
        request=AttachRequest,
        replies={202: RotationBody},
        codes=(
            "HOLDER_IS_REQUIRED", "HOLDER_IS_INVALID", "HOLDER_LENGTH_OUT_OF_RANGE",
            "HOLDER_CONTAINS_INVALID_CHARACTERS", "REFERENCE_IS_REQUIRED", "REFERENCE_IS_INVALID",
            "REFERENCE_LENGTH_OUT_OF_RANGE", "REFERENCE_CONTAINS_INVALID_CHARACTERS", "HOLDER_NOT_FOUND",
            "KEY_HOLDER_IS_OURS", "KEY_REFERENCE_INVALID", "KEY_OF_ANOTHER_ACCOUNT", *_REPLACES,
        ),
    ),
    _Row(
        method="POST",
        path="/customer/test",
        summary="Have the customer's key wrap something and open it again",
        handler=_test,
        replies={200: TestedBody},
        codes=("KEY_NOT_FOUND", "HOLDER_NOT_FOUND", *_UNUSABLE),
    ),
    _Row(
        method="POST",
        path="/customer/disable",
        summary="Make what is under the customer's key unreadable, everywhere within 5 seconds",
        handler=_disable,
        replies={200: ScopeKeyBody},
        codes=("KEY_NOT_FOUND", "KEY_DESTROYED", *_UNUSABLE[2:], *_STORE),
    ),
    _Row(
        method="POST",
        path="/customer/enable",
        summary="Let the customer's key be used again",
        handler=_enable,
        replies={200: ScopeKeyBody},
        codes=("KEY_NOT_FOUND", "KEY_DESTROYED", "KEY_CHANGED", "HOLDER_NOT_FOUND", *_UNUSABLE, *_STORE),
    ),
    _Row(
        method="POST",
        path="/customer/destroy",
        summary="Ask for the customer's key to be destroyed; another API key has to approve",
        handler=_ask_to_destroy,
        request=DestructionRequest,
        replies={202: ScopeKeyBody},
        codes=(
            "VERSION_IS_REQUIRED", "VERSION_IS_INVALID", "KEY_NOT_FOUND", "KEY_CHANGED", "KEY_DESTROYED",
            "KEY_BEING_DESTROYED", "KEY_WORK_RUNNING",
        ),
    ),
    _Row(
        method="POST",
        path="/customer/destroy/approve",
        summary="Approve the destruction; it is final when the delay has passed",
        handler=_approve_destroying,
        request=DestructionRequest,
        replies={202: ScopeKeyBody},
        codes=(
            "VERSION_IS_REQUIRED", "VERSION_IS_INVALID", "KEY_NOT_FOUND", "KEY_CHANGED", "KEY_DESTROY_NOT_ASKED",
            "KEY_DESTROY_NEEDS_ANOTHER", "KEY_WORK_RUNNING",
        ),
    ),
    _Row(
        method="POST",
        path="/customer/destroy/cancel",
        summary="Take the destruction back while the delay lasts",
        handler=_cancel_destroying,
        replies={200: ScopeKeyBody},
        codes=("KEY_NOT_FOUND", "KEY_DESTROY_NOT_ASKED", "KEY_DESTROYED"),
    ),
)  # fmt: skip
_KEYS: Final = (
    _Row(
        method="GET",
        path="/{layer}",
        summary="The scope key of a layer that is in use",
        handler=_get,
        replies={200: ScopeKeyBody},
        codes=("KEY_NOT_FOUND",),
    ),
    _Row(
        method="GET",
        path="/{layer}/versions/{version}",
        summary="A version of a layer's scope key",
        handler=_get,
        replies={200: ScopeKeyBody},
        codes=("KEY_NOT_FOUND",),
    ),
)


def _routes(base: str, access: Access) -> Iterator[Route]:
    """The routes of the keys at `base`. An account has no customer's layer, and so none of what is done with one."""
    is_tenants = base.startswith("/v1/tenant/")
    whose = "tenant" if is_tenants else "account"
    listed = _Row(
        method="GET",
        path="",
        summary=f"The {whose}'s encryption keys",
        handler=_list,
        replies={200: EncryptionKeysBody if is_tenants else AccountEncryptionKeysBody},
    )
    for row in (listed, *_ROTATIONS, *(_OWN_KEY if is_tenants else ()), *_KEYS):
        reads = row.method == "GET" or row.handler is _test
        yield Route(
            method=row.method,
            path=base + row.path,
            summary=row.summary,
            tag="Encryption keys",
            access=access,
            permission=Permission.ENCRYPTION_KEYS_READ if reads else Permission.ENCRYPTION_KEYS_MANAGE,
            call=_called(row.handler, base),
            request=row.request,
            replies=row.replies,
            codes=row.codes,
        )


ROUTES: Final[Sequence[Route]] = (
    *_routes("/v1/tenant/encryption-keys", Access.TENANT),
    *_routes("/v1/tenant/{tenantId}/encryption-keys", Access.ACCOUNT),
    *_routes("/v1/account/encryption-keys", Access.ACCOUNT),
)
