"""Renewing the scope keys of many accounts and tenants: what a rotation of each would do, many in one transaction.

A rotation of one scope (`work`) begins, rewraps and ends in operations of its own, which mostly wait for the disk.
Here some hundred scopes are read together, their new keys made durable in the holder together, their data keys wrapped
under them in memory, and all of it written together; every scope passes from its old key to its new one in that
transaction, or not at all. Its keys are compared by their epoch, so what was changed meanwhile is looked at again, and
a scope that is being worked on is neither waited for nor touched.

Only keys that we made ourselves are renewed. An imported key, or one held elsewhere, is its owner's to replace.

It may break off anywhere. Renewed are the keys from before a certain moment, so whoever goes on with the same moment
does what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from strongroom.access import Permission, require
from strongroom.database import Databases, Operation, pack_bytes, pack_texts, pack_uuids
from strongroom.kernel.actors import Actor
from strongroom.kernel.errors import StrongroomError
from strongroom.kernel.ids import new_uuid_bytes
from strongroom.vault.envelopes import Layer
from strongroom.vault.keyring import Keyring
from strongroom.vault.records import (
    SCOPE_KEY_PERIOD,
    DataKey,
    Keys,
    KeyState,
    Scope,
    ScopeKey,
    Source,
    by_region,
    pack_scopes,
    read_keys_of,
)

log = structlog.get_logger(__name__)

AT_ONCE: Final = 200
"""Scopes in one transaction."""
ROUNDS: Final = 5
"""How often scopes are looked at again whose keys were changed at that very moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """How far it has come: scopes that were looked at, keys renewed, data keys wrapped under them, scopes left out.

    Left out are those that others were working on all the while, and those whose old key can't be used.
    """

    seen: int = 0
    scope_keys: int = 0
    data_keys: int = 0
    left: int = 0


