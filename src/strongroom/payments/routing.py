"""Which app carries a payment: a published scheme's rules, applied. Pure.

Rules are tried in the order of their priorities. The first whose currencies, countries and value range take the payment
wins, and no other is looked at, even when none of the winner's apps can carry the payment: a scheme says where money
goes, and a rule further down must not catch what a rule above was meant for. Inside the rule the apps are tried in
order; the first that can carry the payment is chosen, the ones after it are fallbacks.

Values in rules are in major units of whatever currency the payment has: a rule from 100 takes 100.00 EUR and 100 JPY.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Final, Literal

from strongroom.kernel.ids import AppId, DraftId, SchemeId
from strongroom.kernel.money import EXPONENTS, Money
from strongroom.rails.contract import App, Direction
from strongroom.rails.marketplace import find_app

SchemeKind = Literal["collect", "payout"]
KIND_OF: Final[Mapping[str, SchemeKind]] = MappingProxyType({Direction.DEBIT: "collect", Direction.CREDIT: "payout"})
"""Which kind of scheme serves a direction."""
DIRECTION_OF: Final[Mapping[SchemeKind, Direction]] = MappingProxyType(
    {"collect": Direction.DEBIT, "payout": Direction.CREDIT}
)
"""Which direction a kind of scheme serves."""

Span = tuple[int, float, bool]
"""Lowest and highest minor units that a rule takes (no limit: infinity), and whether one of its apps can carry them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppChoice:
    """An app in a rule, without the payment methods (by id) that the rule leaves out."""

    app_id: AppId
    excluded_payment_methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Empty `currencies` or `countries` mean any; `low` and `high` are inclusive, None means open."""

    priority: int
    currencies: frozenset[str] = frozenset()
    countries: frozenset[str] = frozenset()
    low: Decimal | None = None
    high: Decimal | None = None
    apps: tuple[AppChoice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedScheme:
    """A scheme as payments use it: the rules of its published draft, by priority. Without one: no rules."""

    scheme_id: SchemeId
    kind: SchemeKind
    draft_id: DraftId | None = None
    rules: tuple[Rule, ...] = ()
    _spans: dict[tuple[str, str], tuple[Span, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `supports` has worked out so far, by currency and country."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppVerdict:
    """Why an app of a rule was taken, kept as fallback, or left out. `code` is stable; `reason` is for people."""

    app_id: AppId
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleVerdict:
    """Why a rule was taken or not, and the same for each of its apps."""

    priority: int
    code: str
    reason: str
    apps: tuple[AppVerdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Where a payment goes: the chosen app first, then its fallbacks. Empty: the scheme can't carry the payment."""

    apps: tuple[AppId, ...]
    priority: int | None
    """The rule that won, or None."""
    verdicts: tuple[RuleVerdict, ...]
    """Every rule, in the order in which they are tried."""


def choose(
    scheme: PublishedScheme,
    apps_installed: Collection[str],
    direction: str,
    country: str,
    money: Money,
) -> Choice:
    """Apply the scheme's rules to a payment of `money` to or from somebody in `country`.

    `direction` is one of `contract.Direction`; the payment is known to be valid in itself.
    """
    verdicts: list[RuleVerdict] = []
    winner: int | None = None
    chosen: tuple[AppId, ...] = ()
    for rule in scheme.rules:
        code, reason = _judge_rule(scheme, rule, direction, country, money)
        if code == "MATCHES" and winner is not None:
            code, reason = "EARLIER_RULE_MATCHES", f"The rule with priority {winner} comes first and takes the payment."
        if code == "MATCHES":
            winner = rule.priority
            apps = _judge_apps(rule, apps_installed, direction, money.currency, country)
            chosen = tuple(verdict.app_id for verdict in apps if verdict.code in {"CHOSEN", "FALLBACK"})
        else:
            apps = tuple(
                AppVerdict(app_id=choice.app_id, code="RULE_NOT_TAKEN", reason="Its rule doesn't take the payment.")
                for choice in rule.apps
            )
        verdicts.append(RuleVerdict(priority=rule.priority, code=code, reason=reason, apps=apps))
    return Choice(apps=chosen, priority=winner, verdicts=tuple(verdicts))


