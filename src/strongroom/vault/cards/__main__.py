"""Starts the card vault and serves until it is told to stop (SIGTERM, SIGINT, SIGHUP) or killed."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog
import uvloop

from strongroom.kernel.clock import SystemClock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Failure, Refused, StrongroomError
from strongroom.kernel.secret import Secret
from strongroom.kernel.telemetry import configure_logs
from strongroom.outbound import Destination, Outbound
from strongroom.vault.cards.codes import SecurityCodes
from strongroom.vault.cards.custody import Custody
from strongroom.vault.cards.doors import InnerDoor, PublicDoor, Rights
from strongroom.vault.cards.forwarding import Egress, Forwarder, read_egress
from strongroom.vault.cards.isolation import close_off, leave_root, lock_memory, places_of_code
from strongroom.vault.cards.keys import CardKeys
from strongroom.vault.cards.listening import MAX_PER_ADDRESS, Listener, bind, server_context
from strongroom.vault.cards.operating import Operating
from strongroom.vault.cards.records import Records
from strongroom.vault.cards.rotation import Rotation
from strongroom.vault.cards.transfers import Transfers, load_or_make_key
from strongroom.vault.holders import CARD_VAULT, FileHolder

log = structlog.get_logger(__name__)

WIPE_EVERY_S: Final = 1.0
FORGET_EVERY_S: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What the supervisor hands over on standard input, as one JSON object: neither a command line nor an environment
    is the place for it, since other processes can read those."""

    database: Secret[str]
    """The database's URL."""
    passphrase: Secret[str] | None
    """Of the root key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What only whoever starts the vault may be able to reach: files of others, low ports."""

    public: tuple[socket.socket, ssl.SSLContext]
    inner: tuple[socket.socket, ssl.SSLContext]
    egress: Egress
    rights: Outbound


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; the exit status is 1 when it can't start."""
    close_off()
    options = _options(arguments)
    configure_logs()
    try:
        handed, ground = _read_handed(sys.stdin.buffer.read()), _prepare(options)
        leave_root(options.folder, os.getppid(), places_of_code())
        uvloop.run(serve(options, handed, ground, is_locked=lock_memory()))
    except (StrongroomError, OSError) as error:
        log.error("cards.not_started", error=str(error))  # noqa: TRY400  what it says is all there is to say
        return 1
    return 0


async def serve(options: argparse.Namespace, handed: Handed, ground: Ground, *, is_locked: bool) -> None:
    """Open the vault, and keep it open until a signal comes. What is under way is finished first."""
    environment, clock = Environment(options.environment), SystemClock()
    folder: Path = options.folder
    records = Records(handed.database)
    codes = SecurityCodes()
    holder = FileHolder(folder, environment, clock, handed.passphrase, place=CARD_VAULT)
    custody = Custody(records, CardKeys(holder, environment), codes, clock)
    transfers = Transfers(custody, await load_or_make_key(folder / "transfers.key", holder))
    operating = Operating(custody, Rotation(custody, holder), holder, is_locked=is_locked)
    public = PublicDoor(custody, transfers, Rights(ground.rights, options.api_url))
    inner = InnerDoor(custody, Forwarder(custody, ground.egress), operating.routes)
    doors = (
        Listener(public.handle, public.max_body, per_address=MAX_PER_ADDRESS),
        Listener(inner.handle, inner.max_body),
    )
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    await records.open()
    try:
        await doors[0].start(*ground.public)
        await doors[1].start(*ground.inner)
        log.info("cards.serving", environment=environment.value)
        await _keep_tidy(records, codes, stop)
    finally:
        await asyncio.gather(*(door.stop() for door in doors))
        codes.clear()
        await ground.egress.aclose()
        await ground.rights.aclose()
        await records.close()


def _read_handed(content: bytes) -> Handed:
    """Raises errors.Refused (`CARD_SECRETS_NOT_HANDED_OVER`)."""
    try:
        told = msgspec.json.decode(content, type=_Told)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused(
            Failure(
                "CARD_SECRETS_NOT_HANDED_OVER",
                "Standard input has to hold the database's URL and the passphrase (or null), as JSON. `strongroom "
                "serve` does that.",
            )
        ) from None
    passphrase = None if told.passphrase is None else Secret(told.passphrase)
    return Handed(database=Secret(told.database), passphrase=passphrase)


def _prepare(options: argparse.Namespace) -> Ground:
    return Ground(
        public=(bind(options.host, options.port), server_context(options.certificate, options.key)),
        inner=(
            bind(options.inner_host, options.inner_port),
            server_context(options.inner_certificate, options.inner_key, options.clients),
        ),
        egress=Egress(_destinations(options, Environment(options.environment))),
        rights=_outbound_to(options.api_url, options.api_trust),
    )


class _Told(msgspec.Struct):
    database: str
    passphrase: str | None = None

    def __repr__(self) -> str:
        return "_Told(…)"


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
