"""ACC-2: an account's own provider signs its people in, and nobody else does.

The provider is the check's own. SAML goes through browsers alone, so the running pages are tried with it, good answers
and bad ones; OpenID providers are asked over the network, which the installation is not opened to for a check, so ID
tokens are read by the same code in the check's process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from joserfc import jwt
from joserfc.jwk import Key, OctKey, RSAKey
from lxml import etree

from strongroom.kernel.errors import Unauthenticated
from strongroom.kernel.ids import new_uuid
from strongroom.outbound import Answer
from strongroom.people import Outside
from strongroom.people.keys import encode
from strongroom.people.single_sign_on.claims import Claims
from strongroom.people.single_sign_on.flow import addresses_of
from strongroom.people.single_sign_on.oidc import Begun, Client, new_begun
from strongroom.people.single_sign_on.providers import OidcSettings, Provider
from strongroom.trust.client import Caller
from strongroom.trust.identity_provider import (
    ROLE,
    ROUTE,
    Arrival,
    IdentityProvider,
    Said,
    identity_provider,
    verify_domain,
)
from strongroom.trust.stage import Stage, stage
from strongroom.trust.verdicts import Figure, Findings
from strongroom.trust.workbench import Workbench

_SIGNATURE: Final = "{http://www.w3.org/2000/09/xmldsig#}Signature"
_LAST_LETTERS: Final = re.compile(r"(NameID>)[^<]*")


@cache
def _stranger() -> IdentityProvider:
    """Somebody else's; made once, since keys take their time."""
    return IdentityProvider()


@cache
def _signing_keys() -> tuple[RSAKey, RSAKey]:
    """Those of the check's OpenID provider, and of a stranger."""
    first, second = (RSAKey.generate_key(2048, {"kid": "prove"}, private=True) for _ in range(2))
    return first, second


async def check_single_sign_on(bench: Workbench) -> Figure:
    """See the module."""
    findings = Findings()
    async with stage(bench) as scene:
        refused = await _check_saml(findings, bench, scene)
    tokens = await _check_tokens(findings, bench)
    return findings.figure(
        "a SAML provider set up by its account signed somebody in, with the role of their group, until they were "
        f"removed; {refused} bad answers refused (unsigned, altered, wrapped, expired, replayed, of another key, "
        f"audience, place, request, domain); one ID token taken, {tokens} bad ones refused"
    )


async def _check_saml(findings: Findings, bench: Workbench, scene: Stage) -> int:
    caller, account = await scene.account_caller(scene.here), scene.here.account_id
    domain = f"{new_uuid().hex}.example"
    await verify_domain(bench, account, domain)
    provider, stranger = identity_provider(), _stranger()
    await caller.done("PUT", ROUTE, provider.settings)
    where = addresses_of(bench.front_door, account)
    address = f"prove@{domain}"

    def said(request: str, **changes: Any) -> Said:
        plain = {"audience": where["metadata"], "recipient": where["answer"], "address": address}
        return Said(**{**plain, "request": request, "now": bench.clock.now(), **changes})

    bad: Mapping[str, Callable[[str], bytes]] = {
        "an unsigned assertion": lambda request: provider.assertion(said(request), is_signed=False),
        "an assertion of another key": lambda request: stranger.assertion(said(request)),
        "an altered assertion": lambda request: _altered(provider.assertion(said(request)), f"eve@{domain}"),
        "a wrapped assertion": lambda request: _wrapped(provider.assertion(said(request)), f"eve@{domain}"),
        "an assertion for another audience": lambda request: provider.assertion(
            said(request, audience="https://somebody.example")
        ),
        "an assertion for another place": lambda request: provider.assertion(
            said(request, recipient="https://somebody.example")
        ),
        "an assertion for another request": lambda request: provider.assertion(said("_" + new_uuid().hex)),
        "an expired assertion": lambda request: provider.assertion(said(request, lasts=timedelta(minutes=-5))),
        "an assertion about another domain": lambda request: provider.assertion(
            said(request, address="prove@somebody.example")
        ),
    }
    for what, make in bad.items():
        visitor = Arrival(bench, account)
        request = await visitor.leave()
        findings.expect(not await visitor.arrive(request, make(request)), f"{what} signs somebody in")
    person = Arrival(bench, account)
    request = await person.leave()
    good = provider.assertion(said(request))
    if findings.expect(await person.arrive(request, good), "a good assertion signs nobody in"):
        await _check_person(findings, caller, person, address)
    again = Arrival(bench, account)
    await again.leave()
    findings.expect(not await again.arrive(request, good), "a replayed assertion signs somebody in")
    return len(bad) + 1


