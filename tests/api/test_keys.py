"""API keys: made, shown once, listed, changed and blocked, on both levels and both ways to a tenant's."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from strongroom.identity import api_keys
from strongroom.kernel.actors import system
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.ids import AccountId, TenantId
from tests.fixtures.platform import Client, Platform

LEVELS = ["account", "tenant", "tenant of the account"]


def codes(answer: httpx.Response) -> list[str]:
    return [error["errorCode"] for error in answer.json()["errors"]]


async def keys_of(level: str, account: Client) -> tuple[Client, str, str, str]:
    """Who manages keys of a level, on which path, listed under which name, and an admin's role there."""
    if level == "account":
        return account, "/v1/account/keys", "accountKeys", "account-admin"
    tenant = await account.new_tenant()
    if level == "tenant":
        return tenant, "/v1/tenant/keys", "tenantKeys", "tenant-admin"
    return account, f"/v1/tenant/{tenant.tenant_id}/keys", "tenantKeys", "tenant-admin"


@pytest.mark.parametrize("level", LEVELS)
async def test_a_keys_life(account: Client, level: str) -> None:
    admin, path, listed, role = await keys_of(level, account)
    before = (await admin.get(path)).json()
    made = await admin.post(path, {"name": "Nightly batch", "roles": [role]})
    assert made.status_code == 201
    key = made.json()
    assert list(key)[:5] == ["identity", "name", "publicKey", "privateKey", "roles"]
    assert list(key)[5:] == ["createdOn", "expiresOn", "lastUsedOn", "jwks", "scopes", "requestsPerMinute"]
    assert len(base64.b64decode(key["privateKey"], validate=True)) == 32
    assert uuid.UUID(key["publicKey"]).version == 7
    shown = {field: value for field, value in key.items() if field != "privateKey"}
    one = f"{path}/{key['publicKey']}"
    assert (await admin.get(one)).json() == shown
    assert (await admin.get(path)).json() == {listed: [*before[listed], shown]}

    changed = await admin.put(one, {"name": "Weekly batch", "roles": [role]})
    assert (changed.status_code, changed.content) == (204, b"")
    assert (await admin.get(one)).json()["name"] == "Weekly batch"

    removed = await admin.delete(one)
    assert (removed.status_code, removed.content) == (204, b"")
    assert (await admin.get(path)).json() == before
    for gone in (await admin.get(one), await admin.put(one, {"roles": [role]}), await admin.delete(one)):
        assert (gone.status_code, codes(gone)) == (400, ["API_KEY_NOT_FOUND"])


@pytest.mark.parametrize("level", LEVELS)
async def test_what_is_wrong_with_a_key(account: Client, level: str) -> None:
    admin, path, listed, _ = await keys_of(level, account)
    other_level = "tenant-admin" if level == "account" else "account-admin"
    for body, expected in (
        ({}, ["ROLES_IS_REQUIRED"]),
        ({"roles": []}, ["ROLES_IS_REQUIRED"]),
        ({"roles": None}, ["ROLES_IS_REQUIRED"]),
        ({"roles": "account-admin"}, ["ROLES_IS_INVALID"]),
        ({"roles": ["king"]}, ["ROLES_NOT_RECOGNISED"]),
        ({"roles": [other_level]}, ["ROLES_NOT_RECOGNISED"]),
        ({"roles": [1]}, ["ROLES_NOT_RECOGNISED"]),
        ({"name": "x" * 101, "roles": ["king"]}, ["NAME_LENGTH_OUT_OF_RANGE", "ROLES_NOT_RECOGNISED"]),
        ({"name": "a\nb", "roles": ["king"]}, ["NAME_CONTAINS_INVALID_CHARACTERS", "ROLES_NOT_RECOGNISED"]),
    ):
        for answer in (await admin.post(path, body), await admin.put(f"{path}/{admin.public_key}", body)):
            assert (answer.status_code, codes(answer)) == (400, expected), body
    assert len((await admin.get(path)).json()[listed]) == 1


async def test_a_key_has_a_name_also_when_it_gets_none(account: Client) -> None:
    made = await account.post("/v1/account/keys", {"roles": ["account-tenant-read"]})
    assert made.json()["name"] == "API Key"


async def test_roles_are_kept_once_each(account: Client) -> None:
    made = await account.post("/v1/account/keys", {"roles": ["account-tenant-read", "account-admin", "account-admin"]})
    assert made.json()["roles"] == ["account-admin", "account-tenant-read"]


async def test_changed_roles_count_from_the_next_sign_in(account: Client) -> None:
    key = await account.new_key("account-tenant-read")
    assert (await key.post("/v1/account/tenants", {"name": "x"})).status_code == 403
    path = f"/v1/account/keys/{key.public_key}"
    assert (await account.put(path, {"roles": ["account-tenant-write"]})).status_code == 204
    await key.sign_in()
    assert (await key.post("/v1/account/tenants", {"name": "x"})).status_code == 201


