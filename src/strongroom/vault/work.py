"""Work on all that a scope's keys protect, while everything else goes on: rewrapping, re-encrypting, carrying over.

A piece of work is a row (`key_work`) that says how far it has come. It is done in batches, each in an operation of its
own that also writes the position, so it goes on where it stopped: after a crash, a full disk, a key that was away. Any
number of processes may do the same work at once; they take turns.

*Rewrap*: data keys are wrapped under a new scope key; no field is touched. *Re-encrypt*: every field is sealed again
under the newest data keys. It ends with a pass that found nothing left, begun after the last operation that could still
seal with the old key had ended; then the old data key is destroyed. *Re-index*: the entries of the blind indexes are
made again under the newest search key (until then they are found under the older ones); what was there before there
were indexes gets its entries that way. *Carry over*: what stood in `sealed` before there was `sensitive` is parted.
*Part persons* (`vault.persons`): what was sealed before there were persons' secrets is sealed with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
import structlog

from strongroom.audit import record
from strongroom.database import Databases, Operation, Purpose, in_operation
from strongroom.database.catalogue import BLIND_INDEXES
from strongroom.database.sealed_tables import SEALED_TABLES
from strongroom.kernel.actors import system
from strongroom.kernel.errors import Conflict, Failure, NotFound, StrongroomError, Unavailable
from strongroom.kernel.ids import new_uuid
from strongroom.vault import _walking
from strongroom.vault.blind import VERSION_BYTES
from strongroom.vault.envelopes import Layer, ScopeCipher
from strongroom.vault.holders.contract import KeyUnavailable, Reason
from strongroom.vault.keyring import Keyring
from strongroom.vault.records import DataKey, Keys, KeyState, Scope, read_keys, write_rewrapped

log = structlog.get_logger(__name__)

KEEPER: Final = system("keys")
BATCH: Final = 500
"""Rows in one operation of re-encrypting."""
REWRAPPED_AT_ONCE: Final = 100
"""Data keys in one operation of rewrapping."""
DRAIN_WITHIN: Final = timedelta(seconds=60)
"""How long operations that began before a rotation are waited for; afterwards the work rests until it is run again."""
_DRAIN_EVERY_S: Final = 0.2
Kind = Literal["rewrap", "re-encrypt", "re-index", "carry-over", "part-persons"]
ONCE: Final[Sequence[Kind]] = ("carry-over", "part-persons")
"""What is done once for each tenant, and is no rotation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A piece of work as it stands. `seen` and `done` count envelopes (rewrapping: data keys), over all passes."""

    work_id: UUID
    kind: Kind
    layer: Layer
    version: int
    """Of the key that everything shall be under."""
    is_done: bool
    table: str
    position: str
    passes: int
    seen: int
    done: int
    is_clean: bool
    """Whether this pass has found nothing to do so far."""
    drain_from: datetime | None
    started_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How what a table's `sealed` held is parted: the content of `sealed` and of `sensitive`; None: leave it."""

    table: str
    part: Callable[[bytes], tuple[bytes, bytes] | None]
    condition: str = "true"


Progress = Callable[[Work], None]


async def find_work(op: Operation) -> Work | None:
    """The rotation that is under way in the operation's scope, or None."""
    rows = await _read(op, "state = 'RUNNING' and kind <> all(%s)", list(ONCE))
    return rows[0] if rows else None


async def list_work(op: Operation) -> Sequence[Work]:
    """All work of the operation's scope, newest first."""
    return await _read(op, "true")


async def refuse_while_working(op: Operation) -> None:
    """Raises errors.Conflict (`KEY_WORK_RUNNING`) while a rotation is under way in the operation's scope."""
    work = await find_work(op)
    if work is not None:
        raise Conflict(
            Failure(
                "KEY_WORK_RUNNING",
                "A rotation of these keys ({kind}) is under way, {done} done so far. Wait until it has ended.",
                {"kind": work.kind, "done": work.done},
            )
        )


