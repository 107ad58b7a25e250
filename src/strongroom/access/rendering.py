"""An account's own role as Cedar policies.

A role becomes data in Cedar's JSON form of policies, never text: whatever somebody types into a name stays a value. It
comes to at most two policies: a `permit` with all of its conditions, and a `forbid` without any. So a role that denies
something does so on every day and from everywhere, and wins over all that permits.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from functools import reduce
from typing import Any, Final

from strongroom.access.roles import CUSTOM
from strongroom.kernel.custom_roles import Ceiling, CustomRole

Json = dict[str, Any]
DENIED: Final = "/denied"
"""What the id of a role's `forbid` ends with."""


class Condition(enum.StrEnum):
    """What a role can be bound to."""

    TENANT = "tenant"
    REGION = "region"
    HOURS = "hours"
    STEP_UP = "step-up"
    COUNTRY = "country"
    CURRENCY = "currency"
    PAYMENT = "payment"
    DAY = "day"


def name_of(role: CustomRole) -> str:
    """The role's name among all roles, as keys and people hold it."""
    return CUSTOM + role.name


def uid(kind: str, name: str) -> dict[str, str]:
    """An entity's identity."""
    return {"type": f"Strongroom::{kind}", "id": name}


def rendered(role: CustomRole) -> Mapping[str, Json]:
    """The role's policies by their ids."""
    name = name_of(role)
    policies = {}
    if role.permissions:
        policies[name] = _policy("permit", name, role.permissions, list(_tests(role).values()))
    if role.denied:
        policies[name + DENIED] = _policy("forbid", name, role.denied, [])
    return policies


def conditions_of(role: CustomRole) -> Mapping[str, Json]:
    """Each of the role's conditions as a policy of its own, its id the condition's value."""
    return {
        condition.value: _policy("permit", name_of(role), role.permissions, [test])
        for condition, test in _tests(role).items()
    }


def _policy(effect: str, role: str, permissions: Collection[str], tests: Collection[Json]) -> Json:
    return {
        "effect": effect,
        "principal": {"op": "in", "entity": uid("Role", role)},
        "action": {"op": "in", "entities": [uid("Action", permission) for permission in sorted(permissions)]},
        "resource": {"op": "All"},
        "conditions": [{"kind": "when", "body": test} for test in tests],
    }


def _tests(role: CustomRole) -> Mapping[Condition, Json]:
    """What has to be true, by condition. What is about payments holds for whatever isn't one."""
    tests: dict[Condition, Json] = {}
    if role.tenants:
        tenants = [{"Value": {"__entity": uid("Tenant", str(tenant))}} for tenant in sorted(role.tenants)]
        is_tenant = {"is": {"left": {"Var": "resource"}, "entity_type": "Strongroom::Tenant"}}
        tests[Condition.TENANT] = _and(is_tenant, _contains(tenants, {"Var": "resource"}))
    if role.regions:
        tests[Condition.REGION] = _contains(_values(role.regions), _circumstance("region"))
    if role.hours is not None:
        name = {"Value": name_of(role)}
        tests[Condition.HOURS] = {"contains": {"left": _circumstance("withinHours"), "right": name}}
    if role.step_up:
        tests[Condition.STEP_UP] = _circumstance("steppedUp")
    if role.countries:
        tests[Condition.COUNTRY] = _of_payment(_contains(_values(role.countries), _payment("country")))
    if role.ceilings:
        currencies = [ceiling.currency for ceiling in role.ceilings]
        tests[Condition.CURRENCY] = _of_payment(_contains(_values(currencies), _payment("currency")))
        each = [_unless_above(ceiling, ceiling.payment, "minor") for ceiling in role.ceilings]
        tests[Condition.PAYMENT] = _of_payment(reduce(_and, each))
        day = [_unless_above(ceiling, ceiling.day, "today") for ceiling in role.ceilings]
        tests[Condition.DAY] = _of_payment(reduce(_and, day))
    return tests


def _unless_above(ceiling: Ceiling, limit: int | None, attribute: str) -> Json:
    """Another currency, or not above the limit."""
    other = {"!=": {"left": _payment("currency"), "right": {"Value": ceiling.currency}}}
    if limit is None:
        return {"Value": True}
    return {"||": {"left": other, "right": {"<=": {"left": _payment(attribute), "right": {"Value": limit}}}}}


def _of_payment(test: Json) -> Json:
    is_one = {"has": {"left": {"Var": "context"}, "attr": "payment"}}
    return {"if-then-else": {"if": is_one, "then": test, "else": {"Value": True}}}


def _and(left: Json, right: Json) -> Json:
    return {"&&": {"left": left, "right": right}}


def _contains(values: Collection[Json], value: Json) -> Json:
    return {"contains": {"left": {"Set": list(values)}, "right": value}}


def _values(texts: Collection[str]) -> list[Json]:
    return [{"Value": text} for text in sorted(texts)]


def _circumstance(name: str) -> Json:
    return {".": {"left": {"Var": "context"}, "attr": name}}


def _payment(name: str) -> Json:
    return {".": {"left": _circumstance("payment"), "attr": name}}
