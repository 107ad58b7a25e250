"""Schemes: where a tenant's payments go, as rules. A collect scheme takes money in, a payout scheme sends it out.

A scheme holds any number of drafts. One of them is published, and what it says holds from that moment for everything
that is not with an app yet; a published draft is neither edited nor deleted, so it can be replaced by another only. A
scheme that instructions refer to stays. Names are unique among schemes; drafts of one scheme may share one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final, Literal

import msgspec
import psycopg

from strongroom.access import Permission, require
from strongroom.audit import record
from strongroom.database import Operation, pack_texts
from strongroom.kernel.errors import AlreadyExists, Conflict, Failure, Invalid, NotFound
from strongroom.kernel.ids import AppId, DraftId, SchemeId, TenantId, new_scheme_id, new_uuid
from strongroom.kernel.money import COUNTRIES, EXPONENTS, MAX_INTEGER_DIGITS, Money
from strongroom.payments.apps import find_installed_ids, lock_configuration
from strongroom.payments.routing import DIRECTION_OF, Choice, PublishedScheme, Rule, SchemeKind, choose
from strongroom.rails.contract import Direction
from strongroom.rails.marketplace import find_app

MAX_NAME_LENGTH: Final = 100
MAX_CODE_LENGTH: Final = 50
MAX_RULES: Final = 100
MAX_APPS_IN_RULE: Final = 20
MAX_PRIORITY: Final = 1_000_000
MAX_DECIMALS: Final = max(EXPONENTS.values())
"""Most decimals of a value in a rule: as many as the finest currency has."""

AgreementType = Literal["SingleUse", "Reuse"]
AGREEMENT_TYPES: Final[tuple[AgreementType, ...]] = ("SingleUse", "Reuse")
_SCHEME_ID: Final = re.compile(r"[0-9A-F]{32}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_READ: Final[Mapping[SchemeKind, Permission]] = {
    "collect": Permission.COLLECT_SCHEMES_READ,
    "payout": Permission.PAYOUT_SCHEMES_READ,
}
_WRITE: Final[Mapping[SchemeKind, Permission]] = {
    "collect": Permission.COLLECT_SCHEMES_WRITE,
    "payout": Permission.PAYOUT_SCHEMES_WRITE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDraft:
    """What a draft shall say. `agreement_type` is for collect schemes only, where it is `SingleUse` unless given."""

    name: str
    code: str = ""
    agreement_type: str | None = None
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A draft as it stands; rules by priority."""

    draft_id: DraftId
    name: str
    code: str
    agreement_type: str | None
    rules: tuple[Rule, ...]
    last_modified: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A scheme with its drafts, oldest first."""

    scheme_id: SchemeId
    kind: SchemeKind
    published_draft_id: DraftId | None
    drafts: tuple[Draft, ...]


async def create_scheme(op: Operation, kind: SchemeKind, new: NewDraft, *, wanted_id: str | None = None) -> Scheme:
    """A new scheme with one draft, not published. `wanted_id` keeps the id that clients know from another platform.

    Raises errors.Invalid (`SCHEME_ID_IS_INVALID`; see `create_draft`) and errors.AlreadyExists
    (`SCHEME_ALREADY_EXISTS`, `SCHEME_NAME_ALREADY_EXISTS`).
    """
    require(op, _WRITE[kind])
    if wanted_id is not None and not _SCHEME_ID.fullmatch(wanted_id):
        raise Invalid(
            Failure(
                "SCHEME_ID_IS_INVALID", "schemeId has 32 upper-case hexadecimal digits; leave it out to get a new one."
            )
        )
    await lock_configuration(op)
    scheme_id = new_scheme_id() if wanted_id is None else SchemeId(wanted_id)
    if await op.row("select from schemes where scheme_id = %s", scheme_id) is not None:
        raise AlreadyExists(
            Failure("SCHEME_ALREADY_EXISTS", "The tenant has a scheme {schemeId} already.", {"schemeId": scheme_id})
        )
    await _check(op, kind, scheme_id, new)
    await op.run(
        "insert into schemes (tenant_id, scheme_id, kind, created_at) values (%s, %s, %s, %s)",
        op.tenant,
        scheme_id,
        kind,
        op.now,
    )
    draft = await _add_draft(op, kind, scheme_id, new)
    await record(op, "scheme.create", "scheme", scheme_id)
    return Scheme(scheme_id=scheme_id, kind=kind, published_draft_id=None, drafts=(draft,))


async def list_schemes(op: Operation, kind: SchemeKind) -> Sequence[Scheme]:
    """The tenant's schemes of a kind, oldest first."""
    require(op, _READ[kind])
    return await _select(op, kind, None)


