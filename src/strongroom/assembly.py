"""The composition root: settings → a running application's parts.

Nothing else puts parts together. `Installation` owns what lives on disk (keys, certificates, the embedded server);
`App` owns what a process holds open (pools, keyring); `asgi` is what the web server's processes load.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import structlog

from strongroom.api import Services, build_asgi
from strongroom.api.orders import OrderWriter
from strongroom.api.source import SourceReader
from strongroom.api.surface import Surface
from strongroom.api.table import ROUTES
from strongroom.database import Databases, EmbeddedServer
from strongroom.database.databases import CARDS, CARDS_ROLE, provision, provision_cards, url_of
from strongroom.identity import Certificate, LocalAuthority, Tokens, load_or_make_tokens, own_certificate
from strongroom.identity.certificates import write_private
from strongroom.kernel.clock import Clock, SystemClock
from strongroom.kernel.config import Config, Environment
from strongroom.kernel.errors import Failure, NotFound, Refused, StrongroomError
from strongroom.kernel.ids import TenantId
from strongroom.kernel.secret import Secret
from strongroom.kernel.telemetry import configure_logs, end_with_parent
from strongroom.notices import Postman
from strongroom.outbound import Destination, Limits, Outbound
from strongroom.payments import customers, instruments
from strongroom.payments.dispatch import Dispatcher
from strongroom.payments.notifications import NotificationReceiver
from strongroom.people import DoorKeys, FrontDoor
from strongroom.people.keys import SECRET_BYTES
from strongroom.portals import PAGES, Portals
from strongroom.rails.connectors.simulator import Simulator
from strongroom.rails.contract import Provider
from strongroom.rails.marketplace import SIMULATOR
from strongroom.reconciliation import ReportReader, contents
from strongroom.vault import ImportDesk, KeyDesk, Keyring, Split, card_client
from strongroom.vault.card_client import CardVault, inner_door
from strongroom.vault.holders.configured import Holders, open_holders
from strongroom.vault.holders.file import FileHolder
from strongroom.vault.holders.imports import Imports
from strongroom.vault.holders.passphrase import find_passphrase
from strongroom.vault.secret_files import read_or_make_secret

log = structlog.get_logger(__name__)

Message = MutableMapping[str, Any]
PORTALS_PATH: Final = "/portal/"
_PASSWORD_BYTES: Final = 32
SPLITS: Final = (
    Split(table="customers", part=customers.split_content),
    Split(table="financial_instruments", part=instruments.split_content),
    Split(table="statements", part=contents.split_document, condition="kind = 'FILE'"),
    Split(table="statement_entries", part=contents.split_line),
)
"""How what was written before there were sensitive columns is parted."""
_LOOPBACK: Final = "127.0.0.1"
GC_OBJECTS: Final = 50_000
"""After so many new objects the garbage collector looks for cycles among them."""
PROVIDER_LIMITS: Final = Limits(idle_s=5.0, total_s=8.0)
"""What a provider may take to answer. One that takes longer is asked again, by our reference, what it did."""


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
        self.config.cards_dir.mkdir(exist_ok=True, mode=0o700)
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

    def has_room(self) -> bool:
        """Whether the database's disk has room for changes. One's own server is left to say so itself."""
        return self.server is None or self.server.has_room()

    @property
    def admin_url(self) -> Secret[str]:
        """Where the database is, as administrator."""
        if self.config.database_url is not None:
            return self.config.database_url
        assert self.server is not None  # noqa: S101  # the two cases of the property above
        return self.server.url

    @cached_property
    def holder(self) -> FileHolder:
        """The installation's own holder: the root key, and the customers' keys that nobody else keeps.

        Its passphrase, if it has one, comes from the environment. Raises as `FileHolder` and `find_passphrase`.
        """
        return FileHolder(self.config.keys_dir, self.config.environment, SystemClock(), find_passphrase(os.environ))

    def holders(self) -> Holders:
        """All holders of keys, for one process: our own, and those that `holders.toml` names.

        One that is described wrongly is left out, with all that is wrong in the log: its keys can't be used until that
        is mended and the process started again, and whoever uses another holder, or none, goes on.
        """
        found, mistakes = open_holders(self.holder, self.config.keys_dir)
        for mistake in mistakes:
            log.error("keys.holder_left_out", code=mistake.code, message=mistake.message)
        return found

    @cached_property
    def authority(self) -> LocalAuthority:
        """The installation's own certificate authority."""
        return LocalAuthority(self.config.keys_dir, self.config.names, SystemClock())

    @property
    def ca_file(self) -> Path:
        """The local authority's certificate, where every user can read it."""
        return self.config.data_dir / "ca.pem"

    def certificate(self) -> Certificate:
        """The server certificate: one's own, or one of the local authority's, made or renewed when needed.

        Raises errors.Refused (`CERTIFICATE_KEY_IS_REQUIRED`, `CERTIFICATE_UNUSABLE`, `NAMES_NOT_COVERED`).
        """
        own, key = self.config.certificate, self.config.certificate_key
        if own is not None and key is not None:
            return own_certificate(own, key)
        if own is not None or key is not None:
            raise Refused(
                Failure("CERTIFICATE_KEY_IS_REQUIRED", "--certificate and --certificate-key go together: give both.")
            )
        return self._vouched("server")

    def simulator_certificate(self) -> Certificate:
        """The simulator's certificate, of the local authority."""
        return self._vouched("simulator")

    def cards_certificate(self) -> Certificate:
        """The card vault's certificate for our own processes, of the local authority."""
        return self.authority.issue("cards", [card_client.NAME])

    def process_certificate(self, process: str) -> Certificate:
        """The certificate by which one of our processes (`api`, `worker`, `prove`, `operator`) is known to the card
        vault."""
        return self.authority.issue_process(process)

    def card_vault(self, process: str) -> CardVault:
        """The card vault's inner door, as one of our processes may use it; to be closed."""
        certificate = self.process_certificate(process)
        identity = (certificate.chain, certificate.key)
        outbound = inner_door(self.config.cards_inner_port, self.authority.certificate, identity)
        return CardVault(outbound, f"https://{card_client.NAME}:{self.config.cards_inner_port}")

    @property
    def cards_database_url(self) -> Secret[str]:
        """The card vault's database, as the vault's own role; for its process alone."""
        return url_of(self.admin_url, CARDS, user=CARDS_ROLE, password=self._cards_password)

    def simulator_secret_file(self) -> Path:
        """The file with the secret that we and the simulator share, in hexadecimal; made when there is none."""
        path = self.config.keys_dir / "simulator.token"
        if not path.exists():
            write_private(path, os.urandom(_PASSWORD_BYTES).hex().encode())
        return path

    def tokens(self, clock: Clock) -> Tokens:
        """Issues and reads access tokens."""
        return load_or_make_tokens(self.config.keys_dir / "tokens.key", self.config.environment, clock)

    def _vouched(self, purpose: str) -> Certificate:
        made = self.authority.issue(purpose)
        content = self.authority.certificate.read_bytes()
        if not self.ca_file.exists() or self.ca_file.read_bytes() != content:
            write_private(self.ca_file, content)
        self.ca_file.chmod(0o644)
        return made

    def start(self) -> None:
        """Start the embedded server (if any), make and migrate the databases."""
        self.prepare()
        if self.server is not None:
            self.server.start()
        provision(self.admin_url, self.config.regions, self._password("database-app"))
        provision_cards(self.admin_url, self._cards_password)

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
    def _cards_password(self) -> Secret[str]:
        return Secret(read_or_make_secret(self.config.cards_dir / "database.secret", _PASSWORD_BYTES).hex())

    @property
    def app_password(self) -> Secret[str]:
        """The application role's password."""
        return self._password("database-app")


