"""Every route, from outside: nobody gets further than their token, level, tenant and roles (ACC-4, ENC-5)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

import httpx
import pytest

from strongroom.access import ACCOUNT_ROLES, TENANT_ROLES, permissions_of
from strongroom.api.routing import Access, Route
from strongroom.api.table import ROUTES
from strongroom.database.catalogue import CATALOGUE
from strongroom.kernel.ids import AccountId, ApiKeyId, TenantId
from tests.api.paying import IBAN, ORDERS, codes, instruction, make_account, make_order, make_scheme, refusal
from tests.fixtures.platform import Client, Platform
from tests.guards.golden import GOLDEN, differences
from tests.payments.world import World

PUBLIC = {
    ("POST", "/v1/identity/hmac"): "signed itself",
    ("GET", "/health"): "",
    ("GET", "/ready"): "",
    ("GET", "/.well-known/jwks.json"): "",
    ("GET", "/openapi.json"): "",
    ("GET", "/trust"): "",
    ("GET", "/trust.json"): "",
    ("POST", "/v1/notifications/{tenantId}/{appId}"): "signed by the provider",
}
"""What answers without a token, and what stands in for one."""
GUARDED = [route for route in ROUTES if route.access is not Access.PUBLIC]
NOBODY = "00000000-0000-7000-8000-000000000000"
EVERYTHING = {
    **instruction(),
    "orderRef": "o-1",
    "name": "Theirs",
    "roles": ["tenant-admin"],
    "reason": "because",
    "metadata": {"a": "b"},
    "type": "BANK_ACCOUNT",
    "accountHolderName": "Erika Mustermann",
    "iban": IBAN,
    "note": "seen",
    "rules": [{"priority": 0, "apps": [{"appId": "simulator"}]}],
}
"""A body in which most routes find what they need; the rest is dropped."""
QUERIES = {"/v1/customer-vault": {"customerRef": "c-1"}}
"""What routes without anything in their paths have to be asked."""


def filled(path: str, values: Mapping[str, str]) -> str:
    """A route's path with these values in its places, or an id of nobody."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], NOBODY), path)


def named(routes: Iterable[Route]) -> list[Any]:
    return [pytest.param(route, id=f"{route.method} {route.path}") for route in routes]


async def ask(client: Client, route: Route, values: Mapping[str, str] | None = None, **options: Any) -> httpx.Response:
    """Call a route; with a body, where it takes one."""
    path = filled(route.path, values or {})
    if route.method in {"POST", "PUT"}:
        options.setdefault("json", {})
    return await client.request(route.method, path, **options)


def test_public_routes_are_those_that_are_listed() -> None:
    found = {(route.method, route.path) for route in ROUTES if route.access is Access.PUBLIC}
    assert found <= set(PUBLIC)
    assert all(route.permission is None for route in ROUTES if route.access is Access.PUBLIC)


def test_every_other_route_declares_its_permission() -> None:
    assert [route.path for route in GUARDED if route.permission is None] == []


def test_no_two_routes_answer_the_same() -> None:
    shapes = [(route.method, re.sub(r"\{\w+\}", "{}", route.path)) for route in ROUTES]
    assert len(set(shapes)) == len(shapes)


@pytest.mark.parametrize("route", named(GUARDED))
async def test_without_a_token_nothing_answers(platform: Platform, route: Route) -> None:
    path = filled(route.path, {})
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Basic YTpi"}):
        answer = await platform.http.request(route.method, path, headers=headers, content=b"{}")
        assert refusal(answer) == (401, ["TOKEN_REQUIRED"])
    answer = await platform.http.request(route.method, path, headers={"Authorization": "Bearer a.b.c"}, content=b"{}")
    assert refusal(answer) == (401, ["TOKEN_INVALID"])


@pytest.fixture(scope="module")
async def admins(platform: Platform) -> tuple[Client, Client]:
    """An account's admin, and a tenant's admin of the same account."""
    account = await platform.new_account()
    return account, await account.new_tenant()


@pytest.mark.parametrize("route", named(GUARDED))
async def test_a_token_of_the_other_level_opens_nothing(admins: tuple[Client, Client], route: Route) -> None:
    account, tenant = admins
    wrong = account if route.access is Access.TENANT else tenant
    answer = await ask(wrong, route, headers={"x-tenant-id": str(tenant.tenant_id)})
    assert refusal(answer) == (403, ["WRONG_LEVEL"])


@pytest.mark.parametrize("route", named(GUARDED))
async def test_a_token_without_roles_opens_nothing(
    platform: Platform, admins: tuple[Client, Client], route: Route
) -> None:
    client = admins[0] if route.access is Access.ACCOUNT else admins[1]
    issued = platform.app.tokens.issue(
        ApiKeyId(UUID(client.public_key)),
        account=AccountId(UUID(client.account_id)),
        tenant=TenantId(UUID(client.tenant_id)) if client.tenant_id else None,
        roles=(),
    )
    answer = await ask(client, route, headers={"Authorization": f"Bearer {issued.token.reveal()}"})
    assert refusal(answer) == (403, ["FORBIDDEN"])


@pytest.mark.parametrize("route", named(GUARDED))
async def test_headers_of_somebody_else_open_nothing(
    admins: tuple[Client, Client], stranger: Client, route: Route
) -> None:
    client = admins[0] if route.access is Access.ACCOUNT else admins[1]
    theirs = {"x-account-id": stranger.account_id}
    assert refusal(await ask(client, route, headers=theirs)) == (403, ["HEADERS_DISAGREE"])
    if route.access is Access.TENANT:
        theirs = {"x-tenant-id": str(stranger.tenant_id)}
        assert refusal(await ask(client, route, headers=theirs)) == (403, ["HEADERS_DISAGREE"])


