"""ACC-6: nothing but a good, fresh, living token opens a route, and only a key's own signature gets one."""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import msgspec

from strongroom.identity import SigningKeys, Tokens
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.config import Environment
from strongroom.kernel.ids import ApiKeyId, new_uuid, parse_uuid
from strongroom.kernel.secret import Secret
from strongroom.trust.checks.oauth_tokens import check_oauth
from strongroom.trust.client import SIGN_IN, Caller, Key
from strongroom.trust.columns import search_columns
from strongroom.trust.routes import path_of
from strongroom.trust.searching import Pattern, Search, text_patterns
from strongroom.trust.stage import Stage, stage
from strongroom.trust.verdicts import Figure, Findings
from strongroom.trust.workbench import Endpoint, Level, Workbench

OPEN: Final = frozenset(
    {
        "GET /health", "GET /ready", "GET /.well-known/jwks.json", "GET /.well-known/oauth-authorization-server",
        "GET /openapi.json", "GET /trust", "GET /trust.json",
    }
)  # fmt: skip
"""The public pages: the only routes that answer anybody. docs/trust.md says why each is one."""
SIGNED: Final = frozenset(
    {
        f"POST {SIGN_IN}", "POST /oauth/token", "POST /oauth/introspect", "POST /oauth/revoke",
        "POST /v1/notifications/{tenantId}/{appId}",
    }
)  # fmt: skip
"""Routes that take no token because every request is signed; without a signature they refuse."""
_REFUSED: Final = frozenset({400, 401, 403})
_TOO_FAR_S: Final = 600
_NEAR_S: Final = 200
_LEVELS: Final[tuple[Level, Level]] = ("account", "tenant")


async def check_tokens(bench: Workbench) -> Figure:
    """See the module."""
    findings = Findings()
    async with stage(bench) as scene:
        credentials = {level: await _bad_tokens(bench, scene, level) for level in _LEVELS}
        for endpoint in bench.endpoints:
            await _check_endpoint(findings, bench, scene, endpoint, credentials)
        await _check_revocation(findings, bench, scene)
        await _check_signatures(findings, scene)
        await _check_private_half(findings, bench, scene)
        oauth_kinds = await check_oauth(findings, bench, scene)
    closed = sum(str(endpoint) not in OPEN for endpoint in bench.endpoints)
    kinds = len(credentials["tenant"]) + 1  # and none at all
    return findings.figure(
        f"{closed} of {len(bench.endpoints)} routes closed to strangers, {kinds} kinds of bad credential refused on "
        "each; sign-in refuses replays, wrong signatures and clocks ten minutes off; private halves are nowhere to "
        f"read; {oauth_kinds} kinds of bad assertion and proof refused, revoked and confined tokens held to it"
    )


async def _check_endpoint(
    findings: Findings,
    bench: Workbench,
    scene: Stage,
    endpoint: Endpoint,
    credentials: Mapping[Level, Mapping[str, str]],
) -> None:
    # Nothing is named that there is: should a bad credential be taken, nothing comes to harm.
    path = path_of(endpoint)
    without = await scene.client.send(endpoint.method, path)
    if str(endpoint) in OPEN:
        findings.expect(without.status == 200, f"{endpoint} is a public page and answers {without.status}")
        return
    if str(endpoint) in SIGNED:
        findings.expect(without.status in _REFUSED, f"{endpoint} answers {without.status} without a signature")
        return
    findings.expect(without.status == 401, f"{endpoint} answers {without.status} without a token")
    # A public route that isn't on the list has been found out above; which token it ignores doesn't matter.
    key = scene.here.account_key if endpoint.level == "account" else scene.here.key
    for kind, token in credentials["account" if endpoint.level == "account" else "tenant"].items():
        caller = Caller(scene.client, key, Secret(token))
        answer = await caller.send(endpoint.method, path)
        findings.expect(answer.status == 401, f"{endpoint} answers {answer.status} to a token that is {kind}")


async def _bad_tokens(bench: Workbench, scene: Stage, level: Level) -> Mapping[str, str]:
    """What isn't a token, by what is wrong with it. Each is the key's own genuine token but for that."""
    key = scene.here.account_key if level == "account" else scene.here.key
    genuine = (await scene.client.sign_in(key)).reveal()
    header, claims, signature = genuine.split(".")
    environment = bench.config.environment
    other = Environment.PRODUCTION if environment is Environment.SANDBOX else Environment.SANDBOX
    past = ManualClock(bench.clock.now() - timedelta(hours=1))
    raised = {**_decoded(claims), "account": str(scene.other.account_id), "exp": _decoded(claims)["exp"] + 86_400}
    middle = len(signature) // 2
    flipped = "A" if signature[middle] != "A" else "B"
    return {
        "forged": _issue(
            Tokens(SigningKeys.fixed(Secret(os.urandom(32))), environment, bench.clock), key, _decoded(claims)
        ),
        "expired": _issue(bench.tokens(environment, past), key, _decoded(claims)),
        "of another environment": _issue(bench.tokens(other, bench.clock), key, _decoded(claims)),
        "unsigned": f"{_encoded({'alg': 'none', 'typ': 'JWT'})}.{claims}.",
        "signed with the public key": _confused(await _public_key(scene), claims),
        "tampered with": f"{header}.{_encoded(raised)}.{signature}",
        "damaged": f"{header}.{claims}.{signature[:middle]}{flipped}{signature[middle + 1 :]}",
        "nonsense": "not-a-token",
    }


def _issue(tokens: Tokens, key: Key, claims: Mapping[str, Any]) -> str:
    issued = tokens.issue(key.public_key, account=key.account_id, tenant=key.tenant_id, roles=claims["roles"])
    return issued.token.reveal()


