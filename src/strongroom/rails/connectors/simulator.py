"""The connector of the provider simulator (`docs/rails/simulator.md`)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from strongroom.kernel.clock import Clock
from strongroom.kernel.errors import Failure, Invalid, Unauthenticated, Unavailable
from strongroom.kernel.money import EXPONENTS, Money
from strongroom.kernel.secret import Secret
from strongroom.outbound import Answer, NoAnswer, NotSent, Outbound
from strongroom.rails.contract import Direction, Outcome, OutcomeKind, Payment

NOTIFICATION_TOLERANCE: Final = timedelta(minutes=5)
"""How far a notification's timestamp may be from now, either way (Standard Webhooks 1.0 leaves the figure open)."""
NOT_UNDERSTOOD: Final = "ANSWER_NOT_UNDERSTOOD"

_PAGE: Final = 2_000
_ACCEPTED: Final = {"SETTLED": OutcomeKind.SETTLED, "PENDING": OutcomeKind.PENDING}
_REFUSED: Final = {"REFUSED": OutcomeKind.REFUSED}
_SUBMITTED: Final = {200: _ACCEPTED, 401: _REFUSED, 403: _REFUSED, 422: _REFUSED}
"""Status of an answer to a submission → the words that mean something in it. Everything else means nothing."""
_ENQUIRED: Final = {200: _ACCEPTED | _REFUSED | {"NEVER_RECEIVED": OutcomeKind.NEVER_RECEIVED}}
_NOTIFIED: Final = _ACCEPTED | _REFUSED


class WirePayment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the provider says about a payment. A body with anything else in it, such as an error, is not one."""

    reference: str
    status: str
    provider_reference: str = ""
    reason: str = ""
    detail: str = ""
    amount: str = ""
    currency: str = ""
    at: datetime | None = None


class WireNotification(msgspec.Struct, frozen=True, kw_only=True):
    """A callback's body."""

    type: str
    timestamp: datetime
    data: WirePayment


class WireExecution(msgspec.Struct, frozen=True, kw_only=True):
    """One movement of money in a page of the provider's books."""

    id: int
    reference: str
    instruction: str
    direction: Direction
    amount: str
    currency: str
    at: datetime


class WireBooks(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the provider's books."""

    lines: list[WireExecution]
    next: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One movement of money, as the provider has it. `instruction` is empty when it wasn't told."""

    reference: str
    instruction: str
    direction: Direction
    money: Money
    at: datetime


class Simulator:
    """Implements `strongroom.rails.contract.Provider`.

    `url` is the provider's https address without a path; `outbound` has to allow it. `callback_url`, when given, is
    where the provider reports the end of payments that it left pending.
    """

    def __init__(
        self, *, outbound: Outbound, url: str, secret: Secret[str], clock: Clock, callback_url: str = ""
    ) -> None:
        self._outbound = outbound
        self._url = url.rstrip("/")
        self._secret = secret
        self._clock = clock
        self._callback_url = callback_url

    async def submit(self, payment: Payment) -> Outcome:
        """Ask for execution; see the contract. Sends at most one request, and never a second one."""
        headers = {"content-type": "application/json", "idempotency-key": payment.reference}
        try:
            answer = await self._request("POST", "/payments", headers=headers, body=self._encode(payment))
        except NotSent as failure:
            return _outcome(OutcomeKind.NOT_SENT, payment.reference, "NOT_SENT", str(failure))
        except NoAnswer as failure:
            return _outcome(OutcomeKind.UNCONFIRMED, payment.reference, failure.code, str(failure))
        return _read(answer, payment.reference, _SUBMITTED, payment.money)

    async def enquire(self, reference: str) -> Outcome:
        """Ask what became of a payment; see the contract."""
        try:
            answer = await self._request("GET", f"/payments/{reference}")
        except (NotSent, NoAnswer) as failure:
            return _outcome(OutcomeKind.UNCONFIRMED, reference, failure.code, str(failure))
        return _read(answer, reference, _ENQUIRED, None)

    def read_notification(self, headers: Mapping[str, str], body: bytes) -> Sequence[Outcome]:
        """The outcome in a callback.

        Raises errors.Unauthenticated (`NOTIFICATION_SIGNATURE_INVALID`) when it is forged or its timestamp is more than
        five minutes away, and errors.Invalid (`NOTIFICATION_NOT_UNDERSTOOD`) when it is genuine and says nothing.
        """
        self._authenticate({name.lower(): value for name, value in headers.items()}, body)
        try:
            data = msgspec.json.decode(body, type=WireNotification).data
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(Failure("NOTIFICATION_NOT_UNDERSTOOD", "The notification is not in the dialect.")) from error
        return [_interpret(data, _NOTIFIED)]

    async def executions(self) -> Sequence[Execution]:
        """Every movement of money in the provider's books, in the order in which they happened.

        Raises errors.Unavailable (`SIMULATOR_BOOKS_UNREADABLE`, or outbound's codes) when they can't be read to the
        end.
        """
        found: list[Execution] = []
        after: int | None = 0
        while after is not None:
            answer = await self._request("GET", f"/books?after={after}&take={_PAGE}")
            try:
                page = msgspec.json.decode(answer.body, type=WireBooks)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                message = "The simulator's books can't be read (status {status})."
                raise Unavailable(Failure("SIMULATOR_BOOKS_UNREADABLE", message, {"status": answer.status})) from error
            found.extend(map(_execution, page.lines))
            after = page.next
        return found

    async def _request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        authorization = {"authorization": f"Bearer {self._secret.reveal()}"}
        return await self._outbound.request(
            method, self._url + path, headers={**(headers or {}), **authorization}, body=body
        )

    def _encode(self, payment: Payment) -> bytes:
        account = payment.counterparty
        fields: dict[str, object] = {
            "reference": payment.reference,
            "direction": payment.direction,
            "amount": str(payment.money.decimal),
            "currency": payment.money.currency,
            "account": {
                "holder": account.holder,
                "iban": account.iban,
                "bic": account.bic,
                "number": account.number,
                "bank_code": account.bank_code,
            },
            "due_on": payment.due_on.isoformat(),
            "remittance": payment.remittance,
            "instruction": payment.instruction,
            "callback_url": self._callback_url,
        }
        return msgspec.json.encode(fields)

    def _authenticate(self, headers: Mapping[str, str], body: bytes) -> None:
        """Standard Webhooks 1.0, "Verifying signatures": id, timestamp and body are signed together; any of several
        signatures may match, so that keys can be changed."""
        identity, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        key = hmac.digest(self._secret.reveal().encode(), b"strongroom-simulator/callbacks", hashlib.sha256)
        wanted = hmac.digest(key, f"{identity}.{stamp}.".encode() + body, hashlib.sha256)
        offered = headers.get("webhook-signature", "").split(" ")[:8]
        genuine = [hmac.compare_digest(_signature(entry), wanted) for entry in offered]
        if not (identity and any(genuine) and self._is_fresh(stamp)):
            message = "The notification's signature is wrong, or it is older than five minutes."
            raise Unauthenticated(Failure("NOTIFICATION_SIGNATURE_INVALID", message))

    def _is_fresh(self, stamp: str) -> bool:
        if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= 12):
            return False
        return abs(self._clock.now().timestamp() - int(stamp)) <= NOTIFICATION_TOLERANCE.total_seconds()