@pytest.fixture(scope="module")
async def stranger(platform: Platform) -> Client:
    """The admin of a tenant of another account, who has nothing."""
    return await platform.new_tenant()


@pytest.fixture(scope="module")
async def victim(platform: Platform) -> tuple[Client, dict[str, str]]:
    """The admin of a tenant with a bit of everything, and what stands in the paths to it."""
    account = await platform.new_account()
    tenant = await account.new_tenant()
    scheme = await make_scheme(tenant)
    published = (await tenant.get(f"/v1/schemes/payout/{scheme}/published")).json()["draftId"]
    instrument = await make_account(tenant)
    await make_order(tenant, "o-1", instruction(schemeId=scheme, financialInstrumentId=instrument), metadata={"a": "b"})
    assert (await tenant.put(f"{ORDERS}/o-1/customer-defaults/c-1", {"schemeId": scheme})).status_code == 200
    job = await tenant.post(f"{ORDERS}/bulk", content=b"{}", headers={"content-type": "application/x-ndjson"})
    return tenant, {
        "orderRef": "o-1",
        "instructionRef": "i-1",
        "customerRef": "c-1",
        "financialInstrumentId": instrument,
        "id": instrument,
        "jobId": job.json()["jobId"],
        "schemeId": scheme,
        "draftId": published,
        "publicKey": tenant.public_key,
        "tenantId": str(tenant.tenant_id),
        "appId": "simulator",
    }


async def rows_of(platform: Platform, client: Client) -> dict[str, list[str]]:
    """All that the database holds of a tenant, but the record."""
    world = World.of(platform.app, client)
    found = {}
    async with world.operation() as op:
        for table, columns in CATALOGUE["region"].items():
            if table not in {"audit_entries", "nonces"} and ("tenant_id" in columns or "scope_id" in columns):
                owner = "tenant_id" if "tenant_id" in columns else "scope_id"
                rows = await op.rows(f"select t::text from {table} t where {owner} = %s order by 1", op.tenant)  # noqa: S608  names of the catalogue
                found[table] = [row[0] for row in rows]
    return found


async def test_nobody_reaches_into_another_tenant(
    platform: Platform, victim: tuple[Client, dict[str, str]], stranger: Client
) -> None:
    """Every route with something of the victim's in its path, walked by admins of another account."""
    tenant, values = victim
    strangers = {Access.TENANT: stranger, Access.ACCOUNT: await platform.new_account()}
    before = await rows_of(platform, tenant)
    assert {table for table, rows in before.items() if rows} >= {
        "orders", "instructions", "customers", "financial_instruments", "schemes", "scheme_drafts", "installed_apps",
        "bulk_jobs", "bulk_results", "order_customer_defaults", "api_keys",
    }  # fmt: skip
    walked = 0
    for route in GUARDED:
        if not re.search(r"\{(?!appId)", route.path):
            continue
        answer = await ask(strangers[route.access], route, values, json=EVERYTHING)
        walked += 1
        if route.method in {"GET", "DELETE"}:
            assert answer.status_code == 400, (route, answer.text)
            assert all(code.endswith(("_NOT_FOUND", "_NOT_RECOGNISED")) for code in codes(answer)), (route, answer.text)
        for secret in (values["id"], values["draftId"], tenant.public_key):
            assert secret not in answer.text.replace(filled(route.path, values), ""), (route, answer.text)
    assert walked > 40
    assert await rows_of(platform, tenant) == before
    # The same paths lead their owner somewhere, so that what was refused was there.
    for route in GUARDED:
        owner_level = route.access is Access.TENANT and "/collect/" not in route.path
        if route.method == "GET" and owner_level and set(re.findall(r"\{(\w+)\}", route.path)) <= set(values):
            answer = await ask(tenant, route, values, params=QUERIES.get(route.path))
            assert answer.status_code == 200, (route.path, answer.text)


@pytest.mark.usefixtures("one_pair")
async def test_the_permission_matrix(platform: Platform) -> None:
    """What each built-in role opens, asked of every route; the golden file is what people are told."""
    account = await platform.new_account()
    tenant = await account.new_tenant()
    roles = [*sorted(ACCOUNT_ROLES), *sorted(TENANT_ROLES)]
    clients = {role: await (account if role in ACCOUNT_ROLES else tenant).new_key(role) for role in roles}
    output = io.StringIO()
    table = csv.writer(output, lineterminator="\n")
    table.writerow(["method", "path", "level", "permission", *roles])
    for route in sorted(GUARDED, key=lambda route: (route.path, route.method)):
        cells = []
        for role in roles:
            level = Access.ACCOUNT if role in ACCOUNT_ROLES else Access.TENANT
            if level is not route.access:
                cells.append("")
                continue
            answer = await ask(clients[role], route)
            opened = answer.status_code != 403
            assert opened or codes(answer) == ["FORBIDDEN"], (role, route, answer.text)
            assert opened == (route.permission in permissions_of(frozenset({role}))), (role, route)
            cells.append("yes" if opened else "no")
        table.writerow([route.method, route.path, route.access.value, route.permission, *cells])
    assert not (text := differences(GOLDEN / "permissions.csv", output.getvalue())), text
