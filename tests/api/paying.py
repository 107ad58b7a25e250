"""What tests of orders need: bodies that are right, and a scheme and an account to pay with."""

from __future__ import annotations

from typing import Any

import httpx

from tests.fixtures.platform import Client

ORDERS = "/v1/order-management"
IBAN = "DE89370400440532013000"
"""The example of the IBAN registry."""


def instruction(ref: str = "i-1", **changed: Any) -> dict[str, Any]:
    """An instruction that is right, with some fields changed."""
    return {
        "instructionRef": ref,
        "customerRef": "c-1",
        "direction": "CREDIT",
        "amount": "200.00",
        "currency": "EUR",
        "country": "DE",
        "settledByDate": "2030-12-01",
        **changed,
    }


def order(ref: str = "o-1", *instructions: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An order with these instructions."""
    return {"orderRef": ref, "instructions": list(instructions), **more}


def codes(answer: httpx.Response) -> list[str]:
    """The codes of an error, in order."""
    return [error["errorCode"] for error in answer.json()["errors"]]


def refusal(answer: httpx.Response) -> tuple[int, list[str]]:
    """An error's status and codes."""
    return answer.status_code, codes(answer)


async def make_order(client: Client, ref: str = "o-1", *instructions: dict[str, Any], **more: Any) -> None:
    """An order that is made."""
    answer = await client.post(ORDERS, order(ref, *instructions, **more))
    assert answer.status_code == (202 if instructions else 201), answer.text


async def make_scheme(client: Client, kind: str = "payout", name: str = "Claims", **rule: Any) -> str:
    """A published scheme that the simulator carries, with a rule of its own; returns its id."""
    assert (await client.post("/v1/marketplace/apps/simulator/install")).status_code in {202, 400}
    rules = [{"priority": 0, "apps": [{"appId": "simulator"}], **rule}]
    made = await client.post(f"/v1/schemes/{kind}", {"name": name, "rules": rules})
    assert made.status_code == 200, made.text
    scheme_id, draft_id = made.json()["schemeId"], made.json()["drafts"][0]["draftId"]
    published = await client.post(f"/v1/schemes/{kind}/{scheme_id}/drafts/{draft_id}/publish")
    assert published.status_code == 204, published.text
    return str(scheme_id)


async def make_account(client: Client, customer_ref: str = "c-1", holder: str = "Erika Mustermann") -> str:
    """A bank account in a customer's vault; returns its id."""
    body = {"type": "BANK_ACCOUNT", "accountHolderName": holder, "iban": IBAN}
    made = await client.post(f"/v1/customer-vault/{customer_ref}/financial-instrument", body)
    assert made.status_code == 202, made.text
    return str(made.json()["id"])
