"""Roles of an account's own: made, held, bound to conditions, changed, ended, explained (ACC-4, ACC-5)."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from strongroom.kernel.actors import system
from strongroom.kernel.ids import AccountId
from tests.api.paying import ORDERS, instruction, make_order, order, refusal
from tests.fixtures.platform import Client, Platform

ROLES = "/v1/account/roles"
PAYING = ["transactions:read", "transactions:write"]


@pytest.fixture(scope="module")
async def account(platform: Platform) -> Client:
    """An account's admin; its roles have other names in every test."""
    return await platform.new_account()


@pytest.fixture(scope="module")
async def admin(account: Client) -> Client:
    """The admin of one of its tenants."""
    return await account.new_tenant()


async def make_role(account: Client, name: str, level: str = "tenant", **more: Any) -> str:
    made = await account.post(ROLES, {"name": name, "level": level, "permissions": PAYING, **more})
    assert made.status_code == 201, made.text
    assert made.json()["role"] == f"custom:{name}"
    return str(made.json()["role"])


async def test_a_role_is_held_changed_and_ended(account: Client, admin: Client) -> None:
    held = await make_role(account, "reader", permissions=["transactions:read"])
    key = await admin.new_key(held)
    await make_order(admin, "o-roles")
    assert (await key.get(f"{ORDERS}/o-roles")).status_code == 200
    assert refusal(await key.post(ORDERS, order("o-roles-2"))) == (403, ["FORBIDDEN"])
    # A change counts from the next request of a token that is out already.
    changed = await account.put(f"{ROLES}/reader", {"level": "tenant", "permissions": PAYING})
    assert changed.status_code == 204
    assert (await key.post(ORDERS, order("o-roles-2"))).status_code == 201
    assert (await account.delete(f"{ROLES}/reader")).status_code == 204
    assert refusal(await key.get(f"{ORDERS}/o-roles")) == (403, ["FORBIDDEN"])
    assert refusal(await account.get(f"{ROLES}/reader")) == (400, ["ROLE_NOT_FOUND"])
    # Its name is gone for good, and so is the role for new keys.
    again = await account.post(ROLES, {"name": "reader", "level": "tenant", "permissions": PAYING})
    assert refusal(again) == (400, ["ROLE_NAME_IN_USE"])
    refused = await admin.post("/v1/tenant/keys", {"roles": [held]})
    assert refusal(refused) == (400, ["ROLES_NOT_RECOGNISED"])


async def test_what_is_made_is_told(account: Client, admin: Client) -> None:
    conditions = {
        "tenants": [admin.tenant_id],
        "regions": ["eu"],
        "countries": ["DE"],
        "ceilings": [{"currency": "EUR", "perPayment": "100.00", "perDay": None}],
        "officeHours": {"timeZone": "Europe/Zurich", "days": ["MONDAY", "FRIDAY"], "opens": "08:30", "closes": "24:00"},
        "stepUp": True,
    }
    await make_role(account, "told", conditions=conditions, denied=["customers:open"])
    found = (await account.get(f"{ROLES}/told")).json()
    assert found["conditions"] == conditions
    assert found["denied"] == ["customers:open"]
    listed = (await account.get(ROLES)).json()
    assert found in listed["roles"]
    assert "transactions:write" in listed["tenantPermissions"]
    assert "transactions:write" not in listed["accountPermissions"]


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        ({}, ["LEVEL_IS_REQUIRED"]),
        ({"level": "tenant"}, ["PERMISSIONS_IS_REQUIRED"]),
        ({"level": "tenant", "permissions": ["account:manage"]}, ["PERMISSIONS_NOT_RECOGNISED"]),
        ({"level": "account", "permissions": ["transactions:write"]}, ["PERMISSIONS_NOT_RECOGNISED"]),
        ({"level": "tenant", "permissions": PAYING, "conditions": 7}, ["CONDITIONS_IS_INVALID"]),
        (
            {"level": "tenant", "permissions": ["apps:read"], "conditions": {"countries": ["DE"]}},
            ["CONDITIONS_WITHOUT_PAYMENTS"],
        ),
        (
            {
                "level": "tenant",
                "permissions": PAYING,
                "conditions": {
                    "tenants": ["00000000-0000-7000-8000-000000000000"],
                    "countries": ["XX"],
                    "ceilings": [{"currency": "EUR", "perPayment": "1.005"}, {"currency": "Euro"}],
                    "officeHours": {"timeZone": "Mars/Olympus", "days": ["SUN"], "opens": "8", "closes": "18:00"},
                    "stepUp": "yes",
                },
            },
            [
                "TENANTS_NOT_RECOGNISED", "COUNTRIES_NOT_RECOGNISED", "PER_PAYMENT_IS_INVALID",
                "CURRENCY_NOT_RECOGNISED", "TIME_ZONE_NOT_RECOGNISED", "DAYS_NOT_RECOGNISED", "OPENS_IS_INVALID",
                "STEP_UP_IS_INVALID",
            ],
        ),
    ],
)  # fmt: skip
async def test_what_makes_no_role(account: Client, body: dict[str, Any], codes: list[str]) -> None:
    assert refusal(await account.post(ROLES, {"name": "wrong", **body})) == (400, codes)


