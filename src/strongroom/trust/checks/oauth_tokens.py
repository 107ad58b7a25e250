"""ACC-6 for OAuth clients: only a good assertion gets a token, only its holder uses a bound one, none outlives its end.

Part of `strongroom.trust.checks.tokens`. The key pairs are made for the check alone; their private halves are in its
memory and nowhere else.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from joserfc import jwt
from joserfc.jwk import OKPKey

from strongroom.identity.assertions import ASSERTION_TYPE
from strongroom.kernel.ids import new_uuid
from strongroom.kernel.secret import Secret
from strongroom.outbound import Answer
from strongroom.trust.client import Caller
from strongroom.trust.routes import path_of
from strongroom.trust.stage import Stage
from strongroom.trust.verdicts import Findings
from strongroom.trust.workbench import Workbench

TOKEN: Final = "/oauth/token"  # noqa: S105  a path
_READ: Final = "/v1/tenant"
_ALGORITHM: Final = "Ed25519"
_YEARS_S: Final = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A key pair. Claims and header members that are None are left out of what it signs."""

    key: OKPKey
    name: str

    @classmethod
    def make(cls, name: str) -> _Pair:
        return cls(key=OKPKey.generate_key("Ed25519"), name=name)

    @property
    def public(self) -> dict[str, Any]:
        return {name: value for name, value in self.key.as_dict(private=False).items() if name in {"kty", "crv", "x"}}

    def sign(self, claims: Mapping[str, Any], header: Mapping[str, Any]) -> str:
        given = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": _ALGORITHM, **header}, given, self.key, algorithms=[_ALGORITHM])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """An OAuth client at the stage: `caller` speaks for its tenant, `issuer` is who assertions are for."""

    stage: Stage
    caller: Caller
    issuer: str
    client_id: str
    pair: _Pair
    holder: _Pair

    @property
    def now_s(self) -> int:
        return int(self.stage.client.clock.now().timestamp())

    def assertion(self, pair: _Pair | None = None, kid: str = "", **claims: Any) -> str:
        good = {
            "iss": self.client_id, "sub": self.client_id, "aud": self.issuer, "jti": str(new_uuid()),
            "iat": self.now_s, "exp": self.now_s + 50,
        }  # fmt: skip
        signs = pair or self.pair
        return signs.sign({**good, **claims}, {"kid": kid or self.pair.name})

    def proof(self, method: str, path: str, nonce: str, *, pair: _Pair | None = None, **claims: Any) -> str:
        signs = pair or self.holder
        good = {"jti": str(new_uuid()), "htm": method, "htu": self.issuer + path, "iat": self.now_s, "nonce": nonce}
        return signs.sign({**good, **claims}, {"typ": "dpop+jwt", "jwk": signs.public})

    async def post(self, path: str, assertion: str = "", proof: str = "", **parameters: str) -> Answer:
        """A form to one of the endpoints; with a good assertion unless told otherwise."""
        form = {
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion or self.assertion(),
            **parameters,
        }
        headers = {"content-type": "application/x-www-form-urlencoded"} | ({"dpop": proof} if proof else {})
        return await self.stage.client.send("POST", path, headers=headers, body=urlencode(form).encode())

    async def ask(self, assertion: str = "", proof: str = "", **parameters: str) -> Answer:
        return await self.post(TOKEN, assertion, proof, grant_type="client_credentials", **parameters)

    async def token(self, proof: str = "", **parameters: str) -> str:
        answer = await self.ask(proof=proof, **parameters)
        return str(msgspec.json.decode(answer.body).get("access_token", ""))

    async def read(self, token: str, path: str = _READ, *, scheme: str = "Bearer", proof: str = "") -> int:
        """The status of a GET with a token."""
        more = {"authorization": f"{scheme} {token}"} | ({"dpop": proof} if proof else {})
        return (await self.caller.send("GET", path, **more)).status


async def check_oauth(findings: Findings, bench: Workbench, stage: Stage) -> int:
    """Try the new ways in; returns how many kinds of bad credential were refused."""
    metadata = await stage.client.send("GET", "/.well-known/oauth-authorization-server")
    pair, admin = _Pair.make("prove"), await stage.caller(stage.here)
    made = await admin.done(
        "POST",
        "/v1/tenant/keys",
        {"name": "prove", "roles": ["tenant-admin"], "jwks": {"keys": [{**pair.public, "kid": pair.name}]}},
    )
    scene = _Scene(
        stage=stage,
        caller=Caller(stage.client, admin.key, Secret("")),
        issuer=msgspec.json.decode(metadata.body)["issuer"],
        client_id=made["publicKey"],
        pair=pair,
        holder=_Pair.make("holder"),
    )
    kinds = await _check_assertions(findings, scene)
    kinds += await _check_proofs(findings, scene)
    await _check_scopes(findings, scene)
    await _check_revocation(findings, bench, scene)
    await admin.done("DELETE", f"/v1/tenant/keys/{scene.client_id}")
    answer = await scene.ask()
    findings.expect(answer.status == 401, f"{TOKEN} answers {answer.status} to a deleted key")
    return kinds


async def _check_assertions(findings: Findings, scene: _Scene) -> int:
    once = scene.assertion()
    first = await scene.ask(once)
    findings.expect(first.status == 200, f"{TOKEN} answers {first.status} to a good assertion")
    stranger = str(scene.stage.other.key.public_key)
    bad = {
        "used before": once,
        "of another key": scene.assertion(_Pair.make("prove")),
        "for others": scene.assertion(aud="https://elsewhere.test"),
        "for nobody": scene.assertion(aud=None),
        "expired": scene.assertion(exp=scene.now_s - 60, iat=None),
        "good for years": scene.assertion(exp=scene.now_s + _YEARS_S),
        "without an end": scene.assertion(exp=None),
        "without an id": scene.assertion(jti=None),
        "without an issuer": scene.assertion(iss=None),
        "about somebody else": scene.assertion(iss=stranger, sub=stranger),
        "under an unknown name": scene.assertion(kid="unknown"),
        "unsigned": f"{_header('none')}.{scene.assertion().split('.')[1]}.",
        "signed with the public key": _confused(scene, scene.assertion().split(".")[1]),
        "damaged": f"{scene.assertion()[:-8]}AAAAAAAA",
    }
    for what, assertion in bad.items():
        answer = await scene.ask(assertion)
        findings.expect(answer.status == 401, f"{TOKEN} answers {answer.status} to an assertion that is {what}")
    return len(bad)


async def _check_proofs(findings: Findings, scene: _Scene) -> int:
    nonce = (await scene.ask(proof=scene.proof("POST", TOKEN, ""))).headers.get("dpop-nonce", "")
    token = await scene.token(scene.proof("POST", TOKEN, nonce))
    digest = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
    once = scene.proof("GET", _READ, nonce, ath=digest)
    status = await scene.read(token, scheme="DPoP", proof=once)
    findings.expect(status == 200, f"GET {_READ} answers {status} to a bound token with its proof")
    bad = {
        "no proof": "",
        "a proof used before": once,
        "another's proof": scene.proof("GET", _READ, nonce, pair=_Pair.make("thief"), ath=digest),
        "a proof for another method": scene.proof("POST", _READ, nonce, ath=digest),
        "a proof for another address": scene.proof("GET", "/v1/account", nonce, ath=digest),
        "a proof for another token": scene.proof("GET", _READ, nonce, ath="AAAA"),
        "a proof with a nonce of its own": scene.proof("GET", _READ, "AAAA", ath=digest),
        "a proof of long ago": scene.proof("GET", _READ, nonce, ath=digest, iat=scene.now_s - _YEARS_S),
    }
    for what, proof in bad.items():
        status = await scene.read(token, scheme="DPoP", proof=proof)
        findings.expect(status == 401, f"GET {_READ} answers {status} to a bound token with {what}")
    status = await scene.read(token)
    findings.expect(status == 401, f"GET {_READ} answers {status} to a bound token sent as if it weren't")
    return len(bad) + 1


async def _check_scopes(findings: Findings, scene: _Scene) -> None:
    token = await scene.token(scope="tenant:manage")
    status = await scene.read(token)
    findings.expect(status == 200, f"GET {_READ} answers {status} to a token that is confined to it")
    status = await scene.read(token, "/v1/tenant/keys")
    findings.expect(status == 403, f"GET /v1/tenant/keys answers {status} to a token that is confined to others")


async def _check_revocation(findings: Findings, bench: Workbench, scene: _Scene) -> None:
    token = await scene.token()
    status = await scene.read(token)
    findings.expect(status == 200, f"GET {_READ} answers {status} to a token that is yet to be revoked")
    answer = await scene.post("/oauth/revoke", token=token)
    findings.expect(answer.status == 200, f"/oauth/revoke answers {answer.status} to a token's own key")
    for endpoint in bench.endpoints:
        if endpoint.level == "tenant" and endpoint.method == "GET":
            status = await scene.read(token, path_of(endpoint))
            findings.expect(status == 401, f"{endpoint} answers {status} to a revoked token")
    found = msgspec.json.decode((await scene.post("/oauth/introspect", token=token)).body)
    findings.expect(found == {"active": False}, "a revoked token is said to be active")


def _confused(scene: _Scene, claims: str) -> str:
    """Signed with the registered key as if it were a shared secret, for a reader who lets the client choose how."""
    text = f"{_header('HS256')}.{claims}"
    public = base64.urlsafe_b64decode(scene.pair.public["x"] + "=")
    return f"{text}.{_encoded(hmac.digest(public, text.encode(), 'sha256'))}"


def _header(algorithm: str) -> str:
    return _encoded(msgspec.json.encode({"alg": algorithm, "kid": "prove"}))


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
