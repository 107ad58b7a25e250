"""Files from the bank, dropped into a folder: nothing is lost, nothing is taken in twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from strongroom.assembly import App, Installation
from strongroom.kernel.config import Config
from strongroom.reconciliation import import_inbox
from strongroom.reconciliation.contents import Sum
from strongroom.reconciliation.statements import MAX_REPORT_BYTES
from tests.fixtures.platform import Client
from tests.reconciliation.bank import FOREIGN, OWN, BankWorld, Paid, entry, execution, statement, status_report


def drop(bank: BankWorld, name: str, content: bytes, *, age_s: float = 60) -> Path:
    bank.inbox.mkdir(parents=True, exist_ok=True)
    path = bank.inbox / name
    path.write_bytes(content)
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def lying(bank: BankWorld) -> list[str]:
    return sorted(str(path.relative_to(bank.inbox)) for path in bank.inbox.rglob("*") if path.is_file())


def reason(bank: BankWorld, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bank.inbox / "refused" / f"{name}.reason.json").read_text())
    return found


@pytest.fixture
async def paid(bank: BankWorld) -> Paid:
    [made] = await bank.pay(("Ada Lovelace", 5_000))
    return made


async def test_what_is_taken_in_is_put_away(bank: BankWorld, paid: Paid) -> None:
    document = statement(execution(paid))
    drop(bank, "day.xml", document)
    [result] = await bank.sweep()
    assert (result.tenant_id, result.name, result.failures) == (bank.tenant, "day.xml", ())
    assert [part.content.matched for part in result.imported] == [Sum(1, 5_000, 0)]
    assert lying(bank) == ["done/day.xml"]
    assert result.path.read_bytes() == document
    assert (await bank.states())[paid.reference] == ("SUCCESS", "COMPLETED")
    assert await bank.sweep() == []


async def test_an_inbox_that_is_not_there_is_empty(bank: BankWorld) -> None:
    assert await bank.sweep() == []


async def test_what_is_refused_is_put_away_with_the_reason(bank: BankWorld, paid: Paid) -> None:
    broken = statement(execution(paid), error=1)
    drop(bank, "broken.xml", broken)
    drop(bank, "other.xml", statement(entry(1), iban=FOREIGN))
    drop(bank, "cut.xml", statement(execution(paid))[:-40])
    drop(bank, "what.xml", b"hello")
    results = {result.name: [failure.code for failure in result.failures] for result in await bank.sweep()}
    assert results == {
        "broken.xml": ["STATEMENT_BALANCE_BROKEN"],
        "other.xml": ["STATEMENT_OF_ANOTHER_ACCOUNT"],
        "cut.xml": ["STATEMENT_MALFORMED"],
        "what.xml": ["REPORT_NOT_RECOGNISED"],
    }
    assert reason(bank, "broken.xml")["errors"][0]["errorCode"] == "STATEMENT_BALANCE_BROKEN"
    assert "ask the bank" in reason(bank, "broken.xml")["errors"][0]["message"]
    assert (bank.inbox / "refused" / "broken.xml").read_bytes() == broken
    assert await bank.stored() == (0, 0)
    assert await bank.sweep() == []


async def test_reasons_hold_nothing_of_what_the_file_says(bank: BankWorld) -> None:
    drop(bank, "other.xml", statement(entry(123_456), iban=FOREIGN, name="Erika Mustermann"))
    await bank.sweep()
    written = (bank.inbox / "refused" / "other.xml.reason.json").read_text()
    assert not [secret for secret in (FOREIGN, OWN, "Erika", "1234.56") if secret in written]


async def test_a_file_that_is_too_large_is_not_even_read(bank: BankWorld) -> None:
    path = drop(bank, "large.xml", b"")
    with path.open("wb") as file:
        file.truncate(MAX_REPORT_BYTES + 1)
    [result] = await bank.sweep()
    assert [failure.code for failure in result.failures] == ["REPORT_TOO_LARGE"]
    assert lying(bank) == ["refused/large.xml", "refused/large.xml.reason.json"]


async def test_a_file_that_is_still_being_written_waits(bank: BankWorld, paid: Paid) -> None:
    whole = statement(execution(paid))
    path = drop(bank, "day.xml", whole[: len(whole) // 2], age_s=0)
    with path.open("ab") as file:
        assert await bank.sweep() == []
        file.write(whole[len(whole) // 2 :])
    [result] = await bank.sweep()
    assert result.failures == ()
    assert lying(bank) == ["done/day.xml"]


async def test_hidden_files_and_other_names_and_links_are_left_alone(bank: BankWorld, tmp_path: Path) -> None:
    for name in (".day.xml.tmp", ".day.xml", "day.xml.partial", "note.txt"):
        drop(bank, name, statement(entry(1)))
    outside = tmp_path / "elsewhere"
    outside.write_bytes(statement(entry(1)))
    (bank.inbox / "link.xml").symlink_to(outside)
    assert await bank.sweep() == []
    assert lying(bank) == [".day.xml", ".day.xml.tmp", "day.xml.partial", "link.xml", "note.txt"]


async def test_folders_of_nobody_are_left_alone(bank: BankWorld) -> None:
    for name in ("not-a-tenant", "00000000-0000-4000-8000-000000000000"):
        folder = bank.files / "inbox" / name
        folder.mkdir(parents=True)
        (folder / "day.xml").write_bytes(statement(entry(1)))
    drop(bank, "day.xml", statement(entry(1)))
    assert [result.tenant_id for result in await bank.sweep()] == [bank.tenant]
    assert len(list((bank.files / "inbox").glob("*/day.xml"))) == 2


async def test_every_tenant_has_its_own(bank: BankWorld, app: App, account: Client) -> None:
    other = await BankWorld.open(app, await account.new_tenant(region="ch"), bank.files, iban=FOREIGN, bic="ABNANL2A")
    drop(bank, "day.xml", statement(entry(1)))
    drop(other, "day.xml", statement(entry(2), iban=FOREIGN))
    assert {result.tenant_id for result in await bank.sweep()} == {bank.tenant, other.tenant}
    assert await bank.stored() == await other.stored() == (1, 1)


async def test_one_name_twice_keeps_both_files(bank: BankWorld) -> None:
    for sequence in (1, 2):
        drop(bank, "day.xml", statement(name=f"S-{sequence}", sequence=sequence))
        assert len(await bank.sweep()) == 1
    drop(bank, "day.xml", statement(name="S-2", sequence=2))
    [again] = await bank.sweep()
    assert [part.is_new for part in again.imported] == [False]
    assert lying(bank) == ["done/day.2.xml", "done/day.3.xml", "done/day.xml"]


async def test_rejections_are_read_before_the_batch_that_they_are_missing_from(bank: BankWorld) -> None:
    good, bad = await bank.pay(("Ada Lovelace", 1_000), ("Ben Franklin", 2_000))
    batch = f"{good.file_id.hex}001"
    drop(bank, "1.xml", statement(entry(1_000, batches=[("", batch)])), age_s=120)
    drop(bank, "2.xml", status_report(bad.file_id.hex, (batch, bad.reference, "RJCT", "AC04"), group="PART"), age_s=60)
    results = await bank.sweep()
    assert [result.name for result in results] == ["2.xml", "1.xml"]
    states = await bank.states()
    assert (states[good.reference][0], states[bad.reference][0]) == ("SUCCESS", "FAILED")


async def test_statements_are_read_in_the_order_in_which_they_came(bank: BankWorld) -> None:
    drop(bank, "a.xml", statement(name="S-2", sequence=2), age_s=10)
    drop(bank, "b.xml", statement(name="S-1", sequence=1), age_s=20)
    results = await bank.sweep()
    assert [result.name for result in results] == ["b.xml", "a.xml"]
    assert [part.content.remarks for result in results for part in result.imported] == [[], []]


async def test_sweeps_at_the_same_time_take_in_once(bank: BankWorld, paid: Paid) -> None:
    for sequence in range(1, 9):
        lines = [execution(paid)] if sequence == 1 else []
        drop(bank, f"{sequence}.xml", statement(*lines, name=f"S-{sequence}", sequence=sequence))
    await asyncio.gather(*(bank.sweep() for _ in range(4)))
    assert await bank.stored() == (8, 1)
    assert {name.partition("/")[0] for name in lying(bank)} == {"done"}
    assert {(bank.inbox / name).read_bytes() for name in lying(bank)} >= {statement(execution(paid))}


@pytest.mark.parametrize("place", ["taken/day.xml", "taken/day.xml and day.xml", "done/day.xml and taken/day.xml"])
async def test_a_sweep_that_died_is_taken_up_where_it_stopped(bank: BankWorld, paid: Paid, place: str) -> None:
    document = statement(execution(paid))
    if "done" in place:
        await bank.take_in(document)
    first, *second = [bank.inbox / name for name in place.split(" and ")]
    first.parent.mkdir(parents=True)
    first.write_bytes(document)
    for path in second:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(first, path)

    [result] = await bank.sweep()

    assert result.failures == ()
    assert lying(bank) == ["done/day.xml"]
    assert await bank.stored() == (1, 1)
    assert (await bank.states())[paid.reference] == ("SUCCESS", "COMPLETED")


async def test_a_disk_that_refuses_leaves_the_file_for_later(bank: BankWorld, paid: Paid) -> None:
    drop(bank, "day.xml", statement(execution(paid)))
    (bank.inbox / "done").write_text("in the way")
    assert await bank.sweep() == []
    assert lying(bank) == ["done", "taken/day.xml"]
    (bank.inbox / "done").unlink()
    [result] = await bank.sweep()
    assert [part.is_new for part in result.imported] == [False]
    assert lying(bank) == ["done/day.xml"]
    assert await bank.stored() == (1, 1)


async def test_a_file_that_meets_damaged_rows_waits_and_holds_up_nothing_else(bank: BankWorld, paid: Paid) -> None:
    drop(bank, "1.xml", statement(execution(paid)), age_s=90)
    drop(bank, "2.xml", statement(entry(1), name="S-2", sequence=2), age_s=60)
    async with bank.operation() as op:
        row = await op.row("select sealed from transactions where transaction_id = %s", paid.transaction_id)
        assert row is not None
        await op.run("update transactions set sealed = 'x' where transaction_id = %s", paid.transaction_id)
    assert [result.name for result in await bank.sweep()] == ["2.xml"]
    assert lying(bank) == ["done/2.xml", "taken/1.xml"]
    async with bank.operation() as op:
        await op.run("update transactions set sealed = %s where transaction_id = %s", row[0], paid.transaction_id)
    assert [result.name for result in await bank.sweep()] == ["1.xml"]
    assert await bank.stored() == (2, 2)


SWEEPER = """
import asyncio, sys
from pathlib import Path
from strongroom.assembly import Installation
from strongroom.kernel.config import Config
from strongroom.reconciliation import import_inbox

