"""Policies and decisions: Cedar says what the tables of built-in roles said, and roles' conditions hold."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cedarpy
import pytest

from strongroom.access import ACCOUNT_ROLES, TENANT_ROLES, Payment, Permission, Situation, allows, explain, policies
from strongroom.access.decision import holds_always, permissions_of
from strongroom.access.rendering import rendered
from strongroom.kernel.actors import STRANGER, Actor, ActorKind, system
from strongroom.kernel.custom_roles import Ceiling, CustomRole, Hours
from strongroom.kernel.errors import Broken
from strongroom.kernel.ids import AccountId, TenantId, new_uuid
from strongroom.trust.checks.privileges import read_table

ACCOUNT, TENANT = AccountId(new_uuid()), TenantId(new_uuid())
MONDAY = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
SEVEN = MONDAY.replace(hour=7)
"""Eight, in Zurich in winter."""
WRITE, READ = Permission.TRANSACTIONS_WRITE, Permission.TRANSACTIONS_READ
POLICIES = Path(policies.__file__).parent / "policies"


def holder(*roles: str, custom: tuple[CustomRole, ...] = (), tenant: TenantId | None = TENANT) -> Actor:
    named = {f"custom:{role.name}" for role in custom}
    return Actor(
        kind=ActorKind.API_KEY,
        name="a-key",
        account_id=ACCOUNT,
        tenant_id=tenant,
        roles=frozenset({*roles, *named}),
        custom_roles=custom,
    )


def there(**changed: object) -> Situation:
    return replace(Situation(account_id=ACCOUNT, tenant_id=TENANT, region="eu", now=MONDAY), **changed)  # type: ignore[arg-type]  # the tests' own keywords


def clerk(**conditions: object) -> CustomRole:
    made = CustomRole(name="clerk", level="tenant", permissions=(READ.value, WRITE.value))
    return CustomRole(**{name: getattr(made, name) for name in made.__struct_fields__} | conditions)


def paid(minor: int = 100, today: int | None = None, currency: str = "EUR", country: str = "DE") -> Payment:
    return Payment(country=country, currency=currency, minor=minor, today=minor if today is None else today)


def test_every_verdict_is_what_the_table_says() -> None:
    table = read_table()
    assert table.keys() == {permission.value for permission in Permission}
    for permission, row in table.items():
        assert row.keys() == ACCOUNT_ROLES | TENANT_ROLES
        for role, verdict in row.items():
            asked = holder(role, tenant=None if role in ACCOUNT_ROLES else TENANT)
            assert allows(asked, Permission(permission)) == verdict, (role, permission)


def test_the_policies_fit_their_schema_and_it_knows_every_permission() -> None:
    texts = {path.name: path.read_text() for path in POLICIES.glob("*.cedar")}
    assert texts.keys() == {"places.cedar", "account_roles.cedar", "tenant_roles.cedar"}
    assert [error for text in texts.values() for error in policies.check_text(text)] == []
    for permission in Permission:
        assert policies.check_text(f'permit (principal, action == Strongroom::Action::"{permission}", resource);') == []
    assert policies.check_text('permit (principal, action == Strongroom::Action::"money:print", resource);') != []
    assert policies.check_text("permit (principal, action, resource) when { context.mood };") != []


def test_policies_that_dont_fit_let_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "_text", lambda name: "permit (principal, action, resource) when { context.mood };")
    policies._read.cache_clear()
    try:
        with pytest.raises(Broken) as refused:
            policies._read("places.cedar")
    finally:
        policies._read.cache_clear()
    assert refused.value.code == "POLICIES_INVALID"


def test_a_weakened_policy_is_noticed() -> None:
    """The golden table is of the engine's verdicts: one permission more in the text, and they differ."""
    text = (POLICIES / "tenant_roles.cedar").read_text()
    action = f'Strongroom::Action::"{READ}"'
    head, role, tail = text.partition('@id("tenant-transaction-read")')
    weakened = cedarpy.PolicySet.from_str(
        head + role + tail.replace(action, f'{action}, Strongroom::Action::"{WRITE}"', 1)
    )
    principal = policies.Principal(kind="ApiKey", name="", account="a", tenant="t", roles=["tenant-transaction-read"])
    place = policies.Place(account="a", tenant="t")
    plain = {"region": "", "steppedUp": False, "withinHours": []}
    assert policies.ask(weakened, principal, WRITE, place, plain).allowed
    assert not policies.ask(policies.built_in(), principal, WRITE, place, plain).allowed


