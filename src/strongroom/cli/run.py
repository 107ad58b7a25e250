"""`strongroom run FILE`: one's own payments file, all the way, in rehearsal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.settings import DataDir

if TYPE_CHECKING:
    from strongroom.cli.payment_file import PaymentFile


def run(
    file: Annotated[
        Path,
        typer.Argument(
            help="Instructions as CSV (UTF-8; comma, semicolon, tab or bar; the columns of docs/run.md), or pain.001.",
        ),
    ],
    data_dir: DataDir = None,
    refused: Annotated[
        Path | None,
        typer.Option("--refused", help="Where refused lines are written. [default: FILE-refused.csv beside it]"),
    ] = None,
) -> None:
    """Rehearse a payments file: send it through the API, over two rails, and back from a simulated bank.

    Exit status 1 when something is wrong with the file as a whole, or when the figures don't add up.
    """
    from strongroom.cli.payment_file import PaymentFile

    source = PaymentFile(file)
    refused_file = refused or file.with_name(f"{file.stem}-refused.csv")
    rehearse_and_exit(data_dir, source, refused_file)


def rehearse_and_exit(
    data_dir: Path | None, file: PaymentFile, refused_file: Path, *, with_break: bool = False
) -> None:
    """Rehearse a file; exit status 1 when the figures don't add up."""
    import logging

    import uvloop
    from rich.console import Console

    from strongroom.cli.rehearsal import rehearse
    from strongroom.cli.report import WIDTH
    from strongroom.kernel.telemetry import configure_logs

    configure_logs(level=logging.ERROR)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    # What was refused holds people's names and accounts.
    refused_file.unlink(missing_ok=True)
    refused_file.touch(mode=0o600)
    report = uvloop.run(rehearse(data_dir, file, refused_file, console, with_break=with_break))
    if not report.sent.refused:
        refused_file.unlink()
    if report.differences():
        raise typer.Exit(1)
