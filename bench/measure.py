"""One run: load on a target, what came of it, what it cost, and whether what was acknowledged is there."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from bench import workload
from bench.failure import BenchError
from bench.load import Load, create_orders
from bench.processes import cpu_s
from bench.target import Target

WARM_UP_S = 2
SAMPLE = 20

_MACHINE = "the whole machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run reached, and the CPU microseconds that each answered request cost, by part of the system.

    The parts are the target's own, `load generator`, and `everything else` that kept the machine's cores busy
    meanwhile: the kernel outside of any process, and whatever else runs here.
    """

    load: Load
    cpu_us: Mapping[str, float]


def create(target: Target, *, name: str, connections: int, seconds: int, rate: float | None = None) -> Run:
    """Warm the target up, load it (with `rate`: at that many requests a second), and read a sample back.

    Raises:
        BenchError: an answer was no success, or an acknowledged order isn't there.
    """
    headers = target.authorise()
    create_orders(target.base_url, headers, run=f"{name}-warm", connections=connections, seconds=WARM_UP_S)
    before = _spent(target)
    load = create_orders(target.base_url, headers, run=name, connections=connections, seconds=seconds, rate=rate)
    spent = {part: used - before[part] for part, used in _spent(target).items()}
    spent["load generator"] = load.cpu_s
    spent["everything else"] = max(0.0, spent.pop(_MACHINE) - sum(spent.values()))
    _check_sample(target, headers, name=name, created=load.requests - connections)
    return Run(load=load, cpu_us={part: used / load.requests * 1e6 for part, used in spent.items()})


def _spent(target: Target) -> dict[str, float]:
    machine = psutil.cpu_times()
    busy = sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice
    return {_MACHINE: busy} | {part: cpu_s(processes) for part, processes in target.parts().items()}


def _check_sample(target: Target, headers: Mapping[str, str], *, name: str, created: int) -> None:
    # wrk throws its first request away, and those under way at the end have no answer.
    step = max(1, created // SAMPLE)
    with target.connection() as connection:
        for number in range(2, created, step):
            ref = workload.order_ref(name, number)
            status = _read(connection, f"{workload.CREATE_PATH}/{ref}", headers)
            if status != http.HTTPStatus.OK:
                raise BenchError(f"order {ref} was acknowledged, but reading it answers {status}")


def _read(connection: http.client.HTTPSConnection, path: str, headers: Mapping[str, str]) -> int:
    connection.request("GET", path, headers=dict(headers))
    answer = connection.getresponse()
    answer.read()
    return answer.status
