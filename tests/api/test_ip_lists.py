"""IP lists of accounts and tenants (promise ACC-3)."""

from __future__ import annotations

import dataclasses
from typing import Any

import httpx
import pytest

from strongroom.api.routing import Access, Route
from strongroom.api.table import ROUTES
from strongroom.identity.ip_lists import MAX_RULES
from strongroom.kernel.actors import operator
from tests.api.paying import ORDERS, instruction, order, refusal
from tests.api.test_tokens_at_the_door import path_of
from tests.fixtures.platform import Client, Platform
from tests.payments.world import World

HERE, THERE, FAR = "198.51.100.7", "203.0.113.9", "2001:db8::5"
OFFICE = {"name": "Office Graz", "ipV4Start": "198.51.100.0", "ipV4End": "198.51.100.15"}
PATHS = {"account": "/v1/account/ip-whitelist", "tenant": "/v1/tenant/ip-whitelist"}
REFUSED = (403, ["ADDRESS_NOT_ALLOWED"])


def coming_from(client: Client, platform: Platform, address: str) -> Client:
    """The same key and token, from another address."""
    transport = httpx.ASGITransport(platform.app.surface, client=(address, 50_000))
    return dataclasses.replace(client, http=httpx.AsyncClient(transport=transport, base_url="https://strongroom.test"))


def listed(*rules: dict[str, Any], enabled: bool = True) -> dict[str, Any]:
    return {"enabled": enabled, "rules": list(rules)}


@pytest.fixture(params=["account", "tenant"])
async def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def admin(platform: Platform, level: str) -> Client:
    """An admin of the level, at the office."""
    client = await (platform.new_account() if level == "account" else platform.new_tenant())
    assert (await client.sign_in()).status_code == 201
    return coming_from(client, platform, HERE)


async def test_nothing_is_limited_before_a_list_is_set(admin: Client, level: str) -> None:
    answer = await admin.get(PATHS[level])
    assert answer.status_code == 200
    assert answer.json() == {"enabled": False, "lastUpdated": None, "rules": []}


async def test_a_list_is_kept_as_it_was_set_and_shuts_out_everybody_else(
    admin: Client, level: str, platform: Platform
) -> None:
    six = {"name": "VPN", "cidr": "2001:db8::/32", "interfaces": ["api"]}
    assert (await admin.put(PATHS[level], listed(OFFICE, six))).status_code == 204
    body = (await admin.get(PATHS[level])).json()
    assert body["enabled"] is True
    assert body["lastUpdated"].endswith("Z")
    assert body["rules"] == [
        {**OFFICE, "cidr": None, "interfaces": ["api", "portal"]},
        {"ipV4Start": None, "ipV4End": None, **six},
    ]
    assert (await coming_from(admin, platform, FAR).get(PATHS[level])).status_code == 200
    assert (await coming_from(admin, platform, f"::ffff:{HERE}").get(PATHS[level])).status_code == 200
    elsewhere = coming_from(admin, platform, THERE)
    answer = await elsewhere.get(PATHS[level])
    assert refusal(answer) == REFUSED
    assert THERE in answer.json()["errors"][0]["message"]
    assert refusal(await elsewhere.sign_in()) == REFUSED, "no token from there either"
    assert (await admin.sign_in()).status_code == 201


async def test_a_list_that_is_off_limits_nobody(admin: Client, level: str, platform: Platform) -> None:
    assert (await admin.put(PATHS[level], listed(OFFICE, enabled=False))).status_code == 204
    assert (await coming_from(admin, platform, THERE).get(PATHS[level])).json()["rules"][0]["name"] == "Office Graz"


async def test_rules_for_portals_say_nothing_about_keys(admin: Client, level: str, platform: Platform) -> None:
    portal = {"name": "Everywhere", "cidr": "0.0.0.0/0", "interfaces": ["portal"]}
    assert (await admin.put(PATHS[level], listed(OFFICE, portal))).status_code == 204
    assert refusal(await coming_from(admin, platform, THERE).get(PATHS[level])) == REFUSED


async def test_nobody_shuts_themselves_out_unless_they_insist(admin: Client, level: str, platform: Platform) -> None:
    elsewhere = listed({"name": "Elsewhere", "ipV4Start": THERE, "ipV4End": THERE})
    answer = await admin.put(PATHS[level], elsewhere)
    assert refusal(answer) == (400, ["WOULD_LOCK_YOU_OUT"])
    assert HERE in answer.json()["errors"][0]["message"]
    assert (await admin.get(PATHS[level])).json()["enabled"] is False
    assert (await admin.put(f"{PATHS[level]}?force=true", elsewhere)).status_code == 204
    assert refusal(await admin.get(PATHS[level])) == REFUSED
    assert (await coming_from(admin, platform, THERE).get(PATHS[level])).json()["enabled"] is True


async def test_a_change_holds_in_every_process_at_once(admin: Client, level: str, platform: Platform) -> None:
    async with platform.another_process() as other:
        there = coming_from(admin, other, THERE)
        assert (await there.get(PATHS[level])).status_code == 200
        assert (await admin.put(PATHS[level], listed(OFFICE))).status_code == 204
        assert refusal(await there.get(PATHS[level])) == REFUSED
        wider = {"name": "Hotel", "ipV4Start": THERE, "ipV4End": THERE}
        assert (await admin.put(PATHS[level], listed(OFFICE, wider))).status_code == 204
        assert (await there.get(PATHS[level])).status_code == 200


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if route.access is not Access.PUBLIC],
    ids=lambda route: f"{route.method} {route.path}",
)
async def test_no_route_answers_an_address_that_is_not_listed(shut_out: dict[Access, Client], route: Route) -> None:
    answer = await shut_out[route.access].request(route.method, path_of(route), content=b"{}")
    assert refusal(answer) == REFUSED


