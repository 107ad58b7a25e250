"""Approvals: which payouts wait, what waits, and the word of those who let it go or stop it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from strongroom.access import Permission
from strongroom.api.named_tenant import in_named_tenant
from strongroom.api.order_bodies import check_ref
from strongroom.api.reading import Collector, Object, read_object
from strongroom.api.routing import Access, Call, OperationHandler, Reply, Route
from strongroom.database import Operation
from strongroom.kernel.errors import Failure, Invalid, NotFound
from strongroom.kernel.ids import parse_uuid
from strongroom.kernel.money import COUNTRIES, EXPONENTS, Money
from strongroom.payments.approval_rules import (
    MAX_APPROVALS,
    MAX_HOURS,
    MadeRule,
    Rule,
    Threshold,
    create_rule,
    end_rule,
    list_rules,
)
from strongroom.payments.approvals import Waiting, Word, decide, decide_batch, list_waiting

MAX_NAME: Final = 100
MAX_LIST: Final = 300
"""Most entries of a list in a rule."""
_HASH_HEX: Final = 64


class ThresholdBody(msgspec.Struct, rename="camel"):
    """An amount from which on a payout fits."""

    currency: str
    amount: str


class RuleRequest(msgspec.Struct, rename="camel"):
    """A rule for payouts. All that it says has to fit; what is left out doesn't matter.

    Where `thresholds` name currencies, a payout in any other fits as well. `firstPayment`: only payouts to an account
    to which none has been completed.
    """

    name: str
    approvals: int = 1
    expires_after_hours: int = 72
    thresholds: list[ThresholdBody] = []
    scheme_ids: list[str] = []
    countries: list[str] = []
    first_payment: bool = False


class RuleBody(RuleRequest, rename="camel"):
    """A rule that holds."""

    rule_id: str = ""


class RulesBody(msgspec.Struct, rename="camel"):
    """A tenant's rules."""

    rules: list[RuleBody]


class WaitingBody(msgspec.Struct, rename="camel"):
    """A payout that waits. `contentHash` stands for exactly what it is now."""

    order_ref: str
    instruction_ref: str
    customer_ref: str
    amount: Decimal
    currency: str
    country: str
    settled_by_date: date
    approvals_needed: int
    approvals_given: int
    content_hash: str
    created_on: datetime
    expires_on: datetime
    job_id: str | None


class WaitingListBody(msgspec.Struct, rename="camel"):
    """What waits, the next to expire first."""

    approvals: list[WaitingBody]


class ApproveRequest(msgspec.Struct, rename="camel"):
    """`contentHash`: what the payout was when it was looked at, as the list of what waits has it."""

    content_hash: str


class RejectRequest(msgspec.Struct, rename="camel"):
    """`contentHash`: only if the payout is still what this stands for."""

    content_hash: str | None = None


class BatchBody(msgspec.Struct, rename="camel"):
    """How many payouts of the job were decided; `remaining` wait for the same call again."""

    decided: int
    remaining: int


async def _list_rules(op: Operation, _: Call) -> Reply:
    return Reply(200, RulesBody([_rule_body(made) for made in await list_rules(op)]))


async def _create_rule(op: Operation, call: Call) -> Reply:
    source, found = read_object(call.body), Collector()
    rule = Rule(
        name=found.text(source, "name", "NAME", max_length=MAX_NAME),
        approvals=_number(found, source, "approvals", "APPROVALS", default=1, most=MAX_APPROVALS),
        hours=_number(found, source, "expiresAfterHours", "EXPIRES_AFTER_HOURS", default=72, most=MAX_HOURS),
        thresholds=_thresholds(found, source),
        schemes=_texts(found, source, "schemeIds", "SCHEME_IDS"),
        countries=_texts(found, source, "countries", "COUNTRIES"),
        is_first=bool(found.flag(source, "firstPayment", "FIRST_PAYMENT")),
    )
    if not COUNTRIES.issuperset(rule.countries):
        found.add("COUNTRIES_NOT_RECOGNISED", "{field} must be of ISO 3166-1 codes, such as DE.", field="countries")
    found.check()
    return Reply(201, _rule_body(await create_rule(op, rule)))


