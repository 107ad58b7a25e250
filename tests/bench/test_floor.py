"""The floor is taken on a real server, and a report that can't be relied on is refused."""

from pathlib import Path

import psutil
import pytest

from bench import floor
from bench.failure import BenchError
from bench.target import database_processes

REPORT = "number of transactions actually processed: 100\ntps = 812.5 (without initial connection time)\n"


def test_the_floor_is_what_pgbench_reaches_on_the_embedded_server(passable: Path) -> None:
    with floor.server(passable / "floor") as database:
        reached = floor.measure(database, seconds=3)
        stored = int(database.run("psql", "-At", "-c", "select count(*) from floor").stdout)
        indexes = database.run("psql", "-At", "-c", "select count(*) from pg_indexes where tablename = 'floor'").stdout
        durable = database.run("psql", "-At", "-c", "select current_setting('synchronous_commit')").stdout
        backends = database_processes(database.data)

    # The three seconds include connecting, the figure doesn't.
    assert 0.9 * stored < 3 * reached < 10 * stored
    assert int(indexes) == 2
    assert durable.strip() == "on"
    # Orphans stay on the list until the first process has taken note of them.
    assert not psutil.wait_procs(backends, timeout=30)[1]


def test_a_report_is_read() -> None:
    assert floor.transactions_per_second(REPORT) == 812.5


@pytest.mark.parametrize("report", ["", REPORT + "pgbench: error: client 3 aborted in command 1", "tps = many"])
def test_a_report_without_a_figure_to_rely_on_is_refused(report: str) -> None:
    with pytest.raises(BenchError, match="no figure"):
        floor.transactions_per_second(report)
