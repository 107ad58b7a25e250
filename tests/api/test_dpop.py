"""Tokens bound to a key of their holder's: proofs with every request (RFC 9449)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from strongroom.kernel.clock import ManualClock
from tests.fixtures.oauth import GRANT, KeyPair, OAuthClient, register
from tests.fixtures.platform import Client, Platform

PATH = "/v1/tenant"
HOLDER = KeyPair.make(key_id="holder")
STRANGER = KeyPair.make(key_id="stranger")


def codes(answer: httpx.Response) -> list[str]:
    return [error["errorCode"] for error in answer.json()["errors"]]


@pytest.fixture(scope="module")
async def shared(platform: Platform) -> OAuthClient:
    """A client whose tokens are only read with."""
    return await register(await platform.new_tenant(), "tenant-admin")


@pytest.fixture(scope="module")
async def token(shared: OAuthClient) -> str:
    return await shared.bound_token(HOLDER)


@pytest.fixture(scope="module")
async def nonce(shared: OAuthClient) -> str:
    return await shared.nonce(HOLDER)


async def get(
    client: OAuthClient, token: str, proof: str | None, *, scheme: str = "DPoP", at: httpx.AsyncClient | None = None
) -> httpx.Response:
    headers = {**client.at.headers, "Authorization": f"{scheme} {token}"}
    if proof is not None:
        headers["DPoP"] = proof
    return await (at or client.at.http).get(PATH, headers=headers)


@pytest.mark.parametrize("algorithm", ["ES256", "PS256", "EdDSA"])
async def test_a_bound_token_works_with_a_proof_for_each_request(shared: OAuthClient, algorithm: str) -> None:
    holder = KeyPair.make(algorithm)
    token = await shared.bound_token(holder)
    nonce = await shared.nonce(holder)
    for scheme in ("DPoP", "dpop"):
        proof = holder.proof("GET", shared.issuer + PATH, nonce=nonce, token=token)
        assert (await get(shared, token, proof, scheme=scheme)).status_code == 200
    found = (await shared.post("/oauth/introspect", token=token)).json()
    assert (found["token_type"], found["cnf"]) == ("DPoP", {"jkt": holder.thumbprint})


async def test_who_comes_without_a_nonce_is_given_one(shared: OAuthClient, token: str) -> None:
    answer = await get(shared, token, HOLDER.proof("GET", shared.issuer + PATH, token=token))
    assert (answer.status_code, codes(answer)) == (401, ["DPOP_NONCE_REQUIRED"])
    assert answer.headers["www-authenticate"].startswith('DPoP error="use_dpop_nonce"')
    again = HOLDER.proof("GET", shared.issuer + PATH, token=token, nonce=answer.headers["dpop-nonce"])
    assert (await get(shared, token, again)).status_code == 200


NOT_GOOD: dict[str, dict[str, Any]] = {
    "for another method": {"htm": "POST"},
    "for another address": {"htu": "https://localhost:8443/v1/account"},
    "for another host": {"htu": "https://elsewhere.test/v1/tenant"},
    "for another port": {"htu": "https://localhost:8444/v1/tenant"},
    "without TLS": {"htu": "http://localhost:8443/v1/tenant"},
    "with a query": {"htu": "https://localhost:8443/v1/tenant?x=1"},
    "with no address": {"htu": None},
    "with an address that is none": {"htu": "https://[/"},
    "with no method": {"htm": None},
    "made long ago": {"iat": 1_700_000_000},
    "made in the future": {"iat": 4_000_000_000},
    "made at no time": {"iat": None},
    "made at an absurd time": {"iat": 10**400},
    "without an id": {"jti": None},
    "with an id that is too long": {"jti": "x" * 129},
    "for another token": {"ath": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"},
    "for no token": {"ath": None},
    "of another type": {"header": {"typ": "JWT"}},
    "without a key": {"header": {"jwk": None}},
    "with another's key": {"header": {"jwk": STRANGER.bare}},
    "with a private key": {"header": {"jwk": HOLDER.key.as_dict(private=True)}},
    "with a header that must be understood": {"header": {"crit": ["x"], "x": "1"}},
}


@pytest.mark.parametrize("change", NOT_GOOD.values(), ids=NOT_GOOD)
async def test_a_proof_that_is_not_just_so_is_refused(
    shared: OAuthClient, token: str, nonce: str, change: dict[str, Any]
) -> None:
    claims: dict[str, Any] = {"nonce": nonce, "token": token, **change}
    answer = await get(shared, token, HOLDER.proof("GET", shared.issuer + PATH, **claims))
    assert (answer.status_code, codes(answer)) == (401, ["DPOP_PROOF_REFUSED"])
    assert answer.headers["www-authenticate"].startswith('DPoP error="invalid_dpop_proof"')


async def test_only_the_holder_s_key_proves(shared: OAuthClient, token: str, nonce: str) -> None:
    good = HOLDER.proof("GET", shared.issuer + PATH, nonce=nonce, token=token)
    header, claims, _ = good.split(".")
    for proof in (
        STRANGER.proof("GET", shared.issuer + PATH, nonce=nonce, token=token),
        f"{header}.{claims}.AAAA",
        f"eyJhbGciOiJub25lIn0.{claims}.",
        "x",
        "",
        None,
    ):
        assert codes(await get(shared, token, proof)) == ["DPOP_PROOF_REFUSED"]
    assert (await get(shared, token, good)).status_code == 200


async def test_a_proof_counts_once_here_and_elsewhere(
    platform: Platform, shared: OAuthClient, token: str, nonce: str
) -> None:
    proof = HOLDER.proof("GET", shared.issuer + PATH, nonce=nonce, token=token)
    assert (await get(shared, token, proof)).status_code == 200
    async with platform.another_process() as other:
        for http in (shared.at.http, other.http):
            answer = await get(shared, token, proof, at=http)
            assert (answer.status_code, codes(answer)) == (401, ["DPOP_PROOF_REPLAYED"])


@pytest.mark.parametrize("nonce", ["", "x", "AAAAAGkh1IAAAAAAAAAAAAAAAAAAAAAA", "%%%", "é"])
async def test_a_nonce_that_is_not_ours_is_refused(shared: OAuthClient, token: str, nonce: str) -> None:
    answer = await get(shared, token, HOLDER.proof("GET", shared.issuer + PATH, nonce=nonce, token=token))
    assert codes(answer) == ["DPOP_NONCE_REQUIRED"]


async def test_a_nonce_is_good_for_five_minutes_in_every_process(
    platform: Platform, shared: OAuthClient, nonce: str
) -> None:
    token = await shared.bound_token(HOLDER)
    for minutes, code in ((4, None), (6, "DPOP_NONCE_REQUIRED")):
        clock = ManualClock(datetime.now(UTC) + timedelta(minutes=minutes))
        async with platform.another_process(clock) as later:
            made = int(clock.now().timestamp())
            proof = HOLDER.proof("GET", shared.issuer + PATH, nonce=nonce, token=token, iat=made)
            answer = await get(shared, token, proof, at=later.http)
            assert (codes(answer) if code else answer.status_code) == ([code] if code else 200)


async def test_a_bound_token_is_no_bearer_token_and_the_other_way_round(
    shared: OAuthClient, token: str, nonce: str
) -> None:
    stolen = await get(shared, token, None, scheme="Bearer")
    assert (stolen.status_code, codes(stolen)) == (401, ["TOKEN_IS_BOUND"])
    assert stolen.headers["www-authenticate"].startswith('DPoP error="invalid_token"')
    free = await shared.token()
    proof = HOLDER.proof("GET", shared.issuer + PATH, nonce=nonce, token=free)
    assert codes(await get(shared, free, proof)) == ["TOKEN_IS_NOT_BOUND"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"htm": "GET"}, "invalid_dpop_proof"),
        ({"htu": "https://localhost:8443/v1/tenant"}, "invalid_dpop_proof"),
        ({"header": {"typ": "JWT"}}, "invalid_dpop_proof"),
        ({"nonce": "x"}, "use_dpop_nonce"),
    ],
)
async def test_the_token_endpoint_checks_proofs_as_well(
    shared: OAuthClient, nonce: str, change: dict[str, Any], error: str
) -> None:
    proof = HOLDER.proof("POST", f"{shared.issuer}/oauth/token", **{"nonce": nonce, **change})
    answer = await shared.ask(proof=proof)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_a_proof_gets_one_token(shared: OAuthClient, nonce: str) -> None:
    proof = HOLDER.proof("POST", f"{shared.issuer}/oauth/token", nonce=nonce)
    assert (await shared.ask(proof=proof)).status_code == 200
    again = await shared.ask(proof=proof)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_dpop_proof")


async def test_two_proofs_are_one_too_many(shared: OAuthClient) -> None:
    headers = [("DPoP", "a"), ("DPoP", "b")]
    answer = await shared.at.http.post("/oauth/token", data=shared.form(**GRANT), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "HEADER_SENT_TWICE")


async def test_a_bound_token_of_an_account_works_too(account: Client) -> None:
    oauth = await register(account, "account-admin")
    token = await oauth.bound_token(HOLDER)
    proof = HOLDER.proof("GET", f"{oauth.issuer}/v1/account", nonce=await oauth.nonce(HOLDER), token=token)
    headers = {**oauth.at.headers, "Authorization": f"DPoP {token}", "DPoP": proof}
    assert (await account.http.get("/v1/account", headers=headers)).status_code == 200
