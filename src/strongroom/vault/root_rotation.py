"""Rotating the root key, as far as the database is concerned: the platform's scope keys are wrapped under it there.

The holder makes and ends versions of the root key and wraps what it keeps itself (`holders.file`). Here the rest is
wrapped again, scope by scope, each with compare and swap; it may break off anywhere and be done again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from strongroom.audit import record
from strongroom.database import Databases
from strongroom.vault.holders.file import ROOT, FileHolder, root_version
from strongroom.vault.holders.root import version_in_use
from strongroom.vault.records import Keys, Scope, ScopeKey, read_keys, scope_key_context
from strongroom.vault.work import KEEPER

Progress = Callable[[int, int], None]
"""Told how many of how many are done."""


async def count_under_root(databases: Databases, scopes: Sequence[Scope]) -> Mapping[int, int]:
    """How many keys in the database are wrapped under each version of the root key."""
    counted: Counter[int] = Counter()
    for scope in scopes:
        keys = await _read(databases, scope)
        counted.update(root_version(key.wrapped) for key in keys.scope_keys if key.wrapped is not None)
        # From before there were scope keys; whatever opens such a scope gives it some.
        counted.update(
            root_version(key.wrapped) for key in keys.data_keys if key.scope_key_version is None and key.wrapped
        )
    return counted


async def rewrap_under_root(
    databases: Databases, own: FileHolder, scopes: Sequence[Scope], progress: Progress | None = None
) -> int:
    """Wrap everything in the database that is under an older version of the root key under the newest; how many.

    Raises errors.Broken (`DATA_KEY_BROKEN`) for a key that doesn't open, errors.Unavailable.
    """
    done = 0
    for number, scope in enumerate(scopes, 1):
        for key in (await _read(databases, scope)).scope_keys:
            if key.wrapped is not None and root_version(key.wrapped) != own.newest_root:
                await _rewrap(databases, own, scope, key, wrapped=key.wrapped)
                done += 1
        if progress is not None:
            progress(number, len(scopes))
    return done


async def end_root_version(databases: Databases, own: FileHolder, scopes: Sequence[Scope], version: int) -> None:
    """End an old version of the root key, for good.

    Raises errors.Conflict (`ROOT_VERSION_IN_USE`) for the newest, and while anything is wrapped under it.
    """
    if (await count_under_root(databases, scopes)).get(version):
        raise version_in_use(version)
    await own.end_root_version(version)


async def _rewrap(databases: Databases, own: FileHolder, scope: Scope, key: ScopeKey, *, wrapped: bytes) -> None:
    context = scope_key_context(databases.environment, scope.id, key.version)
    fresh = await own.wrap(ROOT, await own.unwrap(ROOT, wrapped, context), context)
    async with databases.operation(KEEPER, account=scope.account, tenant=scope.tenant) as op:
        changed = await op.run(
            "update scope_keys set wrapped = %s where scope_id = %s and layer = %s and version = %s and wrapped = %s",
            fresh,
            scope.id,
            key.layer.value,
            key.version,
            wrapped,
        )
        if changed:
            await record(op, "key.rewrap-under-root", "key", scope.id, detail=f"root={own.newest_root}")


async def _read(databases: Databases, scope: Scope) -> Keys:
    async with databases.operation(KEEPER, account=scope.account, tenant=scope.tenant) as op:
        return await read_keys(op.connection, scope.id)
