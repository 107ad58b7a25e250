"""The simulator's books: what it was asked, what it decided, and every movement of money.

A payment is written once under its reference and then goes PENDING → SETTLED or REFUSED, or begins in one of these. An
enquiry about an unknown reference writes it as NEVER_RECEIVED, which closes it for good. Every movement of money is a
row in `executions`, which can't be changed or deleted, and which has deliberately no uniqueness of its own: should
somebody ever pay twice, the books must show it.

Names, accounts and remittance texts are not kept; a keyed hash tells whether the same request came again.

Writes that come together are committed together, and nobody is answered before the commit has reached the disk.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import hmac
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from strongroom.kernel.ids import new_uuid
from strongroom.rails.simulator.behaviour import Behaviour, Manner

T = TypeVar("T")

SETTLES_AFTER: Final = timedelta(seconds=1)
"""How long a pending payment stays pending."""
PENDING_FAILURE: Final = "AC06"
"""Account blocked (ISO 20022 external code set, ExternalStatusReason1Code)."""
CALLBACK_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
"""Pauses between attempts to deliver a callback; after the last it is given up."""
OUT_OF_ORDER_GAP: Final = timedelta(milliseconds=300)

_SCHEMA: Final = """
create table if not exists installation (salt blob not null) strict;
create table if not exists payments (
  reference text primary key,
  fingerprint blob,
  provider_reference text not null,
  instruction text not null,
  direction text not null,
  amount text not null,
  currency text not null,
  behaviour text not null,
  callback_url text not null,
  status text not null check (status in ('SETTLED', 'PENDING', 'REFUSED', 'NEVER_RECEIVED')),
  reason text not null,
  detail text not null,
  at text not null,
  due_at text
) strict, without rowid;
create index if not exists payments_due on payments (due_at) where due_at is not null;
create table if not exists executions (
  id integer primary key autoincrement,
  reference text not null,
  instruction text not null,
  direction text not null,
  amount text not null,
  currency text not null,
  at text not null
) strict;
create index if not exists executions_reference on executions (reference);
create index if not exists executions_instruction on executions (instruction) where instruction <> '';
create trigger if not exists executions_stand before update on executions
  begin select raise(abort, 'executions are append-only'); end;
create trigger if not exists executions_stay before delete on executions
  begin select raise(abort, 'executions are append-only'); end;
create table if not exists callbacks (
  id integer primary key autoincrement,
  webhook_id text not null,
  url text not null,
  reference text not null,
  status text not null,
  reason text not null,
  detail text not null,
  at text not null,
  due_at text,
  attempts integer not null default 0,
  delivered_at text
) strict;
create index if not exists callbacks_due on callbacks (due_at) where due_at is not null;
"""

_DUE_PAYMENTS: Final = "select * from payments where due_at <= ? order by due_at limit 500"


class Status(enum.StrEnum):
    """Where a payment stands."""

    SETTLED = "SETTLED"
    PENDING = "PENDING"
    REFUSED = "REFUSED"
    NEVER_RECEIVED = "NEVER_RECEIVED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody asks the provider to do, as far as it is kept."""

    reference: str
    instruction: str
    direction: str
    amount: str
    currency: str
    callback_url: str
    content: bytes
    """Everything that makes two requests the same one, in one canonical form. Only its keyed hash is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A payment as the books have it."""

    reference: str
    provider_reference: str
    direction: str
    amount: str
    currency: str
    behaviour: Behaviour
    status: Status
    reason: str
    detail: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """A notification that is due. `id` is the row's; `webhook_id` stays the same in every attempt."""

    id: int
    webhook_id: str
    url: str
    attempts: int
    entry: Entry


class AnotherPayment(Exception):
    """The reference stands for a payment with another content."""


