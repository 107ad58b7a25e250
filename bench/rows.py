"""What is reported: rows with their goals, as a table for people and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

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


def write_json(rows: Sequence[Row], file: Path) -> None:
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
        for row in rows
    ]
    file.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Print the rows in their order."""
    table = Table(title="strongroom against the floor", title_justify="left")
    for heading in ("", "value", "unit", "floor", "ratio", "goal", ""):
        table.add_column(heading, justify="right" if heading in {"value", "floor", "ratio"} else "left")
    for row in rows:
        figures = (_shown(row.value), row.unit, _shown(row.floor), _shown(row.ratio))
        table.add_row(row.name, *figures, row.aim or "", _VERDICTS[row.met])
    console.print(table)


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 4)


def _shown(figure: float | None) -> str:
    if figure is None:
        return ""
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:,.2f}"
