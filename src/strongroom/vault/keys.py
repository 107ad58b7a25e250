"""The life of a scope's keys, as its owner leads it: look, rotate, attach or import one's own, disable, destroy.

What changes keys is asked of a `KeyDesk`, because it talks to holders between its operations; every step needs a
permission and leaves an audit entry. What takes long (`work`) is only begun here; `KeyDesk.tend` does it, in the worker
or wherever somebody wants to see it done.

Destroying takes two people and a delay, in which either may still cancel. It ends what the installation keeps: the
scope keys of the layer in all versions, and the wrapped data keys. A key that is held elsewhere is its owner's to
destroy there; as long as it isn't, a backup of the database from before can still be opened with it.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from strongroom.access import Permission, require
from strongroom.audit import Outcome, record
from strongroom.database import Databases, Operation
from strongroom.kernel.actors import Actor
from strongroom.kernel.errors import Conflict, Failure, Forbidden, Invalid, NotFound, StrongroomError
from strongroom.kernel.ids import AccountId, new_uuid
from strongroom.kernel.secret import Secret
from strongroom.vault.envelopes import Layer
from strongroom.vault.holders.contract import KEY_BYTES, HeldKey, HeldState, KeyUnavailable, Reason
from strongroom.vault.keyring import Keyring, in_time
from strongroom.vault.overdue import tell_of_overdue
from strongroom.vault.persons import destroy_ended, part_persons
from strongroom.vault.records import (
    DataKey,
    Keys,
    KeyState,
    Purpose,
    Scope,
    ScopeKey,
    Source,
    by_region,
    find_due,
    insert_data_key,
    insert_scope_key,
    pack_scopes,
    read_keys,
)
from strongroom.vault.work import (
    KEEPER,
    Kind,
    Progress,
    Split,
    Work,
    begin_work,
    carry_over,
    drop_entries,
    end_work,
    refuse_while_working,
    run_work,
)

log = structlog.get_logger(__name__)

DESTROY_DELAY: Final = timedelta(days=7)
"""From the second person's word until a key is destroyed."""
RETIRED_KEPT: Final = timedelta(days=35)
"""How long a scope key that wraps nothing any more is kept, for backups of the database from when it did."""
AT_ONCE: Final = 4
"""Scopes that are tended at the same time in one process, when it is our own holder that has their keys."""
AT_ONCE_ELSEWHERE: Final = 2
"""The same for each holder elsewhere."""
TURN_S: Final = 10.0
"""After so long a scope with much to do makes room for the others."""
LOOKED_AT_ONCE: Final = 1_000
"""Scopes of which it is asked together whether something is due."""
MAX_REFERENCE: Final = 512
_FOLLOWS: Final[Mapping[Purpose, tuple[str, Kind]]] = {
    "seal": ("data-key", "re-encrypt"),
    "search": ("search-key", "re-index"),
}
"""What the record calls a data key that is rotated, by purpose, and the work that follows. (`index` isn't rotated.)"""
_TEST_CONTEXT: Final = b"strongroom key test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A key that wrapped and opened something. `held` is how its holder describes it."""

    held: HeldKey
    milliseconds: float


async def list_keys(op: Operation) -> Keys:
    """All keys of the operation's scope, in all versions, without what they are wrapped as."""
    require(op, Permission.ENCRYPTION_KEYS_READ)
    keys = await read_keys(op.connection, op.scope)
    return Keys(
        [replace(key, wrapped=None) for key in keys.scope_keys], [replace(key, wrapped=b"") for key in keys.data_keys]
    )


async def get_scope_key(op: Operation, layer: Layer, version: int | None = None) -> ScopeKey:
    """One version of a layer's scope key, the newest unless it is named.

    Raises errors.NotFound (`KEY_NOT_FOUND`).
    """
    keys = await list_keys(op)
    found = keys.current(layer) if version is None else keys.find(layer, version)
    if found is None:
        raise _not_found()
    return found


Witness = Callable[[Operation], Awaitable[None]]


class _TurnOver(Exception):
    """A scope has been tended for long enough; what was done is committed, and goes on the next time."""


class _Lane:
    """Scopes whose keys one holder has, which are tended a few at once."""

    def __init__(self, width: int) -> None:
        self.width = asyncio.Semaphore(width)
        self.is_stuck = False
        """Whether the holder hasn't answered: the others needn't find that out one by one."""