class Books:
    """One SQLite file, written by one thread."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._db = sqlite3.connect(directory / "books.sqlite", isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = full")
        self._db.executescript(_SCHEMA)
        self._db.execute(
            "insert into installation select ? where not exists (select 1 from installation)", (os.urandom(32),)
        )
        self._salt: bytes = self._db.execute("select salt from installation").fetchone()[0]
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="books")
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._committing: asyncio.Task[None] | None = None

    async def submit(self, order: Order, manner: Manner, now: datetime) -> Entry:
        """Take in a payment, or find it if it came before. Raises AnotherPayment."""
        return await self._write(lambda: self._submit(order, manner, now))

    async def refuse(self, order: Order, reason: str, detail: str, now: datetime) -> Entry:
        """Write down that a request is refused for what it says, so that its reference is used up."""
        return await self._write(lambda: self._refuse(order, reason, detail, now))

    async def enquire(self, reference: str, now: datetime) -> Entry:
        """What became of a payment. A reference never seen is closed for good."""
        return await self._write(lambda: self._enquire(reference, now))

    async def settle_due(self, now: datetime) -> None:
        """Bring the pending payments whose time has come to their end, and make their callbacks."""
        if await self._read(_DUE_PAYMENTS, (now.isoformat(),)):
            await self._write(lambda: self._settle_due(now))

    async def due_callbacks(self, now: datetime) -> Sequence[Callback]:
        """The callbacks to be sent now, oldest first, at most a hundred."""
        rows = await self._read(
            """
            select c.id, c.webhook_id, c.url, c.attempts, p.reference, p.provider_reference, p.direction, p.amount,
                   p.currency, p.behaviour, c.status, c.reason, c.detail, c.at
            from callbacks c join payments p using (reference)
            where c.due_at <= ? order by c.due_at, c.id limit 100
            """,
            (now.isoformat(),),
        )
        return [
            Callback(
                id=row["id"], webhook_id=row["webhook_id"], url=row["url"], attempts=row["attempts"], entry=_entry(row)
            )
            for row in rows
        ]

    async def delivered(self, callback: Callback, now: datetime) -> None:
        """A callback was taken."""
        await self._write(
            lambda: self._db.execute(
                "update callbacks set attempts = attempts + 1, due_at = null, delivered_at = ? where id = ?",
                (now.isoformat(), callback.id),
            )
        )

    async def not_delivered(self, callback: Callback, now: datetime) -> None:
        """A callback was not taken: try again after a pause, or give up after the last."""
        pause = CALLBACK_PAUSES_S[callback.attempts] if callback.attempts < len(CALLBACK_PAUSES_S) else None
        due = None if pause is None else (now + timedelta(seconds=pause)).isoformat()
        await self._write(
            lambda: self._db.execute(
                "update callbacks set attempts = attempts + 1, due_at = ? where id = ?", (due, callback.id)
            )
        )

    async def executions(self, after: int, take: int) -> Sequence[dict[str, Any]]:
        """Movements of money in the order in which they happened, beginning after the one with the id `after`."""
        rows = await self._read("select * from executions where id > ? order by id limit ?", (after, take))
        return [dict(row) for row in rows]

    async def summary(self) -> dict[str, Any]:
        """How many movements there are, and every reference or instruction that has more than one."""
        (count,) = (await self._read("select count(*) from executions", ()))[0]
        repeated = "select {0}, count(*) as count from executions where {0} <> '' group by {0} having count(*) > 1"
        return {
            "executions": count,
            "repeated_references": [dict(row) for row in await self._read(repeated.format("reference"), ())],
            "repeated_instructions": [dict(row) for row in await self._read(repeated.format("instruction"), ())],
        }

    async def aclose(self) -> None:
        """Finish what is being written and close the file."""
        if self._committing is not None:
            await self._committing
        self._thread.shutdown()
        self._db.close()

    # Everything below runs in the books' own thread.

    def _submit(self, order: Order, manner: Manner, now: datetime) -> Entry:
        known = self._find(order.reference)
        if known is not None:
            if known["status"] == Status.NEVER_RECEIVED:
                return _entry(known)
            if not hmac.compare_digest(known["fingerprint"], self._fingerprint(order)):
                raise AnotherPayment(order.reference)
            return _entry(known)
        behaviour = manner.behaviour
        status, reason, detail, due_at = Status.SETTLED, "", "", None
        if behaviour is Behaviour.REFUSE:
            status, reason, detail = Status.REFUSED, manner.reason, "refused, as asked for"
        elif behaviour in _PENDING:
            status = Status.PENDING
            due_at = None if behaviour is Behaviour.PENDING_ENQUIRY else (now + SETTLES_AFTER).isoformat()
        entry = self._insert(order, behaviour, status=status, reason=reason, detail=detail, now=now, due_at=due_at)
        if status is Status.SETTLED:
            self._execute(order.reference, now)
        return entry

    def _refuse(self, order: Order, reason: str, detail: str, now: datetime) -> Entry:
        known = self._find(order.reference)
        if known is None:
            status = Status.REFUSED
            return self._insert(
                order, Behaviour.REFUSE, status=status, reason=reason, detail=detail, now=now, due_at=None
            )
        if known["status"] != Status.NEVER_RECEIVED and known["fingerprint"] != self._fingerprint(order):
            raise AnotherPayment(order.reference)
        return _entry(known)

    def _enquire(self, reference: str, now: datetime) -> Entry:
        known = self._find(reference)
        if known is None:
            self._db.execute(
                "insert into payments values (?, null, '', '', '', '', '', ?, '', ?, '', '', ?, null)",
                (reference, Behaviour.SETTLE, Status.NEVER_RECEIVED, now.isoformat()),
            )
        elif known["status"] == Status.PENDING and known["behaviour"] == Behaviour.PENDING_ENQUIRY:
            self._finish(reference, Status.SETTLED, "", "", now)
        return _entry(self._get(reference))

    def _settle_due(self, now: datetime) -> None:
        for row in self._db.execute(_DUE_PAYMENTS, (now.isoformat(),)).fetchall():
            self._end(row, now)

    def _end(self, row: sqlite3.Row, now: datetime) -> None:
        behaviour, reference = Behaviour(row["behaviour"]), row["reference"]
        if behaviour is Behaviour.PENDING_FAIL:
            self._finish(reference, Status.REFUSED, PENDING_FAILURE, "failed after acceptance, as asked for", now)
        else:
            self._finish(reference, Status.SETTLED, "", "", now)
        if not row["callback_url"]:
            return
        ended = self._get(reference)
        self._call_back(ended, due_at=now, times=3 if behaviour is Behaviour.DUPLICATE_CALLBACKS else 1)
        if behaviour is Behaviour.OUT_OF_ORDER_CALLBACKS:
            self._call_back(row, due_at=now + OUT_OF_ORDER_GAP, times=1)

    def _finish(self, reference: str, status: Status, reason: str, detail: str, now: datetime) -> None:
        self._db.execute(
            "update payments set status = ?, reason = ?, detail = ?, at = ?, due_at = null where reference = ?",
            (status, reason, detail, now.isoformat(), reference),
        )
        if status is Status.SETTLED:
            self._execute(reference, now)

    def _execute(self, reference: str, now: datetime) -> None:
        self._db.execute(
            """
            insert into executions (reference, instruction, direction, amount, currency, at)
            select reference, instruction, direction, amount, currency, ? from payments where reference = ?
            """,
            (now.isoformat(), reference),
        )

    def _call_back(self, row: sqlite3.Row, *, due_at: datetime, times: int) -> None:
        webhook_id = f"msg_{new_uuid().hex}"
        for _ in range(times):
            self._db.execute(
                """
                insert into callbacks (webhook_id, url, reference, status, reason, detail, at, due_at)
                values (?, ?, ?, ?, ?, ?, ?, ?)
                """,
                (
                    webhook_id,
                    row["callback_url"],
                    row["reference"],
                    row["status"],
                    row["reason"],
                    row["detail"],
                    row["at"],
                    due_at.isoformat(),
                ),
            )

    def _insert(
        self,
        order: Order,
        behaviour: Behaviour,
        *,
        status: Status,
        reason: str,
        detail: str,
        now: datetime,
        due_at: str | None,
    ) -> Entry:
        self._db.execute(
            "insert into payments values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                order.reference,
                self._fingerprint(order),
                f"SIM-{new_uuid().hex.upper()}",
                order.instruction,
                order.direction,
                order.amount,
                order.currency,
                behaviour,
                order.callback_url,
                status,
                reason,
                detail,
                now.isoformat(),
                due_at,
            ),
        )
        return _entry(self._get(order.reference))

    def _find(self, reference: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute(
            "select * from payments where reference = ?", (reference,)
        ).fetchone()
        return row

    def _get(self, reference: str) -> sqlite3.Row:
        row = self._find(reference)
        if row is None:
            raise LookupError(reference)
        return row

    def _fingerprint(self, order: Order) -> bytes:
        return hmac.digest(self._salt, order.content, hashlib.sha256)

    async def _read(self, query: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: self._db.execute(query, values).fetchall())

    async def _write(self, act: Callable[[], T]) -> T:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((act, done))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all())
        return await done

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    results = await loop.run_in_executor(self._thread, self._commit, [act for act, _ in batch])
                except sqlite3.Error as error:
                    results = [error] * len(batch)
                for (_, done), result in zip(batch, results, strict=True):
                    if done.cancelled():
                        continue
                    if isinstance(result, Exception):
                        done.set_exception(result)
                    else:
                        done.set_result(result)
        finally:
            self._committing = None

    def _commit(self, acts: Sequence[Callable[[], Any]]) -> list[Any]:
        """Each act under a savepoint of its own, so that one that fails doesn't take the others with it."""
        results: list[Any] = []
        self._db.execute("begin immediate")
        try:
            for act in acts:
                self._db.execute("savepoint act")
                try:
                    results.append(act())
                except Exception as error:  # handed to whoever asked for this act
                    self._db.execute("rollback to act")
                    results.append(error)
                self._db.execute("release act")
            self._db.execute("commit")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise
        return results


_PENDING: Final = frozenset(
    {
        Behaviour.PENDING_SETTLE,
        Behaviour.PENDING_FAIL,
        Behaviour.PENDING_ENQUIRY,
        Behaviour.DUPLICATE_CALLBACKS,
        Behaviour.OUT_OF_ORDER_CALLBACKS,
    }
)


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(
        reference=row["reference"],
        provider_reference=row["provider_reference"],
        direction=row["direction"],
        amount=row["amount"],
        currency=row["currency"],
        behaviour=Behaviour(row["behaviour"]),
        status=Status(row["status"]),
        reason=row["reason"],
        detail=row["detail"],
        at=row["at"],
    )
