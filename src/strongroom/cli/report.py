"""The table at the end: what came in, what became of it, to the cent; and whether it all adds up.

Amounts are minor units throughout and are only written as decimals at the very end. Nothing here is estimated: counts
of lines come from the file and from the API's verdicts, sums from the instructions as they are stored, and every figure
that can be had in two ways is compared.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from strongroom.cli.sending import Sent
from strongroom.kernel.money import Money
from strongroom.payments.standing import Standing

WIDTH: Final = 116
"""Columns that the tables take where the terminal doesn't say how many it has."""
REASONS: Final = {
    "AC01": "the account number can't be right",
    "AC04": "the account is closed",
    "AC06": "the account is blocked",
    "AM04": "the money isn't there",
    "BE05": "who asks is not known",
    "FF01": "the request breaks the rail's rules",
    "MD01": "there is no mandate",
    "MD07": "the account's holder has died",
    "MS02": "the customer gave no reason",
    "MS03": "the bank gave no reason",
    "NO_ROUTE": "no app of the scheme can carry it",
    "RR04": "a regulation forbids it",
}
"""Reason codes in words; those of four characters are ISO 20022's (external code sets)."""
_DIRECTIONS: Final = {"CREDIT": "paid out", "DEBIT": "collected"}
_ENDS: Final = {"COMPLETED": "paid", "FAILED": "failed", "CANCELLED": "cancelled", "UNCONFIRMED": "unconfirmed"}


@dataclass(slots=True)
class Sum:
    """So many, worth so much (minor units of one currency)."""

    count: int = 0
    minor: int = 0

    def add(self, money: Money) -> None:
        """One more."""
        self.count += 1
        self.minor += money.minor

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.count + other.count, self.minor + other.minor)


@dataclass(slots=True)
class Row:
    """One direction and currency. `matched` counts what was paid and then seen on the bank's statement."""

    instructed: Sum = field(default_factory=Sum)
    paid: Sum = field(default_factory=Sum)
    failed: Sum = field(default_factory=Sum)
    cancelled: Sum = field(default_factory=Sum)
    unconfirmed: Sum = field(default_factory=Sum)
    open: Sum = field(default_factory=Sum)
    matched: Sum = field(default_factory=Sum)

    @property
    def accounted(self) -> Sum:
        """What the parts come to."""
        return self.paid + self.failed + self.cancelled + self.unconfirmed + self.open


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A line of a bank's statement that matches nothing; `minor` is negative for a debit."""

    minor: int
    currency: str
    booked_on: date
    reason: str


@dataclass(slots=True, kw_only=True)
class Report:
    """What became of one file. Sums are by direction and currency, reasons also by the reason's code."""

    sent: Sent
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    failures: dict[tuple[str, str, str], Sum] = field(default_factory=dict)
    waiting: dict[tuple[str, str, str], Sum] = field(default_factory=dict)
    breaks: Sequence[Break] = ()

    def enter(self, standing: Standing, *, due_until: date) -> None:
        """One accepted instruction; those to be settled after `due_until` aren't due yet."""
        key = (standing.direction, standing.money.currency)
        row = self.rows.setdefault(key, Row())
        row.instructed.add(standing.money)
        end = _ENDS.get(standing.status, "open")
        getattr(row, end).add(standing.money)
        if standing.is_matched and end == "paid":
            row.matched.add(standing.money)
        if end == "failed":
            self.failures.setdefault((standing.reason, *key), Sum()).add(standing.money)
        if end in {"open", "unconfirmed"}:
            self.waiting.setdefault((_why_waiting(standing, due_until), *key), Sum()).add(standing.money)

    def differences(self) -> list[str]:
        """Everything that should be equal and isn't."""
        sent = self.sent
        instructed = sum(row.instructed.count for row in self.rows.values())
        found = [
            _differ("lines in the file", sent.lines, "accepted and refused", sent.accepted + sent.refused),
            _differ("refused lines", sent.refused, "their reasons", sent.refusals.total()),
            _differ("accepted lines", sent.accepted, "instructions stored", instructed),
        ]
        for (direction, currency), row in sorted(self.rows.items()):
            name = f"{direction} {currency}"
            in_file = sent.sums[direction, currency]
            found += [
                _differ(f"{name} accepted in the file", in_file, "stored", row.instructed.minor),
                _differ(f"{name} stored", row.instructed.minor, "what became of it", row.accounted.minor),
                _differ(f"{name} stored", row.instructed.count, "what became of them", row.accounted.count),
            ]
        missing = sent.sums.keys() - self.rows.keys()
        found += [f"{direction} {currency} was accepted, and nothing is stored" for direction, currency in missing]
        return [difference for difference in found if difference]


async def make_report(
    sent: Sent, standings: AsyncIterator[Standing], breaks: Sequence[Break], *, due_until: date
) -> Report:
    """The report on what was sent."""
    report = Report(sent=sent, breaks=breaks)
    async for standing in standings:
        report.enter(standing, due_until=due_until)
    return report


def show(report: Report, console: Console) -> None:
    """Print the tables, and say whether they add up."""
    console.print()
    console.print(_headline(report), style="bold")
    console.print()
    console.print(_lines_table(report.sent))
    console.print(_money_table(report))
    for title, reasons in (("Failed, and why", report.failures), ("Open, and why", report.waiting)):
        if reasons:
            console.print(_reasons_table(title, reasons))
    if report.breaks:
        console.print(_breaks_table(report.breaks))
    differences = report.differences()
    for difference in differences:
        console.print(f"DOES NOT ADD UP: {difference}", style="bold red", markup=False)
    if not differences:
        console.print(
            "It adds up: in = accepted + refused; accepted = paid + failed + open; file = database, to the cent."
        )


