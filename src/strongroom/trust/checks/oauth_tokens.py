"""ACC-6 for OAuth clients: only a good assertion gets a token, only its holder uses a bound one, none outlives its end.

Part of `strongroom.trust.checks.tokens`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

import msgspec

from strongroom.trust.oauth_client import READ_PATH, REVOCATION_PATH, TOKEN_PATH, OAuthClient, Pair, open_client
from strongroom.trust.routes import path_of
from strongroom.trust.stage import Stage
from strongroom.trust.verdicts import Findings
from strongroom.trust.workbench import Workbench

_YEARS_S: Final = 100_000_000


async def check_oauth(findings: Findings, bench: Workbench, stage: Stage) -> int:
    """Try the new ways in; returns how many kinds of bad credential were refused."""
    client = await open_client(stage)
    kinds = await _check_assertions(findings, client)
    kinds += await _check_proofs(findings, client)
    await _check_scopes(findings, client)
    await _check_revocation(findings, bench, client)
    await (await stage.caller(stage.here)).done("DELETE", f"/v1/tenant/keys/{client.client_id}")
    answer = await client.ask()
    findings.expect(answer.status == 401, f"{TOKEN_PATH} answers {answer.status} to a deleted key")
    return kinds


async def _check_assertions(findings: Findings, client: OAuthClient) -> int:
    once = client.assertion()
    first = await client.ask(once)
    findings.expect(first.status == 200, f"{TOKEN_PATH} answers {first.status} to a good assertion")
    stranger = str(client.stage.other.key.public_key)
    bad = {
        "used before": once,
        "of another key": client.assertion(Pair.make("prove")),
        "for others": client.assertion(aud="https://elsewhere.test"),
        "for nobody": client.assertion(aud=None),
        "expired": client.assertion(exp=client.now_s - 60, iat=None),
        "good for years": client.assertion(exp=client.now_s + _YEARS_S),
        "without an end": client.assertion(exp=None),
        "without an id": client.assertion(jti=None),
        "without an issuer": client.assertion(iss=None),
        "about somebody else": client.assertion(iss=stranger, sub=stranger),
        "under an unknown name": client.assertion(kid="unknown"),
        "unsigned": f"{_header('none')}.{client.assertion().split('.')[1]}.",
        "signed with the public key": _confused(client, client.assertion().split(".")[1]),
        "damaged": f"{client.assertion()[:-8]}AAAAAAAA",
    }
    for what, assertion in bad.items():
        answer = await client.ask(assertion)
        findings.expect(answer.status == 401, f"{TOKEN_PATH} answers {answer.status} to an assertion that is {what}")
    return len(bad)


async def _check_proofs(findings: Findings, client: OAuthClient) -> int:
    nonce = (await client.ask(proof=client.proof("POST", TOKEN_PATH, ""))).headers.get("dpop-nonce", "")
    token = await client.token(client.proof("POST", TOKEN_PATH, nonce))
    digest = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
    once = client.proof("GET", READ_PATH, nonce, ath=digest)
    status = await client.read(token, scheme="DPoP", proof=once)
    findings.expect(status == 200, f"GET {READ_PATH} answers {status} to a bound token with its proof")
    bad = {
        "no proof": "",
        "a proof used before": once,
        "another's proof": client.proof("GET", READ_PATH, nonce, pair=Pair.make("thief"), ath=digest),
        "a proof for another method": client.proof("POST", READ_PATH, nonce, ath=digest),
        "a proof for another address": client.proof("GET", "/v1/account", nonce, ath=digest),
        "a proof for another token": client.proof("GET", READ_PATH, nonce, ath="AAAA"),
        "a proof with a nonce of its own": client.proof("GET", READ_PATH, "AAAA", ath=digest),
        "a proof of long ago": client.proof("GET", READ_PATH, nonce, ath=digest, iat=client.now_s - _YEARS_S),
    }
    for what, proof in bad.items():
        status = await client.read(token, scheme="DPoP", proof=proof)
        findings.expect(status == 401, f"GET {READ_PATH} answers {status} to a bound token with {what}")
    status = await client.read(token)
    findings.expect(status == 401, f"GET {READ_PATH} answers {status} to a bound token sent as if it weren't")
    return len(bad) + 1


async def _check_scopes(findings: Findings, client: OAuthClient) -> None:
    token = await client.token(scope="tenant:manage")
    status = await client.read(token)
    findings.expect(status == 200, f"GET {READ_PATH} answers {status} to a token that is confined to it")
    status = await client.read(token, "/v1/tenant/keys")
    findings.expect(status == 403, f"GET /v1/tenant/keys answers {status} to a token that is confined to others")


async def _check_revocation(findings: Findings, bench: Workbench, client: OAuthClient) -> None:
    token = await client.token()
    status = await client.read(token)
    findings.expect(status == 200, f"GET {READ_PATH} answers {status} to a token that is yet to be revoked")
    answer = await client.post(REVOCATION_PATH, token=token)
    findings.expect(answer.status == 200, f"{REVOCATION_PATH} answers {answer.status} to a token's own key")
    for endpoint in bench.endpoints:
        if endpoint.level == "tenant" and endpoint.method == "GET":
            status = await client.read(token, path_of(endpoint))
            findings.expect(status == 401, f"{endpoint} answers {status} to a revoked token")
    found = msgspec.json.decode((await client.post("/oauth/introspect", token=token)).body)
    findings.expect(found == {"active": False}, "a revoked token is said to be active")


def _confused(client: OAuthClient, claims: str) -> str:
    """Signed with the registered key as if it were a shared secret, for a reader who lets the client choose how."""
    text = f"{_header('HS256')}.{claims}"
    public = base64.urlsafe_b64decode(client.pair.public["x"] + "=")
    return f"{text}.{_encoded(hmac.digest(public, text.encode(), 'sha256'))}"


def _header(algorithm: str) -> str:
    return _encoded(msgspec.json.encode({"alg": algorithm, "kid": "prove"}))


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