async def sweep():
    app = Installation(Config(data_dir=Path(sys.argv[1]))).app(connections=2)
    await app.open()
    print("open", flush=True)
    while True:
        await import_inbox(app.databases, Path(sys.argv[2]))

asyncio.run(sweep())
"""


async def test_killed_at_any_moment_nothing_is_lost_or_doubled(bank: BankWorld, installation: Installation) -> None:
    payments = await bank.pay(*(("Ada Lovelace", minor) for minor in range(1, 61)))
    waiting = [
        (f"{number}.xml", statement(*(execution(paid) for paid in chunk), name=f"S-{number}", sequence=number))
        for number, chunk in enumerate((payments[start : start + 5] for start in range(0, 60, 5)), start=1)
    ]
    for pause_s in (0.0, 0.03, 0.1):
        sweeper = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            SWEEPER,
            str(installation.config.data_dir),
            str(bank.files),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert sweeper.stdout is not None
            assert await sweeper.stdout.readline() == b"open\n"
            for name, document in waiting[:4]:
                drop(bank, name, document)
            del waiting[:4]
            await asyncio.sleep(pause_s)
        finally:
            sweeper.send_signal(signal.SIGKILL)
            await sweeper.wait()
    await bank.sweep()
    assert await bank.stored() == (12, 60)
    summary = await bank.summary()
    assert (summary.matched, summary.open_breaks) == (Sum(60, sum(range(1, 61)), 0), Sum())
    assert {name.partition("/")[0] for name in lying(bank)} == {"done"}
    for paid in payments:
        assert await bank.events(paid) == [("PROCESSING", ""), ("COMPLETED", "")]


async def test_while_the_database_is_away_files_wait(bank: BankWorld, installation: Installation) -> None:
    drop(bank, "day.xml", statement(entry(1)))
    elsewhere = Installation(Config(data_dir=installation.config.data_dir)).app(connections=1)
    assert await import_inbox(elsewhere.databases, bank.files) == []
    assert lying(bank) in (["day.xml"], ["taken/day.xml"])
    assert len(await bank.sweep()) == 1