async def get_scheme(op: Operation, kind: SchemeKind, scheme_id: str) -> Scheme:
    """One scheme. Raises errors.NotFound (`SCHEME_ID_NOT_RECOGNISED`)."""
    require(op, _READ[kind])
    return await _get(op, kind, scheme_id)


async def delete_scheme(op: Operation, kind: SchemeKind, scheme_id: str) -> None:
    """Remove a scheme and its drafts.

    Raises errors.NotFound (`SCHEME_ID_NOT_RECOGNISED`) and errors.Conflict (`SCHEME_IN_USE`) when instructions, or
    orders in what they say for customers, refer to it.
    """
    require(op, _WRITE[kind])
    await lock_configuration(op)
    scheme = await _get(op, kind, scheme_id)
    try:
        await op.run("delete from schemes where tenant_id = %s and scheme_id = %s", op.tenant, scheme.scheme_id)
    except psycopg.errors.ForeignKeyViolation:
        raise Conflict(
            Failure(
                "SCHEME_IN_USE",
                "The scheme {schemeId} can't be deleted: instructions refer to it.",
                {"schemeId": scheme.scheme_id},
            )
        ) from None
    await record(op, "scheme.delete", "scheme", scheme.scheme_id)


async def create_draft(op: Operation, kind: SchemeKind, scheme_id: str, new: NewDraft) -> Draft:
    """One more draft of a scheme.

    Raises errors.NotFound (`SCHEME_ID_NOT_RECOGNISED`), errors.AlreadyExists (`SCHEME_NAME_ALREADY_EXISTS`) and
    errors.Invalid with every failure of the draft: `SCHEME_NAME_…`, `SCHEME_CODE_…`, `AGREEMENT_TYPE_…`, `RULE_…`,
    `CURRENCY_NOT_SUPPORTED`, `COUNTRY_NOT_SUPPORTED`, `APP_NOT_INSTALLED`, `APP_NOT_SUPPORTED`,
    `PAYMENT_METHOD_NOT_RECOGNISED`.
    """
    require(op, _WRITE[kind])
    await lock_configuration(op)
    scheme = await _get(op, kind, scheme_id)
    await _check(op, kind, scheme.scheme_id, new)
    draft = await _add_draft(op, kind, scheme.scheme_id, new)
    await record(op, "scheme-draft.create", "scheme-draft", draft.draft_id)
    return draft


async def edit_draft(op: Operation, kind: SchemeKind, scheme_id: str, draft_id: str, new: NewDraft) -> None:
    """Replace what a draft says.

    Raises what `create_draft` raises, errors.NotFound (`DRAFT_NOT_FOUND`) and errors.Conflict (`DRAFT_IS_PUBLISHED`).
    """
    require(op, _WRITE[kind])
    await lock_configuration(op)
    scheme = await _get(op, kind, scheme_id)
    draft = _draft_to_change(scheme, draft_id)
    await _check(op, kind, scheme.scheme_id, new)
    await op.run(
        "update scheme_drafts set name = %s, code = %s, agreement_type = %s, rules = %s::jsonb, last_modified = %s "
        "where tenant_id = %s and draft_id = %s",
        new.name.strip(),
        new.code.strip(),
        _agreement_type(kind, new),
        _encode_rules(new.rules),
        op.now,
        op.tenant,
        draft.draft_id,
    )
    await record(op, "scheme-draft.change", "scheme-draft", draft.draft_id)


