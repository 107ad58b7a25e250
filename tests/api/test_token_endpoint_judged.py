"""Our token endpoint beside npm's `oidc-provider` in its FAPI 2.0 profile: both get the same bad requests.

Both refuse each, with the same OAuth error code; where the codes differ it is said why.
"""

from __future__ import annotations

import base64
import hmac
import os
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.fixtures.oauth import ASSERTION_TYPE, GRANT, KeyPair, register
from tests.fixtures.oidc_provider import oidc_provider
from tests.fixtures.platform import Platform

PAIR, STRANGER, HOLDER = KeyPair.make(), KeyPair.make(), KeyPair.make(key_id="holder")
ALG_NONE, ALG_HS256 = "eyJhbGciOiJub25lIn0", "eyJhbGciOiJIUzI1NiJ9"
RSA_CLIENT, RSA = str(uuid.uuid4()), KeyPair.make("PS256", "rsa")


@dataclass(kw_only=True)
class Side:
    """One of the two: where it is, and the clients that it knows (one that signs with ES256, one with PS256)."""

    issuer: str
    token_url: str
    client_id: str
    rsa_client_id: str
    http: httpx.AsyncClient
    nonce: str = field(default="", repr=False)

    def assertion(self, pair: KeyPair = PAIR, **claims: Any) -> str:
        client_id = self.rsa_client_id if pair is RSA else self.client_id
        return pair.assertion(client_id, claims.pop("aud", self.issuer), **claims)

    async def ask(self, request: Request) -> tuple[int, str]:
        """The answer's status and error code."""
        headers = {} if request.proof is None else {"DPoP": request.proof}
        form = {**GRANT, "client_assertion_type": ASSERTION_TYPE, **request.form}
        answer = await self.http.post(
            self.token_url, data={name: value for name, value in form.items() if value}, headers=headers
        )
        return answer.status_code, answer.json().get("error", "")


@dataclass(frozen=True, kw_only=True)
class Request:
    form: Mapping[str, str]
    proof: str | None = None


Make = Callable[[Side], Request]


def with_claims(pair: KeyPair = PAIR, **claims: Any) -> Make:
    """A request whose assertion has these claims instead of good ones."""
    return lambda side: Request(form={"client_assertion": side.assertion(pair, **claims)})


def with_assertion(make: Callable[[Side], str]) -> Make:
    return lambda side: Request(form={"client_assertion": make(side)})


def with_form(**form: str) -> Make:
    """A good request but for these parameters; an empty one is left out."""
    return lambda side: Request(form={"client_assertion": side.assertion(), **form})


def with_proof(**changes: Any) -> Make:
    """A good request with a DPoP proof that isn't."""

    def make(side: Side) -> Request:
        pair = changes.get("pair", HOLDER)
        claims = {name: value for name, value in changes.items() if name not in {"pair", "method", "address"}}
        proof = pair.proof(
            changes.get("method", "POST"),
            changes.get("address", side.token_url),
            **{"nonce": side.nonce, **claims},
        )
        return Request(form={"client_assertion": side.assertion()}, proof=proof)

    return make


def unsigned(side: Side) -> str:
    return f"{ALG_NONE}.{side.assertion().split('.')[1]}."


def confused(side: Side) -> str:
    """Signed with the registered public key as if it were a shared secret."""
    text = f"{ALG_HS256}.{side.assertion(RSA).split('.')[1]}"
    return f"{text}.{encoded(hmac.digest(RSA.key.as_pem(private=False), text.encode(), 'sha256'))}"


def damaged(side: Side) -> str:
    head, claims, signature = side.assertion().split(".")
    return f"{head}.{claims}.{'A' * len(signature)}"


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


NOBODY = str(uuid.uuid4())
BAD: dict[str, Make] = {
    "aud is somebody else": with_claims(aud="https://elsewhere.test"),
    "aud is the token endpoint": lambda side: with_claims(aud=side.token_url)(side),
    "aud is a list": lambda side: with_claims(aud=[side.issuer])(side),
    "no aud": with_claims(aud=None),
    "expired": with_claims(exp=1_700_000_000, iat=None),
    "no exp": with_claims(exp=None),
    "exp is a text": with_claims(exp="soon"),
    "nbf in the future": with_claims(nbf=4_000_000_000),
    "iat in the future": with_claims(iat=4_000_000_000),
    "no iss": with_claims(iss=None),
    "iss is another": with_claims(iss=NOBODY),
    "no sub": with_claims(sub=None),
    "sub is another": with_claims(sub=NOBODY),
    "an unknown client": with_claims(iss=NOBODY, sub=NOBODY),
    "no jti": with_claims(jti=None),
    "alg none": with_assertion(unsigned),
    "HS256 with the public key": with_assertion(confused),
    "RS256 with the registered RSA key": with_claims(RSA, header={"alg": "RS256"}),
    "another's key": lambda side: Request(form={"client_assertion": STRANGER.assertion(side.client_id, side.issuer)}),
    "an unknown kid": with_claims(header={"kid": "two"}),
    "a damaged signature": with_assertion(damaged),
    "a header that must be understood": with_claims(header={"crit": ["x"], "x": "1"}),
    "garbage instead of an assertion": with_form(client_assertion="x"),
    "no assertion": with_form(client_assertion="", client_assertion_type=""),
    "no assertion type": with_form(client_assertion_type=""),
    "another assertion type": with_form(client_assertion_type="urn:example:x"),
    "client_id is another": with_form(client_id=NOBODY),
    "no grant type": with_form(grant_type=""),
    "an unknown grant type": with_form(grant_type="urn:example:x"),
    "an unknown scope": with_form(scope="everything"),
    "a proof for another method": with_proof(method="GET"),
    "a proof for another address": with_proof(address="https://elsewhere.test/token"),
    "a proof of another type": with_proof(header={"typ": "JWT"}),
    "a proof without its key": with_proof(header={"jwk": None}),
    "a proof with another key": with_proof(header={"jwk": STRANGER.bare}),
    "a proof with a private key": with_proof(header={"jwk": HOLDER.key.as_dict(private=True)}),
    "a proof without a time": with_proof(iat=None),
    "a proof without an id": with_proof(jti=None),
    "a proof without a nonce": with_proof(nonce=None),
    "a proof with a nonce of somebody's": with_proof(nonce="x"),
    "garbage instead of a proof": lambda side: Request(form={"client_assertion": side.assertion()}, proof="x"),
}
DIFFERENT: dict[str, tuple[str, str, str]] = {
    "garbage instead of an assertion": (
        "invalid_request",
        "invalid_client",
        "an assertion that isn't valid for whatever reason is invalid_client (RFC 7521 section 4.2.1)",
    ),
    "no assertion": (
        "invalid_request",
        "invalid_client",
        "a request without client authentication is invalid_client (RFC 6749 section 5.2)",
    ),
    "iat in the future": (
        "",
        "invalid_client",
        "assertions from more than a minute ahead are to be refused (FAPI 2.0 section 5.3.2.1, clock skew)",
    ),
    "an unknown scope": (
        "",
        "invalid_scope",
        "they leave out what they don't know, as RFC 6749 section 3.3 allows; whoever asks for more than there is "
        "should hear of it",
    ),
}
"""Case → their code (empty: they grant it), ours, and why ours."""


