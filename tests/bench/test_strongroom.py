"""The bench in small, on the real thing: an installation is served, set up through its API, filled and read."""

import asyncio
import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import workload
from bench.bill import GENERATOR, REST, Bill
from bench.bulk import fill
from bench.failure import BenchError
from bench.sealing import measure_keys
from bench.target import API_PROCESSES, Target, start_strongroom
from tests.fixtures.platform import lay_out


@pytest.fixture(scope="module")
def data(passable: Path) -> Path:
    lay_out(passable / "strongroom")
    return passable / "strongroom"


@pytest.fixture(scope="module")
def target(data: Path) -> Iterator[Target]:
    with start_strongroom(data) as started:
        yield started


def read(target: Target, order_ref: str) -> int:
    with target.connection() as connection:
        connection.request("GET", f"{workload.CREATE_PATH}/{order_ref}", headers=dict(target.authorise()))
        return connection.getresponse().status


def test_the_timed_request_is_accepted_and_the_order_is_there(target: Target) -> None:
    headers = {"Content-Type": "application/json", **target.authorise()}
    with target.connection() as connection:
        connection.request("POST", workload.CREATE_PATH, next(workload.lines("one", range(7, 8))), headers)
        answer = connection.getresponse()

    assert answer.status == http.HTTPStatus.ACCEPTED
    assert read(target, workload.order_ref("one", 7)) == http.HTTPStatus.OK


def test_bulk_stores_every_line_and_refuses_to_count_lines_that_were_refused(target: Target) -> None:
    filled = fill(target, run="bulk", count=301)

    assert filled.instructions == 301
    assert filled.rate == pytest.approx(301 / filled.seconds)
    assert [read(target, workload.order_ref("bulk", number)) for number in (1, 300, 301, 302)] == [200, 200, 200, 400]
    with pytest.raises(BenchError, match="didn't go through whole"):
        fill(target, run="bulk", count=301)


def test_every_process_is_found_once_and_its_cost_counted(target: Target) -> None:
    parts = target.parts()
    processes = [process.pid for members in parts.values() for process in members]

    assert len(processes) == len(set(processes))
    assert len(parts["api"]) >= API_PROCESSES
    assert all(process.name() == "postgres" for process in parts["database"])

    bill = Bill(target)
    with bill.running():
        fill(target, run="cost", count=2_000)
    spent = bill.microseconds_each(2_000)

    assert set(spent) == {*parts, GENERATOR, REST}
    assert spent["api"] > 0
    assert spent["database"] > 0


def test_keys_are_rotated(data: Path, target: Target) -> None:
    fill(target, run="keys", count=200)
    with_one, with_both, rewrapped, reencrypted = asyncio.run(measure_keys(data, 0.9))
    assert min(with_one, with_both) > 10
    assert rewrapped > 1
    assert reencrypted > 50