async def begin_work(op: Operation, kind: Kind, layer: Layer, version: int) -> Work:
    """Write down what is to be done. Of two at once the second is refused (`key_work_one_rotation`)."""
    work = Work(
        work_id=new_uuid(),
        kind=kind,
        layer=layer,
        version=version,
        is_done=False,
        table="",
        position="",
        passes=0,
        seen=0,
        done=0,
        is_clean=True,
        drain_from=None,
        started_at=op.now,
        updated_at=op.now,
    )
    await op.run(
        "insert into key_work (scope_id, work_id, kind, layer, version, state, started_at, updated_at) "
        "values (%s, %s, %s, %s, %s, 'RUNNING', %s, %s)",
        op.scope,
        work.work_id,
        kind,
        layer.value,
        version,
        op.now,
        op.now,
    )
    return work


async def end_work(op: Operation) -> Work:
    """End the rotation that is under way where it stands. Raises errors.NotFound (`KEY_WORK_NOT_FOUND`)."""
    work = await find_work(op)
    if work is None:
        raise NotFound(Failure("KEY_WORK_NOT_FOUND", "No rotation of these keys is under way."))
    work = replace(await _take(op, work), is_done=True, updated_at=op.now)
    await _keep(op, work)
    return work


async def run_work(
    databases: Databases, keyring: Keyring, scope: Scope, progress: Progress | None = None
) -> Work | None:
    """Do the rotation that is under way in the scope to its end, and return it; None when there is none.

    Safe to call again after any error, and in several processes at once.

    Raises errors.Unavailable (`KEY_UNAVAILABLE`, `DATABASE_UNAVAILABLE`, `DATABASE_TAKES_NO_CHANGES`,
    `OPERATIONS_UNDER_WAY`); then it goes on from there the next time.
    """
    async with _operation(databases, scope) as op:
        work = await find_work(op)
    if work is None:
        return None
    if work.kind == "rewrap":
        return await _rewrap(databases, keyring, scope, work, progress)
    if work.kind == "re-index":
        return await _reindex(databases, scope, work, progress)
    return await _reencrypt(databases, scope, work, progress)


async def carry_over(
    databases: Databases, scope: Scope, splits: Sequence[Split], progress: Progress | None = None
) -> int:
    """Part what was written before there were sensitive columns, once for each scope; returns how many rows.

    Raises as `run_work`.
    """
    return await do_once(databases, scope, "carry-over", partial(_part_batch, splits=splits), progress)


async def do_once(
    databases: Databases,
    scope: Scope,
    kind: Kind,
    do_batch: Callable[[Operation, Work], Awaitable[Work]],
    progress: Progress | None = None,
) -> int:
    """Do work of one of the kinds `ONCE`, unless it is done, batch by batch; returns how much there was to do.

    Raises as `run_work`.
    """
    async with _operation(databases, scope) as op:
        before = await _read(op, "kind = %s", kind)
        work = before[0] if before else await begin_work(op, kind, Layer.CUSTOMER, 1)

    async def do_and_keep(op: Operation, work: Work) -> Work:
        work = await do_batch(op, work)
        await _keep(op, work)
        return work

    work = await _batches(databases, scope, work, do_and_keep, progress)
    return 0 if before and before[0].is_done else work.done


async def drop_entries(databases: Databases, scope: Scope) -> None:
    """Remove all entries of a tenant's blind indexes: what they are of is destroyed, and nothing shall tell of it."""
    for table, column in BLIND_INDEXES:
        [key] = SEALED_TABLES[table].key
        dropped = BATCH
        while dropped == BATCH:
            async with _operation(databases, scope) as op:
                dropped = await op.run(
                    f"update {table} set {column} = null where tenant_id = %s and {key} in "  # noqa: S608  names of the catalogue
                    f"(select {key} from {table} where tenant_id = %s and {column} is not null limit %s)",
                    scope.id,
                    scope.id,
                    BATCH,
                )


