"""The decision: may this actor do this here, and why?

`require` is the lock of every domain function; Cedar turns it. What depends on nothing but built-in roles is asked once
for each set of roles and kept; what an account's own roles with conditions allow is asked every time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final
from uuid import UUID

from strongroom.access import policies
from strongroom.access.policies import NOWHERE, Place, Principal, Verdict
from strongroom.access.rendering import DENIED, Condition, conditions_of, name_of
from strongroom.access.roles import CUSTOM, WITHOUT_ROUTES, Permission
from strongroom.database import Operation
from strongroom.kernel.actors import Actor, ActorKind
from strongroom.kernel.custom_roles import CustomRole
from strongroom.kernel.errors import Failure, Forbidden

MAX_KEPT: Final = 50_000
"""Most decisions that a process keeps."""
PROVEN_FOR: Final = timedelta(minutes=5)
"""For how long a proof of who somebody is counts as a step up."""
ACCOUNT_ROLES: Final = policies.roles_of_level("account")
"""Built-in roles that an account's key can hold."""
TENANT_ROLES: Final = policies.roles_of_level("tenant") | WITHOUT_ROUTES
"""Built-in roles that a tenant's key can hold."""
_PLACES: Final[Mapping[str, Place]] = {
    "own account": Place(account="own"),
    "own tenant": Place(account="own", tenant="own"),
    "another tenant": Place(account="own", tenant="another"),
    "another account": Place(account="another"),
    "nowhere": NOWHERE,
}
"""Where it is, told as seen by the actor (`own` is what it acts for): so decisions are few, and can be kept."""
_HOLDERS: Final = {ActorKind.API_KEY: "ApiKey", ActorKind.PERSON: "Person"}
_PLAIN: Final[Mapping[str, object]] = {"region": "", "steppedUp": False, "withinHours": []}


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment as conditions see it: amounts in the currency's smallest unit, `today` with it and all before it."""

    country: str
    currency: str
    minor: int
    today: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """What is told when one of a role's conditions doesn't hold."""

    refusal_code: str
    only: str


_STOPS: Final[Mapping[Condition, Stop]] = {
    Condition.TENANT: Stop(refusal_code="TENANT_NOT_IN_ROLE", only="only in other tenants"),
    Condition.REGION: Stop(refusal_code="REGION_NOT_IN_ROLE", only="only in other regions"),
    Condition.HOURS: Stop(refusal_code="OUTSIDE_OFFICE_HOURS", only="only within its office hours"),
    Condition.STEP_UP: Stop(
        refusal_code="STEP_UP_REQUIRED", only="only within minutes of a proof of who asks, which API keys can't give"
    ),
    Condition.COUNTRY: Stop(refusal_code="COUNTRY_NOT_IN_ROLE", only="only for payments of other countries"),
    Condition.CURRENCY: Stop(refusal_code="CURRENCY_NOT_IN_ROLE", only="only in currencies that it has ceilings for"),
    Condition.PAYMENT: Stop(refusal_code="AMOUNT_OVER_CEILING", only="only up to its ceiling for one payment"),
    Condition.DAY: Stop(refusal_code="DAY_CEILING_REACHED", only="only up to its ceiling for one day"),
}
"""In the order in which they are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Where and when something is asked."""

    account_id: UUID | None
    tenant_id: UUID | None
    region: str
    now: datetime
    payment: Payment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why somebody may or may not. `rules` are the ids of the policies; `refusal_code` is empty when it is allowed."""

    allowed: bool
    sentence: str
    rules: tuple[str, ...] = ()
    refusal_code: str = ""


def allows(actor: Actor, permission: Permission) -> bool:
    """Whether the actor's roles hold the permission at all, where it belongs; conditions are left to `require`.

    Our own processes and the installation's operator hold all.
    """
    if not is_within_scopes(actor, permission):
        return False
    if not actor.custom_roles:
        return _kept(actor, permission, _own_place(actor)).allowed
    if _names(actor.custom_roles, permission, denied=True):
        return False
    return _names(actor.custom_roles, permission) or _kept(actor, permission, _own_place(actor)).allowed


def is_within_scopes(actor: Actor, permission: Permission) -> bool:
    """Whether the token that the actor came with is good for the permission at all (RFC 6749 section 3.3)."""
    return actor.scopes is None or permission.value in actor.scopes


def require_held(actor: Actor, permission: Permission) -> None:
    """Go on only if the actor's roles hold the permission at all (see `allows`). For the door; `require` is the lock.

    Raises errors.Forbidden (`FORBIDDEN`, `DENIED_BY_ROLE`).
    """
    if allows(actor, permission):
        return
    if not is_within_scopes(actor, permission):
        raise _refusal(_out_of_scope(permission), permission)
    for role in actor.custom_roles:
        if permission in role.denied:
            raise _refusal(_denied(name_of(role), permission, ()), permission)
    raise _refusal(_not_included(actor, permission), permission)


def require(op: Operation, permission: Permission, payment: Payment | None = None) -> None:
    """Go on only if the operation's actor holds the permission, here and now, and for this payment if there is one.

    Raises errors.Forbidden: `FORBIDDEN` when no role includes it, else the code of what stopped it (see `Condition`;
    `DENIED_BY_ROLE`).
    """
    actor = op.actor
    if not is_within_scopes(actor, permission):
        raise _refusal(_out_of_scope(permission), permission)
    if not actor.custom_roles:
        if _kept(actor, permission, _place(actor, op.account_id, op.tenant_id)).allowed:
            return
    elif _asked(actor, permission, situation_of(op, payment)).allowed:
        return
    raise _refusal(explain(actor, permission, situation_of(op, payment)), permission)


def situation_of(op: Operation, payment: Payment | None = None) -> Situation:
    """An operation's situation."""
    return Situation(account_id=op.account_id, tenant_id=op.tenant_id, region=op.region, now=op.now, payment=payment)


