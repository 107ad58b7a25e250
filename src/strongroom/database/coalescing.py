"""Write coalescing: requests that come together are written together.

While one database transaction is under way, new work for the same group waits and then goes out as one batch: many
requests share one commit, and each still gets its own verdict, and only after the commit. When a whole batch fails on
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
        self._waiting: dict[K, list[tuple[C, asyncio.Future[R]]]] = {}
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
            queue = self._waiting[group] = []
            task = asyncio.create_task(self._work(group, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        queue.append((command, future))
        self._count += 1
        try:
            return await future
        finally:
            self._count -= 1

    async def _work(self, group: K, queue: list[tuple[C, asyncio.Future[R]]]) -> None:
        try:
            while queue:
                batch = queue[: self._max_batch]
                del queue[: self._max_batch]
                await self._settle(group, batch)
        finally:
            del self._waiting[group]
            for _, future in queue:
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


def _resolve(future: asyncio.Future[R], result: R | BaseException) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
