"""The keyring of a process: the ciphers of the scopes it works for, opened when they are first needed.

Holders are never asked inside a transaction: an operation that finds its scope's keys missing, or changed since they
were loaded (their epoch says so), is begun again after `load`.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol, TypeVar
from uuid import UUID

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.database.operation import Connection, Operation
from strongroom.kernel.cipher import Cipher
from strongroom.kernel.clock import Clock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Broken, Failure, NotFound, StrongroomError, Unavailable
from strongroom.kernel.ids import AccountId, TenantId, new_uuid
from strongroom.kernel.secret import Secret
from strongroom.vault.envelopes import NONCE_BYTES, Layer, LayerCipher, ScopeCipher
from strongroom.vault.holders.contract import (
    KEY_BYTES,
    Holder,
    KeyStore,
    KeyUnavailable,
    Reason,
    wrapped_key_broken,
)
from strongroom.vault.holders.persons import PersonSecrets
from strongroom.vault.leases import ANSWER_WITHIN_S, Lease, Shut
from strongroom.vault.records import (
    DATA_KEY_PERIOD,
    SCOPE_KEY_PERIOD,
    DataKey,
    Keys,
    KeyState,
    Purpose,
    Scope,
    ScopeKey,
    Source,
    data_key_context,
    first_data_key_context,
    insert_data_key,
    insert_indexing,
    insert_scope_key,
    read_keys,
    scope_key_context,
    write_rewrapped,
)

log = structlog.get_logger(__name__)

T = TypeVar("T")
ROOT: Final = "root"
"""The reference of the installation's root key in its own holder."""
ASKED_AT_ONCE: Final = 8
"""Data keys of a scope that its holders are asked about at the same time."""
_NOBODY: Final = UUID(int=0)
Connect = Callable[[], AbstractAsyncContextManager[tuple[Connection, int]]]
"""A transaction that sees a scope's rows, with the scope's key epoch at its beginning."""


