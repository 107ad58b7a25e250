"""What a check works with: one running installation, seen from all sides.

From outside (its listeners, over TLS), as the application's role (`databases`), and as the database's administrator,
who alone can look past row-level security. Put together where everything is, by the command line.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg

from strongroom.database import Databases, EmbeddedServer
from strongroom.database.databases import DIRECTORY, url_of
from strongroom.identity import Tokens
from strongroom.kernel.clock import Clock
from strongroom.kernel.config import Config, Environment
from strongroom.kernel.secret import Secret
from strongroom.outbound import Outbound
from strongroom.people import FrontDoor
from strongroom.vault import KeyDesk, Keyring
from strongroom.vault.card_client import CardVault

Level = Literal["public", "account", "tenant"]
AdminConnection = psycopg.AsyncConnection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A route of the API, as far as checks care. Path parameters stand in braces."""

    method: str
    path: str
    level: Level
    permission: str = ""
    """What it takes; public routes take none."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A port that answers over TLS. `trust` is a PEM file with the authority of its certificate; None: the system's."""

    name: str
    host: str
    port: int
    trust: Path | None

    @property
    def url(self) -> str:
        """Its address."""
        return f"https://{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """One running installation."""

    config: Config
    clock: Clock
    api: Listener
    simulator: Listener | None
    """The provider simulator; production has none."""
    simulator_secret: Secret[str] | None
    cards: Listener | None
    """The card vault's public door; None where the installation isn't being served."""
    card_vault: CardVault
    """Its inner door, as `prove`."""
    processes: Callable[[], Sequence[int]]
    """The processes that run the installation, but for the card vault and the provider simulator."""
    card_processes: Callable[[], Sequence[int]]
    """Those of the card vault."""
    endpoints: Sequence[Endpoint]
    """Every route of the API."""
    databases: Databases
    keyring: Keyring
    key_desk: KeyDesk
    front_door: FrontDoor
    admin_url: Secret[str]
    server: EmbeddedServer | None
    """The embedded database server, unless the installation has one of its own."""
    tokens: Callable[[Environment, Clock], Tokens]
    """The installation's token signer as it would be in that environment, at that time."""
    outbound: Outbound
    """Reaches the listeners."""
    claim: Callable[[Config], None]
    """Takes hold of a data directory, as `serve` does first. Raises errors.Refused when it is another environment's."""
    other_world: Callable[[Environment], AbstractAsyncContextManager[Workbench]]
    """A throw-away installation of an environment, running; gone afterwards."""
    restored: Callable[[Path], AbstractAsyncContextManager[Workbench]]
    """This installation with its database as it is in a folder's `database/data`, which is a base backup, and its keys
    as they are now; of its parts only `databases`, `keyring`, `key_desk` and what is the administrator's are others."""

    @property
    def database_names(self) -> Sequence[str]:
        """The directory and every region, as `admin` takes them."""
        return (DIRECTORY, *self.config.regions)

    @asynccontextmanager
    async def admin(self, name: str) -> AsyncIterator[AdminConnection]:
        """A connection to one of our databases as administrator; every statement commits by itself."""
        async with await psycopg.AsyncConnection.connect(
            url_of(self.admin_url, name).reveal(), autocommit=True
        ) as connection:
            yield connection