async def _public_key(scene: Stage) -> bytes:
    answer = await scene.client.send("GET", "/.well-known/jwks.json")
    encoded: str = msgspec.json.decode(answer.body)["keys"][0]["x"]
    return base64.urlsafe_b64decode(encoded + "==")


def _confused(public_key: bytes, claims: str) -> str:
    """Signed with the published key as if it were a shared secret, for a reader who lets the token choose how."""
    signed = f"{_encoded({'alg': 'HS256', 'typ': 'JWT'})}.{claims}"
    return f"{signed}.{_base64url(hmac.digest(public_key, signed.encode(), 'sha256'))}"


async def _check_revocation(findings: Findings, bench: Workbench, scene: Stage) -> None:
    """Delete a key that has a token, and use both."""
    for level, path in (("account", "/v1/account/keys"), ("tenant", "/v1/tenant/keys")):
        seat = scene.here
        admin = await (scene.account_caller(seat) if level == "account" else scene.caller(seat))
        made = await admin.done("POST", path, {"name": "prove", "roles": [f"{level}-admin"]})
        public_key = parse_uuid(made["publicKey"])
        if public_key is None:
            raise ValueError("a key's public half is a UUID")
        key = Key(
            public_key=ApiKeyId(public_key),
            private_key=Secret(made["privateKey"]),
            account_id=admin.key.account_id,
            tenant_id=admin.key.tenant_id,
        )
        holder = await scene.client.caller(key)
        reads = [endpoint for endpoint in bench.endpoints if endpoint.level == level and endpoint.method == "GET"]
        works = await holder.send("GET", path)
        findings.expect(works.status == 200, f"GET {path} answers {works.status} to a good token")
        await admin.done("DELETE", f"{path}/{public_key}")
        for endpoint in reads:
            answer = await holder.send("GET", path_of(endpoint, tenantId=str(seat.tenant_id)))
            findings.expect(answer.status == 401, f"{endpoint} answers {answer.status} to the token of a deleted key")
        answer = await holder.send("POST", path, {"name": "prove", "roles": [f"{level}-admin"]})
        findings.expect(answer.status == 401, f"POST {path} answers {answer.status} to the token of a deleted key")
        await _expect_no_token(findings, scene, scene.client.authorization(key), "a deleted key")


async def _check_signatures(findings: Findings, scene: Stage) -> None:
    client, key = scene.client, scene.here.key
    once = client.authorization(key)
    first = await client.send("POST", SIGN_IN, headers={"authorization": once})
    findings.expect(first.status == 201, f"a good signature is answered {first.status}")
    await _expect_no_token(findings, scene, once, "a signature used before")
    await _expect_no_token(findings, scene, client.authorization(key, forged=True), "a wrong signature")
    for skew in (_TOO_FAR_S, -_TOO_FAR_S):
        await _expect_no_token(findings, scene, client.authorization(key, skew_s=skew), f"a clock {skew} s off")
    for skew in (_NEAR_S, -_NEAR_S):
        near = await client.send("POST", SIGN_IN, headers={"authorization": client.authorization(key, skew_s=skew)})
        findings.expect(near.status == 201, f"a clock {skew} s off is answered {near.status}")
    genuine = client.authorization(key)
    stolen = genuine.replace(str(key.public_key), str(scene.other.key.public_key))
    await _expect_no_token(findings, scene, stolen, "another key's signature")
    await _expect_no_token(findings, scene, genuine.rpartition(":")[0] + ":", "no signature")


async def _expect_no_token(findings: Findings, scene: Stage, authorization: str, what: str) -> None:
    answer = await scene.client.send("POST", SIGN_IN, headers={"authorization": authorization})
    findings.expect(answer.status == 401, f"sign-in answers {answer.status} to {what}")


async def _check_private_half(findings: Findings, bench: Workbench, scene: Stage) -> None:
    """Look for a private half in every route that speaks of keys, and in every column of every table."""
    admin, account = await scene.caller(scene.here), await scene.account_caller(scene.here)
    request = {"name": "prove", "roles": ["tenant-transaction-read"]}
    once = {"idempotency_key": f"prove-{new_uuid()}"}
    first = await admin.send("POST", "/v1/tenant/keys", request, **once)
    made = msgspec.json.decode(first.body)
    shown, public_key = str(made["privateKey"]), str(made["publicKey"])
    secret = base64.b64decode(shown)
    answers = {
        "the same request again": await admin.send("POST", "/v1/tenant/keys", request, **once),
        "the list of keys": await admin.send("GET", "/v1/tenant/keys"),
        "the key": await admin.send("GET", f"/v1/tenant/keys/{public_key}"),
        "its account's list": await account.send("GET", f"/v1/tenant/{scene.here.tenant_id}/keys"),
        "its account's view": await account.send("GET", f"/v1/tenant/{scene.here.tenant_id}/keys/{public_key}"),
    }
    for what, answer in answers.items():
        seen = answer.status < 300 and public_key.encode() in answer.body
        findings.expect(seen, f"{what} is answered {answer.status}, without the key")
        findings.expect(shown.encode() not in answer.body, f"a private half is shown by {what}")
    wanted = parse_uuid(public_key)
    search = Search(
        "every column",
        [
            *text_patterns("a private half", shown.rstrip("=")),
            Pattern("a private half, as it is", secret),
            Pattern("a private half, hexadecimal", secret.hex().encode()),
        ],
        [] if wanted is None else [wanted.bytes],
    )
    await search_columns(bench, findings, search)
    findings.expect(search.saw_everything, "the search of every column did not see the key's public half")
    for found in search.found:
        findings.breach(f"found: {found}")


def _decoded(part: str) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return decoded


def _encoded(content: Mapping[str, Any]) -> str:
    return _base64url(msgspec.json.encode(content))


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
