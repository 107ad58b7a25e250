"""A `strongroom serve` of our own, for as long as a command needs one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from rich.console import Console

from strongroom.assembly import App, Installation
from strongroom.cli.settings import config_for
from strongroom.cli.supervisor import choose_port
from strongroom.kernel.config import Config, Environment
from strongroom.kernel.errors import Failure, Unavailable
from strongroom.kernel.telemetry import end_with_parent

START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 60.0
_LOOPBACK: Final = "127.0.0.1"
_PORTS: Final = (8443, 8444, 8445, 8446)


def config_on_free_ports(data_dir: Path | None) -> Config:
    """The settings of a sandbox, on the ports of `serve` where they are free and on others where not."""
    ports: list[int] = []
    for wanted in _PORTS:
        try:
            ports.append(choose_port(_LOOPBACK, wanted))
        except Unavailable:
            ports.append(choose_port(_LOOPBACK, 0))
    port, simulator_port, cards_port, cards_inner_port = ports
    return config_for(
        data_dir,
        Environment.SANDBOX,
        None,
        port=port,
        simulator_port=simulator_port,
        cards_port=cards_port,
        cards_inner_port=cards_inner_port,
    )


@contextlib.asynccontextmanager
async def staged(config: Config, console: Console) -> AsyncIterator[App]:
    """The platform, running below the configured folder; yields our own view of it. Stops it at the end.

    Raises errors.Unavailable (`DATABASE_NOT_STARTED`, `API_NOT_STARTED`).
    """
    installation = Installation(config)
    with console.status("Starting the database"):
        await asyncio.to_thread(installation.start)
    try:
        installation.certificate()
        app = installation.app(connections=4)
        with _serving(config) as server:
            with console.status("Starting the API, the worker and the provider simulator"):
                await _await_api(config, server)
                await app.open()
            try:
                yield app
            finally:
                await app.close()
    finally:
        await asyncio.to_thread(installation.stop)


@contextlib.contextmanager
def _serving(config: Config) -> Iterator[subprocess.Popen[bytes]]:
    """A child process; what it says goes to `serve.log` in the installation's folder."""
    command = [
        sys.executable, "-P", "-m", "strongroom.cli", "serve",
        "--data-dir", str(config.data_dir),
        "--port", str(config.port),
        "--simulator-port", str(config.simulator_port),
        "--cards-port", str(config.cards_port),
        "--cards-inner-port", str(config.cards_inner_port),
    ]  # fmt: skip
    variables = {name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")}
    with (config.data_dir / "serve.log").open("ab") as log:
        server = subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509  # nothing is done in the child but one system call
        )
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


async def _await_api(config: Config, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(_LOOPBACK, config.port)
            writer.close()
            return
        if server.poll() is not None or time.monotonic() > deadline:
            raise Unavailable(
                Failure(
                    "API_NOT_STARTED",
                    "The platform did not start; {log} says why.",
                    {"log": str(config.data_dir / "serve.log")},
                )
            )
        await asyncio.sleep(0.05)
