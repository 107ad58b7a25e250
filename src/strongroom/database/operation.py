"""The Operation: one unit of work in one region, on behalf of one actor, for one tenant (or account).

It is the only way to a connection. It begins a database transaction, sets whose rows are in sight (row-level security),
checks that the key which asks is still good, and commits or rolls back at its end. Domain code never commits, never
nests operations and never talks to the network inside one.

Where one statement is all that an operation does, `whole` runs it with its beginning and its commit in one exchange
with the server: three exchanges cost more than what most such statements do.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property, lru_cache
from typing import Any, Final, TypeVar
from uuid import UUID

import psycopg

from strongroom.database.catalogue import Purpose
from strongroom.kernel.actors import Actor
from strongroom.kernel.cipher import Cipher
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Collided, Failure, Forbidden, StrongroomError, Unauthenticated
from strongroom.kernel.ids import AccountId, TenantId

Row = tuple[Any, ...]
T = TypeVar("T")
BEGUN_AGAIN: Final = 3
"""How often an operation is begun again because keys were changed while it was under way."""


class Connection(psycopg.AsyncConnection[Row]):
    """A connection to one of our databases."""

    @cached_property
    def repeating(self) -> psycopg.AsyncCursor[Row]:
        """Its cursor for statements that are run over and over.

        While a cursor gets the same statement as before it knows how to dump the parameters; for one with dozens of
        them that is a third of what sending it costs.
        """
        return self.cursor(binary=True)


class Stage(enum.Enum):
    """How far a session has come."""

    NEW = enum.auto()
    BEGUN = enum.auto()
    COMMITTING = enum.auto()
    DONE = enum.auto()


class KeysChanged(Collided):
    """The scope's keys were changed since its cipher was made; nothing was done. Begin again with what they are now.

    `in_operation` does that. A cipher raises this for an envelope under a key that it hasn't got; `otherwise` gives the
    error to tell instead if it turns out that there is no such key.
    """

    def __init__(self, otherwise: Callable[[], StrongroomError] | None = None) -> None:
        super().__init__(
            Failure("KEYS_CHANGING", "The keys of this tenant or account are being changed right now. Try again.")
        )
        self.otherwise = otherwise


@dataclass(slots=True, kw_only=True)
class Session:
    """A connection while an operation has it: begins a database transaction, says whose it is, and commits.

    `key` is the API key whose life is checked at the beginning, if any; `read_only` keeps changes out. `epoch` counts
    the changes of the scope's keys: what is expected, if given, else what was found when the session began.
    """

    connection: Connection
    account: UUID | None
    tenant: UUID | None
    key: UUID | None
    read_only: bool
    epoch: int | None = None
    stage: Stage = Stage.NEW

    async def begin(self) -> None:
        """Begin, unless that is done, in one exchange (the simple protocol takes several statements, no parameters).

        Raises errors.Unauthenticated (`TOKEN_REVOKED`), errors.Forbidden (`TENANT_NOT_APPROVED`) and `KeysChanged`.
        """
        if self.stage is not Stage.NEW:
            return
        self.stage = Stage.BEGUN
        whose = ", ".join("null" if value is None else f"'{value}'" for value in (self.account, self.tenant, self.key))
        first = "begin read only" if self.read_only else "begin"
        cursor = await self.connection.execute(f"{first}; select enter_operation({whose})".encode())
        cursor.nextset()
        row = await cursor.fetchone()
        epoch = _epoch_of(row[0] if row else "")
        if self.epoch is not None and self.epoch != epoch:
            raise KeysChanged
        self.epoch = epoch

    async def keys_have_changed(self) -> bool:
        """Whether the scope's keys aren't any more as they were when this session began; it has been rolled back."""
        now = replace(self, epoch=None, stage=Stage.NEW)
        await now.begin()
        await self.connection.rollback()
        return now.epoch != self.epoch

    async def commit(self) -> None:
        """Commit, unless `whole` has done it. A session that asked nothing is begun, for the sake of the checks."""
        if self.stage is Stage.DONE:
            return
        await self.begin()
        self.stage = Stage.COMMITTING
        cursor = await self.connection.execute(b"commit")
        # A transaction in which something failed is rolled back by `commit` without an error; that must not look done.
        if cursor.statusmessage != "COMMIT":
            raise RuntimeError("an error of the database was swallowed in an operation, so nothing of it was kept")
        self.stage = Stage.DONE

    async def whole(self, statement: str, parameters: Mapping[str, object]) -> Row:
        """See `Operation.whole`."""
        alone = self.stage is Stage.NEW and not self.read_only and self.epoch is not None
        expected = f"ok {self.epoch}"
        if alone:
            self.stage = Stage.COMMITTING
            asked = {"op_account": self.account, "op_tenant": self.tenant, "op_key": self.key, "op_expected": expected}
            parameters = {**parameters, **asked}
        else:
            await self.begin()
        cursor = self.connection.repeating
        await cursor.execute(_with_verdict(statement, alone=alone), parameters)
        row = await cursor.fetchone()
        if row is None:
            raise LookupError("a statement that is a whole operation gives one row")
        if alone:
            self.stage = Stage.DONE
            if row[0] != expected:
                _epoch_of(row[0])
                raise KeysChanged
        return row


@dataclass(slots=True, kw_only=True)
class Operation:
    """What domain functions get as their first argument."""

    actor: Actor
    account_id: AccountId | None
    tenant_id: TenantId | None
    region: str
    environment: Environment
    now: datetime
    correlation_id: str
    session: Session
    cipher: Cipher

    @property
    def connection(self) -> Connection:
        """The connection, of an operation that has begun."""
        return self.session.connection

    @property
    def today(self) -> date:
        """The operation's day in UTC."""
        return self.now.date()

    @property
    def tenant(self) -> TenantId:
        """The tenant; asking outside one is a programming error."""
        if self.tenant_id is None:
            raise LookupError("this operation names no tenant")
        return self.tenant_id

    @property
    def account(self) -> AccountId:
        """The account; asking outside one is a programming error."""
        if self.account_id is None:
            raise LookupError("this operation names no account")
        return self.account_id

    @property
    def scope(self) -> UUID:
        """Whose keys seal what this operation writes: the tenant's, or above tenants the account's."""
        return self.tenant_id or self.account

    @contextlib.contextmanager
    def opening(self, purpose: Purpose) -> Iterator[None]:
        """Within the block, sensitive columns may be opened for this purpose (see `catalogue.OPENED_FOR`)."""
        before = self.cipher
        self.cipher = before.for_purpose(purpose)
        try:
            yield
        finally:
            self.cipher = before

    async def whole(self, statement: str, parameters: Mapping[str, object]) -> Row:
        """The only row of a statement that is all this operation does from here on.

        Where nothing was asked before, it begins, runs and commits in one exchange. The statement calls a function with
        `{verdict}` as its first two arguments: what `enter_operation` says and what it is expected to say. Unless they
        are equal the function does nothing; it gives the verdict back in its first column.

        Raises errors.Unauthenticated (`TOKEN_REVOKED`), errors.Forbidden (`TENANT_NOT_APPROVED`) and `KeysChanged`.
        """
        return await self.session.whole(statement, parameters)

    async def run(self, sql: str, *parameters: object) -> int:
        """Execute a statement; returns the number of rows it touched."""
        await self.session.begin()
        cursor = await self.connection.execute(sql.encode(), parameters, binary=True)
        return cursor.rowcount

    async def rows(self, sql: str, *parameters: object) -> Sequence[Row]:
        """All rows of a query."""
        await self.session.begin()
        cursor = await self.connection.execute(sql.encode(), parameters, binary=True)
        return await cursor.fetchall()

    async def row(self, sql: str, *parameters: object) -> Row | None:
        """The first row of a query, or None."""
        await self.session.begin()
        cursor = await self.connection.execute(sql.encode(), parameters, binary=True)
        return await cursor.fetchone()

    async def rows_named(self, sql: str, parameters: Mapping[str, object]) -> Sequence[Row]:
        """All rows of a statement with named parameters."""
        await self.session.begin()
        cursor = await self.connection.execute(sql.encode(), parameters, binary=True)
        return await cursor.fetchall()


