"""Every behaviour of the provider, and what the connector makes of it. A real process over real TLS."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest

from strongroom.kernel.clock import SystemClock
from strongroom.kernel.ids import new_uuid
from strongroom.kernel.secret import Secret
from strongroom.rails.connectors.simulator import Simulator
from strongroom.rails.contract import OutcomeKind, Payment
from tests.rails.simulator.process import HASTY, SECRET, SimulatorProcess, dialect, payment

SETTLED, PENDING, REFUSED, UNCONFIRMED, NEVER_RECEIVED = (
    OutcomeKind.SETTLED,
    OutcomeKind.PENDING,
    OutcomeKind.REFUSED,
    OutcomeKind.UNCONFIRMED,
    OutcomeKind.NEVER_RECEIVED,
)


async def times_executed(connector: Simulator, asked: Payment) -> int:
    return Counter(line.reference for line in await connector.executions())[asked.reference]


async def ended(connector: Simulator, asked: Payment) -> OutcomeKind:
    """The end of a pending payment, by enquiry."""
    for _ in range(100):
        outcome = await connector.enquire(asked.reference)
        if outcome.kind is not PENDING:
            return outcome.kind
        await asyncio.sleep(0.05)
    raise AssertionError("it stayed pending")


async def test_a_payment_is_settled_at_once_and_stands_in_the_books(simulator: SimulatorProcess) -> None:
    asked = payment(amount="1200", currency="JPY", instruction="instruction-1")
    async with simulator.connector() as connector:
        outcome = await connector.submit(asked)
        assert (outcome.kind, outcome.reference, outcome.reason) == (SETTLED, asked.reference, "")
        assert outcome.provider_reference.startswith("SIM-")
        assert outcome.at is not None
        assert outcome.at.utcoffset() is not None
        assert await connector.enquire(asked.reference) == outcome
        (line,) = [line for line in await connector.executions() if line.reference == asked.reference]
    assert (line.money, line.direction, line.instruction) == (asked.money, asked.direction, "instruction-1")


@pytest.mark.parametrize("reason", ["AM04", "AC04", "MS03"])
async def test_a_refusal_is_final_and_has_its_reason(simulator: SimulatorProcess, reason: str) -> None:
    asked = payment(f"Claim 4711 SIM:REFUSE-{reason}")
    async with simulator.connector() as connector:
        for outcome in (
            await connector.submit(asked),
            await connector.submit(asked),
            await connector.enquire(asked.reference),
        ):
            assert (outcome.kind, outcome.reason) == (REFUSED, reason)
        assert await times_executed(connector, asked) == 0


@pytest.mark.parametrize("word", ["TIMEOUT-AFTER", "ERROR-200", "SLOW-DRIP"])
async def test_executed_without_a_usable_answer_is_unconfirmed_until_asked(
    simulator: SimulatorProcess, word: str
) -> None:
    asked = payment(f"SIM:{word}")
    async with simulator.connector(HASTY) as hasty, simulator.connector() as connector:
        outcome = await hasty.submit(asked)
        assert outcome.kind is UNCONFIRMED
        assert outcome.reason == ("ANSWER_NOT_UNDERSTOOD" if word == "ERROR-200" else "OUTBOUND_ANSWER_LATE")
        assert (await connector.enquire(asked.reference)).kind is SETTLED
        assert await times_executed(connector, asked) == 1


async def test_a_request_that_was_lost_is_closed_by_the_enquiry(simulator: SimulatorProcess) -> None:
    asked = payment("SIM:TIMEOUT-BEFORE")
    async with simulator.connector(HASTY) as hasty, simulator.connector() as connector:
        assert (await hasty.submit(asked)).kind is UNCONFIRMED
        for _ in range(2):
            assert (await connector.enquire(asked.reference)).kind is NEVER_RECEIVED
        assert await times_executed(connector, asked) == 0


async def test_a_request_that_arrives_after_the_enquiry_is_refused_for_good(simulator: SimulatorProcess) -> None:
    """It was on its way the whole time; had the enquiry not closed the reference, money would move now."""
    asked = payment("SIM:LATE")
    async with simulator.connector() as connector:
        late = asyncio.create_task(connector.submit(asked))
        await asyncio.sleep(0.5)
        assert (await connector.enquire(asked.reference)).kind is NEVER_RECEIVED
        outcome = await late
        assert (outcome.kind, outcome.reason) == (REFUSED, "REFERENCE_CLOSED")
        assert (await connector.enquire(asked.reference)).kind is NEVER_RECEIVED
        assert await times_executed(connector, asked) == 0


@pytest.mark.parametrize(("word", "end", "times"), [("PENDING-SETTLE", SETTLED, 1), ("PENDING-FAIL", REFUSED, 0)])
async def test_a_pending_payment_comes_to_its_end(
    simulator: SimulatorProcess, word: str, end: OutcomeKind, times: int
) -> None:
    asked = payment(f"SIM:{word}")
    async with simulator.connector() as connector:
        assert (await connector.submit(asked)).kind is PENDING
        assert await times_executed(connector, asked) == 0
        assert await ended(connector, asked) is end
        assert (await connector.enquire(asked.reference)).reason == ("" if end is SETTLED else "AC06")
        assert await times_executed(connector, asked) == times


async def test_a_payment_that_waits_for_an_enquiry_settles_with_it_once(simulator: SimulatorProcess) -> None:
    asked = payment("SIM:PENDING-ENQUIRY")
    async with simulator.connector() as connector:
        assert (await connector.submit(asked)).kind is PENDING
        await asyncio.sleep(1.5)
        assert await times_executed(connector, asked) == 0
        assert [(await connector.enquire(asked.reference)).kind for _ in range(3)] == [SETTLED] * 3
        assert await times_executed(connector, asked) == 1


async def test_an_unknown_magic_word_is_refused_with_the_list_of_those_there_are(simulator: SimulatorProcess) -> None:
    asked = payment("SIM:EXPLODE")
    async with simulator.connector() as connector:
        outcome = await connector.submit(asked)
        assert (outcome.kind, outcome.reason) == (REFUSED, "FF01")
        assert "PENDING-SETTLE" in outcome.detail
        assert await times_executed(connector, asked) == 0


async def test_submitted_again_and_again_at_once_it_is_executed_once(simulator: SimulatorProcess) -> None:
    asked = payment()
    async with simulator.connector() as connector:
        outcomes = await asyncio.gather(*(connector.submit(asked) for _ in range(50)))
        assert {outcome.kind for outcome in outcomes} == {SETTLED}
        assert len({outcome.provider_reference for outcome in outcomes}) == 1
        assert await times_executed(connector, asked) == 1


async def test_submissions_and_enquiries_that_race_agree_in_the_end(simulator: SimulatorProcess) -> None:
    """Whoever comes first wins for good: executed once and said so, or closed and never executed."""
    asked = [payment() for _ in range(100)]
    async with simulator.connector() as connector:
        outcomes = await asyncio.gather(
            *(call for each in asked for call in (connector.submit(each), connector.enquire(each.reference)))
        )
        counts = Counter(line.reference for line in await connector.executions())
    for each, submitted, enquired in zip(asked, outcomes[::2], outcomes[1::2], strict=True):
        assert (submitted.kind, enquired.kind) in {(SETTLED, SETTLED), (REFUSED, NEVER_RECEIVED)}
        assert counts[each.reference] == (1 if submitted.kind is SETTLED else 0)


async def test_the_same_reference_for_another_payment_is_unconfirmed_and_not_executed(
    simulator: SimulatorProcess,
) -> None:
    """The provider's 409 says that the reference was used, not what became of that payment."""
    asked = payment()
    other = Payment(
        reference=asked.reference,
        direction=asked.direction,
        money=payment(amount="120.51").money,
        counterparty=asked.counterparty,
        due_on=asked.due_on,
    )
    async with simulator.connector() as connector:
        assert (await connector.submit(asked)).kind is SETTLED
        assert (await connector.submit(other)).kind is UNCONFIRMED
        lines = [line.money for line in await connector.executions() if line.reference == asked.reference]
    assert lines == [asked.money]


