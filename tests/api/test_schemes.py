"""Schemes on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from strongroom.api.schemes import ROUTES
from tests.fixtures.platform import Client

RULE = {"currencies": ["EUR"], "lowValueInclusive": "0.50", "apps": [{"appId": "simulator"}]}


@pytest.fixture
async def client(tenant: Client) -> Client:
    """A tenant-admin whose tenant has the simulator."""
    assert (await tenant.post("/v1/marketplace/apps/simulator/install")).status_code == 202
    return tenant


async def make(client: Client, kind: str = "payout", name: str = "Claims", **more: Any) -> dict[str, Any]:
    answer = await client.post(f"/v1/schemes/{kind}", {"name": name, "rules": [RULE], **more})
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def codes(body: dict[str, Any]) -> list[str]:
    return [error["errorCode"] for error in body["errors"]]


async def test_a_scheme_is_answered_in_the_contracts_form(client: Client) -> None:
    rules = [
        {
            "priority": 7,
            "countries": ["DE", "AT"],
            "highValueInclusive": 1000,
            "apps": [{"appId": "simulator", "excludedPaymentMethods": ["direct-debit", ""]}],
        },
        {**RULE, "priority": 2, "highValueInclusive": 12.25, "countries": None, "unknown": "dropped"},
    ]
    made = await make(client, "collect", code="M-1", agreementType="Reuse", rules=rules)
    assert list(made) == ["schemeId", "publishedDraftId", "drafts"]
    assert len(made["schemeId"]) == 32
    assert made["schemeId"] == made["schemeId"].upper()
    assert made["publishedDraftId"] is None
    [draft] = made["drafts"]
    assert list(draft) == ["draftId", "name", "code", "agreementType", "rules", "lastModified"]
    assert (draft["name"], draft["code"], draft["agreementType"]) == ("Claims", "M-1", "Reuse")
    assert draft["rules"] == [
        {
            "priority": 2,
            "currencies": ["EUR"],
            "countries": [],
            "lowValueInclusive": 0.5,
            "highValueInclusive": 12.25,
            "apps": [
                {
                    "appId": "simulator",
                    "excludedPaymentMethods": [],
                    "availablePaymentMethods": ["bank-transfer", "direct-debit"],
                }
            ],
        },
        {
            "priority": 7,
            "currencies": [],
            "countries": ["AT", "DE"],
            "lowValueInclusive": None,
            "highValueInclusive": 1000,
            "apps": [
                {
                    "appId": "simulator",
                    "excludedPaymentMethods": ["direct-debit"],
                    "availablePaymentMethods": ["bank-transfer"],
                }
            ],
        },
    ]
    one = await client.get(f"/v1/schemes/collect/{made['schemeId']}")
    assert (one.status_code, one.json()) == (200, made)
    assert (await client.get("/v1/schemes/collect")).json() == {"schemes": [made]}
    assert (await client.get("/v1/schemes/payout")).json() == {"schemes": []}


async def test_payout_schemes_have_reward_groups_and_no_agreement(client: Client) -> None:
    [draft] = (await make(client))["drafts"]
    assert "agreementType" not in draft
    assert draft["rules"][0]["rewardGroups"] == []
    refused = await client.post("/v1/schemes/payout", {"name": "x", "rules": [{**RULE, "rewardGroups": ["g"]}]})
    assert (refused.status_code, codes(refused.json())) == (400, ["REWARD_GROUP_NOT_RECOGNISED"])


async def test_drafts_from_first_to_published(client: Client) -> None:
    made = await make(client)
    base = f"/v1/schemes/payout/{made['schemeId']}"
    first = made["drafts"][0]["draftId"]
    answer = await client.post(f"{base}/drafts", {"name": "Claims", "rules": []})
    assert answer.status_code == 200
    second = answer.json()
    assert (await client.get(f"{base}/latest")).json() == second
    changed = await client.put(f"{base}/drafts/{second['draftId']}", {"name": "Claims 2", "rules": [RULE]})
    assert (changed.status_code, changed.content) == (204, b"")
    assert (await client.get(f"{base}/drafts/{second['draftId']}")).json()["name"] == "Claims 2"
    listed = await client.get(f"{base}/drafts")
    assert [draft["draftId"] for draft in listed.json()["drafts"]] == [first, second["draftId"]]
    missing = await client.get(f"{base}/published")
    assert (missing.status_code, codes(missing.json())) == (400, ["SCHEME_NOT_PUBLISHED"])
    published = await client.post(f"{base}/drafts/{first}/publish")
    assert (published.status_code, published.content) == (204, b"")
    assert (await client.get(f"{base}/published")).json() == made["drafts"][0]
    assert (await client.get(base)).json()["publishedDraftId"] == first
    for refused in (
        await client.put(f"{base}/drafts/{first}", {"name": "x", "rules": [RULE]}),
        await client.delete(f"{base}/drafts/{first}"),
    ):
        assert (refused.status_code, codes(refused.json())) == (400, ["DRAFT_IS_PUBLISHED"])
    deleted = await client.delete(f"{base}/drafts/{second['draftId']}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    gone = await client.delete(base)
    assert (gone.status_code, gone.content) == (204, b"")
    assert codes((await client.get(base)).json()) == ["SCHEME_ID_NOT_RECOGNISED"]


async def test_a_published_scheme_carries_an_instruction(client: Client) -> None:
    made = await make(client)
    base = f"/v1/schemes/payout/{made['schemeId']}"
    instruction = {
        "instructionRef": "i", "customerRef": "c", "direction": "CREDIT", "amount": "0.50", "currency": "EUR",
        "country": "DE", "settledByDate": "2026-12-01", "schemeId": made["schemeId"],
    }  # fmt: skip

    async def order(ref: str, **changed: str) -> list[str]:
        answer = await client.post(
            "/v1/order-management", {"orderRef": ref, "instructions": [{**instruction, **changed}]}
        )
        return [] if answer.status_code == 202 else codes(answer.json())

    assert await order("before") == ["SCHEME_ID_NOT_SUPPORTED"]
    await client.post(f"{base}/drafts/{made['drafts'][0]['draftId']}/publish")
    assert await order("after") == []
    assert await order("less", amount="0.49") == ["SCHEME_ID_NOT_SUPPORTED"]
    assert await order("other", currency="USD") == ["SCHEME_ID_NOT_SUPPORTED"]
    assert await order("back", direction="DEBIT") == ["SCHEME_ID_NOT_SUPPORTED"]
    refused = await client.delete(base)
    assert (refused.status_code, codes(refused.json())) == (400, ["SCHEME_IN_USE"])


async def test_explain_names_the_app_and_why_not_the_others(client: Client) -> None:
    made = await make(client, rules=[{**RULE, "countries": ["AT"]}, RULE, {"apps": [{"appId": "simulator"}]}])
    base = f"/v1/schemes/payout/{made['schemeId']}"
    await client.post(f"{base}/drafts/{made['drafts'][0]['draftId']}/publish")
    asked = {"currency": "EUR", "country": "DE", "amount": "10.00"}
    answer = await client.post(f"{base}/explain", asked)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["appId"], body["fallbackAppIds"], body["rulePriority"]) == ("simulator", [], 1)
    assert [(rule["priority"], rule["code"], rule["apps"][0]["code"]) for rule in body["rules"]] == [
        (0, "COUNTRY_NOT_IN_RULE", "RULE_NOT_TAKEN"),
        (1, "MATCHES", "CHOSEN"),
        (2, "EARLIER_RULE_MATCHES", "RULE_NOT_TAKEN"),
    ]
    assert body["rules"][0]["reason"] == "The rule takes AT, not DE."
    wrong_way = (await client.post(f"{base}/explain", {**asked, "direction": "DEBIT"})).json()
    assert (wrong_way["appId"], wrong_way["rulePriority"]) == (None, None)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ["CURRENCY_IS_REQUIRED", "COUNTRY_IS_REQUIRED", "AMOUNT_IS_REQUIRED"]),
        (
            {"direction": "debit", "currency": "EURO", "country": "XX", "amount": "1e3"},
            [
                "DIRECTION_IS_NOT_RECOGNISED",
                "CURRENCY_LENGTH_OUT_OF_RANGE",
                "COUNTRY_NOT_SUPPORTED",
                "AMOUNT_IS_INVALID",
            ],
        ),
        ({"currency": "XXX", "country": "DE", "amount": "0"}, ["CURRENCY_NOT_SUPPORTED", "AMOUNT_OUT_OF_RANGE"]),
        ({"currency": "JPY", "country": "JP", "amount": 1.5}, ["AMOUNT_OUT_OF_RANGE"]),
        ({"currency": "EUR", "country": "DE", "amount": [1]}, ["AMOUNT_IS_INVALID"]),
        ({"currency": "EUR", "country": "DE", "amount": True}, ["AMOUNT_IS_INVALID"]),
    ],
)
async def test_a_payment_that_cannot_be_is_not_explained(
    client: Client, asked: dict[str, Any], expected: list[str]
) -> None:
    made = await make(client)
    answer = await client.post(f"/v1/schemes/payout/{made['schemeId']}/explain", asked)
    assert (answer.status_code, codes(answer.json())) == (400, expected)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({}, ["SCHEME_NAME_IS_REQUIRED"]),
        (
            {"name": 5, "code": [], "agreementType": {}},
            [f"{it}_IS_INVALID" for it in ("SCHEME_NAME", "SCHEME_CODE", "AGREEMENT_TYPE")],
        ),
        ({"name": "x", "rules": {}}, ["RULES_IS_INVALID"]),
        ({"name": "x", "rules": [RULE] * 101}, ["RULE_COUNT_OUT_OF_RANGE"]),
        ({"name": "x", "rules": [5, {**RULE, "priority": 1.5}]}, ["RULE_IS_INVALID", "RULE_IS_INVALID"]),
        ({"name": "x", "rules": [{**RULE, "priority": True}]}, ["RULE_IS_INVALID"]),
        ({"name": "x", "rules": [{**RULE, "currencies": "EUR"}]}, ["RULE_IS_INVALID"]),
        ({"name": "x", "rules": [{**RULE, "countries": [5]}]}, ["RULE_IS_INVALID"]),
        ({"name": "x", "rules": [{**RULE, "apps": ["simulator"]}]}, ["RULE_IS_INVALID"]),
        ({"name": "x", "rules": [{**RULE, "apps": {}}]}, ["RULE_IS_INVALID"]),
        ({"name": "x", "rules": [{**RULE, "lowValueInclusive": "1e3"}]}, ["RULE_VALUE_IS_INVALID"]),
        ({"name": "x", "rules": [{**RULE, "highValueInclusive": [1]}]}, ["RULE_VALUE_IS_INVALID"]),
        ({"name": "x", "rules": [{**RULE, "highValueInclusive": "-1"}]}, ["RULE_VALUE_OUT_OF_RANGE"]),
        ({"name": "x", "rules": [{**RULE, "highValueInclusive": 0.25}]}, ["RULE_VALUES_OUT_OF_ORDER"]),
        (
            {"name": "x", "rules": [{"apps": [{"appId": "nobody"}]}, {}]},
            ["APP_NOT_INSTALLED", "RULE_APP_COUNT_OUT_OF_RANGE"],
        ),
        ("name", ["REQUEST_BODY_INVALID"]),
    ],
)
async def test_a_draft_that_cannot_be_is_refused(client: Client, sent: object, expected: list[str]) -> None:
    answer = await client.post("/v1/schemes/collect", sent)
    assert (answer.status_code, codes(answer.json())) == (400, expected)
    assert (await client.get("/v1/schemes/collect")).json() == {"schemes": []}


async def test_a_scheme_of_the_other_kind_is_not_there(client: Client) -> None:
    made = await make(client, "payout")
    for answer in (
        await client.get(f"/v1/schemes/collect/{made['schemeId']}"),
        await client.delete(f"/v1/schemes/collect/{made['schemeId']}"),
        await client.get(f"/v1/schemes/payout/{made['schemeId'].lower()}"),
        await client.get("/v1/schemes/payout/%00"),
    ):
        assert (answer.status_code, codes(answer.json())) == (400, ["SCHEME_ID_NOT_RECOGNISED"])


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_roles(client: Client, route: Any) -> None:
    kind = route.path.split("/")[3]
    other = "payout" if kind == "collect" else "collect"
    made = await make(client, kind)
    path = route.path.format(schemeId=made["schemeId"], draftId=made["drafts"][0]["draftId"])
    reads = route.method == "GET" or path.endswith("/explain")
    body = {} if route.method in {"GET", "DELETE"} else {"json": {"name": "Mine", "rules": [RULE]}}
    lesser = [f"tenant-{other}-scheme-write", "tenant-app-write", *([] if reads else [f"tenant-{kind}-scheme-read"])]
    refused = await (await client.new_key(*lesser)).request(route.method, path, **body)
    assert (refused.status_code, codes(refused.json())) == (403, ["FORBIDDEN"])
    enough = f"tenant-{kind}-scheme-{'read' if reads else 'write'}"
    served = await (await client.new_key(enough)).request(route.method, path, **body)
    assert served.status_code in {*route.replies, 400}
