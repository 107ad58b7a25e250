"""Callbacks: who sent them, when, how often and in which order."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from strongroom.kernel.clock import ManualClock, SystemClock
from strongroom.kernel.errors import Invalid, Unauthenticated
from strongroom.kernel.ids import new_uuid
from strongroom.kernel.secret import Secret
from strongroom.outbound import Outbound
from strongroom.rails.connectors.simulator import Simulator
from strongroom.rails.contract import Outcome, OutcomeKind
from tests.outbound.scripted import Peer, scripted
from tests.rails.simulator.process import SECRET, SimulatorProcess, payment

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


class Inbox:
    """A receiver of callbacks. Answers with `answers` first, and takes everything afterwards."""

    def __init__(self, *answers: bytes) -> None:
        self.url = ""
        self.received: list[tuple[dict[str, str], bytes]] = []
        self._answers = list(answers)
        self._arrival = asyncio.Condition()

    @asynccontextmanager
    async def open(self, simulator: SimulatorProcess) -> AsyncIterator[Inbox]:
        tls = simulator.authority.issue("localhost").server_context()
        async with scripted(self._serve, tls) as server:
            self.url = f"https://localhost:{server.port}/callbacks"
            yield self

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(10), self._arrival:
            await self._arrival.wait_for(lambda: len(self.received) >= count)

    async def _serve(self, peer: Peer) -> None:
        while request := await peer.request():
            head, _, body = request.partition(b"\r\n\r\n")
            lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
            headers = {name.decode(): value.strip().decode() for name, _, value in lines}
            async with self._arrival:
                self.received.append((headers, body))
                self._arrival.notify_all()
            await peer.say(self._answers.pop(0) if self._answers else OK)


def said(connector: Simulator, inbox: Inbox) -> list[OutcomeKind]:
    return [outcome.kind for headers, body in inbox.received for outcome in connector.read_notification(headers, body)]


@pytest.mark.parametrize(
    ("word", "kind", "reason"),
    [("PENDING-SETTLE", OutcomeKind.SETTLED, ""), ("PENDING-FAIL", OutcomeKind.REFUSED, "AC06")],
)
async def test_the_end_of_a_pending_payment_is_called_back_once(
    simulator: SimulatorProcess, word: str, kind: OutcomeKind, reason: str
) -> None:
    asked = payment(f"SIM:{word}")
    async with Inbox().open(simulator) as inbox, simulator.connector(callback_url=inbox.url) as connector:
        submitted = await connector.submit(asked)
        await inbox.wait_for(1)
        await asyncio.sleep(0.5)
        ((headers, body),) = inbox.received
        (outcome,) = connector.read_notification(headers, body)
        assert (outcome.kind, outcome.reference, outcome.reason) == (kind, asked.reference, reason)
        assert outcome.provider_reference == submitted.provider_reference
        assert outcome == await connector.enquire(asked.reference)


async def test_duplicates_are_the_same_message(simulator: SimulatorProcess) -> None:
    async with Inbox().open(simulator) as inbox, simulator.connector(callback_url=inbox.url) as connector:
        await connector.submit(payment("SIM:DUPLICATE-CALLBACK"))
        await inbox.wait_for(3)
        assert said(connector, inbox) == [OutcomeKind.SETTLED] * 3
        assert len({headers["webhook-id"] for headers, _ in inbox.received}) == 1


async def test_out_of_order_the_older_word_comes_last_and_says_that_it_is_older(simulator: SimulatorProcess) -> None:
    async with Inbox().open(simulator) as inbox, simulator.connector(callback_url=inbox.url) as connector:
        await connector.submit(payment("SIM:OUT-OF-ORDER"))
        await inbox.wait_for(2)
        outcomes: list[Outcome] = []
        for headers, body in inbox.received:
            outcomes += connector.read_notification(headers, body)
    assert [outcome.kind for outcome in outcomes] == [OutcomeKind.SETTLED, OutcomeKind.PENDING]
    assert outcomes[0].at is not None
    assert outcomes[1].at is not None
    assert outcomes[1].at < outcomes[0].at


async def test_a_callback_that_is_not_taken_is_sent_again_and_signed_again(simulator: SimulatorProcess) -> None:
    async with Inbox(BUSY, BUSY).open(simulator) as inbox, simulator.connector(callback_url=inbox.url) as connector:
        await connector.submit(payment("SIM:PENDING-SETTLE"))
        await inbox.wait_for(3)
        assert said(connector, inbox) == [OutcomeKind.SETTLED] * 3
        assert len({headers["webhook-id"] for headers, _ in inbox.received}) == 1
        assert len({headers["webhook-timestamp"] for headers, _ in inbox.received}) > 1


async def test_callbacks_survive_a_kill(mortal: SimulatorProcess) -> None:
    await mortal.start()
    async with Inbox().open(mortal) as inbox, mortal.connector(callback_url=inbox.url) as connector:
        assert (await connector.submit(payment("SIM:PENDING-SETTLE"))).kind is OutcomeKind.PENDING
        mortal.kill()
        await mortal.start()
        await inbox.wait_for(1)
        assert said(connector, inbox) == [OutcomeKind.SETTLED]


# Forged, altered, replayed. No process is needed for these: the sender is written here, after the specification.

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
REFERENCE = new_uuid().hex
BODY = (
    b'{"type":"payment.settled","timestamp":"2030-01-02T03:04:05Z","data":{"reference":"'
    + REFERENCE.encode()
    + b'","status":"SETTLED"}}'
)


def signed(body: bytes = BODY, *, at: datetime = NOW, secret: str = SECRET) -> dict[str, str]:
    key = hmac.digest(secret.encode(), b"strongroom-simulator/callbacks", hashlib.sha256)
    stamp = str(int(at.timestamp()))
    signature = hmac.new(key, b"msg_1." + stamp.encode() + b"." + body, hashlib.sha256).digest()
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": stamp,
        "Webhook-Signature": "v1," + base64.b64encode(signature).decode(),
    }


@pytest.fixture
async def reader() -> AsyncIterator[Simulator]:
    async with Outbound(allowed=[]) as nowhere:
        yield Simulator(outbound=nowhere, url="https://nowhere.example", secret=Secret(SECRET), clock=ManualClock(NOW))


async def test_a_genuine_notification_is_read(reader: Simulator) -> None:
    (outcome,) = reader.read_notification(signed(), BODY)
    assert (outcome.kind, outcome.reference) == (OutcomeKind.SETTLED, REFERENCE)


async def test_one_of_several_signatures_is_enough(reader: Simulator) -> None:
    headers = signed()
    headers["Webhook-Signature"] = f"v1a,AAAA v1,AAAA {headers['Webhook-Signature']}"
    assert len(reader.read_notification(headers, BODY)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"Webhook-Id": "msg_2"},
        {"Webhook-Id": ""},
        {"Webhook-Timestamp": str(int(NOW.timestamp()) + 1)},
        {"Webhook-Timestamp": ""},
        {"Webhook-Timestamp": "soon"},
        {"Webhook-Signature": ""},
        {"Webhook-Signature": "v1,"},
        {"Webhook-Signature": "v1,!!!"},
        {"Webhook-Signature": "v1,ü"},
        {"Webhook-Signature": signed(BODY + b" ")["Webhook-Signature"]},
        {"Webhook-Signature": signed(secret="another secret, just as long as the real one")["Webhook-Signature"]},
        {"Webhook-Signature": signed()["Webhook-Signature"].replace("v1,", "v2,")},
    ],
)
async def test_a_forged_notification_is_refused(reader: Simulator, changes: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        reader.read_notification(signed() | changes, BODY)
    assert refusal.value.code == "NOTIFICATION_SIGNATURE_INVALID"


async def test_an_altered_body_or_no_header_at_all_is_refused(reader: Simulator) -> None:
    for headers, body in ((signed(), BODY.replace(b"SETTLED", b"REFUSED")), ({}, BODY)):
        with pytest.raises(Unauthenticated):
            reader.read_notification(headers, body)


@pytest.mark.parametrize(("seconds", "taken"), [(-301, False), (-300, True), (300, True), (301, False)])
async def test_a_replay_is_refused_after_five_minutes(reader: Simulator, seconds: int, taken: bool) -> None:
    headers = signed(at=NOW + timedelta(seconds=seconds))
    if taken:
        assert len(reader.read_notification(headers, BODY)) == 1
    else:
        with pytest.raises(Unauthenticated):
            reader.read_notification(headers, BODY)


@pytest.mark.parametrize("status", ["NEVER_RECEIVED", "PAID", "settled", ""])
async def test_a_genuine_notification_with_a_word_nobody_knows_is_unconfirmed(reader: Simulator, status: str) -> None:
    body = BODY.replace(b'"SETTLED"', f'"{status}"'.encode())
    (outcome,) = reader.read_notification(signed(body), body)
    assert (outcome.kind, outcome.reference) == (OutcomeKind.UNCONFIRMED, REFERENCE)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"type":"x"}', b'"\xff"'])
async def test_a_genuine_notification_that_says_nothing_is_refused(reader: Simulator, body: bytes) -> None:
    with pytest.raises(Invalid) as refusal:
        reader.read_notification(signed(body), body)
    assert refusal.value.code == "NOTIFICATION_NOT_UNDERSTOOD"


async def test_signatures_of_the_simulator_are_fresh(simulator: SimulatorProcess) -> None:
    """Whatever its time zone."""
    async with Inbox().open(simulator) as inbox, simulator.connector(callback_url=inbox.url) as connector:
        await connector.submit(payment("SIM:PENDING-SETTLE"))
        await inbox.wait_for(1)
    stamp = int(inbox.received[0][0]["webhook-timestamp"])
    assert abs(SystemClock().now().timestamp() - stamp) < 10
