"""The card vault as other processes see it: tokens, masks and answers, never a number.

Reached over mutual TLS at the vault's inner door. What the vault refuses is raised here as the situation it was there,
with its own code and words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote
from uuid import UUID

import msgspec

from strongroom.kernel import errors
from strongroom.kernel.errors import Failure, StrongroomError, Unavailable
from strongroom.kernel.secret import Secret
from strongroom.outbound import Destination, Limits, NoAnswer, NotSent, Outbound

NAME: Final = "cards.localhost"
"""The name in the vault's certificate at its inner door, which no other process's certificate has: whoever listens on
its port while it is away can't pass for it."""
LIMITS: Final = Limits(connect_s=2.0, idle_s=35.0, total_s=40.0, answer_bytes=4 << 20)
"""What the vault may take: as long as a provider that it asks for us, and a little more."""
T = TypeVar("T")
_SITUATIONS: Final[Mapping[int, type[StrongroomError]]] = {
    400: errors.Refused,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    409: errors.InFlight,
    413: errors.TooLarge,
    422: errors.KeyReused,
    429: errors.TooOften,
}


class CardDescription(msgspec.Struct, rename="camel", frozen=True):
    """A card as it may be shown. `fingerprint` is equal for equal numbers of one tenant."""

    token: str
    brand: str
    masked_number: str
    first_digits: str
    last_digits: str
    expiry_month: int
    expiry_year: int
    fingerprint: str


class CardSession(msgspec.Struct, rename="camel", frozen=True):
    """What a card form shows the vault, once. `expires`: epoch milliseconds."""

    session_token: str
    expires: int

    def __repr__(self) -> str:
        return "CardSession(…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardRequest:
    """A request to a provider. `body` is a template of `content_type`, filled by the vault (docs/cards.md)."""

    reference: str
    token: str
    method: str
    url: str
    content_type: str
    body: str
    headers: Mapping[str, Secret[str]] = field(default_factory=dict)


class Forwarded(msgspec.Struct, frozen=True):
    """How a forward stands.

    `state`: ANSWERED (with `status`, `headers` and `body`, from which the number was taken out; `withheld` when it
    couldn't be), NOT_SENT (`code` says why; the reference may be used again) or UNCONFIRMED (ask the provider).
    """

    reference: str
    state: str
    code: str = ""
    replayed: bool = False
    status: int = 0
    headers: Mapping[str, str] = {}
    body: bytes = b""
    withheld: bool = False


def inner_door(port: int, trust: Path, identity: tuple[Path, Path] | None) -> Outbound:
    """A way to the vault's inner door on this machine, and to nothing else. `trust` and `identity` as of `Outbound`."""

    async def here(host: str, port: int) -> Sequence[str]:
        del host, port
        return ("127.0.0.1",)

    allowed = [Destination(host=NAME, port=port, loopback_ok=True)]
    return Outbound(allowed=allowed, trust=trust, identity=identity, limits=LIMITS, resolver=here)


class CardVault:
    """The vault's inner door. `outbound` knows the way, and who we are; it is closed with this."""

    def __init__(self, outbound: Outbound, url: str) -> None:
        self._outbound = outbound
        self._url = url

    async def open_session(self, tenant: UUID, customer: str, correlation_id: str = "") -> CardSession:
        """Let one card be taken for a customer (by its keyed hash, in hexadecimal).

        Like all of these: raises errors.Unavailable (`CARD_VAULT_UNAVAILABLE`; `CARD_VAULT_SILENT` when it may have
        been done all the same) and what the vault itself refuses.
        """
        path = f"/v1/tenants/{tenant}/sessions"
        return await self.ask("POST", path, {"customer": customer}, CardSession, correlation_id)

    async def describe(self, tenant: UUID, token: str, correlation_id: str = "") -> CardDescription:
        """A card by its token. Raises errors.Refused (`CARD_NOT_FOUND`)."""
        path = f"/v1/tenants/{tenant}/cards/{_place(token)}"
        return await self.ask("GET", path, None, CardDescription, correlation_id)

    async def claim(self, tenant: UUID, token: str, customer: str, correlation_id: str = "") -> CardDescription:
        """Make a card a customer's. Raises errors.Refused (`CARD_NOT_FOUND`, `CARD_OF_OTHER_CUSTOMER`)."""
        path = f"/v1/tenants/{tenant}/cards/{_place(token)}/claim"
        return await self.ask("POST", path, {"customer": customer}, CardDescription, correlation_id)

    async def forget_customer(self, tenant: UUID, customer: str, correlation_id: str = "") -> None:
        """Forget a customer's cards, for good. Doing it again does nothing."""
        path = f"/v1/tenants/{tenant}/customers/{customer}/forget"
        await self.ask("POST", path, {}, dict[str, int], correlation_id)

    async def forward(self, tenant: UUID, wanted: ForwardRequest, correlation_id: str = "") -> Forwarded:
        """Have a request filled and sent, once for each reference. After `CARD_VAULT_SILENT`, ask again: the reference
        keeps it from being sent twice. Raises errors.Refused for what can't be sent as it stands.
        """
        body = {
            "reference": wanted.reference,
            "token": wanted.token,
            "method": wanted.method,
            "url": wanted.url,
            "headers": {name: value.reveal() for name, value in wanted.headers.items()},
            "contentType": wanted.content_type,
            "body": wanted.body,
        }
        return await self.ask("POST", f"/v1/tenants/{tenant}/forwards", body, Forwarded, correlation_id)

    async def find_forward(self, tenant: UUID, reference: str, correlation_id: str = "") -> Forwarded:
        """How a forward stands. Raises errors.Refused (`FORWARD_NOT_FOUND`) and errors.InFlight."""
        path = f"/v1/tenants/{tenant}/forwards/{_place(reference)}"
        return await self.ask("GET", path, None, Forwarded, correlation_id)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._outbound.aclose()

    async def ask(self, method: str, path: str, body: object, kind: type[T], correlation_id: str = "") -> T:
        """One request, the answer as `kind`; of use to those who know further routes (`card_operator`)."""
        headers = {"x-correlation-id": correlation_id} if correlation_id else {}
        content = b"" if body is None else msgspec.json.encode(body)
        try:
            answer = await self._outbound.request(method, self._url + path, headers=headers, body=content)
            if answer.status < 300:
                return msgspec.json.decode(answer.body, type=kind)
            raise _refusal(answer.status, answer.body)
        except NotSent as error:
            raise Unavailable(
                Failure("CARD_VAULT_UNAVAILABLE", "The card vault can't be reached; nothing was done there. Try again.")
            ) from error
        except (NoAnswer, msgspec.DecodeError) as error:
            raise Unavailable(
                Failure(
                    "CARD_VAULT_SILENT",
                    "The card vault gave no whole answer, so that what was asked may or may not have been done. Ask "
                    "again in the same words.",
                )
            ) from error


class _Told(msgspec.Struct, rename="camel"):
    error_code: str
    message: str


class _Refusal(msgspec.Struct):
    errors: list[_Told]


def _refusal(status: int, body: bytes) -> StrongroomError:
    told = msgspec.json.decode(body, type=_Refusal)
    failures = [Failure(error.error_code, error.message.replace("{", "{{").replace("}", "}}")) for error in told.errors]
    return _SITUATIONS.get(status, Unavailable)(*failures)


def _place(text: str) -> str:
    return quote(text, safe="")
