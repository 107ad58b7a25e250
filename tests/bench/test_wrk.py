"""The load generator at work. It needs `wrk`, which `make test` doesn't."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.failure import BenchError
from bench.load import create_orders
from bench.measure import create
from bench.target import Target, start_strongroom

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def target(passable: Path) -> Iterator[Target]:
    with start_strongroom(passable / "loaded") as started:
        yield started


def test_a_run_is_acknowledged_and_read_back(target: Target) -> None:
    run = create(target, name="free", connections=8, seconds=2)

    assert run.load.rate > 0
    assert 0 < run.load.p50_ms <= run.load.p99_ms <= run.load.max_ms
    assert run.cpu_us["api"] > 0


def test_a_paced_run_keeps_its_timetable(target: Target) -> None:
    run = create(target, name="paced", connections=8, seconds=4, rate=50)

    assert run.load.rate == pytest.approx(50, rel=0.1)


def test_refusals_void_a_run(target: Target) -> None:
    create(target, name="twice", connections=2, seconds=1)

    with pytest.raises(BenchError, match="not every request"):
        create_orders(target.base_url, target.authorise(), run="twice", connections=2, seconds=1)


def test_a_target_that_is_not_there_is_no_figure(target: Target) -> None:
    with pytest.raises(BenchError, match="no report"):
        create_orders("https://127.0.0.1:1", target.authorise(), run="nobody", connections=2, seconds=1)
