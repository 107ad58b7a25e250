"""`strongroom work`: the worker, which moves what is due, takes in what banks say, and forgets what has expired."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from itertools import chain, repeat
from typing import TYPE_CHECKING, Annotated, Final

import typer

from strongroom.cli.settings import Database, DataDir, EnvironmentOption, config_for
from strongroom.kernel.config import Environment

if TYPE_CHECKING:
    from strongroom.assembly import App

PAUSE_S: Final = 0.5
"""How long the worker rests when there was nothing to do."""
INBOX_EVERY_S: Final = 1.0
HOUSEKEEPING_EVERY_S: Final = 600.0
KEYS_EVERY_S: Final = 30.0
LETTERS_EVERY_S: Final = 2.0


def work(
    *,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    port: Annotated[
        int,
        typer.Option("--port", envvar="STRONGROOM_PORT", min=1, max=65535, help="The API's port, for callbacks."),
    ] = 8443,
    simulator_port: Annotated[
        int,
        typer.Option("--simulator-port", envvar="STRONGROOM_SIMULATOR_PORT", min=0, max=65535, help="The simulator's."),
    ] = 8444,
    database: Database = None,
) -> None:
    """Carry out what is due until told to stop. `serve` runs one of these; more may run beside it."""
    from strongroom.assembly import Installation
    from strongroom.kernel.telemetry import configure_logs, forbid_core_files

    configure_logs()
    forbid_core_files()
    config = config_for(data_dir, environment, database, port=port, simulator_port=simulator_port)
    installation = Installation(config)
    installation.start()
    try:
        _run(installation.app())
    finally:
        installation.stop()


def serve_worker() -> None:
    """One part of `serve`: the worker. The settings come by environment variables."""
    import os

    from strongroom.assembly import Installation, from_variables
    from strongroom.kernel.telemetry import configure_logs

    configure_logs()
    _run(Installation(from_variables(os.environ)).app())


def _run(app: App) -> None:
    import uvloop

    uvloop.run(_work(app))


async def _work(app: App) -> None:
    """Work until SIGTERM or SIGINT; what is under way is finished first."""
    import structlog

    from strongroom.payments.dispatch import run_forever

    log = structlog.get_logger(__name__)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    # What a copy of the folder of the keys brought back, while this was stopped, is destroyed again.
    afresh = chain((True,), repeat(False))
    await app.open()
    log.info("work.started", environment=app.config.environment.value)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run_forever(app.dispatcher, app.config.regions, stop, PAUSE_S))
            tasks.create_task(_every(INBOX_EVERY_S, stop, "inbox", lambda: _read_inbox(app)))
            tasks.create_task(
                _every(KEYS_EVERY_S, stop, "keys", lambda: unless_stopped(stop, _tend_keys(app, again=next(afresh))))
            )
            tasks.create_task(_every(LETTERS_EVERY_S, stop, "letters", lambda: _send_letters(app)))
            tasks.create_task(_every(HOUSEKEEPING_EVERY_S, stop, "housekeeping", lambda: _forget(app)))
    finally:
        await app.close()
    log.info("work.stopped")


async def _every(pause_s: float, stop: asyncio.Event, name: str, turn: Callable[[], Awaitable[None]]) -> None:
    """Take a turn again and again; one that fails on purpose is logged, and the next one comes all the same."""
    import structlog

    from strongroom.kernel.errors import StrongroomError

    log = structlog.get_logger(__name__)
    while not stop.is_set():
        try:
            await turn()
        except StrongroomError as error:
            log.warning("work.turn_failed", turn=name, code=error.code)
        try:
            async with asyncio.timeout(pause_s):
                await stop.wait()
        except TimeoutError:
            continue


async def unless_stopped(stop: asyncio.Event, turn: Coroutine[object, object, None]) -> None:
    """Take a turn that may last, such as sealing a million fields again; broken off when the worker is to stop.

    Only for what goes on where it was the next time.
    """
    task, stopping = asyncio.create_task(turn), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            await task
    finally:
        stopping.cancel()


async def _forget(app: App) -> None:
    from strongroom.database.housekeeping import forget_expired
    from strongroom.kernel.actors import system

    await forget_expired(app.databases, system("housekeeping"))


async def _send_letters(app: App) -> None:
    from strongroom.notices import send_due

    await send_due(app.databases, app.postman)


async def _tend_keys(app: App, *, again: bool) -> None:
    from strongroom.assembly import SPLITS

    while await app.key_desk.tend_all(SPLITS, again=again):
        again = False


async def _read_inbox(app: App) -> None:
    from strongroom.reconciliation import import_inbox

    await import_inbox(app.databases, app.config.files_dir)
