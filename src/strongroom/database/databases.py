"""The databases of an installation: the directory, and one per region, each behind its own pool.

`provision` makes databases and roles and migrates them (as administrator, once at start). `Databases` is what running
code holds: pools that connect as `strongroom_app`, a role that owns nothing and can't bypass row-level security.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from strongroom.database import packed
from strongroom.database.migrating import Kind, migrate
from strongroom.database.operation import Connection, Operation
from strongroom.kernel.actors import Actor
from strongroom.kernel.cipher import Cipher
from strongroom.kernel.clock import Clock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Collided, Failure, Forbidden, NotFound, Unauthenticated, Unavailable
from strongroom.kernel.ids import AccountId, ApiKeyId, TenantId
from strongroom.kernel.secret import Secret

log = structlog.get_logger(__name__)

APP_ROLE: Final = "strongroom_app"
DIRECTORY: Final = "directory"
CARDS_ROLE: Final = "strongroom_cards"
CARDS: Final = "cards"
"""The card vault's database: reached by its own process with its own role, and by no other."""
POOL_WAIT_S: Final = 5
"""How long an operation waits for a connection: long enough for a database that restarts to come back."""
RECONNECT_S: Final = 2
"""A pool that can't connect for so long counts as cut off; it goes on trying whenever somebody asks."""
CUT_OFF_WAIT_S: Final = 1
"""How long an operation waits for a connection when the pool is cut off."""
DRAIN_EVERY_S: Final = 1
"""A pool is renewed at most so often."""
STATEMENT_TIMEOUT_S: Final = 30
CiphersFor = Callable[[Connection, UUID], Awaitable[Cipher]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryEntry:
    """Where an API key lives, and whose it is."""

    environment: str
    account_id: AccountId
    tenant_id: TenantId | None
    region: str


def database_name(name: str) -> str:
    """The database of a region, or of the directory."""
    return f"strongroom_{name}"


def url_of(
    admin_url: Secret[str], name: str, *, user: str | None = None, password: Secret[str] | None = None
) -> Secret[str]:
    """A connection string for one of our databases, from the administrator's.

    To a host reached by network, TLS with a verified certificate is asked for unless the URL says more.
    """
    parts: dict[str, Any] = dict(conninfo_to_dict(admin_url.reveal()))
    parts["dbname"] = database_name(name)
    if user is not None:
        parts["user"] = user
    if password is not None:
        parts["password"] = password.reveal()
    hosts = str(parts.get("host", "")).split(",")
    if not all(host.startswith("/") for host in hosts):
        parts.setdefault("sslmode", "verify-full")
        parts.setdefault("sslrootcert", "system")
        parts.setdefault("target_session_attrs", "read-write")
        # A host that vanishes without a word is noticed within seconds.
        parts.setdefault("tcp_user_timeout", "10000")
        parts.setdefault("keepalives_idle", "5")
        parts.setdefault("keepalives_interval", "2")
        parts.setdefault("keepalives_count", "3")
    parts.setdefault("connect_timeout", "5")
    parts.setdefault("application_name", "strongroom")
    return Secret(make_conninfo("", **parts))


def provision(admin_url: Secret[str], regions: Sequence[str], app_password: Secret[str]) -> None:
    """Make what is missing: the application's role, the databases, their tables. Safe to run again, and at once.

    Raises errors.Unavailable (`DATABASE_UNAVAILABLE`) with what the server says when it can't be used.
    """
    kinds: dict[str, Kind] = {DIRECTORY: "directory", **dict.fromkeys(regions, "region")}
    with _told_plainly():
        _provision(admin_url, kinds, APP_ROLE, app_password)


def provision_cards(admin_url: Secret[str], password: Secret[str]) -> None:
    """The same for the card vault: its role, its database, its tables."""
    with _told_plainly():
        _provision(admin_url, {CARDS: "cards"}, CARDS_ROLE, password)


@contextlib.contextmanager
def _told_plainly() -> Any:
    try:
        yield
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise Unavailable(
            Failure("DATABASE_UNAVAILABLE", "The database can't be used: {reason}", {"reason": reason})
        ) from error


def _provision(admin_url: Secret[str], kinds: Mapping[str, Kind], role: str, password: Secret[str]) -> None:
    """Databases (with their kinds) that one role, and nobody else, may connect to."""
    with psycopg.connect(admin_url.reveal(), autocommit=True) as connection:
        with connection.transaction():
            connection.execute("select pg_advisory_xact_lock(7305808869231650927)")
            exists = connection.execute("select from pg_roles where rolname = %s", (role,)).fetchone()
            verb = sql.SQL("alter" if exists is not None else "create")
            attributes = "login nosuperuser nobypassrls nocreatedb nocreaterole noinherit noreplication password"
            connection.execute(
                sql.SQL("{} role {} " + attributes + " {}").format(
                    verb, sql.Identifier(role), sql.Literal(password.reveal())
                )
            )
        for name in kinds:
            wanted = database_name(name)
            if connection.execute("select from pg_database where datname = %s", (wanted,)).fetchone() is None:
                with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    connection.execute(sql.SQL("create database {}").format(sql.Identifier(wanted)))
                connection.execute(sql.SQL("revoke all on database {} from public").format(sql.Identifier(wanted)))
                connection.execute(
                    sql.SQL("grant connect on database {} to {}").format(sql.Identifier(wanted), sql.Identifier(role))
                )
    for name, kind in kinds.items():
        with psycopg.connect(url_of(admin_url, name).reveal(), autocommit=True) as connection:
            applied = migrate(connection, kind)
            if applied:
                log.info("database.migrated", database=database_name(name), applied=applied)


class Databases:
    """Pools to the directory and to every region, as the application's role."""

    def __init__(
        self,
        admin_url: Secret[str],
        app_password: Secret[str],
        *,
        regions: Sequence[str],
        environment: Environment,
        clock: Clock,
        ciphers: CiphersFor,
        connections: int = 8,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        """`has_room` says whether the server's disk has room for changes; while it hasn't, operations can only read."""
        self.regions = tuple(regions)
        self.environment = environment
        self.clock = clock
        self._ciphers = ciphers
        self._has_room = has_room
        self._tenants: dict[TenantId, tuple[AccountId, str]] = {}
        self._accounts: dict[AccountId, str] = {}
        self._cut_off: set[str] = set()
        self._drained_at_s: dict[str, float] = {}
        self._pools = {
            name: AsyncConnectionPool(
                url_of(admin_url, name, user=APP_ROLE, password=app_password).reveal(),
                min_size=1,
                max_size=2 if name == DIRECTORY else connections,
                timeout=POOL_WAIT_S,
                kwargs={"autocommit": True},
                configure=partial(self._configure, name),
                check=None,
                open=False,
                reconnect_timeout=RECONNECT_S,
                reconnect_failed=lambda pool: self._cut_off.add(pool.name),
                name=name,
            )
            for name in (DIRECTORY, *regions)
        }

    async def open(self) -> None:
        """Connect. Raises errors.Unavailable (`DATABASE_UNAVAILABLE`) when a database can't be reached."""
        with _translated():
            await asyncio.gather(*(pool.open(wait=True, timeout=POOL_WAIT_S) for pool in self._pools.values()))

    async def close(self) -> None:
        """Disconnect."""
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))

    @contextlib.asynccontextmanager
    async def operation(
        self,
        actor: Actor,
        *,
        region: str | None = None,
        account: AccountId | None = None,
        tenant: TenantId | None = None,
        correlation_id: str = "",
    ) -> AsyncIterator[Operation]:
        """Begin an operation; commits at the end of the block, rolls back when it raises.

        The region is the tenant's, else the account's, unless named.

        Raises errors.NotFound (`TENANT_NOT_FOUND`, `ACCOUNT_NOT_FOUND`), errors.Unauthenticated (`TOKEN_REVOKED`),
        errors.Forbidden (`TENANT_NOT_APPROVED`), errors.Collided (`CHANGED_MEANWHILE`) and errors.Unavailable
        (`DATABASE_UNAVAILABLE`; `DATABASE_TAKES_NO_CHANGES` when its disk is full; `OUTCOME_UNKNOWN` when the
        connection was lost while committing).
        """
        if tenant is not None and (account is None or region is None):
            account, region = await self.locate_tenant(tenant)
        elif account is not None and region is None:
            region = await self.locate_account(account)
        if region is None:
            raise LookupError("an operation names a tenant, an account or a region")
        # A tenant's key is checked where it lives, in this very transaction; an account's in the directory, since an
        # account's operations reach into every region.
        key = actor.key_id if actor.tenant_id is not None else None
        if actor.key_id is not None and key is None and await self.find_key(actor.key_id) is None:
            raise _revoked()
        with _translated():
            async with self._connection(region) as connection:
                committing = False
                try:
                    await _begin(connection, account, tenant, key, read_only=not self._has_room())
                    yield Operation(
                        actor=actor,
                        account_id=account,
                        tenant_id=tenant,
                        region=region,
                        environment=self.environment,
                        now=self.clock.now(),
                        correlation_id=correlation_id,
                        connection=connection,
                        cipher=await self._ciphers(connection, tenant or account or UUID(int=0)),
                    )
                    committing = True
                    _check_commit(await connection.execute(b"commit"))
                except BaseException as error:
                    if committing and isinstance(error, psycopg.OperationalError):
                        raise _unknown() from error
                    # On a lost connection there is nothing to roll back, and the error that lost it is the one to tell.
                    with contextlib.suppress(psycopg.Error):
                        await connection.rollback()
                    if isinstance(error, psycopg.IntegrityError):
                        raise _collided() from error
                    raise

    async def locate_tenant(self, tenant: TenantId) -> tuple[AccountId, str]:
        """A tenant's account and region; they never change, so they are remembered."""
        known = self._tenants.get(tenant)
        if known is None:
            row = await self._directory_row("select account_id, region from tenants where tenant_id = %s", tenant)
            if row is None:
                raise NotFound(Failure("TENANT_NOT_FOUND", "There is no such tenant."))
            known = self._tenants[tenant] = (AccountId(row[0]), row[1])
        return known

    async def locate_account(self, account: AccountId) -> str:
        """An account's home region."""
        known = self._accounts.get(account)
        if known is None:
            row = await self._directory_row("select region from accounts where account_id = %s", account)
            if row is None:
                raise NotFound(Failure("ACCOUNT_NOT_FOUND", "There is no such account."))
            known = self._accounts[account] = row[0]
        return known

    async def find_key(self, key: ApiKeyId) -> DirectoryEntry | None:
        """Where a live API key lives, or None."""
        row = await self._directory_row(
            "select environment, account_id, tenant_id, region from api_keys where public_key = %s", key
        )
        if row is None:
            return None
        return DirectoryEntry(environment=row[0], account_id=row[1], tenant_id=row[2], region=row[3])

    async def list_tenants(self, account: AccountId) -> Sequence[tuple[TenantId, str]]:
        """The account's tenants with their regions, oldest first."""
        async with self.directory() as connection:
            cursor = await connection.execute(
                "select tenant_id, region from tenants where account_id = %s order by tenant_id",
                (account,),
                binary=True,
            )
            return [(TenantId(row[0]), row[1]) for row in await cursor.fetchall()]

    @contextlib.asynccontextmanager
    async def directory(self) -> AsyncIterator[Connection]:
        """A transaction in the directory."""
        with _translated():
            async with self._connection(DIRECTORY) as connection, connection.transaction():
                if not self._has_room():
                    await connection.execute("set transaction read only")
                yield connection

    async def _directory_row(self, statement: str, *parameters: object) -> tuple[Any, ...] | None:
        with _translated():
            async with self._connection(DIRECTORY) as connection:
                cursor = await connection.execute(statement.encode(), parameters, binary=True)
                return await cursor.fetchone()

    @contextlib.asynccontextmanager
    async def _connection(self, name: str) -> AsyncIterator[Connection]:
        """A connection out of a pool. When one is lost the others are probably lost too, so all of them are renewed."""
        pool = self._pools[name]
        async with pool.connection(timeout=CUT_OFF_WAIT_S if name in self._cut_off else POOL_WAIT_S) as connection:
            try:
                yield connection
            finally:
                now_s = time.monotonic()
                if connection.broken and now_s - self._drained_at_s.get(name, -math.inf) >= DRAIN_EVERY_S:
                    self._drained_at_s[name] = now_s
                    await pool.drain()

    async def _configure(self, name: str, connection: Connection) -> None:
        packed.register(connection.adapters)
        await connection.execute(
            # Statements are prepared once and run with other values for ever after: planning them again buys nothing.
            f"set statement_timeout = '{STATEMENT_TIMEOUT_S}s'; set plan_cache_mode = force_generic_plan; set jit = off"
        )
        self._cut_off.discard(name)


