"""A simulator, a process whose time tests turn on, and a tenant that pays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from strongroom.assembly import App
from strongroom.kernel.clock import ManualClock
from tests.certificates import Authority
from tests.fixtures.platform import Client, Platform
from tests.payments.paying import Payer
from tests.rails.simulator.process import SimulatorProcess


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> AsyncIterator[SimulatorProcess]:
    """Up and running; shared, so tests look only at instructions of their own."""
    process = SimulatorProcess(tmp_path_factory.mktemp("simulator"), authority)
    try:
        await process.start()
        yield process
    finally:
        process.end()


@pytest.fixture
def mortal(tmp_path: Path, authority: Authority) -> Iterator[SimulatorProcess]:
    """Not started yet; for tests that start and kill it."""
    process = SimulatorProcess(tmp_path, authority)
    try:
        yield process
    finally:
        process.end()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.fixture
async def process(platform: Platform, clock: ManualClock) -> AsyncIterator[App]:
    """A process of the common installation that lives by `clock`."""
    async with platform.another_process(clock) as other:
        yield other.app


@pytest.fixture
async def payer(process: App, tenant: Client, simulator: SimulatorProcess, tmp_path: Path) -> Payer:
    """A tenant that pays through the shared simulator."""
    return await Payer.make(process, tenant, simulator, tmp_path / "outbox")