async def test_a_changed_name_leaves_the_private_half_as_it_was(account: Client) -> None:
    key = await account.new_key("account-admin")
    assert (
        await account.put(f"/v1/account/keys/{key.public_key}", {"name": "New", "roles": ["account-admin"]})
    ).is_success
    assert (await key.sign_in()).status_code == 201


async def test_the_last_admins_key_can_neither_go_nor_lose_its_role(account: Client) -> None:
    path = f"/v1/account/keys/{account.public_key}"
    reader = {"roles": ["account-tenant-read"]}
    await account.new_key("account-tenant-write")
    for answer in (await account.delete(path), await account.put(path, reader)):
        assert (answer.status_code, codes(answer)) == (400, ["LAST_ADMIN_KEY"])
    other = await account.new_key("account-admin")
    assert (await other.put(path, reader)).status_code == 204
    assert codes(await other.delete(f"/v1/account/keys/{other.public_key}")) == ["LAST_ADMIN_KEY"]


async def test_two_admins_can_not_remove_each_other_at_once(platform: Platform, account: Client) -> None:
    other = await account.new_key("account-admin")
    await asyncio.gather(account.sign_in(), other.sign_in())
    answers = await asyncio.gather(
        account.delete(f"/v1/account/keys/{other.public_key}"), other.delete(f"/v1/account/keys/{account.public_key}")
    )
    assert sorted(answer.status_code for answer in answers) == [204, 401], "who lost is nobody any more"
    kept = account if answers[0].status_code == 204 else other
    assert len((await kept.get("/v1/account/keys")).json()["accountKeys"]) == 1


async def test_keys_of_one_level_are_not_there_for_another(platform: Platform, account: Client) -> None:
    tenant, sibling, stranger = await account.new_tenant(), await account.new_tenant(), await platform.new_account()
    for client, path in (
        (account, f"/v1/account/keys/{tenant.public_key}"),
        (account, f"/v1/account/keys/{stranger.public_key}"),
        (tenant, f"/v1/tenant/keys/{sibling.public_key}"),
        (tenant, f"/v1/tenant/keys/{account.public_key}"),
        (account, f"/v1/tenant/{tenant.tenant_id}/keys/{sibling.public_key}"),
        (account, "/v1/account/keys/x"),
    ):
        for answer in (
            await client.get(path),
            await client.put(path, {"roles": ["account-admin" if "/account/" in path else "tenant-admin"]}),
            await client.delete(path),
        ):
            assert (answer.status_code, codes(answer)) == (400, ["API_KEY_NOT_FOUND"])
    for client in (tenant, sibling, stranger):
        assert (await client.sign_in()).status_code == 201


async def test_a_repeated_request_makes_one_key_and_shows_its_private_half_once(account: Client) -> None:
    header = {"Idempotency-Key": "one-key"}
    body = {"name": "Batch", "roles": ["account-tenant-read"]}
    first = await account.post("/v1/account/keys", body, headers=header)
    second = await account.post("/v1/account/keys", body, headers=header)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == {**first.json(), "privateKey": None}
    assert len((await account.get("/v1/account/keys")).json()["accountKeys"]) == 2


async def test_the_private_half_is_stored_sealed_only(platform: Platform, tenant: Client) -> None:
    secret = base64.b64decode(tenant.private_key)
    account, tenant_id = AccountId(uuid.UUID(tenant.account_id)), TenantId(uuid.UUID(str(tenant.tenant_id)))
    async with platform.app.operation(system("test"), account=account, tenant=tenant_id) as op:
        row = await op.row("select api_keys::text, sealed from api_keys where public_key = %s", tenant.public_key)
        assert row is not None
        opened = op.cipher.open("api_keys", "sealed", uuid.UUID(tenant.public_key).bytes, row[1])
    assert secret.hex() not in row[0]
    assert tenant.private_key not in row[0]
    assert secret in opened


async def test_how_many_keys_there_may_be(account: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "MAX_KEYS", 2)
    await account.new_key("account-tenant-read")
    answer = await account.post("/v1/account/keys", {"roles": ["account-tenant-read"]})
    assert (answer.status_code, codes(answer)) == (400, ["API_KEY_LIMIT_REACHED"])