async def in_operation(
    begin: Callable[[], AbstractAsyncContextManager[Operation]], act: Callable[[Operation], Awaitable[T]]
) -> T:
    """What `act` gives in an operation, which is begun again when the scope's keys were changed under way.

    So `act` changes nothing but through the operation. Raises as `Databases.operation`, and what `act` raises.
    """
    for _ in range(BEGUN_AGAIN):
        with contextlib.suppress(KeysChanged):
            async with begin() as op:
                return await act(op)
    async with begin() as op:
        return await act(op)


def revoked() -> Unauthenticated:
    """The refusal of a key that is gone."""
    return Unauthenticated(
        Failure(
            "TOKEN_REVOKED", "The API key that this token was made with has been deleted. Sign in with another key."
        )
    )


@lru_cache(maxsize=64)
def _with_verdict(statement: str, *, alone: bool) -> bytes:
    entered = "enter_operation(%(op_account)s, %(op_tenant)s, %(op_key)s), %(op_expected)s"
    return statement.replace("{verdict}", entered if alone else "'ok', 'ok'").encode()


def _epoch_of(verdict: str) -> int:
    """The key epoch in what `enter_operation` says."""
    word, _, epoch = verdict.partition(" ")
    if word == "ok":
        return int(epoch)
    if word == "tenant-not-approved":
        raise Forbidden(
            Failure(
                "TENANT_NOT_APPROVED", "This tenant is awaiting approval, was rejected or is deleted, so it can't act."
            )
        )
    raise revoked()
