"""Taking the figures: which runs there are, on what, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from bench import floor, lookup, tokens
from bench.bulk import Filled, fill
from bench.failure import BenchError
from bench.lookup import LookedUp
from bench.measure import Run, create
from bench.processes import resident_mib
from bench.sealing import Sealing, measure_fields, measure_keys, measure_scopes
from bench.target import Target, start_ordinary, start_strongroom
from bench.tokens import TokenRates

FEW_CONNECTIONS = 32
MANY_CONNECTIONS = 128
ROUNDS = 3
HELD = 0.95
"""The share of a timetable's rate that has to be reached for its latencies to mean anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured: seconds for a run, and the instructions stored when two rates are compared."""

    label: str
    seconds: int
    few: int
    many: int
    bulk: int


PER_ORDER = 100
"""Instructions in an order of the bulk row, as a batch of claims would be sent."""
FULL = Plan(label="", seconds=10, few=10_000, many=1_000_000, bulk=100_000)
QUICK = Plan(label=" (quick)", seconds=5, few=1_000, many=20_000, bulk=20_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything that was measured, not yet set against goals.

    `floors`, `created` (by number of connections) and `batches` have an entry for each turn.
    """

    floors: Sequence[float]
    ordinary: Run
    created: Mapping[int, Sequence[Run]]
    at_half_load: Run
    batches: Sequence[Filled]
    bulk: Filled
    rate_with_few: float
    rate_with_many: float
    lookups_few: LookedUp
    lookups_many: LookedUp
    tokens: TokenRates
    rss_mib: float
    pss_mib: float
    sealing: Sealing


def take(plan: Plan, folder: Path, *, say: Callable[[str], None]) -> Findings:
    """Measure everything, one after the other, in `folder`, telling `say` how it goes.

    Raises:
        BenchError: a figure can't be had.
        StrongroomError: the database server failed.
    """

    def creating(target: Target, name: str, connections: int, rate: float | None = None) -> Run:
        run = create(target, name=name, connections=connections, seconds=plan.seconds, rate=rate)
        say(f"{name}: {run.load.rate:,.0f} orders/s, p50 {run.load.p50_ms:.1f} ms, p99 {run.load.p99_ms:.1f} ms")
        return run

    def fill_in_batches(target: Target, turn: int) -> Filled:
        filled = fill(target, run=f"batches-{turn}", count=plan.bulk, per_order=PER_ORDER)
        say(f"bulk, orders of {PER_ORDER}, {turn}: {filled.rate:,.0f} instructions/s")
        return filled

    floors: list[float] = []
    created: dict[int, list[Run]] = {FEW_CONNECTIONS: [], MANY_CONNECTIONS: []}
    batches: list[Filled] = []
    with floor.server(folder / "floor") as database, start_strongroom(folder / "new") as new:

        def touch_the_floor() -> None:
            floors.append(floor.measure(database, seconds=plan.seconds))
            say(f"floor: {floors[-1]:,.0f} inserts/s")

        # Turn and turn about, so that a change in the machine's mood meets all of them.
        for turn in range(ROUNDS):
            for count, runs in created.items():
                touch_the_floor()
                runs.append(creating(new, f"create-{count}-{turn}", count))
            touch_the_floor()
            batches.append(fill_in_batches(new, turn))
        touch_the_floor()
        half = mean(run.load.rate for run in created[FEW_CONNECTIONS]) / 2
        at_half_load = creating(new, "half-load", FEW_CONNECTIONS, rate=half)
        if at_half_load.load.rate < HELD * half:
            raise BenchError(f"half the load, {half:,.0f} orders/s, was set and not reached; is the machine busy?")
        with start_ordinary(database, folder) as target:
            ordinary = creating(target, "ordinary", FEW_CONNECTIONS)
        memory = [resident_mib(process) for process in new.parts()["api"]]
        with_one, with_both, rewrapped, reencrypted = asyncio.run(measure_keys(folder / "new", plan.seconds))
        say(f"keys: {rewrapped:,.0f} data keys rewrapped and {reencrypted:,.0f} fields sealed anew a second")
    bare, one_layer, both_layers, personal = measure_fields(plan.seconds)
    say(f"fields: {bare.sealed:,.0f}/s sealed by the bare cipher, {one_layer.sealed:,.0f}/s in one layer")

    with start_strongroom(folder / "few") as few, start_strongroom(folder / "many") as many:
        fill(few, run="few", count=plan.few)
        bulk = fill(many, run="many", count=plan.many)
        say(f"bulk: {bulk.rate:,.0f} instructions/s")
        turns = [
            (creating(few, f"few-{turn}", FEW_CONNECTIONS), creating(many, f"many-{turn}", FEW_CONNECTIONS))
            for turn in range(ROUNDS)
        ]
        memory += [resident_mib(process) for process in many.parts()["api"]]

    lookups_few, lookups_many = lookup.measure(folder / "lookups", (plan.few, plan.many))
    say(f"look-up among {plan.many:,} customers: {lookups_many.rate:,.0f}/s, p99 {lookups_many.p99_ms:.1f} ms")
    rates = tokens.measure(folder / "tokens")
    say(f"tokens: {rates.by_hmac:,.0f}/s by HMAC, {rates.by_assertion:,.0f}/s by assertion")

    return Findings(
        floors=floors,
        ordinary=ordinary,
        created=created,
        at_half_load=at_half_load,
        batches=batches,
        bulk=bulk,
        rate_with_few=mean(few_run.load.rate for few_run, _ in turns),
        rate_with_many=mean(many_run.load.rate for _, many_run in turns),
        lookups_few=lookups_few,
        lookups_many=lookups_many,
        tokens=rates,
        rss_mib=max(rss for rss, _ in memory),
        pss_mib=max(pss for _, pss in memory),
        sealing=Sealing(
            bare=bare,
            one_layer=one_layer,
            both_layers=both_layers,
            personal=personal,
            with_one=with_one,
            with_both=with_both,
            rewrapped=rewrapped,
            reencrypted=reencrypted,
            scopes_mib=measure_scopes(),
        ),
    )
