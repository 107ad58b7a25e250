"""The marketplace and installed apps on the wire."""

from __future__ import annotations

import json

import pytest

from tests.fixtures.platform import Client

IBAN = "DE89370400440532013000"
SETTINGS = {
    "iban": IBAN,
    "holder": "Alpine Mutual",
    "bic": "COBADEFFXXX",
    "batchBooking": False,
    "maxTransactionsPerFile": 50,
}
MARKETPLACE, INSTALLED = "/v1/marketplace/apps", "/v1/apps/installed"


def codes(body: dict[str, object]) -> list[str]:
    errors = body["errors"]
    assert isinstance(errors, list)
    return [error["errorCode"] for error in errors]


async def test_the_marketplace_says_what_apps_can_carry(tenant: Client) -> None:
    answer = await tenant.get(MARKETPLACE)
    assert answer.status_code == 200
    found = {app["appId"]: app for app in answer.json()["apps"]}
    assert set(found) == {"simulator", "sepa-credit-transfer"}
    sepa = found["sepa-credit-transfer"]
    assert list(sepa) == [
        "appId", "name", "developerId", "developerName", "description", "iconUrl", "tags", "supportedPaymentMethods",
        "supportedCountries", "supportedCurrencies", "settings",
    ]  # fmt: skip
    assert sepa["supportedCurrencies"] == ["EUR"]
    assert "CH" in sepa["supportedCountries"]
    assert set(sepa["settings"]) > set(SETTINGS)
    assert sepa["supportedPaymentMethods"] == [
        {
            "id": "sepa-credit-transfer",
            "name": "SEPA credit transfer",
            "iconUrl": None,
            "tags": ["bank", "file"],
            "isCreditCard": False,
            "supportsDirectSale": True,
            "supportsRecurring": True,
            "providerWarningRequired": False,
        }
    ]
    one = await tenant.get(f"{MARKETPLACE}/sepa-credit-transfer")
    assert (one.status_code, one.json()) == (200, sepa)
    missing = await tenant.get(f"{MARKETPLACE}/nobody")
    assert (missing.status_code, codes(missing.json())) == (400, ["APP_NOT_FOUND"])


async def test_an_app_from_install_to_uninstall(tenant: Client) -> None:
    assert (await tenant.get(INSTALLED)).json() == {"apps": []}
    made = await tenant.post(f"{MARKETPLACE}/sepa-credit-transfer/install")
    assert made.status_code == 202
    assert list(made.json()) == ["appId", "name", "isConfigured", "installedOn", "lastModified"]
    assert made.json()["isConfigured"] is False
    assert made.json()["installedOn"].endswith("Z")
    twice = await tenant.post(f"{MARKETPLACE}/sepa-credit-transfer/install")
    assert (twice.status_code, codes(twice.json())) == (400, ["APP_ALREADY_INSTALLED"])
    configured = await tenant.post(f"{INSTALLED}/sepa-credit-transfer/configuration", SETTINGS)
    assert configured.status_code == 200
    assert configured.json()["isConfigured"] is True
    one = await tenant.get(f"{INSTALLED}/sepa-credit-transfer/")
    assert (one.status_code, one.json()) == (200, configured.json())
    listed = await tenant.get(INSTALLED)
    assert (listed.status_code, listed.json()) == (200, {"apps": [configured.json()]})
    assert IBAN not in configured.text + listed.text + one.text
    gone = await tenant.post(f"{INSTALLED}/sepa-credit-transfer/uninstall")
    assert (gone.status_code, gone.content) == (200, b"")
    again = await tenant.post(f"{INSTALLED}/sepa-credit-transfer/uninstall")
    assert (again.status_code, codes(again.json())) == (400, ["APP_NOT_INSTALLED"])


async def test_a_repeated_install_with_its_key_gets_the_same_answer(tenant: Client) -> None:
    first, second = [
        await tenant.post(f"{MARKETPLACE}/simulator/install", headers={"Idempotency-Key": "once"}) for _ in range(2)
    ]
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert len((await tenant.get(INSTALLED)).json()["apps"]) == 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["SETTING_IS_REQUIRED"] * 3),
        ({**SETTINGS, "iban": "DE00"}, ["SETTING_IS_INVALID"]),
        ({**SETTINGS, "holder": ["a"]}, ["SETTING_IS_INVALID"]),
        ({**SETTINGS, "holder": None, "colour": "red"}, ["SETTING_IS_REQUIRED", "SETTING_NOT_RECOGNISED"]),
        ({**SETTINGS, "maxTransactionsPerFile": 1.5}, ["SETTING_IS_INVALID"]),
        ({**SETTINGS, "holder": "a" * 4_001}, ["SETTING_IS_INVALID"]),
        ({f"s{n}": "" for n in range(51)}, ["SETTING_COUNT_OUT_OF_RANGE"]),
        ([], ["REQUEST_BODY_INVALID"]),
    ],
)
async def test_settings_that_cannot_be_are_refused_whole(tenant: Client, settings: object, expected: list[str]) -> None:
    await tenant.post(f"{MARKETPLACE}/sepa-credit-transfer/install")
    answer = await tenant.post(f"{INSTALLED}/sepa-credit-transfer/configuration", settings)
    assert (answer.status_code, codes(answer.json())) == (400, expected)
    assert IBAN not in answer.text
    assert (await tenant.get(f"{INSTALLED}/sepa-credit-transfer")).json()["isConfigured"] is False


async def test_an_app_that_a_draft_names_stays(tenant: Client) -> None:
    await tenant.post(f"{MARKETPLACE}/simulator/install")
    await tenant.post("/v1/schemes/payout", {"name": "Claims", "rules": [{"apps": [{"appId": "simulator"}]}]})
    answer = await tenant.post(f"{INSTALLED}/simulator/uninstall")
    assert (answer.status_code, codes(answer.json())) == (400, ["APP_IN_USE"])


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", MARKETPLACE, "tenant-app-read"),
        ("GET", f"{MARKETPLACE}/simulator", "tenant-app-read"),
        ("POST", f"{MARKETPLACE}/simulator/install", "tenant-app-write"),
        ("GET", INSTALLED, "tenant-app-read"),
        ("GET", f"{INSTALLED}/simulator", "tenant-app-read"),
        ("POST", f"{INSTALLED}/simulator/configuration", "tenant-app-write"),
        ("POST", f"{INSTALLED}/simulator/uninstall", "tenant-app-write"),
    ],
)
async def test_roles(tenant: Client, method: str, path: str, role: str) -> None:
    lesser = await tenant.new_key(
        "tenant-payout-scheme-write",
        "tenant-transaction-write",
        *(["tenant-app-read"] if role.endswith("write") else []),
    )
    content = {"content": json.dumps({})} if method == "POST" else {}
    refused = await lesser.request(method, path, **content)
    assert (refused.status_code, codes(refused.json())) == (403, ["FORBIDDEN"])
    served = await (await tenant.new_key(role)).request(method, path, **content)
    assert served.status_code != 403
