"""Which payouts wait for somebody else's approval, and how many.

A rule names what it is about (amounts from a threshold, schemes, countries, the first payment to an account); a payout
that fits any of a tenant's rules waits. An amount in a currency for which a rule with thresholds names none fits too:
what it comes to is not guessed. Of several rules that fit, the most approvals and the shortest time count.

A rule is made and ended, never changed. Every process remembers a tenant's rules for as long as the epoch of its keys
stays, which a new rule counts up.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec

from strongroom.access import Permission, require
from strongroom.audit import record
from strongroom.database import Operation
from strongroom.kernel.errors import Conflict, Failure, NotFound
from strongroom.kernel.ids import new_uuid
from strongroom.rails.contract import Direction

MAX_RULES: Final = 100
"""Most rules of a tenant that hold at a time."""
MAX_APPROVALS: Final = 5
"""Most approvals that a rule can ask for."""
MAX_HOURS: Final = 30 * 24
"""Longest that a payout waits for approval."""
MAX_REMEMBERED: Final = 50_000
"""Most tenants whose rules a process remembers; with more, it begins anew."""


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """An amount in the currency's smallest unit, from which on a payout fits."""

    currency: str
    minor: int


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be true of a payout, all of it; what is empty doesn't matter."""

    name: str
    approvals: int = 1
    hours: int = 72
    thresholds: tuple[Threshold, ...] = ()
    schemes: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    is_first: bool = False

    def fits(self, payout: Payout) -> bool:
        """Whether the payout waits because of this rule."""
        limit = next((item.minor for item in self.thresholds if item.currency == payout.currency), 0)
        return (
            payout.minor >= limit
            and (not self.schemes or payout.scheme_id in self.schemes)
            and (not self.countries or payout.country in self.countries)
            and (not self.is_first or payout.is_first)
        )


class Payout(msgspec.Struct, frozen=True, gc=False):
    """What rules look at. `is_first`: no payment of its financial instrument has been completed yet."""

    minor: int
    currency: str
    country: str
    scheme_id: str
    is_first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeRule:
    """A rule that holds, by its id."""

    rule_id: UUID
    rule: Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How many others have to approve, and within which time. None have to where `approvals` is 0."""

    approvals: int
    within: timedelta


NOTHING: Final = Wanted(approvals=0, within=timedelta(0))


def wanted(rules: Collection[Rule], direction: str, payout: Payout) -> Wanted:
    """What the rules want for a payment."""
    fitting = [rule for rule in rules if rule.fits(payout)] if direction == Direction.CREDIT else []
    if not fitting:
        return NOTHING
    return Wanted(
        approvals=max(rule.approvals for rule in fitting), within=timedelta(hours=min(rule.hours for rule in fitting))
    )


async def find_rules(op: Operation) -> tuple[Rule, ...]:
    """The rules that hold in the operation's tenant; mostly without asking the database."""
    place = (op.region, op.tenant)
    if op.session.epoch is None:
        await op.session.begin()
    epoch = op.session.epoch or 0
    known = _REMEMBERED.get(place)
    if known is None or known[0] != epoch:
        known = (epoch, tuple(item.rule for item in await _read(op)))
        if len(_REMEMBERED) >= MAX_REMEMBERED:
            _REMEMBERED.clear()
        _REMEMBERED[place] = known
    return known[1]


async def list_rules(op: Operation) -> Sequence[MadeRule]:
    """The rules that hold, oldest first. Raises errors.Forbidden."""
    _require(op, writes=False)
    return await _read(op)


async def create_rule(op: Operation, rule: Rule) -> MadeRule:
    """Make a rule, for payouts from now on.

    Raises errors.Forbidden and errors.Conflict (`APPROVAL_RULE_LIMIT_REACHED`).
    """
    _require(op, writes=True)
    if len(await _read(op)) >= MAX_RULES:
        raise Conflict(
            Failure(
                "APPROVAL_RULE_LIMIT_REACHED", "There are {limit} rules already. End one first.", {"limit": MAX_RULES}
            )
        )
    made = MadeRule(rule_id=new_uuid(), rule=rule)
    definition = msgspec.json.encode(rule).decode()
    await op.run(
        "insert into approval_rules (scope_id, rule_id, definition, made_at) values (%s, %s, %s, %s)",
        op.tenant,
        made.rule_id,
        definition,
        op.now,
    )
    await record(op, "approval-rule.create", "approval-rule", made.rule_id, detail=definition)
    return made


async def end_rule(op: Operation, rule_id: UUID) -> None:
    """End a rule. What waits because of it goes on waiting.

    Raises errors.Forbidden and errors.NotFound (`APPROVAL_RULE_NOT_FOUND`).
    """
    _require(op, writes=True)
    rows = await op.rows(
        "update approval_rules set ended_at = %s where rule_id = %s and ended_at is null returning definition",
        op.now,
        rule_id,
    )
    if not rows:
        raise NotFound(Failure("APPROVAL_RULE_NOT_FOUND", "There is no such rule in this tenant."))
    before = msgspec.json.encode(rows[0][0]).decode()
    await record(op, "approval-rule.end", "approval-rule", rule_id, detail=before)


async def _read(op: Operation) -> Sequence[MadeRule]:
    rows = await op.rows(
        "select rule_id, definition from approval_rules where scope_id = %s and ended_at is null order by rule_id",
        op.tenant,
    )
    return [MadeRule(rule_id=row[0], rule=msgspec.convert(row[1], Rule)) for row in rows]


def _require(op: Operation, *, writes: bool) -> None:
    """The business of a tenant's own admins, and of those who look after an account's tenants."""
    if op.actor.tenant_id is not None:
        require(op, Permission.APPROVAL_RULES_MANAGE)
    else:
        require(op, Permission.TENANTS_WRITE if writes else Permission.TENANTS_READ)


_REMEMBERED: Final[dict[tuple[str, UUID], tuple[int, tuple[Rule, ...]]]] = {}
