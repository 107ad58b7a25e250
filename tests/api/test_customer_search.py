"""Mail addresses of customers, and finding customers by what is sealed."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

import pytest
import structlog

from strongroom.kernel.actors import system
from strongroom.vault import Scope
from tests.api.paying import IBAN, codes, refusal
from tests.fixtures.platform import Client, Platform
from tests.payments.world import World

VAULT = "/v1/customer-vault"
SEARCH = f"{VAULT}/search"
EMAIL = "Erika.Mustermann@Example.com"
MASK = "E***@Example.com"
OTHER_IBAN = "FR1420041010050500013M02606"


async def add(client: Client, ref: str = "c-1", email: str | None = EMAIL, iban: str = IBAN) -> None:
    account = {"type": "BANK_ACCOUNT", "accountHolderName": "Erika Mustermann", "iban": iban}
    assert (await client.post(f"{VAULT}/{ref}/financial-instrument", account)).status_code == 202
    if email is not None:
        changed = await client.put(f"{VAULT}/{ref}", {"email": email})
        assert changed.status_code == 202, changed.text


async def refs(client: Client, **asked: Any) -> list[str]:
    """Whom both ways of asking find."""
    one = await client.post(SEARCH, asked)
    other = await client.get(VAULT, params=asked)
    assert (one.status_code, other.status_code) == (200, 200), one.text + other.text
    assert one.json() == other.json()
    return [found["customerRef"] for found in one.json()["customers"]]


async def test_a_mail_address_is_kept_and_shown_masked(tenant: Client) -> None:
    await add(tenant, email=None)
    assert "email" not in (await tenant.get(f"{VAULT}/c-1")).json()
    put = await tenant.put(f"{VAULT}/c-1", {"email": EMAIL, "metadata": {"a": "1"}})
    assert (put.status_code, put.json()["email"], put.json()["metadata"]) == (202, MASK, {"a": "1"})
    assert (await tenant.get(f"{VAULT}/c-1")).json() == put.json()
    # Whatever is left out stays as it is.
    put = await tenant.put(f"{VAULT}/c-1", {"metadata": {"b": "2"}})
    assert (put.json()["email"], put.json()["metadata"]) == (MASK, {"b": "2"})
    put = await tenant.put(f"{VAULT}/c-1", {"email": "max@example.org"})
    assert (put.json()["email"], put.json()["metadata"]) == ("m***@example.org", {"b": "2"})
    put = await tenant.put(f"{VAULT}/c-1", {"email": None})
    assert ("email" in put.json(), put.json()["metadata"]) == (False, {"b": "2"})
    assert await refs(tenant, email="max@example.org") == []


async def test_an_object_with_more_in_it_is_metadata_as_ever(tenant: Client) -> None:
    await add(tenant)
    put = await tenant.put(f"{VAULT}/c-1", {"email": "team@example.com", "team": "claims"})
    assert (put.json()["email"], put.json()["metadata"]) == (MASK, {"email": "team@example.com", "team": "claims"})


@pytest.mark.parametrize("email", ["ada", 7, [], "a b@example.com", ""])
async def test_what_is_no_address_is_refused_and_nothing_is_changed(tenant: Client, email: Any) -> None:
    await add(tenant)
    answer = await tenant.put(f"{VAULT}/c-1", {"metadata": {"a" * 41: "1"}, "email": email})
    assert refusal(answer) == (400, ["METADATA_KEY_SIZE_OUT_OF_RANGE", "EMAIL_IS_INVALID"])
    assert str(email) not in answer.json()["errors"][1]["message"] or email == ""
    body = (await tenant.get(f"{VAULT}/c-1")).json()
    assert (body["email"], body["metadata"]) == (MASK, {})


async def test_nobody_s_mail_address_is_not_found(tenant: Client) -> None:
    assert codes(await tenant.put(f"{VAULT}/c-1", {"email": EMAIL})) == ["CUSTOMER_NOT_FOUND"]


async def test_customers_are_found_by_each_and_shown_masked(tenant: Client) -> None:
    await add(tenant, "c-1")
    await add(tenant, "c-2", "ada@example.com", OTHER_IBAN)
    await add(tenant, "c-3", None)
    answer = await tenant.post(SEARCH, {"email": "erika.mustermann@EXAMPLE.COM"})
    [found] = answer.json()["customers"]
    assert found == {
        "_links": {"self": {"href": f"{VAULT}/c-1"}},
        "customerRef": "c-1",
        "status": "ACTIVE",
        "createdTimestamp": found["createdTimestamp"],
        "email": MASK,
    }
    assert answer.json()["cursor"] is None
    assert sorted(await refs(tenant, iban="de89 3704 0044 0532 0130 00")) == ["c-1", "c-3"]
    assert await refs(tenant, iban=OTHER_IBAN) == ["c-2"]
    assert await refs(tenant, customerRef="c-2") == ["c-2"]
    # Exactly, and nothing else.
    assert await refs(tenant, customerRef="C-2") == []
    assert await refs(tenant, email="erika@example.com") == []
    assert await refs(tenant, iban="GB29NWBK60161331926819") == []


async def test_a_second_account_counts_once(tenant: Client) -> None:
    await add(tenant, "c-1", None)
    account = {"type": "BANK_ACCOUNT", "accountHolderName": "Max Mustermann", "iban": IBAN}
    assert (await tenant.post(f"{VAULT}/c-1/financial-instrument", account)).status_code == 202
    assert await refs(tenant, iban=IBAN) == ["c-1"]


async def test_pages(tenant: Client) -> None:
    for number in range(5):
        await add(tenant, f"c-{number}", None)
    seen, cursor = [], None
    for expected in (2, 2, 1):
        asked = {"iban": IBAN, "take": 2, **({"cursor": cursor} if cursor else {})}
        page = (await tenant.post(SEARCH, asked)).json()
        assert len(page["customers"]) == expected
        assert (await tenant.get(VAULT, params=asked)).json() == page
        seen += [found["customerRef"] for found in page["customers"]]
        cursor = page["cursor"]
    assert (sorted(seen), cursor) == ([f"c-{number}" for number in range(5)], None)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, ["SEARCH_TERM_IS_REQUIRED"]),
        ({"email": ""}, ["SEARCH_TERM_IS_REQUIRED"]),
        ({"email": EMAIL, "iban": IBAN}, ["SEARCH_TERMS_TOO_MANY"]),
        ({"email": "ada"}, ["EMAIL_IS_INVALID"]),
        ({"email": "a" * 400 + "@example.com"}, ["EMAIL_IS_INVALID"]),
        ({"iban": "DE00"}, ["IBAN_IS_INVALID"]),
        ({"iban": "D" * 400}, ["IBAN_IS_INVALID"]),
        ({"customerRef": "a b"}, ["CUSTOMER_REF_CONTAINS_INVALID_CHARACTERS"]),
        ({"customerRef": "a" * 51}, ["CUSTOMER_REF_LENGTH_OUT_OF_RANGE"]),
        ({"cursor": "x", "take": "0"}, ["SEARCH_TERM_IS_REQUIRED", "CURSOR_IS_INVALID", "TAKE_OUT_OF_RANGE"]),
        ({"customerRef": "c", "cursor": "z" * 32, "take": "1001"}, ["CURSOR_IS_INVALID", "TAKE_OUT_OF_RANGE"]),
    ],
)
async def test_what_is_wrong_is_listed(tenant: Client, asked: dict[str, str], expected: list[str]) -> None:
    for answer in (await tenant.post(SEARCH, asked), await tenant.get(VAULT, params=asked)):
        assert refusal(answer) == (400, expected)
        for value in asked.values():
            assert not value or len(value) < 5 or value not in answer.text


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"email": 7}, ["EMAIL_IS_INVALID"]),
        ({"iban": ["x"], "email": {}}, ["EMAIL_IS_INVALID", "IBAN_IS_INVALID"]),
        ({"email": [], "customerRef": "c"}, ["EMAIL_IS_INVALID"]),
        ({"customerRef": "c", "iban": False}, ["IBAN_IS_INVALID"]),
        ({"customerRef": 1.5}, ["CUSTOMER_REF_CONTAINS_INVALID_CHARACTERS"]),
        ({"customerRef": "c", "take": True}, ["TAKE_OUT_OF_RANGE"]),
        ({"customerRef": "c", "take": [], "cursor": 7}, ["CURSOR_IS_INVALID", "TAKE_OUT_OF_RANGE"]),
    ],
)
async def test_bodies_of_other_types(tenant: Client, asked: dict[str, Any], expected: list[str]) -> None:
    assert refusal(await tenant.post(SEARCH, asked)) == (400, expected)


async def test_a_forgotten_customer_is_not_found_and_one_who_comes_back_only_by_what_is_new(tenant: Client) -> None:
    await add(tenant)
    assert (await tenant.delete(f"{VAULT}/c-1")).status_code == 202
    for asked in ({"email": EMAIL}, {"iban": IBAN}, {"customerRef": "c-1"}):
        assert await refs(tenant, **asked) == []
    await add(tenant, "c-1", None, OTHER_IBAN)
    assert await refs(tenant, email=EMAIL) == await refs(tenant, iban=IBAN) == []
    assert await refs(tenant, iban=OTHER_IBAN) == await refs(tenant, customerRef="c-1") == ["c-1"]


async def test_forgetting_leaves_no_entry(tenant: Client, platform: Platform) -> None:
    await add(tenant)
    await tenant.delete(f"{VAULT}/c-1")
    async with World.of(platform.app, tenant).operation() as op:
        assert await op.row("select from customers where email_index is not null") is None
        assert await op.row("select from financial_instruments where iban_index is not null") is None


async def test_another_tenant_s_customer_is_not_found(tenant: Client, platform: Platform) -> None:
    await add(tenant)
    account = await platform.new_account()
    for stranger in (await account.new_tenant(), await account.new_tenant(region="ch")):
        for asked in ({"email": EMAIL}, {"iban": IBAN}, {"customerRef": "c-1"}):
            assert await refs(stranger, **asked) == []


async def test_entries_of_two_tenants_tell_nothing_of_each_other(tenant: Client, platform: Platform) -> None:
    other = await platform.new_tenant()
    entries = []
    for client in (tenant, other):
        await add(client)
        async with World.of(platform.app, client).operation() as op:
            entries += [row[0][4:] for row in await op.rows("select email_index from customers")]
            entries += [row[0][4:] for row in await op.rows("select iban_index from financial_instruments")]
    assert len(set(entries)) == 4


async def test_with_the_customer_s_key_disabled_masks_are_found(tenant: Client, platform: Platform) -> None:
    await add(tenant)
    world = World.of(platform.app, tenant)
    desk, scope = platform.app.key_desk, Scope(account=world.account, tenant=world.tenant)
    await desk.disable(system("test"), scope)
    found = await tenant.post(SEARCH, {"email": EMAIL})
    assert [(each["customerRef"], each["email"]) for each in found.json()["customers"]] == [("c-1", MASK)]
    assert await refs(tenant, iban=IBAN) == ["c-1"]
    shown = await tenant.get(f"{VAULT}/c-1")
    assert (shown.status_code, shown.json()["email"]) == (200, MASK)
    assert refusal(await tenant.put(f"{VAULT}/c-1", {"email": "max@example.org"})) == (503, ["KEY_UNAVAILABLE"])
    await desk.enable(system("test"), scope)
    assert (await tenant.put(f"{VAULT}/c-1", {"email": "max@example.org"})).status_code == 202


async def test_our_logs_and_our_record_hold_nothing_that_was_searched_for(
    tenant: Client, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    await add(tenant)
    with structlog.testing.capture_logs() as said, caplog.at_level(logging.DEBUG):
        for asked in ({"email": EMAIL}, {"iban": IBAN}, {"iban": "DE00" + IBAN}, {"email": f"<{EMAIL}>"}):
            await tenant.post(SEARCH, asked)
            await tenant.get(VAULT, params=asked)
    async with World.of(platform.app, tenant).operation() as op:
        rows = await op.rows("select t::text from audit_entries t where tenant_id = %s", UUID(tenant.tenant_id))
    # The client's own log is not ours.
    logged = [entry.getMessage() for entry in caplog.records if entry.name != "httpx"]
    told = " ".join([str(said), *logged, *(row[0] for row in rows)])
    for secret in (EMAIL, EMAIL.lower(), "Mustermann", IBAN, IBAN[4:]):
        assert secret not in told