async def _rewrap(databases: Databases, keyring: Keyring, scope: Scope, work: Work, progress: Progress | None) -> Work:
    while not work.is_done:
        async with _operation(databases, scope) as op:
            keys = await read_keys(op.connection, scope.id)
        target = keys.find(work.layer, work.version)
        current = keys.current(work.layer)
        assert target is not None and current is not None  # noqa: S101  # written together with the work
        if current.state is not KeyState.ACTIVE:
            raise KeyUnavailable(current.holder, Reason.DISABLED)
        behind = _behind(keys, work)[:REWRAPPED_AT_ONCE]
        ends = await keyring.rewrap(scope, keys, behind, target)
        async with _operation(databases, scope) as op:
            work = await _take(op, work)
            now = await read_keys(op.connection, scope.id)
            # What another process has done meanwhile, or ended, is left alone.
            fresh = [
                end for key, end in zip(behind, ends, strict=True) if isinstance(end, DataKey) and key in now.data_keys
            ]
            await write_rewrapped(op.connection, scope.id, fresh)
            work = replace(work, seen=work.seen + len(fresh), done=work.done + len(fresh))
            if not work.is_done and not _behind(await read_keys(op.connection, scope.id), work):
                await op.run(
                    "update scope_keys set retired_at = %s, changed_at = %s "
                    "where scope_id = %s and layer = %s and state = 'RETIRING' and retired_at is null",
                    op.now,
                    op.now,
                    scope.id,
                    work.layer.value,
                )
                work = await _end(op, work)
            await _keep(op, work)
        if progress is not None:
            progress(work)
        for end in ends:
            if isinstance(end, StrongroomError):
                # What could be had is kept.
                raise end
    return work


def _behind(keys: Keys, work: Work) -> list[DataKey]:
    """The data keys that aren't under the new scope key yet."""
    return [
        key
        for key in keys.data_keys
        if key.layer is work.layer and key.state is not KeyState.DESTROYED and key.scope_key_version != work.version
    ]


async def _reencrypt(databases: Databases, scope: Scope, work: Work, progress: Progress | None) -> Work:
    await _drain(databases, scope, work)
    return await _batches(databases, scope, work, _reseal_batch, progress)


async def _reindex(databases: Databases, scope: Scope, work: Work, progress: Progress | None) -> Work:
    async def do_batch(op: Operation, work: Work) -> Work:
        with op.opening(Purpose.INDEXING):
            return await _index_batch(op, work)

    await _drain(databases, scope, work)
    return await _batches(databases, scope, work, do_batch, progress)


async def _batches(
    databases: Databases,
    scope: Scope,
    work: Work,
    do_batch: Callable[[Operation, Work], Awaitable[Work]],
    progress: Progress | None,
) -> Work:
    """Do what is left, batch by batch, each in an operation of its own that is begun again when keys have changed."""

    async def take_and_do(op: Operation) -> Work:
        taken = await _take(op, work)
        return taken if taken.is_done else await do_batch(op, taken)

    while not work.is_done:
        work = await in_operation(partial(_operation, databases, scope), take_and_do)
        if progress is not None:
            progress(work)
    return work


async def _drain(databases: Databases, scope: Scope, work: Work) -> None:
    """Wait until every operation has ended that began before all processes could know of the new key.

    Whatever begins later seals with it, for an operation begins by looking at the keys' epoch.

    Raises errors.Unavailable (`OPERATIONS_UNDER_WAY`) when that takes too long.
    """
    async with _operation(databases, scope) as op:
        await op.run(
            "update key_work set drain_from = clock_timestamp() "
            "where scope_id = %s and work_id = %s and drain_from is null",
            scope.id,
            work.work_id,
        )
    waited = timedelta(0)
    while True:
        async with _operation(databases, scope) as op:
            row = await op.row(
                "select exists (select from pg_stat_activity a join key_work w on a.xact_start < w.drain_from "
                "where w.scope_id = %s and w.work_id = %s and a.datname = current_database() "
                "and a.usename = current_user and a.pid <> pg_backend_pid())",
                scope.id,
                work.work_id,
            )
        if row is not None and not row[0]:
            return
        if waited >= DRAIN_WITHIN:
            raise _under_way()
        await asyncio.sleep(_DRAIN_EVERY_S)
        waited += timedelta(seconds=_DRAIN_EVERY_S)


