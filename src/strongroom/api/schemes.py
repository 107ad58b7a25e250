"""Collect and payout schemes: drafts, rules, publishing, and why a payment would go where it goes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, UnsetType

from strongroom.access import Permission
from strongroom.api.reading import Collector, Number, Object, read_object
from strongroom.api.routing import Access, Call, OperationHandler, Reply, Route
from strongroom.database import Operation
from strongroom.kernel.ids import AppId
from strongroom.kernel.money import EXPONENTS, MAX_INTEGER_DIGITS, Money, NotANumber, OutOfRange
from strongroom.payments import schemes
from strongroom.payments.routing import AppChoice, Choice, Rule, SchemeKind, available_methods
from strongroom.payments.schemes import MAX_APPS_IN_RULE, MAX_RULES, Draft, NewDraft, Scheme
from strongroom.rails.contract import Direction
from strongroom.rails.marketplace import find_app

MAX_LISTED: Final = 300
"""Most currencies, countries or payment methods in one list; there are fewer."""
_VALUE: Final = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,20})?", re.ASCII)


class RuleAppBody(msgspec.Struct, rename="camel"):
    """An app in a rule; `availablePaymentMethods` is what the excluded ones leave."""

    app_id: str
    excluded_payment_methods: list[str]
    available_payment_methods: list[str]


class RuleBody(msgspec.Struct, rename="camel"):
    """A rule. Empty currencies or countries mean any, null values are open."""

    priority: int
    currencies: list[str]
    countries: list[str]
    low_value_inclusive: Decimal | None
    high_value_inclusive: Decimal | None
    apps: list[RuleAppBody]
    reward_groups: list[str] | UnsetType = UNSET
    """Payout schemes only."""


class DraftBody(msgspec.Struct, rename="camel", kw_only=True):
    """A draft of a scheme; `agreementType` of collect schemes only."""

    draft_id: str
    name: str
    code: str
    agreement_type: str | UnsetType | None = UNSET
    rules: list[RuleBody]
    last_modified: datetime


class SchemeBody(msgspec.Struct, rename="camel"):
    """A scheme with its drafts."""

    scheme_id: str
    published_draft_id: str | None
    drafts: list[DraftBody]


class SchemesBody(msgspec.Struct):
    """The tenant's schemes of a kind."""

    schemes: list[SchemeBody]


class DraftsBody(msgspec.Struct):
    """A scheme's drafts."""

    drafts: list[DraftBody]


class AppVerdictBody(msgspec.Struct, rename="camel"):
    """Why an app of a rule was taken or left out."""

    app_id: str
    code: str
    reason: str


class RuleVerdictBody(msgspec.Struct, rename="camel"):
    """Why a rule was taken or not."""

    priority: int
    code: str
    reason: str
    apps: list[AppVerdictBody]


class ExplanationBody(msgspec.Struct, rename="camel"):
    """Where a payment would go: null when nowhere."""

    app_id: str | None
    fallback_app_ids: list[str]
    rule_priority: int | None
    rules: list[RuleVerdictBody]


class RuleAppRequest(msgspec.Struct, rename="camel"):
    """An app in a rule."""

    app_id: str
    excluded_payment_methods: list[str] = []


class RuleRequest(msgspec.Struct, rename="camel"):
    """A rule; without a priority it is its place in the list, from 0."""

    apps: list[RuleAppRequest]
    priority: int | None = None
    currencies: list[str] = []
    countries: list[str] = []
    low_value_inclusive: str | float | None = None
    high_value_inclusive: str | float | None = None


class DraftRequest(msgspec.Struct, rename="camel"):
    """What a draft shall say."""

    name: str
    code: str | None = None
    agreement_type: str | None = None
    rules: list[RuleRequest] = []


class SchemeRequest(DraftRequest, rename="camel"):
    """A scheme and its first draft. `schemeId` brings an id along that clients know from another platform."""

    scheme_id: Annotated[str, msgspec.Meta(pattern="^[0-9A-F]{32}$")] | None = None


class ExplainRequest(msgspec.Struct, rename="camel"):
    """A payment to be explained; the direction is the scheme's own when left out."""

    currency: str
    country: str
    amount: str | float
    direction: Direction | None = None


