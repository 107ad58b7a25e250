"""Tenants: made in a region, approved or rejected, changed, ended."""

from __future__ import annotations

import asyncio
import uuid

import httpx
import pytest

from strongroom.kernel.actors import system
from strongroom.kernel.ids import AccountId, TenantId
from strongroom.tenancy import License
from tests.fixtures.platform import Client, Platform

TENANTS = "/v1/account/tenants"
ADDRESS = {
    "streetAddress": "Rue de l'Exemple 5",
    "extendedAddress": None,
    "locality": "Lyon",
    "region": None,
    "postCode": "69001",
    "country": "FR",
}


def codes(answer: httpx.Response) -> list[str]:
    return [error["errorCode"] for error in answer.json()["errors"]]


async def test_a_tenant_is_made_where_it_is_wanted(platform: Platform, account: Client) -> None:
    answer = await account.post(TENANTS, {"name": "Claims", "address": ADDRESS, "region": "ch"})
    assert answer.status_code == 201
    body = answer.json()
    assert list(body) == ["accountId", "tenantId", "name", "status", "address", "statusDetails", "region"]
    assert list(body["statusDetails"]) == [
        "createdOn",
        "createdBy",
        "approvedOn",
        "approvedBy",
        "rejectedOn",
        "rejectedBy",
        "rejectionReason",
        "deletedOn",
        "deletedBy",
    ]
    assert (body["name"], body["status"], body["address"], body["region"]) == ("Claims", "APPROVED", ADDRESS, "ch")
    assert body["statusDetails"]["createdBy"] == body["statusDetails"]["approvedBy"] == account.public_key
    assert uuid.UUID(body["tenantId"]).version == 7
    assert (await account.get(f"{TENANTS}/{body['tenantId']}")).json() == body
    tenant_id = TenantId(uuid.UUID(body["tenantId"]))
    for region, rows in (("ch", 1), ("eu", 0)):
        async with platform.app.operation(
            system("test"), account=AccountId(uuid.UUID(account.account_id)), region=region
        ) as op:
            found = await op.rows("select from tenants where tenant_id = %s", tenant_id)
            assert len(found) == rows, region


async def test_without_a_region_a_tenant_lives_where_its_account_does(platform: Platform) -> None:
    account = await platform.new_account(region="ch")
    assert (await account.post(TENANTS, {"name": "Claims"})).json()["region"] == "ch"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, ["NAME_IS_REQUIRED"]),
        ({"name": "x" * 101}, ["NAME_LENGTH_OUT_OF_RANGE"]),
        ({"name": "a\tb"}, ["NAME_CONTAINS_INVALID_CHARACTERS"]),
        ({"name": "x", "region": "us"}, ["REGION_NOT_RECOGNISED"]),
        ({"name": "x", "region": "EU"}, ["REGION_NOT_RECOGNISED"]),
        ({"name": "x", "region": ["eu"]}, ["REGION_NOT_RECOGNISED"]),
        ({"region": "us", "address": {}}, [
            "NAME_IS_REQUIRED", "STREET_ADDRESS_IS_REQUIRED", "COUNTRY_IS_REQUIRED", "REGION_NOT_RECOGNISED",
        ]),
        ({"name": "x", "address": "Lyon"}, ["ADDRESS_IS_INVALID"]),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_a_new_tenant(account: Client, body: dict[str, object], expected: list[str]) -> None:
    answer = await account.post(TENANTS, body)
    assert (answer.status_code, codes(answer)) == (400, expected)
    assert (await account.get(TENANTS)).json() == {"tenants": [], "cursor": None}


