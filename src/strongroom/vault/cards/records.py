"""The card vault's database: transactions of one tenant, and the record of what happened."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from strongroom.database.operation import Connection
from strongroom.kernel.errors import Failure, Unavailable
from strongroom.kernel.secret import Secret

log = structlog.get_logger(__name__)

CONNECTIONS: Final = 8
POOL_WAIT_S: Final = 5.0
STATEMENT_TIMEOUT_S: Final = 15
_BEGIN: Final = (
    b"select set_config('strongroom.tenant', %(tenant)s, true), "
    b"pg_advisory_xact_lock_shared(hashtextextended(%(tenant)s, 0))"
)
_BEGIN_ALONE: Final = _BEGIN.replace(b"_shared", b"")
Outcome = Literal["done", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class By:
    """Who asks: an API key's public half, one of our processes, or `session`; and the request that it is part of."""

    actor: str
    correlation_id: str = ""


class Records:
    """Connections to the vault's own database, as its own role, which may not get into any other."""

    def __init__(self, url: Secret[str]) -> None:
        self._pool = AsyncConnectionPool(
            url.reveal(),
            min_size=1,
            max_size=CONNECTIONS,
            timeout=POOL_WAIT_S,
            connection_class=Connection,
            kwargs={"autocommit": True},
            configure=_configure,
            open=False,
            name="cards",
        )

    async def open(self) -> None:
        """Connect. Raises errors.Unavailable (`CARD_DATABASE_UNAVAILABLE`)."""
        with _translated():
            await self._pool.open(wait=True, timeout=POOL_WAIT_S)

    async def close(self) -> None:
        """Disconnect."""
        await self._pool.close()

    @contextlib.asynccontextmanager
    async def transaction(self, tenant: UUID | None, *, alone: bool = False) -> AsyncIterator[Connection]:
        """A transaction that sees one tenant's rows (or, for None, sessions only); commits at the end of the block.

        `alone`: it waits until all others of the tenant have ended, and those that come wait for it. The states of the
        tenant's keys change only so: which keys seal and open is the same from a transaction's beginning to its end.

        Raises errors.Unavailable (`CARD_DATABASE_UNAVAILABLE`); nothing is changed then, unless the connection was lost
        while committing.
        """
        with _translated():
            async with self._pool.connection() as connection, connection.transaction():
                scope = "" if tenant is None else str(tenant)
                await connection.execute(_BEGIN_ALONE if alone else _BEGIN, {"tenant": scope})
                yield connection

    async def forget_sessions(self) -> int:
        """Remove sessions whose time is over; how many."""
        async with self.transaction(None) as connection:
            cursor = await connection.execute("delete from card_sessions where expires_at < now() - interval '1 day'")
            return cursor.rowcount


async def write_event(
    connection: Connection,
    tenant: UUID,
    by: By,
    action: str,
    *,
    token: str = "",
    outcome: Outcome = "done",
    detail: str = "",
) -> None:
    """Add one entry to the vault's record, in this transaction. `detail` holds codes and host names, never values."""
    await connection.execute(
        "insert into card_events (at, tenant_id, actor, action, outcome, token, detail, correlation_id) "
        "values (now(), %s, %s, %s, %s, %s, %s, %s)",
        (tenant, by.actor, action, outcome, token, detail, by.correlation_id),
    )


async def _configure(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute(f"set statement_timeout = '{STATEMENT_TIMEOUT_S}s'")


@contextlib.contextmanager
def _translated() -> Any:
    try:
        yield
    except (PoolTimeout, psycopg.OperationalError) as error:
        log.warning("cards.database_unavailable", error=type(error).__name__)
        raise Unavailable(
            Failure("CARD_DATABASE_UNAVAILABLE", "The card vault's database can't be reached. Try again.")
        ) from error