class HolderBook(Protocol):
    """The holders of an installation, by name; the implementation is `holders.configured.Holders`."""

    @property
    def own(self) -> KeyStore:
        """The installation's own, with the root key."""
        ...

    def get(self, name: str, account: AccountId) -> Holder:
        """A holder that the account may use. Raises errors.NotFound (`HOLDER_NOT_FOUND`)."""
        ...

    def names(self, account: AccountId) -> Sequence[str]:
        """The holders that an account may use, the installation's own first."""
        ...

    def persons(self, region: str) -> PersonSecrets:
        """The secrets of the persons of a region."""
        ...

    async def close(self) -> None:
        """Close all of them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKeys:
    """The first keys of a scope, made and not yet written; of a layer at least."""

    scope: Scope
    scope_keys: tuple[ScopeKey, ...]
    data_keys: tuple[DataKey, ...]
    cipher: Cipher
    """What seals with them."""


@dataclass(frozen=True, slots=True)
class _Entry:
    epoch: int
    cipher: Cipher
    lease: Lease | None


class Keyring:
    """Finds a scope's cipher; what it has found it remembers until the scope's keys change."""

    def __init__(self, holders: HolderBook, environment: Environment, clock: Clock) -> None:
        self.holders = holders
        self.environment = environment
        self.clock = clock
        self._entries: dict[tuple[str, UUID], _Entry] = {}
        self._loading: dict[tuple[str, UUID], asyncio.Lock] = {}
        self._leases: weakref.WeakSet[Lease] = weakref.WeakSet()

    async def close(self) -> None:
        """Forget all keys, and let go of the holders."""
        self._entries.clear()
        for lease in list(self._leases):
            await lease.close()
        await self.holders.close()

    def known(self, region: str, scope: UUID) -> tuple[Cipher, int] | None:
        """The scope's cipher, when it is at hand, with the epoch of its keys."""
        entry = self._entries.get((region, scope))
        if entry is None or (entry.lease is not None and not entry.lease.use()):
            return None
        return entry.cipher, entry.epoch

    def find(self, region: str, scope: UUID, epoch: int) -> Cipher | None:
        """The scope's cipher as of this epoch of its keys; None when it has to be loaded first."""
        if scope == _NOBODY:
            return _NO_CIPHER
        entry = self._entries.get((region, scope))
        if entry is None or entry.epoch != epoch:
            return None
        if entry.lease is not None and not entry.lease.use():
            return None
        return entry.cipher

    async def load(self, connect: Connect, region: str, account: AccountId | None, tenant: TenantId | None) -> None:
        """Open the scope's keys as they are now, asking their holders. Call it outside of operations.

        A scope from before the hierarchy gets its scope keys, and a tenant its customer's layer, on the way.

        Raises errors.Broken (`DATA_KEY_BROKEN`) when the platform's layer doesn't open, and errors.Unavailable
        (`KEY_UNAVAILABLE`) when the root key can't be used. What is wrong with the customer's layer is told when it is
        needed.
        """
        assert account is not None  # noqa: S101  # nobody's cipher is always found
        scope = Scope(account=account, tenant=tenant)
        place = (region, scope.id)
        async with self._loading.setdefault(place, asyncio.Lock()):
            entry = self._entries.get(place)
            async with connect() as (connection, epoch):
                keys = None if entry is not None and entry.epoch == epoch else await read_keys(connection, scope.id)
            if keys is None:
                if entry is not None and entry.lease is not None and not entry.lease.use():
                    await entry.lease.renew()
                return
            if keys.data_keys and _is_from_before(keys, scope):
                try:
                    epoch, keys = await self._bring_up(connect, scope, keys)
                except Unavailable as error:
                    # A database that takes no changes: what was sealed before opens all the same.
                    log.warning("keys.not_brought_up", scope=str(scope.id), code=error.code)
            cipher, lease = await self._open(scope, keys, region)
            self._entries[place] = _Entry(epoch, cipher, lease)
            if entry is not None and entry.lease is not None and lease is None:
                entry.lease.end()
            # Otherwise what has begun with the old lease may end with it.

    async def draw(self, scope: Scope) -> NewKeys:
        """The first keys of a scope, in both layers of a tenant. Asks the holder: call it outside of operations."""
        platform, wrapper = await self.new_scope_key(scope, Layer.PLATFORM, 1)
        scope_keys, keys = [platform], {}
        data_keys = []
        for purpose in _PURPOSES if scope.tenant is not None else _OF_ACCOUNTS:
            keys[purpose] = Secret(os.urandom(KEY_BYTES))
            data_keys.append(await self._wrapped(scope, platform, wrapper, keys[purpose], purpose=purpose))
        customer = None
        if scope.tenant is not None:
            scope_key, wrapper = await self.new_scope_key(scope, Layer.CUSTOMER, 1)
            key = Secret(os.urandom(KEY_BYTES))
            scope_keys.append(scope_key)
            data_keys.append(await self._wrapped(scope, scope_key, wrapper, key))
            customer = _Drawn(LayerCipher(scope.id, Layer.CUSTOMER, {1: key}))
        cipher = ScopeCipher(
            scope.id,
            LayerCipher(scope.id, Layer.PLATFORM, {1: keys["seal"]}),
            keys["index"],
            customer,
            {1: keys["search"]} if scope.tenant is not None else None,
        )
        return NewKeys(scope=scope, scope_keys=tuple(scope_keys), data_keys=tuple(data_keys), cipher=cipher)

    async def discard(self, drawn: NewKeys) -> None:
        """Destroy what was drawn and not written."""
        for key in drawn.scope_keys:
            if key.layer is Layer.CUSTOMER:
                await self.holders.own.destroy(key.reference)

    async def new_scope_key(self, scope: Scope, layer: Layer, version: int) -> tuple[ScopeKey, Wrapper]:
        """Make a scope key: the platform's is wrapped under the root, the customer's is kept by our own holder."""
        [made] = await self.new_scope_keys([(scope, version)], layer)
        return made, await self.wrapper(scope, made)

    async def new_scope_keys(self, wanted: Sequence[tuple[Scope, int]], layer: Layer) -> list[ScopeKey]:
        """The same for several scopes at once, each with the version that its key is to have."""
        own = self.holders.own
        made = []
        for scope, version in wanted:
            reference, wrapped = ROOT, None
            if layer is Layer.PLATFORM:
                key = Secret(os.urandom(KEY_BYTES))
                wrapped = await own.wrap(ROOT, key, scope_key_context(self.environment, scope.id, version))
            else:
                reference = f"customer-{scope.id.hex}-{new_uuid().hex}"
            described = self.describe_scope_key(
                layer, version, source=Source.KEPT, holder=own.name, reference=reference, wrapped=wrapped
            )
            made.append(described)
        if layer is Layer.CUSTOMER:
            await own.create_many([key.reference for key in made])
        return made

    def describe_scope_key(
        self, layer: Layer, version: int, *, source: Source, holder: str, reference: str, wrapped: bytes | None = None
    ) -> ScopeKey:
        """The row of a scope key that begins its life now."""
        now = self.clock.now()
        return ScopeKey(
            layer=layer,
            version=version,
            state=KeyState.ACTIVE,
            source=source,
            holder=holder,
            reference=reference,
            wrapped=wrapped,
            created_at=now,
            changed_at=now,
            expires_at=now + SCOPE_KEY_PERIOD,
            retired_at=None,
            destroy_after=None,
            destroy_asked_by=None,
            destroy_approved_by=None,
        )

    async def new_data_key(
        self, scope: Scope, keys: Keys, layer: Layer, *, under: ScopeKey | None = None, purpose: Purpose = "seal"
    ) -> DataKey:
        """Make the next data key of a layer, wrapped under its current scope key unless told. Asks the holder."""
        scope_key = under or keys.current(layer)
        assert scope_key is not None  # noqa: S101  # whoever asks has looked
        wrapper = await self.wrapper(scope, scope_key)
        version = max(key.version for key in keys.data_keys if (key.layer, key.purpose) == (layer, purpose)) + 1
        drawn = Secret(os.urandom(KEY_BYTES))
        return await self._wrapped(scope, scope_key, wrapper, drawn, purpose=purpose, version=version)

    async def rewrap(
        self, scope: Scope, keys: Keys, chosen: Sequence[DataKey], target: ScopeKey
    ) -> list[DataKey | KeyUnavailable | Broken]:
        """The same data keys under another scope key of their layer, in order, or why one can't be had.

        Asks the holders, for several keys at once. Raises errors.Unavailable (`KEY_UNAVAILABLE`) and errors.Broken
        (`DATA_KEY_BROKEN`) when the other scope key itself doesn't open.
        """
        wrapper, limit = await self.wrapper(scope, target), asyncio.Semaphore(ASKED_AT_ONCE)

        async def rewrapped(key: DataKey) -> DataKey | KeyUnavailable | Broken:
            context = data_key_context(self.environment, scope.id, key.layer, key.purpose, key.version)
            try:
                async with limit:
                    opened = await self._unwrapped(scope, keys, key)
                    wrapped = await in_time(wrapper.wrap(opened, context), target.holder)
            except (KeyUnavailable, Broken) as error:
                return error
            return replace(key, wrapped=wrapped, scope_key_version=target.version)

        return await asyncio.gather(*(rewrapped(key) for key in chosen))

    async def wrapper(self, scope: Scope, key: ScopeKey) -> Wrapper:
        """What wraps and opens data keys with this scope key."""
        if key.wrapped is None:
            return _Remote(self._holder(scope, key.holder), key.reference)
        context = scope_key_context(self.environment, scope.id, key.version)
        return _Local(await self.holders.own.unwrap(key.reference, key.wrapped, context))

    async def open_layer(self, scope: Scope, keys: Keys, layer: Layer) -> LayerCipher:
        """The cipher of one layer by itself, with all data keys that aren't destroyed. Asks the holder, keeps nothing.

        Raises errors.Unavailable (`KEY_UNAVAILABLE`) and errors.Broken (`DATA_KEY_BROKEN`).
        """
        opened = {key.version: await self._unwrapped(scope, keys, key) for key in keys.data(layer)}
        return LayerCipher(scope.id, layer, opened)

    def _holder(self, scope: Scope, name: str) -> Holder:
        """The holder of a key that is in use. Raises `KeyUnavailable` when it isn't configured (any more)."""
        try:
            return self.holders.get(name, scope.account)
        except NotFound:
            raise KeyUnavailable(name, Reason.AWAY, "no such holder is configured for this account") from None

    async def _open(self, scope: Scope, keys: Keys, region: str) -> tuple[Cipher, Lease | None]:
        """The scope's cipher, with the lease on its customer's layer, asked for once."""
        if not keys.data_keys:
            return _NO_CIPHER, None
        opened: dict[Purpose, dict[int, Secret[bytes]]] = {purpose: {} for purpose in _PURPOSES}
        for purpose in _PURPOSES:
            for key in keys.data(Layer.PLATFORM, purpose):
                opened[purpose][key.version] = await self._unwrapped(scope, keys, key)
        platform = LayerCipher(scope.id, Layer.PLATFORM, opened["seal"])
        lease: Lease | None = None
        customer = self._customer(scope, keys)
        if isinstance(customer, Lease):
            lease = customer
            self._leases.add(lease)
            await lease.renew()
        persons = self.holders.persons(region) if scope.tenant is not None else None
        cipher = ScopeCipher(scope.id, platform, opened["index"][1], customer, opened["search"], persons=persons)
        return cipher, lease

    def _customer(self, scope: Scope, keys: Keys) -> Lease | Shut | None:
        current = keys.current(Layer.CUSTOMER)
        if current is None:
            return None
        newest = max((key.version for key in keys.data(Layer.CUSTOMER)), default=0)
        match current.state:
            case KeyState.DISABLED:
                return Shut(newest, current.holder, Reason.DISABLED)
            case KeyState.DESTROYED:
                return Shut(newest, current.holder, Reason.GONE)

        return Lease(partial(self.open_layer, scope, keys, Layer.CUSTOMER), holder=current.holder, newest=newest)

    async def _unwrapped(self, scope: Scope, keys: Keys, key: DataKey) -> Secret[bytes]:
        """A data key. Raises errors.Broken (`DATA_KEY_BROKEN`), errors.Unavailable (`KEY_UNAVAILABLE`)."""
        if key.scope_key_version is None:
            context = first_data_key_context(self.environment, scope.id, key.purpose, key.version)
            return await self.holders.own.unwrap(ROOT, key.wrapped, context)
        scope_key = keys.find(key.layer, key.scope_key_version)
        if scope_key is None:
            raise wrapped_key_broken(self.holders.own.name)
        wrapper = await self.wrapper(scope, scope_key)
        context = data_key_context(self.environment, scope.id, key.layer, key.purpose, key.version)
        opened = await in_time(wrapper.unwrap(key.wrapped, context), scope_key.holder)
        if len(opened.reveal()) != KEY_BYTES:
            raise KeyUnavailable(scope_key.holder, Reason.NONSENSE)
        return opened

    async def _wrapped(
        self,
        scope: Scope,
        scope_key: ScopeKey,
        wrapper: Wrapper,
        key: Secret[bytes],
        *,
        purpose: Purpose = "seal",
        version: int = 1,
    ) -> DataKey:
        context = data_key_context(self.environment, scope.id, scope_key.layer, purpose, version)
        now = self.clock.now()
        return DataKey(
            layer=scope_key.layer,
            purpose=purpose,
            version=version,
            state=KeyState.ACTIVE,
            wrapped=await in_time(wrapper.wrap(key, context), scope_key.holder),
            scope_key_version=scope_key.version,
            created_at=now,
            expires_at=now + DATA_KEY_PERIOD,
        )

    async def _bring_up(self, connect: Connect, scope: Scope, keys: Keys) -> tuple[int, Keys]:
        """Give a scope from before the hierarchy what it lacks; of several processes that do, one succeeds."""
        scope_keys: list[ScopeKey] = []
        data_keys: list[DataKey] = []
        rewrapped: list[DataKey] = []
        found = keys.current(Layer.PLATFORM)
        if found is None:
            platform, _ = await self.new_scope_key(scope, Layer.PLATFORM, 1)
            scope_keys.append(platform)
            for end in await self.rewrap(scope, keys, keys.data_keys, platform):
                if isinstance(end, StrongroomError):
                    raise end
                rewrapped.append(end)
        else:
            platform = found
        if scope.tenant is not None and not keys.data(Layer.PLATFORM, "search"):
            wrapper, drawn_key = await self.wrapper(scope, platform), Secret(os.urandom(KEY_BYTES))
            data_keys.append(await self._wrapped(scope, platform, wrapper, drawn_key, purpose="search"))
        if scope.tenant is not None and keys.current(Layer.CUSTOMER) is None:
            customer, wrapper = await self.new_scope_key(scope, Layer.CUSTOMER, 1)
            scope_keys.append(customer)
            data_keys.append(await self._wrapped(scope, customer, wrapper, Secret(os.urandom(KEY_BYTES))))
        drawn = NewKeys(scope=scope, scope_keys=tuple(scope_keys), data_keys=tuple(data_keys), cipher=_NO_CIPHER)
        async with connect() as (connection, _):
            await connection.execute(b"select pg_advisory_xact_lock(hashtextextended(%s, 0))", (scope.id.hex,))
            is_first = await read_keys(connection, scope.id) == keys
            if is_first:
                await _write(connection, drawn)
                await write_rewrapped(connection, scope.id, rewrapped)
                if any(key.purpose == "search" for key in data_keys):
                    await insert_indexing(connection, scope.id, self.clock.now())
        if not is_first:
            await self.discard(drawn)
        async with connect() as (connection, epoch):
            return epoch, await read_keys(connection, scope.id)


