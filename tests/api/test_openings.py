"""Opening what the customer vault shows through masks: who, for what, how often, and what is left of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
import structlog

from strongroom.database import Purpose
from strongroom.kernel.actors import system
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Forbidden
from strongroom.kernel.ids import AccountId, ApiKeyId, TenantId
from strongroom.payments import openings
from strongroom.payments.customers import customer_id_of, open_details
from strongroom.vault import Scope
from tests.api.paying import IBAN, codes, refusal
from tests.api.test_customer_search import EMAIL, VAULT, add
from tests.fixtures.platform import Client, Platform
from tests.payments.world import World

OPEN = f"{VAULT}/c-1/open"
ASKED = {"fields": ["email", "iban"], "purpose": "customer-service", "reason": "Ticket 4711"}
FRENCH = "FR1420041010050500013M02606"


async def ask(client: Client, ref: str = "c-1", **changed: Any) -> httpx.Response:
    return await client.post(f"{VAULT}/{ref}/open", {**ASKED, **changed})


def as_in(platform: Platform, client: Client, *roles: str) -> Client:
    """The same client, asking another process, with a token of that process's time."""
    assert client.tenant_id is not None
    issued = platform.app.tokens.issue(
        ApiKeyId(UUID(client.public_key)),
        account=AccountId(UUID(client.account_id)),
        tenant=TenantId(UUID(client.tenant_id)),
        roles=roles or ("tenant-admin",),
    )
    return replace(client, http=platform.http, token=issued.token.reveal())


async def record_of(platform: Platform, client: Client, prefix: str = "customer.open") -> list[tuple[str, str, str]]:
    return await World.of(platform.app, client).actions(prefix)


async def test_what_is_asked_for_is_given_and_nothing_else(tenant: Client) -> None:
    await add(tenant)
    address = {"streetAddress": "Domstraße", "extendedAddress": "4a", "locality": "Köln", "country": "DE"}
    domestic = {
        "type": "BANK_ACCOUNT", "accountHolderName": "Erika Beispiel", "accountNumber": "12345678",
        "bankCode": "601613", "country": "GB", "address": address,
    }  # fmt: skip
    second = (await tenant.post(f"{VAULT}/c-1/financial-instrument", domestic)).json()["id"]
    first = (await tenant.get(f"{VAULT}/c-1")).json()["financialInstruments"][0]["id"]
    answer = await ask(tenant)
    assert answer.status_code == 200
    assert UUID(answer.json()["openingId"])
    assert answer.json()["opened"] == {
        "email": EMAIL,
        "financialInstruments": [{"id": first, "iban": IBAN}, {"id": second}],
    }
    everything = list(openings.FIELDS)
    whole = (await ask(tenant, fields=everything, financialInstrumentId=second)).json()["opened"]
    assert whole == {
        "email": EMAIL,
        "financialInstruments": [
            {
                "id": second,
                "accountHolderName": "Erika Beispiel",
                "accountNumber": "12345678",
                "bankCode": "601613",
                "address": {
                    "streetAddress": "Domstraße", "extendedAddress": "4a", "locality": "Köln", "region": None,
                    "postCode": None, "country": "DE",
                },
            }
        ],
    }  # fmt: skip
    only = (await ask(tenant, fields=["email"], purpose="customer-contact")).json()["opened"]
    assert only == {"email": EMAIL, "financialInstruments": []}


