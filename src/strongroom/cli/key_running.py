"""What the commands about keys share: an open app, who acts, progress, and how plans and results are told."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from strongroom.cli.settings import config_for
from strongroom.kernel.config import Environment

if TYPE_CHECKING:
    from rich.console import Console

    from strongroom.assembly import App
    from strongroom.kernel.actors import Actor

T = TypeVar("T")
Advance = Callable[[str, int], None]
"""Told what is being done, and how much of it has been."""


def run(act: Callable[[App], Awaitable[T]], data_dir: Path | None, environment: Environment, database: str | None) -> T:
    """Do something with an installation's app, open; its database is started for the time being if it isn't up.

    Raises errors.NotFound (`INSTALLATION_NOT_FOUND`): looking after keys never makes an installation.
    """
    import asyncio
    import logging

    from strongroom.assembly import Installation
    from strongroom.cli.passphrase import ask_passphrase
    from strongroom.cli.prove import require_installation
    from strongroom.kernel.telemetry import configure_logs

    async def opened() -> T:
        app = installation.app(connections=2)
        try:
            await app.open()
            return await act(app)
        finally:
            await app.close()

    configure_logs(level=logging.ERROR)
    config = config_for(data_dir, environment, database)
    require_installation(config.data_dir, own_database=database is not None)
    ask_passphrase(config.keys_dir)
    installation = Installation(config)
    installation.start()
    try:
        return asyncio.run(opened())
    finally:
        installation.stop()


def who() -> Actor:
    """The operator, by the name of their account on this machine, so that two people are two."""
    import os
    import pwd

    from strongroom.kernel.actors import operator

    return operator(f"{pwd.getpwuid(os.getuid()).pw_name}@command-line")


@contextlib.contextmanager
def bar(total: int | None) -> Iterator[Advance]:
    """A progress bar on standard error, if that is a terminal; without a total it counts."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    rest = (SpinnerColumn(),) if total is None else (BarColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), *rest)
    output = console(to_stderr=True)
    with Progress(*columns, console=output, transient=True, disable=not output.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda what, done: progress.update(task, description=what, completed=done)


def console(*, to_stderr: bool = False) -> Console:
    """A console that is wide enough for tables when it is no terminal."""
    from rich.console import Console

    from strongroom.cli.report import WIDTH

    made = Console(highlight=False, stderr=to_stderr)
    return made if made.is_terminal else Console(highlight=False, stderr=to_stderr, width=WIDTH, soft_wrap=True)


def tell(as_json: bool, data: object, said: str) -> None:
    """A result: data, or a sentence."""
    if as_json:
        print_data(data)
    else:
        console().print(said, markup=False)


def plan(said: str, *, as_json: bool, **data: Any) -> None:
    """What would happen."""
    if as_json:
        print_data({"done": False, "plan": said, **data})
        return
    output = console()
    output.print(said, markup=False)
    output.print("Nothing was done. Give --yes to do it.", style="yellow")


def print_data(data: object) -> None:
    """Data on standard output."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def read_moment(text: str) -> datetime:
    """A moment as somebody gave it (ISO 8601); in UTC unless it says otherwise.

    Raises errors.Invalid (`MOMENT_IS_INVALID`).
    """
    from strongroom.kernel.errors import Failure, Invalid

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(
            Failure("MOMENT_IS_INVALID", "{text} is no moment such as 2026-11-22T18:57:00+00:00.", {"text": text})
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def now() -> datetime:
    """The present, as tables compare it."""
    return datetime.now(UTC)