def show_places(console: Console, places: Mapping[str, str | Path]) -> None:
    """Print where things are."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, place in places.items():
        table.add_row(name, Text(str(place)))
    console.print()
    console.print(table)


def as_data(report: Report) -> dict[str, Any]:
    """The same as data: amounts are decimal strings."""
    sent = report.sent
    return {
        "lines": sent.lines,
        "accepted": sent.accepted,
        "refused": sent.refused,
        "refusals": dict(sorted(sent.refusals.items())),
        "money": [
            {"direction": direction, "currency": currency}
            | {
                name: _sum_data(getattr(row, name), currency)
                for name in ("instructed", "paid", "failed", "cancelled", "unconfirmed", "open", "matched")
            }
            for (direction, currency), row in sorted(report.rows.items())
        ],
        "failures": _reasons_data(report.failures),
        "waiting": _reasons_data(report.waiting),
        "breaks": [
            {
                "bookedOn": found.booked_on.isoformat(),
                "reason": found.reason,
                "amount": str(Money(found.minor, found.currency).decimal),
                "currency": found.currency,
            }
            for found in report.breaks
        ],
        "differences": report.differences(),
    }


def amount(minor: int, currency: str) -> str:
    """An amount for people: grouped by thousands, with the currency's decimals."""
    return f"{Money(minor, currency).decimal:,}"


def _why_waiting(standing: Standing, due_until: date) -> str:
    match standing.status:
        case "UNCONFIRMED":
            return "the provider's answer is not known; it is being asked"
        case "PROCESSING":
            return "sent; the rail hasn't said the end"
        case "INCOMPLETE":
            return f"can't be sent as it is ({standing.reason or 'scheme or account missing'})"
        case _ if standing.settled_by > due_until:
            return "not due yet"
        case _:
            return "due, not sent yet"


def _differ(name: str, value: int, other: str, other_value: int) -> str:
    return "" if value == other_value else f"{name}: {value:,}, {other}: {other_value:,}"


def _lines_table(sent: Sent) -> Table:
    table = _table("Lines")
    table.add_column("")
    table.add_column("Lines", justify="right")
    table.add_row("In the file", f"{sent.lines:,}")
    table.add_row("Accepted", f"{sent.accepted:,}", style="green")
    table.add_row("Refused", f"{sent.refused:,}", style="red" if sent.refused else "", end_section=True)
    for code, count in sorted(sent.refusals.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(f"  {code}", f"{count:,}", style="dim")
    return table


def _money_table(report: Report) -> Table:
    table = _table("Money")
    table.add_column("Direction\nCurrency")
    for name in ("Instructed", "Paid", "Failed", "Unconfirmed", "Open", "Matched by\nthe statement"):
        table.add_column(name, justify="right", no_wrap=True)
    some_cancelled = any(row.cancelled.count for row in report.rows.values())
    if some_cancelled:
        table.add_column("Cancelled", justify="right", no_wrap=True)
    for (direction, currency), row in sorted(report.rows.items()):
        sums = [row.instructed, row.paid, row.failed, row.unconfirmed, row.open, row.matched]
        if some_cancelled:
            sums.append(row.cancelled)
        name = f"{_DIRECTIONS.get(direction, direction)}\n{currency}"
        table.add_row(name, *(_cell(found, currency) for found in sums), end_section=True)
    return table


def _reasons_table(title: str, reasons: Mapping[tuple[str, str, str], Sum]) -> Table:
    table = _table(title)
    table.add_column("Reason")
    table.add_column("Direction")
    table.add_column("Count", justify="right")
    table.add_column("Amount", justify="right", no_wrap=True)
    for (reason, direction, currency), found in sorted(reasons.items()):
        words = " ".join(filter(None, (reason, _in_words(reason))))
        table.add_row(
            words or "no reason given",
            _DIRECTIONS.get(direction, direction),
            f"{found.count:,}",
            f"{amount(found.minor, currency)} {currency}",
        )
    return table


def _breaks_table(breaks: Sequence[Break]) -> Table:
    table = _table("Breaks on bank statements")
    table.add_column("Booked on")
    table.add_column("Reason")
    table.add_column("Amount", justify="right", no_wrap=True)
    for found in breaks:
        table.add_row(
            found.booked_on.isoformat(), found.reason, f"{amount(found.minor, found.currency)} {found.currency}"
        )
    return table


def _in_words(reason: str) -> str:
    """What a reason means; `RETURNED-AC06` is what `AC06` is."""
    words = REASONS.get(reason.removeprefix("RETURNED-"), "")
    return f"({words})" if words else ""


def _headline(report: Report) -> str:
    def count(name: str) -> int:
        return sum(getattr(row, name).count for row in report.rows.values())

    sent = report.sent
    ends = [f"{count(name):,} {name}" for name in ("paid", "failed", "cancelled", "unconfirmed", "open") if count(name)]
    seen = f"{count('matched'):,} of them matched by the bank's statements"
    return f"{sent.lines:,} lines in: {sent.accepted:,} accepted, {sent.refused:,} refused · {', '.join(ends)} · {seen}"


def _sum_data(found: Sum, currency: str) -> dict[str, Any]:
    return {"count": found.count, "amount": str(Money(found.minor, currency).decimal)}


def _reasons_data(reasons: Mapping[tuple[str, str, str], Sum]) -> list[dict[str, Any]]:
    return [
        {"reason": reason, "direction": direction, "currency": currency} | _sum_data(found, currency)
        for (reason, direction, currency), found in sorted(reasons.items())
    ]


def _cell(found: Sum, currency: str) -> Text:
    if not found.count:
        return Text("–", style="dim")
    return Text.assemble((f"{found.count:,}\n", "dim"), amount(found.minor, currency))


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