Progress = Callable[[Renewed], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is to be written of one scope."""

    scope: Scope
    epoch: int
    fresh: ScopeKey
    data_keys: Sequence[DataKey]


async def renew_scope_keys(
    databases: Databases,
    keyring: Keyring,
    actor: Actor,
    layer: Layer,
    scopes: Sequence[Scope],
    *,
    before: datetime,
    progress: Progress | None = None,
) -> Renewed:
    """Put new scope keys in the place of those of a layer that were made before a moment; data keys are rewrapped.

    For operators: raises errors.Forbidden for anybody of an account. Raises errors.Unavailable
    (`KEY_FILE_NOT_WRITTEN`, `DATABASE_UNAVAILABLE`, `DATABASE_TAKES_NO_CHANGES`); then it may be begun again.
    """
    told = Renewed()
    for region, there in (await by_region(databases, scopes)).items():
        for first in range(0, len(there), AT_ONCE):
            batch: Sequence[Scope] = there[first : first + AT_ONCE]
            left, refused = batch, 0
            for _ in range(ROUNDS):
                plans, unfit = await _plan(databases, keyring, actor, region, left, layer=layer, before=before)
                refused += unfit
                done = await _write(databases, actor, region, plans, layer=layer) if plans else []
                written = {plan.scope for plan in done}
                left = [plan.scope for plan in plans if plan.scope not in written]
                await _discard(keyring, [plan.fresh for plan in plans if plan.scope not in written])
                told = Renewed(
                    seen=told.seen,
                    scope_keys=told.scope_keys + len(done),
                    data_keys=told.data_keys + sum(len(plan.data_keys) for plan in done),
                    left=told.left,
                )
                if not left:
                    break
            told = Renewed(
                seen=told.seen + len(batch),
                scope_keys=told.scope_keys,
                data_keys=told.data_keys,
                left=told.left + len(left) + refused,
            )
            if progress is not None:
                progress(told)
    return told


async def _plan(
    databases: Databases,
    keyring: Keyring,
    actor: Actor,
    region: str,
    scopes: Sequence[Scope],
    *,
    layer: Layer,
    before: datetime,
) -> tuple[list[_Plan], int]:
    """The new keys of those scopes that need one, and of how many the old one can't be used. Asks the holder."""
    async with databases.operation(actor, region=region) as op:
        require(op, Permission.ENCRYPTION_KEYS_MANAGE)
        found = await read_keys_of(op.connection, scopes)
    for scope, (_, keys) in zip(scopes, found, strict=True):
        if keys.data_keys and keys.current(Layer.PLATFORM) is None:
            # From before there were scope keys: whatever opens it gives it some, and they are new.
            async with databases.operation(actor, account=scope.account, tenant=scope.tenant):
                pass
    due = [
        (scope, epoch, keys, current)
        for scope, (epoch, keys) in zip(scopes, found, strict=True)
        if (current := keys.current(layer)) is not None and _is_due(current, before)
    ]
    fresh_keys = await keyring.new_scope_keys([(scope, current.version + 1) for scope, _, _, current in due], layer)
    plans, unfit = [], []
    for (scope, epoch, keys, _), fresh in zip(due, fresh_keys, strict=True):
        try:
            data_keys = await _rewrapped(keyring, scope, keys, fresh)
        except StrongroomError as error:
            log.warning("keys.not_renewed", scope=str(scope.id), layer=layer.value, code=error.code)
            unfit.append(fresh)
        else:
            plans.append(_Plan(scope=scope, epoch=epoch, fresh=fresh, data_keys=data_keys))
    await _discard(keyring, unfit)
    return plans, len(unfit)


def _is_due(key: ScopeKey, before: datetime) -> bool:
    return (
        key.created_at < before
        and key.state is KeyState.ACTIVE
        and key.source is Source.KEPT
        and key.destroy_asked_by is None
    )


async def _rewrapped(keyring: Keyring, scope: Scope, keys: Keys, fresh: ScopeKey) -> list[DataKey]:
    """All data keys of the layer under its new scope key. Raises why one can't be had."""
    chosen = [key for key in keys.data_keys if key.layer is fresh.layer and key.state is not KeyState.DESTROYED]
    done = []
    for end in await keyring.rewrap(scope, keys, chosen, fresh):
        if isinstance(end, StrongroomError):
            raise end
        done.append(end)
    return done


async def _write(
    databases: Databases, actor: Actor, region: str, plans: Sequence[_Plan], *, layer: Layer
) -> list[_Plan]:
    """Write it all in one transaction; what of it was written."""
    async with databases.operation(actor, region=region) as op:
        rows = await op.rows(
            "select * from renew_scope_keys(%s, %s, %s::bigint[], %s, %s::integer[], %s, %s, %s, %s, "
            "%s::integer[], %s, %s::integer[], %s, %s, %s, %s, %s)",
            *pack_scopes([plan.scope for plan in plans]),
            [plan.epoch for plan in plans],
            layer.value,
            [plan.fresh.version for plan in plans],
            plans[0].fresh.holder,
            pack_texts([plan.fresh.reference for plan in plans]),
            pack_bytes([plan.fresh.wrapped or b"" for plan in plans]),
            pack_uuids([new_uuid_bytes() for _ in plans]),
            *_data_keys(plans),
            op.now,
            op.now + SCOPE_KEY_PERIOD,
            op.actor.kind.value,
            _who(op),
        )
    return [plans[place - 1] for (place,) in rows]


def _data_keys(plans: Sequence[_Plan]) -> tuple[object, ...]:
    """Place of the scope, purpose, version and wrapping of each data key, as arrays."""
    keys = [(place, key) for place, plan in enumerate(plans, 1) for key in plan.data_keys]
    return (
        [place for place, _ in keys],
        pack_texts([key.purpose for _, key in keys]),
        [key.version for _, key in keys],
        pack_bytes([key.wrapped for _, key in keys]),
    )


async def _discard(keyring: Keyring, unused: Sequence[ScopeKey]) -> None:
    """Destroy keys in the holder that nothing was wrapped under."""
    for key in unused:
        if key.layer is Layer.CUSTOMER:
            await keyring.holders.own.destroy(key.reference)


def _who(op: Operation) -> str:
    return str(op.actor.key_id or op.actor.name)
