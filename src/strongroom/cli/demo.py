"""`strongroom demo`: an insurer's day, from the claims system's export to the reconciled statement."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Final

import typer

from strongroom.cli.run import carry_out
from strongroom.cli.settings import AsJson, DataDir, default_data_dir
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Failure, Refused

MARK: Final = "this-is-a-demo"
"""The file by which a demo's folder is known, so that no other is ever emptied."""
CLAIMS: Final = Path(__file__).parents[3] / "examples" / "claims.csv"


def demo(
    data_dir: DataDir = None,
    file: Annotated[Path, typer.Option("--file", help="The claims system's export.", show_default=False)] = CLAIMS,
    keep: Annotated[
        bool, typer.Option("--keep", help="Go on with what the last demo left instead of beginning anew.")
    ] = False,
    prove: Annotated[bool, typer.Option("--prove/--no-prove", help="Whether to check the promises at the end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Take a thousand lines of a claims system through the API, over two rails, and back from the bank.

    In a folder of its own, emptied before. Exit status 1 when the figures don't add up, or a promise is broken.
    """
    from strongroom.cli.payment_file import PaymentFile

    folder = (data_dir or default_data_dir(Environment.SANDBOX).with_name("demo")).resolve()
    source = PaymentFile(file)
    make_folder(folder, keep=keep)
    carry_out(folder, source, folder / f"{file.stem}-refused.csv", with_break=True, with_proof=prove, as_json=as_json)


def make_folder(folder: Path, *, keep: bool) -> None:
    """An empty folder with the mark, or the one of the last demo.

    Raises errors.Refused (`NOT_A_DEMO`) when there is something else in it, and errors.Refused (`DEMO_RUNNING`) while
    somebody uses its database.
    """
    mark = folder / MARK
    if folder.exists() and any(folder.iterdir()):
        if not mark.exists():
            raise Refused(
                Failure(
                    "NOT_A_DEMO",
                    "{path} holds something that no demo made, so it isn't emptied. Give another --data-dir.",
                    {"path": str(folder)},
                )
            )
        if not keep:
            _stop_what_a_crash_left(folder)
            shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    mark.touch()


def _stop_what_a_crash_left(folder: Path) -> None:
    """The database outlives a demo that was killed."""
    from strongroom.assembly import Installation
    from strongroom.kernel.config import Config

    server = Installation(Config(data_dir=folder)).server if (folder / "keys").exists() else None
    if server is None or not server.alive:
        return
    server.start()
    server.stop()
    if server.alive:
        raise Refused(
            Failure(
                "DEMO_RUNNING",
                "The database in {path} is in use: by another demo, or by `strongroom serve`. Stop that first, give "
                "another --data-dir, or go on beside it with --keep.",
                {"path": str(folder)},
            )
        )
