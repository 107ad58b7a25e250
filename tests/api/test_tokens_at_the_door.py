"""Tokens at the door: nothing but sign-in, health and the public pages answers without a good one (promise ACC-6)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from strongroom.api.routing import Access, Route
from strongroom.api.table import ROUTES
from strongroom.identity import SigningKeys, Tokens
from strongroom.kernel.clock import ManualClock, SystemClock
from strongroom.kernel.config import Environment
from strongroom.kernel.ids import AccountId, ApiKeyId
from strongroom.kernel.secret import Secret
from tests.fixtures.platform import Client, Platform

GUARDED = [route for route in ROUTES if route.access is not Access.PUBLIC]


def path_of(route: Route) -> str:
    """The route's path with an id in every place."""
    path = route.path
    while "{" in path:
        path = path[: path.index("{")] + str(uuid.uuid4()) + path[path.index("}") + 1 :]
    return path


def codes(answer: httpx.Response) -> list[str]:
    return [error["errorCode"] for error in answer.json()["errors"]]


def encode(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: f"{route.method} {route.path}")
async def test_no_route_answers_without_a_token(platform: Platform, route: Route) -> None:
    answer = await platform.http.request(route.method, path_of(route), content=b"{}")
    assert (answer.status_code, codes(answer)) == (401, ["TOKEN_REQUIRED"])
    assert answer.headers["www-authenticate"] == 'Bearer realm="strongroom"'


def test_what_is_open_to_everybody() -> None:
    assert {f"{route.method} {route.path}" for route in ROUTES if route.access is Access.PUBLIC} <= {
        "POST /v1/identity/hmac",
        "GET /health",
        "GET /ready",
        "GET /.well-known/jwks.json",
        "GET /openapi.json",
        # Their clients sign themselves.
        "POST /oauth/token",
        "POST /oauth/introspect",
        "POST /oauth/revoke",
        "GET /.well-known/oauth-authorization-server",
        "GET /trust",
        "GET /trust.json",
        # Providers sign what they send there.
        "POST /v1/notifications/{tenantId}/{appId}",
    }


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_read_in_any_case(account: Client, scheme: str) -> None:
    await account.sign_in()
    answer = await account.get("/v1/account", headers={"Authorization": f"{scheme} {account.token}"})
    assert answer.status_code == 200


async def test_forged_tokens_are_refused(platform: Platform, account: Client) -> None:
    await account.sign_in()
    header, payload, signature = account.token.split(".")
    key = (await platform.http.get("/.well-known/jwks.json")).json()["keys"][0]
    public = base64.urlsafe_b64decode(key["x"] + "=")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))

    def hs256(secret: bytes) -> str:
        text = f"{encode({'alg': 'HS256', 'typ': 'JWT', 'kid': key['kid']})}.{payload}"
        made = hmac.digest(secret, text.encode(), "sha256")
        return f"{text}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"

    stranger = Tokens(
        SigningKeys.fixed(Secret(hashlib.sha256(b"another key").digest())), Environment.SANDBOX, SystemClock()
    )
    forged = {
        "alg none, no signature": f"{encode({'alg': 'none', 'typ': 'JWT'})}.{payload}.",
        "alg none, our signature": f"{encode({'alg': 'none', 'typ': 'JWT'})}.{payload}.{signature}",
        "HS256 under the public key": hs256(public),
        "HS256 under the public key as published": hs256(json.dumps(key).encode()),
        "more roles": f"{header}.{encode({**claims, 'roles': ['account-admin', 'tenant-admin']})}.{signature}",
        "longer life": f"{header}.{encode({**claims, 'exp': claims['exp'] + 3600})}.{signature}",
        "no signature": f"{header}.{payload}.",
        "another key's signature": stranger.issue(
            ApiKeyId(uuid.UUID(account.public_key)),
            account=AccountId(uuid.UUID(account.account_id)),
            tenant=None,
            roles=["account-admin"],
        ).token.reveal(),
        "a key of its own in the header": f"{encode({'alg': 'Ed25519', 'jwk': key})}.{payload}.{signature}",
        "two parts": f"{header}.{payload}",
        "garbage": "x",
        "far too long": account.token + "A" * 5_000,
        "not ASCII": "tökén",
    }
    for what, token in forged.items():
        answer = await account.get("/v1/account", headers={"Authorization": f"Bearer {token}".encode()})  # type: ignore[dict-item]  # raw bytes
        assert (answer.status_code, codes(answer)) == (401, ["TOKEN_INVALID"]), what


