"""Clients written years ago for the API that ours follows: their ways of asking, and what they look at in the answers.

Seen in public example clients and test suites for that API; written anew here. What they share: the epoch (a fraction
allowed) serves as the nonce, scheme names come in any case, paths end in a slash, unused parts are sent empty, and the
scheme's id is a constant.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.api.paying import codes
from tests.fixtures.platform import Client
from tests.fixtures.signing import authorization

OLD_SCHEME = "654EB81FF7F07F7CF5A1EE3FF6972E90"


def body(**changed: Any) -> dict[str, Any]:
    return {
        "instructionRef": "1784973984",
        "customerRef": "1784973984",
        "direction": "DEBIT",
        "financialInstrumentId": "",
        "amount": "1.00",
        "currency": "EUR",
        "country": "IE",
        "settledByDate": "2029-12-12",
        "schemeId": OLD_SCHEME,
        "metadata": {},
        **changed,
    }


@pytest.fixture
async def moved(tenant: Client) -> Client:
    """A tenant that moved here and brought its scheme's id along."""
    assert (await tenant.post("/v1/marketplace/apps/simulator/install")).status_code == 202
    rules = [{"priority": 1, "currencies": ["EUR"], "countries": ["IE"], "apps": [{"appId": "simulator"}]}]
    made = await tenant.post("/v1/schemes/collect", {"schemeId": OLD_SCHEME, "name": "Premiums", "rules": rules})
    assert made.json()["schemeId"] == OLD_SCHEME
    draft_id = made.json()["drafts"][0]["draftId"]
    assert (await tenant.post(f"/v1/schemes/collect/{OLD_SCHEME}/drafts/{draft_id}/publish")).status_code == 204
    return tenant


@pytest.mark.parametrize("scheme_name", ["Hmac", "hmac", "HMAC"])
@pytest.mark.parametrize("whole_seconds", [True, False])
async def test_signing_in_with_the_epoch_as_nonce(tenant: Client, scheme_name: str, whole_seconds: bool) -> None:
    now = time.time()
    epoch = str(int(now)) if whole_seconds else str(round(now, 3))
    header = authorization(tenant.public_key, tenant.private_key, nonce=epoch, epoch=epoch)
    answer = await tenant.http.post(
        "/v1/identity/hmac?AccountId=any&TenantId=any",
        headers={"Authorization": header.replace("Hmac", scheme_name, 1), "ContentType": "application/json"},
        content=b"",
    )
    assert answer.status_code == 201
    assert answer.json()["accessToken"]


async def test_an_order_with_everything_empty(moved: Client) -> None:
    made = await moved.post(
        "/v1/order-management/",
        {"orderRef": "1784973984", "instructions": [], "metadata": {"EUR": "FR"}, "customerDefaults": {}},
        headers={"Authorization": f"bearer {moved.token}"},
    )
    assert made.status_code == 201


async def test_a_null_in_the_metadata_is_dropped(moved: Client) -> None:
    made = await moved.post("/v1/order-management/", {"orderRef": "n", "instructions": [], "metadata": {"EUR": None}})
    assert made.status_code == 201
    assert (await moved.get("/v1/order-management/n")).json()["metadata"] == {}


async def test_the_last_of_two_equal_keys_wins_and_the_first_leaves_no_trace(moved: Client) -> None:
    content = b'{"orderRef": "d", "instructions": [], "metadata": {"EUR": "IE", "EUR": "FR"}, "customerDefaults": {}}'
    made = await moved.request("POST", "/v1/order-management", content=content)
    assert made.status_code == 201
    read = await moved.get("/v1/order-management/d")
    assert read.json()["metadata"] == {"EUR": "FR"}
    assert "IE" not in read.text