def _routes(kind: SchemeKind, reads: Permission, writes: Permission) -> Sequence[Route]:
    """The routes of one kind of schemes."""

    async def list_schemes(op: Operation, _: Call) -> Reply:
        return Reply(200, SchemesBody([_scheme(scheme) for scheme in await schemes.list_schemes(op, kind)]))

    async def create_scheme(op: Operation, call: Call) -> Reply:
        wanted = read_object(call.body).get("schemeId")
        wanted_id = None if wanted is None else str(wanted)
        return Reply(200, _scheme(await schemes.create_scheme(op, kind, _read_draft(call), wanted_id=wanted_id)))

    async def get_scheme(op: Operation, call: Call) -> Reply:
        return Reply(200, _scheme(await schemes.get_scheme(op, kind, call.path["schemeId"])))

    async def delete_scheme(op: Operation, call: Call) -> Reply:
        await schemes.delete_scheme(op, kind, call.path["schemeId"])
        return Reply(204)

    async def list_drafts(op: Operation, call: Call) -> Reply:
        scheme = await schemes.get_scheme(op, kind, call.path["schemeId"])
        return Reply(200, DraftsBody([_draft(kind, draft) for draft in scheme.drafts]))

    async def create_draft(op: Operation, call: Call) -> Reply:
        new = _read_draft(call)
        return Reply(200, _draft(kind, await schemes.create_draft(op, kind, call.path["schemeId"], new)))

    async def get_draft(op: Operation, call: Call) -> Reply:
        return Reply(200, _draft(kind, await schemes.get_draft(op, kind, call.path["schemeId"], call.path["draftId"])))

    async def edit_draft(op: Operation, call: Call) -> Reply:
        new = _read_draft(call)
        await schemes.edit_draft(op, kind, call.path["schemeId"], call.path["draftId"], new)
        return Reply(204)

    async def delete_draft(op: Operation, call: Call) -> Reply:
        await schemes.delete_draft(op, kind, call.path["schemeId"], call.path["draftId"])
        return Reply(204)

    async def publish(op: Operation, call: Call) -> Reply:
        await schemes.publish(op, kind, call.path["schemeId"], call.path["draftId"])
        return Reply(204)

    async def get_published(op: Operation, call: Call) -> Reply:
        return Reply(200, _draft(kind, await schemes.get_published_draft(op, kind, call.path["schemeId"])))

    async def get_latest(op: Operation, call: Call) -> Reply:
        return Reply(200, _draft(kind, await schemes.get_latest_draft(op, kind, call.path["schemeId"])))

    async def explain(op: Operation, call: Call) -> Reply:
        direction, country, money = _read_payment(call)
        choice = await schemes.explain(
            op, kind, call.path["schemeId"], country=country, money=money, direction=direction
        )
        return Reply(200, _explanation(choice))

    def route(
        method: str,
        path: str,
        summary: str,
        handler: OperationHandler,
        reply: type[msgspec.Struct] | None,
        *,
        request: type[msgspec.Struct] | None = None,
    ) -> Route:
        changes = method != "GET" and handler is not explain
        return Route(
            method=method,
            path=f"/v1/schemes/{kind}{path}",
            summary=summary,
            tag=f"{kind.title()} schemes",
            access=Access.TENANT,
            permission=writes if changes else reads,
            operation=handler,
            request=request,
            replies={204: None} if reply is None else {200: reply},
        )

    one, drafts = "/{schemeId}", "/{schemeId}/drafts"
    return (
        route("GET", "", f"The tenant's {kind} schemes", list_schemes, SchemesBody),
        route("POST", "", f"Make a {kind} scheme with a first draft", create_scheme, SchemeBody, request=SchemeRequest),
        route("GET", one, "A scheme with its drafts", get_scheme, SchemeBody),
        route("DELETE", one, "Remove a scheme that nothing refers to", delete_scheme, None),
        route("GET", f"{one}/published", "The published draft", get_published, DraftBody),
        route("GET", f"{one}/latest", "The draft changed last", get_latest, DraftBody),
        route(
            "POST",
            f"{one}/explain",
            "Where a payment would go, and why",
            explain,
            ExplanationBody,
            request=ExplainRequest,
        ),
        route("GET", drafts, "A scheme's drafts", list_drafts, DraftsBody),
        route("POST", drafts, "Add a draft", create_draft, DraftBody, request=DraftRequest),
        route("GET", f"{drafts}/{{draftId}}", "A draft", get_draft, DraftBody),
        route("PUT", f"{drafts}/{{draftId}}", "Replace what a draft says", edit_draft, None, request=DraftRequest),
        route("DELETE", f"{drafts}/{{draftId}}", "Remove a draft", delete_draft, None),
        route("POST", f"{drafts}/{{draftId}}/publish", "Let a draft hold from now on", publish, None),
    )