@dataclass(frozen=True, slots=True)
class Application:
    """The API, and the portals below their path, as one ASGI application."""

    surface: Surface
    portals: Portals

    def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> Awaitable[None]:
        """Serve one request (ASGI 3, scope type `http`)."""
        if scope["path"].startswith(PORTALS_PATH):
            return self.portals(scope, receive, send)
        return self.surface(scope, receive, send)


class App:
    """What one process holds open."""

    def __init__(self, installation: Installation, *, clock: Clock, connections: int) -> None:
        self.installation = installation
        self.config = installation.config
        self.clock = clock
        self.keyring = Keyring(installation.holders(), self.config.environment, clock)
        self.databases = Databases(
            installation.admin_url,
            installation.app_password,
            regions=self.config.regions,
            environment=self.config.environment,
            clock=clock,
            ciphers=self.keyring,
            connections=connections,
            has_room=installation.has_room,
        )
        self.operation = self.databases.operation
        self.tokens = installation.tokens(clock)
        self._card_vaults: dict[str, CardVault] = {}

    @cached_property
    def surface(self) -> Surface:
        """The API, as an ASGI application."""
        parts: Mapping[type, Any] = {
            Tokens: self.tokens,
            Keyring: self.keyring,
            KeyDesk: self.key_desk,
            ImportDesk: self.import_desk,
            OrderWriter: OrderWriter(self.databases),
            NotificationReceiver: NotificationReceiver(self.databases, self.provider),
            ReportReader: ReportReader(),
            CardVault: self.card_vault("api"),
            FrontDoor: self.front_door,
        }
        services = Services(
            config=self.config, clock=self.clock, databases=self.databases, tokens=self.tokens, parts=parts
        )
        return build_asgi(services, ROUTES)

    @cached_property
    def application(self) -> Application:
        """All that this process serves: the portals for people, and the API for everything else."""
        return Application(self.surface, Portals(self.front_door, PAGES, SourceReader(self.config.trusted_proxies)))

    @cached_property
    def front_door(self) -> FrontDoor:
        """Where people come in."""
        secret = Secret(read_or_make_secret(self.config.keys_dir / "people.secret", SECRET_BYTES))
        return FrontDoor(databases=self.databases, keys=DoorKeys(secret), origin=self.config.portal_origin)

    @cached_property
    def postman(self) -> Postman:
        """Takes letters to the mail server."""
        return Postman(
            sender=self.config.mail_sender,
            folder=self.config.mail_dir if self.config.environment is Environment.SANDBOX else None,
            clock=self.clock,
            server=self.config.mail_server,
        )

    @cached_property
    def outbound(self) -> Outbound:
        """The only way out; allows the installation's providers, and nobody else."""
        simulator = Destination(host=_LOOPBACK, port=self.config.simulator_port, loopback_ok=True)
        return Outbound(
            allowed=[simulator] if self.config.environment is Environment.SANDBOX else [],
            trust=self.installation.ca_file,
            limits=PROVIDER_LIMITS,
        )

    def card_vault(self, process: str) -> CardVault:
        """The card vault, as one of our processes may use it; closed with the app."""
        known = self._card_vaults.get(process)
        if known is None:
            known = self._card_vaults[process] = self.installation.card_vault(process)
        return known

    def provider(self, tenant: TenantId, app_id: str, settings: Mapping[str, str]) -> Provider:
        """The rail behind a tenant's installed app.

        Raises errors.NotFound (`APP_NOT_FOUND`) when it isn't one that is asked over the network here.
        """
        del settings
        if app_id != SIMULATOR or self.config.environment is not Environment.SANDBOX:
            raise NotFound(Failure("APP_NOT_FOUND", "No connector for {appId} runs here.", {"appId": app_id}))
        secret = self.installation.simulator_secret_file().read_text().strip()
        return Simulator(
            outbound=self.outbound,
            url=f"https://{_LOOPBACK}:{self.config.simulator_port}",
            secret=Secret(secret),
            clock=self.clock,
            callback_url=f"https://{_LOOPBACK}:{self.config.port}/v1/notifications/{tenant}/{app_id}",
        )

    @cached_property
    def dispatcher(self) -> Dispatcher:
        """Moves what is due."""
        return Dispatcher(self.databases, self.provider, self.config.files_dir / "outbox")

    @cached_property
    def key_desk(self) -> KeyDesk:
        """Where keys are rotated, attached, disabled and destroyed."""
        secret = read_or_make_secret(self.config.keys_dir / "key-owners.secret", _PASSWORD_BYTES)
        return KeyDesk(databases=self.databases, keyring=self.keyring, owner_key=Secret(secret))

    @cached_property
    def import_desk(self) -> ImportDesk:
        """Where customers bring their keys."""
        imports = Imports(self.config.keys_dir, self.installation.holder, self.clock)
        return ImportDesk(desk=self.key_desk, imports=imports)

    async def open(self) -> None:
        """Connect to the databases."""
        await self.databases.open()

    async def close(self) -> None:
        """Let go of everything."""
        if "outbound" in self.__dict__:
            await self.outbound.aclose()
        await self.keyring.close()
        for vault in self._card_vaults.values():
            await vault.aclose()
        await self.databases.close()


