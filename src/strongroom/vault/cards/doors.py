"""Who may ask for what: the public door (forms and API clients) and the inner one (our own processes).

Answers and errors have the wire contract's form. Nothing of a request is ever logged, and no error says what was sent.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog

from strongroom.kernel import errors
from strongroom.kernel.clock import epoch_ms
from strongroom.kernel.errors import Failure, Forbidden, Invalid, StrongroomError, Unauthenticated, Unavailable
from strongroom.kernel.ids import new_uuid_text, parse_uuid
from strongroom.outbound import NoAnswer, NotSent, Outbound
from strongroom.vault.cards.custody import Card, Custody
from strongroom.vault.cards.forwarding import Forward, Forwarder, Result
from strongroom.vault.cards.limits import Bucket, network_of
from strongroom.vault.cards.listening import Request, Response
from strongroom.vault.cards.records import By
from strongroom.vault.cards.transfers import MAX_PART, Transfer, Transfers

log = structlog.get_logger(__name__)

CARDS: Final = "/v1/cards"
MAX_CARD_BODY: Final = 8 << 10
MAX_OTHER_BODY: Final = MAX_PART + (64 << 10)
RETRY_AFTER_S: Final = 1
REQUESTS_PER_ADDRESS: Final = (10.0, 30.0)
MISTAKES_PER_ADDRESS: Final = (1 / 60, 10.0)
"""Cards or credentials that were refused: ten at once, then one a minute. This is what stops trying out numbers."""
CARDS_PER_KEY: Final = (50.0, 100.0)
"""Limits: how many a second, how many at once. A form's sessions count for their tenant."""
_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_STATUS: Final[Sequence[tuple[type[StrongroomError], int]]] = (
    (errors.Refused, 400),
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.InFlight, 409),
    (errors.TooLarge, 413),
    (errors.UnsupportedMedia, 415),
    (errors.KeyReused, 422),
    (errors.TooOften, 429),
    (errors.Unavailable, 503),
)
_CORS: Final = (
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", "POST"),
    ("access-control-allow-headers", "authorization, content-type, x-account-id, x-tenant-id, x-correlation-id"),
    ("access-control-max-age", "600"),
)
"""A form may be shown anywhere: what lets it in is its session, and no cookie is ever read here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who holds a token: its tenant, and the public half of its API key."""

    tenant: UUID
    key: str


