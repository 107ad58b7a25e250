"""Starts the simulator and serves until it is told to stop (SIGTERM, SIGINT) or killed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from granian.constants import Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.embed import Server

from strongroom.kernel.clock import SystemClock
from strongroom.kernel.secret import Secret
from strongroom.kernel.telemetry import configure_logs
from strongroom.rails.simulator.application import Application
from strongroom.rails.simulator.books import Books
from strongroom.rails.simulator.callbacks import Courier

MIN_SECRET: Final = 32
"""Fewest characters of a secret."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; the exit status is 2 when the secret can't be used."""
    options = _options(arguments)
    configure_logs()
    try:
        secret = read_secret(options.secret_file)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    asyncio.run(serve(options, secret))
    return 0


def read_secret(file: Path) -> Secret[bytes]:
    """The secret in `file`, without the blanks around it. Raises ValueError when it is short or open to others."""
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise ValueError(f"{file} can be read by others; run: chmod 600 {file}")
    secret = file.read_bytes().strip()
    if len(secret) < MIN_SECRET:
        raise ValueError(f"the secret in {file} has to be at least {MIN_SECRET} characters long")
    return Secret(secret)


async def serve(options: argparse.Namespace, secret: Secret[bytes]) -> None:
    """Open the books, listen, and work until a signal comes."""
    clock = SystemClock()
    books = Books(options.data)
    courier = Courier(books, clock, secret, options.callback_ca)
    application = Application(books=books, courier=courier, clock=clock, secret=secret)
    server = Server(
        application,
        address=options.host,
        port=options.port,
        interface=Interfaces.ASGINL,
        websockets=False,
        log_enabled=False,
        http1_settings=HTTP1Settings(header_read_timeout=10_000),
        ssl_cert=options.certificate,
        ssl_key=options.key,
        ssl_protocol_min=SSLProtocols.tls12,
    )

    loop = asyncio.get_running_loop()

    def stop() -> None:
        application.close()
        loop.call_soon(server.stop)

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop)
    working = asyncio.create_task(courier.run())
    try:
        await server.serve()
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        await courier.aclose()
        await books.aclose()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m strongroom.rails.simulator", description="A payment provider for rehearsals."
    )
    parser.add_argument("--data", type=Path, required=True, help="directory of the books; made when missing")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, required=True, help="a free port to listen on")
    parser.add_argument("--certificate", type=Path, required=True, help="PEM file with the certificate and its chain")
    parser.add_argument("--key", type=Path, required=True, help="PEM file with the certificate's key")
    parser.add_argument("--secret-file", type=Path, required=True, help="file (0600) with the secret clients present")
    parser.add_argument(
        "--callback-ca", type=Path, help="PEM file with the authorities that callbacks trust (system's)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
