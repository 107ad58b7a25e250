"""What the tests make themselves: an OpenID provider that says whatever it is told to, and a name server."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import dns.flags
import dns.message
import dns.rrset
import httpx
import msgspec
from joserfc import jwt
from joserfc.jwk import Key, RSAKey

from strongroom.kernel.ids import new_uuid
from strongroom.people.keys import encode
from tests.fixtures.platform import Client, Platform
from tests.people.browser import Browser

CLIENT_ID = "strongroom"
CLIENT_SECRET = "a secret: with/odd+letters"
PATH = "/v1/account/single-sign-on"


class MadeProvider:
    """An OpenID provider. The next ID token is `token`; `keys` are those that it publishes."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.key = new_key("first")
        self.keys: list[Key] = [self.key]
        self.token = ""
        self.access_token = "an access token"
        self.userinfo: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.asked: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.authorizations: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection scope (ASGI 3)."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = dict(scope["headers"])
        self.asked.append(scope["path"])
        self.authorizations.append(headers.get(b"authorization", b"").decode())
        self.forms.append(dict(parse_qsl(body.decode())))
        content = msgspec.json.encode(self._answer(scope["path"]))
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]}
        )
        await send({"type": "http.response.body", "body": content})

    def _answer(self, path: str) -> dict[str, Any]:
        match path:
            case "/jwks":
                return {"keys": [key.as_dict(private=False) for key in self.keys]}
            case "/token":
                return {"access_token": self.access_token, "token_type": "Bearer", "id_token": self.token}
            case "/userinfo":
                return self.userinfo
            case _:
                return {
                    "issuer": self.issuer,
                    "authorization_endpoint": f"{self.issuer}/authorize",
                    "token_endpoint": f"{self.issuer}/token",
                    "jwks_uri": f"{self.issuer}/jwks",
                    "userinfo_endpoint": f"{self.issuer}/userinfo",
                    "authorization_response_iss_parameter_supported": True,
                    **self.metadata,
                }

    def sign(
        self, claims: Mapping[str, Any], *, key: Key | None = None, algorithm: str = "RS256", **header: Any
    ) -> str:
        """A token under a key of the provider's, or another."""
        key = key or self.key
        return jwt.encode({"alg": algorithm, "kid": key.kid, **header}, dict(claims), key, algorithms=[algorithm])


def new_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid}, private=True)


class NameServer(asyncio.DatagramProtocol):
    """Answers for TXT records over UDP; `records` maps names to what they say."""

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self.place = ""
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        host, port = self._transport.get_extra_info("sockname")
        self.place = f"{host}:{port}"

    def stop(self) -> None:
        """Stop listening."""
        assert self._transport is not None
        self._transport.close()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer one question."""
        question = dns.message.from_wire(data)
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.AA
        name = question.question[0].name
        for text in self.records.get(name.to_text(omit_final_dot=True), []):
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", f'"{text}"'))
        if not answer.answer:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        assert self._transport is not None
        self._transport.sendto(answer.to_wire(), addr)


@dataclass(kw_only=True)
class Scene:
    """An account, its provider and its domain."""

    platform: Platform
    account: Client
    provider: MadeProvider
    names: NameServer
    domain: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def start(self) -> str:
        """Where a sign-in begins."""
        return f"/portal/single-sign-on/{self.account.account_id}"

    def address(self, name: str = "ada") -> str:
        """An address of the account's domain."""
        return f"{name}@{self.domain}"

    def browser(self) -> Browser:
        """Somebody's browser."""
        return Browser(platform=self.platform)

    async def put(self, **changes: Any) -> httpx.Response:
        """Change the account's single sign-on."""
        self.settings = {**self.settings, **changes}
        return await self.account.put(PATH, self.settings)

    def claims(self, query: Mapping[str, str], **changes: Any) -> dict[str, Any]:
        """What the provider says of Ada, with changes; what is changed to None is left out."""
        now = int(time.time())
        claims = {
            "iss": self.provider.issuer,
            "sub": "ada-1",
            "aud": CLIENT_ID,
            "iat": now,
            "auth_time": now,
            "exp": now + 300,
            "nonce": query["nonce"],
            "email": self.address(),
            "email_verified": True,
            "name": "Ada Beispiel",
            "at_hash": encode(hashlib.sha256(self.provider.access_token.encode()).digest()[:16]),
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    async def leave(self, browser: Browser) -> dict[str, str]:
        """Begin a sign-in; what the provider is asked."""
        answer = await browser.send("GET", self.start)
        assert answer.status_code == 303, answer.text
        return one_each(answer.headers["location"])

    async def come_back(self, browser: Browser, query: Mapping[str, str], **changes: Any) -> httpx.Response:
        """Come back from the provider, with a code and what belongs to it, or changes of that."""
        answer = {"code": "a code", "state": query["state"], "iss": self.provider.issuer, **changes}
        parameters = {name: value for name, value in answer.items() if value is not None}
        return await browser.send("GET", f"{self.start}/callback", params=parameters)

    async def sign_in(self, browser: Browser, **claims: Any) -> httpx.Response:
        """There and back, with these claims."""
        query = await self.leave(browser)
        self.provider.token = self.provider.sign(self.claims(query, **claims))
        return await self.come_back(browser, query)


def one_each(url: str) -> dict[str, str]:
    """The parameters of a URL, each of which may stand there once."""
    found = parse_qs(urlsplit(url).query, strict_parsing=True)
    assert all(len(values) == 1 for values in found.values())
    return {name: values[0] for name, values in found.items()}


async def verified_domain(account: Client, names: NameServer, domain: str) -> str:
    """Claim a domain and verify it; its id."""
    claimed = await account.post(f"{PATH}/domains", {"domain": domain})
    assert claimed.status_code == 201, claimed.text
    body = claimed.json()
    names.records[body["recordName"]] = [body["recordValue"]]
    verified = await account.post(f"{PATH}/domains/{body['domainId']}/verify")
    assert (verified.status_code, verified.json()["status"]) == (200, "VERIFIED"), verified.text
    return str(body["domainId"])


async def new_scene(platform: Platform, provider: MadeProvider, names: NameServer, **changes: Any) -> Scene:
    """See `Scene`. New people come in by signing in, and get the role account-tenant-read."""
    account = await platform.new_account()
    scene = Scene(
        platform=platform,
        account=account,
        provider=provider,
        names=names,
        domain=f"{new_uuid().hex}.example",
        settings={
            "kind": "OIDC",
            "name": "The test's",
            "enabled": True,
            "createsUsers": True,
            "defaultRoles": ["account-tenant-read"],
            "oidc": {"issuer": provider.issuer, "clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET},
        },
    )
    await verified_domain(account, names, scene.domain)
    answer = await scene.put(**changes)
    assert answer.status_code == 200, answer.text
    return scene
