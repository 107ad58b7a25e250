"""An account's own roles: what they allow, what they forbid, and on which conditions. Values only.

What a condition means is said where it becomes policy, in `strongroom.access.rendering`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

MINUTES_OF_DAY: Final = 24 * 60


class Hours(msgspec.Struct, frozen=True, kw_only=True):
    """Office hours in a time zone (IANA name): on these days (1 Monday to 7 Sunday, ISO 8601), from one minute of the
    day to before another."""

    zone: str
    days: tuple[int, ...]
    opens: int
    closes: int

    def include(self, now: datetime) -> bool:
        """Whether it is office hours at this (aware) instant, by the zone's own clock, summer time included."""
        local = now.astimezone(ZoneInfo(self.zone))
        return local.isoweekday() in self.days and self.opens <= 60 * local.hour + local.minute < self.closes


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """The most that may be paid in a currency, in its smallest unit: in one payment, and on one day (UTC)."""

    currency: str
    payment: int | None = None
    day: int | None = None


class CustomRole(msgspec.Struct, frozen=True, kw_only=True):
    """A role that an account made. An empty condition is none.

    `level` is `account` or `tenant`: where it is held. `tenants` are those in which it counts. Once there is a ceiling,
    payments in a currency without one are refused.
    """

    name: str
    level: str
    permissions: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    tenants: tuple[UUID, ...] = ()
    regions: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
    hours: Hours | None = None
    step_up: bool = False

    @property
    def is_conditional(self) -> bool:
        """Whether it allows what it does on conditions only."""
        bound = self.tenants or self.regions or self.countries or self.ceilings or self.hours is not None
        return bool(bound) or self.step_up

    @property
    def limits_payments(self) -> bool:
        """Whether it matters to the role which payment is made."""
        return bool(self.countries or self.ceilings)

    @property
    def limits_days(self) -> bool:
        """Whether what was paid before on the same day matters to the role."""
        return any(ceiling.day is not None for ceiling in self.ceilings)
