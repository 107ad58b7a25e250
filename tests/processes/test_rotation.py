"""Keys are rotated while everything goes on: killed in the middle, without room on the disk, under load."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from strongroom.assembly import App
from strongroom.kernel.actors import operator, system
from strongroom.kernel.errors import Unavailable
from strongroom.kernel.ids import AccountId, TenantId, new_uuid
from strongroom.tenancy import create_tenant, find_account, plan_tenant, register_tenant
from strongroom.trust.sealed_fields import read_fields
from strongroom.vault import Layer, Scope, Work, ensure_keys, renew_scope_keys
from strongroom.vault.envelopes import version_of
from tests.fixtures.platform import Server, public_folder
from tests.processes.campaign import ORDERS, Payer, left_behind, make_payer
from tests.processes.disks import fill_disk, small_disk
from tests.processes.held_keys import CUSTOMER, Told, due_today, installation_of, opened, scope_of

FAR_OFF = "2099-12-31"
FIELDS_A_LINE = 4
"""An instruction, a customer, and both parts of an account."""
LINES_AT_ONCE = 5_000
TENANTS_AT_ONCE = 4
"""Made at the same time."""
DATA_KEYS_EACH = 4
"""A tenant's, in both layers: for sealing twice, for ids, and for look-ups."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of its own."""
    with public_folder() as folder:
        made = Server(folder, "--processes", "2")
        try:
            made.start()
            yield made
        finally:
            made.stop()
        assert left_behind(made) == []


