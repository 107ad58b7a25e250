"""A client of the API, as customers write them: signs in with a key, sends the token with every request."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import msgspec

from strongroom.kernel.clock import Clock
from strongroom.kernel.ids import AccountId, ApiKeyId, TenantId, new_uuid
from strongroom.kernel.secret import Secret
from strongroom.outbound import Answer, Outbound
from strongroom.trust.workbench import Workbench

SIGN_IN: Final = "/v1/identity/hmac"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An API key with both halves; the private one in base64."""

    public_key: ApiKeyId
    private_key: Secret[str]
    account_id: AccountId
    tenant_id: TenantId | None

    @property
    def private_bytes(self) -> bytes:
        """The private half, decoded."""
        return base64.b64decode(self.private_key.reveal())


class Refused(Exception):
    """The API refused what a check takes for granted. Says what was asked and what was answered, never the token."""


class Client:
    """Talks to one installation's API over verified TLS."""

    def __init__(self, bench: Workbench) -> None:
        self._outbound: Outbound = bench.outbound
        self._url = bench.api.url
        self.clock: Clock = bench.clock

    def authorization(self, key: Key, *, nonce: str = "", skew_s: float = 0, forged: bool = False) -> str:
        """The `Authorization` header that signs in (wire contract, section 2)."""
        stamp = f"{self.clock.now().timestamp() + skew_s:.3f}"
        text = f"{key.public_key}:{nonce or new_uuid()}:{stamp}:"
        secret = hashlib.sha256(key.private_bytes).digest() if forged else key.private_bytes
        signature = base64.b64encode(hmac.digest(secret, text.encode(), "sha256")).decode()
        return f"Hmac {text[:-1]}:{signature}"

    async def send(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """One request, whatever the answer."""
        return await self._outbound.request(method, self._url + path, headers=headers, body=body or b"")

    async def sign_in(self, key: Key) -> Secret[str]:
        """A token. Raises Refused."""
        answer = await self.send("POST", SIGN_IN, headers={"authorization": self.authorization(key)})
        if answer.status != 201:
            raise Refused(f"signing in was answered {answer.status} {codes(answer)}")
        return Secret(msgspec.json.decode(answer.body)["accessToken"])

    async def caller(self, key: Key) -> Caller:
        """Somebody signed in with the key. Raises Refused."""
        return Caller(self, key, await self.sign_in(key))


class Caller:
    """A key that has signed in."""

    def __init__(self, client: Client, key: Key, token: Secret[str]) -> None:
        self.key = key
        self.token = token
        self._client = client

    @property
    def today(self) -> date:
        """The day in UTC."""
        return self._client.clock.now().date()

    async def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        **more: str,
    ) -> Answer:
        """One request with the token, whatever the answer. `more` are headers, `_` standing for `-`."""
        headers = {
            "authorization": f"Bearer {self.token.reveal()}",
            "x-account-id": str(self.key.account_id),
            "content-type": content_type,
        }
        if self.key.tenant_id is not None:
            headers["x-tenant-id"] = str(self.key.tenant_id)
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        content = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        return await self._client.send(method, path, headers=headers, body=content)

    async def done(self, method: str, path: str, body: object = None, *, content_type: str = "application/json") -> Any:
        """What a request that has to succeed answered, decoded. Raises Refused."""
        answer = await self.send(method, path, body, content_type=content_type)
        if answer.status >= 300:
            raise Refused(f"{method} {path} was answered {answer.status} {codes(answer)}")
        if not answer.body or not answer.headers.get("content-type", "").startswith("application/json"):
            return answer.body
        return msgspec.json.decode(answer.body)


def codes(answer: Answer) -> str:
    """The error codes of an answer, for people."""
    try:
        errors = msgspec.json.decode(answer.body)["errors"]
        return " ".join(str(error["errorCode"]) for error in errors)
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""