async def delete_draft(op: Operation, kind: SchemeKind, scheme_id: str, draft_id: str) -> None:
    """Remove a draft that is not published.

    Raises errors.NotFound (`SCHEME_ID_NOT_RECOGNISED`, `DRAFT_NOT_FOUND`) and errors.Conflict (`DRAFT_IS_PUBLISHED`).
    """
    require(op, _WRITE[kind])
    await lock_configuration(op)
    draft = _draft_to_change(await _get(op, kind, scheme_id), draft_id)
    await op.run("delete from scheme_drafts where tenant_id = %s and draft_id = %s", op.tenant, draft.draft_id)
    await record(op, "scheme-draft.delete", "scheme-draft", draft.draft_id)


async def publish(op: Operation, kind: SchemeKind, scheme_id: str, draft_id: str) -> None:
    """Let a draft hold from now on, in place of the one published before.

    Raises errors.NotFound (`SCHEME_ID_NOT_RECOGNISED`, `DRAFT_NOT_FOUND`), and errors.Conflict
    (`DRAFT_HAS_NO_RULES`, `APP_NOT_CONFIGURED`) when payments under it couldn't be carried out.
    """
    require(op, _WRITE[kind])
    await lock_configuration(op)
    scheme = await _get(op, kind, scheme_id)
    draft = _draft(scheme, draft_id)
    if not draft.rules:
        raise Conflict(Failure("DRAFT_HAS_NO_RULES", "A draft without rules carries no payment. Give it a rule first."))
    installed = await find_installed_ids(op)
    unready = sorted(
        {choice.app_id for rule in draft.rules for choice in rule.apps if not installed.get(choice.app_id)}
    )
    if unready:
        raise Conflict(
            *(
                Failure(
                    "APP_NOT_CONFIGURED",
                    "The app {appId} has no settings yet. Send them to /v1/apps/installed/{appId}/configuration first.",
                    {"appId": app_id},
                )
                for app_id in unready
            )
        )
    await op.run(
        "update schemes set published_draft_id = %s where tenant_id = %s and scheme_id = %s",
        draft.draft_id,
        op.tenant,
        scheme.scheme_id,
    )
    await record(op, "scheme.publish", "scheme", scheme.scheme_id, detail=str(draft.draft_id))


async def get_draft(op: Operation, kind: SchemeKind, scheme_id: str, draft_id: str) -> Draft:
    """One draft. Raises errors.NotFound (`SCHEME_ID_NOT_RECOGNISED`, `DRAFT_NOT_FOUND`)."""
    require(op, _READ[kind])
    return _draft(await _get(op, kind, scheme_id), draft_id)


async def get_published_draft(op: Operation, kind: SchemeKind, scheme_id: str) -> Draft:
    """The published draft. Raises errors.NotFound (`SCHEME_ID_NOT_RECOGNISED`, `SCHEME_NOT_PUBLISHED`)."""
    require(op, _READ[kind])
    scheme = await _get(op, kind, scheme_id)
    if scheme.published_draft_id is None:
        raise _not_published()
    return _draft(scheme, str(scheme.published_draft_id))


async def get_latest_draft(op: Operation, kind: SchemeKind, scheme_id: str) -> Draft:
    """The draft that was made or changed last.

    Raises errors.NotFound (`SCHEME_ID_NOT_RECOGNISED`, `DRAFT_NOT_FOUND`).
    """
    require(op, _READ[kind])
    scheme = await _get(op, kind, scheme_id)
    if not scheme.drafts:
        raise _no_draft()
    return max(scheme.drafts, key=lambda draft: (draft.last_modified, draft.draft_id))