async def test_what_there_is_not_is_null_or_left_out(tenant: Client) -> None:
    await add(tenant, email=None)
    assert (await ask(tenant, fields=["email", "bic"])).json()["opened"]["email"] is None
    await tenant.put(f"{VAULT}/c-1", {"metadata": {"a": "1"}})
    opened = (await ask(tenant, fields=["email", "bic"])).json()["opened"]
    assert (opened["email"], [list(each) for each in opened["financialInstruments"]]) == (None, [["id"]])


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"fields": None, "purpose": None, "reason": None},
         ["FIELDS_IS_REQUIRED", "PURPOSE_IS_REQUIRED", "REASON_IS_REQUIRED"]),
        ({"fields": [], "purpose": "", "reason": "  "},
         ["FIELDS_IS_REQUIRED", "PURPOSE_IS_REQUIRED", "REASON_IS_REQUIRED"]),
        ({"fields": ["name"], "purpose": "curiosity"}, ["FIELDS_NOT_RECOGNISED", "PURPOSE_NOT_RECOGNISED"]),
        ({"fields": "iban"}, ["FIELDS_IS_INVALID"]),
        ({"purpose": "execution"}, ["PURPOSE_NOT_RECOGNISED"]),
        ({"purpose": "reconciliation"}, ["PURPOSE_NOT_RECOGNISED"]),
        ({"reason": "x" * 501}, ["REASON_LENGTH_OUT_OF_RANGE"]),
        ({"reason": 7}, ["REASON_IS_INVALID"]),
        ({"reason": "a\nb"}, ["REASON_CONTAINS_INVALID_CHARACTERS"]),
        ({"financialInstrumentId": "x"}, ["FINANCIAL_INSTRUMENT_ID_IS_INVALID"]),
        ({"financialInstrumentId": "00000000-0000-7000-8000-000000000000"}, ["FINANCIAL_INSTRUMENT_NOT_FOUND"]),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_listed_and_nothing_is_opened(
    tenant: Client, platform: Platform, changed: dict[str, Any], expected: list[str]
) -> None:
    await add(tenant)
    assert refusal(await ask(tenant, **changed)) == (400, expected)
    assert await record_of(platform, tenant) == []


async def test_a_purpose_opens_only_what_it_is_for(tenant: Client, platform: Platform) -> None:
    await add(tenant)
    refused = await ask(tenant, purpose="customer-contact")
    assert refusal(refused) == (403, ["PURPOSE_NOT_ALLOWED"])
    assert refused.json()["errors"][0]["metadata"]["field"] == "iban"
    assert await record_of(platform, tenant) == []
    for purpose in ("customer-service", "fraud-prevention", "legal-obligation", "data-subject-request"):
        assert (await ask(tenant, purpose=purpose)).status_code == 200


async def test_only_who_may(tenant: Client, platform: Platform) -> None:
    await add(tenant)
    for role in ("tenant-transaction-read", "tenant-transaction-write", "tenant-management"):
        assert refusal(await ask(await tenant.new_key(role))) == (403, ["FORBIDDEN"])
    assert (await ask(await tenant.new_key("tenant-vault-open"))).status_code == 200
    assert refusal(await ask(await platform.new_tenant())) == (400, ["CUSTOMER_NOT_FOUND"])


async def test_nobody_and_somebody_forgotten(tenant: Client) -> None:
    assert refusal(await ask(tenant)) == (400, ["CUSTOMER_NOT_FOUND"])
    assert codes(await ask(tenant, "a%20b")) == ["CUSTOMER_REF_CONTAINS_INVALID_CHARACTERS"]
    await add(tenant)
    await tenant.delete(f"{VAULT}/c-1")
    assert refusal(await ask(tenant)) == (400, ["CUSTOMER_NOT_FOUND"])


async def test_the_record_says_who_whose_and_why_and_holds_no_value(tenant: Client, platform: Platform) -> None:
    await add(tenant)
    answer = await ask(tenant)
    opening_id = answer.json()["openingId"]
    world = World.of(platform.app, tenant)
    async with world.operation() as op:
        rows = await op.rows("select actor_id, outcome from audit_entries where action = 'customer.open'")
        customer_id = customer_id_of(op, "c-1")
        kept = await op.row("select subject_id, actor_id, purpose, fields, sealed, openings::text from openings")
        assert kept is not None
        assert kept[:4] == (UUID(bytes=customer_id), tenant.public_key, "customer-service", ["email", "iban"])
        reason = op.cipher.open("openings", "sealed", UUID(opening_id).bytes, kept[4])
        everything = await op.rows("select t::text from audit_entries t where tenant_id = %s", op.tenant)
    assert reason == b"Ticket 4711"
    assert [tuple(row) for row in rows] == [(tenant.public_key, "done")]
    assert await record_of(platform, tenant) == [
        (
            "customer.open",
            customer_id.hex(),
            f"opening={opening_id} purpose=customer-service reason=given fields=email,iban",
        )
    ]
    told = " ".join([kept[5], *(row[0] for row in everything)])
    for secret in (EMAIL, "Mustermann", IBAN, "4711"):
        assert secret not in told