def explain(actor: Actor, permission: Permission, situation: Situation) -> Explanation:
    """Why the actor may or may not do this there and then, in a sentence."""
    if not is_within_scopes(actor, permission):
        return _out_of_scope(permission)
    verdict = (
        _asked(actor, permission, situation)
        if actor.custom_roles
        else _kept(actor, permission, _place(actor, situation.account_id, situation.tenant_id))
    )
    wanted = permission.value
    if verdict.allowed:
        return Explanation(allowed=True, sentence=_allowed(verdict, wanted), rules=verdict.by)
    for rule in verdict.by:
        if rule.endswith(DENIED):
            return _denied(rule.removesuffix(DENIED), permission, verdict.by)
    if verdict.by:
        sentence = f"This needs {wanted} in another account or tenant than the one that the credential is for."
        return Explanation(allowed=False, sentence=sentence, rules=verdict.by, refusal_code="FORBIDDEN")
    for role in actor.custom_roles:
        if wanted in role.permissions and (failing := _failing(actor, permission, situation, role)):
            stop = _STOPS[failing[0]]
            sentence = f"The role {name_of(role)} includes {wanted}, but {stop.only}."
            return Explanation(allowed=False, sentence=sentence, rules=(name_of(role),), refusal_code=stop.refusal_code)
    return _not_included(actor, permission)


@lru_cache(maxsize=4096)
def permissions_of(roles: frozenset[str]) -> frozenset[Permission]:
    """What built-in roles allow together, each at its own level; others allow nothing."""
    return frozenset(
        permission
        for permission in Permission
        for home in ("own account", "own tenant")
        if _decided("ApiKey", roles, permission, home, home).allowed
    )


def may_allow(roles: Collection[str]) -> frozenset[Permission]:
    """What roles can ever allow: a role of an account's own can be given anything."""
    if any(role.startswith(CUSTOM) for role in roles):
        return frozenset(Permission)
    return permissions_of(frozenset(roles))


def holds_always(actor: Actor, permission: Permission) -> bool:
    """Whether the actor holds the permission where it belongs, on no condition at all."""
    if not is_within_scopes(actor, permission) or _names(actor.custom_roles, permission, denied=True):
        return False
    return _kept(actor, permission, _own_place(actor)).allowed or any(
        permission in role.permissions and not role.is_conditional for role in actor.custom_roles
    )


def limits(actor: Actor, permission: Permission) -> tuple[CustomRole, ...]:
    """The actor's roles by which it matters which payment is made; none when a built-in role allows every one."""
    if not actor.custom_roles or _kept(actor, permission, _place(actor, actor.account_id, actor.tenant_id)).allowed:
        return ()
    return tuple(role for role in actor.custom_roles if permission in role.permissions and role.limits_payments)


def _refusal(explanation: Explanation, permission: Permission) -> Forbidden:
    values = {"reason": explanation.sentence, "permission": permission.value}
    is_plain = explanation.refusal_code == "FORBIDDEN"
    return Forbidden(Failure("FORBIDDEN" if is_plain else explanation.refusal_code, "{reason}", values))


def _denied(role: str, permission: Permission, rules: tuple[str, ...]) -> Explanation:
    sentence = f"The role {role} denies {permission.value}; what is denied wins over what is allowed."
    return Explanation(allowed=False, sentence=sentence, rules=rules, refusal_code="DENIED_BY_ROLE")