@pytest.fixture(scope="module")
async def ours(platform: Platform) -> Side:
    oauth = await register(await platform.new_tenant(), "tenant-admin", pair=PAIR)
    rsa = await register(await platform.new_tenant(), "tenant-admin", pair=RSA)
    return Side(
        issuer=oauth.issuer,
        token_url=f"{oauth.issuer}/oauth/token",
        client_id=oauth.client_id,
        rsa_client_id=rsa.client_id,
        http=httpx.AsyncClient(transport=httpx.ASGITransport(platform.app.application), base_url=oauth.issuer),
        nonce=await oauth.nonce(HOLDER),
    )


@pytest.fixture(scope="module")
async def theirs() -> AsyncIterator[Side]:
    client_id = str(uuid.uuid4())
    with oidc_provider(configuration(client_id)) as issuer:
        async with httpx.AsyncClient(trust_env=False) as http:
            side = Side(
                issuer=issuer, token_url=f"{issuer}/token", client_id=client_id, rsa_client_id=RSA_CLIENT, http=http
            )
            form = {**GRANT, "client_assertion_type": ASSERTION_TYPE, "client_assertion": side.assertion()}
            headers = {"DPoP": HOLDER.proof("POST", side.token_url)}
            answer = await http.post(side.token_url, data=form, headers=headers)
            side.nonce = answer.headers["dpop-nonce"]
            yield side


def configuration(client_id: str) -> dict[str, Any]:
    common = {
        "redirect_uris": [],
        "response_types": [],
        "grant_types": ["client_credentials"],
        "token_endpoint_auth_method": "private_key_jwt",
    }
    return {
        "clients": [
            {**common, "client_id": client_id, "jwks": {"keys": [PAIR.public]},
             "token_endpoint_auth_signing_alg": "ES256"},
            {**common, "client_id": RSA_CLIENT, "jwks": {"keys": [RSA.public]},
             "token_endpoint_auth_signing_alg": "PS256"},
        ],
        "scopes": ["transactions:read"],
        "clientAuthMethods": ["private_key_jwt"],
        "enabledJWA": {
            "clientAuthSigningAlgValues": ["ES256", "PS256", "EdDSA"],
            "dPoPSigningAlgValues": ["ES256", "PS256", "EdDSA"],
        },
        "features": {
            "clientCredentials": {"enabled": True},
            "dPoP": {"enabled": True, "nonceSecret": os.urandom(32).hex()},
            "fapi": {"enabled": True, "profile": "2.0"},
            "devInteractions": {"enabled": False},
        },
    }  # fmt: skip


async def test_both_grant_good_requests(ours: Side, theirs: Side) -> None:
    for side in (ours, theirs):
        bound = with_proof()(side)
        for request in (with_claims()(side), with_claims(RSA)(side), bound, with_form(scope="transactions:read")(side)):
            assert (await side.ask(request))[0] == 200


@pytest.mark.parametrize("case", BAD)
async def test_both_refuse_with_the_same_code(ours: Side, theirs: Side, case: str) -> None:
    (status_ours, our_code), (status_theirs, their_code) = [await side.ask(BAD[case](side)) for side in (ours, theirs)]
    assert status_ours in {400, 401}
    if case in DIFFERENT:
        assert (their_code, our_code) == DIFFERENT[case][:2]
    else:
        assert (status_ours, our_code) == (status_theirs, their_code)


async def test_both_refuse_what_was_used_before(ours: Side, theirs: Side) -> None:
    for side in (ours, theirs):
        once = with_claims()(side)
        assert [await side.ask(once), await side.ask(once)] == [(200, ""), (401, "invalid_client")]
        proof = with_proof()(side).proof
        first, again = (Request(form=with_claims()(side).form, proof=proof) for _ in range(2))
        assert await side.ask(first) == (200, "")
        # Theirs is the grant's error; RFC 9449 section 5 has one of its own for proofs.
        assert await side.ask(again) == (400, "invalid_dpop_proof" if side is ours else "invalid_grant")
