"""Who may use which of the configuration routes: the wire contract's table (sections 2 and 4), role by role."""

from __future__ import annotations

import uuid

import pytest

from strongroom.access import ACCOUNT_ROLES, TENANT_ROLES
from strongroom.kernel.actors import system
from strongroom.kernel.ids import AccountId
from tests.fixtures.platform import Client, Platform

ADMIN = {"account-admin"}
READERS = {"account-admin", "account-tenant-read", "account-tenant-write", "account-tenant-approval"}
WRITERS = {"account-admin", "account-tenant-write"}
APPROVERS = {"account-admin", "account-tenant-approval"}
TENANT_ADMIN = {"tenant-admin"}
MANAGERS = {"tenant-admin", "tenant-management"}

ACCOUNT_ROUTES = {
    "GET /v1/account": ADMIN,
    "PUT /v1/account": ADMIN,
    "GET /v2/account": ADMIN,
    "PUT /v2/account": ADMIN,
    "GET /v1/account/keys": ADMIN,
    "POST /v1/account/keys": ADMIN,
    "GET /v1/account/keys/{id}": ADMIN,
    "PUT /v1/account/keys/{id}": ADMIN,
    "DELETE /v1/account/keys/{id}": ADMIN,
    "GET /v1/account/tenants": READERS,
    "POST /v1/account/tenants": WRITERS,
    "GET /v1/account/tenants/{tenant}": READERS,
    "PUT /v1/account/tenants/{tenant}": WRITERS,
    "DELETE /v1/account/tenants/{id}": WRITERS,
    "POST /v1/account/tenants/{tenant}/approve": APPROVERS,
    "POST /v1/account/tenants/{tenant}/reject": APPROVERS,
    "GET /v1/tenant/{tenant}/keys": READERS,
    "POST /v1/tenant/{tenant}/keys": WRITERS,
    "GET /v1/tenant/{tenant}/keys/{id}": READERS,
    "PUT /v1/tenant/{tenant}/keys/{id}": WRITERS,
    "DELETE /v1/tenant/{tenant}/keys/{id}": WRITERS,
}
TENANT_ROUTES = {
    "GET /v1/tenant": MANAGERS,
    "PUT /v1/tenant": MANAGERS,
    "GET /v1/tenant/keys": TENANT_ADMIN,
    "POST /v1/tenant/keys": TENANT_ADMIN,
    "GET /v1/tenant/keys/{id}": TENANT_ADMIN,
    "PUT /v1/tenant/keys/{id}": TENANT_ADMIN,
    "DELETE /v1/tenant/keys/{id}": TENANT_ADMIN,
}


async def allowed_routes(client: Client, routes: dict[str, set[str]], tenant_id: str) -> set[str]:
    """The routes that don't turn the client away (what they then say to an empty body is another matter)."""
    allowed = set()
    for route in routes:
        method, path = route.split()
        path = path.replace("{tenant}", tenant_id).replace("{id}", str(uuid.uuid4()))
        answer = await client.request(method, path, json={})
        assert answer.status_code in {200, 400, 403}, (route, answer.text)
        if answer.status_code != 403:
            allowed.add(route)
        else:
            assert [error["errorCode"] for error in answer.json()["errors"]] == ["FORBIDDEN"]
    return allowed


@pytest.mark.parametrize("role", sorted(ACCOUNT_ROLES))
async def test_account_roles(platform: Platform, account: Client, role: str) -> None:
    tenant = await account.new_tenant()
    key = await account.new_key(role)
    allowed = await allowed_routes(key, ACCOUNT_ROUTES, str(tenant.tenant_id))
    assert allowed == {route for route, roles in ACCOUNT_ROUTES.items() if role in roles}


@pytest.mark.parametrize("role", sorted(TENANT_ROLES))
async def test_tenant_roles(tenant: Client, role: str) -> None:
    key = await tenant.new_key(role)
    allowed = await allowed_routes(key, TENANT_ROUTES, str(tenant.tenant_id))
    assert allowed == {route for route, roles in TENANT_ROUTES.items() if role in roles}


async def test_a_refusal_for_lack_of_a_role_is_on_record(platform: Platform, account: Client) -> None:
    key = await account.new_key("account-tenant-read")
    answer = await key.post("/v1/account/tenants", {"name": "x"})
    assert answer.status_code == 403
    async with platform.app.operation(system("test"), account=AccountId(uuid.UUID(account.account_id))) as op:
        rows = await op.rows(
            "select action, outcome, detail, actor_id from audit_entries where correlation_id = %s",
            answer.headers["x-correlation-id"],
        )
    assert rows == [("POST /v1/account/tenants", "refused", "FORBIDDEN", key.public_key)]