def _out_of_scope(permission: Permission) -> Explanation:
    sentence = f"This needs the permission {permission.value}, which the token's scopes leave out."
    return Explanation(allowed=False, sentence=sentence, refusal_code="FORBIDDEN")


def _not_included(actor: Actor, permission: Permission) -> Explanation:
    held = ", ".join(sorted(actor.roles)) or "none"
    sentence = f"This needs the permission {permission.value}, which the roles held here ({held}) don't include."
    return Explanation(allowed=False, sentence=sentence, refusal_code="FORBIDDEN")


def _allowed(verdict: Verdict, wanted: str) -> str:
    if "own-processes" in verdict.by:
        return f"The installation's own processes, and whoever is at its command line, may do {wanted}."
    roles = " and ".join(verdict.by)
    return f"The role {roles} includes {wanted}." if len(verdict.by) == 1 else f"The roles {roles} include {wanted}."


def _names(roles: Collection[CustomRole], permission: Permission, *, denied: bool = False) -> bool:
    return any(permission in (role.denied if denied else role.permissions) for role in roles)


def _own_place(actor: Actor) -> str:
    return "own account" if actor.tenant_id is None else "own tenant"


def _place(actor: Actor, account: UUID | None, tenant: UUID | None) -> str:
    """One of `_PLACES`."""
    if account is None:
        return "nowhere"
    if actor.account_id is not None and actor.account_id != account:
        return "another account"
    if tenant is None:
        return "own account"
    return "own tenant" if actor.tenant_id is None or actor.tenant_id == tenant else "another tenant"


def _kept(actor: Actor, permission: Permission, place: str) -> Verdict:
    """The decision by built-in roles alone."""
    kind = _HOLDERS.get(actor.kind)
    if kind is None:
        if actor.kind is ActorKind.STRANGER:
            return Verdict(allowed=False, by=())
        return _decided("Process", frozenset(), permission, "", place)
    return _decided(kind, actor.roles, permission, _own_place(actor), place)


@lru_cache(maxsize=MAX_KEPT)
def _decided(kind: str, roles: frozenset[str], permission: Permission, home: str, place: str) -> Verdict:
    held = {role for role in roles if not role.startswith(CUSTOM)}
    own = _PLACES.get(home)
    principal = Principal(
        kind=kind, name="", account=own.account if own else None, tenant=own.tenant if own else None, roles=held
    )
    return policies.ask(policies.built_in(), principal, permission.value, _PLACES[place], _PLAIN)


def _asked(actor: Actor, permission: Permission, situation: Situation) -> Verdict:
    """The decision with the account's own roles, in this very situation."""
    return policies.ask(
        policies.with_custom(actor.custom_roles),
        _principal(actor),
        permission.value,
        _real_place(situation),
        _circumstances(actor, situation),
    )


def _failing(actor: Actor, permission: Permission, situation: Situation, role: CustomRole) -> list[Condition]:
    """The role's conditions that don't hold, in the order in which they are told."""
    alone = policies.conditions_alone(role)
    circumstances = _circumstances(actor, situation)
    verdict = policies.ask(alone, _principal(actor), permission.value, _real_place(situation), circumstances)
    bound = conditions_of(role)
    return [condition for condition in _STOPS if condition.value in bound and condition.value not in verdict.by]


def _principal(actor: Actor) -> Principal:
    known = {name_of(role) for role in actor.custom_roles}
    return Principal(
        kind=_HOLDERS[actor.kind],
        name=actor.name,
        account=str(actor.account_id),
        tenant=None if actor.tenant_id is None else str(actor.tenant_id),
        roles=[role for role in actor.roles if role in known or not role.startswith(CUSTOM)],
    )


def _real_place(situation: Situation) -> Place:
    if situation.account_id is None:
        return NOWHERE
    tenant = None if situation.tenant_id is None else str(situation.tenant_id)
    return Place(account=str(situation.account_id), tenant=tenant)


def _circumstances(actor: Actor, situation: Situation) -> Mapping[str, object]:
    proven = actor.proven_at is not None and situation.now - actor.proven_at < PROVEN_FOR
    within = [
        name_of(role) for role in actor.custom_roles if role.hours is not None and role.hours.include(situation.now)
    ]
    circumstances: dict[str, object] = {"region": situation.region, "steppedUp": proven, "withinHours": within}
    if (payment := situation.payment) is not None:
        circumstances["payment"] = {
            "country": payment.country,
            "currency": payment.currency,
            "minor": payment.minor,
            "today": payment.today,
        }
    return circumstances
