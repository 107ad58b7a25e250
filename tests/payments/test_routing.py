"""Routing, against an independent model and case by case."""

from __future__ import annotations

import itertools
import timeit
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.kernel.ids import AppId, SchemeId
from strongroom.kernel.money import Money
from strongroom.payments.routing import (
    AppChoice,
    Choice,
    PublishedScheme,
    Rule,
    SchemeKind,
    choose,
    supports,
)
from strongroom.rails.contract import Direction
from strongroom.rails.marketplace import SEPA_COUNTRIES

SIMULATOR = AppId("simulator")
SEPA = AppId("sepa-credit-transfer")
BOTH = frozenset({SIMULATOR, SEPA})
DECIMALS = {"EUR": 2, "JPY": 0, "BHD": 3, "USD": 2}


def scheme(*rules: Rule, kind: SchemeKind = "payout") -> PublishedScheme:
    return PublishedScheme(scheme_id=SchemeId("A" * 32), kind=kind, rules=rules)


def rule(priority: int, *apps: AppId, **conditions: Any) -> Rule:
    return Rule(priority=priority, apps=tuple(AppChoice(app_id=app) for app in apps), **conditions)


def ask(asked: PublishedScheme, minor: int = 10_000, currency: str = "EUR", country: str = "DE") -> Choice:
    return choose(asked, BOTH, Direction.CREDIT, country, Money(minor, currency))


def codes(choice: Choice) -> list[tuple[str, list[str]]]:
    return [(verdict.code, [app.code for app in verdict.apps]) for verdict in choice.verdicts]


def test_first_app_is_chosen_and_the_next_are_fallbacks_in_order() -> None:
    choice = ask(scheme(rule(0, SEPA, SIMULATOR)))
    assert choice.apps == (SEPA, SIMULATOR)
    assert choice.priority == 0
    assert codes(choice) == [("MATCHES", ["CHOSEN", "FALLBACK"])]


def test_an_app_that_cannot_carry_the_payment_is_passed_over() -> None:
    choice = ask(scheme(rule(0, SEPA, SIMULATOR)), currency="USD")
    assert choice.apps == (SIMULATOR,)
    assert codes(choice) == [("MATCHES", ["APP_DOES_NOT_CARRY_CURRENCY", "CHOSEN"])]
    reason = choice.verdicts[0].apps[0].reason
    assert "SEPA credit transfer" in reason
    assert "USD" in reason


def test_the_first_matching_rule_wins_even_when_its_apps_cannot_carry_it() -> None:
    asked = scheme(rule(0, SEPA), rule(1, SIMULATOR))
    choice = ask(asked, currency="USD", country="US")
    assert choice.apps == ()
    assert choice.priority == 0
    assert codes(choice) == [
        ("MATCHES", ["APP_DOES_NOT_CARRY_CURRENCY"]),
        ("EARLIER_RULE_MATCHES", ["RULE_NOT_TAKEN"]),
    ]
    assert not supports(asked, Direction.CREDIT, "USD", "US", 10_000)


@pytest.mark.parametrize(
    ("conditions", "code"),
    [
        ({"currencies": frozenset({"CHF"})}, "CURRENCY_NOT_IN_RULE"),
        ({"countries": frozenset({"AT", "FR"})}, "COUNTRY_NOT_IN_RULE"),
        ({"low": Decimal("100.01")}, "AMOUNT_BELOW_RULE"),
        ({"high": Decimal("99.99")}, "AMOUNT_ABOVE_RULE"),
    ],
)
def test_why_a_rule_is_not_taken(conditions: dict[str, Any], code: str) -> None:
    choice = ask(scheme(rule(3, SIMULATOR, **conditions), rule(7, SIMULATOR)))
    assert codes(choice) == [(code, ["RULE_NOT_TAKEN"]), ("MATCHES", ["CHOSEN"])]
    assert choice.priority == 7


def test_values_are_inclusive_and_in_major_units_of_any_currency() -> None:
    asked = scheme(rule(0, SIMULATOR, low=Decimal("100"), high=Decimal("200.50")))

    def taken(currency: str, *minors: int) -> list[bool]:
        return [supports(asked, Direction.CREDIT, currency, "DE", minor) for minor in minors]

    assert taken("EUR", 9_999, 10_000, 20_050, 20_051) == [False, True, True, False]
    assert taken("JPY", 99, 100, 200, 201) == [False, True, True, False]
    assert taken("BHD", 99_999, 100_000, 200_500, 200_501) == [False, True, True, False]


def test_excluding_every_payment_method_leaves_an_app_out() -> None:
    excluded = AppChoice(app_id=SEPA, excluded_payment_methods=("sepa-credit-transfer",))
    asked = scheme(Rule(priority=0, apps=(excluded,)))
    assert codes(ask(asked)) == [("MATCHES", ["ALL_PAYMENT_METHODS_EXCLUDED"])]
    assert not supports(asked, Direction.CREDIT, "EUR", "DE", 1)