def _read(
    answer: Answer, reference: str, meanings: Mapping[int, Mapping[str, OutcomeKind]], asked: Money | None
) -> Outcome:
    """What an answer says about the payment that was asked about. Never more than it says."""
    words = meanings.get(answer.status)
    if words is None:
        return _outcome(OutcomeKind.UNCONFIRMED, reference, NOT_UNDERSTOOD, f"status {answer.status}")
    try:
        data = msgspec.json.decode(answer.body, type=WirePayment)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _outcome(
            OutcomeKind.UNCONFIRMED, reference, NOT_UNDERSTOOD, f"status {answer.status}, body not understood"
        )
    if data.reference != reference:
        return _outcome(OutcomeKind.UNCONFIRMED, reference, NOT_UNDERSTOOD, "the answer is about another payment")
    outcome = _interpret(data, words)
    if asked is not None and outcome.kind in _ACCEPTED.values() and outcome.money != asked:
        return _outcome(OutcomeKind.UNCONFIRMED, reference, NOT_UNDERSTOOD, "the answer is about another amount")
    return outcome


def _interpret(data: WirePayment, words: Mapping[str, OutcomeKind]) -> Outcome:
    kind, money = words.get(data.status), _money(data.amount, data.currency)
    if kind is None or (data.at is not None and data.at.tzinfo is None):
        return _outcome(
            OutcomeKind.UNCONFIRMED, data.reference, NOT_UNDERSTOOD, "unknown status or time without a zone"
        )
    if money is None and (data.amount or data.currency) and kind in _ACCEPTED.values():
        return _outcome(OutcomeKind.UNCONFIRMED, data.reference, NOT_UNDERSTOOD, "an amount that is none")
    return Outcome(
        kind=kind,
        reference=data.reference,
        provider_reference=data.provider_reference,
        reason=data.reason,
        detail=data.detail,
        at=data.at,
        money=money,
    )


def _outcome(kind: OutcomeKind, reference: str, reason: str, detail: str) -> Outcome:
    return Outcome(kind=kind, reference=reference, reason=reason, detail=detail)


def _money(amount: str, currency: str) -> Money | None:
    if currency not in EXPONENTS:
        return None
    try:
        return Money.parse(amount, currency)
    except ValueError:
        return None


def _execution(line: WireExecution) -> Execution:
    return Execution(
        reference=line.reference,
        instruction=line.instruction,
        direction=line.direction,
        money=Money.parse(line.amount, line.currency),
        at=line.at,
    )


def _signature(entry: str) -> bytes:
    version, _, encoded = entry.partition(",")
    if version != "v1":
        return b""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""
