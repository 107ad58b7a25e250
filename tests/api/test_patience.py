"""Waiting with a limit: who waits too long is told, and nobody else."""

from __future__ import annotations

import asyncio

import pytest

from strongroom.api.patience import Patience


async def test_what_comes_in_time_is_given() -> None:
    patience, now = Patience(), asyncio.get_running_loop().time()
    assert await patience.wait(asyncio.sleep(0, "here"), now + 60) == "here"


async def test_what_does_not_come_is_given_up_and_others_wait_on() -> None:
    patience, now = Patience(), asyncio.get_running_loop().time()
    lasting, brief = asyncio.Event(), asyncio.Event()
    other = asyncio.create_task(patience.wait(lasting.wait(), now + 60))
    await asyncio.sleep(0)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await patience.wait(brief.wait(), now + 0.02)
    assert not other.done()
    lasting.set()
    assert await other


async def test_each_waits_until_its_own_time() -> None:
    patience, now = Patience(), asyncio.get_running_loop().time()
    never = asyncio.Event()
    order: list[int] = []

    async def wait(number: int) -> None:
        with pytest.raises(TimeoutError):
            await patience.wait(never.wait(), now + number / 20)
        order.append(number)

    await asyncio.wait_for(asyncio.gather(*(wait(number) for number in (3, 1, 2))), timeout=20)
    assert order == [1, 2, 3]


async def test_who_is_cancelled_by_somebody_else_is_cancelled() -> None:
    patience, now = Patience(), asyncio.get_running_loop().time()
    waiting = asyncio.create_task(patience.wait(asyncio.Event().wait(), now + 60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