class Rights:
    """Who may do what: asks the platform's API, which knows of every key whether it still exists."""

    def __init__(self, outbound: Outbound, url: str) -> None:
        self._outbound = outbound
        self._url = url

    async def require(self, right: str, headers: Mapping[str, str], correlation_id: str) -> Caller:
        """Who holds the token in these headers, if they have this right (`take`, `move`).

        Raises errors.Unauthenticated, errors.Forbidden and errors.Invalid as the API answers, and errors.Unavailable
        (`RIGHTS_NOT_KNOWN`) when it gives no answer.
        """
        passed_on = {
            name: headers[name] for name in ("authorization", "x-account-id", "x-tenant-id") if name in headers
        }
        passed_on["x-correlation-id"] = correlation_id
        try:
            answer = await self._outbound.request("GET", f"{self._url}/v1/card-vault/rights/{right}", headers=passed_on)
            told = msgspec.json.decode(answer.body)
            if answer.status == 200:
                return Caller(tenant=UUID(told["tenantId"]), key=told["publicKey"])
            failures = [Failure(error["errorCode"], error["message"]) for error in told["errors"]]
        except (NotSent, NoAnswer, msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise _rights_unknown() from error
        if answer.status == 401:
            raise Unauthenticated(*failures)
        if answer.status == 403:
            raise Forbidden(*failures)
        if answer.status == 400:
            raise Invalid(*failures)
        raise _rights_unknown()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request on its way through a door."""

    request: Request
    path: Sequence[str]
    """What stands in the variable places of the path."""
    correlation_id: str

    def body(self) -> dict[str, Any]:
        """The JSON object in it. Raises errors.Invalid (`REQUEST_BODY_INVALID`)."""
        try:
            value = msgspec.json.decode(self.request.body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise Invalid(Failure("REQUEST_BODY_INVALID", "Send a JSON object as the request's body."))
        return value

    def uuid(self, place: int) -> UUID:
        """An id in the path. Raises errors.Invalid (`ID_IS_INVALID`)."""
        found = parse_uuid(self.path[place])
        if found is None:
            raise Invalid(Failure("ID_IS_INVALID", "The path holds an id that is no UUID."))
        return found


Answer = tuple[int, Any]
Handler = Callable[[Call], Awaitable[Answer]]


class Door:
    """A table of routes, and what all of them have in common."""

    def __init__(self, routes: Mapping[tuple[str, str], Handler]) -> None:
        """`routes`: method and path, variable places in braces."""
        self._routes = [
            (method, re.compile(re.sub(r"\{\w+\}", r"([A-Za-z0-9._-]{1,100})", path)), handler)
            for (method, path), handler in routes.items()
        ]

    async def handle(self, request: Request) -> Response:
        """Answer a request, whatever happens."""
        given = request.headers.get("x-correlation-id", "")
        correlation_id = given if _CORRELATION_ID.fullmatch(given) else new_uuid_text()
        headers: list[tuple[str, str]] = [("x-correlation-id", correlation_id)]
        try:
            status, body = await self._find(request, correlation_id)
        except StrongroomError as error:
            status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
            if status == 500:
                log.error("cards.broken", code=error.code, correlation_id=correlation_id)  # noqa: TRY400  as below
            if isinstance(error, errors.TooOften | Unavailable):
                headers.append(("retry-after", str(RETRY_AFTER_S)))
            body = _failures(error.failures, correlation_id)
        except Exception as error:
            # Neither a traceback nor the error's own words: both could hold what was sent.
            log.error("cards.failed", error=type(error).__name__, correlation_id=correlation_id)  # noqa: TRY400  see above
            failure = Failure("INTERNAL_ERROR", "Something went wrong on our side. Quote the correlation id.")
            status, body = 500, _failures([failure], correlation_id)
        content = b"" if body is None else msgspec.json.encode(body)
        if content:
            headers.append(("content-type", "application/json"))
        if not request.peer:
            headers += _CORS
        return Response(status=status, content=content, headers=headers)

    async def _find(self, request: Request, correlation_id: str) -> Answer:
        path_known = False
        for method, pattern, handler in self._routes:
            found = pattern.fullmatch(request.path)
            if found is None:
                continue
            path_known = True
            if method == request.method:
                return await handler(Call(request=request, path=found.groups(), correlation_id=correlation_id))
        failure = (
            Failure("METHOD_NOT_ALLOWED", "This path doesn't answer this method.")
            if path_known
            else Failure("PATH_NOT_FOUND", "There is nothing at this path.")
        )
        return 405 if path_known else 404, _failures([failure], correlation_id)


class PublicDoor:
    """For card forms, and for holders of API keys."""

    def __init__(
        self,
        custody: Custody,
        transfers: Transfers,
        rights: Rights,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` counts seconds, for the limits."""
        self._custody = custody
        self._transfers = transfers
        self._rights = rights
        rate, burst = REQUESTS_PER_ADDRESS
        self._requests = Bucket("TOO_MANY_REQUESTS", rate=rate, burst=burst, clock=clock)
        rate, burst = MISTAKES_PER_ADDRESS
        self._mistakes = Bucket("TOO_MANY_INVALID_CARDS", rate=rate, burst=burst, clock=clock)
        rate, burst = CARDS_PER_KEY
        self._cards = Bucket("TOO_MANY_CARDS", rate=rate, burst=burst, clock=clock)
        transfer = "/v1/transfers/{id}"
        self._door = Door(
            {
                ("GET", "/health"): self._health,
                ("OPTIONS", CARDS): self._preflight,
                ("POST", CARDS): self._take,
                ("GET", "/v1/transfers/receiver-key"): self._receiver_key,
                ("POST", "/v1/transfers/exports"): self._export,
                ("POST", "/v1/transfers/imports"): self._import,
                ("GET", transfer): self._transfer,
                ("POST", transfer + "/approve"): self._approve,
                ("POST", transfer + "/cancel"): self._cancel,
                ("GET", transfer + "/parts/{number}"): self._get_part,
                ("PUT", transfer + "/parts/{number}"): self._put_part,
            }
        )

    async def handle(self, request: Request) -> Response:
        """Answer a request."""
        return await self._door.handle(request)

    @staticmethod
    def max_body(path: str) -> int:
        """How many bytes a request may have."""
        return MAX_OTHER_BODY if path.startswith("/v1/transfers/") else MAX_CARD_BODY

    async def _health(self, call: Call) -> Answer:
        del call
        return 200, {"status": "ok"}

    async def _preflight(self, call: Call) -> Answer:
        del call
        return 204, None

    async def _take(self, call: Call) -> Answer:
        network = network_of(call.request.address)
        self._requests.spend(network)
        self._mistakes.require(network)
        try:
            return 201, card_body(await self._taken(call))
        except (Invalid, Unauthenticated, Forbidden):
            self._mistakes.spend(network)
            raise

    async def _taken(self, call: Call) -> Card:
        scheme, _, credential = call.request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "session" and credential:
            self._cards.spend(credential.strip())
            return await self._custody.take_with_session(credential.strip(), call.body(), call.correlation_id)
        caller = await self._caller(call, "take")
        self._cards.spend(caller.key)
        return await self._custody.take(caller.tenant, call.body(), By(caller.key, call.correlation_id))

    async def _caller(self, call: Call, right: str) -> Caller:
        scheme, _, credential = call.request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not credential:
            raise Unauthenticated(
                Failure(
                    "CARD_CREDENTIAL_REQUIRED",
                    "Send `Authorization: Session …` with a card session, or `Bearer …` with an access token.",
                )
            )
        return await self._rights.require(right, call.request.headers, call.correlation_id)

    async def _mover(self, call: Call) -> tuple[UUID, By]:
        self._requests.spend(network_of(call.request.address))
        caller = await self._caller(call, "move")
        return caller.tenant, By(caller.key, call.correlation_id)

    async def _receiver_key(self, call: Call) -> Answer:
        await self._mover(call)
        return 200, {"receiverKey": self._transfers.receiver_key}

    async def _export(self, call: Call) -> Answer:
        tenant, by = await self._mover(call)
        receiver = call.body().get("receiverKey")
        return 201, _transfer_body(await self._transfers.request_export(tenant, receiver, by))

    async def _import(self, call: Call) -> Answer:
        (tenant, by), sent = await self._mover(call), call.body()
        made = await self._transfers.request_import(tenant, sent.get("digest"), sent.get("count"), by)
        return 201, _transfer_body(made)

    async def _transfer(self, call: Call) -> Answer:
        tenant, _ = await self._mover(call)
        return 200, _transfer_body(await self._transfers.find(tenant, call.uuid(0)))

    async def _approve(self, call: Call) -> Answer:
        tenant, by = await self._mover(call)
        return 200, _transfer_body(await self._transfers.approve(tenant, call.uuid(0), by))

    async def _cancel(self, call: Call) -> Answer:
        tenant, by = await self._mover(call)
        return 200, _transfer_body(await self._transfers.cancel(tenant, call.uuid(0), by))

    async def _get_part(self, call: Call) -> Answer:
        (tenant, by), number = await self._mover(call), _part_number(call)
        content, transfer = await self._transfers.export_part(tenant, call.uuid(0), number, by)
        return 200, {"part": number, "content": content, "transfer": _transfer_body(transfer)}

    async def _put_part(self, call: Call) -> Answer:
        (tenant, by), number = await self._mover(call), _part_number(call)
        content = call.body().get("content")
        text = content if isinstance(content, str) else ""
        transfer = await self._transfers.import_part(tenant, call.uuid(0), number, text, by)
        return 200, _transfer_body(transfer)


class InnerDoor:
    """For our own processes, by the names in their certificates."""

    def __init__(self, custody: Custody, forwarder: Forwarder, more: Mapping[tuple[str, str], Handler]) -> None:
        """`more`: further routes, of `operating`."""
        self._custody = custody
        self._forwarder = forwarder
        tenant = "/v1/tenants/{tenant}"
        self._door = Door(
            {
                ("POST", tenant + "/sessions"): only(self._open_session, "api"),
                ("GET", tenant + "/cards/{token}"): only(self._describe, "api", "worker", "prove"),
                ("POST", tenant + "/cards/{token}/claim"): only(self._claim, "api"),
                ("POST", tenant + "/customers/{customer}/forget"): only(self._forget, "api"),
                ("POST", tenant + "/forwards"): only(self._forward, "worker", "prove"),
                ("GET", tenant + "/forwards/{reference}"): only(self._find_forward, "worker", "prove"),
                **more,
            }
        )

    async def handle(self, request: Request) -> Response:
        """Answer a request."""
        return await self._door.handle(request)

    @staticmethod
    def max_body(path: str) -> int:
        """How many bytes a request may have."""
        del path
        return MAX_OTHER_BODY

    async def _open_session(self, call: Call) -> Answer:
        customer = text_of(call.body(), "customer")
        session = await self._custody.open_session(call.uuid(0), customer, By(call.request.peer, call.correlation_id))
        return 201, {"sessionToken": session.secret.reveal(), "expires": epoch_ms(session.expires_at)}

    async def _describe(self, call: Call) -> Answer:
        return 200, card_body(await self._custody.describe(call.uuid(0), call.path[1]))

    async def _claim(self, call: Call) -> Answer:
        customer = text_of(call.body(), "customer")
        card = await self._custody.claim(
            call.uuid(0), call.path[1], customer, By(call.request.peer, call.correlation_id)
        )
        return 200, card_body(card)

    async def _forget(self, call: Call) -> Answer:
        forgotten = await self._custody.forget_customer(
            call.uuid(0), call.path[1], By(call.request.peer, call.correlation_id)
        )
        return 200, {"forgotten": forgotten}

    async def _forward(self, call: Call) -> Answer:
        sent = call.body()
        headers = sent.get("headers") or {}
        if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
            raise Invalid(Failure("FORWARD_HEADERS_INVALID", "headers is an object of texts."))
        names = ("reference", "token", "method", "url", "content_type", "body")
        texts = {name: text_of(sent, _camel(name)) for name in names}
        wanted = Forward(**texts, headers=headers)
        result = await self._forwarder.forward(call.uuid(0), wanted, By(call.request.peer, call.correlation_id))
        return 200, _result_body(result)

    async def _find_forward(self, call: Call) -> Answer:
        return 200, _result_body(await self._forwarder.find(call.uuid(0), call.path[1]))


def only(handler: Handler, *names: str) -> Handler:
    """A handler, for processes of these names alone."""

    async def checked(call: Call) -> Answer:
        if call.request.peer not in names:
            raise Forbidden(
                Failure(
                    "PROCESS_NOT_ALLOWED",
                    "This is for {names}, and the certificate shown is of {peer}.",
                    {"names": " and ".join(names), "peer": call.request.peer or "no process of ours"},
                )
            )
        return await handler(call)

    return checked


def text_of(sent: Mapping[str, Any], name: str) -> str:
    """A field that has to be a text. Raises errors.Invalid (`FIELD_IS_INVALID`)."""
    value = sent.get(name)
    if not isinstance(value, str):
        raise Invalid(Failure("FIELD_IS_INVALID", "{field} must be a text.", {"field": name}))
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def _part_number(call: Call) -> int:
    text = call.path[1]
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0


def card_body(card: Card) -> dict[str, Any]:
    """A card as it is told."""
    return {
        "token": card.token,
        "brand": card.brand.value,
        "maskedNumber": card.masked,
        "firstDigits": card.first,
        "lastDigits": card.last,
        "expiryMonth": card.expiry.month,
        "expiryYear": card.expiry.year,
        "fingerprint": card.fingerprint,
        "createdTimestamp": epoch_ms(card.created_at),
    }


def _transfer_body(transfer: Transfer) -> dict[str, Any]:
    return {
        "transferId": str(transfer.transfer_id),
        "kind": transfer.kind,
        "state": transfer.state,
        "requestedBy": transfer.requested_by,
        "approvedBy": transfer.approved_by,
        "parts": transfer.parts,
        "count": transfer.cards,
        "digest": transfer.digest,
        "failure": transfer.failure,
    }


def _result_body(result: Result) -> dict[str, Any]:
    body: dict[str, Any] = {
        "reference": result.reference,
        "state": result.state,
        "code": result.code,
        "replayed": result.is_replay,
    }
    if result.answer is not None:
        body |= {
            "status": result.status,
            "headers": result.answer.headers,
            "body": result.answer.body,
            "withheld": result.answer.withheld,
        }
    return body


def _failures(failures: Sequence[Failure], correlation_id: str) -> dict[str, Any]:
    return {
        "timestamp": int(time.time() * 1000),
        "correlationId": correlation_id,
        "errors": [
            {
                "errorCode": failure.code,
                "message": failure.message,
                "messageTemplate": failure.template,
                "metadata": {**failure.values, "correlationId": correlation_id},
            }
            for failure in failures
        ],
    }


def _rights_unknown() -> Unavailable:
    return Unavailable(
        Failure(
            "RIGHTS_NOT_KNOWN",
            "The platform can't be asked at the moment whether this token may do that; nothing was done. Try again, or "
            "use a card session.",
        )
    )