async def test_a_token_ends_after_fifteen_minutes(platform: Platform, account: Client) -> None:
    clock = ManualClock(datetime.now(UTC))
    async with platform.another_process(clock) as other:
        account.http = other.http
        await account.sign_in()
        clock.advance(timedelta(minutes=14, seconds=58))
        assert (await account.get("/v1/account")).status_code == 200
        clock.advance(timedelta(seconds=3))
        answer = await account.get("/v1/account")
        assert (answer.status_code, codes(answer)) == (401, ["TOKEN_EXPIRED"])


async def test_a_token_of_the_other_environment_is_refused(platform: Platform, account: Client) -> None:
    seed = (platform.app.config.keys_dir / "tokens.key").read_bytes()
    issued = Tokens(SigningKeys.fixed(Secret(seed)), Environment.PRODUCTION, SystemClock()).issue(
        ApiKeyId(uuid.UUID(account.public_key)),
        account=AccountId(uuid.UUID(account.account_id)),
        tenant=None,
        roles=["account-admin"],
    )
    answer = await account.get("/v1/account", headers={"Authorization": f"Bearer {issued.token.reveal()}"})
    assert (answer.status_code, codes(answer)) == (401, ["TOKEN_OF_OTHER_ENVIRONMENT"])


async def test_a_deleted_key_is_blocked_at_once_in_every_process(platform: Platform, account: Client) -> None:
    account_key = await account.new_key("account-admin")
    tenant_admin = await account.new_tenant()
    tenant_key = await tenant_admin.new_key("tenant-management")
    async with platform.another_process() as other:
        for key, path, deleted in (
            (account_key, "/v1/account", await _delete(account, account_key)),
            (tenant_key, "/v1/tenant", await _delete(tenant_admin, tenant_key)),
        ):
            assert deleted == [200, 204]
            for process in (platform, other):
                key.http = process.http
                answer = await key.get(path)
                assert (answer.status_code, codes(answer)) == (401, ["TOKEN_REVOKED"])
                assert codes(await key.sign_in()) == ["SIGNATURE_REFUSED"]


async def _delete(admin: Client, key: Client) -> list[int]:
    """The statuses of a read with the key, and of its removal."""
    level = "tenant" if key.tenant_id else "account"
    read = await key.get(f"/v1/{level}")
    removed = await admin.delete(f"/v1/{level}/keys/{key.public_key}")
    return [read.status_code, removed.status_code]


async def test_a_key_of_the_wrong_level_is_turned_away(account: Client) -> None:
    tenant = await account.new_tenant()
    for client, path in ((account, "/v1/tenant"), (tenant, "/v1/account"), (tenant, "/v1/account/tenants")):
        answer = await client.get(path, headers={"x-tenant-id": tenant.tenant_id or ""})
        assert (answer.status_code, codes(answer)) == (403, ["WRONG_LEVEL"])


async def test_the_headers_are_required(platform: Platform, tenant: Client) -> None:
    await tenant.sign_in()
    answer = await platform.http.get("/v1/tenant", headers={"Authorization": f"Bearer {tenant.token}"})
    assert (answer.status_code, codes(answer)) == (400, ["ACCOUNT_ID_IS_REQUIRED", "TENANT_ID_IS_REQUIRED"])


@pytest.mark.parametrize("header", ["x-account-id", "x-tenant-id"])
@pytest.mark.parametrize("value", [str(uuid.UUID(int=7)), "not a uuid"])
async def test_headers_that_disagree_with_the_token_are_refused(tenant: Client, header: str, value: str) -> None:
    answer = await tenant.get("/v1/tenant", headers={header: value})
    assert (answer.status_code, codes(answer)) == (403, ["HEADERS_DISAGREE"])


async def test_the_published_key_checks_our_tokens(platform: Platform, account: Client) -> None:
    await account.sign_in()
    published = (await platform.http.get("/.well-known/jwks.json")).json()
    assert all("d" not in key for key in published["keys"])
    token = jwt.decode(account.token, KeySet.import_key_set(published), algorithms=["Ed25519"])
    assert token.claims["sub"] == account.public_key
    assert token.claims["exp"] > time.time()


async def test_who_is_not_let_in_is_not_told_what_is_wrong_with_the_request(tenant: Client) -> None:
    gone = await tenant.new_key("tenant-admin")
    assert (await gone.sign_in()).status_code == 201
    assert (await tenant.delete(f"/v1/tenant/keys/{gone.public_key}")).status_code == 204
    answer = await gone.post("/v1/order-management", {"orderRef": ""})
    assert (answer.status_code, codes(answer)) == (401, ["TOKEN_REVOKED"])