async def _end_rule(op: Operation, call: Call) -> Reply:
    rule_id = parse_uuid(call.path["ruleId"])
    if rule_id is None:
        raise NotFound(Failure("APPROVAL_RULE_NOT_FOUND", "There is no such rule in this tenant."))
    await end_rule(op, rule_id)
    return Reply(204)


async def _list(op: Operation, _: Call) -> Reply:
    return Reply(200, WaitingListBody([_waiting_body(waiting) for waiting in await list_waiting(op)]))


async def _approve(op: Operation, call: Call) -> Reply:
    return await _decide(op, call, "APPROVE")


async def _reject(op: Operation, call: Call) -> Reply:
    return await _decide(op, call, "REJECT")


async def _decide(op: Operation, call: Call, word: Word) -> Reply:
    order_ref = _path_ref(call, "orderRef", "ORDER_REF")
    instruction_ref = _path_ref(call, "instructionRef", "INSTRUCTION_REF")
    content_hash = None
    if call.body:
        found = Collector()
        text = found.text(read_object(call.body), "contentHash", "CONTENT_HASH", max_length=_HASH_HEX, required=False)
        try:
            content_hash = bytes.fromhex(text) if text else None
        except ValueError:
            found.add("CONTENT_HASH_IS_INVALID", "Send contentHash as the list of what waits has it.")
        found.check()
    await decide(op, order_ref, instruction_ref, word, content_hash)
    return Reply(202)


def _path_ref(call: Call, name: str, code: str) -> str:
    failure = check_ref(call.path[name], code, name)
    if failure is not None:
        raise Invalid(failure)
    return call.path[name]


async def _approve_batch(op: Operation, call: Call) -> Reply:
    return await _decide_batch(op, call, "APPROVE")


async def _reject_batch(op: Operation, call: Call) -> Reply:
    return await _decide_batch(op, call, "REJECT")


async def _decide_batch(op: Operation, call: Call, word: Word) -> Reply:
    job_id = parse_uuid(call.path["jobId"])
    if job_id is None:
        raise NotFound(Failure("BULK_JOB_NOT_FOUND", "There is no such bulk job in this tenant."))
    return Reply(202, BatchBody(*await decide_batch(op, job_id, word)))


def _number(found: Collector, source: Object, field: str, code: str, *, default: int, most: int) -> int:
    value = source.get(field)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        found.add(f"{code}_OUT_OF_RANGE", "{field} must be a whole number from 1 to {max}.", field=field, max=most)
        return default
    return value


def _thresholds(found: Collector, source: Object) -> tuple[Threshold, ...]:
    value = source.get("thresholds")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_LIST or not all(isinstance(item, dict) for item in value):
        found.add("THRESHOLDS_IS_INVALID", "{field} must be a list of objects.", field="thresholds")
        return ()
    thresholds = []
    for item in value:
        currency = found.choice(item, "currency", "CURRENCY", EXPONENTS)
        text = found.text(item, "amount", "AMOUNT", max_length=20)
        if not currency or not text:
            continue
        try:
            thresholds.append(Threshold(currency=currency, minor=Money.parse(text, currency).minor))
        except ValueError:
            found.add("AMOUNT_IS_INVALID", "amount must be an amount in {currency}.", currency=currency)
    if len({threshold.currency for threshold in thresholds}) < len(thresholds):
        found.add("THRESHOLDS_IS_INVALID", "{field} has a currency twice.", field="thresholds")
    return tuple(thresholds)


def _texts(found: Collector, source: Object, field: str, code: str) -> tuple[str, ...]:
    value = source.get(field)
    if value is None:
        return ()
    if isinstance(value, list) and len(value) <= MAX_LIST and all(isinstance(item, str) for item in value):
        return tuple(dict.fromkeys(value))
    found.add(f"{code}_IS_INVALID", "{field} must be a list of at most {limit} texts.", field=field, limit=MAX_LIST)
    return ()


