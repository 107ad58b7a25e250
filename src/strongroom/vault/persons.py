"""Persons' secrets in use: who gets one, who loses it, and how what was sealed before there were any comes to them.

A customer gets a secret with the first thing that is sealed of them alone (`catalogue.PERSONAL`): the number of it
stands in their row, the secret in files outside the database (`holders.persons`). To forget somebody writes down, with
the change itself, that their secret is to be destroyed; that is done when the change is committed. The other way round
a change that is rolled back would leave a customer whom nobody can read. What a crash leaves undone the worker does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final
from uuid import UUID

from strongroom.audit import Entry, record_many
from strongroom.database import Databases, Operation, pack_uuids
from strongroom.database.catalogue import PERSONAL
from strongroom.database.sealed_tables import SEALED_TABLES
from strongroom.vault import _walking
from strongroom.vault.envelopes import ScopeCipher
from strongroom.vault.holders.persons import RUN, PersonSecrets
from strongroom.vault.records import Scope
from strongroom.vault.work import BATCH, KEEPER, Progress, Work, do_once

DESTROYED_AT_ONCE: Final = 1_000
"""Secrets."""


async def new_persons(op: Operation, count: int) -> list[int]:
    """Numbers of so many secrets that are nobody's yet, for customers of this operation.

    Raises errors.Unavailable (`KEY_UNAVAILABLE`, `KEY_FILE_NOT_WRITTEN`, `KEYS_IN_USE`).
    """
    secrets = _secrets(op)
    runs = 0
    while len(secrets.spare) < count:
        # Doubled, for a database that is restored from a backup counts from where it was then.
        runs = max(2 * runs, -(-(count - len(secrets.spare)) // RUN))
        rows = await op.rows("select nextval('person_runs') from generate_series(1, %s)", runs)
        secrets.spare.extend(await asyncio.to_thread(secrets.take, [row[0] for row in rows]))
    return [secrets.spare.popleft() for _ in range(count)]


def keep_persons(op: Operation, persons: Collection[int]) -> None:
    """Keep numbers of `new_persons` for the next who asks: nothing was sealed for them, and no row has them."""
    _secrets(op).spare.extend(persons)


async def end_person(op: Operation, person: int) -> None:
    """Write down, with the change that forgets them, that a person's secret is to be destroyed (`destroy_ended`).

    Somebody whose row was put back from a backup may be ended once more.
    """
    await op.run(
        "insert into ended_persons (tenant_id, person, asked_at) values (%s, %s, %s) "
        "on conflict (tenant_id, person) do update set ended_at = null",
        op.tenant,
        person,
        op.now,
    )


async def destroy_ended(databases: Databases, scope: Scope, *, again: bool = False) -> int:
    """Destroy the secrets of a tenant's persons that have been ended, and return how many there were.

    With `again` those that are destroyed already as well: a copy of the folder of the keys that was put back brings
    them with it. Safe to call again after any error, and in several processes at once.

    Raises errors.Unavailable (`KEY_UNAVAILABLE`, `KEY_FILE_NOT_WRITTEN`, `DATABASE_UNAVAILABLE`).
    """
    destroyed, persons = 0, [-1]
    condition = "true" if again else "ended_at is null"
    operation = partial(databases.operation, KEEPER, account=scope.account, tenant=scope.tenant)
    while True:
        async with operation() as op:
            rows = await op.rows(
                f"select person from ended_persons where tenant_id = %s and person > %s and {condition} "  # noqa: S608  one of the two above
                "order by person limit %s",
                op.tenant,
                persons[-1],
                DESTROYED_AT_ONCE,
            )
            secrets = _secrets(op) if rows else None
        if secrets is None:
            return destroyed
        persons = [row[0] for row in rows]
        await asyncio.to_thread(secrets.destroy, persons)
        async with operation() as op:
            ended = await op.rows(
                "update ended_persons set ended_at = %s "
                "where tenant_id = %s and person = any(%s::bigint[]) and ended_at is null returning person",
                op.now,
                op.tenant,
                persons,
            )
            await record_many(op, [Entry("person-key.destroy", "person", str(person)) for (person,) in ended])
        destroyed += len(persons)


async def part_persons(databases: Databases, scope: Scope, progress: Progress | None = None) -> int:
    """Seal with their secrets what was sealed of customers before they had any, once for each tenant; how many fields.

    Raises as `work.run_work`.
    """
    return await do_once(databases, scope, "part-persons", _part_batch, progress)


async def _part_batch(op: Operation, work: Work) -> Work:
    places = list(PERSONAL)
    table, column = next((place for place in places if place[0] == work.table), places[0])
    [key], at = SEALED_TABLES[table].key, SEALED_TABLES[table].columns.index(column)
    cipher = _cipher(op)
    rows, position = await _walking.read_batch(op, table, work.position, BATCH, condition=f"{column} is not null")
    behind = [row for row in rows if _is_behind(cipher, table, column, row, at)]
    done = 0
    if behind:
        owners = await _owners(op, table, key, PERSONAL[table, column], behind)
        persons = await _give_persons(op, sorted(set(owners.values())))
        keys: list[tuple[Any, ...]] = []
        envelopes: list[bytes] = []
        for row in await _walking.lock_rows(op, table, [row.key for row in behind], wait=True):
            envelope, person = row.envelopes[at], persons.get(owners[row.key])
            if envelope is not None and person is not None:
                resealed = cipher.for_person(person).reseal(table, column, row.row, envelope)
                if resealed is not None:
                    keys.append(row.key)
                    envelopes.append(resealed)
        await _walking.write_column(op, table, column, keys, envelopes)
        done = len(keys)
    work = replace(work, table=table, position=position, seen=work.seen + len(rows), done=work.done + done)
    if not position:
        following = places.index((table, column)) + 1
        is_last = following == len(places)
        work = replace(work, is_done=is_last, table="" if is_last else places[following][0])
    return work


def _is_behind(cipher: ScopeCipher, table: str, column: str, row: _walking.SealedRow, at: int) -> bool:
    envelope = row.envelopes[at]
    return (
        envelope is not None
        and not cipher.is_personal(table, column, row.row, envelope)
        and not cipher.is_lost(table, column, row.row, envelope)
    )


async def _owners(
    op: Operation, table: str, key: str, owner: str, rows: Sequence[_walking.SealedRow]
) -> dict[tuple[Any, ...], UUID]:
    """Whose each row is, by its key."""
    found = await op.rows(
        f"select {key}, {owner} from {table} where tenant_id = %s and {key} = any(%s)",  # noqa: S608  of the catalogue
        op.tenant,
        pack_uuids([row.row for row in rows]),
    )
    return {(value,): customer for value, customer in found}


async def _give_persons(op: Operation, customers: Sequence[UUID]) -> dict[UUID, int]:
    """The persons of these customers, who are locked; those that had none get one. Who is forgotten has none."""
    found = await op.rows(
        "select customer_id, person from customers where tenant_id = %s and customer_id = any(%s) "
        "and status = 'ACTIVE' order by customer_id for no key update",
        op.tenant,
        pack_uuids([customer.bytes for customer in customers]),
    )
    without = [customer for customer, person in found if person is None]
    fresh = dict(zip(without, await new_persons(op, len(without)), strict=True))
    await op.run(
        "update customers c set person = t.person from unnest(%s, %s::bigint[]) as t(customer_id, person) "
        "where c.tenant_id = %s and c.customer_id = t.customer_id",
        pack_uuids([customer.bytes for customer in fresh]),
        list(fresh.values()),
        op.tenant,
    )
    return {customer: person for customer, person in found if person is not None} | fresh


def _secrets(op: Operation) -> PersonSecrets:
    secrets = getattr(op.cipher, "persons", None)
    assert isinstance(secrets, PersonSecrets)  # noqa: S101  # a tenant's cipher has its region's
    return secrets


def _cipher(op: Operation) -> ScopeCipher:
    assert isinstance(op.cipher, ScopeCipher)  # noqa: S101  # a tenant with customers has keys
    return op.cipher
