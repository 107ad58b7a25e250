"""The floor: single-row inserts a second that `pgbench` reaches on the PostgreSQL server that strongroom embeds.

The server is strongroom's own embedded one, in a folder of its own, so that the floor gets the same programs and the
same settings; synchronous commit, fsync and full-page writes are on, as shipped.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.failure import BenchError
from strongroom.database import EmbeddedServer
from strongroom.kernel.secret import Secret

CLIENTS = 32

_TABLE = """
drop table if exists floor;
create table floor (
    id bigint generated always as identity primary key,
    reference bigint not null,
    name text not null,
    made timestamptz not null
);
create index on floor (reference);
"""
_INSERT = """\\set reference random(1, 2000000000)
insert into floor (reference, name, made) values (:reference, 'some reference', now());
"""


@contextmanager
def server(home: Path) -> Iterator[EmbeddedServer]:
    """Run a server in the folder `home` until the end of the block; made there the first time."""
    started = EmbeddedServer(home, _password(home))
    started.start()
    try:
        yield started
    finally:
        started.stop()


def measure(on: EmbeddedServer, *, seconds: int) -> float:
    """Inserts a second: prepared, one row a transaction, into a fresh table with two indexes, by 32 clients.

    Raises:
        BenchError: pgbench lost a client.
        strongroom.kernel.errors.Unavailable: pgbench failed.
    """
    script = on.directory / "floor.sql"
    script.write_text(_INSERT)
    script.chmod(0o644)
    on.run("psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--command", _TABLE)
    load = ("--client", str(CLIENTS), "--jobs", "1", "--time", str(seconds), "--file", str(script))
    return transactions_per_second(on.run("pgbench", "--no-vacuum", "--protocol", "prepared", *load).stdout)


def transactions_per_second(report: str) -> float:
    """The figure in pgbench's report, without the time it took to connect.

    Raises:
        BenchError: there is none, or clients were lost on the way, so that fewer ran than the figure says.
    """
    found = re.search(r"^tps = ([0-9.]+) \(without initial connection time\)$", report, re.MULTILINE)
    if found is None or "aborted" in report:
        raise BenchError(f"pgbench gave no figure to rely on:\n{report}")
    return float(found[1])


def _password(home: Path) -> Secret[str]:
    kept = home.with_suffix(".password")
    if not kept.exists():
        kept.touch(mode=0o600)
        kept.write_text(secrets.token_urlsafe(24))
    return Secret(kept.read_text())