async def test_an_order_with_instructions_is_accepted(moved: Client) -> None:
    made = await moved.post(
        "/v1/order-management/",
        {
            "orderRef": "w",
            "instructions": [body(financialInstrumentId="123456")],
            "metadata": {},
            "customerDefaults": {},
        },
    )
    assert made.status_code == 202


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"instructionRef": "bGc~iOiJ@~"}, "INSTRUCTION_REF_CONTAINS_INVALID_CHARACTERS"),
        ({"instructionRef": None}, "INSTRUCTION_REF_IS_REQUIRED"),
        ({"instructionRef": "7" * 60}, "INSTRUCTION_REF_LENGTH_OUT_OF_RANGE"),
        ({"customerRef": "fff~jjjGc~iOiJ@~"}, "CUSTOMER_REF_CONTAINS_INVALID_CHARACTERS"),
        ({"customerRef": "7" * 60 + "'"}, "CUSTOMER_REF_LENGTH_OUT_OF_RANGE"),
        ({"amount": "-1.33"}, "AMOUNT_OUT_OF_RANGE"),
        ({"amount": None}, "AMOUNT_IS_REQUIRED"),
        ({"amount": "@"}, "AMOUNT_IS_INVALID"),
        ({"amount": "123456789012345678910." + "1" * 60}, "AMOUNT_OUT_OF_RANGE"),
        ({"currency": "GBPEUR"}, "CURRENCY_LENGTH_OUT_OF_RANGE"),
        ({"currency": "AAA"}, "CURRENCY_NOT_SUPPORTED"),
        ({"country": "GBPUSAIE"}, "COUNTRY_LENGTH_OUT_OF_RANGE"),
        ({"country": "ZZ"}, "COUNTRY_NOT_SUPPORTED"),
        ({"direction": "DEBITO"}, "DIRECTION_IS_NOT_RECOGNISED"),
        ({"settledByDate": "202-12-12"}, "SETTLED_BY_DATE_IS_INVALID"),
        ({"schemeId": "badSchemeId"}, "SCHEME_ID_NOT_RECOGNISED"),
        ({"schemeId": "28117598D567061E439F0B49573EC2dd7F"}, "SCHEME_ID_NOT_RECOGNISED"),
        ({"direction": "CREDIT", "country": "PT", "currency": "GBP"}, "SCHEME_ID_NOT_SUPPORTED"),
    ],
)
async def test_what_is_wrong_with_an_instruction_has_its_known_code(
    moved: Client, changed: dict[str, Any], code: str
) -> None:
    assert (await moved.post("/v1/order-management", {"orderRef": "o"})).status_code in {201, 400}
    answer = await moved.post("/v1/order-management/o/instruction", body(**changed))
    assert answer.status_code == 400
    assert codes(answer)[0] == code


async def test_a_past_settlement_day_is_fine_and_references_stay_taken(moved: Client) -> None:
    assert (await moved.post("/v1/order-management", {"orderRef": "p"})).status_code == 201
    assert (await moved.post("/v1/order-management/p/instruction", body(settledByDate="2021-10-10"))).status_code == 201
    again = await moved.post("/v1/order-management/p/instruction", body())
    assert codes(again) == ["INSTRUCTION_ALREADY_EXISTS"]
    cancelled = await moved.post("/v1/order-management/p/instruction/1784973984/cancel", {"reason": "a test"})
    assert cancelled.status_code == 200
    assert codes(await moved.post("/v1/order-management/p/instruction", body())) == ["INSTRUCTION_CANCELLED"]


@pytest.mark.parametrize("wrong", ["654eb81ff7f07f7cf5a1ee3ff6972e90", "654EB8", 7])
async def test_a_scheme_id_that_is_brought_along_has_to_be_one(tenant: Client, wrong: object) -> None:
    made = await tenant.post("/v1/schemes/collect", {"schemeId": wrong, "name": "Premiums"})
    assert (made.status_code, codes(made)) == (400, ["SCHEME_ID_IS_INVALID"])


async def test_a_scheme_id_is_taken_once(moved: Client) -> None:
    again = await moved.post("/v1/schemes/payout", {"schemeId": OLD_SCHEME, "name": "Other"})
    assert (again.status_code, codes(again)) == (400, ["SCHEME_ALREADY_EXISTS"])
