"""One run: load on a target, what came of it, what it cost, and whether what was acknowledged is there."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass

from bench import workload
from bench.bill import Bill
from bench.failure import BenchError
from bench.load import Load, create_orders
from bench.target import Target

WARM_UP_S = 3
SAMPLE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run reached, and the CPU microseconds that each order cost, by part of the system."""

    load: Load
    cpu_us: Mapping[str, float]


def create(target: Target, *, name: str, connections: int, seconds: int, rate: float | None = None) -> Run:
    """Warm the target up, load it (with `rate`: at that many requests a second), and read a sample back.

    Raises:
        BenchError: an answer was no success, there were hardly any, or an acknowledged order isn't there.
    """
    headers, bill = target.authorise(), Bill(target)
    create_orders(target.base_url, headers, run=f"{name}-warm", connections=connections, seconds=WARM_UP_S)
    with bill.running():
        load = create_orders(target.base_url, headers, run=name, connections=connections, seconds=seconds, rate=rate)
    if load.requests <= connections:
        raise BenchError(f"{name}: {load.requests} answers in {seconds} seconds are too few for a figure")
    _read_sample(target, headers, name=name, created=load.requests - connections)
    return Run(load=load, cpu_us=bill.microseconds_each(load.requests))


def _read_sample(target: Target, headers: Mapping[str, str], *, name: str, created: int) -> None:
    # wrk throws its first request away, and those under way at the end have no answer.
    with target.connection() as connection:
        for number in range(2, created, max(1, created // SAMPLE)):
            ref = workload.order_ref(name, number)
            connection.request("GET", f"{workload.CREATE_PATH}/{ref}", headers=dict(headers))
            answer = connection.getresponse()
            answer.read()
            if answer.status != http.HTTPStatus.OK:
                raise BenchError(f"order {ref} was acknowledged, but reading it answers {answer.status}")
