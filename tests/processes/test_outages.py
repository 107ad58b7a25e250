"""The database goes away, or its disk fills up: refusals are quick and clear, nothing is lost, and nobody restarts
anything by hand."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import psutil
import pytest

from strongroom.assembly import App
from strongroom.database import EmbeddedServer
from strongroom.database.databases import CUT_OFF_WAIT_S, POOL_WAIT_S
from strongroom.database.embedded import RESERVE_BYTES
from tests.fixtures.platform import Client, Platform, Server, public_folder
from tests.processes.campaign import ORDERS, Campaign, Payer, all_up, database_processes, make_payer
from tests.processes.disks import fill_disk, small_disk
from tests.processes.test_kills import verify


def codes(answer: httpx.Response) -> list[str]:
    return [error["errorCode"] for error in answer.json()["errors"]]


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of its own, to be hurt."""
    with public_folder() as folder:
        made = Server(folder, "--processes", "2")
        try:
            made.start()
            yield made
        finally:
            made.stop()


async def send_order(payer: Payer, ref: str) -> tuple[httpx.Response, float]:
    """An order, sent once; the answer, and how many seconds it took."""
    began = time.monotonic()
    answer = await payer.caller.once("POST", ORDERS, b'{"orderRef": "%s", "instructions": []}' % ref.encode())
    assert answer is not None, "no answer"
    return answer, time.monotonic() - began


@asynccontextmanager
async def database_gone(server: Server) -> AsyncIterator[None]:
    """Kill the database, and keep the supervisor from starting it again."""
    supervisor = psutil.Process(server.pid)
    supervisor.suspend()
    try:
        database_processes(server).kill()
        yield
    finally:
        supervisor.resume()


async def test_the_database_is_gone_for_a_while(server: Server) -> None:
    payer = await make_payer(server)
    campaign = Campaign(server, payer, seed=5)
    before = {process.pid for process in server.family()}
    sending = asyncio.create_task(campaign.send(120, over_s=10))
    await asyncio.sleep(1.5)
    async with database_gone(server):
        went = time.monotonic()
        refused = 0
        while time.monotonic() < went + 6:
            answer, took_s = await send_order(payer, f"gone-{refused}")
            if answer.status_code == 503:
                refused += 1
                assert codes(answer)[0] in {"DATABASE_UNAVAILABLE", "OUTCOME_UNKNOWN"}
                assert answer.headers["retry-after"] == "1"
                assert took_s < POOL_WAIT_S + 1
            await asyncio.sleep(0.2)
        assert refused >= 2
        answer, took_s = await send_order(payer, "gone")
        assert (answer.status_code, codes(answer)) == (503, ["DATABASE_UNAVAILABLE"])
        assert took_s < CUT_OFF_WAIT_S + 1  # by now it is known, and nobody is kept waiting
    await all_up(server)
    answer, took_s = await send_order(payer, "back")
    assert answer.status_code == 201
    await sending
    await campaign.settle(60, hurry=True)
    verify(await campaign.count(), 120)
    assert before <= {process.pid for process in server.family()}, "nothing had to be started again"


@asynccontextmanager
async def no_room(app: App, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """More has to be left on the disk than there is."""
    server = app.installation.server
    assert isinstance(server, EmbeddedServer)
    disk = os.statvfs(server.data)
    with monkeypatch.context() as patch:
        patch.setattr("strongroom.database.embedded.RESERVE_BYTES", disk.f_blocks * disk.f_frsize + 1)
        yield


async def test_without_room_changes_are_refused_and_reading_goes_on(
    platform: Platform, tenant: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = {"orderRef": "O-1", "instructions": []}
    assert (await tenant.post(ORDERS, order)).status_code == 201
    async with no_room(platform.app, monkeypatch):
        refusals = [
            await tenant.post(ORDERS, {**order, "orderRef": "O-2"}),
            await tenant.put(f"{ORDERS}/O-1/metadata", {"a": "b"}),
            await tenant.post("/v1/marketplace/apps/simulator/install"),
            await tenant.post(f"{ORDERS}/bulk", content=b"{}", headers={"content-type": "application/x-ndjson"}),
            await tenant.sign_in(),
        ]
        assert [(answer.status_code, codes(answer)) for answer in refusals] == [
            (503, ["DATABASE_TAKES_NO_CHANGES"])
        ] * len(refusals)
        assert (await tenant.get(f"{ORDERS}/O-1")).json()["metadata"] == {}
        assert (await tenant.get("/v1/apps/installed")).status_code == 200
    assert (await tenant.get(f"{ORDERS}/O-2")).status_code == 400
    assert (await tenant.post(ORDERS, {**order, "orderRef": "O-2"})).status_code == 201
    assert (await tenant.sign_in()).status_code == 201


if os.geteuid() == 0:  # nobody else may mount a small disk; the rule itself is tested above

    @pytest.fixture
    def cramped() -> Iterator[Server]:
        """A server whose disk is small."""
        with public_folder() as folder, small_disk(folder):
            made = Server(folder, "--processes", "2")
            try:
                made.start()
                yield made
            finally:
                made.stop()

    async def test_a_disk_that_fills_up_under_load(cramped: Server) -> None:
        payer = await make_payer(cramped)
        campaign = Campaign(cramped, payer, seed=6)
        database = database_processes(cramped)
        sending = asyncio.create_task(campaign.send(150, over_s=12))
        await asyncio.sleep(2)
        assert (await send_order(payer, "before"))[0].status_code == 201

        ballast = cramped.data_dir / "ballast"
        await asyncio.to_thread(fill_disk, ballast, leaving=RESERVE_BYTES // 2)
        answer, took_s = await send_order(payer, "nearly-full")
        assert (answer.status_code, codes(answer)) == (503, ["DATABASE_TAKES_NO_CHANGES"])
        assert took_s < 2
        await asyncio.to_thread(fill_disk, ballast)
        for _ in range(10):
            answer, took_s = await send_order(payer, "full")
            assert (answer.status_code, codes(answer)) == (503, ["DATABASE_TAKES_NO_CHANGES"])
            read = await payer.caller.once("GET", f"{ORDERS}/before")
            assert read is not None
            assert read.status_code == 200
            await asyncio.sleep(0.3)

        ballast.unlink()
        answer, _ = await send_order(payer, "after")
        assert answer.status_code == 201
        await sending
        await campaign.settle(60, hurry=True)
        verify(await campaign.count(), 150)
        assert database.is_running(), "it went on all the time"