async def _check_person(findings: Findings, caller: Caller, person: Arrival, address: str) -> None:
    """Who came in has the role of their group, is there as somebody of the provider's, and is out once removed."""
    users = (await caller.done("GET", "/v1/account/users"))["results"]
    found = [user for user in users if user["emailAddress"] == address]
    fits = [(user["roles"], user["isSsoUser"]) for user in found] == [([ROLE], True)]
    findings.expect(fits, "who comes in by the provider doesn't have the role of their group")
    for user in found:
        await caller.done("DELETE", f"/v1/account/users/{user['userId']}")
    findings.expect(not await person.is_in(), "the session of somebody removed goes on")


def _altered(assertion: bytes, address: str) -> bytes:
    return _LAST_LETTERS.sub(rf"\g<1>{address}", assertion.decode(), count=1).encode()


def _wrapped(assertion: bytes, address: str) -> bytes:
    """The signed one, behind an unsigned one of somebody else."""
    evil = etree.fromstring(_altered(assertion, address))
    for signature in evil.findall(_SIGNATURE):
        evil.remove(signature)
    evil.set("ID", "_" + new_uuid().hex)
    return etree.tostring(evil) + assertion


class _Published(Outside):
    """A provider's answers, as they would come over the network."""

    def __init__(self, issuer: str, key: RSAKey) -> None:
        super().__init__()
        self.token = ""
        self._answers = {
            "/.well-known/openid-configuration": {
                "issuer": issuer,
                **{name: f"{issuer}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")},
            },
            "/jwks_uri": {"keys": [key.as_dict(private=False)]},
        }

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        said = self._answers.get(urlsplit(url).path, {"access_token": "", "id_token": self.token})
        return Answer(status=200, headers={}, body=msgspec.json.encode(said))


async def _check_tokens(findings: Findings, bench: Workbench) -> int:
    issuer, secret = "https://prove.example", new_uuid().hex
    key, strange = _signing_keys()
    outside = _Published(issuer, key)
    settings = OidcSettings(issuer=issuer, client_id="prove", client_secret=secret)
    provider = Provider(name="prove", oidc=settings, version_id=new_uuid())
    client = Client(provider=provider, redirect_uri="https://prove.example/back", outside=outside, clock=bench.clock)
    begun, now = new_begun(), int(bench.clock.now().timestamp())
    claims = {"iss": issuer, "sub": "1", "aud": "prove", "iat": now, "exp": now + 300, "nonce": begun.nonce}

    def signed(signer: Key = key, algorithm: str = "RS256", **changes: Any) -> str:
        header = {"alg": algorithm, "kid": "prove"}
        return jwt.encode(header, {**claims, **changes}, signer, algorithms=[algorithm])

    bare = encode(msgspec.json.encode({"alg": "none"})) + "." + encode(msgspec.json.encode(claims)) + "."
    bad = {
        "an unsigned ID token": bare,
        "an ID token of another key": signed(strange),
        "an ID token under the client's secret": signed(OctKey.import_key(secret), "HS256"),
        "an ID token for somebody else": signed(aud="somebody"),
        "an ID token of another issuer": signed(iss="https://somebody.example"),
        "an expired ID token": signed(iat=now - 500, exp=now - 120),
        "an ID token for another request": signed(nonce="another"),
    }
    for what, token in bad.items():
        outside.token = token
        findings.expect(await _read(client, begun) is None, f"{what} is taken")
    outside.token = signed()
    found = await _read(client, begun)
    findings.expect(found is not None and found.subject == "1", "a good ID token is refused")
    return len(bad)


async def _read(client: Client, begun: Begun) -> Claims | None:
    try:
        return await client.read_answer(begun, {"code": "a code", "state": str(UUID(int=0))})
    except Unauthenticated:
        return None