async def place_keys(op: Operation, drawn: NewKeys) -> None:
    """Write the first keys of the operation's scope, and let the operation seal with them."""
    await _write(op.connection, drawn)
    op.cipher = drawn.cipher


async def ensure_keys(keyring: Keyring, operation: Callable[[], AbstractAsyncContextManager[Operation]]) -> None:
    """Make the first keys of a scope unless it has some; of several at once, one makes them.

    `operation` begins an operation of the scope. Call it outside of operations.
    """
    async with operation() as op:
        if await _has_keys(op):
            return
        scope = Scope(account=op.account, tenant=op.tenant_id)
    drawn = await keyring.draw(scope)
    async with operation() as op:
        await op.run("select pg_advisory_xact_lock(hashtextextended(%s, 0))", scope.id.hex)
        is_first = not await _has_keys(op)
        if is_first:
            await place_keys(op, drawn)
    # Only when it is certain that they were not written: after an error nobody knows.
    if not is_first:
        await keyring.discard(drawn)


class NoCipher:
    """The cipher of a scope without keys: refuses."""

    def seal(self, table: str, column: str, row: bytes, plaintext: bytes) -> bytes:
        """Raises errors.Broken (`DATA_KEY_MISSING`)."""
        raise self._missing()

    def open(self, table: str, column: str, row: bytes, envelope: bytes) -> bytes:
        """Raises errors.Broken (`DATA_KEY_MISSING`)."""
        raise self._missing()

    def index(self, table: str, column: str, value: str) -> bytes:
        """Raises errors.Broken (`DATA_KEY_MISSING`)."""
        raise self._missing()

    def for_purpose(self, purpose: str) -> NoCipher:
        """It refuses whatever for."""
        del purpose
        return self

    def for_person(self, person: int) -> NoCipher:
        """It refuses for anybody."""
        del person
        return self

    def blind(self, table: str, column: str, value: str) -> bytes:
        """Raises errors.Broken (`DATA_KEY_MISSING`)."""
        raise self._missing()

    def blinds(self, table: str, column: str, value: str) -> Sequence[bytes]:
        """Raises errors.Broken (`DATA_KEY_MISSING`)."""
        raise self._missing()

    @staticmethod
    def _missing() -> Broken:
        return Broken(Failure("DATA_KEY_MISSING", "There is no data key for this account or tenant."))