async def test_a_replay_gives_nothing_in_clear(tenant: Client, platform: Platform) -> None:
    await add(tenant)
    key = {"Idempotency-Key": "open-1"}
    first = await tenant.post(OPEN, ASKED, headers=key)
    again = await tenant.post(OPEN, ASKED, headers=key)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == {"openingId": first.json()["openingId"], "opened": None}
    async with World.of(platform.app, tenant).operation() as op:
        row = await op.row("select key_hash, sealed from idempotency_keys where scope_id = %s", op.tenant)
        assert row is not None
        stored = op.cipher.open("idempotency_keys", "sealed", row[0], row[1])
    assert IBAN.encode() not in stored
    assert EMAIL.encode() not in stored


async def test_with_the_customer_s_key_disabled_nothing_opens_or_counts(tenant: Client, platform: Platform) -> None:
    await add(tenant)
    world = World.of(platform.app, tenant)
    desk, scope = platform.app.key_desk, Scope(account=world.account, tenant=world.tenant)
    await desk.disable(system("test"), scope)
    refused = await ask(tenant)
    assert refusal(refused) == (503, ["KEY_UNAVAILABLE"])
    assert int(refused.headers["retry-after"]) > 0
    assert await record_of(platform, tenant) == []
    await desk.enable(system("test"), scope)
    assert (await ask(tenant)).json()["opened"]["email"] == EMAIL


async def test_one_key_s_limit_holds_in_all_processes_together(
    tenant: Client, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openings, "MAX_OPENINGS_OF_ONE", 3)
    await add(tenant)
    clock = ManualClock(datetime(2026, 12, 1, tzinfo=UTC))
    other_key = await tenant.new_key("tenant-vault-open")
    async with platform.another_process(clock) as one, platform.another_process(clock) as two:
        for process in (one, two, one):
            assert (await ask(as_in(process, tenant))).status_code == 200
            clock.advance(timedelta(minutes=10))
        for process in (one, two):
            refused = await ask(as_in(process, tenant))
            assert refusal(refused) == (429, ["OPENINGS_OF_KEY_EXCEEDED"])
            # The oldest of the three was half an hour ago, so in half an hour there is room for one.
            assert refused.headers["retry-after"] == "1800"
        assert (await ask(as_in(one, other_key, "tenant-vault-open"))).status_code == 200
        clock.advance(timedelta(minutes=29, seconds=59))
        assert (await ask(as_in(two, tenant))).headers["retry-after"] == "1"
        clock.advance(timedelta(seconds=1))
        assert (await ask(as_in(two, tenant))).status_code == 200
        assert (await ask(as_in(one, tenant))).status_code == 429
    refusals = [entry for entry in await record_of(platform, tenant, "POST ") if entry[2] == "OPENINGS_OF_KEY_EXCEEDED"]
    assert len(refusals) == 4


async def test_a_tenant_s_limit_counts_all_its_keys_and_no_other_s(
    tenant: Client, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openings, "MAX_OPENINGS_OF_TENANT", 3)
    await add(tenant)
    keys = [await tenant.new_key("tenant-vault-open") for _ in range(4)]
    answers = [await ask(key) for key in keys]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert codes(answers[-1]) == ["OPENINGS_OF_TENANT_EXCEEDED"]
    stranger = await platform.new_tenant()
    await add(stranger)
    assert (await ask(stranger)).status_code == 200


