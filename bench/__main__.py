"""`make bench`: take every figure in one run, print them, and write `bench.json`."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import structlog
from rich.console import Console

from bench import machine
from bench.failure import BenchError
from bench.findings import FULL, QUICK, take
from bench.load import require_wrk
from bench.report import costs, print_costs, print_rows, rows, write_json
from strongroom.kernel.errors import StrongroomError

_PAPER_WIDTH = 132


def main() -> int:
    """Run the command line; 0 when every figure could be taken, whether or not the goals are reached."""
    options = _command_line()
    plan = QUICK if options.quick else FULL
    console = Console(width=None if sys.stdout.isatty() else _PAPER_WIDTH)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    options.json.unlink(missing_ok=True)
    try:
        require_wrk()
        machine.require_disk(options.directory)
        console.print(machine.describe(options.directory), highlight=False, soft_wrap=True)
        with tempfile.TemporaryDirectory(prefix="strongroom-bench-", dir=options.directory) as folder:
            # The database server may run as another user, who has to pass through.
            Path(folder).chmod(0o711)
            found = take(plan, Path(folder), say=lambda text: console.print(f"  {text}", style="dim", highlight=False))
    except (BenchError, StrongroomError) as error:
        complaints = Console(stderr=True, highlight=False, soft_wrap=True)
        complaints.print(f"bench stopped: {error}", style="red", markup=False)
        return 1
    print_rows(rows(found, plan), console)
    print_costs(found, console)
    write_json([*rows(found, plan), *costs(found, plan)], options.json)
    return 0


def _command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measure strongroom against the floor of its machine.")
    parser.add_argument("--quick", action="store_true", help="shorter runs, fewer stored orders; the names say so")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="a folder on a disk, for the throw-away databases (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="what to write (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
