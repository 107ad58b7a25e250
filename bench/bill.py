"""What a measurement costs in CPU time, by part of the system."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

from bench.processes import cpu_s
from bench.target import Target

GENERATOR = "load generator"
REST = "everything else"


class Bill:
    """CPU time spent while it was running, on the target's own parts, on us (the load generator), and on the rest.

    The rest is what else kept the machine's cores busy: interrupts, the kernel's own threads, other people's programs.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._spent: dict[str, float] = {}
        self._busy_s = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what is spent inside the block."""
        before, busy_before = self._by_part(), _machine_busy_s()
        yield
        self._busy_s += _machine_busy_s() - busy_before
        for part, seconds in self._by_part().items():
            self._spent[part] = self._spent.get(part, 0.0) + seconds - before[part]

    def microseconds_each(self, count: int) -> Mapping[str, float]:
        """CPU microseconds for each of so many orders, by part."""
        rest = max(0.0, self._busy_s - sum(self._spent.values()))
        return {part: seconds / count * 1e6 for part, seconds in {**self._spent, REST: rest}.items()}

    def _by_part(self) -> dict[str, float]:
        parts = {part: cpu_s(processes) for part, processes in self._target.parts().items()}
        ours = os.times()
        return {**parts, GENERATOR: ours.user + ours.system + ours.children_user + ours.children_system}


def _machine_busy_s() -> float:
    # Linux counts guests' time in user time as well.
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice
