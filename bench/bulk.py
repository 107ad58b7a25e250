"""Orders in bulk: NDJSON streamed to the bulk route, until the last line has its verdict."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, repeat

from bench import workload
from bench.bill import Bill
from bench.failure import BenchError
from bench.target import Target

CONNECTIONS = 2
UPLOAD_LINES = 25_000
"""An upload's instructions. They are made before the clock runs, so this bounds the memory that they take."""
_BLOCK_LINES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What came of it, and the CPU microseconds that each instruction cost, by part of the system."""

    instructions: int
    seconds: float
    cpu_us: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Instructions a second, end to end."""
        return self.instructions / self.seconds


def fill(target: Target, *, run: str, count: int, per_order: int = 1) -> Filled:
    """Store `count` instructions, `per_order` in each order, over two connections.

    Time counts while uploads are under way.

    Raises:
        BenchError: an upload was refused, or one of its lines.
    """
    seconds, bill = 0.0, Bill(target)
    with ExitStack() as stack:
        connections = [stack.enter_context(target.connection()) for _ in range(CONNECTIONS)]
        threads = stack.enter_context(ThreadPoolExecutor(CONNECTIONS))
        orders, at_once = count // per_order, CONNECTIONS * UPLOAD_LINES // per_order
        for first in range(1, orders + 1, at_once):
            numbers = range(first, min(first + at_once, orders + 1))
            shares = [_blocks(run, numbers[turn::CONNECTIONS], per_order) for turn in range(CONNECTIONS)]
            headers = {**target.authorise(), "Content-Type": "application/x-ndjson"}
            with bill.running():
                began = time.monotonic()
                accepted = sum(threads.map(_upload, connections, repeat(headers), shares))
                seconds += time.monotonic() - began
            if accepted != len(numbers):
                raise BenchError(f"{len(numbers)} lines were sent in bulk, and {accepted} accepted")
    return Filled(instructions=count, seconds=seconds, cpu_us=bill.microseconds_each(count))


def _blocks(run: str, numbers: range, per_order: int) -> list[bytes]:
    lines = workload.lines(run, numbers, per_order)
    return list(iter(lambda: b"".join(islice(lines, max(1, _BLOCK_LINES // per_order))), b""))


def _upload(connection: http.client.HTTPSConnection, headers: Mapping[str, str], blocks: Iterable[bytes]) -> int:
    try:
        connection.request("POST", workload.BULK_PATH, body=blocks, headers=dict(headers))
        answer = connection.getresponse()
        said = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"a bulk upload was cut off: {error!r}") from error
    if answer.status != http.HTTPStatus.ACCEPTED:
        raise BenchError(f"a bulk upload was answered {answer.status}: {said[:500].decode(errors='replace')}")
    job: dict[str, object] = json.loads(said)
    if job["status"] != "COMPLETED" or job["refused"] != 0:
        raise BenchError(f"a bulk upload didn't go through whole: {said[:500].decode(errors='replace')}")
    return int(str(job["accepted"]))
