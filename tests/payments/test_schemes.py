"""Schemes: drafts, what they may say, publishing, and what payments find."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest

from strongroom.assembly import App
from strongroom.database import Operation
from strongroom.kernel.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound
from strongroom.kernel.money import Money
from strongroom.payments import apps, schemes
from strongroom.payments.instruments import add_many
from strongroom.payments.routing import AppChoice, Rule, SchemeKind, supports
from strongroom.payments.schemes import MAX_RULES, NewDraft
from strongroom.rails.contract import Direction
from tests.fixtures.platform import Client, Platform
from tests.payments.world import SEPA, SIMULATOR, World, bank_account, draft, instruct, publish_scheme, rule

NOWHERE = "0" * 32
NO_DRAFT = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
async def world(app: App, tenant: Client) -> World:
    """A tenant with the simulator installed."""
    world = World.of(app, tenant)
    async with world.operation() as op:
        await apps.install(op, SIMULATOR)
    return world


async def test_a_scheme_comes_back_as_it_was_made(world: World) -> None:
    rules = (
        rule(5, countries=frozenset({"DE", "AT"})),
        rule(1, currencies=frozenset({"EUR"}), low=Decimal("0.01"), high=Decimal("999999999999.9999")),
    )
    async with world.operation() as op:
        made = await schemes.create_scheme(op, "collect", draft(" Motor ", *rules, code="M-1", agreement_type="Reuse"))
        assert made.published_draft_id is None
        assert await schemes.get_scheme(op, "collect", made.scheme_id) == made
        assert await schemes.list_schemes(op, "collect") == [made]
        assert await schemes.list_schemes(op, "payout") == []
        [only] = made.drafts
        assert (only.name, only.code, only.agreement_type) == ("Motor", "M-1", "Reuse")
        assert only.rules == (rules[1], rules[0])
        assert await schemes.get_draft(op, "collect", made.scheme_id, str(only.draft_id).upper()) == only
    assert await world.actions("scheme") == [("scheme.create", made.scheme_id, "")]


async def test_agreement_types_are_of_collect_schemes(world: World) -> None:
    async with world.operation() as op:
        collect = await schemes.create_scheme(op, "collect", draft("c"))
        payout = await schemes.create_scheme(op, "payout", draft("p", agreement_type="Reuse"))
    assert collect.drafts[0].agreement_type == "SingleUse"
    assert payout.drafts[0].agreement_type is None


async def test_drafts_are_made_edited_deleted_and_the_latest_found(world: World) -> None:
    async with world.operation() as op:
        scheme_id = (await schemes.create_scheme(op, "payout", draft())).scheme_id
        second = await schemes.create_draft(op, "payout", scheme_id, draft("Claims", rule(0, high=Decimal(5))))
        assert await schemes.get_latest_draft(op, "payout", scheme_id) == second
        first = (await schemes.get_scheme(op, "payout", scheme_id)).drafts[0]
    async with world.operation() as op:  # a later instant
        await schemes.edit_draft(op, "payout", scheme_id, str(first.draft_id), draft("Renamed", rule(3), code="x"))
        latest = await schemes.get_latest_draft(op, "payout", scheme_id)
        assert (latest.draft_id, latest.name, latest.code) == (first.draft_id, "Renamed", "x")
        assert latest.rules == (rule(3),)
        assert latest.last_modified == op.now > second.last_modified
        await schemes.delete_draft(op, "payout", scheme_id, str(first.draft_id))
        assert [kept.draft_id for kept in (await schemes.get_scheme(op, "payout", scheme_id)).drafts] == [
            second.draft_id
        ]
        await schemes.delete_draft(op, "payout", scheme_id, str(second.draft_id))
        assert (await schemes.get_scheme(op, "payout", scheme_id)).drafts == ()
        with pytest.raises(NotFound) as refused:
            await schemes.get_latest_draft(op, "payout", scheme_id)
        assert refused.value.code == "DRAFT_NOT_FOUND"
    assert [action for action, _, _ in await world.actions("scheme-draft.")] == [
        "scheme-draft.create",
        "scheme-draft.change",
        "scheme-draft.delete",
        "scheme-draft.delete",
    ]


async def test_names_are_unique_across_schemes_and_shared_within_one(world: World) -> None:
    async with world.operation() as op:
        first = await schemes.create_scheme(op, "payout", draft("Claims"))
        await schemes.create_draft(op, "payout", first.scheme_id, draft("Claims"))
        other = await schemes.create_scheme(op, "collect", draft("Premiums"))
        for attempt in (
            schemes.create_scheme(op, "collect", draft("Claims")),
            schemes.create_draft(op, "collect", other.scheme_id, draft(" Claims")),
            schemes.edit_draft(op, "collect", other.scheme_id, str(other.drafts[0].draft_id), draft("Claims")),
        ):
            with pytest.raises(AlreadyExists) as refused:
                await attempt
            assert refused.value.code == "SCHEME_NAME_ALREADY_EXISTS"


async def test_of_two_schemes_made_at_once_with_one_name_one_is_made(world: World) -> None:
    async def make() -> schemes.Scheme:
        async with world.operation() as op:
            made = await schemes.create_scheme(op, "payout", draft("Claims"))
            await asyncio.sleep(0.1)
            return made

    results = await asyncio.gather(make(), make(), make(), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["AlreadyExists", "AlreadyExists", "Scheme"]


LONG = "x" * 101


@pytest.mark.parametrize(
    ("new", "codes"),
    [
        (draft("  "), ["SCHEME_NAME_IS_REQUIRED"]),
        (draft(LONG), ["SCHEME_NAME_LENGTH_OUT_OF_RANGE"]),
        (draft("a\nb"), ["SCHEME_NAME_CONTAINS_INVALID_CHARACTERS"]),
        (draft("a", code=LONG), ["SCHEME_CODE_LENGTH_OUT_OF_RANGE"]),
        (draft("a", code="\0"), ["SCHEME_CODE_CONTAINS_INVALID_CHARACTERS"]),
        (draft("a", agreement_type="reuse"), ["AGREEMENT_TYPE_IS_NOT_RECOGNISED"]),
        (draft("a", *(rule(n) for n in range(MAX_RULES + 1))), ["RULE_COUNT_OUT_OF_RANGE"]),
        (draft("a", rule(-1)), ["RULE_PRIORITY_OUT_OF_RANGE"]),
        (draft("a", rule(1), rule(1)), ["RULE_PRIORITY_NOT_UNIQUE"]),
        (draft("a", rule(0, currencies=frozenset({"EUR", "EURO", "XXX"}))), ["CURRENCY_NOT_SUPPORTED"] * 2),
        (draft("a", rule(0, countries=frozenset({"DE", "de", "XX"}))), ["COUNTRY_NOT_SUPPORTED"] * 2),
        (draft("a", rule(0, low=Decimal("-1"))), ["RULE_VALUE_OUT_OF_RANGE"]),
        (draft("a", rule(0, high=Decimal("1e12"))), ["RULE_VALUE_OUT_OF_RANGE"]),
        (draft("a", rule(0, high=Decimal("0.00001"))), ["RULE_VALUE_OUT_OF_RANGE"]),
        (draft("a", rule(0, high=Decimal("NaN"))), ["RULE_VALUE_OUT_OF_RANGE"]),
        (draft("a", rule(0, low=Decimal("5"), high=Decimal("4.99"))), ["RULE_VALUES_OUT_OF_ORDER"]),
        (draft("a", Rule(priority=0)), ["RULE_APP_COUNT_OUT_OF_RANGE"]),
        (draft("a", rule(0, SIMULATOR, SIMULATOR)), ["RULE_APP_NOT_UNIQUE"]),
        (draft("a", rule(0, "nobody")), ["APP_NOT_INSTALLED"]),
        (draft("a", rule(0, SEPA)), ["APP_NOT_INSTALLED"]),
        (
            draft("", rule(-1, "nobody", low=Decimal(-1)), rule(0, countries=frozenset({"XX"}))),
            [
                "SCHEME_NAME_IS_REQUIRED",
                "RULE_PRIORITY_OUT_OF_RANGE",
                "RULE_VALUE_OUT_OF_RANGE",
                "APP_NOT_INSTALLED",
                "COUNTRY_NOT_SUPPORTED",
            ],
        ),
    ],
)
async def test_what_a_draft_may_not_say_is_listed_whole(world: World, new: NewDraft, codes: list[str]) -> None:
    async with world.operation() as op:
        with pytest.raises(Invalid) as refused:
            await schemes.create_scheme(op, "collect", new)
        assert [failure.code for failure in refused.value.failures] == codes
        assert all(failure.message for failure in refused.value.failures)
        scheme = await schemes.create_scheme(op, "collect", draft("sound"))
        for attempt in (
            schemes.create_draft(op, "collect", scheme.scheme_id, new),
            schemes.edit_draft(op, "collect", scheme.scheme_id, str(scheme.drafts[0].draft_id), new),
        ):
            with pytest.raises(Invalid):
                await attempt
        assert await schemes.list_schemes(op, "collect") == [scheme]


async def test_an_app_must_serve_the_schemes_kind_and_offer_the_methods(world: World) -> None:
    async with world.operation() as op:
        await apps.install(op, SEPA)
        with pytest.raises(Invalid) as refused:
            await schemes.create_scheme(op, "collect", draft("a", rule(0, SEPA)))
        assert refused.value.code == "APP_NOT_SUPPORTED"
        odd = Rule(priority=0, apps=(AppChoice(app_id=SIMULATOR, excluded_payment_methods=("cash",)),))
        with pytest.raises(Invalid) as refused:
            await schemes.create_scheme(op, "collect", draft("a", odd))
        assert refused.value.code == "PAYMENT_METHOD_NOT_RECOGNISED"
        assert refused.value.failures[0].values["paymentMethod"] == "cash"


async def test_publishing_takes_effect_at_once_and_holds_the_draft(world: World) -> None:
    async with world.operation() as op:
        scheme = await schemes.create_scheme(op, "payout", draft("a", rule(0, high=Decimal(10))))
        scheme_id, first = scheme.scheme_id, str(scheme.drafts[0].draft_id)
        with pytest.raises(NotFound) as missing:
            await schemes.get_published_draft(op, "payout", scheme_id)
        assert missing.value.code == "SCHEME_NOT_PUBLISHED"
        assert (await schemes.find_published(op, [scheme_id]))[scheme_id].rules == ()
        await schemes.publish(op, "payout", scheme_id, first)
        assert await schemes.get_published_draft(op, "payout", scheme_id) == scheme.drafts[0]
        assert await _carries(op, scheme_id) == [True, False]
        for attempt in (
            schemes.edit_draft(op, "payout", scheme_id, first, draft("b")),
            schemes.delete_draft(op, "payout", scheme_id, first),
        ):
            with pytest.raises(Conflict) as refused:
                await attempt
            assert refused.value.code == "DRAFT_IS_PUBLISHED"
        second = await schemes.create_draft(op, "payout", scheme_id, draft("a", rule(0, low=Decimal(11))))
        assert await _carries(op, scheme_id) == [True, False]
        await schemes.publish(op, "payout", scheme_id, str(second.draft_id))
        assert await _carries(op, scheme_id) == [False, True]
        # At the very same instant: what was parsed before must not come back.
        await schemes.edit_draft(op, "payout", scheme_id, first, draft("a", rule(0)))
        await schemes.publish(op, "payout", scheme_id, first)
        assert await _carries(op, scheme_id) == [True, True]
        await schemes.delete_draft(op, "payout", scheme_id, str(second.draft_id))
    assert [entry for entry in await world.actions("scheme.") if entry[0] == "scheme.publish"] == [
        ("scheme.publish", scheme_id, first),
        ("scheme.publish", scheme_id, str(second.draft_id)),
        ("scheme.publish", scheme_id, first),
    ]


async def _carries(op: Operation, scheme_id: str) -> list[bool]:
    """Whether 10 and 11 euros can be paid out."""
    scheme = (await schemes.find_published(op, [scheme_id]))[scheme_id]
    return [supports(scheme, "CREDIT", "EUR", "DE", minor) for minor in (1_000, 1_100)]


async def test_what_cannot_be_carried_out_is_not_published(world: World) -> None:
    async with world.operation() as op:
        await apps.install(op, SEPA)
        scheme = await schemes.create_scheme(op, "payout", NewDraft(name="a"))
        with pytest.raises(Conflict) as refused:
            await schemes.publish(op, "payout", scheme.scheme_id, str(scheme.drafts[0].draft_id))
        assert refused.value.code == "DRAFT_HAS_NO_RULES"
        unready = await schemes.create_draft(op, "payout", scheme.scheme_id, draft("a", rule(0, SIMULATOR, SEPA)))
        with pytest.raises(Conflict) as refused:
            await schemes.publish(op, "payout", scheme.scheme_id, str(unready.draft_id))
        assert [(failure.code, failure.values["appId"]) for failure in refused.value.failures] == [
            ("APP_NOT_CONFIGURED", SEPA)
        ]
        assert (await schemes.get_scheme(op, "payout", scheme.scheme_id)).published_draft_id is None


async def test_repeated_look_ups_parse_nothing(world: World) -> None:
    async with world.operation() as op:
        scheme_id = await publish_scheme(op)
    async with world.operation() as op:
        once = await schemes.find_published(op, {scheme_id, NOWHERE, "", "\0", scheme_id.lower(), "x" * 32})
        again = await schemes.find_published(op, [scheme_id])
    assert list(once) == [scheme_id]
    assert again[scheme_id] is once[scheme_id]


async def test_a_scheme_that_instructions_refer_to_stays(world: World) -> None:
    async with world.operation() as op:
        used = await publish_scheme(op, name="used")
        unused = await publish_scheme(op, name="unused")
        [instrument] = await add_many(op, [("c", bank_account())])
        await instruct(op, "o", "c", used, instrument)
    with pytest.raises(Conflict) as refused:
        async with world.operation() as op:
            await schemes.delete_scheme(op, "payout", used)
    assert refused.value.code == "SCHEME_IN_USE"
    async with world.operation() as op:
        await schemes.delete_scheme(op, "payout", unused)
        assert [found.scheme_id for found in await schemes.list_schemes(op, "payout")] == [used]
        assert await op.row("select count(*) from scheme_drafts where scheme_id = %s", unused) == (0,)


async def test_explaining_says_what_would_happen(world: World) -> None:
    async with world.operation() as op:
        await apps.install(op, SEPA)
        scheme = await schemes.create_scheme(
            op, "payout", draft("a", rule(0, SEPA, SIMULATOR, currencies=frozenset({"EUR"})), rule(1))
        )
        asked = {"country": "DE", "money": Money(1, "EUR")}
        with pytest.raises(NotFound) as refused:
            await schemes.explain(op, "payout", scheme.scheme_id, **asked)
        assert refused.value.code == "SCHEME_NOT_PUBLISHED"
        await apps.configure(op, SEPA, {"iban": "DE89370400440532013000", "holder": "A", "bic": "COBADEFFXXX"})
        await schemes.publish(op, "payout", scheme.scheme_id, str(scheme.drafts[0].draft_id))
        choice = await schemes.explain(op, "payout", scheme.scheme_id, **asked)
        assert choice.apps == (SEPA, SIMULATOR)
        assert [verdict.code for verdict in choice.verdicts] == ["MATCHES", "EARLIER_RULE_MATCHES"]
        other_way = await schemes.explain(op, "payout", scheme.scheme_id, direction=Direction.DEBIT, **asked)
        assert other_way.apps == ()
        for kind, scheme_id in (("collect", scheme.scheme_id), ("payout", NOWHERE), ("payout", "x")):
            with pytest.raises(NotFound) as refused:
                await schemes.explain(op, kind, scheme_id, **asked)  # type: ignore[arg-type]  # a literal in a tuple
            assert refused.value.code == "SCHEME_ID_NOT_RECOGNISED"


Ask = Callable[[Operation, SchemeKind, str, str], Awaitable[object]]
READS: dict[str, Ask] = {
    "list": lambda op, kind, scheme, _: schemes.list_schemes(op, kind),
    "get": lambda op, kind, scheme, _: schemes.get_scheme(op, kind, scheme),
    "get-draft": schemes.get_draft,
    "published": lambda op, kind, scheme, _: schemes.get_published_draft(op, kind, scheme),
    "latest": lambda op, kind, scheme, _: schemes.get_latest_draft(op, kind, scheme),
    "explain": lambda op, kind, scheme, _: schemes.explain(op, kind, scheme, country="DE", money=Money(1, "EUR")),
}
WRITES: dict[str, Ask] = {
    "create": lambda op, kind, scheme, _: schemes.create_scheme(op, kind, draft("Other")),
    "create-draft": lambda op, kind, scheme, _: schemes.create_draft(op, kind, scheme, draft("Mine")),
    "edit-draft": lambda op, kind, scheme, a_draft: schemes.edit_draft(op, kind, scheme, a_draft, draft("Mine")),
    "publish": schemes.publish,
    "delete-draft": schemes.delete_draft,
    "delete": lambda op, kind, scheme, _: schemes.delete_scheme(op, kind, scheme),
}


@pytest.mark.parametrize("kind", ["collect", "payout"])
@pytest.mark.parametrize("name", [*READS, *WRITES])
async def test_every_function_asks_for_its_kinds_permission(world: World, kind: SchemeKind, name: str) -> None:
    other = "payout" if kind == "collect" else "collect"
    allowed = f"tenant-{kind}-scheme-{'read' if name in READS else 'write'}"
    refused = [f"tenant-{other}-scheme-write", "tenant-app-write"]
    if name in WRITES:
        refused.append(f"tenant-{kind}-scheme-read")
    ask = (READS | WRITES)[name]
    async with world.operation() as op:
        scheme_id = await publish_scheme(op, kind, "Mine")
        draft_id = str((await schemes.create_draft(op, kind, scheme_id, draft("Mine"))).draft_id)
    async with world.operation(*refused) as op:
        with pytest.raises(Forbidden):
            await ask(op, kind, scheme_id, draft_id)
    async with world.operation(allowed) as op:
        await ask(op, kind, scheme_id, draft_id)


@pytest.mark.parametrize("name", [name for name in [*READS, *WRITES] if name not in {"list", "create"}])
async def test_another_tenants_schemes_are_not_there(world: World, platform: Platform, name: str) -> None:
    stranger = World.of(platform.app, await platform.new_tenant())
    async with world.operation() as op:
        scheme_id = await publish_scheme(op, name="Mine")
        draft_id = str((await schemes.get_scheme(op, "payout", scheme_id)).drafts[0].draft_id)
        before = await schemes.get_scheme(op, "payout", scheme_id)
    async with stranger.operation() as op:
        await apps.install(op, SIMULATOR)
        with pytest.raises(NotFound) as refused:
            await (READS | WRITES)[name](op, "payout", scheme_id, draft_id)
        assert refused.value.code == "SCHEME_ID_NOT_RECOGNISED"
        assert await schemes.find_published(op, [scheme_id]) == {}
        assert await schemes.list_schemes(op, "payout") == []
        await schemes.create_scheme(op, "payout", draft("Mine"))
    async with world.operation() as op:
        assert await schemes.get_scheme(op, "payout", scheme_id) == before


@pytest.mark.parametrize("draft_id", [NO_DRAFT, "", "x", "\0"])
async def test_a_draft_that_is_not_there_is_not_found(world: World, draft_id: str) -> None:
    async with world.operation() as op:
        scheme_id = await publish_scheme(op)
        for ask in (schemes.get_draft, schemes.publish, schemes.delete_draft, WRITES["edit-draft"]):
            with pytest.raises(NotFound) as refused:
                await ask(op, "payout", scheme_id, draft_id)
            assert refused.value.code == "DRAFT_NOT_FOUND"