async def _reseal_batch(op: Operation, work: Work) -> Work:
    table = work.table or _walking.TABLES[0]
    columns = SEALED_TABLES[table].columns
    rows, position = await _walking.read_batch(op, table, work.position, BATCH)
    # What this sees is how things were; what it changes it locks and reads again.
    seen = sum(envelope is not None for row in rows for envelope in row.envelopes)
    behind = [row.key for row in rows if any(_resealed(op, table, row))]
    done = 0
    if behind:
        changes: dict[str, tuple[list[Any], list[bytes]]] = {column: ([], []) for column in columns}
        for row in await _walking.lock_rows(op, table, behind):
            for column, envelope in zip(columns, _resealed(op, table, row), strict=True):
                if envelope is not None:
                    changes[column][0].append(row.key)
                    changes[column][1].append(envelope)
        for column, (keys, envelopes) in changes.items():
            await _walking.write_column(op, table, column, keys, envelopes)
            done += len(envelopes)
    work = replace(work, seen=work.seen + seen, done=work.done + done, is_clean=work.is_clean and not behind)
    return await _go_on(op, work, table, position)


async def _index_batch(op: Operation, work: Work) -> Work:
    places = list(BLIND_INDEXES)
    table, column = next((place for place in places if place[0] == work.table), places[0])
    index = BLIND_INDEXES[table, column]
    source = SEALED_TABLES[table].columns.index(index.source)
    # The version is where it can be seen, so that only what is behind is opened.
    newest = work.version.to_bytes(VERSION_BYTES, "big").hex()
    condition = (
        f"{index.condition} and {index.source} is not null and "
        f"substr({column}, 1, {VERSION_BYTES}) is distinct from '\\x{newest}'::bytea"
    )
    rows, position = await _walking.read_batch(op, table, work.position, BATCH, condition=condition)
    keys: list[Any] = []
    entries: list[bytes] = []
    for row in await _walking.lock_rows(op, table, [row.key for row in rows], wait=True):
        envelope = row.envelopes[source]
        content = None if envelope is None else _content(op, table, index.source, row.row, envelope)
        if content is not None and (value := content[index.position]):
            keys.append(row.key)
            entries.append(op.cipher.blind(table, column, value))
    await _walking.write_column(op, table, column, keys, entries)
    work = replace(work, table=table, position=position, seen=work.seen + len(rows), done=work.done + len(keys))
    if not position:
        following = places.index((table, column)) + 1
        if following < len(places):
            work = replace(work, table=places[following][0])
        else:
            await op.run(
                "update data_keys set state = 'DESTROYED', wrapped = '' "
                "where scope_id = %s and purpose = 'search' and version < %s and state <> 'DESTROYED'",
                op.scope,
                work.version,
            )
            work = await _end(op, replace(work, table=""))
    await _keep(op, work)
    return work


def _content(op: Operation, table: str, column: str, row: bytes, envelope: bytes) -> Sequence[Any] | None:
    """The array in a sensitive column; None when the customer has destroyed the key that it is sealed under."""
    cipher = op.cipher
    assert isinstance(cipher, ScopeCipher)  # noqa: S101  # a scope with work has keys
    if cipher.is_lost(table, column, row, envelope):
        return None
    content: Sequence[Any] = msgspec.msgpack.decode(cipher.open(table, column, row, envelope))
    return content


async def _part_batch(op: Operation, work: Work, splits: Sequence[Split]) -> Work:
    tables = [split.table for split in splits]
    split = splits[tables.index(work.table)] if work.table else splits[0]
    columns = SEALED_TABLES[split.table].columns
    sealed, sensitive = columns.index("sealed"), columns.index("sensitive")
    condition = f"{split.condition} and sensitive is null"
    rows, position = await _walking.read_batch(op, split.table, work.position, BATCH, condition=condition)
    keys: list[Any] = []
    parts: dict[str, list[bytes]] = {"sealed": [], "sensitive": []}
    cipher = op.cipher
    assert isinstance(cipher, ScopeCipher)  # noqa: S101  # a scope with rows has keys
    for row in await _walking.lock_rows(op, split.table, [row.key for row in rows], wait=True):
        envelope = row.envelopes[sealed]
        assert envelope is not None  # noqa: S101  # `sealed` is not null in these tables
        if row.envelopes[sensitive] is not None:
            continue
        parted = split.part(op.cipher.open(split.table, "sealed", row.row, envelope))
        if parted is not None:
            keys.append(row.key)
            for column, content in zip(("sealed", "sensitive"), parted, strict=True):
                parts[column].append(cipher.seal_for_nobody(split.table, column, row.row, content))
    for column, envelopes in parts.items():
        await _walking.write_column(op, split.table, column, keys, envelopes)
    work = replace(work, seen=work.seen + len(rows), done=work.done + len(keys), position=position)
    if not position:
        following = tables.index(split.table) + 1
        is_last = following == len(tables)
        work = replace(work, is_done=is_last, table="" if is_last else tables[following])
    else:
        work = replace(work, table=split.table)
    return work