def supports(scheme: PublishedScheme, direction: str, currency: str, country: str, minor: int) -> bool:
    """Whether the scheme can carry `minor` units of `currency`: `choose` with all its apps installed, answered fast.

    What rules say about a currency and country is worked out once per scheme; after that a call is a look-up and a
    comparison or two.
    """
    if KIND_OF[direction] != scheme.kind:
        return False
    spans = scheme._spans.get((currency, country))
    if spans is None:
        spans = scheme._spans[currency, country] = _spans(scheme.rules, direction, currency, country)
    for low, high, carried in spans:
        if low <= minor <= high:
            return carried
    return False


def available_methods(app: App, choice: AppChoice) -> tuple[str, ...]:
    """The ids of the app's payment methods that the rule leaves."""
    return tuple(method.id for method in app.methods if method.id not in choice.excluded_payment_methods)


def _judge_rule(scheme: PublishedScheme, rule: Rule, direction: str, country: str, money: Money) -> tuple[str, str]:
    if KIND_OF[direction] != scheme.kind:
        return "DIRECTION_NOT_SERVED", f"A {scheme.kind} scheme doesn't carry {direction} payments."
    if rule.currencies and money.currency not in rule.currencies:
        return "CURRENCY_NOT_IN_RULE", f"The rule takes {_listed(rule.currencies)}, not {money.currency}."
    if rule.countries and country not in rule.countries:
        return "COUNTRY_NOT_IN_RULE", f"The rule takes {_listed(rule.countries)}, not {country}."
    value = money.decimal
    if rule.low is not None and value < rule.low:
        return "AMOUNT_BELOW_RULE", f"The rule takes amounts from {rule.low:f}; {value:f} is less."
    if rule.high is not None and value > rule.high:
        return "AMOUNT_ABOVE_RULE", f"The rule takes amounts up to {rule.high:f}; {value:f} is more."
    return "MATCHES", "The first rule that takes this currency, country and amount."


def _judge_apps(
    rule: Rule, apps_installed: Collection[str], direction: str, currency: str, country: str
) -> tuple[AppVerdict, ...]:
    verdicts: list[AppVerdict] = []
    chosen: AppId | None = None
    for choice in rule.apps:
        app_id = choice.app_id
        if app_id not in apps_installed:
            code, reason = "APP_NOT_INSTALLED", f"The app {app_id} is not installed in this tenant."
        else:
            code, reason = _obstacle(choice, direction, currency, country) or ("", "")
        if not code and chosen is None:
            chosen = app_id
            code, reason = "CHOSEN", "The first app of the rule that can carry the payment."
        elif not code:
            code, reason = "FALLBACK", f"Comes after {chosen} in the rule."
        verdicts.append(AppVerdict(app_id=app_id, code=code, reason=reason))
    return tuple(verdicts)


def _obstacle(choice: AppChoice, direction: str, currency: str, country: str) -> tuple[str, str] | None:
    """Why an app, were it installed, couldn't carry the payment; None when it could."""
    app = find_app(choice.app_id)
    if app is None:
        return "APP_NOT_FOUND", f"There is no app {choice.app_id} in the marketplace."
    if direction not in app.directions:
        return "APP_DOES_NOT_CARRY_DIRECTION", f"{app.name} doesn't carry {direction} payments."
    if app.currencies and currency not in app.currencies:
        return "APP_DOES_NOT_CARRY_CURRENCY", f"{app.name} carries {_listed(app.currencies)}, not {currency}."
    if app.countries and country not in app.countries:
        return "APP_DOES_NOT_REACH_COUNTRY", f"{app.name} doesn't reach {country}."
    if app.methods and not available_methods(app, choice):
        return "ALL_PAYMENT_METHODS_EXCLUDED", f"The rule leaves out every payment method of {app.name}."
    return None


def _spans(rules: Sequence[Rule], direction: str, currency: str, country: str) -> tuple[Span, ...]:
    exponent = EXPONENTS[currency]
    return tuple(
        (
            0 if rule.low is None else math.ceil(rule.low.scaleb(exponent)),
            math.inf if rule.high is None else math.floor(rule.high.scaleb(exponent)),
            any(_obstacle(choice, direction, currency, country) is None for choice in rule.apps),
        )
        for rule in rules
        if (not rule.currencies or currency in rule.currencies) and (not rule.countries or country in rule.countries)
    )


def _listed(codes: Collection[str]) -> str:
    shown = sorted(codes)
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
