"""`strongroom prove`: check every promise on the running system, and say how each stands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from strongroom.cli.settings import AsJson, Database, DataDir, config_for, default_data_dir
from strongroom.kernel.config import Environment

if TYPE_CHECKING:
    from rich.table import Table

    from strongroom.assembly import App, Installation
    from strongroom.trust import Promise, Verdict, Workbench

_STYLES: Final = {"green": "bold green", "red": "bold red", "unbuilt": "dim"}
Report = Callable[["Promise", "Verdict | None"], None]


def prove(
    *,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Id of a promise to check; may be given again.", metavar="ID")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: Annotated[
        Environment | None,
        typer.Option(
            "--environment",
            envvar="STRONGROOM_ENVIRONMENT",
            help="Which world. [default: what the folder is marked with]",
            show_default=False,
        ),
    ] = None,
    database: Database = None,
) -> None:
    """Check the promises on the running system. Exit status 1 when one is broken.

    Works on what `strongroom serve` is serving; without it, the parts that are needed are started for the time being.
    """
    import asyncio
    import json
    import logging
    import sys

    from rich.console import Console

    from strongroom.assembly import Installation
    from strongroom.kernel.telemetry import configure_logs
    from strongroom.trust import Colour

    configure_logs(level=logging.CRITICAL)
    config = config_for(data_dir, environment or _marked(data_dir), database)
    require_installation(config.data_dir, own_database=database is not None)
    installation = Installation(config)
    installation.start()
    progress = Console(stderr=True, highlight=False)

    async def run() -> Sequence[Verdict]:
        from strongroom import trust

        async with _workbench(installation) as bench:
            with progress.status("Setting up") as status:
                return await trust.prove(
                    bench,
                    only or (),
                    report=lambda promise, verdict: _show(progress, status.update, promise, verdict),
                )

    try:
        verdicts = asyncio.run(run())
    finally:
        installation.stop()
    if as_json:
        typer.echo(json.dumps([verdict.as_data() for verdict in verdicts], indent=2, ensure_ascii=False))
    else:
        Console().print(table_of(verdicts, datetime.now().astimezone()))
    if any(verdict.colour is Colour.RED for verdict in verdicts):
        sys.exit(1)


async def prove_app(app: App, only: Sequence[str] = (), report: Report | None = None) -> Sequence[Verdict]:
    """Check the promises of an installation that is being served at its configured ports. `app` is open."""
    from strongroom import trust
    from strongroom.cli.workbenches import attached

    async with attached(app) as bench:
        return await trust.prove(bench, only, report=report or (lambda promise, verdict: None))


def table_of(verdicts: Sequence[Verdict], now: datetime) -> Table:
    """The verdicts, for people."""
    from rich.table import Table
    from rich.text import Text

    from strongroom.trust import describe_age

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("Id", "Verdict", "Age"):
        table.add_column(column, no_wrap=True)
    table.add_column("Promise, and the figure that shows it")
    for verdict in verdicts:
        age = verdict.age(now)
        said = Text(verdict.promise, "dim" if age is None else "bold")
        if age is not None:
            said.append(f"\n{verdict.figure}", "not bold red" if verdict.colour.value == "red" else "not bold")
        table.add_row(
            verdict.id,
            Text(verdict.colour.value, _STYLES[verdict.colour.value]),
            "" if age is None else describe_age(age),
            said,
        )
    counted = {colour: sum(verdict.colour.value == colour for verdict in verdicts) for colour in _STYLES}
    table.caption = ", ".join(f"{count} {colour}" for colour, count in counted.items())
    table.caption_justify = "left"
    return table


@asynccontextmanager
async def _workbench(installation: Installation) -> AsyncIterator[Workbench]:
    from strongroom.cli.workbenches import attached, find_served, served_here

    served = find_served(installation)
    if served is None:
        async with served_here(installation) as bench:
            yield bench
        return
    app = served.app(connections=4)
    await app.open()
    try:
        async with attached(app) as bench:
            yield bench
    finally:
        await app.close()


def _show(console: object, say: Callable[[str], None], promise: Promise, verdict: Verdict | None) -> None:
    from rich.console import Console
    from rich.text import Text

    if verdict is None:
        say(f"{promise.id}  {promise.sentence}")
    elif isinstance(console, Console) and console.is_terminal:
        line = Text(f"{verdict.id:6} ")
        line.append(f"{verdict.colour.value:7} ", _STYLES[verdict.colour.value])
        line.append(verdict.figure)
        console.print(line)


def _marked(data_dir: Path | None) -> Environment:
    """The environment that a folder is marked with; the sandbox where nothing is marked."""
    marker = (data_dir or default_data_dir(Environment.SANDBOX)) / "environment"
    return Environment(marker.read_text().strip()) if marker.exists() else Environment.SANDBOX


def require_installation(data_dir: Path, *, own_database: bool) -> None:
    """Looking at a folder where nothing is would make a new installation. Raises errors.NotFound."""
    from strongroom.kernel.errors import Failure, NotFound

    if not own_database and not (data_dir / "environment").exists():
        raise NotFound(
            Failure(
                "INSTALLATION_NOT_FOUND",
                "There is no installation in {path}. Start one with `strongroom serve`, or give its --data-dir.",
                {"path": str(data_dir)},
            )
        )
