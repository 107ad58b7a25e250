"""The report: rows with their goals, as a table for people and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Literal

from rich.console import Console
from rich.table import Table

from bench.findings import FEW_CONNECTIONS, MANY_CONNECTIONS, PER_ORDER, Findings, Plan
from bench.sealing import SCOPES, Sealing

_VERDICTS = {True: "[green]met[/]", False: "[red]not met[/]", None: ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a row is to reach: with its ratio when it has a floor, otherwise with its value."""

    bound: Literal["≥", "≤"]
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. `floor` is what it is divided by, in the same unit."""

    name: str
    value: float
    unit: str
    floor: float | None = None
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """The value in floors."""
        return None if self.floor is None else self.value / self.floor

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached, judged before any rounding; None without a goal."""
        if self.goal is None:
            return None
        figure = self.value if self.ratio is None else self.ratio
        return figure >= self.goal.limit if self.goal.bound == "≥" else figure <= self.goal.limit

    @property
    def aim(self) -> str | None:
        """The goal in words, such as `≥ 0.2 × floor` or `≤ 25 ms`."""
        if self.goal is None:
            return None
        return f"{self.goal.bound} {self.goal.limit:g} {self.unit if self.floor is None else '× floor'}"


def rows(found: Findings, plan: Plan) -> list[Row]:
    """The figures and their goals. Floor and rates are means over the turns."""
    floor = mean(found.floors)

    def orders(name: str, rate: float, *, least: float | None = None, floor: float = floor) -> Row:
        goal = None if least is None else Goal(bound="≥", limit=least)
        return Row(name=name + plan.label, value=rate, unit="/s", floor=floor, goal=goal)

    def plain(name: str, value: float, unit: str, *, most: float | None = None) -> Row:
        goal = None if most is None else Goal(bound="≤", limit=most)
        return Row(name=name + plan.label, value=value, unit=unit, goal=goal)

    few, many = (mean(run.load.rate for run in found.created[count]) for count in (FEW_CONNECTIONS, MANY_CONNECTIONS))
    half = found.at_half_load.load
    return [
        plain("floor: pgbench, mean", floor, "/s"),
        plain("floor: pgbench, slowest turn", min(found.floors), "/s"),
        plain("floor: pgbench, fastest turn", max(found.floors), "/s"),
        orders(f"create order, {FEW_CONNECTIONS} connections", few, least=0.20),
        orders(f"create order, {MANY_CONNECTIONS} connections", many, least=0.30),
        orders(
            f"bulk, instructions, in orders of {PER_ORDER}", mean(filled.rate for filled in found.batches), least=2.0
        ),
        orders("bulk, instructions, each an order of its own", found.bulk.rate),
        plain(f"create order, half the load ({half.rate:,.0f}/s): p99", half.p99_ms, "ms", most=25),
        orders(
            f"create order, {plan.many:,} stored (floor: {plan.few:,} stored)",
            found.rate_with_many,
            least=0.9,
            floor=found.rate_with_few,
        ),
        orders(
            f"look-up by mail address, {plan.many:,} customers (floor: {plan.few:,} customers)",
            found.lookups_many.rate,
            least=0.8,
            floor=found.lookups_few.rate,
        ),
        plain(f"look-up by mail address, {plan.many:,} customers: p99", found.lookups_many.p99_ms, "ms", most=10),
        plain("tokens issued, HMAC", found.tokens.by_hmac, "/s"),
        plain("tokens issued, private_key_jwt", found.tokens.by_assertion, "/s"),
        plain("tokens checked, for the first time", found.tokens.checked, "/s"),
        plain("tokens checked, again", found.tokens.remembered, "/s"),
        plain("tokens checked, bound by DPoP", found.tokens.bound, "/s"),
        plain("API process, resident", found.rss_mib, "MiB", most=250),
        plain("API process, shared pages divided", found.pss_mib, "MiB"),
        orders(f"the ordinary way, {FEW_CONNECTIONS} connections", found.ordinary.load.rate),
        *_sealing(found.sealing, plan),
    ]


