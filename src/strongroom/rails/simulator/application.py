"""The simulator's HTTP face, a bare ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs

import msgspec
import structlog

from strongroom.kernel.clock import Clock
from strongroom.kernel.money import EXPONENTS, Money
from strongroom.kernel.secret import Secret
from strongroom.rails.simulator.behaviour import DEFAULT_REFUSAL, Behaviour, Manner, Mood, UnknownMagicWord, manner_of
from strongroom.rails.simulator.books import AnotherPayment, Books, Entry, Order, Status
from strongroom.rails.simulator.callbacks import Courier, wire_entry

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MAX_BODY: Final = 64 << 10
MAX_TAKE: Final = 5_000
HOLD_S: Final = 60.0
"""How long a request that gets no answer is held; afterwards it gets 504."""
LATE_S: Final = 3.0
"""How long a late request lies about before it is taken in."""
DRIP_S: Final = 1.0
"""Pause between the bytes of a dripping answer."""

INVALID: Final = "FF01"
"""Invalid file format (ISO 20022 external code set): the request breaks the dialect's rules."""
REFERENCE_CLOSED: Final = "REFERENCE_CLOSED"

Reference = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]

_log = structlog.get_logger("strongroom.simulator")


class Account(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose account: `holder` and either `iban` or `number` with `bank_code`."""

    holder: Annotated[str, msgspec.Meta(min_length=1, max_length=140)]
    iban: Annotated[str, msgspec.Meta(max_length=34)] = ""
    bic: Annotated[str, msgspec.Meta(max_length=11)] = ""
    number: Annotated[str, msgspec.Meta(max_length=34)] = ""
    bank_code: Annotated[str, msgspec.Meta(max_length=34)] = ""


class PaymentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /payments`."""

    reference: Reference
    direction: Literal["CREDIT", "DEBIT"]
    amount: str
    currency: str
    account: Account
    due_on: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")]
    remittance: Annotated[str, msgspec.Meta(max_length=140)] = ""
    instruction: Annotated[str, msgspec.Meta(max_length=64)] = ""
    callback_url: Annotated[str, msgspec.Meta(max_length=500)] = ""


class BehaviourRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /behaviour`; a null behaviour clears it."""

    behaviour: Behaviour | None
    requests: Annotated[int, msgspec.Meta(ge=1)] | None = None
    reason: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}[0-9]{2}\Z")] = DEFAULT_REFUSAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer before it is written."""

    status: int
    body: Mapping[str, Any]
    drips: bool = False


class Application:
    """Routes, authentication and misbehaviour; what is true of the money is the books' business."""

    def __init__(self, *, books: Books, courier: Courier, clock: Clock, secret: Secret[bytes]) -> None:
        self._books = books
        self._courier = courier
        self._clock = clock
        self._secret = secret
        self._mood = Mood()
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Let go of every request that is being held, so that the server can stop."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        try:
            reply = await self._reply(scope, receive)
        except Exception:
            _log.exception("request failed", path=scope["path"])
            reply = _error(500, "INTERNAL", "the simulator failed; ask what became of the payment")
        await self._write(send, reply)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        headers = {name.lower(): value for name, value in scope["headers"]}
        method, path = scope["method"], scope["path"]
        if (method, path) == ("GET", "/health"):
            return Reply(status=200, body={"status": "up"})
        body = await _read(receive)
        if body is None:
            return _error(413, "TOO_LARGE", f"a request may have {MAX_BODY} bytes")
        if not self._is_authentic(headers.get(b"authorization", b"")):
            return _refusal(
                401, headers.get(b"idempotency-key", b""), "UNAUTHENTICATED", "the secret is missing or wrong"
            )
        match method, path.strip("/").split("/"):
            case "POST", ["payments"]:
                return await self._submit(headers, body)
            case "GET", ["payments", reference]:
                return await self._enquire(reference)
            case "GET", ["books"]:
                return await self._read_books(parse_qs(scope["query_string"].decode("latin-1")))
            case "POST", ["behaviour"]:
                return self._behave(body)
            case _:
                return _error(404, "NOT_FOUND", f"there is no {method} {path}")

    async def _submit(self, headers: Mapping[bytes, bytes], body: bytes) -> Reply:
        manner = self._mood.next()
        if manner is not None and manner.behaviour is Behaviour.OUTAGE:
            return _error(503, "OUTAGE", "nobody is at home")
        key = headers.get(b"idempotency-key", b"")
        try:
            request = msgspec.json.decode(body, type=PaymentRequest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return await self._refuse_shape(key, body, str(error))
        order = _order(request)
        fault = self._fault(request, key)
        try:
            manner = manner or manner_of(request.remittance) or Manner()
        except UnknownMagicWord as error:
            fault = str(error)
        try:
            if fault is not None:
                return _answer(await self._books.refuse(order, INVALID, fault, self._clock.now()))
            return await self._execute(order, manner or Manner())
        except AnotherPayment:
            return _IN_USE

    async def _refuse_shape(self, key: bytes, body: bytes, detail: str) -> Reply:
        """A body that can't be read still uses up the reference in the header, unless that has been used before."""
        reference = key.decode("latin-1")
        if not _is_reference(reference):
            return _error(
                400, "IDEMPOTENCY_KEY_INVALID", "the Idempotency-Key header has to be the payment's reference"
            )
        order = Order(
            reference=reference, instruction="", direction="", amount="", currency="", callback_url="", content=body
        )
        try:
            return _answer(await self._books.refuse(order, INVALID, detail, self._clock.now()))
        except AnotherPayment:
            return _IN_USE

    async def _execute(self, order: Order, manner: Manner) -> Reply:
        if manner.behaviour is Behaviour.TIMEOUT_BEFORE:
            return await self._hold()
        if manner.behaviour is Behaviour.LATE:
            await self._pause(LATE_S)
        entry = await self._books.submit(order, manner, self._clock.now())
        if manner.behaviour is Behaviour.TIMEOUT_AFTER:
            return await self._hold()
        if manner.behaviour is Behaviour.ERROR_200:
            return _error(200, "PROCESSING_ERROR", "something went wrong")
        return _answer(entry, drips=manner.behaviour is Behaviour.SLOW_DRIP)

    async def _enquire(self, reference: str) -> Reply:
        if self._mood.is_outage:
            self._mood.next()
            return _error(503, "OUTAGE", "nobody is at home")
        if not _is_reference(reference):
            return _error(400, "REFERENCE_INVALID", "a reference has 32 lower-case hexadecimal digits")
        return Reply(status=200, body=wire_entry(await self._books.enquire(reference, self._clock.now())))

    async def _read_books(self, query: Mapping[str, list[str]]) -> Reply:
        try:
            after, take = int(query.get("after", ["0"])[0]), int(query.get("take", ["1000"])[0])
        except ValueError:
            after, take = 0, 0
        if not (1 <= take <= MAX_TAKE and after >= 0):
            return _error(400, "RANGE_INVALID", f"take is 1 to {MAX_TAKE}, after is an execution's id")
        lines = await self._books.executions(after, take)
        return Reply(
            status=200,
            body={
                **await self._books.summary(),
                "lines": lines,
                "next": lines[-1]["id"] if len(lines) == take else None,
            },
        )

    def _behave(self, body: bytes) -> Reply:
        try:
            request = msgspec.json.decode(body, type=BehaviourRequest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _error(400, "BEHAVIOUR_INVALID", f"{error}; behaviours: {', '.join(Behaviour)}")
        manner = None if request.behaviour is None else Manner(behaviour=request.behaviour, reason=request.reason)
        self._mood.set(manner, request.requests)
        return Reply(status=200, body={"behaviour": request.behaviour, "requests": request.requests})

    def _fault(self, request: PaymentRequest, key: bytes) -> str | None:
        """What breaks the dialect's rules although it has the right shape, for people."""
        if key.decode("latin-1") != request.reference:
            return "the Idempotency-Key header has to be the reference"
        if request.currency not in EXPONENTS:
            return "currency is no ISO 4217 code"
        try:
            Money.parse(request.amount, request.currency)
        except ValueError:
            return f"amount is not a positive amount of {request.currency}"
        if not (request.account.iban or (request.account.number and request.account.bank_code)):
            return "account needs an iban, or a number with its bank_code"
        if request.callback_url and not self._courier.accepts(request.callback_url):
            return "callback_url is no https address, or one host too many"
        return None

    async def _hold(self) -> Reply:
        await self._pause(HOLD_S)
        return _error(504, "TIMEOUT", "no answer, as asked for")

    async def _write(self, send: Send, reply: Reply) -> None:
        content = msgspec.json.encode(reply.body)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        if reply.drips:
            for at in range(len(content) - 1):
                await send({"type": "http.response.body", "body": content[at : at + 1], "more_body": True})
                await self._pause(DRIP_S)
            content = content[-1:]
        await send({"type": "http.response.body", "body": content, "more_body": False})

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    def _is_authentic(self, authorization: bytes) -> bool:
        return hmac.compare_digest(authorization, b"Bearer " + self._secret.reveal())


def _is_reference(text: str) -> bool:
    try:
        msgspec.convert(text, Reference)
    except msgspec.ValidationError:
        return False
    return True


def _order(request: PaymentRequest) -> Order:
    content = msgspec.structs.replace(request, callback_url="")
    return Order(
        reference=request.reference,
        instruction=request.instruction,
        direction=request.direction,
        amount=request.amount,
        currency=request.currency,
        callback_url=request.callback_url,
        content=msgspec.json.encode(content),
    )


def _answer(entry: Entry, *, drips: bool = False) -> Reply:
    if entry.status is Status.NEVER_RECEIVED:
        return _refusal(422, entry.reference.encode(), REFERENCE_CLOSED, "closed by an enquiry that came before it")
    return Reply(status=422 if entry.status is Status.REFUSED else 200, body=wire_entry(entry), drips=drips)


def _refusal(status: int, reference: bytes, reason: str, detail: str) -> Reply:
    body = {"reference": reference.decode("latin-1"), "status": Status.REFUSED, "reason": reason, "detail": detail}
    return Reply(status=status, body=body)


def _error(status: int, code: str, message: str) -> Reply:
    return Reply(status=status, body={"error": {"code": code, "message": message}})


_IN_USE: Final = _error(409, "REFERENCE_IN_USE", "the reference stands for a payment with another content")


async def _read(receive: Receive) -> bytes | None:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        more = message.get("more_body", False)
    return bytes(body)
