"""`strongroom run FILE`: one's own payments file, all the way, in rehearsal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.settings import AsJson, DataDir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from strongroom.cli.payment_file import PaymentFile
    from strongroom.cli.rehearsal import Rehearsed
    from strongroom.kernel.config import Config
    from strongroom.trust import Verdict


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
        typer.Option(
            "--refused",
            help="Where refused lines are written. [default: …-refused.csv beside FILE]",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rehearse a payments file: send it through the API, over two rails, and back from a simulated bank.

    Exit status 1 when the file as a whole can't be read, or when the figures don't add up.
    """
    from strongroom.cli.payment_file import PaymentFile

    source = PaymentFile(file)
    carry_out(data_dir, source, refused or file.with_name(f"{file.stem}-refused.csv"), as_json=as_json)


def carry_out(
    data_dir: Path | None,
    file: PaymentFile,
    refused_file: Path,
    *,
    with_break: bool = False,
    with_proof: bool = False,
    as_json: bool = False,
) -> None:
    """Rehearse a file from start to end, and print what became of it; exit status 1 when something isn't right.

    `with_break`: the bank also books a payment that is none of ours. `with_proof`: the promises are checked afterwards,
    while everything is up.
    """
    import json
    import logging
    from datetime import datetime

    import uvloop

    from strongroom.cli.prove import table_of
    from strongroom.cli.report import as_data, show, show_places
    from strongroom.cli.stage import config_on_free_ports
    from strongroom.kernel.telemetry import configure_logs
    from strongroom.trust import Colour

    configure_logs(level=logging.CRITICAL if with_proof else logging.ERROR)
    config = config_on_free_ports(data_dir)
    progress, output = _console(to_stderr=True), _console(to_stderr=False)
    for name in filter(None, file.ignored):
        progress.print(f"The column {name} is not read.", style="yellow", markup=False)
    _make_private(refused_file, file.path)
    done, verdicts = uvloop.run(
        _rehearse(config, file, refused_file, progress, with_break=with_break, with_proof=with_proof)
    )
    report = done.report
    if not report.sent.refused:
        refused_file.unlink()
    places = _places(done, config, refused_file if report.sent.refused else None)
    if as_json:
        data = as_data(report)
        data["promises"] = [verdict.as_data() for verdict in verdicts]
        data["places"] = {name: str(place) for name, place in places.items()}
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        show(report, output)
        if verdicts:
            output.print()
            output.print(table_of(verdicts, datetime.now().astimezone()))
        show_places(output, places)
    if report.differences() or any(verdict.colour is Colour.RED for verdict in verdicts):
        raise typer.Exit(1)


async def _rehearse(
    config: Config, file: PaymentFile, refused_file: Path, progress: Console, *, with_break: bool, with_proof: bool
) -> tuple[Rehearsed, Sequence[Verdict]]:
    from strongroom.cli.prove import prove_app
    from strongroom.cli.rehearsal import rehearse
    from strongroom.cli.stage import staged

    async with staged(config, progress) as app:
        done = await rehearse(app, file, refused_file, progress, with_break=with_break)
        if not with_proof:
            return done, ()
        with progress.status("Proving the promises") as status:
            return done, await prove_app(
                app, report=lambda promise, verdict: status.update(f"Proving {promise.id}: {promise.sentence}")
            )


def _make_private(refused_file: Path, source: Path) -> None:
    """An empty file that only its owner can read: what is refused holds people's names and accounts.

    Raises errors.Refused (`FILE_NOT_WRITABLE`) when it can't be made, or would take the place of what is being sent.
    """
    from strongroom.kernel.errors import Failure, Refused

    why = "it is the file that is to be sent" if refused_file.resolve() == source.resolve() else ""
    if not why:
        try:
            refused_file.unlink(missing_ok=True)
            refused_file.touch(mode=0o600)
        except OSError as error:
            why = error.strerror or type(error).__name__
    if why:
        raise Refused(
            Failure(
                "FILE_NOT_WRITABLE",
                "Refused lines can't be written to {path}: {why}. Give another place with --refused. Nothing was sent.",
                {"path": str(refused_file), "why": why},
            )
        )


def _places(done: Rehearsed, config: Config, refused_file: Path | None) -> dict[str, str | Path]:
    again = (
        f"strongroom serve --data-dir {config.data_dir} --port {config.port} --simulator-port {config.simulator_port}"
    )
    return {
        "Payment files (pain.001)": done.payment_files,
        "The bank's answers (pain.002, camt.053)": done.bank_answers,
        **({"Refused lines, with reasons": refused_file} if refused_file else {}),
        "API (stopped now)": done.url,
        "To start it again, and keep it up": again,
        "CA file": done.ca_file,
        "A key to sign in with (0600)": done.key_file,
    }


def _console(*, to_stderr: bool) -> Console:
    from rich.console import Console

    from strongroom.cli.report import WIDTH

    console = Console(highlight=False, stderr=to_stderr)
    return console if console.is_terminal else Console(highlight=False, stderr=to_stderr, width=WIDTH)