async def fill(payer: Payer, fields: int) -> None:
    """So many sealed fields, by bulk: payments that are not due for long, each to a customer of its own."""
    for first in range(0, fields // FIELDS_A_LINE, LINES_AT_ONCE):
        lines = [
            {
                "orderRef": f"bulk-{number // 100}",
                "instructionRef": str(number),
                "customerRef": f"C-{number}",
                "direction": "CREDIT",
                "amount": "12.34",
                "currency": "EUR",
                "country": "DE",
                "settledByDate": FAR_OFF,
                "bankAccount": {"accountHolder": f"Ada {number}", "iban": "DE89370400440532013000", "country": "DE"},
            }
            for number in range(first, min(first + LINES_AT_ONCE, fields // FIELDS_A_LINE))
        ]
        content = b"\n".join(json.dumps(line).encode() for line in lines)
        job = await payer.caller.done("POST", f"{ORDERS}/bulk", content=content, media="application/x-ndjson")
        while job["status"] not in {"COMPLETED", "FAILED"}:
            await asyncio.sleep(0.2)
            job = await payer.caller.done("GET", f"{ORDERS}/bulk/{job['jobId']}")
        assert (job["accepted"], job["refused"]) == (len(lines), 0)


async def traffic(payer: Payer, stop: asyncio.Event) -> Told:
    """Orders, changes and reads of sensitive fields, one after the other, until told to stop."""
    told, number = Told(), 0
    while not stop.is_set():
        number += 1
        await told.ask(payer, "POST", ORDERS, due_today(payer, f"during-{number}"))
        await told.ask(payer, "PUT", CUSTOMER, {"note": str(number)})
        await told.ask(payer, "GET", CUSTOMER)
    return told


async def killed_in_the_middle(server: Server, payer: Payer, after: int) -> list[str]:
    """Let a process do the rotation, and kill it (SIGKILL) when it has sealed so many fields; what it said."""
    command = [
        sys.executable, "-m", "tests.processes.rotating",
        str(server.data_dir), payer.caller.account_id, str(payer.tenant),
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said: list[str] = []
    assert process.stdout is not None
    while line := (await process.stdout.readline()).decode():
        said.append(line)
        if int(line.split(" ")[2]) >= after:
            process.kill()
            break
    assert await process.wait() == -9
    return said


def memory(server: Server) -> str:
    """The most resident memory (VmHWM of proc_pid_status(5)) of the process that rotates, and of the server's
    largest."""
    peaks = []
    for process in (psutil.Process(), *server.family()):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peaks.append(int(line.split()[1]) / 1024)
    return f"{peaks[0]:.0f} MiB here, {max(peaks[1:]):.0f} MiB in the server's largest process"


async def versions(app: App, payer: Payer) -> Counter[int]:
    """Versions of the data keys of the platform's layer that the tenant's fields (a sample) are under."""
    async with app.operation(system("test"), tenant=payer.tenant) as op:
        fields = await read_fields(op)
        assert {field.refusal(op.cipher) for field in fields} == {""}
    return Counter(version_of(field.envelope) for field in fields)


async def reencrypt(server: Server, *, fields: int) -> tuple[Work, float, Told]:
    """Re-encrypt a tenant's fields under load, killed on the way; the work, seconds after the kill, and what load was
    told."""
    payer = await make_payer(server)
    await payer.caller.done("PUT", CUSTOMER, {"note": "0"})
    await fill(payer, fields)
    stop = asyncio.Event()
    told = asyncio.create_task(traffic(payer, stop))
    async with opened(installation_of(server)) as app:
        await app.key_desk.rotate_data_key(operator(), scope_of(payer), Layer.PLATFORM)
        said = await killed_in_the_middle(server, payer, fields // 3)
        steps: list[Work] = []
        began = time.monotonic()
        work = await app.key_desk.tend(scope_of(payer), (), steps.append)
        took_s = time.monotonic() - began
        stop.set()
        assert work is not None
        assert work.is_done
        # It went on from there: what was done before is not done again.
        assert steps[0].done >= fields // 3
        assert said[-1].endswith("False\n")
        assert [step.done for step in steps] == sorted(step.done for step in steps)
        assert work.done >= fields
        assert set(await versions(app, payer)) == {2}
    return work, took_s, await told


async def test_five_thousand_fields_under_load_killed_in_the_middle(server: Server) -> None:
    _, _, told = await reencrypt(server, fields=5_000)
    assert set(told.statuses) == {"202", "200"}


@pytest.mark.soak
async def test_a_million_fields(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    work, took_s, told = await reencrypt(server, fields=1_000_000)
    with capsys.disabled():
        sys.stdout.write(f"\n{work.done:,} fields, {took_s:.0f} s after the kill; {told}; {memory(server)}\n")
    assert "503" not in " ".join(told.statuses)


async def rewrap(server: Server, *, data_keys: int) -> float:
    """Put a new scope key in the place of every tenant's, in both layers, of so many data keys; how many in a
    second."""
    payer = await make_payer(server)
    await payer.caller.done("PUT", CUSTOMER, {"note": "0"})
    account = AccountId(UUID(payer.caller.account_id))
    async with opened(installation_of(server)) as app:
        slots = asyncio.Semaphore(TENANTS_AT_ONCE)

        async def another(number: int) -> Scope:
            async with slots:
                return Scope(account=account, tenant=await new_tenant(app, account, number))

        others = await asyncio.gather(*(another(number) for number in range(data_keys // DATA_KEYS_EACH - 1)))
        scopes, before = [scope_of(payer), *others], datetime.now(UTC)
        stop = asyncio.Event()
        told = asyncio.create_task(traffic(payer, stop))
        renewed, began = [], time.monotonic()
        for layer in Layer:
            renewed.append(await renew_scope_keys(app.databases, app.keyring, operator(), layer, scopes, before=before))
        took_s = time.monotonic() - began
        stop.set()
        done = sum(each.data_keys for each in renewed)
        assert done == len(scopes) * DATA_KEYS_EACH
        assert [(each.scope_keys, each.left) for each in renewed] == [(len(scopes), 0)] * len(Layer)
    assert not [said for said in (await told).statuses if not said.startswith("20")]
    return done / took_s


async def new_tenant(app: App, account: AccountId, number: int) -> TenantId:
    """Another tenant of the account, as the API makes them, without asking how many its license allows."""
    tenant_id = TenantId(new_uuid())
    operation = partial(app.operation, operator(), account=account, tenant=tenant_id, region="eu")
    await ensure_keys(app.keyring, operation)
    async with app.operation(operator(), account=account) as op:
        owner = await find_account(op)
    assert owner is not None
    async with operation() as op:
        tenant = plan_tenant(op, owner, name=f"Claims {number}", address=None, in_use=0)
        await create_tenant(op, tenant)
    await register_tenant(app.databases, tenant)
    return tenant_id


async def test_data_keys_of_fifty_tenants_under_load(server: Server) -> None:
    assert await rewrap(server, data_keys=200) > 0


@pytest.mark.soak
async def test_a_hundred_thousand_data_keys(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    rate = await rewrap(server, data_keys=100_000)
    with capsys.disabled():
        sys.stdout.write(f"\n{rate:,.0f} data keys rewrapped a second; {memory(server)}\n")


if os.geteuid() == 0:  # nobody else may mount a small disk

    @pytest.fixture
    def cramped() -> Iterator[Server]:
        """A server whose disk is small."""
        with public_folder() as folder, small_disk(folder):
            made = Server(folder, "--processes", "1")
            try:
                made.start()
                yield made
            finally:
                made.stop()

    async def test_a_disk_that_fills_up_stops_it_and_loses_nothing(cramped: Server) -> None:
        payer = await make_payer(cramped)
        await fill(payer, 4_000)
        ballast = cramped.data_dir / "ballast"
        async with opened(installation_of(cramped)) as app:
            await app.key_desk.rotate_data_key(operator(), scope_of(payer), Layer.PLATFORM)
            steps: list[Work] = []

            def full(work: Work) -> None:
                steps.append(work)
                if len(steps) == 3:
                    fill_disk(ballast)

            for _ in range(2):
                with pytest.raises(Unavailable) as refused:
                    await app.key_desk.tend(scope_of(payer), (), full)
                assert refused.value.code == "DATABASE_TAKES_NO_CHANGES"
                assert "Nothing was changed" in str(refused.value)
            stopped_at = steps[-1]
            assert not stopped_at.is_done
            assert set(await versions(app, payer)) == {1, 2}
            ballast.unlink()
            work = await app.key_desk.tend(scope_of(payer), (), steps.append)
            assert work is not None
            assert work.is_done
            assert steps[len(steps) - steps[::-1].index(stopped_at)].done >= stopped_at.done
            assert set(await versions(app, payer)) == {2}