async def test_names_are_short_codes(account: Client) -> None:
    for name in ("Ada", "-x", "a b", "a" * 41, 'a"'):
        answer = await account.post(ROLES, {"name": name, "level": "tenant", "permissions": PAYING})
        assert answer.status_code == 400, name


async def test_ceilings_hold_for_one_payment_and_for_a_day(account: Client, admin: Client) -> None:
    ceilings = [{"currency": "EUR", "perPayment": "100.00", "perDay": "250.00"}]
    key = await admin.new_key(await make_role(account, "clerk", conditions={"ceilings": ceilings}))
    assert (await key.post(ORDERS, order("c-1", instruction(amount="100.00")))).status_code == 202
    assert refusal(await key.post(ORDERS, order("c-2", instruction(amount="100.01")))) == (403, ["AMOUNT_OVER_CEILING"])
    in_francs = await key.post(ORDERS, order("c-2", instruction(amount="1.00", currency="CHF")))
    assert refusal(in_francs) == (403, ["CURRENCY_NOT_IN_ROLE"])
    # An order is made whole or not at all, and one that is refused doesn't count.
    two = order("c-2", instruction("i-1", amount="100.00"), instruction("i-2", amount="50.01"))
    assert refusal(await key.post(ORDERS, two)) == (403, ["DAY_CEILING_REACHED"])
    assert refusal(await key.post(ORDERS, order("c-1", instruction(amount="100.00")))) == (
        400,
        ["ORDER_ALREADY_EXISTS"],
    )
    assert (await key.post(f"{ORDERS}/c-1/instruction", instruction("i-2", amount="100.00"))).status_code == 201
    more = await key.put(f"{ORDERS}/c-1/instruction/i-2", {"amount": "100.00"})
    assert refusal(more) == (403, ["DAY_CEILING_REACHED"])
    lines = b'{"orderRef": "c-3", "instructions": []}\n'
    bulk = await key.post(f"{ORDERS}/bulk", content=lines, headers={"content-type": "application/x-ndjson"})
    assert bulk.status_code == 202, bulk.text
    assert (await key.post(ORDERS, order("c-4", instruction(amount="50.00")))).status_code == 202
    assert refusal(await key.post(ORDERS, order("c-5", instruction(amount="0.01")))) == (403, ["DAY_CEILING_REACHED"])
    # Without a ceiling of their own, others go on.
    assert (await admin.post(ORDERS, order("c-5", instruction(amount="9999.00")))).status_code == 202