async def test_at_once_no_more_than_the_limit_get_through(
    tenant: Client, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openings, "MAX_OPENINGS_OF_ONE", 4)
    await add(tenant)
    await tenant.get(f"{VAULT}/c-1")
    async with platform.another_process() as other:
        there = as_in(other, tenant)
        await there.get(f"{VAULT}/c-1")
        answers = await asyncio.gather(*(ask(seat) for seat in (tenant, there) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [429] * 8


async def test_opening_many_customers_raises_an_alert_once(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openings, "MANY_CUSTOMERS", 3)
    account = await platform.new_account()
    tenant, neighbour = await account.new_tenant(), await account.new_tenant(region="ch")
    for number in range(4):
        await add(tenant, f"c-{number}", None)
    await add(neighbour)
    for _ in range(4):
        assert (await ask(tenant, "c-0")).status_code == 200
    assert (await ask(await tenant.new_key("tenant-vault-open"), "c-1")).status_code == 200
    assert (await ask(tenant, "c-1")).status_code == 200
    assert (await tenant.get("/v1/alerts")).json() == {"alerts": [], "cursor": None}
    with structlog.testing.capture_logs() as said:
        for ref in ("c-2", "c-3"):
            assert (await ask(tenant, ref)).status_code == 200
    [alert] = (await tenant.get("/v1/alerts")).json()["alerts"]
    assert alert == {
        "alertId": alert["alertId"],
        "tenantId": tenant.tenant_id,
        "kind": "openings.many-customers",
        "subjectKind": "api-key",
        "subjectId": tenant.public_key,
        "detail": "customers=3 window_s=3600",
        "raisedOn": alert["raisedOn"],
    }
    [line] = [entry for entry in said if entry["event"] == "alert.raised"]
    assert (line["kind"], line["log_level"]) == ("openings.many-customers", "warning")
    detail = f"openings.many-customers api-key={tenant.public_key} customers=3 window_s=3600"
    assert await record_of(platform, tenant, "alert.") == [("alert.raise", alert["alertId"], detail)]
    assert (await neighbour.get("/v1/alerts")).json()["alerts"] == []
    assert (await account.get("/v1/account/alerts")).json()["alerts"] == [alert]
    assert (await (await platform.new_account()).get("/v1/account/alerts")).json()["alerts"] == []


async def test_alerts_come_in_pages_over_all_regions(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openings, "MANY_CUSTOMERS", 1)
    account = await platform.new_account()
    tenants = [await account.new_tenant(region=region) for region in ("eu", "ch", "eu")]
    for client in tenants:
        await add(client, email=None)
        assert (await ask(client)).status_code == 200
    seen, cursor = [], None
    for _ in range(3):
        path = "/v1/account/alerts?take=1" + (f"&cursor={cursor}" if cursor else "")
        page = (await account.get(path)).json()
        seen += [alert["tenantId"] for alert in page["alerts"]]
        cursor = page["cursor"]
    assert (seen, cursor) == ([client.tenant_id for client in reversed(tenants)], None)
    for path in ("/v1/account/alerts?take=0&cursor=x", "/v1/account/alerts?take=1001&cursor=x"):
        assert codes(await account.get(path)) == ["CURSOR_IS_INVALID", "TAKE_OUT_OF_RANGE"]


async def test_code_that_names_no_purpose_or_another_opens_nothing(tenant: Client, platform: Platform) -> None:
    await add(tenant)
    async with World.of(platform.app, tenant).operation() as op:
        row = await op.row("select sensitive from customers")
        assert row is not None
        customer_id = customer_id_of(op, "c-1")
        with pytest.raises(Forbidden) as refused:
            open_details(op, customer_id, row[0])
        assert refused.value.code == "PURPOSE_NOT_DECLARED"
        with op.opening(Purpose.EXECUTION), pytest.raises(Forbidden) as refused:
            open_details(op, customer_id, row[0])
        assert refused.value.code == "PURPOSE_NOT_ALLOWED"
        with op.opening(Purpose.CUSTOMER_CONTACT):
            assert open_details(op, customer_id, row[0]).email == EMAIL
        # The declaration ends with the block.
        with pytest.raises(Forbidden):
            open_details(op, customer_id, row[0])
