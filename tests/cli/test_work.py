"""The worker: it stops when told, and forgets what has expired."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from strongroom.assembly import App
from strongroom.database.housekeeping import IDEMPOTENCY_KEPT, forget_expired
from strongroom.kernel.actors import system
from strongroom.kernel.clock import ManualClock
from tests.fixtures.platform import Client, Platform, public_folder
from tests.payments.world import World

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder / "installation"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told(data_dir: Path, how: signal.Signals) -> None:
    log = data_dir.with_name("work.log")
    with log.open("w") as output:
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "strongroom.cli", "work", "--data-dir", str(data_dir)],
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while "work.started" not in log.read_text():
            assert worker.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        worker.send_signal(how)
        assert worker.wait(STOP_TIMEOUT_S) == 0
    finally:
        worker.kill()
        worker.wait()
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events[-1] == "work.stopped"
    assert not (data_dir / "database" / "data" / "postmaster.pid").exists()


async def _count(app: App, client: Client, table: str) -> int:
    async with World.of(app, client).operation() as op:
        row = await op.row(f"select count(*) from {table}")  # noqa: S608  # a test's own constants
    assert row is not None
    return int(row[0])


async def test_spent_nonces_and_old_idempotency_keys_are_forgotten(platform: Platform, tenant: Client) -> None:
    """What is kept for a day goes after a day, and not before; what it stood for stays."""
    key = {"Idempotency-Key": "once"}
    made = await tenant.post("/v1/order-management", {"orderRef": "kept"}, headers=key)
    assert made.status_code == 201
    app = platform.app
    assert (await _count(app, tenant, "idempotency_keys"), await _count(app, tenant, "nonces")) == (1, 1)
    assert await forget_expired(app.databases, system("test")) == 0
    clock = ManualClock(app.clock.now() + IDEMPOTENCY_KEPT - timedelta(minutes=5))
    async with platform.another_process(clock) as later:
        await forget_expired(later.app.databases, system("test"))
        assert (await _count(app, tenant, "idempotency_keys"), await _count(app, tenant, "nonces")) == (1, 0)
        clock.advance(timedelta(minutes=10))
        assert await forget_expired(later.app.databases, system("test")) >= 1
    assert await _count(app, tenant, "idempotency_keys") == 0
    assert (await tenant.get("/v1/order-management/kept")).status_code == 200
