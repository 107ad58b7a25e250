"""The Operation: one unit of work in one region, on behalf of one actor, for one tenant (or account).

It is the only way to a connection. It begins a database transaction, sets whose rows are in sight (row-level security),
checks that the key which asks is still good, and commits or rolls back at its end. Domain code never commits, never
nests operations and never talks to the network inside one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import psycopg

from strongroom.kernel.actors import Actor
from strongroom.kernel.cipher import Cipher
from strongroom.kernel.config import Environment
from strongroom.kernel.ids import AccountId, TenantId

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Row = tuple[Any, ...]


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
    connection: Connection
    cipher: Cipher

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

    async def run(self, sql: str, *parameters: object) -> int:
        """Execute a statement; returns the number of rows it touched."""
        cursor = await self.connection.execute(sql.encode(), parameters, binary=True)
        return cursor.rowcount

    async def rows(self, sql: str, *parameters: object) -> Sequence[Row]:
        """All rows of a query."""
        cursor = await self.connection.execute(sql.encode(), parameters, binary=True)
        return await cursor.fetchall()

    async def row(self, sql: str, *parameters: object) -> Row | None:
        """The first row of a query, or None."""
        cursor = await self.connection.execute(sql.encode(), parameters, binary=True)
        return await cursor.fetchone()

    async def rows_named(self, sql: str, parameters: Mapping[str, object]) -> Sequence[Row]:
        """All rows of a statement with named parameters."""
        cursor = await self.connection.execute(sql.encode(), parameters, binary=True)
        return await cursor.fetchall()
