"""Rotating the root key, as far as the database is concerned: the platform's scope keys are wrapped under it there.

The holder makes and ends versions of the root key and wraps what it keeps itself (`holders.file`). Here the rest is
wrapped again, some hundred scopes a transaction, each key with compare and swap; it may break off anywhere and be done
again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

from strongroom.database import Databases, pack_bytes
from strongroom.vault.holders.file import ROOT, FileHolder, root_version
from strongroom.vault.holders.root import version_in_use
from strongroom.vault.records import Keys, Scope, by_region, pack_scopes, read_keys_of, scope_key_context
from strongroom.vault.work import KEEPER

AT_ONCE: Final = 500
"""Scopes in one transaction."""
Progress = Callable[[int, int], None]
"""Told how many of how many are done."""


async def count_under_root(databases: Databases, scopes: Sequence[Scope]) -> Mapping[int, int]:
    """How many keys in the database are wrapped under each version of the root key."""
    counted: Counter[int] = Counter()
    async for _, found in _read(databases, scopes):
        for keys in found.values():
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
    done, looked_at = 0, 0
    async for region, found in _read(databases, scopes):
        done += await _rewrap(databases, own, region, found)
        looked_at += len(found)
        if progress is not None:
            progress(looked_at, len(scopes))
    return done


async def end_root_version(databases: Databases, own: FileHolder, scopes: Sequence[Scope], version: int) -> None:
    """End an old version of the root key, for good.

    Raises errors.Conflict (`ROOT_VERSION_IN_USE`) for the newest, and while anything is wrapped under it.
    """
    if (await count_under_root(databases, scopes)).get(version):
        raise version_in_use(version)
    await own.end_root_version(version)


async def _rewrap(databases: Databases, own: FileHolder, region: str, found: Mapping[Scope, Keys]) -> int:
    behind = [
        (scope, key.version, key.wrapped)
        for scope, keys in found.items()
        for key in keys.scope_keys
        if key.wrapped is not None and root_version(key.wrapped) != own.newest_root
    ]
    if not behind:
        return 0
    fresh = []
    for scope, version, wrapped in behind:
        context = scope_key_context(databases.environment, scope.id, version)
        fresh.append(await own.wrap(ROOT, await own.unwrap(ROOT, wrapped, context), context))
    async with databases.operation(KEEPER, region=region) as op:
        row = await op.row(
            "select rewrap_scope_keys(%s, %s, %s::integer[], %s, %s, %s, %s, %s, %s)",
            *pack_scopes([scope for scope, _, _ in behind]),
            [version for _, version, _ in behind],
            pack_bytes([wrapped for _, _, wrapped in behind]),
            pack_bytes(fresh),
            own.newest_root,
            op.now,
            op.actor.kind.value,
            op.actor.name,
        )
    assert row is not None  # noqa: S101  # a function gives one row
    done: int = row[0]
    return done


async def _read(databases: Databases, scopes: Sequence[Scope]) -> AsyncIterator[tuple[str, Mapping[Scope, Keys]]]:
    """All keys of the scopes, some hundred scopes of a region at a time."""
    for region, there in (await by_region(databases, scopes)).items():
        for first in range(0, len(there), AT_ONCE):
            batch = there[first : first + AT_ONCE]
            async with databases.operation(KEEPER, region=region) as op:
                found = await read_keys_of(op.connection, batch)
            yield region, {scope: keys for scope, (_, keys) in zip(batch, found, strict=True)}
