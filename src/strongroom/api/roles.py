"""An account's own roles, what nobody may hold together, and why somebody may or may not do something."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from uuid import UUID
from zoneinfo import available_timezones

import msgspec

from strongroom.access import CUSTOM, Explanation, Payment, Permission
from strongroom.access.custom_roles import (
    LEVELS,
    MAX_PAIRS,
    NAME,
    Pair,
    create_role,
    end_role,
    get_conflicts,
    get_role,
    list_roles,
    permissions_of_level,
    put_conflicts,
    replace_role,
)
from strongroom.api.reading import Collector, Object, read_object
from strongroom.api.routing import Access, Call, OperationHandler, Reply, Route
from strongroom.database import Operation
from strongroom.kernel.custom_roles import MINUTES_OF_DAY, Ceiling, CustomRole, Hours
from strongroom.kernel.ids import ApiKeyId, PersonId
from strongroom.kernel.money import COUNTRIES, EXPONENTS, Money
from strongroom.people.explaining import explain_key, explain_person

MAX_LIST: Final = 300
"""Most entries of a list in a condition."""
DAYS: Final = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
_TIME: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00", re.ASCII)
_MAX_NAME: Final = 40


class CeilingBody(msgspec.Struct, rename="camel"):
    """The most in a currency: in one payment, and by one key or person on one day (UTC). null: no such ceiling."""

    currency: str
    per_payment: str | None = None
    per_day: str | None = None


class OfficeHoursBody(msgspec.Struct, rename="camel"):
    """When the role counts: on these days (`MONDAY`…), from `opens` to before `closes` (`24:00` ends a day)."""

    time_zone: str
    days: list[str]
    opens: str
    closes: str


class ConditionsBody(msgspec.Struct, rename="camel"):
    """On which conditions the role allows what it does; an empty list is no condition."""

    tenants: list[str] = []
    regions: list[str] = []
    countries: list[str] = []
    ceilings: list[CeilingBody] = []
    office_hours: OfficeHoursBody | None = None
    step_up: bool = False


class RoleBody(msgspec.Struct, rename="camel"):
    """A role. `role` is how keys and people hold it."""

    name: str
    role: str
    level: str
    permissions: list[str]
    denied: list[str]
    conditions: ConditionsBody


class RolesBody(msgspec.Struct, rename="camel"):
    """An account's own roles, and the permissions there are to choose from."""

    roles: list[RoleBody]
    account_permissions: list[str]
    tenant_permissions: list[str]


class RoleRequest(msgspec.Struct, rename="camel"):
    """What a role is to be. `level` is `account` or `tenant`; `denied` wins over whatever other roles allow."""

    level: str
    permissions: list[str] = []
    denied: list[str] = []
    conditions: ConditionsBody | None = None


class NewRoleRequest(RoleRequest, rename="camel"):
    """A role to be made."""

    name: str = ""


class ConflictsBody(msgspec.Struct, rename="camel"):
    """Pairs of permissions that nobody is granted together, but admins."""

    pairs: list[list[str]]


class PaymentQuestion(msgspec.Struct, rename="camel"):
    """A payment to ask about; `paidToday` is what was made before on the same day, in the same currency."""

    amount: str
    currency: str
    country: str
    paid_today: str | None = None


class ExplainRequest(msgspec.Struct, rename="camel"):
    """Who (a key, or on the account's level a person), and what."""

    permission: str
    public_key: str | None = None
    user_id: str | None = None
    payment: PaymentQuestion | None = None


class ExplanationBody(msgspec.Struct, rename="camel"):
    """The answer. `rules` are the policies that decided, `code` is what a refusal would carry."""

    allowed: bool
    sentence: str
    rules: list[str]
    code: str | None


async def _list(op: Operation, call: Call) -> Reply:
    roles = [_body(role) for role in await list_roles(op, call.services.databases)]
    account, tenant = (sorted(permissions_of_level(level)) for level in LEVELS)
    return Reply(200, RolesBody(roles, account, tenant))


async def _create(op: Operation, call: Call) -> Reply:
    source, found = read_object(call.body), Collector()
    name = found.text(source, "name", "NAME", max_length=_MAX_NAME, pattern=NAME)
    role = await _read(op, call, found, source, name)
    await create_role(op, call.services.databases, role)
    return Reply(201, _body(role))


async def _get(op: Operation, call: Call) -> Reply:
    return Reply(200, _body(await get_role(op, call.services.databases, call.path["name"])))


async def _put(op: Operation, call: Call) -> Reply:
    role = await _read(op, call, Collector(), read_object(call.body), call.path["name"])
    await replace_role(op, call.services.databases, role)
    return Reply(204)


async def _delete(op: Operation, call: Call) -> Reply:
    await end_role(op, call.services.databases, call.path["name"])
    return Reply(204)


async def _get_conflicts(op: Operation, call: Call) -> Reply:
    pairs = await get_conflicts(op, call.services.databases)
    return Reply(200, ConflictsBody([list(pair) for pair in pairs]))


