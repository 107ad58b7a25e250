"""Write coalescing: requests that come together are written together.

While one database transaction is under way, new work for the same group waits and then goes out as one batch: many
requests share one commit, and each still gets its own verdict, and only after the commit. Clients that have got their
answer often ask again at once. So what waits by then stays a moment longer, until as many have come as there were
before, but no longer than the last batch took: otherwise callers fall apart into two halves, of which each waits for
the other's transaction, and twice as many transactions are needed. A caller who is alone never waits. When a whole
batch fails on something unexpected, its members are run again one by one, so that nobody pays for a neighbour; what is
raised on purpose (the database is away, the key was revoked) is every member's answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar

import structlog

from strongroom.kernel.errors import Broken, Collided, Failure, StrongroomError, Unavailable

log = structlog.get_logger(__name__)

MAX_BATCH: Final = 128
MAX_WAITING: Final = 10_000
"""More than this many requests waiting in one process are turned away at once."""
LONGEST_GATHERING_S: Final = 0.005
"""A batch waits no longer than this for callers to come back."""

K = TypeVar("K", bound=Hashable)
C = TypeVar("C")
R = TypeVar("R")


class _Queue(Generic[C, R]):
    """What waits in one group, and how many it may be gathering for."""

    def __init__(self) -> None:
        self.items: list[tuple[C, asyncio.Future[R]]] = []
        self._enough = 0
        self._gathered: asyncio.Future[None] | None = None

    def add(self, command: C, future: asyncio.Future[R]) -> None:
        self.items.append((command, future))
        if self._gathered is not None and len(self.items) >= self._enough:
            _release(self._gathered)

    def take(self, most: int) -> list[tuple[C, asyncio.Future[R]]]:
        taken = self.items[:most]
        del self.items[:most]
        return taken

    async def gather(self, enough: int, longest_s: float) -> None:
        """Return when so many wait, or after so many seconds."""
        if len(self.items) >= enough:
            return
        loop = asyncio.get_running_loop()
        self._enough, self._gathered = enough, loop.create_future()
        timer = loop.call_later(longest_s, _release, self._gathered)
        try:
            await self._gathered
        finally:
            timer.cancel()
            self._gathered = None


class Coalescer(Generic[K, C, R]):
    """Runs commands in batches, one batch of a group at a time.

    `run` gets the group and its commands and returns, in order, a result or the error for each. What it raises means
    that nothing was written (or that the outcome is unknown, and says so).
    """

    def __init__(
        self, run: Callable[[K, Sequence[C]], Awaitable[Sequence[R | StrongroomError]]], *, max_batch: int = MAX_BATCH
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._waiting: dict[K, _Queue[C, R]] = {}
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, group: K, command: C) -> R:
        """The command's own result, after its batch has been committed.

        Raises what the command's verdict is, or errors.Unavailable (`TOO_BUSY`) when too much is waiting already.
        """
        if self._count >= MAX_WAITING:
            raise Unavailable(
                Failure("TOO_BUSY", "Too many requests are waiting; nothing was changed. Try again in a moment.")
            )
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        queue = self._waiting.get(group)
        if queue is None:
            queue = self._waiting[group] = _Queue()
            task = asyncio.create_task(self._work(group, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        queue.add(command, future)
        self._count += 1
        try:
            return await future
        finally:
            self._count -= 1

    async def _work(self, group: K, queue: _Queue[C, R]) -> None:
        loop = asyncio.get_running_loop()
        try:
            while batch := queue.take(self._max_batch):
                began_s = loop.time()
                await self._settle(group, batch)
                callers = len(batch) + len(queue.items)
                if callers > 1:
                    took_s = loop.time() - began_s
                    await queue.gather(min(callers, self._max_batch), min(took_s, LONGEST_GATHERING_S))
        finally:
            del self._waiting[group]
            for _, future in queue.items:
                future.cancel()

    async def _settle(self, group: K, batch: list[tuple[C, asyncio.Future[R]]]) -> None:
        try:
            results = await self._run(group, [command for command, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:
            on_purpose = isinstance(error, StrongroomError) and not isinstance(error, Broken | Collided)
            if on_purpose or len(batch) == 1:
                for _, future in batch:
                    _resolve(future, error)
                return
            log.warning("coalescing.split", size=len(batch), error=type(error).__name__)
            for item in batch:
                await self._settle(group, [item])
        else:
            for (_, future), result in zip(batch, results, strict=True):
                _resolve(future, result)


def _release(gathered: asyncio.Future[None]) -> None:
    if not gathered.done():
        gathered.set_result(None)


def _resolve(future: asyncio.Future[R], result: R | BaseException) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
