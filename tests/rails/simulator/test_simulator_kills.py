"""The provider is killed; its books and its word stand."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
from collections import Counter

import pytest

from strongroom.rails.contract import OutcomeKind
from tests.rails.simulator.process import SimulatorProcess, payment


@pytest.mark.parametrize(
    ("word", "after", "times"),
    [("TIMEOUT-AFTER", OutcomeKind.SETTLED, 1), ("TIMEOUT-BEFORE", OutcomeKind.NEVER_RECEIVED, 0)],
)
async def test_killed_within_a_request(mortal: SimulatorProcess, word: str, after: OutcomeKind, times: int) -> None:
    await mortal.start()
    asked = payment(f"SIM:{word}")
    async with mortal.connector() as connector:
        submission = asyncio.create_task(connector.submit(asked))
        await asyncio.sleep(0.5)
        mortal.kill()
        outcome = await submission
        assert (outcome.kind, outcome.reason) == (OutcomeKind.UNCONFIRMED, "OUTBOUND_ANSWER_BROKEN")

        down = await connector.submit(payment())
        assert (down.kind, down.reason) == (OutcomeKind.NOT_SENT, "NOT_SENT")
        assert (await connector.enquire(asked.reference)).kind is OutcomeKind.UNCONFIRMED

        await mortal.start()
        assert (await connector.enquire(asked.reference)).kind is after
        assert Counter(line.reference for line in await connector.executions()) == Counter({asked.reference: times})


async def test_killed_again_and_again_under_load_it_executes_everything_at_most_once(mortal: SimulatorProcess) -> None:
    """What was answered stands, what wasn't is resolved by asking, and nothing is ever executed twice."""
    chance = random.Random(11)
    answered: dict[str, OutcomeKind] = {}
    await mortal.start()
    async with mortal.connector() as connector:
        for _ in range(3):
            batch = [payment() for _ in range(120)]
            calls = [asyncio.create_task(connector.submit(each)) for each in batch]
            await asyncio.sleep(chance.uniform(0.01, 0.25))
            mortal.kill()
            outcomes = await asyncio.gather(*calls)
            await mortal.start()
            for outcome in outcomes:
                resolved = outcome
                if outcome.kind is OutcomeKind.UNCONFIRMED:
                    resolved = await connector.enquire(outcome.reference)
                assert resolved.kind in {OutcomeKind.SETTLED, OutcomeKind.NEVER_RECEIVED, OutcomeKind.NOT_SENT}
                answered[outcome.reference] = resolved.kind
        counts = Counter(line.reference for line in await connector.executions())
    settled = {reference for reference, kind in answered.items() if kind is OutcomeKind.SETTLED}
    assert len(answered) == 360
    assert counts == Counter(settled)


async def test_it_stops_when_told_to_even_with_a_request_open(mortal: SimulatorProcess) -> None:
    await mortal.start()
    async with mortal.connector() as connector:
        submission = asyncio.create_task(connector.submit(payment("SIM:TIMEOUT-AFTER")))
        await asyncio.sleep(0.5)
        assert await asyncio.to_thread(mortal.stop) == 0
        assert (await submission).kind is OutcomeKind.UNCONFIRMED


async def test_what_the_books_say_about_money_can_not_be_changed(mortal: SimulatorProcess) -> None:
    await mortal.start()
    async with mortal.connector() as connector:
        assert (await connector.submit(payment())).kind is OutcomeKind.SETTLED
    books = sqlite3.connect(mortal.books / "books.sqlite")
    try:
        for change in ("update executions set amount = '1.00'", "delete from executions"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                books.execute(change)
    finally:
        books.close()


async def test_the_books_keep_nobodys_name_or_account(mortal: SimulatorProcess) -> None:
    await mortal.start()
    async with mortal.connector() as connector:
        await connector.submit(payment("Claim by Ada"))
    kept = b"".join(file.read_bytes() for file in mortal.books.iterdir())
    assert b"120.50" in kept
    assert not any(word in kept for word in (b"Ada", b"Sample", b"DE89370400440532013000"))


@pytest.mark.parametrize(
    ("mode", "secret", "said"), [(0o644, "x" * 40, "chmod 600"), (0o600, "short", "32 characters")]
)
def test_a_secret_that_is_not_one_is_refused(mortal: SimulatorProcess, mode: int, secret: str, said: str) -> None:
    mortal.secret_file.write_text(secret)
    mortal.secret_file.chmod(mode)
    run = subprocess.run(mortal.command(), capture_output=True, text=True, timeout=20, check=False)
    assert run.returncode == 2
    assert said in run.stderr
    assert secret not in run.stderr