async def _put_conflicts(op: Operation, call: Call) -> Reply:
    source, found = read_object(call.body), Collector()
    given = source.get("pairs")
    pairs: list[Pair] = []
    known = {permission.value for permission in Permission}
    if not isinstance(given, list):
        found.required("pairs", "PAIRS")
    elif len(given) > MAX_PAIRS:
        found.add("PAIRS_LIMIT_REACHED", "There are at most {limit} pairs.", limit=MAX_PAIRS)
    else:
        for pair in given:
            if isinstance(pair, list) and len(pair) == 2 and pair[0] != pair[1] and known.issuperset(map(str, pair)):
                pairs.append((pair[0], pair[1]))
            else:
                found.add("PAIRS_IS_INVALID", "A pair is a list of two different permissions.")
                break
    found.check()
    await put_conflicts(op, call.services.databases, pairs)
    return Reply(204)


async def _explain(op: Operation, call: Call) -> Reply:
    source, found = read_object(call.body), Collector()
    permission = found.choice(source, "permission", "PERMISSION", [item.value for item in Permission])
    key = found.uuid(source, "publicKey", "PUBLIC_KEY", required=False)
    person = found.uuid(source, "userId", "USER_ID", required=False) if op.tenant_id is None else None
    if (key is None) == (person is None) and not found.failures:
        found.add("PUBLIC_KEY_IS_REQUIRED", "Name a key (publicKey), or in an account a person (userId) instead.")
    payment = found.object(source, "payment", "PAYMENT", lambda item: _read_payment(found, item))
    found.check()
    databases, wanted = call.services.databases, Permission(permission)
    if key is not None:
        return Reply(200, _explanation(await explain_key(op, databases, ApiKeyId(key), wanted, payment)))
    assert person is not None  # noqa: S101  found.check() has seen to it
    return Reply(200, _explanation(await explain_person(op, databases, PersonId(person), wanted)))


def _read_payment(found: Collector, source: Object) -> Payment | None:
    country = found.country(source)
    currency = found.choice(source, "currency", "CURRENCY", EXPONENTS)
    if not currency:
        return None
    minor = _amount(found, source, "amount", "AMOUNT", currency, required=True) or 0
    before = _amount(found, source, "paidToday", "PAID_TODAY", currency) or 0
    return Payment(country=country, currency=currency, minor=minor, today=before + minor)


async def _read(op: Operation, call: Call, found: Collector, source: Object, name: str) -> CustomRole:
    """The role that a request describes. Raises errors.Invalid with all that is wrong."""
    level = found.choice(source, "level", "LEVEL", LEVELS)
    known = permissions_of_level(level) if level else frozenset(permission.value for permission in Permission)
    permissions = _choices(found, source, "permissions", "PERMISSIONS", known)
    denied = _choices(found, source, "denied", "DENIED", known)
    if not permissions and not denied and not found.failures:
        found.required("permissions", "PERMISSIONS")
    conditions = source.get("conditions")
    if conditions is not None and not isinstance(conditions, dict):
        found.add("CONDITIONS_IS_INVALID", "{field} must be an object.", field="conditions")
        conditions = None
    given: Object = conditions or {}
    databases = call.services.databases
    tenants = {str(tenant) for tenant, _ in await databases.list_tenants(op.account)}
    role = CustomRole(
        name=name,
        level=level,
        permissions=permissions,
        denied=denied,
        tenants=tuple(UUID(text) for text in _choices(found, given, "tenants", "TENANTS", tenants)),
        regions=_choices(found, given, "regions", "REGIONS", databases.regions),
        countries=_choices(found, given, "countries", "COUNTRIES", COUNTRIES),
        ceilings=_ceilings(found, given),
        hours=found.object(given, "officeHours", "OFFICE_HOURS", lambda item: _hours(found, item)),
        step_up=bool(found.flag(given, "stepUp", "STEP_UP")),
    )
    if role.limits_payments and Permission.TRANSACTIONS_WRITE.value not in permissions and not found.failures:
        found.add(
            "CONDITIONS_WITHOUT_PAYMENTS",
            "countries and ceilings are about payments; this role lacks {permission}.",
            permission=Permission.TRANSACTIONS_WRITE.value,
        )
    found.check()
    return role


def _choices(found: Collector, source: Object, field: str, code: str, choices: Collection[str]) -> tuple[str, ...]:
    """Any number of several words, each once."""
    value = source.get(field)
    if value is None or value == []:
        return ()
    if isinstance(value, list) and len(value) > MAX_LIST:
        found.add(f"{code}_LIMIT_REACHED", "{field} has at most {limit} entries.", field=field, limit=MAX_LIST)
        return ()
    return found.choices(source, field, code, choices)


def _ceilings(found: Collector, source: Object) -> tuple[Ceiling, ...]:
    value = source.get("ceilings")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_LIST or not all(isinstance(item, dict) for item in value):
        found.add("CEILINGS_IS_INVALID", "{field} must be a list of objects.", field="ceilings")
        return ()
    ceilings = []
    for item in value:
        currency = found.choice(item, "currency", "CURRENCY", EXPONENTS)
        if not currency:
            continue
        payment = _amount(found, item, "perPayment", "PER_PAYMENT", currency)
        day = _amount(found, item, "perDay", "PER_DAY", currency)
        if payment is None and day is None and not found.failures:
            found.required("perPayment", "PER_PAYMENT")
        ceilings.append(Ceiling(currency=currency, payment=payment, day=day))
    if len({ceiling.currency for ceiling in ceilings}) < len(ceilings):
        found.add("CEILINGS_IS_INVALID", "{field} has a currency twice.", field="ceilings")
    return tuple(ceilings)