async def test_paid_under_two_references_is_visible_by_the_instruction(simulator: SimulatorProcess) -> None:
    """What a platform with a bug would do. The books must not be able to hide it."""
    instruction = new_uuid().hex
    async with simulator.connector() as connector:
        for _ in range(2):
            assert (await connector.submit(payment(instruction=instruction))).kind is SETTLED
    books = msgspec.json.decode((await simulator.call("GET", "/books")).body)
    assert {"instruction": instruction, "count": 2} in books["repeated_instructions"]
    assert books["repeated_references"] == []


async def test_with_the_wrong_secret_nothing_is_done(simulator: SimulatorProcess) -> None:
    asked = payment()
    async with simulator.connector(secret="another secret, just as long as the real one") as stranger:
        outcome = await stranger.submit(asked)
        assert (outcome.kind, outcome.reason) == (REFUSED, "UNAUTHENTICATED")
        assert (await stranger.enquire(asked.reference)).kind is UNCONFIRMED
    async with simulator.connector() as connector:
        assert (await connector.submit(asked)).kind is SETTLED


async def test_when_nothing_left_the_outcome_says_so(simulator: SimulatorProcess) -> None:
    async with simulator.outbound(HASTY) as outbound:
        elsewhere = "https://elsewhere.example"
        connector = Simulator(outbound=outbound, url=elsewhere, secret=Secret(SECRET), clock=SystemClock())
        outcome = await connector.submit(payment())
        assert (outcome.kind, outcome.reason) == (OutcomeKind.NOT_SENT, "NOT_SENT")
        assert (await connector.enquire(new_uuid().hex)).kind is UNCONFIRMED


# The operator's switch