async def test_an_account_may_want_its_tenants_approved(platform: Platform) -> None:
    account = await platform.new_account(tenant_creation_approval_required=True)
    writer, approver = await account.new_key("account-tenant-write"), await account.new_key("account-tenant-approval")
    made = (await writer.post(TENANTS, {"name": "Claims"})).json()
    assert made["status"] == "AWAITING_APPROVAL"
    assert made["statusDetails"]["approvedOn"] is None
    path = f"{TENANTS}/{made['tenantId']}"
    assert (await writer.post(f"{path}/approve")).status_code == 403
    answer = await approver.post(f"{path}/approve")
    assert answer.status_code == 200
    assert answer.json()["status"] == "APPROVED"
    assert answer.json()["statusDetails"]["approvedBy"] == approver.public_key
    again = await approver.post(f"{path}/approve")
    assert (again.status_code, codes(again)) == (400, ["TENANT_STATUS_CONFLICT"])
    too_late = await approver.post(f"{path}/reject", {"reason": "No."})
    assert codes(too_late) == ["TENANT_STATUS_CONFLICT"]


async def test_a_rejection_says_why(platform: Platform) -> None:
    account = await platform.new_account(tenant_creation_approval_required=True)
    path = f"{TENANTS}/{(await account.post(TENANTS, {'name': 'Claims'})).json()['tenantId']}"
    for body, expected in (({}, ["REASON_IS_REQUIRED"]), ({"reason": "x" * 501}, ["REASON_LENGTH_OUT_OF_RANGE"])):
        assert codes(await account.post(f"{path}/reject", body)) == expected
    answer = await account.post(f"{path}/reject", {"reason": "There is one already."})
    assert answer.status_code == 200
    details = answer.json()["statusDetails"]
    assert details["rejectionReason"] == "There is one already."
    assert details["rejectedBy"] == account.public_key
    assert codes(await account.put(path, {"name": "Other"})) == ["TENANT_STATUS_CONFLICT"]
    assert (await account.delete(path)).json()["status"] == "DELETED"


async def test_of_two_decisions_at_once_one_counts(platform: Platform) -> None:
    account = await platform.new_account(tenant_creation_approval_required=True)
    path = f"{TENANTS}/{(await account.post(TENANTS, {'name': 'Claims'})).json()['tenantId']}"
    answers = await asyncio.gather(
        account.post(f"{path}/approve"),
        account.post(f"{path}/reject", {"reason": "No."}),
        account.post(f"{path}/approve"),
    )
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400]


async def test_a_tenant_is_changed_by_its_account(account: Client) -> None:
    path = f"{TENANTS}/{(await account.post(TENANTS, {'name': 'Claims', 'address': ADDRESS})).json()['tenantId']}"
    answer = await account.put(path, {"name": "Payouts", "status": "DELETED"})
    assert answer.status_code == 200
    assert (answer.json()["name"], answer.json()["address"], answer.json()["status"]) == ("Payouts", None, "APPROVED")
    assert codes(await account.put(path, {"name": ""})) == ["NAME_IS_REQUIRED"]
    assert (await account.get(path)).json() == answer.json()


async def test_a_tenant_sees_and_changes_itself(tenant: Client) -> None:
    manager = await tenant.new_key("tenant-management")
    answer = await manager.put("/v1/tenant", {"name": "Renamed", "address": ADDRESS})
    assert answer.status_code == 202
    body = (await tenant.get("/v1/tenant")).json()
    assert (body["tenantId"], body["name"], body["address"]) == (tenant.tenant_id, "Renamed", ADDRESS)


async def test_a_deleted_tenant_stays_deleted(account: Client) -> None:
    path = f"{TENANTS}/{(await account.post(TENANTS, {'name': 'Claims'})).json()['tenantId']}"
    answer = await account.delete(path)
    assert answer.status_code == 200
    assert answer.json()["statusDetails"]["deletedBy"] == account.public_key
    assert (await account.get(path)).json()["status"] == "DELETED"
    for again in (
        await account.delete(path),
        await account.put(path, {"name": "x"}),
        await account.post(f"{path}/approve"),
    ):
        assert (again.status_code, codes(again)) == (400, ["TENANT_STATUS_CONFLICT"])
    assert (await account.get("/v1/account")).json()["license"]["tenantUsage"] == 0