def _revoked() -> Unauthenticated:
    return Unauthenticated(
        Failure(
            "TOKEN_REVOKED", "The API key that this token was made with has been deleted. Sign in with another key."
        )
    )


def _collided() -> Collided:
    return Collided(
        Failure(
            "CHANGED_MEANWHILE",
            "Something that this refers to was changed or removed at the same moment; nothing was changed. Try again.",
        )
    )


def _unknown() -> Unavailable:
    return Unavailable(
        Failure(
            "OUTCOME_UNKNOWN",
            "The database was lost while the change was being committed; it may or may not have been made. Send the "
            "request again with the same Idempotency-Key, or read the resource.",
        )
    )


async def _begin(
    connection: Connection, account: UUID | None, tenant: UUID | None, key: UUID | None, *, read_only: bool
) -> None:
    """Begin a transaction and say whose it is, in one exchange (the simple protocol takes several statements)."""
    arguments = ", ".join("null" if value is None else f"'{value}'" for value in (account, tenant, key))
    begin = "begin read only" if read_only else "begin"
    cursor = await connection.execute(f"{begin}; select begin_operation({arguments})".encode())
    cursor.nextset()
    _check_verdict(await cursor.fetchone())


def _check_verdict(row: tuple[Any, ...] | None) -> None:
    verdict = row[0] if row else None
    if verdict == "ok":
        return
    if verdict == "tenant-not-approved":
        raise Forbidden(
            Failure(
                "TENANT_NOT_APPROVED", "This tenant is awaiting approval, was rejected or is deleted, so it can't act."
            )
        )
    raise _revoked()


def _check_commit(cursor: psycopg.AsyncCursor[Any]) -> None:
    """A transaction in which something failed is rolled back by `commit` without an error; that must not look done."""
    if cursor.statusmessage != "COMMIT":
        raise RuntimeError("an error of the database was swallowed in an operation, so nothing of it was kept")


@contextlib.contextmanager
def _translated() -> Any:
    """Failures of the database itself become errors.Unavailable; what SQL refuses stays as it is."""
    try:
        yield
    except (psycopg.errors.DiskFull, psycopg.errors.ReadOnlySqlTransaction) as error:
        log.warning("database.takes_no_changes", error=type(error).__name__)
        raise Unavailable(
            Failure(
                "DATABASE_TAKES_NO_CHANGES",
                "The database takes no changes at the moment, because its disk is full or it is a standby. Nothing was "
                "changed, and reading goes on. Try again once there is room.",
            )
        ) from error
    except (PoolTimeout, psycopg.OperationalError) as error:
        log.warning("database.unavailable", error=type(error).__name__)
        raise Unavailable(
            Failure("DATABASE_UNAVAILABLE", "The database can't be reached; nothing was changed. Try again.")
        ) from error