class Wrapper(Protocol):
    """A scope key as it is used: wraps data keys, and opens them."""

    async def wrap(self, key: Secret[bytes], context: bytes) -> bytes:
        """See `holders.contract.Holder.wrap`."""
        ...

    async def unwrap(self, wrapped: bytes, context: bytes) -> Secret[bytes]:
        """See `holders.contract.Holder.unwrap`."""
        ...


class _Local:
    """A scope key of the platform's layer, in memory: a random nonce, then AES-256-GCM."""

    def __init__(self, key: Secret[bytes]) -> None:
        self._cipher = AESGCM(key.reveal())

    async def wrap(self, key: Secret[bytes], context: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key.reveal(), context)

    async def unwrap(self, wrapped: bytes, context: bytes) -> Secret[bytes]:
        try:
            return Secret(self._cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], context))
        except (InvalidTag, ValueError):
            raise wrapped_key_broken("database") from None


class _Remote:
    """A scope key in a holder."""

    def __init__(self, holder: Holder, reference: str) -> None:
        self._holder = holder
        self._reference = reference

    async def wrap(self, key: Secret[bytes], context: bytes) -> bytes:
        return await self._holder.wrap(self._reference, key, context)

    async def unwrap(self, wrapped: bytes, context: bytes) -> Secret[bytes]:
        return await self._holder.unwrap(self._reference, wrapped, context)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The customer's layer of a scope whose keys were made just now."""

    drawn: LayerCipher
    newest: int = 1

    def cipher(self) -> LayerCipher:
        return self.drawn