def _sealing(found: Sealing, plan: Plan) -> list[Row]:
    """Figures of keys and envelopes. Their floor is the bare cipher in the same run; of both layers, half of it."""

    def fields(name: str, value: float, floor: float) -> Row:
        goal = Goal(bound="≥", limit=0.5)
        return Row(name=name + plan.label, value=value, unit="/s", floor=floor, goal=goal)

    def plain(name: str, value: float, unit: str = "/s") -> Row:
        return Row(name=name + plan.label, value=value, unit=unit)

    bare, one, both = found.bare, found.one_layer, found.both_layers
    return [
        fields("seal 300 bytes, one layer (floor: bare AES-GCM)", one.sealed, bare.sealed),
        fields("open 300 bytes, one layer (floor: bare AES-GCM)", one.opened, bare.opened),
        fields("seal 300 bytes, both layers (floor: bare AES-GCM, twice)", both.sealed, bare.sealed / 2),
        fields("open 300 bytes, both layers (floor: bare AES-GCM, twice)", both.opened, bare.opened / 2),
        Row(
            name=f"orders of customers with accounts, both layers (floor: one layer){plan.label}",
            value=found.with_both,
            unit="/s",
            floor=found.with_one,
            goal=Goal(bound="≥", limit=0.9),
        ),
        Row(
            name=f"data keys rewrapped, for many tenants at once{plan.label}",
            value=found.rewrapped,
            unit="/s",
            goal=Goal(bound="≥", limit=500),
        ),
        plain("fields sealed anew", found.reencrypted),
        plain(f"{SCOPES:,} scopes loaded, memory", found.scopes_mib, "MiB"),
        plain("seal 300 bytes for one person, with their secret from its file", found.personal.sealed),
        plain("open 300 bytes for one person, with their secret from its file", found.personal.opened),
    ]


def costs(found: Findings, plan: Plan) -> list[Row]:
    """CPU time an order costs, by row and part of the system."""
    return [
        Row(name=f"CPU, {what}: {part}{plan.label}", value=spent, unit="µs/order")
        for what, cpu_us in _by_row(found).items()
        for part, spent in cpu_us.items()
    ]


def write_json(reported: Sequence[Row], file: Path) -> None:
    """Write `[{name, value, unit, floor, ratio, goal, met}]`; null where a row has none."""
    told = [
        {
            "name": row.name,
            "value": _rounded(row.value),
            "unit": row.unit,
            "floor": _rounded(row.floor),
            "ratio": _rounded(row.ratio),
            "goal": row.aim,
            "met": row.met,
        }
        for row in reported
    ]
    file.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")


def print_rows(reported: Sequence[Row], console: Console) -> None:
    """Print the rows, in their order."""
    table = Table(title="Figures", title_justify="left")
    table.add_column("")
    for heading in ("value", "", "floor", "ratio"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_column("goal")
    table.add_column("")
    for row in reported:
        figures = (_shown(row.value), row.unit, _shown(row.floor), _shown(row.ratio))
        table.add_row(row.name, *figures, row.aim or "", _VERDICTS[row.met])
    console.print(table)


def print_costs(found: Findings, console: Console) -> None:
    """Print where the CPU time goes, a column for each part of the system."""
    by_row = _by_row(found)
    parts = list(dict.fromkeys(part for spent in by_row.values() for part in spent))
    table = Table(title="Where the time goes: CPU µs for each order", title_justify="left")
    for heading in ("", *parts, "sum"):
        table.add_column(heading, justify="right" if heading else "left")
    for what, spent in by_row.items():
        figures = (_shown(spent.get(part)) for part in parts)
        table.add_row(what, *figures, _shown(sum(spent.values())))
    console.print(table)


def _by_row(found: Findings) -> dict[str, Mapping[str, float]]:
    return {
        **{
            f"create order, {connections} connections": _each(run.cpu_us for run in runs)
            for connections, runs in found.created.items()
        },
        f"bulk, orders of {PER_ORDER}": _each(filled.cpu_us for filled in found.batches),
        "bulk, an order each": found.bulk.cpu_us,
        f"the ordinary way, {FEW_CONNECTIONS} connections": found.ordinary.cpu_us,
    }


def _each(turns: Iterable[Mapping[str, float]]) -> Mapping[str, float]:
    """The mean of some turns' costs, by part."""
    spent = list(turns)
    return {part: mean(turn[part] for turn in spent) for part in spent[0]}


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 4)


def _shown(figure: float | None) -> str:
    if figure is None:
        return ""
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:,.3g}" if figure >= 100 else f"{figure:.3f}"
