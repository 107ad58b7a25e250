"""Waiting with a limit, for many at a time.

`asyncio.timeout` sets a timer of the event loop and takes it off again, which costs as much as a tenth of all that a
request does. Here waiters only write down until when they wait, and one timer is set for the first of them: as long as
everybody gets what they wait for, it goes off once in a limit's time, for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


class Patience:
    """Waits, in one event loop."""

    def __init__(self) -> None:
        self._until_s: dict[asyncio.Task[Any], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0

    async def wait(self, awaited: Awaitable[T], until_s: float) -> T:
        """What is awaited. `until_s` is by the event loop's clock.

        Raises TimeoutError when it isn't there by then; what was awaited has been cancelled.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # coroutines run in tasks
        cancelled_before = task.cancelling()
        self._until_s[task] = until_s
        if self._timer is None or until_s < self._due_s:
            self._set_timer(until_s)
        try:
            return await awaited
        except asyncio.CancelledError:
            if task in self._until_s or task.uncancel() > cancelled_before:
                raise  # somebody else cancelled us
            raise TimeoutError from None
        finally:
            self._until_s.pop(task, None)

    def _set_timer(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due_s = due_s
        self._timer = asyncio.get_running_loop().call_at(due_s, self._look)

    def _look(self) -> None:
        """Cancel those whose time is over, and look again when the next one's will be."""
        self._timer = None
        now_s = asyncio.get_running_loop().time()
        for task, until_s in list(self._until_s.items()):
            if until_s <= now_s:
                del self._until_s[task]
                task.cancel()
        if self._until_s:
            self._set_timer(min(self._until_s.values()))
