"""The account: who it is, what its license says, and that it may be changed."""

from __future__ import annotations

import uuid

import httpx
import pytest

from strongroom.kernel.actors import system
from strongroom.kernel.ids import AccountId
from tests.fixtures.platform import Client, Platform

ADDRESS = {
    "streetAddress": "Seestrasse 1",
    "extendedAddress": "3. Stock",
    "locality": "Zürich",
    "region": "ZH",
    "postCode": "8002",
    "country": "CH",
}
FULL = {
    "accountRef": "alpine-1",
    "companyName": "Alpine Mutual AG",
    "billingContactFirstName": "Nora",
    "billingContactLastName": "Beispiel",
    "billingContactAddress": ADDRESS,
    "tenantCreationApprovalRequired": True,
}


def codes(answer: httpx.Response) -> list[str]:
    return [error["errorCode"] for error in answer.json()["errors"]]


async def test_a_new_account_has_the_documented_fields_in_order(account: Client) -> None:
    body = (await account.get("/v1/account")).json()
    assert list(body) == [
        "accountId",
        "accountRef",
        "companyName",
        "billingContactFirstName",
        "billingContactLastName",
        "billingContactAddress",
        "tenantCreationApprovalRequired",
        "license",
    ]
    assert list(body["license"]) == [
        "licenseId",
        "licenseName",
        "maxTenants",
        "maxTransactions",
        "maxCollectApps",
        "maxPayoutApps",
        "licensePeriodStartDate",
        "licensePeriodEndDate",
        "tenantUsage",
        "enableMandates",
    ]
    assert body["accountId"] == account.account_id
    assert body["companyName"] == "Alpine Mutual"
    assert body["license"]["maxTenants"] == -1
    assert body["license"]["tenantUsage"] == 0


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_an_account_is_changed_whole(account: Client, version: str) -> None:
    assert (await account.put(f"/{version}/account", FULL)).status_code == 204
    body = (await account.get(f"/{version}/account")).json()
    assert {field: body[field] for field in FULL} == FULL
    answer = await account.put(f"/{version}/account", {"companyName": "Alpine"})
    assert (answer.status_code, answer.content) == (204, b"")
    body = (await account.get(f"/{version}/account")).json()
    assert body["companyName"] == "Alpine"
    assert body["billingContactFirstName"] is None
    assert body["billingContactAddress"] is None
    assert body["tenantCreationApprovalRequired"] is True, "a security setting is not emptied by being left out"


async def test_everything_wrong_is_listed_in_field_order(account: Client) -> None:
    answer = await account.put(
        "/v1/account",
        {
            "tenantCreationApprovalRequired": "yes",
            "billingContactAddress": {"country": "Switzerland", "postCode": "8" * 17},
            "billingContactFirstName": "N" * 101,
            "companyName": "",
            "accountRef": 7,
        },
    )
    assert answer.status_code == 400
    assert codes(answer) == [
        "ACCOUNT_REF_IS_INVALID",
        "COMPANY_NAME_IS_REQUIRED",
        "BILLING_CONTACT_FIRST_NAME_LENGTH_OUT_OF_RANGE",
        "STREET_ADDRESS_IS_REQUIRED",
        "POST_CODE_LENGTH_OUT_OF_RANGE",
        "COUNTRY_LENGTH_OUT_OF_RANGE",
        "TENANT_CREATION_APPROVAL_REQUIRED_IS_INVALID",
    ]
    assert (await account.get("/v1/account")).json()["companyName"] == "Alpine Mutual"


async def test_unknown_fields_are_dropped(platform: Platform, account: Client) -> None:
    assert (await account.put("/v1/account", {"companyName": "A", "vatNumber": "CHE-1"})).status_code == 204
    assert "vatNumber" not in (await account.get("/v1/account")).json()
    account_id = AccountId(uuid.UUID(account.account_id))
    async with platform.app.operation(system("test"), account=account_id) as op:
        row = await op.row("select sealed from accounts")
        assert row is not None
        plain = op.cipher.open("accounts", "sealed", account_id.bytes, row[0])
    assert b"vatNumber" not in plain
    assert b"CHE-1" not in plain


async def test_names_are_sealed(platform: Platform, account: Client) -> None:
    assert (await account.put("/v1/account", FULL)).status_code == 204
    async with platform.app.operation(system("test"), account=AccountId(uuid.UUID(account.account_id))) as op:
        row = await op.row("select accounts::text from accounts")
    assert row is not None
    stored = bytes.fromhex(row[0].split("\\\\x")[1].split('"')[0])
    assert b"Alpine" not in stored
    assert b"Nora" not in stored


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 204),
        ("application/json; charset=utf-8", 204),
        ("application/json-patch+json", 204),
        ("text/json", 204),
        ("", 204),
        ("Application/JSON", 204),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/xml", 415),
    ],
)
async def test_media_types(account: Client, content_type: str, status: int) -> None:
    answer = await account.request(
        "PUT", "/v1/account/", content=b'{"companyName": "A"}', headers={"content-type": content_type}
    )
    assert answer.status_code == status
    if status == 415:
        assert codes(answer) == ["MEDIA_TYPE_NOT_SUPPORTED"]


async def test_the_last_of_duplicate_keys_wins(account: Client) -> None:
    answer = await account.request("PUT", "/v1/account", content=b'{"companyName": "A", "companyName": "B"}')
    assert answer.status_code == 204
    assert (await account.get("/v1/account")).json()["companyName"] == "B"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "REQUEST_BODY_IS_REQUIRED"),
        (b"[]", 400, "REQUEST_BODY_INVALID"),
        (b'{"companyName": "A"', 400, "REQUEST_BODY_INVALID"),
        (b'{"companyName": "\xff"}', 400, "REQUEST_BODY_INVALID"),
        (b'{"companyName": "A\\u0000"}', 400, "REQUEST_BODY_INVALID"),
        (b'{"companyName": "\\ud800"}', 400, "REQUEST_BODY_INVALID"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, 400, "REQUEST_BODY_INVALID"),
        (b'{"companyName": "' + b"A" * 1024 * 1024 + b'"}', 413, "REQUEST_TOO_LARGE"),
    ],
)
async def test_bodies_that_can_not_be_used(account: Client, body: bytes, status: int, code: str) -> None:
    answer = await account.request("PUT", "/v1/account", content=body)
    assert (answer.status_code, codes(answer)) == (status, [code])


async def test_the_correlation_id_is_echoed_or_made(account: Client) -> None:
    given = await account.get("/v1/account", headers={"x-correlation-id": "claim-7"})
    assert given.headers["x-correlation-id"] == "claim-7"
    made = await account.put("/v1/account", {})
    assert uuid.UUID(made.headers["x-correlation-id"]).version == 7
    assert made.json()["correlationId"] == made.headers["x-correlation-id"]


async def test_problems_are_answered_to_who_asks_for_them(account: Client) -> None:
    answer = await account.put("/v1/account", {}, headers={"Accept": "application/problem+json"})
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code == 400
    assert [error["errorCode"] for error in body["errors"]] == ["COMPANY_NAME_IS_REQUIRED"]


async def test_a_change_is_on_record(platform: Platform, account: Client) -> None:
    await account.put("/v1/account", {"companyName": "A"})
    async with platform.app.operation(system("test"), account=AccountId(uuid.UUID(account.account_id))) as op:
        rows = await op.rows("select action, actor_kind, actor_id from audit_entries order by entry_id")
    assert rows[:2] == [
        ("account.create", "operator", "command-line"),
        ("api-key.create", "operator", "command-line"),
    ]
    assert rows[-1] == ("account.update", "api-key", account.public_key)