def _rule_body(made: MadeRule) -> RuleBody:
    rule = made.rule
    return RuleBody(
        rule_id=str(made.rule_id),
        name=rule.name,
        approvals=rule.approvals,
        expires_after_hours=rule.hours,
        thresholds=[
            ThresholdBody(item.currency, str(Money(item.minor, item.currency).decimal)) for item in rule.thresholds
        ],
        scheme_ids=list(rule.schemes),
        countries=list(rule.countries),
        first_payment=rule.is_first,
    )


def _waiting_body(waiting: Waiting) -> WaitingBody:
    return WaitingBody(
        order_ref=waiting.order_ref,
        instruction_ref=waiting.instruction_ref,
        customer_ref=waiting.customer_ref,
        amount=waiting.money.decimal,
        currency=waiting.money.currency,
        country=waiting.country,
        settled_by_date=waiting.settled_by,
        approvals_needed=waiting.needed,
        approvals_given=waiting.given,
        content_hash=waiting.content_hash.hex(),
        created_on=waiting.created_at,
        expires_on=waiting.expires_at,
        job_id=None if waiting.batch_id is None else str(waiting.batch_id),
    )


def _route(
    method: str,
    path: str,
    summary: str,
    handler: OperationHandler,
    replies: Mapping[int, Any],
    *,
    request: Any = None,
) -> Route:
    return Route(
        method=method,
        path=path,
        summary=summary,
        tag="Approvals",
        access=Access.TENANT,
        permission=Permission.PAYMENTS_APPROVE,
        operation=handler,
        request=request,
        replies=replies,
    )


def _rule_routes(path: str, access: Access, reads: Permission, writes: Permission) -> Sequence[Route]:
    """The routes of rules. Where the path names a tenant, its account asks."""
    named = "{tenantId}" in path

    def route(method: str, path: str, summary: str, handler: OperationHandler, replies: Mapping[int, Any]) -> Route:
        async def call_in_tenant(call: Call) -> Reply:
            return await in_named_tenant(call, handler)

        return Route(
            method=method,
            path=path,
            summary=summary,
            tag="Approvals",
            access=access,
            permission=reads if method == "GET" else writes,
            operation=None if named else handler,
            call=call_in_tenant if named else None,
            request=RuleRequest if method == "POST" else None,
            replies=replies,
        )

    return (
        route("GET", path, "Which payouts wait for approval", _list_rules, {200: RulesBody}),
        route("POST", path, "Have payouts wait for approval", _create_rule, {201: RuleBody}),
        route("DELETE", f"{path}/{{ruleId}}", "End a rule, for payouts from now on", _end_rule, {204: None}),
    )


_INSTRUCTION: Final = "/v1/order-management/{orderRef}/instruction/{instructionRef}"
_JOB: Final = "/v1/order-management/bulk/{jobId}"
_DECIDED: Final = {202: None}
ROUTES: Final[Sequence[Route]] = (
    _route("GET", "/v1/approvals", "What waits for approval", _list, {200: WaitingListBody}),
    _route("POST", f"{_INSTRUCTION}/approve", "Approve a payout", _approve, _DECIDED, request=ApproveRequest),
    _route("POST", f"{_INSTRUCTION}/reject", "Reject a payout", _reject, _DECIDED, request=RejectRequest),
    _route("POST", f"{_JOB}/approve", "Approve what waits of a bulk job", _approve_batch, {202: BatchBody}),
    _route("POST", f"{_JOB}/reject", "Reject what waits of a bulk job", _reject_batch, {202: BatchBody}),
    *_rule_routes(
        "/v1/tenant/approval-rules",
        Access.TENANT,
        Permission.APPROVAL_RULES_MANAGE,
        Permission.APPROVAL_RULES_MANAGE,
    ),
    *_rule_routes(
        "/v1/tenant/{tenantId}/approval-rules", Access.ACCOUNT, Permission.TENANTS_READ, Permission.TENANTS_WRITE
    ),
)