def _amount(
    found: Collector, source: Object, field: str, code: str, currency: str, *, required: bool = False
) -> int | None:
    """An amount in smallest units, or None when it is left out."""
    text = found.text(source, field, code, max_length=20, required=required)
    if not text:
        return None
    try:
        return Money.parse(text, currency).minor
    except ValueError:
        found.add(
            f"{code}_IS_INVALID",
            "{field} must be an amount in {currency}, such as {example}.",
            field=field,
            currency=currency,
            example=str(Money(10 ** (EXPONENTS[currency] + 2), currency).decimal),
        )
        return None


def _hours(found: Collector, source: Object) -> Hours | None:
    zone = found.choice(source, "timeZone", "TIME_ZONE", available_timezones())
    days = found.choices(source, "days", "DAYS", DAYS)
    opens = _time(found, source, "opens", "OPENS")
    closes = _time(found, source, "closes", "CLOSES")
    if opens is None or closes is None or not zone or not days:
        return None
    if closes <= opens:
        found.add("CLOSES_OUT_OF_RANGE", "Office hours close after they open, on the same day.")
        return None
    return Hours(zone=zone, days=tuple(sorted(DAYS.index(day) + 1 for day in days)), opens=opens, closes=closes)


def _time(found: Collector, source: Object, field: str, code: str) -> int | None:
    text = found.text(source, field, code, max_length=5)
    if not text:
        return None
    if not _TIME.fullmatch(text):
        found.add(f"{code}_IS_INVALID", "{field} must be a time of day such as 08:30.", field=field)
        return None
    hours, _, minutes = text.partition(":")
    return min(60 * int(hours) + int(minutes), MINUTES_OF_DAY)


def _body(role: CustomRole) -> RoleBody:
    hours = role.hours
    return RoleBody(
        name=role.name,
        role=CUSTOM + role.name,
        level=role.level,
        permissions=list(role.permissions),
        denied=list(role.denied),
        conditions=ConditionsBody(
            tenants=[str(tenant) for tenant in role.tenants],
            regions=list(role.regions),
            countries=list(role.countries),
            ceilings=[
                CeilingBody(item.currency, _told(item.payment, item.currency), _told(item.day, item.currency))
                for item in role.ceilings
            ],
            office_hours=None
            if hours is None
            else OfficeHoursBody(
                hours.zone, [DAYS[day - 1] for day in hours.days], _clock(hours.opens), _clock(hours.closes)
            ),
            step_up=role.step_up,
        ),
    )


def _told(minor: int | None, currency: str) -> str | None:
    return None if minor is None else str(Money(minor, currency).decimal)


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _explanation(found: Explanation) -> ExplanationBody:
    return ExplanationBody(found.allowed, found.sentence, list(found.rules), found.refusal_code or None)


def _route(
    method: str,
    path: str,
    summary: str,
    handler: OperationHandler,
    replies: Mapping[int, Any],
    *,
    request: Any = None,
    access: Access = Access.ACCOUNT,
    permission: Permission | None = None,
) -> Route:
    return Route(
        method=method,
        path=path,
        summary=summary,
        tag="Roles",
        access=access,
        permission=permission or (Permission.ROLES_READ if method == "GET" else Permission.ROLES_MANAGE),
        operation=handler,
        request=request,
        replies=replies,
    )


_BASE: Final = "/v1/account/roles"
_ONE: Final = _BASE + "/{name}"
_CONFLICTS: Final = "/v1/account/role-conflicts"
ROUTES: Final[Sequence[Route]] = (
    _route("GET", _BASE, "The account's own roles", _list, {200: RolesBody}),
    _route("POST", _BASE, "Make a role", _create, {201: RoleBody}, request=NewRoleRequest),
    _route("GET", _ONE, "One of the account's own roles", _get, {200: RoleBody}),
    _route("PUT", _ONE, "Change a role, for all who hold it", _put, {204: None}, request=RoleRequest),
    _route("DELETE", _ONE, "End a role; its name is never given again", _delete, {204: None}),
    _route("GET", _CONFLICTS, "What nobody holds together", _get_conflicts, {200: ConflictsBody}),
    _route("PUT", _CONFLICTS, "Say what nobody holds together", _put_conflicts, {204: None}, request=ConflictsBody),
    _route(
        "POST", "/v1/account/explain", "Why a key or a person may do something in the account, or not", _explain,
        {200: ExplanationBody}, request=ExplainRequest, permission=Permission.USERS_READ,
    ),
    _route(
        "POST", "/v1/tenant/explain", "Why a key may do something in the tenant, or not", _explain,
        {200: ExplanationBody}, request=ExplainRequest, access=Access.TENANT, permission=Permission.TENANT_KEYS_MANAGE,
    ),
)  # fmt: skip