async def in_time(answer: Awaitable[T], holder: str) -> T:
    """What a holder answers. Raises `KeyUnavailable` when that takes too long."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await answer
    except TimeoutError:
        raise KeyUnavailable(holder, Reason.SLOW) from None


async def _has_keys(op: Operation) -> bool:
    return await op.row("select from data_keys where scope_id = %s limit 1", op.scope) is not None


async def _write(connection: Connection, drawn: NewKeys) -> None:
    for scope_key in drawn.scope_keys:
        await insert_scope_key(connection, drawn.scope.id, scope_key)
    for data_key in drawn.data_keys:
        await insert_data_key(connection, drawn.scope.id, data_key)


def _is_from_before(keys: Keys, scope: Scope) -> bool:
    if keys.current(Layer.PLATFORM) is None:
        return True
    return scope.tenant is not None and (
        keys.current(Layer.CUSTOMER) is None or not keys.data(Layer.PLATFORM, "search")
    )


_OF_ACCOUNTS: Final[tuple[Purpose, ...]] = ("seal", "index")
_PURPOSES: Final[tuple[Purpose, ...]] = (*_OF_ACCOUNTS, "search")
"""What a platform's data keys are for; nobody searches in what an account itself has sealed."""
_NO_CIPHER: Final = NoCipher()