async def explain(
    op: Operation, kind: SchemeKind, scheme_id: str, *, country: str, money: Money, direction: Direction | None = None
) -> Choice:
    """What the published draft would do with a payment, and why. The direction is the scheme's own unless given.

    Raises errors.NotFound (`SCHEME_ID_NOT_RECOGNISED`, `SCHEME_NOT_PUBLISHED`).
    """
    require(op, _READ[kind])
    scheme = (await find_published(op, [scheme_id])).get(scheme_id)
    if scheme is None or scheme.kind != kind:
        raise _no_scheme()
    if scheme.draft_id is None:
        raise _not_published()
    installed = await find_installed_ids(op)
    return choose(scheme, installed, direction or DIRECTION_OF[kind], country, money)


async def find_published(op: Operation, scheme_ids: Collection[str]) -> Mapping[str, PublishedScheme]:
    """The schemes of these ids that exist, with the rules that hold now (none when nothing is published).

    One query. Rules are parsed once a process for every text they ever had, so what comes back can't be stale. Needs no
    permission of its own: whoever may instruct may be routed.
    """
    rows = await op.rows(
        """
        select s.scheme_id, s.kind, d.draft_id, d.rules::text
        from schemes s left join scheme_drafts d on d.tenant_id = s.tenant_id and d.draft_id = s.published_draft_id
        where s.tenant_id = %s and s.scheme_id = any(%s)
        """,
        op.tenant,
        pack_texts([scheme_id for scheme_id in scheme_ids if _SCHEME_ID.fullmatch(scheme_id)]),
    )
    return {row[0]: _published(op.tenant, *row) for row in rows}


@lru_cache(maxsize=4096)
def _published(
    tenant: TenantId, scheme_id: SchemeId, kind: SchemeKind, draft_id: DraftId | None, rules: str | None
) -> PublishedScheme:
    # The tenant is part of the key only: two tenants never share a parsed scheme.
    return PublishedScheme(
        scheme_id=scheme_id, kind=kind, draft_id=draft_id, rules=() if rules is None else _decode_rules(rules)
    )


async def _select(op: Operation, kind: SchemeKind, scheme_id: str | None) -> list[Scheme]:
    rows = await op.rows(
        """
        select s.scheme_id, s.published_draft_id,
               d.draft_id, d.name, d.code, d.agreement_type, d.rules::text, d.last_modified
        from schemes s left join scheme_drafts d on d.tenant_id = s.tenant_id and d.scheme_id = s.scheme_id
        where s.tenant_id = %s and s.kind = %s and (%s::text is null or s.scheme_id = %s)
        order by s.created_at, s.scheme_id, d.draft_id
        """,
        op.tenant,
        kind,
        scheme_id,
        scheme_id,
    )
    published: dict[SchemeId, DraftId | None] = {}
    drafts: dict[SchemeId, list[Draft]] = {}
    for found, published_draft_id, draft_id, name, code, agreement_type, rules, last_modified in rows:
        published[found] = published_draft_id
        of_scheme = drafts.setdefault(found, [])
        if draft_id is not None:
            of_scheme.append(
                Draft(
                    draft_id=draft_id,
                    name=name,
                    code=code,
                    agreement_type=agreement_type,
                    rules=_decode_rules(rules),
                    last_modified=last_modified,
                )
            )
    return [
        Scheme(scheme_id=found, kind=kind, published_draft_id=published[found], drafts=tuple(of_scheme))
        for found, of_scheme in drafts.items()
    ]


async def _get(op: Operation, kind: SchemeKind, scheme_id: str) -> Scheme:
    found = await _select(op, kind, scheme_id) if _SCHEME_ID.fullmatch(scheme_id) else []
    if not found:
        raise _no_scheme()
    return found[0]


def _draft(scheme: Scheme, draft_id: str) -> Draft:
    for draft in scheme.drafts:
        if str(draft.draft_id) == draft_id.lower():
            return draft
    raise _no_draft()


def _draft_to_change(scheme: Scheme, draft_id: str) -> Draft:
    draft = _draft(scheme, draft_id)
    if draft.draft_id == scheme.published_draft_id:
        raise Conflict(
            Failure(
                "DRAFT_IS_PUBLISHED",
                "A published draft is neither edited nor deleted. Make another draft and publish that.",
            )
        )
    return draft