async def test_two_at_once_dont_both_take_what_is_left(platform: Platform, account: Client, admin: Client) -> None:
    role = await make_role(account, "racer", conditions={"ceilings": [{"currency": "EUR", "perDay": "500.00"}]})
    key = await admin.new_key(role)
    await key.sign_in()
    async with platform.another_process() as other:
        twin = Client(**{name: getattr(key, name) for name in key.__dataclass_fields__} | {"http": other.http})
        bodies = [order(f"r-{number}", instruction(amount="100.00")) for number in range(12)]
        answers = await asyncio.gather(*((key, twin)[n % 2].post(ORDERS, body) for n, body in enumerate(bodies)))
    assert sorted(answer.status_code for answer in answers) == [202] * 5 + [403] * 7


async def test_bulk_lines_count_one_by_one(account: Client, admin: Client) -> None:
    role = await make_role(account, "bulk-clerk", conditions={"ceilings": [{"currency": "EUR", "perDay": "10.00"}]})
    key = await admin.new_key(role)
    header = "orderRef,instructionRef,customerRef,direction,amount,currency,country,settledByDate"
    rows = [f"b-1,i-{number},c-1,CREDIT,4.00,EUR,DE,2030-12-01" for number in range(3)]
    content = "\n".join([header, *rows]).encode()
    job = await key.post(f"{ORDERS}/bulk", content=content, headers={"content-type": "text/csv"})
    assert job.status_code == 202, job.text
    results = await key.get(f"{ORDERS}/bulk/{job.json()['jobId']}/results")
    assert results.text.count('"ACCEPTED"') == 2
    assert results.text.count("DAY_CEILING_REACHED") == 1


async def test_who_makes_payments_doesnt_approve_them(account: Client, admin: Client) -> None:
    for pair in (
        ["transactions:write", "payments:approve"],
        ["payments:approve", "approval-rules:manage"],
        ["transactions:write", "approval-rules:manage"],
    ):
        body = {"name": "both", "level": "tenant", "permissions": pair}
        assert refusal(await account.post(ROLES, body)) == (400, ["ROLES_CONFLICT"])
    both = await admin.post("/v1/tenant/keys", {"roles": ["tenant-transaction-write", "tenant-approval"]})
    assert refusal(both) == (400, ["ROLES_CONFLICT"])
    made = await admin.new_key("tenant-approval")
    path = f"/v1/tenant/keys/{made.public_key}"
    changed = await admin.put(path, {"roles": ["tenant-approval", "tenant-transaction-write"]})
    assert refusal(changed) == (400, ["ROLES_CONFLICT"])


async def test_an_account_says_what_it_wants_apart(platform: Platform) -> None:
    account = await platform.new_account()
    tenant = await account.new_tenant()
    path = "/v1/account/role-conflicts"
    assert ["transactions:write", "payments:approve"] in (await account.get(path)).json()["pairs"]
    assert (await account.put(path, {"pairs": [["apps:write", "payout-schemes:write"]]})).status_code == 204
    await tenant.new_key("tenant-transaction-write", "tenant-approval")
    refused = await tenant.post("/v1/tenant/keys", {"roles": ["tenant-app-write", "tenant-payout-scheme-write"]})
    assert refusal(refused) == (400, ["ROLES_CONFLICT"])
    assert refusal(await account.put(path, {"pairs": [["apps:write", "apps:write"]]})) == (400, ["PAIRS_IS_INVALID"])


async def test_nobody_gives_more_than_they_have(account: Client, admin: Client) -> None:
    keeper = await admin.new_key(await make_role(account, "keeper", permissions=["tenant-keys:manage", "apps:read"]))
    refused = await keeper.post("/v1/tenant/keys", {"roles": ["tenant-admin"]})
    assert refusal(refused) == (403, ["GRANT_EXCEEDS_OWN"])
    assert (await keeper.post("/v1/tenant/keys", {"roles": ["tenant-app-read"]})).status_code == 201
    own = await make_role(account, "chief", "account", permissions=["roles:read", "roles:manage"])
    chief = await account.new_key(own)
    higher = {"level": "account", "permissions": ["roles:read", "roles:manage", "account-keys:manage"]}
    assert refusal(await chief.put(f"{ROLES}/chief", higher)) == (403, ["GRANT_EXCEEDS_OWN"])