async def _go_on(op: Operation, work: Work, table: str, position: str) -> Work:
    """The next place; at the end of a pass that found nothing to do, the end."""
    following = _walking.TABLES.index(table) + 1
    if position:
        work = replace(work, table=table, position=position)
    elif following < len(_walking.TABLES):
        work = replace(work, table=_walking.TABLES[following], position="")
    else:
        work = replace(work, table="", position="", passes=work.passes + 1)
        if work.is_clean:
            await op.run(
                "update data_keys set state = 'DESTROYED', wrapped = '' "
                "where scope_id = %s and layer = %s and purpose = 'seal' and version < %s and state <> 'DESTROYED'",
                op.scope,
                work.layer.value,
                work.version,
            )
            work = await _end(op, work)
        work = replace(work, is_clean=True)
    await _keep(op, work)
    return work


async def _end(op: Operation, work: Work) -> Work:
    await record(op, "key.rotated", "key", op.scope, detail=f"{work.kind} {work.layer.value} version={work.version}")
    return replace(work, is_done=True)


def _resealed(op: Operation, table: str, row: _walking.SealedRow) -> list[bytes | None]:
    """A row's envelopes under the newest data keys; None for those that are."""
    cipher = op.cipher
    assert isinstance(cipher, ScopeCipher)  # noqa: S101  # a scope with work has keys
    return [
        None if envelope is None else cipher.reseal(table, column, row.row, envelope)
        for column, envelope in zip(SEALED_TABLES[table].columns, row.envelopes, strict=True)
    ]


async def _take(op: Operation, work: Work) -> Work:
    """The work as it stands, this operation's turn until its end."""
    [taken] = await _read(op, "work_id = %s", work.work_id, suffix=" for update")
    return taken


async def _keep(op: Operation, work: Work) -> None:
    await op.run(
        "update key_work set state = %s, position_table = %s, position = %s, passes = %s, seen = %s, done = %s, "
        "is_clean = %s, updated_at = %s where scope_id = %s and work_id = %s",
        "DONE" if work.is_done else "RUNNING",
        work.table,
        work.position,
        work.passes,
        work.seen,
        work.done,
        work.is_clean,
        op.now,
        op.scope,
        work.work_id,
    )


async def _read(op: Operation, condition: str, *parameters: object, suffix: str = "") -> list[Work]:
    rows = await op.rows(
        "select work_id, kind, layer, version, state, position_table, position, passes, seen, done, is_clean, "  # noqa: S608  conditions of ours
        f"drain_from, started_at, updated_at from key_work where scope_id = %s and {condition} "
        f"order by started_at desc, work_id desc{suffix}",
        op.scope,
        *parameters,
    )
    return [
        Work(
            work_id=row[0],
            kind=row[1],
            layer=Layer(row[2]),
            version=row[3],
            is_done=row[4] == "DONE",
            table=row[5],
            position=row[6],
            passes=row[7],
            seen=row[8],
            done=row[9],
            is_clean=row[10],
            drain_from=row[11],
            started_at=row[12],
            updated_at=row[13],
        )
        for row in rows
    ]


def _operation(databases: Databases, scope: Scope) -> AbstractAsyncContextManager[Operation]:
    return databases.operation(KEEPER, account=scope.account, tenant=scope.tenant)


def _under_way() -> Unavailable:
    return Unavailable(
        Failure(
            "OPERATIONS_UNDER_WAY",
            "Operations that began before the rotation are still under way. It goes on when they have ended.",
        )
    )
