"""The databases of an installation: the directory, and one per region, each behind its own pool.

`provision` makes databases and roles and migrates them (as administrator, once at start). `Databases` is what running
code holds: pools that connect as `strongroom_app`, a role that owns nothing and can't bypass row-level security.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol
from uuid import UUID

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from strongroom.database import packed
from strongroom.database.gates import OPEN, Gates
from strongroom.database.ip_lists import ANYWHERE, IpList
from strongroom.database.migrating import Kind, migrate
from strongroom.database.operation import Connection, KeysChanged, Operation, Session, Stage, revoked, token_revoked
from strongroom.kernel.actors import Actor, ActorKind
from strongroom.kernel.cipher import Cipher
from strongroom.kernel.clock import Clock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Collided, Failure, NotFound, Unavailable
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
LOADS: Final = 4
"""How often an operation begins again because its scope's keys changed while they were being loaded."""
Connect = Callable[[], AbstractAsyncContextManager[tuple[Connection, int]]]
"""A transaction that sees a scope's rows, with the scope's key epoch at its beginning."""


class Ciphers(Protocol):
    """Where operations get their ciphers from; the implementation is `vault.Keyring`."""

    def known(self, region: str, scope: UUID) -> tuple[Cipher, int] | None:
        """The scope's cipher, when it is at hand, with the epoch of its keys."""
        ...

    def find(self, region: str, scope: UUID, epoch: int) -> Cipher | None:
        """The scope's cipher as of this epoch of its keys; None when it has to be loaded first."""
        ...

    async def load(self, connect: Connect, region: str, account: AccountId | None, tenant: TenantId | None) -> None:
        """Load the tenant's (else the account's) keys as they are now. Called outside of transactions: it may last."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryEntry:
    """Where an API key lives, and whose it is. `ip_list` is its account's; `revoked` are an account key's tokens that
    aren't good any more."""

    environment: str
    account_id: AccountId
    tenant_id: TenantId | None
    region: str
    ip_list: IpList = ANYWHERE
    revoked: frozenset[UUID] = frozenset()


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
        ciphers: Ciphers,
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
        self._gates = Gates()
        self._cut_off: set[str] = set()
        self._drained_at_s: dict[str, float] = {}
        self._pools = {
            name: AsyncConnectionPool(
                url_of(admin_url, name, user=APP_ROLE, password=app_password).reveal(),
                min_size=1,
                max_size=2 if name == DIRECTORY else connections,
                timeout=POOL_WAIT_S,
                connection_class=Connection,
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
        lazily: bool = False,
    ) -> AsyncIterator[Operation]:
        """Begin an operation; commits at the end of the block, rolls back when it raises.

        The region is the tenant's, else the account's, unless named. `lazily`: it begins with the first statement,
        which may be the whole of it (`Operation.whole`), as long as the scope's cipher is at hand.

        Raises errors.NotFound (`TENANT_NOT_FOUND`, `ACCOUNT_NOT_FOUND`), errors.Unauthenticated (`TOKEN_REVOKED`),
        errors.Forbidden (`TENANT_NOT_APPROVED`, `ADDRESS_NOT_ALLOWED`), errors.Collided (`CHANGED_MEANWHILE`),
        KeysChanged (see `in_operation`) and errors.Unavailable (`DATABASE_UNAVAILABLE`; `DATABASE_TAKES_NO_CHANGES`
        when its disk is full; `OUTCOME_UNKNOWN` when the connection was lost while committing).
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
        if actor.key_id is not None and key is None:
            await self._check_account_key(actor, actor.key_id)
        elif account is not None:
            await self.check_address(actor, account)
        scope = tenant or account or UUID(int=0)
        is_guarded = actor.tenant_id is not None and (actor.source is not None or actor.token_id is not None)

        def made(session: Session, cipher: Cipher) -> Operation:
            return Operation(
                actor=actor,
                account_id=account,
                tenant_id=tenant,
                region=region,
                environment=self.environment,
                now=self.clock.now(),
                correlation_id=correlation_id,
                session=session,
                cipher=cipher,
            )

        if lazily and (known := self._ciphers.known(region, scope)) is not None:
            cipher, epoch = known
            gate = self._gates.known(region, scope, epoch) if is_guarded else OPEN
            if gate is not None:
                gate.check(actor)
                async with self._session(region, account, tenant, key, expected=epoch) as session:
                    yield made(session, cipher)
                return
        for attempt in range(LOADS):
            if attempt:
                connect = partial(self._scope_session, region, account, tenant)
                await self._ciphers.load(connect, region, account, tenant)
            async with self._session(region, account, tenant, key) as session:
                found = self._ciphers.find(region, scope, session.epoch or 0)
                if found is not None:
                    if is_guarded:
                        (await self._gates.read(session, region, scope)).check(actor)
                    yield made(session, found)
                    return
        raise _keys_changing()

    @contextlib.asynccontextmanager
    async def _session(
        self,
        region: str,
        account: AccountId | None,
        tenant: TenantId | None,
        key: ApiKeyId | None,
        *,
        expected: int | None = None,
    ) -> AsyncIterator[Session]:
        """A connection to a region that sees the tenant's or account's rows.

        It has begun, unless it is told which key epoch to expect: then it begins with its first statement.
        """
        with _translated():
            async with self._connection(region) as connection:
                session = Session(
                    connection=connection,
                    account=account,
                    tenant=tenant,
                    key=key,
                    read_only=not self._has_room(),
                    epoch=expected,
                )
                try:
                    if expected is None:
                        await session.begin()
                    yield session
                    await session.commit()
                except BaseException as error:
                    if session.stage is Stage.COMMITTING and _leaves_open(error):
                        raise _unknown() from error
                    # On a lost connection there is nothing to roll back, and the error that lost it is the one to tell.
                    with contextlib.suppress(psycopg.Error):
                        await connection.rollback()
                    if isinstance(error, psycopg.IntegrityError):
                        raise _collided() from error
                    if isinstance(error, KeysChanged) and error.otherwise and not await session.keys_have_changed():
                        raise error.otherwise() from error
                    raise

    @contextlib.asynccontextmanager
    async def _scope_session(
        self, region: str, account: AccountId | None, tenant: TenantId | None
    ) -> AsyncIterator[tuple[Connection, int]]:
        """The same for our own doing, whoever acts, with the scope's key epoch."""
        async with self._session(region, account, tenant, None) as session:
            yield session.connection, session.epoch or 0

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

    async def check_address(self, actor: Actor, account: AccountId) -> None:
        """Raises errors.Forbidden (`ADDRESS_NOT_ALLOWED`) when a person may not be where they are."""
        if actor.kind is ActorKind.PERSON and actor.source is not None:
            row = await self._directory_row("select api, portal from account_networks where account_id = %s", account)
            if row is not None:
                IpList.of(*row).check(actor)

    async def _check_account_key(self, actor: Actor, key: ApiKeyId) -> None:
        """What `enter_operation` and gates check of a tenant's key, for an account's."""
        entry = await self.find_key(key)
        if entry is None:
            raise revoked()
        if actor.token_id in entry.revoked:
            raise token_revoked()
        entry.ip_list.check(actor)

    async def find_key(self, key: ApiKeyId) -> DirectoryEntry | None:
        """Where a live API key lives, or None."""
        row = await self._directory_row(
            "select environment, account_id, tenant_id, region, api, portal, "
            "array(select token_id from revoked_tokens where revoked_tokens.public_key = api_keys.public_key) "
            "from api_keys left join account_networks using (account_id) where public_key = %s",
            key,
        )
        if row is None:
            return None
        return DirectoryEntry(
            environment=row[0],
            account_id=row[1],
            tenant_id=row[2],
            region=row[3],
            ip_list=IpList.of(row[4], row[5]),
            revoked=frozenset(row[6]),
        )

    async def list_tenants(self, account: AccountId) -> Sequence[tuple[TenantId, str]]:
        """The account's tenants with their regions, oldest first."""
        async with self.directory() as connection:
            cursor = await connection.execute(
                "select tenant_id, region from tenants where account_id = %s order by tenant_id",
                (account,),
                binary=True,
            )
            return [(TenantId(row[0]), row[1]) for row in await cursor.fetchall()]

    async def list_places(self) -> Sequence[tuple[AccountId, TenantId | None, str]]:
        """Every account (without a tenant) and every tenant of the installation, with their regions.

        They are remembered, so that operations of any of them begin without asking the directory.
        """
        async with self.directory() as connection:
            cursor = await connection.execute("select account_id, region from accounts", binary=True)
            self._accounts.update(await cursor.fetchall())
            cursor = await connection.execute("select tenant_id, account_id, region from tenants", binary=True)
            self._tenants.update((row[0], (row[1], row[2])) for row in await cursor.fetchall())
        accounts = [(account, None, region) for account, region in self._accounts.items()]
        return accounts + [(account, tenant, region) for tenant, (account, region) in self._tenants.items()]

    @contextlib.asynccontextmanager
    async def directory(self) -> AsyncIterator[Connection]:
        """A transaction in the directory."""
        with _translated():
            async with self._connection(DIRECTORY) as connection, connection.transaction():
                if not self._has_room():
                    await connection.execute("set transaction read only")
                yield connection

    async def directory_rows(self, statement: str, *parameters: object) -> Sequence[tuple[Any, ...]]:
        """All rows of a query in the directory."""
        with _translated():
            async with self._connection(DIRECTORY) as connection:
                cursor = await connection.execute(statement.encode(), parameters, binary=True)
                return await cursor.fetchall()

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


def _leaves_open(error: BaseException) -> bool:
    """Whether an error on the way of a commit leaves open what became of it.

    An error that the server reports is its word that nothing was kept, unless it is about to go away (class 57P: the
    shutdown may have met a commit that waits for its standby) or about the connection (class 08).
    """
    return isinstance(error, psycopg.OperationalError) and (
        error.sqlstate is None or error.sqlstate.startswith(("57P", "08"))
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


def _keys_changing() -> Unavailable:
    return Unavailable(
        Failure("KEYS_CHANGING", "The keys of this tenant or account are being changed right now. Try again.")
    )


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