async def test_the_license_limits_how_many(platform: Platform) -> None:
    account = await platform.new_account(account_license=License(max_tenants=2))
    key = {"Idempotency-Key": "the-second"}
    made = [
        await account.post(TENANTS, {"name": "T0"}),
        await account.post(TENANTS, {"name": "T1", "region": "ch"}, headers=key),
    ]
    assert (await account.post(TENANTS, {"name": "T1", "region": "ch"}, headers=key)).json() == made[1].json()
    answer = await account.post(TENANTS, {"name": "One too many"})
    assert (answer.status_code, codes(answer)) == (400, ["TENANT_LIMIT_REACHED"])
    assert (await account.get("/v1/account")).json()["license"]["tenantUsage"] == 2
    await account.delete(f"{TENANTS}/{made[0].json()['tenantId']}")
    assert (await account.post(TENANTS, {"name": "Instead"})).status_code == 201


async def test_tenants_are_listed_page_by_page_over_all_regions(account: Client) -> None:
    names = ["A", "B", "C", "D", "E"]
    for number, name in enumerate(names):
        await account.post(TENANTS, {"name": name, "region": ("eu", "ch")[number % 2]})
    found: list[str] = []
    cursor = ""
    for expected in (2, 2, 1):
        page = (await account.get(TENANTS, params={"take": 2, "cursor": cursor})).json()
        assert len(page["tenants"]) == expected
        found += [tenant["name"] for tenant in page["tenants"]]
        cursor = page["cursor"]
    assert cursor is None
    assert found == names


@pytest.mark.parametrize("take", ["0", "1001", "-1", "x", "1.5", "²"])
async def test_take_has_its_limits(account: Client, take: str) -> None:
    answer = await account.get(TENANTS, params={"take": take, "cursor": "x"})
    assert (answer.status_code, codes(answer)) == (400, ["TAKE_OUT_OF_RANGE", "CURSOR_IS_INVALID"])


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_somebody_elses_tenant_is_not_there(platform: Platform, account: Client, method: str) -> None:
    theirs = await platform.new_tenant()
    for tenant_id in (theirs.tenant_id, str(uuid.uuid4()), "x"):
        for path in (f"{TENANTS}/{tenant_id}", f"/v1/tenant/{tenant_id}/keys/{theirs.public_key}"):
            answer = await account.request(method, path, json={"name": "Mine now", "roles": ["tenant-admin"]})
            assert (answer.status_code, codes(answer)) == (400, ["TENANT_NOT_FOUND"])
    assert (await theirs.get("/v1/tenant")).json()["name"] == "Claims"


async def test_the_same_request_twice_makes_one_tenant(account: Client) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = await account.post(TENANTS, {"name": "Claims", "region": "ch"}, headers=key)
    second = await account.post(TENANTS, {"name": "Claims", "region": "ch"}, headers=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert second.headers["idempotency-replayed"] == "true"
    other = await account.post(TENANTS, {"name": "Else", "region": "ch"}, headers=key)
    assert (other.status_code, codes(other)) == (422, ["IDEMPOTENCY_KEY_REUSED"])
    assert len((await account.get(TENANTS)).json()["tenants"]) == 1


async def test_the_same_request_many_times_at_once_makes_one_tenant(platform: Platform, account: Client) -> None:
    await account.sign_in()
    key = {"Idempotency-Key": uuid.uuid4().hex}
    answers = await asyncio.gather(*(account.post(TENANTS, {"name": "Claims"}, headers=key) for _ in range(8)))
    made = [answer.json()["tenantId"] for answer in answers if answer.status_code == 201]
    in_flight = [codes(answer) for answer in answers if answer.status_code == 409]
    assert made
    assert set(made) == {made[0]}
    assert in_flight == [["IDEMPOTENCY_KEY_IN_FLIGHT"]] * (len(answers) - len(made))
    assert len((await account.get(TENANTS)).json()["tenants"]) == 1