@pytest.mark.parametrize(
    ("asked", "situation", "code"),
    [
        (holder("tenant-admin"), there(), ""),
        (holder("tenant-admin"), there(tenant_id=TenantId(new_uuid())), "FORBIDDEN"),
        (holder("tenant-admin"), there(account_id=AccountId(new_uuid())), "FORBIDDEN"),
        (holder("tenant-admin"), there(tenant_id=None), "FORBIDDEN"),
        (holder("tenant-admin"), there(account_id=None, tenant_id=None), "FORBIDDEN"),
        (holder("tenant-admin", tenant=None), there(tenant_id=None), "FORBIDDEN"),
        (holder("account-admin", tenant=None), there(tenant_id=None), "FORBIDDEN"),
        (holder("tenant-transaction-read"), there(), "FORBIDDEN"),
        (holder(), there(), "FORBIDDEN"),
        (STRANGER, there(), "FORBIDDEN"),
        (system("dispatch"), there(), ""),
    ],
)
def test_nobody_reaches_beyond_their_place(asked: Actor, situation: Situation, code: str) -> None:
    found = explain(asked, WRITE, situation)
    assert (found.allowed, found.refusal_code) == (not code, code)


def test_an_account_reaches_into_its_tenants_only() -> None:
    account = holder("account-tenant-read", tenant=None)
    assert explain(account, Permission.TENANTS_READ, there()).allowed
    found = explain(account, Permission.TENANTS_READ, there(account_id=AccountId(new_uuid())))
    assert not found.allowed
    assert found.rules == ("another-account",)


def francs(minor: int) -> Payment:
    return paid(minor, currency="CHF")


SWISS_HOURS = Hours(zone="Europe/Zurich", days=(1, 2, 3, 4, 5), opens=8 * 60, closes=18 * 60)
EUROS = (Ceiling(currency="EUR", payment=1_000, day=5_000), Ceiling(currency="CHF", day=10))


@pytest.mark.parametrize(
    ("conditions", "holds", "fails", "code"),
    [
        ({"tenants": (TENANT,)}, {}, None, ""),
        ({"tenants": (new_uuid(),)}, None, {}, "TENANT_NOT_IN_ROLE"),
        ({"regions": ("eu",)}, {}, {"region": "ch"}, "REGION_NOT_IN_ROLE"),
        ({"hours": SWISS_HOURS}, {}, {"now": MONDAY + timedelta(days=6)}, "OUTSIDE_OFFICE_HOURS"),
        ({"hours": SWISS_HOURS}, {"now": SEVEN}, {"now": SEVEN.replace(hour=17)}, "OUTSIDE_OFFICE_HOURS"),
        # In summer the same wall clock is another hour of UTC.
        (
            {"hours": SWISS_HOURS},
            {"now": datetime(2026, 7, 6, 6, 0, tzinfo=UTC)},
            {"now": datetime(2026, 7, 6, 16, 0, tzinfo=UTC)},
            "OUTSIDE_OFFICE_HOURS",
        ),
        ({"countries": ("DE", "CH")}, {"payment": paid()}, {"payment": paid(country="FR")}, "COUNTRY_NOT_IN_ROLE"),
        ({"ceilings": EUROS}, {"payment": paid(1_000)}, {"payment": paid(1_001)}, "AMOUNT_OVER_CEILING"),
        ({"ceilings": EUROS}, {"payment": paid(1, 5_000)}, {"payment": paid(1, 5_001)}, "DAY_CEILING_REACHED"),
        ({"ceilings": EUROS}, {"payment": francs(10)}, {"payment": francs(11)}, "DAY_CEILING_REACHED"),
        ({"ceilings": EUROS}, {}, {"payment": paid(1, currency="USD")}, "CURRENCY_NOT_IN_ROLE"),
        ({"step_up": True}, None, {}, "STEP_UP_REQUIRED"),
    ],
)  # fmt: skip
def test_conditions(
    conditions: dict[str, object], holds: dict[str, object] | None, fails: dict[str, object] | None, code: str
) -> None:
    asked = holder(custom=(clerk(**conditions),))
    if holds is not None:
        found = explain(asked, WRITE, there(**holds))
        assert found.allowed, found.sentence
        assert found.rules == ("custom:clerk",)
    if fails is not None:
        found = explain(asked, WRITE, there(**fails))
        assert (found.allowed, found.refusal_code) == (False, code), found.sentence
        assert "custom:clerk" in found.sentence
    assert not holds_always(asked, WRITE)


