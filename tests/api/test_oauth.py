"""Tokens by OAuth: client credentials with a key pair of one's own, introspection, revocation (promise ACC-6)."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from strongroom.kernel.actors import system
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.ids import AccountId, TenantId
from tests.fixtures.oauth import ASSERTION_TYPE, GRANT, KeyPair, OAuthClient, register
from tests.fixtures.platform import Client, Platform
from tests.fixtures.signing import authorization

METADATA = "/.well-known/oauth-authorization-server"


def codes(answer: httpx.Response) -> list[str]:
    return [error["errorCode"] for error in answer.json()["errors"]]


def told(answer: httpx.Response) -> tuple[int, str, str]:
    """An OAuth error: its status, its name, and our code."""
    return answer.status_code, answer.json()["error"], answer.json()["code"]


@pytest.fixture
async def oauth(tenant: Client) -> OAuthClient:
    return await register(tenant, "tenant-admin")


async def test_the_metadata_names_where_and_how(platform: Platform) -> None:
    found = (await platform.http.get(METADATA)).json()
    issuer = found["issuer"]
    assert issuer == platform.app.config.portal_origin
    assert found["token_endpoint"] == f"{issuer}/oauth/token"
    assert found["token_endpoint_auth_methods_supported"] == ["private_key_jwt"]
    assert found["token_endpoint_auth_signing_alg_values_supported"] == ["ES256", "PS256", "EdDSA"]
    assert found["jwks_uri"] == f"{issuer}/.well-known/jwks.json"


@pytest.mark.parametrize("algorithm", ["ES256", "PS256", "EdDSA", "Ed25519"])
async def test_a_key_with_a_pair_of_its_own_gets_a_token(tenant: Client, algorithm: str) -> None:
    oauth = await register(tenant, "tenant-admin", pair=KeyPair.make(algorithm))
    answer = await oauth.ask()
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 15 * 60)
    assert "transactions:write" in body["scope"].split()
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    oauth.at.token = body["access_token"]
    assert (await oauth.at.get("/v1/tenant")).status_code == 200


async def test_such_a_key_has_no_private_half_of_ours(tenant: Client) -> None:
    pair = KeyPair.make()
    made = (await tenant.post("/v1/tenant/keys", {"roles": ["tenant-admin"], "jwks": {"keys": [pair.public]}})).json()
    assert made["privateKey"] is None
    assert made["jwks"] == {"keys": [{**pair.bare, "kid": "one", "alg": "ES256", "use": "sig"}]}
    for secret in ("", "AAAA"):
        answer = await tenant.http.post(
            "/v1/identity/hmac", headers={"Authorization": authorization(made["publicKey"], secret)}
        )
        assert codes(answer) == ["SIGNATURE_REFUSED"]


async def test_a_key_with_a_private_half_of_ours_signs_the_form(tenant: Client) -> None:
    body = b"grant_type=client_credentials&scope=transactions%3Aread"
    headers = {
        "Authorization": authorization(tenant.public_key, tenant.private_key, body=body),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    answer = await tenant.http.post("/oauth/token", content=body, headers=headers)
    assert (answer.status_code, answer.json()["scope"]) == (200, "transactions:read")
    changed = await tenant.http.post("/oauth/token", content=body[:-5] + b"write", headers=headers)
    assert told(changed) == (401, "invalid_client", "SIGNATURE_REFUSED")
    assert changed.headers["www-authenticate"].startswith("Hmac ")


NOT_GOOD: dict[str, tuple[dict[str, Any], str]] = {
    "for the token endpoint instead of the issuer": ({"aud": "https://localhost:8443/oauth/token"}, "FOR_OTHERS"),
    "for somebody else": ({"aud": "https://elsewhere.test"}, "FOR_OTHERS"),
    "for several": ({"aud": ["https://localhost:8443"]}, "FOR_OTHERS"),
    "for nobody": ({"aud": None}, "FOR_OTHERS"),
    "expired": ({"exp": 1_700_000_000, "iat": None}, "EXPIRED"),
    "without an end": ({"exp": None}, "MALFORMED"),
    "with an end that is no instant": ({"exp": "soon"}, "MALFORMED"),
    "good for years": ({"exp": 4_000_000_000}, "OUT_OF_RANGE"),
    "signed in the future": ({"iat": 4_000_000_000}, "OUT_OF_RANGE"),
    "signed long ago": ({"iat": 1_700_000_000}, "OUT_OF_RANGE"),
    "not good yet": ({"nbf": 4_000_000_000}, "OUT_OF_RANGE"),
    "without an issuer": ({"iss": None}, "MALFORMED"),
    "by another issuer": ({"iss": str(uuid.uuid4())}, "MALFORMED"),
    "about nobody": ({"sub": None}, "MALFORMED"),
    "about no key": ({"iss": "x", "sub": "x"}, "MALFORMED"),
    "about a key that isn't there": (dict.fromkeys(("iss", "sub"), str(uuid.uuid4())), "SIGNATURE_REFUSED"),
    "without an id": ({"jti": None}, "MALFORMED"),
    "with an id that is no text": ({"jti": 7}, "MALFORMED"),
    "with another key's name": ({"header": {"kid": "two"}}, "SIGNATURE_REFUSED"),
    "with a header that must be understood": ({"header": {"crit": ["x"], "x": "1"}}, "MALFORMED"),
}


@pytest.mark.parametrize(("claims", "code"), NOT_GOOD.values(), ids=NOT_GOOD)
async def test_an_assertion_that_is_not_just_so_is_refused(
    shared: OAuthClient, claims: dict[str, Any], code: str
) -> None:
    answer = await shared.ask(client_assertion=shared.assertion(**claims))
    expected = code if code.startswith("SIGNATURE") else f"ASSERTION_{code}"
    assert told(answer) == (401, "invalid_client", expected)


@pytest.fixture(scope="module")
async def shared(platform: Platform) -> OAuthClient:
    """A client for tests that only see it refused."""
    return await register(await platform.new_tenant(), "tenant-admin")


async def test_only_a_registered_key_signs_and_only_by_its_own_algorithm(tenant: Client) -> None:
    rsa = KeyPair.make("PS256")
    oauth = await register(tenant, "tenant-admin", pair=rsa)
    good = oauth.assertion()
    header, claims, signature = good.split(".")
    public = rsa.key.as_pem(private=False)
    forged = {
        "another key": KeyPair.make("PS256").assertion(oauth.client_id, oauth.issuer),
        "another kind of key": KeyPair.make("ES256").assertion(oauth.client_id, oauth.issuer),
        "another algorithm of the same key": oauth.assertion(header={"alg": "RS256"}),
        "no algorithm": oauth.assertion(header={"alg": None} | {"alg": "PS256"}).replace(header, _none(), 1),
        "no signature": f"{header}.{claims}.",
        "a damaged signature": f"{header}.{claims}.{signature[:-8]}AAAAAAAA",
        "the public key as a secret": _hs256(public, claims),
        "garbage": "x",
        "three dots": "a.b.c",
        "far too long": good + "A" * 9_000,
    }
    for what, assertion in forged.items():
        answer = await oauth.ask(client_assertion=assertion)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client"), what
    assert (await oauth.ask(client_assertion=good)).status_code == 200


def _none() -> str:
    return "eyJhbGciOiJub25lIn0"  # {"alg":"none"}


def _hs256(secret: bytes, claims: str) -> str:
    import base64
    import hmac

    text = f"eyJhbGciOiJIUzI1NiJ9.{claims}"  # {"alg":"HS256"}
    return f"{text}.{base64.urlsafe_b64encode(hmac.digest(secret, text.encode(), 'sha256')).rstrip(b'=').decode()}"


async def test_an_assertion_counts_once_here_elsewhere_and_after_a_restart(
    platform: Platform, oauth: OAuthClient
) -> None:
    assertion = oauth.assertion()
    assert (await oauth.ask(client_assertion=assertion)).status_code == 200
    answers = [await oauth.ask(client_assertion=assertion)]
    async with platform.another_process() as other:
        answers.append(await oauth.post("/oauth/token", at=other.http, **GRANT, client_assertion=assertion))
    for answer in answers:
        assert told(answer) == (401, "invalid_client", "NONCE_REPLAYED")


async def test_of_many_replays_at_once_one_gets_a_token(oauth: OAuthClient) -> None:
    assertion = oauth.assertion()
    answers = await asyncio.gather(*(oauth.ask(client_assertion=assertion) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 5


@pytest.mark.parametrize(
    ("parameters", "status", "error", "code"),
    [
        ({"grant_type": ""}, 400, "invalid_request", "GRANT_TYPE_IS_REQUIRED"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", "GRANT_TYPE_NOT_SUPPORTED"),
        ({"scope": "everything"}, 400, "invalid_scope", "SCOPE_NOT_ALLOWED"),
        ({"scope": "account:manage"}, 400, "invalid_scope", "SCOPE_NOT_ALLOWED"),
        ({"client_id": str(uuid.uuid4())}, 400, "invalid_request", "CLIENT_ID_DISAGREES"),
        ({"client_assertion_type": "password"}, 400, "invalid_request", "CLIENT_ASSERTION_TYPE_NOT_SUPPORTED"),
        ({"client_assertion": ""}, 401, "invalid_client", "CLIENT_PROOF_IS_REQUIRED"),
    ],
)
async def test_errors_are_those_of_rfc_6749(
    shared: OAuthClient, parameters: dict[str, str], status: int, error: str, code: str
) -> None:
    answer = await shared.ask(**parameters)
    assert told(answer) == (status, error, code)
    assert answer.json()["error_description"].isascii()


async def test_forms_are_read_strictly(shared: OAuthClient) -> None:
    http = shared.at.http
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    twice = await http.post("/oauth/token", content=b"grant_type=a&grant_type=b", headers=form)
    assert told(twice) == (400, "invalid_request", "FORM_IS_INVALID")
    for broken in (b"a=%ff", "a=ö".encode(), b"&".join(b"x%d=1" % n for n in range(21))):
        assert told(await http.post("/oauth/token", content=broken, headers=form))[1:] == (
            "invalid_request",
            "FORM_IS_INVALID",
        )
    in_json = await http.post("/oauth/token", json=shared.form(**GRANT))
    assert (in_json.status_code, in_json.json()["error"]) == (400, "invalid_request")
    both = await http.post("/oauth/token", data=shared.form(**GRANT), headers={"Authorization": "Hmac a:b:c:d"})
    assert told(both) == (400, "invalid_request", "CLIENT_PROOF_SENT_TWICE")


async def test_a_token_is_good_for_the_scopes_asked_for_and_no_more(oauth: OAuthClient) -> None:
    answer = await oauth.ask(scope="tenant:manage apps:read")
    assert answer.json()["scope"] == "apps:read tenant:manage"
    oauth.at.token = answer.json()["access_token"]
    assert (await oauth.at.get("/v1/tenant")).status_code == 200
    refused = await oauth.at.get("/v1/tenant/keys")
    assert (refused.status_code, codes(refused)) == (403, ["FORBIDDEN"])


@pytest.mark.parametrize("way", ["hmac", "oauth"])
async def test_a_key_confined_to_scopes_gets_no_others(tenant: Client, way: str) -> None:
    if way == "oauth":
        oauth = await register(tenant, "tenant-admin", scopes=["tenant:manage"])
        key = oauth.at
        assert told(await oauth.ask(scope="apps:read"))[1] == "invalid_scope"
        key.token = await oauth.token()
    else:
        made = await tenant.post("/v1/tenant/keys", {"roles": ["tenant-admin"], "scopes": ["tenant:manage"]})
        key = Client(
            http=tenant.http,
            account_id=tenant.account_id,
            tenant_id=tenant.tenant_id,
            public_key=made.json()["publicKey"],
            private_key=made.json()["privateKey"],
        )
    assert (await key.get("/v1/tenant")).status_code == 200
    assert (await key.get("/v1/tenant/keys")).status_code == 403
    one = f"/v1/tenant/keys/{key.public_key}"
    assert (await tenant.get(one)).json()["scopes"] == ["tenant:manage"]
    assert (await tenant.put(one, {"roles": ["tenant-admin"], "scopes": None})).status_code == 204
    assert (await tenant.get(one)).json()["scopes"] is None


async def test_public_keys_are_changed_with_an_overlap(tenant: Client) -> None:
    old, new = KeyPair.make(key_id="old"), KeyPair.make("EdDSA", key_id="new")
    oauth = await register(tenant, "tenant-admin", pair=old)
    one = f"/v1/tenant/keys/{oauth.client_id}"

    async def works(*pairs: KeyPair) -> list[int]:
        return [
            (await oauth.ask(client_assertion=pair.assertion(oauth.client_id, oauth.issuer))).status_code
            for pair in pairs
        ]

    assert await works(old, new) == [200, 401]
    both = {"roles": ["tenant-admin"], "jwks": {"keys": [old.public, new.public]}}
    assert (await tenant.put(one, both)).status_code == 204
    assert await works(old, new) == [200, 200]
    assert (await tenant.put(one, {"roles": ["tenant-admin"]})).status_code == 204
    assert await works(old, new) == [200, 200]
    assert (await tenant.put(one, {**both, "jwks": {"keys": [new.public]}})).status_code == 204
    assert await works(old, new) == [401, 200]
    hmac_key = await tenant.new_key("tenant-admin")
    refused = await tenant.put(f"/v1/tenant/keys/{hmac_key.public_key}", both)
    assert codes(refused) == ["KEY_HAS_PRIVATE_HALF"]


async def test_keys_that_are_weak_private_or_strange_are_not_registered(tenant: Client) -> None:
    good = KeyPair.make().public
    private = KeyPair.make().key.as_dict(private=True) | {"kid": "p"}
    small = KeyPair(algorithm="PS256", key=type(KeyPair.make("PS256").key).generate_key(1024), key_id="small")
    strange: dict[str, tuple[Any, str]] = {
        "no set": ("x", "JWKS_IS_INVALID"),
        "an empty set": ({"keys": []}, "JWKS_IS_INVALID"),
        "too many": ({"keys": [KeyPair.make(key_id=str(n)).public for n in range(6)]}, "JWKS_IS_INVALID"),
        "a private key": ({"keys": [private]}, "JWKS_HOLDS_PRIVATE_KEY"),
        "a shared secret": ({"keys": [{"kty": "oct", "k": "AAAA", "kid": "s"}]}, "JWKS_HOLDS_PRIVATE_KEY"),
        "no name": ({"keys": [{**good, "kid": None}]}, "JWKS_IS_INVALID"),
        "one name twice": ({"keys": [good, KeyPair.make().public]}, "JWKS_IS_INVALID"),
        "one key twice": ({"keys": [good, {**good, "kid": "two"}]}, "JWKS_IS_INVALID"),
        "a small RSA key": ({"keys": [small.public]}, "JWKS_IS_INVALID"),
        "a point that is none": ({"keys": [{**good, "y": good["x"]}]}, "JWKS_IS_INVALID"),
        "another curve": ({"keys": [{**good, "crv": "P-384"}]}, "JWKS_IS_INVALID"),
        "another algorithm": ({"keys": [{**good, "alg": "ES384"}]}, "JWKS_IS_INVALID"),
        "for encryption": ({"keys": [{**good, "use": "enc"}]}, "JWKS_IS_INVALID"),
    }
    for what, (jwks, code) in strange.items():
        answer = await tenant.post("/v1/tenant/keys", {"roles": ["tenant-admin"], "jwks": jwks})
        assert (answer.status_code, codes(answer)) == (400, [code]), what


async def test_limits_of_keys_are_checked(tenant: Client) -> None:
    for body, code in (
        ({"scopes": []}, "SCOPES_IS_REQUIRED"),
        ({"scopes": ["everything"]}, "SCOPES_NOT_RECOGNISED"),
        ({"scopes": ["account:manage"]}, "SCOPES_NOT_RECOGNISED"),
        ({"requestsPerMinute": 0}, "REQUESTS_PER_MINUTE_OUT_OF_RANGE"),
        ({"requestsPerMinute": "many"}, "REQUESTS_PER_MINUTE_IS_INVALID"),
    ):
        answer = await tenant.post("/v1/tenant/keys", {"roles": ["tenant-admin"], **body})
        assert (answer.status_code, codes(answer)) == (400, [code])


async def test_a_limit_of_requests_holds_in_all_processes_together(platform: Platform, tenant: Client) -> None:
    clock = ManualClock(datetime.now(UTC))
    made = await tenant.post("/v1/tenant/keys", {"roles": ["tenant-admin"], "requestsPerMinute": 6})
    async with platform.another_process(clock) as one, platform.another_process(clock) as two:
        key = Client(
            http=one.http,
            account_id=tenant.account_id,
            tenant_id=tenant.tenant_id,
            public_key=made.json()["publicKey"],
            private_key=made.json()["privateKey"],
        )
        statuses = []
        for process in (one, two) * 4:
            key.http = process.http
            answer = await key.get("/v1/tenant")
            statuses.append(answer.status_code)
        assert statuses == [200] * 6 + [429] * 2
        assert (codes(answer), answer.headers["retry-after"]) == (["REQUEST_RATE_EXCEEDED"], "10")
        clock.advance(timedelta(seconds=10))
        assert [(await key.get("/v1/tenant")).status_code for _ in range(2)] == [200, 429]
        clock.advance(timedelta(minutes=2))
        key.http = one.http
        assert [(await key.get("/v1/tenant")).status_code for _ in range(7)] == [200] * 6 + [429]


async def test_a_bigger_limit_is_taken_in_shares_and_holds_as_well(platform: Platform, tenant: Client) -> None:
    """Of 1,200 a minute a process takes two at once; three processes let no more through than one would."""
    made = await tenant.post("/v1/tenant/keys", {"roles": ["tenant-admin"], "requestsPerMinute": 1200})
    clock = ManualClock(datetime.now(UTC))
    key = uuid.UUID(made.json()["publicKey"])
    async with platform.app.databases.directory() as directory:
        await directory.execute(
            "insert into key_rates (public_key, left_over, filled_at) values (%s, 5, %s)", (key, clock.now())
        )
    async with platform.another_process(clock) as one, platform.another_process(clock) as two:
        client = Client(
            http=one.http,
            account_id=tenant.account_id,
            tenant_id=tenant.tenant_id,
            public_key=str(key),
            private_key=made.json()["privateKey"],
        )
        statuses = []
        for process in (one, one, two, two, one, two):
            client.http = process.http
            statuses.append((await client.get("/v1/tenant")).status_code)
    assert statuses == [200] * 5 + [429]


@pytest.mark.parametrize("level", ["account", "tenant"])
async def test_a_revoked_token_is_refused_at_once_in_every_process(
    platform: Platform, account: Client, level: str
) -> None:
    admin = account if level == "account" else await account.new_tenant()
    oauth = await register(admin, f"{level}-admin")
    revoked, kept = await oauth.token(), await oauth.token()
    async with platform.another_process() as other:

        async def statuses(token: str) -> list[int]:
            oauth.at.token = token
            found = []
            for process in (platform, other):
                oauth.at.http = process.http
                found.append((await oauth.at.get(f"/v1/{level}")).status_code)
            return found

        assert await statuses(revoked) == [200, 200]
        answer = await oauth.post("/oauth/revoke", at=other.http, token=revoked)
        assert (answer.status_code, answer.content) == (200, b"")
        assert await statuses(revoked) == [401, 401]
        assert codes(await oauth.at.get(f"/v1/{level}")) == ["TOKEN_REVOKED"]
        assert await statuses(kept) == [200, 200]
        assert (await oauth.post("/oauth/introspect", token=revoked)).json() == {"active": False}
        assert (await oauth.post("/oauth/introspect", token=kept)).json()["active"] is True


async def test_only_ones_own_tokens_are_revoked(oauth: OAuthClient, tenant: Client) -> None:
    await tenant.sign_in()
    answer = await oauth.post("/oauth/revoke", token=tenant.token)
    assert told(answer) == (400, "invalid_request", "TOKEN_OF_OTHER_CLIENT")
    assert (await tenant.get("/v1/tenant")).status_code == 200
    assert (await oauth.post("/oauth/revoke", token="nonsense")).status_code == 200
    assert told(await oauth.post("/oauth/revoke")) == (400, "invalid_request", "TOKEN_PARAMETER_IS_REQUIRED")


async def test_introspection_tells_the_clients_of_the_same_house(
    platform: Platform, account: Client, tenant: Client
) -> None:
    mine = await account.new_tenant()
    oauth = await register(mine, "tenant-admin")
    await mine.sign_in()
    found = (await oauth.post("/oauth/introspect", token=mine.token)).json()
    assert found["active"] is True
    assert (found["client_id"], found["tenant"]) == (mine.public_key, mine.tenant_id)
    assert found["exp"] - found["iat"] == 15 * 60
    assert "transactions:write" in found["scope"].split()
    above = await register(account, "account-admin")
    assert (await above.post("/oauth/introspect", token=mine.token)).json()["active"] is True

    await tenant.sign_in()
    await account.sign_in()
    for of_others in (tenant.token, account.token, "nonsense"):
        assert (await oauth.post("/oauth/introspect", token=of_others)).json() == {"active": False}
    gone = await mine.new_key("tenant-admin")
    await gone.sign_in()
    assert (await oauth.post("/oauth/introspect", token=gone.token)).json()["active"] is True
    await mine.delete(f"/v1/tenant/keys/{gone.public_key}")
    assert (await oauth.post("/oauth/introspect", token=gone.token)).json() == {"active": False}
    unknown = await platform.http.post("/oauth/introspect", data={"token": mine.token})
    assert told(unknown) == (401, "invalid_client", "CLIENT_PROOF_IS_REQUIRED")


async def test_revocations_are_forgotten_when_their_tokens_have_ended(
    platform: Platform, account: Client, tenant: Client
) -> None:
    from strongroom.database.housekeeping import forget_expired

    for admin, role in ((account, "account-admin"), (tenant, "tenant-admin")):
        oauth = await register(admin, role)
        await oauth.post("/oauth/revoke", token=await oauth.token())

    async def count() -> tuple[int, int]:
        async with platform.app.operation(
            system("test"),
            account=AccountId(uuid.UUID(tenant.account_id)),
            tenant=TenantId(uuid.UUID(str(tenant.tenant_id))),
        ) as op:
            there = await op.row("select count(*) from revoked_tokens")
        async with platform.app.databases.directory() as directory:
            cursor = await directory.execute(
                "select count(*) from revoked_tokens join api_keys using (public_key) where account_id = %s",
                (account.account_id,),
            )
            here = await cursor.fetchone()
        assert there is not None and here is not None
        return there[0], here[0]

    assert await count() == (1, 1)
    async with platform.another_process(ManualClock(datetime.now(UTC) + timedelta(minutes=16))) as later:
        await forget_expired(later.app.databases, system("test"))
    assert await count() == (0, 0)


async def test_proofs_and_refusals_are_on_record(platform: Platform, oauth: OAuthClient) -> None:
    token = await oauth.token()
    await oauth.ask(scope="everything")
    await oauth.ask(client_assertion=oauth.assertion(exp=1))
    await oauth.post("/oauth/revoke", token=token)
    async with platform.app.operation(
        system("test"),
        account=AccountId(uuid.UUID(oauth.at.account_id)),
        tenant=TenantId(uuid.UUID(str(oauth.at.tenant_id))),
    ) as op:
        rows = await op.rows(
            "select action, outcome, detail from audit_entries where actor_id = %s order by entry_id", oauth.client_id
        )
    assert rows == [
        ("sign-in", "done", ""),
        ("sign-in", "refused", "SCOPE_NOT_ALLOWED"),
        ("sign-in", "refused", "ASSERTION_EXPIRED"),
        ("token.revoke", "done", ""),
        ("token.revoked", "done", ""),
    ]


async def test_what_holds_for_signatures_holds_for_assertions(account: Client) -> None:
    """IP lists, ends of keys, deletion: the rules are the same whatever the credential is."""
    tenant = await account.new_tenant()
    gone, ended = await register(tenant, "tenant-admin"), await register(tenant, "tenant-admin")
    await tenant.delete(f"/v1/tenant/keys/{gone.client_id}")
    assert told(await gone.ask()) == (401, "invalid_client", "SIGNATURE_REFUSED")
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    changed = await tenant.put(f"/v1/tenant/keys/{ended.client_id}", {"roles": ["tenant-admin"], "expiresOn": soon})
    assert changed.status_code == 204
    await asyncio.sleep(1.1)
    assert told(await ended.ask()) == (401, "invalid_client", "API_KEY_EXPIRED")
    alive = await register(tenant, "tenant-admin")
    rules = {"enabled": True, "rules": [{"name": "x", "cidr": "192.0.2.0/24"}]}
    assert (await tenant.put("/v1/tenant/ip-whitelist?force=true", rules)).status_code < 300
    assert told(await alive.ask()) == (400, "unauthorized_client", "ADDRESS_NOT_ALLOWED")


def test_the_assertion_type_is_the_standards_own() -> None:
    assert ASSERTION_TYPE == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
