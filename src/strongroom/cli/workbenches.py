"""Putting workbenches together: a running installation as the checks of `strongroom.trust` need it.

Three kinds: `attached` to an installation that is being served already, `served_here` for one whose API (and, in the
sandbox, simulator) is started for as long as it is needed, and `throw_away`, an installation made for one check.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil
from granian.constants import Interfaces, SSLProtocols
from granian.server.embed import Server

from strongroom.api.table import ROUTES
from strongroom.assembly import App, Installation
from strongroom.cli.supervisor import choose_port
from strongroom.identity import Certificate, Tokens, load_or_make_tokens
from strongroom.kernel.clock import Clock
from strongroom.kernel.config import Config, Environment
from strongroom.kernel.errors import Failure, Unavailable
from strongroom.kernel.secret import Secret
from strongroom.kernel.telemetry import end_with_parent
from strongroom.outbound import Destination, Limits, Outbound
from strongroom.trust import Endpoint, Listener, Workbench

START_TIMEOUT_S: Final = 30.0
_LOOPBACK: Final = "127.0.0.1"
_TOLD: Final = "serve.json"
_VAULT, _SIMULATOR = "strongroom.vault.cards", "strongroom.rails.simulator"
_PATIENT: Final = Limits(connect_s=15.0, idle_s=60.0, total_s=120.0, answer_bytes=1 << 26)
"""A busy machine makes answers late, not promises broken."""
_ANYWHERE: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104  not bound here, only recognised

Make = Callable[[Config], Installation]
"""How an installation is made from its settings."""


def find_served(installation: Installation) -> Installation | None:
    """The installation as it is being served right now, or None.

    `strongroom serve` writes `serve.json` into the data directory: `url` and `simulator` (addresses, the latter null in
    production), `cards` and `cards_inner` (the card vault's doors) and `pids`. A file whose processes are gone is left
    over from a crash, and means nothing.
    """
    try:
        told = json.loads((installation.config.data_dir / _TOLD).read_text())
        api, simulator = urlsplit(told["url"]), urlsplit(told["simulator"] or "")
        cards, inner = urlsplit(told["cards"]), urlsplit(told["cards_inner"])
        alive = all(psutil.pid_exists(pid) for pid in told["pids"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if not alive or api.hostname is None or api.port is None:
        return None
    config = dataclasses.replace(
        installation.config,
        host=api.hostname,
        port=api.port,
        simulator_port=simulator.port or installation.config.simulator_port,
        cards_port=cards.port or installation.config.cards_port,
        cards_inner_port=inner.port or installation.config.cards_inner_port,
    )
    return Installation(config)


def _processes(config: Config) -> Sequence[int]:
    """The processes of a served installation, without those that are apart: the card vault and the simulator."""
    told = json.loads((config.data_dir / _TOLD).read_text())
    return [*told["pids"], *_parts(config, lambda words: not {_VAULT, _SIMULATOR} & words)]


def _parts(config: Config, is_wanted: Callable[[set[str]], bool]) -> Sequence[int]:
    """The parts of a served installation that are wanted by the words of their command, and what they have started."""
    told = json.loads((config.data_dir / _TOLD).read_text())
    found = []
    for pid in told["pids"]:
        for part in psutil.Process(pid).children():
            if is_wanted(set(part.cmdline())):
                found += [part.pid, *(child.pid for child in part.children(recursive=True))]
    return found


@asynccontextmanager
async def attached(app: App) -> AsyncIterator[Workbench]:
    """A workbench for an installation that is served at its configured ports. `app` is open.

    The card vault is there only where `strongroom serve` is: an API that is served for the time being has none.
    """
    config, installation = app.config, app.installation
    host = _LOOPBACK if config.host in _ANYWHERE else config.host
    authority = installation.ca_file if config.certificate is None else None
    api = Listener(name="API", host=host, port=config.port, trust=authority)
    simulator, secret = None, None
    if config.environment is Environment.SANDBOX:
        simulator = Listener(name="simulator", host=_LOOPBACK, port=config.simulator_port, trust=installation.ca_file)
        secret = Secret(installation.simulator_secret_file().read_text().strip())
    cards = None
    if (config.data_dir / _TOLD).exists():
        cards = Listener(name="card vault", host=host, port=config.cards_port, trust=authority)
    allowed = [Destination(host=host, port=port, loopback_ok=True) for port in (config.port, config.cards_port)]
    async with Outbound(allowed=allowed, trust=authority, limits=_PATIENT) as outbound:
        yield Workbench(
            config=config,
            clock=app.clock,
            api=api,
            simulator=simulator,
            simulator_secret=secret,
            cards=cards,
            card_vault=app.card_vault("prove"),
            processes=lambda: _processes(config),
            card_processes=lambda: _parts(config, lambda words: _VAULT in words),
            endpoints=[
                Endpoint(
                    method=route.method, path=route.path, level=route.access.value, permission=route.permission or ""
                )
                for route in ROUTES
            ],
            databases=app.databases,
            keyring=app.keyring,
            key_desk=app.key_desk,
            front_door=app.front_door,
            admin_url=installation.admin_url,
            server=installation.server,
            tokens=_tokens(config),
            outbound=outbound,
            claim=lambda other: type(installation)(other).prepare(),
            other_world=lambda environment: throw_away(environment, config.regions),
            restored=partial(_restored, app),
        )


@asynccontextmanager
async def _restored(app: App, folder: Path) -> AsyncIterator[Workbench]:
    """See `Workbench.restored`."""
    for path in (app.config.keys_dir, app.installation.ca_file):
        (folder / path.name).symlink_to(path.resolve())
    installation = type(app.installation)(dataclasses.replace(app.config, data_dir=folder))
    server = installation.server
    assert server is not None  # noqa: S101  # a base backup is the embedded server's
    await asyncio.to_thread(server.start)
    try:
        restored = installation.app(connections=2)
        await restored.open()
        try:
            async with attached(restored) as bench:
                yield bench
        finally:
            await restored.close()
    finally:
        await asyncio.to_thread(server.stop)


@asynccontextmanager
async def served_here(installation: Installation) -> AsyncIterator[Workbench]:
    """A workbench for a started installation whose API is served by this process, on a free port, while it lasts."""
    config = dataclasses.replace(
        installation.config,
        host=_LOOPBACK,
        port=choose_port(_LOOPBACK, 0),
        simulator_port=choose_port(_LOOPBACK, 0),
    )
    here = type(installation)(config)
    app = here.app(connections=4)
    await app.open()
    try:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(listening(app.application, config.port, here.certificate()))
            if config.environment is Environment.SANDBOX:
                await stack.enter_async_context(_simulator(here))
            yield await stack.enter_async_context(attached(app))
    finally:
        await app.close()


@asynccontextmanager
async def throw_away(
    environment: Environment, regions: tuple[str, ...], make: Make = Installation
) -> AsyncIterator[Workbench]:
    """A new installation of its own, with its own embedded database, running; gone afterwards."""
    with _public_folder() as folder:
        installation = make(Config(data_dir=folder / environment.value, environment=environment, regions=regions))
        await asyncio.to_thread(installation.start)
        try:
            async with served_here(installation) as bench:
                yield bench
        finally:
            await asyncio.to_thread(installation.stop)


@contextlib.contextmanager
def _public_folder() -> Iterator[Path]:
    """A temporary folder that every user can pass through and nobody can list: the database may run as a user of its
    own."""
    with tempfile.TemporaryDirectory(prefix="strongroom-prove-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@asynccontextmanager
async def listening(application: Any, port: int, certificate: Certificate) -> AsyncIterator[None]:
    """Serve an ASGI application over TLS from this process, on a port of the loopback interface.

    Raises errors.Unavailable (`API_NOT_STARTED`).
    """
    server = Server(
        application,
        address=_LOOPBACK,
        port=port,
        interface=Interfaces.ASGINL,
        websockets=False,
        log_enabled=False,
        ssl_cert=certificate.chain,
        ssl_key=certificate.key,
        ssl_protocol_min=SSLProtocols.tls12,
    )
    serving = asyncio.create_task(server.serve())
    try:
        await _wait_for(port, lambda: not serving.done(), "API")
        yield
    finally:
        server.stop()  # type: ignore[no-untyped-call]  # Granian has no types here
        await serving


@asynccontextmanager
async def _simulator(installation: Installation) -> AsyncIterator[None]:
    process = _start_simulator(installation)
    try:
        await _wait_for(installation.config.simulator_port, lambda: process.poll() is None, "simulator")
        yield
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


def _start_simulator(installation: Installation) -> subprocess.Popen[bytes]:
    config, certificate = installation.config, installation.simulator_certificate()
    return subprocess.Popen(
        [
            sys.executable, "-P", "-m", "strongroom.rails.simulator",
            "--data", str(config.data_dir / "simulator"),
            "--port", str(config.simulator_port),
            "--certificate", str(certificate.chain),
            "--key", str(certificate.key),
            "--secret-file", str(installation.simulator_secret_file()),
            "--callback-ca", str(installation.ca_file),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=end_with_parent,  # noqa: PLW1509  nothing is done in the child but one system call
    )  # fmt: skip


async def _wait_for(port: int, is_alive: Callable[[], bool], what: str) -> None:
    """Until somebody listens on the port."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT_S):
            while is_alive():
                try:
                    _, writer = await asyncio.open_connection(_LOOPBACK, port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return
    raise Unavailable(
        Failure("API_NOT_STARTED", "The {what} did not start on port {port}.", {"what": what, "port": port})
    )


def _tokens(config: Config) -> Callable[[Environment, Clock], Tokens]:
    path = config.keys_dir / "tokens.key"
    return lambda environment, clock: load_or_make_tokens(path, environment, clock)
