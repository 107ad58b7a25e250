"""What is known of a promise: how its last check went, in figures."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta


class Colour(enum.StrEnum):
    """How a promise stands."""

    GREEN = "green"
    """A check exercised the running system, and the promise was kept."""
    RED = "red"
    """A check found it broken, or could not finish."""
    UNBUILT = "unbuilt"
    """No check has ever run: nothing is claimed."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What a check measured, in one line. Green unless `breaches` says what was found wrong."""

    text: str
    breaches: tuple[str, ...] = ()

    @property
    def is_green(self) -> bool:
        """Whether the promise was kept."""
        return not self.breaches


class CannotTell(Exception):
    """This installation has nothing to check the promise on; says why. Not a failure, and never green."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a promise stands. `checked_at` is None where no check has run."""

    id: str
    promise: str
    colour: Colour
    figure: str
    checked_at: datetime | None

    def age(self, now: datetime) -> timedelta | None:
        """How long ago it was checked."""
        return None if self.checked_at is None else max(now - self.checked_at, timedelta())

    def as_data(self) -> dict[str, str | None]:
        """The form in which `prove --json` and `/trust.json` give it."""
        return {
            "id": self.id,
            "promise": self.promise,
            "verdict": self.colour.value,
            "figure": self.figure,
            "checked_at": None if self.checked_at is None else self.checked_at.isoformat(timespec="seconds"),
        }


def describe_age(age: timedelta) -> str:
    """An age for people: `12 s`, `5 min`, `3 h`, `4 d`."""
    seconds = int(age.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


class Findings:
    """Collects what a check finds wrong, and how much it looked at."""

    MAX_SHOWN = 5

    def __init__(self) -> None:
        self.breaches: list[str] = []
        self.checked = 0

    def expect(self, kept: bool, breach: str | Callable[[], str]) -> bool:  # noqa: FBT001  # reads like an assertion
        """One thing looked at; `breach` says what is wrong when it isn't as it should be."""
        self.checked += 1
        if not kept:
            self.breaches.append(breach() if callable(breach) else breach)
        return kept

    def breach(self, what: str) -> None:
        """Something that is wrong."""
        self.expect(False, what)  # noqa: FBT003  its very meaning

    def figure(self, text: str) -> Figure:
        """The check's result: `text` when all is well, else what was found."""
        if not self.breaches:
            return Figure(text)
        shown = "; ".join(self.breaches[: self.MAX_SHOWN])
        more = len(self.breaches) - self.MAX_SHOWN
        return Figure(f"{shown}; and {more} more" if more > 0 else shown, tuple(self.breaches))
