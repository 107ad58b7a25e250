"""Starts the card vault and serves until it is told to stop (SIGTERM, SIGINT, SIGHUP) or killed."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog
import uvloop

from strongroom.kernel.clock import SystemClock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import StrongroomError
from strongroom.kernel.secret import Secret
from strongroom.kernel.telemetry import configure_logs, forbid_dumps
from strongroom.outbound import Destination, Outbound
from strongroom.vault.cards.codes import SecurityCodes
from strongroom.vault.cards.custody import Custody
from strongroom.vault.cards.doors import InnerDoor, PublicDoor, Rights
from strongroom.vault.cards.forwarding import Egress, Forwarder, read_egress
from strongroom.vault.cards.keys import KEY_BYTES, CardKeys
from strongroom.vault.cards.listening import Listener, server_context
from strongroom.vault.cards.records import Records
from strongroom.vault.cards.transfers import Transfers, load_or_make_key
from strongroom.vault.secret_files import read_or_make_secret

log = structlog.get_logger(__name__)

DATABASE_VARIABLE: Final = "STRONGROOM_CARDS_DATABASE"
"""The environment variable with the database's URL: a command line would show the password to everybody."""
WIPE_EVERY_S: Final = 1.0
FORGET_EVERY_S: Final = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; the exit status is 1 when it can't start."""
    options = _options(arguments)
    configure_logs()
    # Neither a core file nor another process of the same user gets to see this one's memory.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    forbid_dumps()
    try:
        uvloop.run(serve(options, Secret(os.environ.pop(DATABASE_VARIABLE))))
    except (StrongroomError, OSError) as error:
        log.error("cards.not_started", error=str(error))  # noqa: TRY400  what it says is all there is to say
        return 1
    return 0


async def serve(options: argparse.Namespace, database: Secret[str]) -> None:
    """Open the vault, and keep it open until a signal comes. What is under way is finished first."""
    environment, clock = Environment(options.environment), SystemClock()
    folder: Path = options.folder
    records = Records(database)
    codes = SecurityCodes()
    root = Secret(read_or_make_secret(folder / "root.key", KEY_BYTES))
    custody = Custody(records, CardKeys(root, environment), codes, clock)
    egress = Egress(_destinations(options, environment))
    rights = _outbound_to(options.api_url, options.api_trust)
    transfers = Transfers(custody, load_or_make_key(folder / "transfers.key"))
    public = PublicDoor(custody, transfers, Rights(rights, options.api_url))
    inner = InnerDoor(custody, Forwarder(custody, egress))
    doors = (Listener(public.handle, public.max_body), Listener(inner.handle, inner.max_body))
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    await records.open()
    try:
        await doors[0].start(options.host, options.port, server_context(options.certificate, options.key))
        inner_context = server_context(options.inner_certificate, options.inner_key, options.clients)
        await doors[1].start(options.inner_host, options.inner_port, inner_context)
        log.info("cards.serving", environment=environment.value)
        await _keep_tidy(records, codes, stop)
    finally:
        await asyncio.gather(*(door.stop() for door in doors))
        codes.clear()
        await egress.aclose()
        await rights.aclose()
        await records.close()


async def _keep_tidy(records: Records, codes: SecurityCodes, stop: asyncio.Event) -> None:
    """Until told to stop: wipe security codes in time, forget old sessions now and then."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while not stop.is_set():
        codes.drop_expired()
        if loop.time() >= due:
            due = loop.time() + FORGET_EVERY_S
            try:
                await records.forget_sessions()
            except StrongroomError as error:
                log.warning("cards.sessions_not_forgotten", code=error.code)
        try:
            async with asyncio.timeout(WIPE_EVERY_S):
                await stop.wait()
        except TimeoutError:
            continue


def _destinations(options: argparse.Namespace, environment: Environment) -> Mapping[Destination, Path | None]:
    """The allow list: the vault's own file, and in the sandbox the provider simulator."""
    sandbox = environment is Environment.SANDBOX
    listed = dict(read_egress(options.folder / "egress.toml", loopback_ok=sandbox))
    if sandbox and options.simulator:
        parts = urlsplit(options.simulator)
        simulator = Destination(host=parts.hostname or "", port=parts.port or 443, loopback_ok=True)
        listed.setdefault(simulator, options.simulator_trust)
    return listed


def _outbound_to(url: str, trust: Path | None) -> Outbound:
    parts = urlsplit(url)
    here = Destination(host=parts.hostname or "", port=parts.port or 443, loopback_ok=True)
    return Outbound(allowed=[here], trust=trust)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m strongroom.vault.cards", description="The card vault.")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the vault's own keys and egress.toml")
    parser.add_argument("--environment", required=True, choices=[one.value for one in Environment])
    parser.add_argument("--host", default="127.0.0.1", help="address of the public door")
    parser.add_argument("--port", type=int, required=True, help="port of the public door")
    parser.add_argument("--certificate", type=Path, required=True, help="its certificate with the chain (PEM)")
    parser.add_argument("--key", type=Path, required=True, help="the certificate's key (PEM)")
    parser.add_argument("--inner-host", default="127.0.0.1", help="address of the inner door")
    parser.add_argument("--inner-port", type=int, required=True, help="port of the inner door, for our own processes")
    parser.add_argument("--inner-certificate", type=Path, required=True)
    parser.add_argument("--inner-key", type=Path, required=True)
    parser.add_argument("--clients", type=Path, required=True, help="authority of our processes' certificates (PEM)")
    parser.add_argument("--api-url", required=True, help="the platform's API, asked about access tokens")
    parser.add_argument("--api-trust", type=Path, help="authority of the API's certificate (the system's)")
    parser.add_argument("--simulator", help="the provider simulator's address; sandbox only")
    parser.add_argument("--simulator-trust", type=Path, help="authority of its certificate")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