@dataclass(frozen=True, kw_only=True)
class KeyDesk:
    """Where the keys of scopes are changed."""

    databases: Databases
    keyring: Keyring
    owner_key: Secret[bytes]
    """Keys the hashes by which the directory knows whose a held key is; one for the whole installation."""
    destroy_delay: timedelta = DESTROY_DELAY
    witness: Witness | None = None
    """Told, in the very operation, of every change that somebody asks for; what it raises keeps it from being made."""

    async def rotate_scope_key(self, actor: Actor, scope: Scope, layer: Layer) -> Work:
        """Put a new scope key, made and kept by us, in the place of the layer's; data keys are to be rewrapped.

        Raises errors.Conflict (`KEY_WORK_RUNNING`, `KEY_BEING_DESTROYED`, `KEY_DISABLED`, `KEY_DESTROYED`),
        errors.NotFound (`KEY_NOT_FOUND`), errors.Forbidden.
        """
        current = await self._look(actor, scope, layer)
        fresh, _ = await self.keyring.new_scope_key(scope, layer, current.version + 1)
        return await self._replace(actor, scope, current, fresh, "key.rotate")

    async def rotate_data_key(self, actor: Actor, scope: Scope, layer: Layer) -> Work:
        """Make a new data key, which seals from now on; what is sealed is to be sealed again under it.

        Raises as `rotate_scope_key`, and errors.Unavailable (`KEY_UNAVAILABLE`).
        """
        return await self._rotate(actor, scope, layer, "seal")

    async def rotate_search_key(self, actor: Actor, scope: Scope) -> Work:
        """Make a new key for a tenant's blind indexes; their entries are to be made again under it.

        Raises as `rotate_scope_key`, and errors.NotFound (`KEY_NOT_FOUND`) for an account.
        """
        return await self._rotate(actor, scope, Layer.PLATFORM, "search")

    async def attach(self, actor: Actor, scope: Scope, holder: str, reference: str) -> Work:
        """Put a key that is held elsewhere, and only used there, in the place of the customer's.

        It is tried before it is taken. A key belongs to one account, whose tenants may share it.

        Raises errors.Invalid (`KEY_REFERENCE_INVALID`, `KEY_HOLDER_IS_OURS`), errors.NotFound (`HOLDER_NOT_FOUND`),
        errors.Conflict (`KEY_OF_ANOTHER_ACCOUNT`) and as `rotate_data_key`.
        """
        current = await self._look(actor, scope, Layer.CUSTOMER, renew=True)
        if not reference or len(reference) > MAX_REFERENCE:
            raise Invalid(
                Failure(
                    "KEY_REFERENCE_INVALID",
                    "The key's reference is text of 1 to {maxLength} characters.",
                    {"maxLength": MAX_REFERENCE},
                )
            )
        if holder == self.keyring.holders.own.name:
            raise Invalid(
                Failure(
                    "KEY_HOLDER_IS_OURS", "Keys in the installation's own holder are made or imported, not attached."
                )
            )
        await self._try(scope, holder, reference)
        await self._claim(scope.account, holder, reference)
        fresh = self.keyring.describe_scope_key(
            Layer.CUSTOMER, current.version + 1, source=Source.HELD, holder=holder, reference=reference
        )
        return await self._replace(actor, scope, current, fresh, "key.attach")

    async def refuse_unless_replaceable(self, actor: Actor, scope: Scope) -> None:
        """Go on only if another key may take the place of the customer's now. Raises as `rotate_data_key`."""
        await self._look(actor, scope, Layer.CUSTOMER, renew=True)

    async def bring(self, actor: Actor, scope: Scope, key: Secret[bytes]) -> Work:
        """Put a key that the customer made in the place of theirs; the installation's holder keeps it.

        Raises errors.Invalid (`KEY_SIZE_INVALID`) and as `rotate_data_key`.
        """
        current = await self._look(actor, scope, Layer.CUSTOMER, renew=True)
        if len(key.reveal()) != KEY_BYTES:
            raise Invalid(
                Failure("KEY_SIZE_INVALID", "The key has {bytes} bytes.", {"bytes": KEY_BYTES}),
            )
        store = self.keyring.holders.own
        reference = f"imported-{scope.id.hex}-{new_uuid().hex}"
        await store.bring(reference, key)
        fresh = self.keyring.describe_scope_key(
            Layer.CUSTOMER, current.version + 1, source=Source.IMPORTED, holder=store.name, reference=reference
        )
        return await self._replace(actor, scope, current, fresh, "key.import")

    async def test(self, actor: Actor, scope: Scope) -> Tested:
        """Have the customer's key wrap and open something.

        Raises errors.Unavailable (`KEY_UNAVAILABLE`), errors.NotFound, errors.Forbidden.
        """
        async with self._operation(actor, scope) as op:
            require(op, Permission.ENCRYPTION_KEYS_READ)
            key = await get_scope_key(op, Layer.CUSTOMER)
        try:
            tested = await self._try(scope, key.holder, key.reference)
        except StrongroomError as error:
            await self._record(actor, scope, "key.test", key, outcome="refused", detail=error.code)
            raise
        await self._record(actor, scope, "key.test", key)
        return tested

    async def disable(self, actor: Actor, scope: Scope) -> None:
        """Make everything under the customer's key unreadable until it is enabled, in every process within 5 seconds.

        Again is as good as once. Raises errors.Conflict (`KEY_DESTROYED`), errors.NotFound, errors.Forbidden, and
        errors.Unavailable when the keeping holder couldn't be told: then the key is disabled all the same.
        """
        async with self._operation(actor, scope) as op:
            await _lock(op)
            key = await self._current(op, Layer.CUSTOMER)
            if key.state is KeyState.DESTROYED:
                raise _destroyed()
            await _set_state(op, key, KeyState.DISABLED)
            await self._changed(op, "key.disable", f"version={key.version}")
        if key.source is not Source.HELD:
            await self.keyring.holders.own.disable(key.reference)

    async def enable(self, actor: Actor, scope: Scope) -> None:
        """Let a disabled key be used again, if its holder lets it.

        Raises errors.Conflict (`KEY_DESTROYED`), errors.Unavailable (`KEY_UNAVAILABLE`), errors.NotFound,
        errors.Forbidden.
        """
        async with self._operation(actor, scope) as op:
            key = await self._current(op, Layer.CUSTOMER)
            if key.state is KeyState.DESTROYED or _is_due(op, key):
                raise _destroyed()
        if key.source is not Source.HELD:
            await self.keyring.holders.own.enable(key.reference)
        await self._try(scope, key.holder, key.reference)
        async with self._operation(actor, scope) as op:
            await _lock(op)
            _expect(await self._current(op, Layer.CUSTOMER), key)
            await _set_state(op, key, KeyState.ACTIVE)
            await self._changed(op, "key.enable", f"version={key.version}")

    async def ask_to_destroy(self, actor: Actor, scope: Scope) -> ScopeKey:
        """The first of two people asks for the customer's key to be destroyed.

        Raises errors.Conflict (`KEY_WORK_RUNNING`, `KEY_BEING_DESTROYED`, `KEY_DESTROYED`), errors.NotFound,
        errors.Forbidden.
        """
        async with self._operation(actor, scope) as op:
            await _lock(op)
            key = await self._current(op, Layer.CUSTOMER)
            if key.state is KeyState.DESTROYED:
                raise _destroyed()
            if key.destroy_asked_by is not None:
                raise _being_destroyed()
            await refuse_while_working(op)
            await _set_destruction(op, key, asked_by=_who(op))
            await self._changed(op, "key.ask-to-destroy", f"version={key.version}")
            return await self._current(op, Layer.CUSTOMER)

    async def approve_destroying(self, actor: Actor, scope: Scope) -> ScopeKey:
        """The second person agrees; the key is destroyed when the delay has passed (`destroy_after`).

        Raises errors.Conflict (`KEY_DESTROY_NOT_ASKED`), errors.Forbidden (`KEY_DESTROY_NEEDS_ANOTHER`), and as before.
        """
        async with self._operation(actor, scope) as op:
            await _lock(op)
            key = await self._current(op, Layer.CUSTOMER)
            if key.destroy_asked_by is None or key.state is KeyState.DESTROYED:
                raise _not_asked()
            if key.destroy_asked_by == _who(op):
                raise Forbidden(
                    Failure("KEY_DESTROY_NEEDS_ANOTHER", "Somebody else has to agree to the destruction of a key.")
                )
            if key.destroy_after is None:
                await refuse_while_working(op)
                after = op.now + self.destroy_delay
                await _set_destruction(op, key, asked_by=key.destroy_asked_by, approved_by=_who(op), after=after)
                await self._changed(op, "key.approve-destroying", f"after={after.isoformat()}")
            return await self._current(op, Layer.CUSTOMER)

    async def cancel_destroying(self, actor: Actor, scope: Scope) -> ScopeKey:
        """Take the destruction back, before it is done.

        Raises errors.Conflict (`KEY_DESTROY_NOT_ASKED`), errors.NotFound, errors.Forbidden.
        """
        async with self._operation(actor, scope) as op:
            await _lock(op)
            key = await self._current(op, Layer.CUSTOMER)
            if key.destroy_asked_by is None or key.state is KeyState.DESTROYED:
                raise _not_asked()
            if _is_due(op, key):
                raise _destroyed()
            await _set_destruction(op, key)
            await self._changed(op, "key.cancel-destroying", f"version={key.version}")
            return await self._current(op, Layer.CUSTOMER)

    async def stop_rotation(self, actor: Actor, scope: Scope) -> Work:
        """Give up a rotation that can't end, since a key that it needs is gone. What it has done stays done.

        Old versions stay in use for what is still under them; the next rotation takes it all along.

        Raises errors.NotFound (`KEY_WORK_NOT_FOUND`), errors.Forbidden.
        """
        async with self._operation(actor, scope) as op:
            require(op, Permission.ENCRYPTION_KEYS_MANAGE)
            work = await end_work(op)
            await self._changed(op, "key.stop-rotation", f"{work.kind} {work.layer.value}")
            return work

    async def tend(
        self, scope: Scope, splits: Sequence[Split] = (), progress: Progress | None = None, *, again: bool = False
    ) -> Work | None:
        """Do what is due: destroy, carry over, finish a rotation, end what has retired, rotate keys whose cryptoperiod
        is over. Returns the last rotation.

        Without `splits` nothing is carried over; `again` is of `destroy_ended`.

        Raises as `work.run_work`.
        """
        await self._destroy_due(scope)
        if scope.tenant is not None:
            await destroy_ended(self.databases, scope, again=again)
        if scope.tenant is not None and splits:
            await carry_over(self.databases, scope, splits, progress)
        work = await run_work(self.databases, self.keyring, scope, progress)
        await self._end_retired(scope)
        if scope.tenant is not None and splits:
            await part_persons(self.databases, scope, progress)
        while await self._begin_due(scope):
            work = await run_work(self.databases, self.keyring, scope, progress)
        return work

    async def tend_all(self, splits: Sequence[Split] = (), *, again: bool = False) -> bool:
        """The same for every account and tenant that has something due; whether something is left to be gone on with.

        They take turns, a few at once, and none lasts long, so that a big tenant holds up nobody. Those whose key is
        in a holder elsewhere wait for one another alone, and are left for the next time when it doesn't answer. What
        goes wrong with one is logged. `again` is of `persons.destroy_ended`.
        """
        lanes = {self.keyring.holders.own.name: _Lane(AT_ONCE)}
        ends = await asyncio.gather(
            *(
                self._take_turn(lanes.setdefault(holder, _Lane(AT_ONCE_ELSEWHERE)), scope, splits, again=again)
                for scope, holder in await self._find_due(again=again)
            )
        )
        return any(ends)

    async def _find_due(self, *, again: bool) -> list[tuple[Scope, str]]:
        """The scopes with something to be done about their keys, and the holder that their customer's layer needs."""
        own, due = self.keyring.holders.own.name, []
        for region, scopes in (await by_region(self.databases, await self.scopes())).items():
            for first in range(0, len(scopes), LOOKED_AT_ONCE):
                batch = scopes[first : first + LOOKED_AT_ONCE]
                async with self.databases.operation(KEEPER, region=region) as op:
                    rows = await op.rows(
                        "select place, holder from scopes_to_tend(%s, %s, %s, %s, %s)",
                        *pack_scopes(batch),
                        op.now,
                        op.now - RETIRED_KEPT,
                        again,
                    )
                due += [(batch[place - 1], holder or own) for place, holder in rows]
        return due

    async def _take_turn(self, lane: _Lane, scope: Scope, splits: Sequence[Split], *, again: bool) -> bool:
        """Tend a scope for as long as a turn lasts; whether there is more to do."""
        async with lane.width:
            if lane.is_stuck:
                return False
            until_s = time.monotonic() + TURN_S

            def look_at_the_clock(work: Work) -> None:
                if not work.is_done and time.monotonic() >= until_s:
                    raise _TurnOver

            try:
                await self.tend(scope, splits, look_at_the_clock, again=again)
            except _TurnOver:
                return True
            except StrongroomError as error:
                log.warning("keys.not_tended", scope=str(scope.id), code=error.code)
                # A lease tells the same in an error that is no KeyUnavailable any more.
                lane.is_stuck |= error.failures[0].values.get("reason") in {Reason.AWAY, Reason.SLOW}
            return False

    async def _rotate(self, actor: Actor, scope: Scope, layer: Layer, purpose: Purpose) -> Work:
        """Put a new data key of this purpose in the place of the one in use, and begin what follows from that."""
        current = await self._look(actor, scope, layer)
        async with self._operation(actor, scope) as op:
            keys = await read_keys(op.connection, scope.id)
        if not keys.data(layer, purpose):
            raise _not_found()
        fresh = await self.keyring.new_data_key(scope, keys, layer, purpose=purpose)
        async with self._operation(actor, scope) as op:
            await _lock(op)
            _expect(await self._changeable(op, layer), current)
            await refuse_while_working(op)
            if (await read_keys(op.connection, scope.id)).data(layer, purpose) != keys.data(layer, purpose):
                raise _changed_meanwhile()
            await op.run(
                "update data_keys set state = 'RETIRING' "
                "where scope_id = %s and layer = %s and purpose = %s and state = 'ACTIVE'",
                scope.id,
                layer.value,
                purpose,
            )
            await insert_data_key(op.connection, scope.id, fresh)
            subject, kind = _FOLLOWS[purpose]
            await self._changed(op, "key.rotate", f"{layer.value} version={fresh.version}", subject=subject)
            return await begin_work(op, kind, layer, fresh.version)

    async def _look(self, actor: Actor, scope: Scope, layer: Layer, *, renew: bool = False) -> ScopeKey:
        """The layer's scope key, if it may be put aside now. `renew`: also when it is destroyed."""
        async with self._operation(actor, scope) as op:
            key = await self._changeable(op, layer, renew=renew)
            await refuse_while_working(op)
        if key.layer is Layer.CUSTOMER and key.state is not KeyState.DESTROYED:
            await self._try(scope, key.holder, key.reference)
        return key

    async def _changeable(self, op: Operation, layer: Layer, *, renew: bool = False) -> ScopeKey:
        key = await self._current(op, layer)
        if key.state is KeyState.DESTROYED and not renew:
            raise _destroyed()
        if key.state is KeyState.DISABLED:
            raise Conflict(Failure("KEY_DISABLED", "The key is disabled. Enable it first."))
        if key.destroy_asked_by is not None and key.state is not KeyState.DESTROYED:
            raise _being_destroyed()
        return key

    async def _current(self, op: Operation, layer: Layer) -> ScopeKey:
        require(op, Permission.ENCRYPTION_KEYS_MANAGE)
        found = (await read_keys(op.connection, op.scope)).current(layer)
        if found is None:
            raise _not_found()
        return found

    async def _replace(self, actor: Actor, scope: Scope, current: ScopeKey, fresh: ScopeKey, action: str) -> Work:
        """Put a scope key in another's place. After a destroyed one nothing is rewrapped: all begins anew."""
        anew = None
        if current.state is KeyState.DESTROYED:
            async with self._operation(actor, scope) as op:
                keys = await read_keys(op.connection, scope.id)
            anew = await self.keyring.new_data_key(scope, keys, fresh.layer, under=fresh)
        try:
            return await self._write_replacement(actor, scope, current, fresh, anew=anew, action=action)
        except (Conflict, Forbidden):
            # Refused, so nothing is wrapped by it. (After any other error it may have been written.)
            if fresh.layer is Layer.CUSTOMER and fresh.source is not Source.HELD:
                await self.keyring.holders.own.destroy(fresh.reference)
            raise

    async def _write_replacement(
        self, actor: Actor, scope: Scope, current: ScopeKey, fresh: ScopeKey, *, anew: DataKey | None, action: str
    ) -> Work:
        async with self._operation(actor, scope) as op:
            await _lock(op)
            _expect(await self._current(op, fresh.layer), current)
            await refuse_while_working(op)
            if current.state is not KeyState.DESTROYED:
                await _set_state(op, current, KeyState.RETIRING)
            await insert_scope_key(op.connection, scope.id, fresh)
            if anew is not None:
                await insert_data_key(op.connection, scope.id, anew)
            detail = f"{fresh.layer.value} version={fresh.version} source={fresh.source.value}"
            await self._changed(op, action, detail)
            return await begin_work(op, "rewrap", fresh.layer, fresh.version)

    async def _try(self, scope: Scope, holder: str, reference: str) -> Tested:
        """Describe a key, and have it wrap and open something."""
        found = self.keyring.holders.get(holder, scope.account)
        probe, began = Secret(os.urandom(KEY_BYTES)), time.perf_counter()
        held = await in_time(found.describe(reference), holder)
        if held.state is not HeldState.ENABLED:
            raise KeyUnavailable(holder, Reason[held.state.name])
        wrapped = await in_time(found.wrap(reference, probe, _TEST_CONTEXT), holder)
        opened = await in_time(found.unwrap(reference, wrapped, _TEST_CONTEXT), holder)
        if not hmac.compare_digest(opened.reveal(), probe.reveal()) or probe.reveal() in wrapped:
            raise KeyUnavailable(holder, Reason.NONSENSE)
        return Tested(held=held, milliseconds=(time.perf_counter() - began) * 1000)

    async def _claim(self, account: AccountId, holder: str, reference: str) -> None:
        """Write down whose the key is. Raises errors.Conflict (`KEY_OF_ANOTHER_ACCOUNT`)."""
        key_hash = hmac.digest(self.owner_key.reveal(), f"{holder}\0{reference}".encode(), "sha256")
        async with self.databases.directory() as directory:
            await directory.execute(
                "insert into key_owners (key_hash, account_id) values (%s, %s) on conflict do nothing",
                (key_hash, account),
            )
            cursor = await directory.execute("select account_id from key_owners where key_hash = %s", (key_hash,))
            row = await cursor.fetchone()
        if row is None or row[0] != account:
            raise Conflict(Failure("KEY_OF_ANOTHER_ACCOUNT", "This key is another account's. Use one of your own."))

    async def _destroy_due(self, scope: Scope) -> None:
        """Destroy the customer's layer when its time has come."""
        async with self._operation(KEEPER, scope) as op:
            keys = await read_keys(op.connection, scope.id)
            current = keys.current(Layer.CUSTOMER)
            if current is None or current.state is KeyState.DESTROYED or not _is_due(op, current):
                return
            # From here it can't be cancelled any more: the state says so before the first key ends.
            await _lock(op)
            _expect(await self._current(op, Layer.CUSTOMER), current)
            await _set_state(op, current, KeyState.DISABLED)
        for key in keys.scope_keys:
            if key.layer is Layer.CUSTOMER and key.source is not Source.HELD:
                await self.keyring.holders.own.destroy(key.reference)
        await drop_entries(self.databases, scope)
        async with self._operation(KEEPER, scope) as op:
            await _lock(op)
            await op.run(
                "update data_keys set state = 'DESTROYED', wrapped = '' "
                "where scope_id = %s and layer = 'customer' and state <> 'DESTROYED'",
                scope.id,
            )
            await op.run(
                "update scope_keys set state = 'DESTROYED', changed_at = %s "
                "where scope_id = %s and layer = 'customer' and state <> 'DESTROYED'",
                op.now,
                scope.id,
            )
            await record(op, "key.destroy", "key", scope.id, detail=f"version={current.version}")

    async def _end_retired(self, scope: Scope) -> None:
        """End scope keys that have wrapped nothing for long enough."""
        async with self._operation(KEEPER, scope) as op:
            keys = await read_keys(op.connection, scope.id)
            over = [
                key
                for key in keys.scope_keys
                if key.state is KeyState.RETIRING
                and key.retired_at is not None
                and key.retired_at <= op.now - RETIRED_KEPT
            ]
        for key in over:
            if key.layer is Layer.CUSTOMER and key.source is not Source.HELD:
                await self.keyring.holders.own.destroy(key.reference)
            async with self._operation(KEEPER, scope) as op:
                await op.run(
                    "update scope_keys set state = 'DESTROYED', wrapped = null, changed_at = %s "
                    "where scope_id = %s and layer = %s and version = %s and state = 'RETIRING'",
                    op.now,
                    scope.id,
                    key.layer.value,
                    key.version,
                )
                await record(op, "key.end", "key", scope.id, detail=f"{key.layer.value} version={key.version}")

    async def _begin_due(self, scope: Scope) -> bool:
        """Begin to rotate a key whose cryptoperiod is over; whether there was one, and nobody else is at it."""
        async with self._operation(KEEPER, scope) as op:
            keys = await read_keys(op.connection, scope.id)
            await tell_of_overdue(op, keys)
        try:
            match find_due(keys, self.keyring.clock.now()):
                case None:
                    return False
                case ScopeKey(layer=layer):
                    await self.rotate_scope_key(KEEPER, scope, layer)
                case DataKey(layer=layer, purpose=purpose):
                    await self._rotate(KEEPER, scope, layer, purpose)
        except Conflict as error:
            log.info("keys.rotation_left_to_others", scope=str(scope.id), code=error.code)
            return False
        return True

    async def scopes(self) -> list[Scope]:
        """Every account and tenant of the installation."""
        return [Scope(account=account, tenant=tenant) for account, tenant, _ in await self.databases.list_places()]

    async def _changed(self, op: Operation, action: str, detail: str, *, subject: str = "key") -> None:
        """Record a change that somebody asked for, in the operation that makes it, and have it witnessed."""
        await record(op, action, subject, op.scope, detail=detail)
        if self.witness is not None:
            await self.witness(op)

    async def _record(
        self, actor: Actor, scope: Scope, action: str, key: ScopeKey, *, outcome: Outcome = "done", detail: str = ""
    ) -> None:
        async with self._operation(actor, scope) as op:
            named = f"version={key.version} {detail}".rstrip()
            await record(op, action, "key", scope.id, outcome=outcome, detail=named)

    def _operation(self, actor: Actor, scope: Scope) -> AbstractAsyncContextManager[Operation]:
        return self.databases.operation(actor, account=scope.account, tenant=scope.tenant)


