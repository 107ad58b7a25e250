"""Answers that the provider's documentation doesn't know. The connector never guesses what they mean."""

from __future__ import annotations

from datetime import date

import msgspec
import pytest

from strongroom.kernel.clock import SystemClock
from strongroom.kernel.money import Money
from strongroom.kernel.secret import Secret
from strongroom.outbound import Destination, Limits, Outbound
from strongroom.rails.connectors.simulator import Simulator
from strongroom.rails.contract import BankAccount, Direction, Outcome, OutcomeKind, Payment
from tests.certificates import Authority
from tests.outbound.scripted import Peer, scripted
from tests.rails.simulator.process import SECRET

REFERENCE = "0123456789abcdef0123456789abcdef"
PAYMENT = Payment(
    reference=REFERENCE,
    direction=Direction.DEBIT,
    money=Money.parse("120.50", "EUR"),
    counterparty=BankAccount(holder="Ada Sample", number="31926819", bank_code="601613"),
    due_on=date(2030, 1, 2),
    instruction="instruction-1",
)
GOOD = {
    "reference": REFERENCE,
    "status": "SETTLED",
    "amount": "120.50",
    "currency": "EUR",
    "provider_reference": "SIM-1",
}
REFUSAL = {"reference": REFERENCE, "status": "REFUSED", "reason": "AM04", "detail": "no funds"}


async def answered(authority: Authority, status: int, body: object, *, enquiry: bool = False) -> Outcome:
    """What the connector makes of this answer to a submission or an enquiry."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(f"HTTP/1.1 {status} Whatever\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content)

    async with scripted(script, authority.issue("localhost").server_context()) as server:
        allowed = [Destination(host="localhost", port=server.port, loopback_ok=True)]
        async with Outbound(allowed=allowed, trust=authority.ca, limits=Limits(total_s=5.0)) as outbound:
            url = f"https://localhost:{server.port}/"
            connector = Simulator(outbound=outbound, url=url, secret=Secret(SECRET), clock=SystemClock())
            outcome = await (connector.enquire(REFERENCE) if enquiry else connector.submit(PAYMENT))
    assert outcome.reference == REFERENCE
    return outcome


async def test_what_is_documented_is_understood(authority: Authority) -> None:
    settled = await answered(authority, 200, GOOD | {"at": "2030-01-02T03:04:05+00:00"})
    assert (settled.kind, settled.provider_reference) == (OutcomeKind.SETTLED, "SIM-1")
    assert (await answered(authority, 200, GOOD | {"status": "PENDING"})).kind is OutcomeKind.PENDING
    assert (await answered(authority, 200, GOOD | {"amount": "120.5"})).kind is OutcomeKind.SETTLED
    for status in (401, 403, 422):
        refused = await answered(authority, status, REFUSAL)
        assert (refused.kind, refused.reason, refused.detail) == (OutcomeKind.REFUSED, "AM04", "no funds")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, GOOD | {"amount": "120.51"}),
        (200, GOOD | {"amount": "12050"}),
        (200, GOOD | {"amount": ""}),
        (200, GOOD | {"amount": "1.205e2"}),
        (200, GOOD | {"currency": "USD"}),
        (200, GOOD | {"currency": "eur"}),
        (200, GOOD | {"reference": REFERENCE[::-1]}),
        (200, GOOD | {"status": "settled"}),
        (200, GOOD | {"status": "NEVER_RECEIVED"}),
        (200, GOOD | {"at": "2030-01-02T03:04:05"}),
        (200, GOOD | {"error": {"code": "PROCESSING_ERROR"}}),
        (200, {"error": {"code": "PROCESSING_ERROR", "message": "something went wrong"}}),
        (200, REFUSAL),
        (200, b""),
        (200, b"OK"),
        (200, b"[]"),
        (200, b'{"reference":"\xff"}'),
        (200, msgspec.json.encode(GOOD)[:-1]),
        (201, GOOD),
        (204, b""),
        (302, GOOD),
        (400, REFUSAL),
        (401, b"<html>who are you?</html>"),
        (403, b"<html>blocked by a firewall</html>"),
        (404, REFUSAL),
        (409, REFUSAL),
        (422, GOOD),
        (422, REFUSAL | {"reference": REFERENCE[::-1]}),
        (422, {"error": {"code": "INVALID"}}),
        (429, REFUSAL),
        (500, REFUSAL),
        (503, GOOD),
    ],
)
async def test_everything_else_is_unconfirmed(authority: Authority, status: int, body: object) -> None:
    outcome = await answered(authority, status, b"" if status == 204 else body)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.UNCONFIRMED, "ANSWER_NOT_UNDERSTOOD")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, GOOD, OutcomeKind.SETTLED),
        (200, GOOD | {"status": "PENDING"}, OutcomeKind.PENDING),
        (200, REFUSAL, OutcomeKind.REFUSED),
        (200, {"reference": REFERENCE, "status": "NEVER_RECEIVED"}, OutcomeKind.NEVER_RECEIVED),
        (200, {"reference": REFERENCE[::-1], "status": "NEVER_RECEIVED"}, OutcomeKind.UNCONFIRMED),
        (200, {"status": "NEVER_RECEIVED"}, OutcomeKind.UNCONFIRMED),
        (200, GOOD | {"amount": "1e3"}, OutcomeKind.UNCONFIRMED),
        (200, GOOD | {"currency": "EURO"}, OutcomeKind.UNCONFIRMED),
        (200, GOOD | {"currency": ""}, OutcomeKind.UNCONFIRMED),
        (200, {}, OutcomeKind.UNCONFIRMED),
        (404, {"reference": REFERENCE, "status": "NEVER_RECEIVED"}, OutcomeKind.UNCONFIRMED),
        (404, b"not found", OutcomeKind.UNCONFIRMED),
        (401, REFUSAL, OutcomeKind.UNCONFIRMED),
        (422, REFUSAL, OutcomeKind.UNCONFIRMED),
        (503, GOOD, OutcomeKind.UNCONFIRMED),
    ],
)
async def test_enquiries_are_read_as_strictly(
    authority: Authority, status: int, body: object, kind: OutcomeKind
) -> None:
    assert (await answered(authority, status, body, enquiry=True)).kind is kind


@pytest.mark.parametrize("reason", ["NOT_SENT", "NEVER_RECEIVED", "RETURNED", "RETURNED-AC06"])
@pytest.mark.parametrize("enquiry", [False, True])
async def test_words_of_ours_in_a_providers_mouth_mean_nothing(
    authority: Authority, reason: str, *, enquiry: bool
) -> None:
    status = 200 if enquiry else 422
    outcome = await answered(authority, status, REFUSAL | {"reason": reason}, enquiry=enquiry)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.REFUSED, reason)


async def test_an_enquiry_says_which_amount_it_speaks_of(authority: Authority) -> None:
    outcome = await answered(authority, 200, GOOD | {"amount": "1.00"}, enquiry=True)
    assert (outcome.kind, outcome.money) == (OutcomeKind.SETTLED, Money.parse("1.00", "EUR"))
