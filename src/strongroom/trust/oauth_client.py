"""A program that signs in by OAuth, for checks.

Its key pairs are made for the check alone; their private halves are in its memory and nowhere else.
"""

from __future__ import annotations

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
from strongroom.trust.stage import Stage

TOKEN_PATH: Final = "/oauth/token"  # noqa: S105  a path
REVOCATION_PATH: Final = "/oauth/revoke"
READ_PATH: Final = "/v1/tenant"
"""Where a good token is let in."""
_ALGORITHM: Final = "Ed25519"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A key pair on Ed25519 (RFC 8037), and what it is called in a key set."""

    key: OKPKey
    name: str

    @classmethod
    def make(cls, name: str) -> Pair:
        """A new one."""
        return cls(key=OKPKey.generate_key(_ALGORITHM), name=name)

    @property
    def public(self) -> dict[str, Any]:
        """The public half, as a JSON Web Key."""
        return {name: value for name, value in self.key.as_dict(private=False).items() if name in {"kty", "crv", "x"}}

    def sign(self, claims: Mapping[str, Any], header: Mapping[str, Any]) -> str:
        """A JSON Web Token that says this; claims that are None are left out."""
        given = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": _ALGORITHM, **header}, given, self.key, algorithms=[_ALGORITHM])


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """An OAuth client at the stage: `caller` speaks for its tenant, `issuer` is who assertions are for.

    `pair` is registered and signs assertions; `holder` is what tokens are bound to.
    """

    stage: Stage
    caller: Caller
    issuer: str
    client_id: str
    pair: Pair
    holder: Pair

    @property
    def now_s(self) -> int:
        """The time in seconds since 1970."""
        return int(self.stage.client.clock.now().timestamp())

    def assertion(self, pair: Pair | None = None, kid: str = "", **claims: Any) -> str:
        """One that is good (RFC 7523 section 3), unless told otherwise."""
        good = {
            "iss": self.client_id, "sub": self.client_id, "aud": self.issuer, "jti": str(new_uuid()),
            "iat": self.now_s, "exp": self.now_s + 50,
        }  # fmt: skip
        signs = pair or self.pair
        return signs.sign({**good, **claims}, {"kid": kid or self.pair.name})

    def proof(self, method: str, path: str, nonce: str, *, pair: Pair | None = None, **claims: Any) -> str:
        """One for a request (RFC 9449 section 4.2) that is good, unless told otherwise."""
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
        """Ask for a token."""
        return await self.post(TOKEN_PATH, assertion, proof, grant_type="client_credentials", **parameters)

    async def token(self, proof: str = "", **parameters: str) -> str:
        """A token; empty when there is none."""
        answer = await self.ask(proof=proof, **parameters)
        return str(msgspec.json.decode(answer.body).get("access_token", ""))

    async def read(self, token: str, path: str = READ_PATH, *, scheme: str = "Bearer", proof: str = "") -> int:
        """The status of a GET with a token."""
        more = {"authorization": f"{scheme} {token}"} | ({"dpop": proof} if proof else {})
        return (await self.caller.send("GET", path, **more)).status


async def open_client(stage: Stage) -> OAuthClient:
    """A new key of the tenant `here`, an admin's, whose holder signs assertions."""
    metadata = await stage.client.send("GET", "/.well-known/oauth-authorization-server")
    pair, admin = Pair.make("prove"), await stage.caller(stage.here)
    made = await admin.done(
        "POST",
        "/v1/tenant/keys",
        {"name": "prove", "roles": ["tenant-admin"], "jwks": {"keys": [{**pair.public, "kid": pair.name}]}},
    )
    return OAuthClient(
        stage=stage,
        caller=Caller(stage.client, admin.key, Secret("")),
        issuer=msgspec.json.decode(metadata.body)["issuer"],
        client_id=made["publicKey"],
        pair=pair,
        holder=Pair.make("holder"),
    )
