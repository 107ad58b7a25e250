"""Write coalescing: requests that come together are written together.

While one database transaction is under way, new work for the same group waits and then goes out as one batch: many
requests share one commit, and each still gets its own verdict, and only after the commit. After a batch its clients
have a moment to come back: otherwise those who were answered and those who waited would take turns for ever, in batches
of half the size. When a whole batch fails on
something unexpected, its members are run again one by one, so that nobody pays for a neighbour; what is raised on
purpose (the database is away, the key was revoked) is every member's answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar

import structlog

from strongroom.kernel.errors import Broken, Collided, Failure, StrongroomError, Unavailable

log = structlog.get_logger(__name__)

MAX_BATCH: Final = 128
GATHER_S: Final = 0.002
"""How long, after a batch, the next one waits for as many as were just answered."""
MAX_WAITING: Final = 10_000
"""More than this many requests waiting in one process are turned away at once."""

K = TypeVar("K", bound=Hashable)
C = TypeVar("C")
R = TypeVar("R")


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
        try:
            while queue.items:
                batch = queue.items[: self._max_batch]
                del queue.items[: self._max_batch]
                await self._settle(group, batch)
                await queue.gather(min(len(batch) + len(queue.items), self._max_batch))
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


class _Queue(Generic[C, R]):
    """What waits in one group."""

    def __init__(self) -> None:
        self.items: list[tuple[C, asyncio.Future[R]]] = []
        self._wanted = 0
        self._enough: asyncio.Future[None] | None = None

    def add(self, command: C, future: asyncio.Future[R]) -> None:
        """Let a command wait."""
        self.items.append((command, future))
        if self._enough is not None and len(self.items) >= self._wanted and not self._enough.done():
            self._enough.set_result(None)

    async def gather(self, wanted: int) -> None:
        """Wait until so many wait, or GATHER_S have passed."""
        if len(self.items) >= wanted:
            return
        loop = asyncio.get_running_loop()
        self._wanted, self._enough = wanted, loop.create_future()
        timer = loop.call_later(GATHER_S, _resolve, self._enough, None)
        try:
            await self._enough
        finally:
            timer.cancel()
            self._enough = None


def _resolve(future: asyncio.Future[R], result: R | BaseException) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
