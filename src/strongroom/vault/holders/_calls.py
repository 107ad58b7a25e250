"""Calls that block, in threads of their own, with a time limit.

The threads belong to one holder, so that one which hangs takes nobody else's. They are daemons: a call that never
returns doesn't keep a process from ending.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from strongroom.vault.holders.contract import KeyUnavailable, Reason

T = TypeVar("T")
MAX_WAITING: Final = 100
"""Calls that wait for a thread; more are refused at once."""


class Calls:
    """A few threads that make calls for one holder. Belongs to one event loop."""

    def __init__(self, holder: str, *, threads: int, limit_s: float) -> None:
        self._holder = holder
        self._limit_s = limit_s
        self._threads = threads
        self._started = 0
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._given_up: set[Future[Any]] = set()
        """Calls that nobody waits for any more, and that a thread is still in."""
        self._is_closed = False

    async def call(self, function: Callable[[], T]) -> T:
        """What the function returns or raises.

        Raises KeyUnavailable: `SLOW` after the limit, and at once while every thread hangs in an earlier call.
        """
        if self._is_closed:
            raise KeyUnavailable(self._holder, Reason.AWAY, "it is closed")
        if len(self._given_up) >= self._threads:
            raise KeyUnavailable(self._holder, Reason.SLOW, "earlier calls haven't come back")
        if self._jobs.qsize() >= MAX_WAITING:
            raise KeyUnavailable(self._holder, Reason.SLOW, "too many calls wait for it")
        if self._started < self._threads:
            self._started += 1
            threading.Thread(target=self._work, name=f"holder {self._holder}", daemon=True).start()
        future: Future[T] = Future()
        self._jobs.put((future, function))
        try:
            async with asyncio.timeout(self._limit_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            with self._lock:
                if future.running():
                    self._given_up.add(future)
            raise KeyUnavailable(self._holder, Reason.SLOW) from None

    def close(self) -> None:
        """End the threads as soon as they are done. Calls that wait are not made any more."""
        self._is_closed = True
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function = job
            if self._is_closed or not future.set_running_or_notify_cancel():
                future.cancel()
                continue
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            with self._lock:
                self._given_up.discard(future)