@pytest.fixture(scope="module")
async def shut_out(platform: Platform) -> dict[Access, Client]:
    """Good tokens of an account and of a tenant, from an address that their lists don't have."""
    made = {Access.ACCOUNT: await platform.new_account(), Access.TENANT: await platform.new_tenant()}
    for access, client in made.items():
        assert (await client.sign_in()).status_code == 201
        admin = coming_from(client, platform, HERE)
        assert (await admin.put(PATHS[access.value], listed(OFFICE))).status_code == 204
    return {access: coming_from(client, platform, THERE) for access, client in made.items()}


async def test_orders_written_together_are_told_apart_by_where_they_come_from(
    tenant: Client, platform: Platform
) -> None:
    """The coalesced way of writing doesn't begin with a query; what it knows of the list is still the newest."""
    assert (await tenant.sign_in()).status_code == 201
    here, there = (coming_from(tenant, platform, address) for address in (HERE, THERE))
    assert (await here.post(ORDERS, order("before", instruction()))).status_code == 202
    assert (await here.put(PATHS["tenant"], listed(OFFICE))).status_code == 204
    assert refusal(await there.post(ORDERS, order("from-there", instruction()))) == REFUSED
    assert (await here.post(ORDERS, order("from-here", instruction()))).status_code == 202
    assert refusal(await there.post(ORDERS, order("from-there", instruction()))) == REFUSED
    assert (await here.get(f"{ORDERS}/from-there")).status_code == 400


async def test_an_account_s_list_says_nothing_about_its_tenants_keys(platform: Platform) -> None:
    account = await platform.new_account()
    tenant = await account.new_tenant()
    assert (await tenant.sign_in()).status_code == 201
    admin = coming_from(account, platform, HERE)
    assert (await admin.put(PATHS["account"], listed(OFFICE))).status_code == 204
    assert (await coming_from(tenant, platform, THERE).get("/v1/tenant")).status_code == 200
    there = coming_from(account, platform, THERE)
    assert refusal(await there.get(f"/v1/tenant/{tenant.tenant_id}/keys")) == REFUSED, "in the tenant's region as well"


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        ({}, ["ENABLED_IS_REQUIRED"]),
        ({"enabled": "yes"}, ["ENABLED_IS_INVALID"]),
        ({"enabled": True}, ["RULES_IS_REQUIRED"]),
        ({"enabled": True, "rules": {}}, ["RULES_IS_INVALID"]),
        ({"enabled": True, "rules": ["198.51.100.7"]}, ["RULES_IS_INVALID"]),
        (listed(*[OFFICE] * (MAX_RULES + 1)), ["RULES_LIMIT_REACHED"]),
        (listed({**OFFICE, "name": ""}), ["NAME_IS_REQUIRED"]),
        (listed({"name": "x"}), ["IP_V4_START_IS_REQUIRED", "IP_V4_END_IS_REQUIRED"]),
        (listed({**OFFICE, "ipV4Start": "198.51.100.300"}), ["IP_V4_START_IS_INVALID"]),
        (listed({**OFFICE, "ipV4End": "2001:db8::1"}), ["IP_V4_END_IS_INVALID"]),
        (listed({**OFFICE, "ipV4End": "198.51.99.1"}), ["IP_V4_END_OUT_OF_RANGE"]),
        (listed({"name": "x", "cidr": "198.51.100.7/24"}), ["CIDR_IS_INVALID"]),
        (listed({"name": "x", "cidr": "2001:db8::/129"}), ["CIDR_IS_INVALID"]),
        (listed({"name": "x", "cidr": 7}), ["CIDR_IS_INVALID"]),
        (listed({**OFFICE, "interfaces": ["console"]}), ["INTERFACES_NOT_RECOGNISED"]),
        (listed({**OFFICE, "interfaces": []}), ["INTERFACES_IS_REQUIRED"]),
    ],
)
async def test_bad_lists_change_nothing(tenant: Client, body: dict[str, Any], codes: list[str]) -> None:
    assert refusal(await tenant.put(PATHS["tenant"], body)) == (400, codes)
    assert (await tenant.get(PATHS["tenant"])).json()["lastUpdated"] is None


async def test_the_word_force_is_true_or_false(tenant: Client) -> None:
    answer = await tenant.put(f"{PATHS['tenant']}?force=please", listed(OFFICE))
    assert refusal(answer) == (400, ["FORCE_NOT_RECOGNISED"])


async def test_a_change_is_in_the_record_and_so_is_who_was_refused(tenant: Client, platform: Platform) -> None:
    assert (await tenant.sign_in()).status_code == 201
    here = coming_from(tenant, platform, HERE)
    assert (await here.put(PATHS["tenant"], listed(OFFICE))).status_code == 204
    assert refusal(await coming_from(tenant, platform, THERE).get("/v1/tenant")) == REFUSED
    async with platform.app.databases.operation(operator(), tenant=World.of(platform.app, tenant).tenant) as op:
        entries = await op.rows(
            "select action, outcome, detail from audit_entries where tenant_id = %s "
            "and (action = 'ip-list.update' or outcome = 'refused') order by entry_id",
            op.tenant,
        )
    assert [tuple(row) for row in entries] == [
        ("ip-list.update", "done", "off 0 rules -> on 1 rules"),
        ("GET /v1/tenant", "refused", "ADDRESS_NOT_ALLOWED"),
    ]
