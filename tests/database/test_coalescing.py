"""Coalesced writes: one commit for many, and to each its own verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from strongroom.database import Coalescer, coalescing
from strongroom.kernel.errors import AlreadyExists, Broken, Collided, Failure, StrongroomError, Unavailable


class Ledger:
    """Writes numbers, when it is let; remembers the batches that were committed."""

    def __init__(self) -> None:
        self.committed: list[tuple[str, list[int]]] = []
        self.tried: list[list[int]] = []
        self.poison: dict[int, Exception] = {}
        self.refused: dict[int, StrongroomError] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.takes_s = 0.0

    async def write(self, group: str, numbers: Sequence[int]) -> Sequence[int | StrongroomError]:
        self.tried.append(list(numbers))
        await self.gate.wait()
        await asyncio.sleep(self.takes_s)
        for number in numbers:
            if number in self.poison:
                raise self.poison[number]
        self.committed.append((group, [number for number in numbers if number not in self.refused]))
        return [self.refused.get(number, number * 10) for number in numbers]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def coalescer(ledger: Ledger) -> Coalescer[str, int, int]:
    return Coalescer(ledger.write, max_batch=4)


def already() -> AlreadyExists:
    return AlreadyExists(Failure("THERE", "It is there."))


async def test_what_comes_together_is_written_together(ledger: Ledger, coalescer: Coalescer[str, int, int]) -> None:
    ledger.gate.clear()
    first = asyncio.create_task(coalescer.submit("a", 0))
    await asyncio.sleep(0.01)
    rest = [asyncio.create_task(coalescer.submit("a", number)) for number in range(1, 8)]
    await asyncio.sleep(0.01)
    assert ledger.tried == [[0]], "one batch at a time"
    assert not first.done(), "nobody is answered before the commit"
    ledger.gate.set()
    assert await asyncio.gather(first, *rest) == [number * 10 for number in range(8)]
    assert ledger.committed == [("a", [0]), ("a", [1, 2, 3, 4]), ("a", [5, 6, 7])]


async def test_callers_who_come_back_are_waited_for(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "LONGEST_GATHERING_S", 10)
    ledger.takes_s = 0.1
    coalescer: Coalescer[str, int, int] = Coalescer(ledger.write)
    answers = 0

    async def client(number: int) -> None:
        nonlocal answers
        for _ in range(4):
            await coalescer.submit("a", number)
            answers += 1
            await asyncio.sleep(0)  # its next request is on its way for a moment

    ledger.gate.clear()
    clients = [asyncio.create_task(client(0))]
    await asyncio.sleep(0.01)
    clients += [asyncio.create_task(client(number)) for number in (1, 2, 3)]
    await asyncio.sleep(0.05)
    ledger.gate.set()
    await asyncio.gather(*clients)
    sizes = [len(numbers) for _, numbers in ledger.committed]
    assert answers == 16
    assert sizes[:4] == [1, 4, 4, 4], "the first was alone; after it they keep together"


async def test_who_does_not_come_back_is_not_waited_for_long(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "LONGEST_GATHERING_S", 0.02)
    coalescer: Coalescer[str, int, int] = Coalescer(ledger.write)
    ledger.gate.clear()
    first = [asyncio.create_task(coalescer.submit("a", number)) for number in (0, 1)]
    await asyncio.sleep(0.05)
    late = asyncio.create_task(coalescer.submit("a", 2))
    await asyncio.sleep(0)
    ledger.gate.set()
    assert await asyncio.wait_for(asyncio.gather(*first, late), timeout=20) == [0, 10, 20]
    assert ledger.committed == [("a", [0, 1]), ("a", [2])]


async def test_groups_go_side_by_side(ledger: Ledger, coalescer: Coalescer[str, int, int]) -> None:
    ledger.gate.clear()
    tasks = [asyncio.create_task(coalescer.submit(group, 1)) for group in "ab"]
    await asyncio.sleep(0.01)
    assert ledger.tried == [[1], [1]]
    ledger.gate.set()
    await asyncio.gather(*tasks)
    assert sorted(ledger.committed) == [("a", [1]), ("b", [1])]


async def test_each_gets_its_own_verdict(ledger: Ledger, coalescer: Coalescer[str, int, int]) -> None:
    ledger.refused[2] = already()
    verdicts = await asyncio.gather(*(coalescer.submit("a", number) for number in range(4)), return_exceptions=True)
    assert verdicts == [0, 10, ledger.refused[2], 30]
    assert ledger.committed == [("a", [0, 1, 3])]


@pytest.mark.parametrize(
    "poison",
    [
        ValueError("unexpected"),
        Broken(Failure("ENVELOPE_BROKEN", "It was altered.")),
        Collided(Failure("CHANGED_MEANWHILE", "It has gone.")),
    ],
)
async def test_nobody_pays_for_a_neighbour(
    ledger: Ledger, coalescer: Coalescer[str, int, int], poison: Exception
) -> None:
    ledger.poison[2] = poison
    verdicts = await asyncio.gather(*(coalescer.submit("a", number) for number in range(4)), return_exceptions=True)
    assert verdicts == [0, 10, poison, 30]
    assert ledger.tried == [[0, 1, 2, 3], [0], [1], [2], [3]]
    assert await coalescer.submit("a", 5) == 50, "and it goes on"


async def test_what_is_meant_for_all_is_not_tried_again(ledger: Ledger, coalescer: Coalescer[str, int, int]) -> None:
    away = Unavailable(Failure("OUTCOME_UNKNOWN", "It may or may not have been made."))
    ledger.poison[2] = away
    verdicts = await asyncio.gather(*(coalescer.submit("a", number) for number in range(4)), return_exceptions=True)
    assert verdicts == [away] * 4
    assert ledger.tried == [[0, 1, 2, 3]]


async def test_a_caller_who_leaves_takes_nobody_along(ledger: Ledger, coalescer: Coalescer[str, int, int]) -> None:
    ledger.gate.clear()
    tasks = [asyncio.create_task(coalescer.submit("a", number)) for number in range(3)]
    await asyncio.sleep(0.01)
    tasks[1].cancel()
    await asyncio.sleep(0.01)
    ledger.gate.set()
    assert await asyncio.gather(tasks[0], tasks[2]) == [0, 20]
    assert tasks[1].cancelled()
    assert ledger.committed == [("a", [0, 1, 2])], "what was on its way is written"


async def test_too_many_are_turned_away(
    ledger: Ledger, coalescer: Coalescer[str, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coalescing, "MAX_WAITING", 3)
    ledger.gate.clear()
    tasks = [asyncio.create_task(coalescer.submit("a", number)) for number in range(3)]
    await asyncio.sleep(0.01)
    with pytest.raises(Unavailable) as refused:
        await coalescer.submit("b", 9)
    assert refused.value.code == "TOO_BUSY"
    ledger.gate.set()
    assert await asyncio.gather(*tasks) == [0, 10, 20]
    assert await coalescer.submit("b", 9) == 90, "room again"


async def test_when_the_work_is_stopped_nobody_waits_for_ever(
    ledger: Ledger, coalescer: Coalescer[str, int, int]
) -> None:
    ledger.gate.clear()
    tasks = [asyncio.create_task(coalescer.submit("a", number)) for number in range(6)]
    await asyncio.sleep(0.01)
    [work] = [task for task in asyncio.all_tasks() if task.get_coro().__qualname__ == "Coalescer._work"]
    work.cancel()
    verdicts = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), timeout=5)
    assert all(isinstance(verdict, asyncio.CancelledError) for verdict in verdicts)
    ledger.gate.set()
    assert await coalescer.submit("a", 7) == 70
