"""The composition root: settings → a running application's parts.

Nothing else puts parts together. `Installation` owns what lives on disk (keys, certificates, the embedded server);
`App` owns what a process holds open (pools, keyring).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from strongroom.database import Databases, EmbeddedServer
from strongroom.database.databases import provision
from strongroom.kernel.clock import Clock, SystemClock
from strongroom.kernel.config import Config
from strongroom.kernel.errors import Failure, Refused
from strongroom.kernel.secret import Secret
from strongroom.vault import Keyring, MasterKey, load_or_make_master_key
from strongroom.vault.master import read_or_make_secret

_PASSWORD_BYTES: Final = 32


@dataclass(frozen=True)
class Installation:
    """An installation's files: made on first use, kept ever after."""

    config: Config

    def prepare(self) -> None:
        """Make the folders, and mark them with their environment.

        Raises errors.Refused (`OTHER_ENVIRONMENT`) when they belong to the other environment (promise PAY-3).
        """
        self.config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
        self.config.keys_dir.mkdir(exist_ok=True, mode=0o700)
        self.config.files_dir.mkdir(exist_ok=True, mode=0o700)
        marker = self.config.data_dir / "environment"
        if not marker.exists():
            marker.write_text(self.config.environment.value)
        found = marker.read_text().strip()
        if found != self.config.environment.value:
            raise Refused(
                Failure(
                    "OTHER_ENVIRONMENT",
                    "{path} is a {found} installation and can't be started as {wanted}: the two share neither data nor "
                    "keys. Give another --data-dir.",
                    {"path": str(self.config.data_dir), "found": found, "wanted": self.config.environment.value},
                )
            )

    @cached_property
    def server(self) -> EmbeddedServer | None:
        """The embedded database server, unless the installation has one of its own."""
        if self.config.database_url is not None:
            return None
        return EmbeddedServer(self.config.data_dir / "database", self._password("database-admin"))

    @property
    def admin_url(self) -> Secret[str]:
        """Where the database is, as administrator."""
        if self.config.database_url is not None:
            return self.config.database_url
        assert self.server is not None  # noqa: S101  # the two cases of the property above
        return self.server.url

    @cached_property
    def master_key(self) -> MasterKey:
        """The key that wraps the data keys."""
        return load_or_make_master_key(self.config.keys_dir / "master.key", self.config.environment)

    def start(self) -> None:
        """Start the embedded server (if any), make and migrate the databases."""
        self.prepare()
        if self.server is not None:
            self.server.start()
        provision(self.admin_url, self.config.regions, self._password("database-app"))

    def stop(self) -> None:
        """Leave the embedded server; it stops when nobody else uses it."""
        if self.server is not None:
            self.server.stop()

    def app(self, *, clock: Clock | None = None, connections: int = 8) -> App:
        """The parts of one process; open them with `App.open`."""
        return App(self, clock=clock or SystemClock(), connections=connections)

    def _password(self, name: str) -> Secret[str]:
        return Secret(read_or_make_secret(self.config.keys_dir / f"{name}.secret", _PASSWORD_BYTES).hex())

    @property
    def app_password(self) -> Secret[str]:
        """The application role's password."""
        return self._password("database-app")


class App:
    """What one process holds open."""

    def __init__(self, installation: Installation, *, clock: Clock, connections: int) -> None:
        self.installation = installation
        self.config = installation.config
        self.clock = clock
        self.keyring = Keyring(installation.master_key)
        self.databases = Databases(
            installation.admin_url,
            installation.app_password,
            regions=self.config.regions,
            environment=self.config.environment,
            clock=clock,
            ciphers=self.keyring.cipher_for,
            connections=connections,
        )
        self.operation = self.databases.operation

    async def open(self) -> None:
        """Connect to the databases."""
        await self.databases.open()

    async def close(self) -> None:
        """Let go of everything."""
        await self.databases.close()