def test_an_app_that_is_not_installed_or_unknown_is_left_out() -> None:
    asked = scheme(rule(0, AppId("nobody"), SIMULATOR))
    choice = choose(asked, {"nobody"}, Direction.CREDIT, "DE", Money(1, "EUR"))
    assert choice.apps == ()
    assert codes(choice) == [("MATCHES", ["APP_NOT_FOUND", "APP_NOT_INSTALLED"])]


def test_a_scheme_serves_one_direction_only() -> None:
    collect, payout = scheme(rule(0, SIMULATOR), kind="collect"), scheme(rule(0, SIMULATOR))
    assert supports(collect, Direction.DEBIT, "EUR", "DE", 1)
    assert supports(payout, Direction.CREDIT, "EUR", "DE", 1)
    assert not supports(collect, Direction.CREDIT, "EUR", "DE", 1)
    assert not supports(payout, Direction.DEBIT, "EUR", "DE", 1)
    assert codes(ask(collect)) == [("DIRECTION_NOT_SERVED", ["RULE_NOT_TAKEN"])]


def test_nothing_published_carries_nothing() -> None:
    assert ask(scheme()) == Choice(apps=(), priority=None, verdicts=())
    assert not supports(scheme(), Direction.CREDIT, "EUR", "DE", 1)


AMOUNTS = st.integers(0, 400).map(lambda quarters: Decimal(quarters) / 4)
RULES = st.builds(
    Rule,
    priority=st.just(0),
    currencies=st.frozensets(st.sampled_from(sorted(DECIMALS)), max_size=2),
    countries=st.frozensets(st.sampled_from(["DE", "US", "CH"]), max_size=2),
    low=st.none() | AMOUNTS,
    high=st.none() | AMOUNTS,
    apps=st.lists(
        st.builds(
            AppChoice,
            app_id=st.sampled_from([SIMULATOR, SEPA]),
            excluded_payment_methods=st.sampled_from([(), ("bank-transfer",), ("sepa-credit-transfer",)]),
        ),
        max_size=2,
        unique_by=lambda choice: choice.app_id,
    ).map(tuple),
)


class Question(NamedTuple):
    """Whether `rules` carry a payment."""

    rules: list[Rule]
    kind: str
    direction: str
    currency: str
    country: str
    minor: int


def model(question: Question, installed: frozenset[AppId]) -> list[str]:
    """What the wire contract says, told once more and naively, in fractions."""
    rules, kind, direction, currency, country, minor = question
    if {"DEBIT": "collect", "CREDIT": "payout"}[direction] != kind:
        return []
    value = Fraction(minor, 10 ** DECIMALS[currency])
    matching = [
        rule
        for rule in rules
        if (not rule.currencies or currency in rule.currencies)
        and (not rule.countries or country in rule.countries)
        and (rule.low is None or Fraction(rule.low) <= value)
        and (rule.high is None or value <= Fraction(rule.high))
    ]
    carried: list[str] = []
    for choice in matching[0].apps if matching else ():
        if choice.app_id not in installed:
            continue
        if choice.app_id == "sepa-credit-transfer":
            if "sepa-credit-transfer" in choice.excluded_payment_methods:
                continue
            if not (direction == "CREDIT" and currency == "EUR" and country in SEPA_COUNTRIES):
                continue
        carried.append(choice.app_id)
    return carried


@given(
    rules=st.lists(RULES, max_size=5),
    kind=st.sampled_from(["collect", "payout"]),
    installed=st.frozensets(st.sampled_from([SIMULATOR, SEPA])),
    direction=st.sampled_from(list(Direction)),
    currency=st.sampled_from(sorted(DECIMALS)),
    country=st.sampled_from(["DE", "US", "CH"]),
    quarter_minors=st.integers(1, 120_000),
)
def test_routing_agrees_with_the_model(
    *,
    rules: list[Rule],
    kind: SchemeKind,
    installed: frozenset[AppId],
    direction: Direction,
    currency: str,
    country: str,
    quarter_minors: int,
) -> None:
    asked = scheme(*rules, kind=kind)
    minor = max(1, quarter_minors * 10 ** DECIMALS[currency] // 1_000)
    question = Question(rules, kind, direction, currency, country, minor)
    choice = choose(asked, installed, direction, country, Money(minor, currency))
    assert list(choice.apps) == model(question, installed)
    assert len(choice.verdicts) == len(rules)
    everything = model(question, BOTH)
    for _ in range(2):  # worked out, then remembered
        assert supports(asked, direction, currency, country, minor) is bool(everything)


def test_supports_is_fast_enough_for_every_instruction() -> None:
    asked = scheme(*(rule(n, SIMULATOR, high=Decimal(n * 10)) for n in range(1, 5)), rule(9, SEPA, SIMULATOR))
    pairs = list(itertools.product(["EUR", "USD"], ["DE", "US"]))
    for currency, country in pairs:
        supports(asked, Direction.CREDIT, currency, country, 10_000)
    best = min(timeit.repeat(lambda: supports(asked, "CREDIT", "EUR", "DE", 10_000), number=2_000, repeat=7))
    assert best / 2_000 < 20e-6  # the aim is 2 µs; a machine shared with others gets room