async def test_nobody_lifts_what_denies_them_something(account: Client) -> None:
    kept = {"level": "account", "permissions": ["roles:read"], "denied": ["account-keys:manage"]}
    bound = await make_role(account, **{**kept, "name": "bound"})
    manager = await make_role(account, "manager", "account", permissions=["roles:read", "roles:manage"])
    key = await account.new_key(manager, bound, "account-tenant-read")
    lifted = {**kept, "denied": []}
    assert refusal(await key.put(f"{ROLES}/bound", lifted)) == (403, ["GRANT_EXCEEDS_OWN"])
    assert refusal(await key.delete(f"{ROLES}/bound")) == (403, ["GRANT_EXCEEDS_OWN"])
    assert (await key.put(f"{ROLES}/bound", {**kept, "denied": [*kept["denied"], "tenants:write"]})).status_code == 204
    assert (await account.put(f"{ROLES}/bound", lifted)).status_code == 204
    assert (await key.delete(f"{ROLES}/bound")).status_code == 204


async def test_a_role_counts_in_its_tenants_only(account: Client, admin: Client) -> None:
    other = await account.new_tenant()
    held = await make_role(account, "local", conditions={"tenants": [admin.tenant_id]})
    assert refusal(await other.post("/v1/tenant/keys", {"roles": [held]})) == (400, ["ROLES_NOT_RECOGNISED"])
    key = await admin.new_key(held)
    assert (await key.post(ORDERS, order("l-1"))).status_code == 201


async def test_roles_of_another_account_are_nobodys(platform: Platform, account: Client) -> None:
    held = await make_role(account, "ours", permissions=["transactions:read"])
    stranger = await platform.new_tenant()
    assert refusal(await stranger.post("/v1/tenant/keys", {"roles": [held]})) == (400, ["ROLES_NOT_RECOGNISED"])


async def test_why_is_told(account: Client, admin: Client) -> None:
    ceilings = [{"currency": "EUR", "perPayment": "100.00"}]
    key = await admin.new_key(await make_role(account, "asked", conditions={"ceilings": ceilings}))

    async def why(permission: str, **payment: str) -> dict[str, Any]:
        body = {"permission": permission, "publicKey": key.public_key, "payment": payment or None}
        answer = await admin.post("/v1/tenant/explain", body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    allowed = await why("transactions:write", amount="100.00", currency="EUR", country="DE")
    assert (allowed["allowed"], allowed["rules"], allowed["code"]) == (True, ["custom:asked"], None)
    refused = await why("transactions:write", amount="100.01", currency="EUR", country="DE")
    assert refused["code"] == "AMOUNT_OVER_CEILING"
    assert "ceiling for one payment" in refused["sentence"]
    # The same words come with the refusal itself.
    answer = await key.post(ORDERS, order("w-1", instruction(amount="100.01")))
    assert answer.json()["errors"][0]["message"] == refused["sentence"]
    assert (await why("apps:read"))["code"] == "FORBIDDEN"
    of_account = {"permission": "roles:manage", "publicKey": account.public_key}
    found = (await account.post("/v1/account/explain", of_account)).json()
    assert (found["allowed"], found["rules"]) == (True, ["account-admin"])


async def test_every_change_is_in_the_record_before_and_after(platform: Platform) -> None:
    account = await platform.new_account()
    await make_role(account, "noted", permissions=["transactions:read"])
    await account.put(f"{ROLES}/noted", {"level": "tenant", "permissions": ["apps:read"]})
    await account.delete(f"{ROLES}/noted")
    async with platform.app.databases.operation(system("test"), account=AccountId(UUID(account.account_id))) as op:
        rows = await op.rows(
            "select action, detail from audit_entries where subject_kind = 'role' and account_id = %s "
            "order by entry_id",
            op.account,
        )
    assert [row[0] for row in rows] == ["role.create", "role.change", "role.end"]
    before, after = rows[1][1].split(" > ")
    assert "transactions:read" in before
    assert "apps:read" in after