ENVIRONMENT_VARIABLE: Final = "STRONGROOM_"
"""How the names of the variables begin that tell a child process the settings."""


def to_variables(config: Config) -> dict[str, str]:
    """The settings as environment variables, for a child process (a command line would show them to everybody)."""
    values = {
        "DATA_DIR": str(config.data_dir),
        "ENVIRONMENT": config.environment.value,
        "DATABASE": "" if config.database_url is None else config.database_url.reveal(),
        "REGIONS": ",".join(config.regions),
        "HOST": config.host,
        "PORT": str(config.port),
        "SIMULATOR_PORT": str(config.simulator_port),
        "CARDS_PORT": str(config.cards_port),
        "CARDS_INNER_PORT": str(config.cards_inner_port),
        "PROCESSES": str(config.processes),
        "CERTIFICATE": "" if config.certificate is None else str(config.certificate),
        "CERTIFICATE_KEY": "" if config.certificate_key is None else str(config.certificate_key),
        "NAMES": ",".join(config.names),
        "MAIL_SERVER": "" if config.mail_server is None else config.mail_server.reveal(),
        "MAIL_SENDER": config.mail_sender,
        "TRUSTED_PROXIES": ",".join(config.trusted_proxies),
    }
    return {f"{ENVIRONMENT_VARIABLE}{name}": value for name, value in values.items()}