async def test_what_happens_to_keys_is_on_record(platform: Platform, account: Client) -> None:
    made = (await account.post("/v1/account/keys", {"roles": ["account-tenant-read"]})).json()["publicKey"]
    await account.put(f"/v1/account/keys/{made}", {"roles": ["account-admin"]})
    await account.delete(f"/v1/account/keys/{made}")
    async with platform.app.operation(system("test"), account=AccountId(uuid.UUID(account.account_id))) as op:
        rows = await op.rows(
            "select action, outcome, detail, actor_id from audit_entries where subject_id = %s order by entry_id", made
        )
    assert rows == [
        ("api-key.create", "done", "account-tenant-read", account.public_key),
        ("api-key.update", "done", "account-admin", account.public_key),
        ("api-key.delete", "done", "", account.public_key),
    ]


@pytest.mark.parametrize("level", LEVELS)
async def test_a_key_ends_when_it_was_told_to_and_so_do_its_tokens(
    account: Client, level: str, platform: Platform
) -> None:
    admin, path, _, role = await keys_of(level, account)
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=7)
    made = await admin.post(path, {"roles": [role], "expiresOn": end.isoformat()})
    assert (made.status_code, made.json()["expiresOn"]) == (201, end.isoformat().replace("+00:00", "Z"))
    one = f"{path}/{made.json()['publicKey']}"
    key = dataclasses.replace(
        admin,
        tenant_id=path.split("/")[3] if "of the account" in level else admin.tenant_id,
        public_key=made.json()["publicKey"],
        private_key=made.json()["privateKey"],
        token="",
    )
    answer = await key.sign_in()
    assert (answer.status_code, answer.json()["expires"]) == (201, str(int(end.timestamp()) * 1000))
    last_used = datetime.fromisoformat((await admin.get(one)).json()["lastUsedOn"])
    assert abs(last_used - datetime.now(UTC)) < timedelta(minutes=1)
    assert (await admin.put(one, {"roles": [role]})).status_code == 204
    assert (await admin.get(one)).json()["expiresOn"] == made.json()["expiresOn"], "left out is left alone"

    async with platform.another_process(ManualClock(end)) as later:
        late = dataclasses.replace(key, http=later.http)
        refused = await late.sign_in(epoch=end.timestamp())
        assert (refused.status_code, codes(refused)) == (401, ["API_KEY_EXPIRED"])
        token = await late.get("/v1/tenant" if key.tenant_id else "/v1/account")
        assert (token.status_code, codes(token)) == (401, ["TOKEN_EXPIRED"])

    assert (await admin.put(one, {"roles": [role], "expiresOn": None})).status_code == 204
    assert (await admin.get(one)).json()["expiresOn"] is None


async def test_a_key_that_ends_is_not_the_one_admin_that_has_to_stay(account: Client) -> None:
    one = f"/v1/account/keys/{account.public_key}"
    soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    await account.post("/v1/account/keys", {"roles": ["account-admin"], "expiresOn": soon})
    assert codes(await account.delete(one)) == ["LAST_ADMIN_KEY"]
    assert codes(await account.put(one, {"roles": ["account-admin"], "expiresOn": soon})) == ["LAST_ADMIN_KEY"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2000-01-01T00:00:00Z", "EXPIRES_ON_OUT_OF_RANGE"),
        ("2099-01-01T00:00:00Z", "EXPIRES_ON_OUT_OF_RANGE"),
        ("2030-01-01", "EXPIRES_ON_IS_INVALID"),
        ("2030-01-01T00:00:00", "EXPIRES_ON_IS_INVALID"),
        ("2030-02-30T00:00:00Z", "EXPIRES_ON_IS_INVALID"),
        ("2030-01-01T00:00:00Z\n", "EXPIRES_ON_IS_INVALID"),
        ("0001-01-01T00:00:00+23:59", "EXPIRES_ON_IS_INVALID"),
        (1_893_456_000, "EXPIRES_ON_IS_INVALID"),
        ("", "EXPIRES_ON_IS_INVALID"),
    ],
)
async def test_what_is_no_end(account: Client, given: object, expected: str) -> None:
    body = {"roles": ["account-admin"], "expiresOn": given}
    for answer in (
        await account.post("/v1/account/keys", body),
        await account.put(f"/v1/account/keys/{account.public_key}", body),
    ):
        assert (answer.status_code, codes(answer)) == (400, [expected])


async def test_use_is_noted_once_a_minute(account: Client, platform: Platform) -> None:
    start = datetime.now(UTC)
    one = f"/v1/account/keys/{account.public_key}"
    noted = []
    clock = ManualClock(start)
    async with platform.another_process(clock) as other:
        key = dataclasses.replace(account, http=other.http, token="")
        for _ in range(3):
            assert (await key.sign_in(epoch=clock.now().timestamp())).status_code == 201
            noted.append((await key.get(one)).json()["lastUsedOn"])
            clock.advance(timedelta(seconds=31))
    assert noted[0] == noted[1] < noted[2]
