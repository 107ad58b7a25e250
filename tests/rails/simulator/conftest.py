"""One simulator for most tests; one of its own for each test that kills it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.rails.simulator.process import SimulatorProcess


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> AsyncIterator[SimulatorProcess]:
    """Up and running; shared, so tests look only at references of their own."""
    process = SimulatorProcess(tmp_path_factory.mktemp("simulator"), authority)
    try:
        await process.start()
        yield process
    finally:
        process.end()


@pytest.fixture
def mortal(tmp_path: Path, authority: Authority) -> Iterator[SimulatorProcess]:
    """Not started yet; for tests that kill it or look at everything in its books."""
    process = SimulatorProcess(tmp_path, authority)
    try:
        yield process
    finally:
        process.end()