async def _lock(op: Operation) -> None:
    """One change of a scope's keys at a time."""
    await op.run("select pg_advisory_xact_lock(hashtextextended(%s, 0))", op.scope.hex)


async def _set_state(op: Operation, key: ScopeKey, state: KeyState) -> None:
    await op.run(
        "update scope_keys set state = %s, changed_at = %s where scope_id = %s and layer = %s and version = %s",
        state.value,
        op.now,
        op.scope,
        key.layer.value,
        key.version,
    )


async def _set_destruction(
    op: Operation,
    key: ScopeKey,
    *,
    asked_by: str | None = None,
    approved_by: str | None = None,
    after: datetime | None = None,
) -> None:
    await op.run(
        "update scope_keys set destroy_asked_by = %s, destroy_approved_by = %s, destroy_after = %s, changed_at = %s "
        "where scope_id = %s and layer = %s and version = %s",
        asked_by,
        approved_by,
        after,
        op.now,
        op.scope,
        key.layer.value,
        key.version,
    )


def _expect(found: ScopeKey, expected: ScopeKey) -> None:
    """Raises errors.Conflict (`KEY_CHANGED`) when a key isn't any more as it was when this began."""
    if found != expected:
        raise _changed_meanwhile()


def _is_due(op: Operation, key: ScopeKey) -> bool:
    """Whether the time of a key's destruction has come."""
    return key.destroy_after is not None and key.destroy_after <= op.now


def _changed_meanwhile() -> Conflict:
    return Conflict(Failure("KEY_CHANGED", "The key was changed by somebody else just now. Look at it again."))


def _who(op: Operation) -> str:
    return str(op.actor.key_id or op.actor.name)


def _not_found() -> NotFound:
    return NotFound(Failure("KEY_NOT_FOUND", "There is no such encryption key."))


def _destroyed() -> Conflict:
    return Conflict(Failure("KEY_DESTROYED", "The key is destroyed, for good, and so is what was sealed under it."))


def _being_destroyed() -> Conflict:
    return Conflict(Failure("KEY_BEING_DESTROYED", "The key's destruction has been asked for. Cancel that first."))


def _not_asked() -> Conflict:
    return Conflict(Failure("KEY_DESTROY_NOT_ASKED", "Nobody has asked for the destruction of this key."))
