"""Any process may be killed at any moment: nothing acknowledged is lost, and money moves once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from tests.fixtures.platform import Server, public_folder
from tests.processes.campaign import Campaign, Figures, all_up, left_behind, make_payer


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
        assert left_behind(made) == []


async def campaign(
    server: Server, *, kills: int, instructions: int, every_s: float, patience_s: float, hurry: bool
) -> Figures:
    run = Campaign(server, await make_payer(server), seed=kills)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run.send(instructions, over_s=kills * every_s))
        tasks.create_task(run.kill(kills, lambda chance: min(chance.expovariate(1 / every_s), 4 * every_s)))
    await all_up(server)
    await run.settle(patience_s, hurry=hurry)
    return await run.count()


def verify(figures: Figures, instructions: int) -> None:
    assert (figures.sent, figures.acknowledged) == (instructions, instructions)
    assert figures.lost == []
    assert figures.doubled == []
    assert figures.unended == []
    assert figures.wrong == []
    assert figures.contradictions == 0
    assert figures.executed + figures.refused == instructions


async def test_parts_are_killed_under_load(server: Server) -> None:
    """Every kind of process once."""
    figures = await campaign(server, kills=6, instructions=300, every_s=2.5, patience_s=60, hurry=True)
    verify(figures, 300)
    assert figures.kills.total() == 6


@pytest.mark.soak
async def test_two_hundred_kills_during_ten_thousand_instructions(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = await campaign(server, kills=200, instructions=10_000, every_s=3.0, patience_s=900, hurry=False)
    with capsys.disabled():
        sys.stdout.write(f"\n{figures}\n")
    verify(figures, 10_000)
    assert figures.slow == 0
    assert figures.kills.total() == 200