def test_a_fresh_proof_steps_up_and_an_old_one_doesnt() -> None:
    person = replace(holder(custom=(clerk(step_up=True),)), kind=ActorKind.PERSON, proven_at=MONDAY)
    assert explain(person, WRITE, there(now=MONDAY + timedelta(minutes=4))).allowed
    assert explain(person, WRITE, there(now=MONDAY + timedelta(minutes=6))).refusal_code == "STEP_UP_REQUIRED"


def test_what_is_denied_wins() -> None:
    never = CustomRole(name="never", level="tenant", denied=(WRITE.value,))
    asked = holder("tenant-admin", custom=(never, clerk()))
    found = explain(asked, WRITE, there())
    assert (found.refusal_code, found.rules) == ("DENIED_BY_ROLE", ("custom:never/denied",))
    assert not allows(asked, WRITE)
    assert explain(asked, READ, there()).allowed
    assert allows(asked, READ)


def test_what_was_allowed_without_conditions_stays_so_beside_a_role_with_some() -> None:
    asked = holder("tenant-transaction-write", custom=(clerk(ceilings=EUROS),))
    assert explain(asked, WRITE, there(payment=paid(9_999_999))).allowed


def test_a_role_that_came_to_nothing_allows_nothing() -> None:
    asked = replace(holder(custom=(clerk(),)), custom_roles=())
    assert explain(asked, WRITE, there()).refusal_code == "FORBIDDEN"


def test_nothing_that_is_typed_becomes_policy() -> None:
    """A name that would end the text of a policy and begin another stays a value."""
    evil = 'x"); permit(principal, action, resource); //'
    role = CustomRole(name=evil, level="tenant", permissions=(READ.value,), countries=(evil,), regions=(evil,))
    asked = holder(custom=(role,))
    assert explain(asked, WRITE, there(region=evil)).refusal_code == "FORBIDDEN"
    assert explain(asked, READ, there(region=evil)).allowed
    made = json.loads(cedarpy.policies_to_json_str(policies_text(role)))["staticPolicies"]
    assert len(made) == 1


def policies_text(role: CustomRole) -> str:
    document = {"staticPolicies": dict(rendered(role)), "templates": {}, "templateLinks": []}
    return cedarpy.policies_from_json_str(json.dumps(document))


def test_every_condition_at_once_makes_a_policy_that_fits_the_schema() -> None:
    role = clerk(
        denied=("customers:open",), tenants=(TENANT,), regions=("eu",), countries=("DE",), ceilings=EUROS,
        hours=SWISS_HOURS, step_up=True,
    )  # fmt: skip
    assert policies.check_rendered(role) == []


def test_permissions_of_roles_add_up() -> None:
    together = permissions_of(frozenset({"tenant-app-read", "tenant-card-write", "nothing-known"}))
    assert together == {Permission.APPS_READ, Permission.CARDS_WRITE}