def from_variables(variables: Mapping[str, str]) -> Config:
    """The settings that `to_variables` wrote."""

    def read(name: str) -> str:
        return variables[f"{ENVIRONMENT_VARIABLE}{name}"]

    return Config(
        data_dir=Path(read("DATA_DIR")),
        environment=Environment(read("ENVIRONMENT")),
        database_url=Secret(read("DATABASE")) if read("DATABASE") else None,
        regions=tuple(read("REGIONS").split(",")),
        host=read("HOST"),
        port=int(read("PORT")),
        simulator_port=int(read("SIMULATOR_PORT")),
        cards_port=int(read("CARDS_PORT")),
        cards_inner_port=int(read("CARDS_INNER_PORT")),
        processes=int(read("PROCESSES")),
        certificate=Path(read("CERTIFICATE")) if read("CERTIFICATE") else None,
        certificate_key=Path(read("CERTIFICATE_KEY")) if read("CERTIFICATE_KEY") else None,
        names=tuple(read("NAMES").split(",")),
        mail_server=Secret(read("MAIL_SERVER")) if read("MAIL_SERVER") else None,
        mail_sender=read("MAIL_SENDER"),
        trusted_proxies=tuple(filter(None, read("TRUSTED_PROXIES").split(","))),
    )


def asgi(parent: int) -> Service:
    """What each of the web server's processes serves; the settings come by environment variables.

    `parent` is the number of the process that starts them. When it is killed they are as well, and not asked to stop:
    the web server's processes get stuck when they are asked while they start, and keep connections waiting.
    """
    end_with_parent(parent, signal.SIGKILL)
    configure_logs()
    return Service(Installation(from_variables(os.environ)).app())


def _settle_memory() -> None:
    """Keep the garbage collector from walking through all that a process was built of, again and again.

    What is there when serving starts stays; hardly anything that a request makes refers to itself, so counting
    references frees it. Looking for cycles every 700 objects (the default) found next to none, for a sixth of the CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 10, 10)


class Service:
    """An app with its life around it: connects when the server starts, lets go when it stops."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._application = app.application

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Serve one connection scope (ASGI 3)."""
        if scope["type"] != "lifespan":
            await self._application(scope, receive, send)
            return
        await receive()
        try:
            await self._app.open()
        except StrongroomError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        _settle_memory()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._app.close()
        await send({"type": "lifespan.shutdown.complete"})