async def _add_draft(op: Operation, kind: SchemeKind, scheme_id: SchemeId, new: NewDraft) -> Draft:
    draft = Draft(
        draft_id=DraftId(new_uuid()),
        name=new.name.strip(),
        code=new.code.strip(),
        agreement_type=_agreement_type(kind, new),
        rules=_by_priority(new.rules),
        last_modified=op.now,
    )
    await op.run(
        "insert into scheme_drafts (tenant_id, draft_id, scheme_id, name, code, agreement_type, rules, last_modified) "
        "values (%s, %s, %s, %s, %s, %s, %s::jsonb, %s)",
        op.tenant,
        draft.draft_id,
        scheme_id,
        draft.name,
        draft.code,
        draft.agreement_type,
        _encode_rules(draft.rules),
        draft.last_modified,
    )
    return draft


async def _check(op: Operation, kind: SchemeKind, scheme_id: SchemeId, new: NewDraft) -> None:
    installed = await find_installed_ids(op)
    failures = [*_check_texts(kind, new), *_check_rules(kind, new.rules, installed)]
    if failures:
        raise Invalid(*failures)
    taken = await op.row(
        "select from scheme_drafts where tenant_id = %s and name = %s and scheme_id <> %s limit 1",
        op.tenant,
        new.name.strip(),
        scheme_id,
    )
    if taken is not None:
        raise AlreadyExists(
            Failure("SCHEME_NAME_ALREADY_EXISTS", "Another scheme of this tenant has this name. Choose another name.")
        )


def _check_texts(kind: SchemeKind, new: NewDraft) -> Iterator[Failure]:
    name = new.name.strip()
    if not name:
        yield Failure("SCHEME_NAME_IS_REQUIRED", "A scheme has a name.")
    elif len(name) > MAX_NAME_LENGTH:
        yield Failure(
            "SCHEME_NAME_LENGTH_OUT_OF_RANGE",
            "A scheme's name has at most {maxLength} characters.",
            {"maxLength": MAX_NAME_LENGTH},
        )
    elif _CONTROL.search(name):
        yield Failure("SCHEME_NAME_CONTAINS_INVALID_CHARACTERS", "A scheme's name has no control characters.")
    if len(new.code) > MAX_CODE_LENGTH:
        yield Failure(
            "SCHEME_CODE_LENGTH_OUT_OF_RANGE",
            "A scheme's code has at most {maxLength} characters.",
            {"maxLength": MAX_CODE_LENGTH},
        )
    elif _CONTROL.search(new.code):
        yield Failure("SCHEME_CODE_CONTAINS_INVALID_CHARACTERS", "A scheme's code has no control characters.")
    if kind == "collect" and new.agreement_type not in {None, *AGREEMENT_TYPES}:
        yield Failure(
            "AGREEMENT_TYPE_IS_NOT_RECOGNISED",
            "The agreement type is one of {agreementTypes}.",
            {"agreementTypes": ", ".join(AGREEMENT_TYPES)},
        )


def _check_rules(kind: SchemeKind, rules: Sequence[Rule], installed: Collection[AppId]) -> Iterator[Failure]:
    if len(rules) > MAX_RULES:
        yield Failure("RULE_COUNT_OUT_OF_RANGE", "A draft has at most {maxCount} rules.", {"maxCount": MAX_RULES})
        return
    seen: set[int] = set()
    for position, rule in enumerate(rules):
        if not 0 <= rule.priority <= MAX_PRIORITY:
            yield _in_rule(position, "RULE_PRIORITY_OUT_OF_RANGE", f"a priority lies from 0 to {MAX_PRIORITY}")
        elif rule.priority in seen:
            yield _in_rule(position, "RULE_PRIORITY_NOT_UNIQUE", "another rule of the draft has the same priority")
        seen.add(rule.priority)
        for currency in sorted(rule.currencies - EXPONENTS.keys()):
            yield _in_rule(
                position, "CURRENCY_NOT_SUPPORTED", "{currency} is not a currency of ISO 4217", currency=currency[:10]
            )
        for country in sorted(rule.countries - COUNTRIES):
            yield _in_rule(
                position, "COUNTRY_NOT_SUPPORTED", "{country} is not a country of ISO 3166-1", country=country[:10]
            )
        yield from _check_values(position, rule)
        yield from _check_apps(position, kind, rule, installed)