def _read_draft(call: Call) -> NewDraft:
    """The draft in the body. What it says is judged by `payments.schemes`; here, whether it says anything."""
    source, found = read_object(call.body), Collector()
    texts: dict[str, str] = {}
    for field, code in (("name", "SCHEME_NAME"), ("code", "SCHEME_CODE"), ("agreementType", "AGREEMENT_TYPE")):
        value = source.get(field)
        if value is not None and not isinstance(value, str):
            found.add(f"{code}_IS_INVALID", "{field} must be a text.", field=field)
        texts[field] = value if isinstance(value, str) else ""
    rules = _read_rules(found, source.get("rules"))
    found.check()
    return NewDraft(name=texts["name"], code=texts["code"], agreement_type=texts["agreementType"] or None, rules=rules)


def _read_rules(found: Collector, value: object) -> tuple[Rule, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        found.add("RULES_IS_INVALID", "{field} must be a list.", field="rules")
        return ()
    if len(value) > MAX_RULES:
        found.add("RULE_COUNT_OUT_OF_RANGE", "A draft has at most {maxCount} rules.", maxCount=MAX_RULES)
        return ()
    return tuple(_read_rule(found, position, item) for position, item in enumerate(value))


def _read_rule(found: Collector, position: int, value: object) -> Rule:
    if not isinstance(value, dict):
        _rule_failure(found, position, "rules", "must be an object")
        return Rule(priority=position)
    priority = value.get("priority")
    if priority is None:
        priority = position
    elif type(priority) is not int:
        _rule_failure(found, position, "priority", "must be a whole number")
        priority = position
    if value.get("rewardGroups"):
        found.add("REWARD_GROUP_NOT_RECOGNISED", "Rule {rule}: there is no such reward group here.", rule=position + 1)
    return Rule(
        priority=priority,
        currencies=frozenset(_read_texts(found, position, value, "currencies")),
        countries=frozenset(_read_texts(found, position, value, "countries")),
        low=_read_value(found, position, value, "lowValueInclusive"),
        high=_read_value(found, position, value, "highValueInclusive"),
        apps=_read_apps(found, position, value.get("apps")),
    )


def _read_apps(found: Collector, position: int, value: object) -> tuple[AppChoice, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_APPS_IN_RULE:
        _rule_failure(found, position, "apps", f"must be a list of at most {MAX_APPS_IN_RULE} apps")
        return ()
    choices = []
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("appId"), str):
            _rule_failure(found, position, "apps", "must each be an object with an appId")
            continue
        excluded = _read_texts(found, position, item, "excludedPaymentMethods")
        choices.append(AppChoice(app_id=AppId(item["appId"]), excluded_payment_methods=tuple(dict.fromkeys(excluded))))
    return tuple(choices)


def _read_texts(found: Collector, position: int, source: Object, field: str) -> list[str]:
    """A list of texts, without the blank ones."""
    value = source.get(field)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_LISTED or not all(isinstance(item, str) for item in value):
        _rule_failure(found, position, field, f"must be a list of at most {MAX_LISTED} texts")
        return []
    return [item for item in value if item.strip()]


def _read_value(found: Collector, position: int, source: Object, field: str) -> Decimal | None:
    value = source.get(field)
    if value is None or value == "":
        return None
    text = _number_text(value)
    if text is None or not _VALUE.fullmatch(text):
        found.add(
            "RULE_VALUE_IS_INVALID",
            "Rule {rule}: {field} must be a plain decimal number, without exponent or separators.",
            rule=position + 1,
            field=field,
        )
        return None
    return Decimal(text)


def _rule_failure(found: Collector, position: int, field: str, problem: str) -> None:
    found.add("RULE_IS_INVALID", "Rule {rule}: {field} {problem}.", rule=position + 1, field=field, problem=problem)


def _read_payment(call: Call) -> tuple[Direction | None, str, Money]:
    source, found = read_object(call.body), Collector()
    direction = found.choice(source, "direction", "DIRECTION_IS", frozenset(Direction), required=False)
    currency = source.get("currency")
    if currency is None or currency == "":
        found.required("currency", "CURRENCY")
    elif not isinstance(currency, str) or len(currency) != 3:
        found.add("CURRENCY_LENGTH_OUT_OF_RANGE", "{field} has {length} letters.", field="currency", length=3)
    elif currency not in EXPONENTS:
        found.add("CURRENCY_NOT_SUPPORTED", "{field} must be a currency's ISO 4217 code.", field="currency")
    country = found.country(source)
    money = _read_amount(found, source, currency if isinstance(currency, str) and currency in EXPONENTS else None)
    found.check()
    assert money is not None  # noqa: S101  # a failure otherwise
    return Direction(direction) if direction else None, country, money


def _read_amount(found: Collector, source: Object, currency: str | None) -> Money | None:
    value = source.get("amount")
    if value is None or value == "":
        found.required("amount", "AMOUNT")
        return None
    try:
        # In a currency nobody knows, an amount is judged as in the one with most decimals.
        return Money.parse(_number_text(value) or "", currency or "CLF")
    except NotANumber:
        found.add("AMOUNT_IS_INVALID", "{field} must be a plain decimal number, such as 200.00.", field="amount")
    except OutOfRange:
        found.add(
            "AMOUNT_OUT_OF_RANGE",
            "{field} must be greater than 0, with at most {maxDigits} digits before the point and no more decimals "
            "than its currency has.",
            field="amount",
            maxDigits=MAX_INTEGER_DIGITS,
        )
    return None


def _number_text(value: object) -> str | None:
    if isinstance(value, Number):
        return value.text
    if type(value) is int:
        return str(value)
    return value if isinstance(value, str) else None


def _scheme(scheme: Scheme) -> SchemeBody:
    return SchemeBody(
        scheme_id=scheme.scheme_id,
        published_draft_id=None if scheme.published_draft_id is None else str(scheme.published_draft_id),
        drafts=[_draft(scheme.kind, draft) for draft in scheme.drafts],
    )


def _draft(kind: SchemeKind, draft: Draft) -> DraftBody:
    return DraftBody(
        draft_id=str(draft.draft_id),
        name=draft.name,
        code=draft.code,
        agreement_type=draft.agreement_type if kind == "collect" else UNSET,
        rules=[_rule(kind, rule) for rule in draft.rules],
        last_modified=draft.last_modified,
    )


def _rule(kind: SchemeKind, rule: Rule) -> RuleBody:
    return RuleBody(
        priority=rule.priority,
        currencies=sorted(rule.currencies),
        countries=sorted(rule.countries),
        low_value_inclusive=rule.low,
        high_value_inclusive=rule.high,
        apps=[_rule_app(choice) for choice in rule.apps],
        reward_groups=[] if kind == "payout" else UNSET,
    )


def _rule_app(choice: AppChoice) -> RuleAppBody:
    app = find_app(choice.app_id)
    return RuleAppBody(
        app_id=choice.app_id,
        excluded_payment_methods=list(choice.excluded_payment_methods),
        available_payment_methods=[] if app is None else list(available_methods(app, choice)),
    )


def _explanation(choice: Choice) -> ExplanationBody:
    return ExplanationBody(
        app_id=choice.apps[0] if choice.apps else None,
        fallback_app_ids=list(choice.apps[1:]),
        rule_priority=choice.priority,
        rules=[
            RuleVerdictBody(
                priority=verdict.priority,
                code=verdict.code,
                reason=verdict.reason,
                apps=[AppVerdictBody(app_id=app.app_id, code=app.code, reason=app.reason) for app in verdict.apps],
            )
            for verdict in choice.verdicts
        ],
    )


ROUTES: Final[Sequence[Route]] = (
    *_routes("collect", Permission.COLLECT_SCHEMES_READ, Permission.COLLECT_SCHEMES_WRITE),
    *_routes("payout", Permission.PAYOUT_SCHEMES_READ, Permission.PAYOUT_SCHEMES_WRITE),
)