async def test_an_outage_for_the_next_requests(simulator: SimulatorProcess) -> None:
    asked = payment()
    answer = await simulator.call("POST", "/behaviour", {"behaviour": "outage", "requests": 2})
    assert answer.status == 200
    async with simulator.connector() as connector:
        outcome = await connector.submit(asked)
        assert (outcome.kind, outcome.detail) == (UNCONFIRMED, "status 503")
        assert (await connector.enquire(asked.reference)).kind is UNCONFIRMED
        assert (await connector.enquire(asked.reference)).kind is NEVER_RECEIVED


async def test_a_refusal_for_everybody_until_it_is_cleared(simulator: SimulatorProcess) -> None:
    await simulator.call("POST", "/behaviour", {"behaviour": "refuse", "reason": "AG01"})
    async with simulator.connector() as connector:
        outcomes = [await connector.submit(payment()) for _ in range(3)]
        assert {(outcome.kind, outcome.reason) for outcome in outcomes} == {(REFUSED, "AG01")}
        await simulator.call("POST", "/behaviour", {"behaviour": None})
        assert (await connector.submit(payment())).kind is SETTLED


# The dialect


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": "0"},
        {"amount": "-1.00"},
        {"amount": "1.001"},
        {"amount": "1e3"},
        {"amount": 12.5},
        {"currency": "XXX"},
        {"direction": "credit"},
        {"account": {"holder": "Ada Sample"}},
        {"account": {"holder": "", "iban": "DE89370400440532013000"}},
        {"due_on": "02.01.2030"},
        {"remittance": "x" * 141},
        {"surprise": True},
    ],
)
async def test_a_request_that_breaks_the_rules_is_refused_and_its_reference_used_up(
    simulator: SimulatorProcess, changes: dict[str, object]
) -> None:
    reference = new_uuid().hex
    answer = await simulator.call("POST", "/payments", dialect(reference, **changes), idempotency_key=reference)
    said = msgspec.json.decode(answer.body)
    assert (answer.status, said["status"], said["reason"]) == (422, "REFUSED", "FF01")
    assert said["reference"] == reference
    assert said["detail"]
    again = await simulator.call("POST", "/payments", dialect(reference), idempotency_key=reference)
    assert again.status == 409


@pytest.mark.parametrize("url", ["http://localhost:1/", "localhost", "https://", "https://localhost:0x1/"])
async def test_a_callback_address_that_can_not_be_called_is_refused(simulator: SimulatorProcess, url: str) -> None:
    reference = new_uuid().hex
    for callback_url in (url, ""):
        body = dialect(reference, callback_url=callback_url)
        answer = await simulator.call("POST", "/payments", body, idempotency_key=reference)
        assert answer.status == 422
        assert "callback_url" in msgspec.json.decode(answer.body)["detail"]


async def test_a_broken_request_under_a_reference_in_use_does_not_call_that_payment_refused(
    simulator: SimulatorProcess,
) -> None:
    reference = new_uuid().hex
    first = await simulator.call("POST", "/payments", dialect(reference), idempotency_key=reference)
    assert first.status == 200
    for body in (b"{", b'"\xff"', msgspec.json.encode(dialect(reference, amount="0"))):
        answer = await simulator.call("POST", "/payments", body, idempotency_key=reference)
        assert answer.status == 409


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/payments/nonsense", None, 400),
        ("POST", "/payments", {}, 400),
        ("POST", "/payments", b"x" * 70_000, 413),
        ("GET", "/books?take=0", None, 400),
        ("GET", "/books?after=x", None, 400),
        ("POST", "/behaviour", {"behaviour": "explode"}, 400),
        ("POST", "/behaviour", {"behaviour": "outage", "requests": 0}, 400),
        ("DELETE", "/books", None, 404),
        ("GET", "/", None, 404),
    ],
)
async def test_other_wrong_requests(
    simulator: SimulatorProcess, method: str, path: str, body: object, status: int
) -> None:
    answer = await simulator.call(method, path, body)
    assert answer.status == status
    assert set(msgspec.json.decode(answer.body)["error"]) == {"code", "message"}


@pytest.mark.parametrize("path", ["/payments/" + "0" * 32, "/books"])
@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic eDp5"])
async def test_nothing_is_told_to_strangers(simulator: SimulatorProcess, path: str, authorization: str) -> None:
    answer = await simulator.call("GET", path, authorization=authorization)
    assert answer.status == 401
    assert b"SETTLED" not in answer.body


async def test_the_books_are_read_page_by_page(simulator: SimulatorProcess) -> None:
    async with simulator.connector() as connector:
        await asyncio.gather(*(connector.submit(payment()) for _ in range(5)))
        everything = [line.reference for line in await connector.executions()]
    read: list[str] = []
    after: int | None = 0
    while after is not None:
        page = msgspec.json.decode((await simulator.call("GET", f"/books?after={after}&take=3")).body)
        assert page["executions"] == len(everything)
        read += [line["reference"] for line in page["lines"]]
        after = page["next"]
    assert read == everything
