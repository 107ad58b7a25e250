"""The worker: it stops when told, and forgets what has expired."""

from __future__ import annotations

import asyncio
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
from strongroom.cli.work import unless_stopped
from strongroom.database.housekeeping import IDEMPOTENCY_KEPT, forget_expired
from strongroom.kernel.actors import system
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Failure, Unavailable
from strongroom.vault import Scope
from strongroom.vault import work as vault_work
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


async def test_a_rotation_is_broken_off_when_the_worker_stops_and_goes_on_later(
    platform: Platform, tenant: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told to stop after a few rows of many; what it has done stays done."""
    monkeypatch.setattr(vault_work, "BATCH", 1)
    for number in range(8):
        assert (await tenant.post("/v1/order-management", {"orderRef": f"o-{number}"})).status_code == 201
    path, body = "/v1/tenant/encryption-keys/rotations", {"layer": "platform", "key": "data"}
    rotation = (await tenant.post(path, body)).json()["_links"]["self"]["href"]
    world, stop = World.of(platform.app, tenant), asyncio.Event()
    scope = Scope(account=world.account, tenant=world.tenant)

    async def turn() -> None:
        await platform.app.key_desk.tend(scope, progress=lambda work: stop.set() if work.done >= 3 else None)

    await unless_stopped(stop, turn())
    broken_off = (await tenant.get(rotation)).json()
    assert (broken_off["status"], broken_off["passes"], 3 <= broken_off["done"] < 8) == ("RUNNING", 0, True)
    await unless_stopped(asyncio.Event(), turn())
    ended = (await tenant.get(rotation)).json()
    assert (ended["status"], ended["done"] >= 8) == ("DONE", True)


async def test_what_goes_wrong_in_a_turn_is_told() -> None:
    async def turn() -> None:
        raise Unavailable(Failure("DATABASE_UNAVAILABLE", "It is away."))

    with pytest.raises(Unavailable):
        await unless_stopped(asyncio.Event(), turn())