def _check_values(position: int, rule: Rule) -> Iterator[Failure]:
    sound = True
    for name, value in (("lowValueInclusive", rule.low), ("highValueInclusive", rule.high)):
        if value is not None and not _is_sound(value):
            sound = False
            yield _in_rule(
                position,
                "RULE_VALUE_OUT_OF_RANGE",
                "{field} is from 0 up, with at most {maxDigits} digits before the point and {maxDecimals} after it",
                field=name,
                maxDigits=MAX_INTEGER_DIGITS,
                maxDecimals=MAX_DECIMALS,
            )
    if sound and rule.low is not None and rule.high is not None and rule.low > rule.high:
        yield _in_rule(position, "RULE_VALUES_OUT_OF_ORDER", "lowValueInclusive is more than highValueInclusive")


def _is_sound(value: Decimal) -> bool:
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -MAX_DECIMALS and 0 <= value < 10**MAX_INTEGER_DIGITS


def _check_apps(position: int, kind: SchemeKind, rule: Rule, installed: Collection[AppId]) -> Iterator[Failure]:
    if not 1 <= len(rule.apps) <= MAX_APPS_IN_RULE:
        yield _in_rule(
            position, "RULE_APP_COUNT_OUT_OF_RANGE", "a rule names from 1 to {maxCount} apps", maxCount=MAX_APPS_IN_RULE
        )
        return
    seen: set[AppId] = set()
    for choice in rule.apps:
        app = find_app(choice.app_id)
        shown = choice.app_id[:100]
        if app is None or choice.app_id not in installed:
            yield _in_rule(
                position, "APP_NOT_INSTALLED", "the app {appId} is not installed in this tenant", appId=shown
            )
            continue
        if choice.app_id in seen:
            yield _in_rule(position, "RULE_APP_NOT_UNIQUE", "the app {appId} is named twice", appId=shown)
        seen.add(choice.app_id)
        if DIRECTION_OF[kind] not in app.directions:
            yield _in_rule(
                position, "APP_NOT_SUPPORTED", "the app {appId} doesn't serve {kind} schemes", appId=shown, kind=kind
            )
        known = {method.id for method in app.methods}
        for method in choice.excluded_payment_methods:
            if method not in known:
                yield _in_rule(
                    position,
                    "PAYMENT_METHOD_NOT_RECOGNISED",
                    "the app {appId} has no payment method {paymentMethod}",
                    appId=shown,
                    paymentMethod=method[:100],
                )


def _in_rule(position: int, code: str, sentence: str, **values: object) -> Failure:
    return Failure(code, f"Rule {{rule}}: {sentence}.", {"rule": position + 1, **values})


def _agreement_type(kind: SchemeKind, new: NewDraft) -> str | None:
    return (new.agreement_type or AGREEMENT_TYPES[0]) if kind == "collect" else None


def _by_priority(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    return tuple(sorted(rules, key=lambda rule: rule.priority))


def _encode_rules(rules: Sequence[Rule]) -> str:
    return _encoder.encode(_by_priority(rules)).decode()


def _decode_rules(text: str) -> tuple[Rule, ...]:
    return _decoder.decode(text)


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(tuple[Rule, ...])


def _no_scheme() -> NotFound:
    return NotFound(Failure("SCHEME_ID_NOT_RECOGNISED", "There is no such scheme of this kind in this tenant."))


def _no_draft() -> NotFound:
    return NotFound(Failure("DRAFT_NOT_FOUND", "The scheme has no such draft."))


def _not_published() -> NotFound:
    return NotFound(Failure("SCHEME_NOT_PUBLISHED", "No draft of this scheme is published yet."))
