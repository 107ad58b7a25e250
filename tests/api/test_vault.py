"""The customer vault on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.platform import Client, Platform

IBAN = "DE89370400440532013000"
ACCOUNT = {"type": "BANK_ACCOUNT", "accountHolderName": "Erika Mustermann", "iban": "DE89 3704 0044 0532 0130 00"}
BASE = "/v1/customer-vault/c-1"
NO_INSTRUMENT = "00000000-0000-7000-8000-000000000000"


def codes(body: dict[str, Any]) -> list[str]:
    return [error["errorCode"] for error in body["errors"]]


async def add(client: Client, **changed: Any) -> dict[str, Any]:
    answer = await client.post(f"{BASE}/financial-instrument", {**ACCOUNT, **changed})
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_an_account_is_put_in_and_shown_masked(tenant: Client) -> None:
    made = await add(tenant, bic="COBADEFFXXX", address={"locality": "Köln", "country": "DE"}, usageType="MULTIPLE")
    assert list(made) == [
        "id", "type", "status", "displayName", "createdTimestamp", "capabilities", "agreement", "details", "_links",
    ]  # fmt: skip
    href = f"{BASE}/financial-instrument/{made['id']}"
    assert made["_links"] == {"self": {"href": href}}
    assert (made["type"], made["status"], made["displayName"]) == ("BANK_ACCOUNT", "ACTIVE", "DE** **** **** 3000")
    assert isinstance(made["createdTimestamp"], int)
    assert made["capabilities"] == {
        "valueType": "VARIABLE",
        "usageType": "MULTIPLE",
        "canCredit": True,
        "canDebit": True,
    }
    assert made["agreement"] == {"agreementType": "Reuse"}
    assert made["details"] == {
        "accountHolderName": "E*** M***",
        "iban": "DE** **** **** 3000",
        "bic": "COBA****",
        "country": "DE",
    }
    one = await tenant.get(href)
    assert (one.status_code, one.json()) == (200, made)
    whole = await tenant.get(BASE)
    assert whole.status_code == 200
    del made["_links"]
    assert whole.json() == {
        "_links": {"self": {"href": BASE}, "financialInstruments": [{"href": href, "name": made["id"]}]},
        "status": "ACTIVE",
        "metadata": {},
        "financialInstruments": [made],
    }
    for clear in ("Erika", "Mustermann", IBAN, "Köln", "0532"):
        assert clear not in one.text + whole.text


async def test_the_same_account_again_is_the_one_that_is_there(tenant: Client) -> None:
    made = await add(tenant)
    again = await tenant.post(f"{BASE}/financial-instrument", ACCOUNT)
    assert (again.status_code, again.json()) == (200, made)
    other = await add(tenant, accountHolderName="Max Mustermann")
    assert other["id"] != made["id"]


async def test_metadata_is_replaced(tenant: Client) -> None:
    await add(tenant)
    changed = await tenant.put(BASE, {"metadata": {"a": "1", "b": None}})
    assert (changed.status_code, changed.json()["metadata"]) == (202, {"a": "1"})
    assert (await tenant.get(BASE)).json() == changed.json()
    refused = await tenant.put(BASE, {"metadata": {"a" * 41: "1", "b": "x" * 501}})
    assert refused.status_code == 400
    assert codes(refused.json()) == ["METADATA_KEY_SIZE_OUT_OF_RANGE", "METADATA_VALUE_SIZE_OUT_OF_RANGE"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"type": None}, ["FINANCIAL_INSTRUMENT_TYPE_IS_REQUIRED"]),
        ({"type": "MANDATE:SEPA"}, ["FINANCIAL_INSTRUMENT_TYPE_NOT_SUPPORTED"]),
        ({"type": {}}, ["FINANCIAL_INSTRUMENT_TYPE_NOT_SUPPORTED"]),
        ({"usageType": "SINGLE"}, ["USAGE_TYPE_NOT_SUPPORTED"]),
        ({"usageType": ["MULTIPLE"]}, ["USAGE_TYPE_NOT_SUPPORTED"]),
        ({"iban": None}, ["IBAN_IS_REQUIRED"]),
        (
            {"type": "X", "accountHolderName": "", "iban": "DE00", "usageType": "Y"},
            [
                "FINANCIAL_INSTRUMENT_TYPE_NOT_SUPPORTED",
                "ACCOUNT_HOLDER_NAME_IS_REQUIRED",
                "IBAN_IS_INVALID",
                "USAGE_TYPE_NOT_SUPPORTED",
            ],
        ),
    ],
)
async def test_what_is_wrong_is_listed_whole(tenant: Client, changed: dict[str, Any], expected: list[str]) -> None:
    answer = await tenant.post(f"{BASE}/financial-instrument", {**ACCOUNT, **changed})
    assert (answer.status_code, codes(answer.json())) == (400, expected)
    assert codes((await tenant.get(BASE)).json()) == ["CUSTOMER_NOT_FOUND"]


async def test_references_are_checked(tenant: Client) -> None:
    for ref, code in (
        ("a%20b", "CUSTOMER_REF_CONTAINS_INVALID_CHARACTERS"),
        ("a" * 51, "CUSTOMER_REF_LENGTH_OUT_OF_RANGE"),
    ):
        for answer in (
            await tenant.get(f"/v1/customer-vault/{ref}"),
            await tenant.put(f"/v1/customer-vault/{ref}", {"metadata": {}}),
            await tenant.delete(f"/v1/customer-vault/{ref}"),
            await tenant.post(f"/v1/customer-vault/{ref}/financial-instrument", ACCOUNT),
        ):
            assert (answer.status_code, codes(answer.json())) == (400, [code])


async def test_what_is_not_there_is_not_found(tenant: Client) -> None:
    for answer in (await tenant.get(BASE), await tenant.put(BASE, {"metadata": {}}), await tenant.delete(BASE)):
        assert (answer.status_code, codes(answer.json())) == (400, ["CUSTOMER_NOT_FOUND"])
    for instrument_id in (NO_INSTRUMENT, "x", "%00"):
        answer = await tenant.get(f"{BASE}/financial-instrument/{instrument_id}")
        assert (answer.status_code, codes(answer.json())) == (400, ["FINANCIAL_INSTRUMENT_NOT_FOUND"])


async def test_forgetting(tenant: Client) -> None:
    made = await add(tenant)
    await tenant.put(BASE, {"metadata": {"a": "1"}})
    gone = await tenant.delete(BASE)
    assert (gone.status_code, gone.content) == (202, b"")
    body = (await tenant.get(BASE)).json()
    assert (body["status"], body["metadata"]) == ("FORGOTTEN", {})
    assert [
        (found["id"], found["status"], found["displayName"], found["details"]) for found in body["financialInstruments"]
    ] == [(made["id"], "INACTIVE", "", {})]
    assert (await tenant.delete(BASE)).status_code == 202


async def test_somebody_with_an_open_instruction_is_not_forgotten(tenant: Client) -> None:
    instrument = await add(tenant)
    order = {
        "orderRef": "o",
        "instructions": [
            {
                "instructionRef": "i", "customerRef": "c-1", "direction": "CREDIT", "amount": "1.00", "currency": "EUR",
                "country": "DE", "settledByDate": "2026-12-01", "financialInstrumentId": instrument["id"],
            }
        ],
    }  # fmt: skip
    assert (await tenant.post("/v1/order-management", order)).status_code == 202
    refused = await tenant.delete(BASE)
    assert (refused.status_code, codes(refused.json())) == (400, ["CUSTOMER_IN_USE"])
    assert (await tenant.post("/v1/order-management/o/instruction/i/cancel", {"reason": ""})).status_code == 200
    assert (await tenant.delete(BASE)).status_code == 202


async def test_another_tenants_customer_is_not_there(tenant: Client, platform: Platform) -> None:
    made = await add(tenant)
    stranger = await platform.new_tenant()
    assert codes((await stranger.get(BASE)).json()) == ["CUSTOMER_NOT_FOUND"]
    assert codes((await stranger.delete(BASE)).json()) == ["CUSTOMER_NOT_FOUND"]
    await add(stranger)
    theirs = await stranger.get(f"{BASE}/financial-instrument/{made['id']}")
    assert (theirs.status_code, codes(theirs.json())) == (400, ["FINANCIAL_INSTRUMENT_NOT_FOUND"])
    assert (await stranger.delete(BASE)).status_code == 202
    assert (await tenant.get(BASE)).json()["status"] == "ACTIVE"


@pytest.mark.parametrize(
    ("method", "path", "enough", "lesser"),
    [
        ("GET", BASE, "tenant-transaction-read", "tenant-app-write"),
        ("PUT", BASE, "tenant-transaction-write", "tenant-transaction-read"),
        ("DELETE", BASE, "tenant-admin", "tenant-transaction-write"),
        ("POST", f"{BASE}/financial-instrument", "tenant-transaction-write", "tenant-transaction-read"),
        ("GET", f"{BASE}/financial-instrument/{NO_INSTRUMENT}", "tenant-transaction-read", "tenant-app-write"),
    ],
)
async def test_roles(tenant: Client, method: str, path: str, enough: str, lesser: str) -> None:
    await add(tenant)
    body = {"json": ACCOUNT} if method == "POST" else {"json": {"metadata": {}}} if method == "PUT" else {}
    refused = await (await tenant.new_key(lesser)).request(method, path, **body)
    assert (refused.status_code, codes(refused.json())) == (403, ["FORBIDDEN"])
    served = await (await tenant.new_key(enough)).request(method, path, **body)
    assert served.status_code in {200, 202, 400}
