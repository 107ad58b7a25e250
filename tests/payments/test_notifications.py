"""Callbacks at the API's door: genuine or not, duplicate, out of order, late, about somebody else's payments."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from strongroom.kernel.clock import ManualClock
from strongroom.kernel.ids import new_uuid
from strongroom.kernel.money import Money
from strongroom.kernel.secret import Secret
from strongroom.payments.notifications import REFUSED_AFTER_S
from strongroom.rails.contract import Outcome
from strongroom.rails.simulator.callbacks import signed_headers, signing_key
from tests.fixtures.platform import Platform
from tests.payments.paying import Payer
from tests.rails.simulator.process import SimulatorProcess

STRANGER = UUID(int=7).hex
"""A reference that nobody has."""


class Provider:
    """Calls back as the simulator does, with what it wants to say."""

    def __init__(self, platform: Platform, tenant: UUID | str) -> None:
        self._platform = platform
        self._tenant = tenant
        platform.app.installation.certificate()  # with the authority that the way out trusts
        self._secret = platform.app.installation.simulator_secret_file().read_text().strip().encode()

    async def call(
        self,
        reference: str,
        status: str,
        *,
        app: str = "simulator",
        secret: bytes | None = None,
        late_by: timedelta = timedelta(0),
        changed: bytes = b"",
        **data: Any,
    ) -> httpx.Response:
        now = datetime.now(UTC).isoformat()
        body = msgspec.json.encode(
            {"type": "payment.x", "timestamp": now, "data": {"reference": reference, "status": status, **data}}
        )
        key = signing_key(Secret(secret or self._secret))
        headers = signed_headers(key, "msg_1", body, datetime.now(UTC) - late_by)
        path = f"/v1/notifications/{self._tenant}/{app}"
        return await self._platform.http.post(path, headers=headers, content=body + changed)


@pytest.fixture
def provider(platform: Platform, payer: Payer) -> Provider:
    return Provider(platform, payer.tenant)


@pytest.fixture
async def pending(payer: Payer) -> str:
    """An instruction that the rail has accepted and will end later."""
    [named] = await payer.instruct("SIM:PENDING-ENQUIRY")
    async with payer.rail() as rail:
        await payer.dispatcher(rail).round(payer.tenant)
    assert await payer.status(named) == "PROCESSING"
    return named


async def reference_of(payer: Payer, named: str) -> str:
    return (await payer.references(named))[-1]


@pytest.mark.parametrize(
    ("word", "reason", "ends"),
    [("SETTLED", "", "COMPLETED"), ("REFUSED", "AC06", "FAILED"), ("PENDING", "", "PROCESSING")],
)
async def test_a_callback_counts(  # noqa: PLR0917  # fixtures
    payer: Payer, provider: Provider, pending: str, word: str, reason: str, ends: str
) -> None:
    answer = await provider.call(await reference_of(payer, pending), word, reason=reason)
    assert (answer.status_code, answer.content) == (204, b"")
    assert await payer.status(pending) == ends


async def test_duplicates_and_what_comes_late_change_nothing(payer: Payer, provider: Provider, pending: str) -> None:
    reference = await reference_of(payer, pending)
    for word in ("SETTLED", "SETTLED", "PENDING", "SETTLED"):
        assert (await provider.call(reference, word)).status_code == 204
    assert (await payer.status(pending), await payer.attempts(pending)) == ("COMPLETED", ["SUCCESS"])
    assert await payer.reasons(pending) == ["", "", ""]  # asked for, accepted, settled
    assert await payer.actions("transaction.contradiction") == []


async def test_the_same_callback_many_times_at_once_counts_once(payer: Payer, provider: Provider, pending: str) -> None:
    reference = await reference_of(payer, pending)
    answers = await asyncio.gather(*(provider.call(reference, "SETTLED") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {204}
    assert await payer.reasons(pending) == ["", "", ""]


async def test_the_opposite_of_an_end_is_recorded_and_not_applied(
    payer: Payer, provider: Provider, pending: str
) -> None:
    reference = await reference_of(payer, pending)
    await provider.call(reference, "SETTLED")
    assert (await provider.call(reference, "REFUSED", reason="AC06")).status_code == 204
    assert await payer.status(pending) == "COMPLETED"
    assert [detail for _, _, detail in await payer.actions("transaction.contradiction")] == ["SUCCESS REFUSED"]


@pytest.mark.parametrize("reason", ["NOT_SENT", "NEVER_RECEIVED", "RETURNED-AC06"])
async def test_a_refusal_is_an_end_whatever_its_reason_is_called(
    payer: Payer, provider: Provider, pending: str, reason: str
) -> None:
    """With a word of ours a provider could have had a payment made again and again, and kept the money each time."""
    reference = await reference_of(payer, pending)
    assert (await provider.call(reference, "REFUSED", reason=reason)).status_code == 204
    assert (await payer.status(pending), await payer.attempts(pending)) == ("FAILED", ["FAILED"])


async def test_a_settled_payment_is_not_taken_back_by_a_word(payer: Payer, provider: Provider, pending: str) -> None:
    reference = await reference_of(payer, pending)
    await provider.call(reference, "SETTLED")
    await provider.call(reference, "REFUSED", reason="RETURNED")
    assert await payer.status(pending) == "COMPLETED"
    assert [detail for _, _, detail in await payer.actions("transaction.contradiction")] == ["SUCCESS REFUSED"]


@pytest.mark.parametrize("said", [{"amount": "0.01"}, {"currency": "JPY", "amount": "1"}, {"amount": "1000000.00"}])
async def test_a_callback_about_another_amount_is_recorded_and_changes_nothing(
    payer: Payer, provider: Provider, pending: str, said: dict[str, str]
) -> None:
    answer = await provider.call(await reference_of(payer, pending), "SETTLED", **{"currency": "EUR", **said})
    assert answer.status_code == 204
    assert await payer.status(pending) == "PROCESSING"
    assert [detail for _, _, detail in await payer.actions("transaction.contradiction")] == [
        "PROCESSING SETTLED of another amount"
    ]


async def test_an_enquiry_about_another_amount_leaves_the_outcome_open(
    payer: Payer, pending: str, clock: ManualClock
) -> None:
    clock.advance(timedelta(minutes=1))
    async with payer.rail() as rail:
        enquire = rail.provider.enquire

        async def half(reference: str) -> Outcome:
            outcome = await enquire(reference)
            assert outcome.money is not None
            return replace(outcome, money=Money(outcome.money.minor // 2, outcome.money.currency))

        rail.provider.enquire = half  # type: ignore[method-assign]  # a provider that paid half of it
        await payer.dispatcher(rail).round(payer.tenant)
        assert rail.enquired
        assert await payer.status(pending) == "PROCESSING"
        rail.provider.enquire = enquire  # type: ignore[method-assign]  # honest again
        clock.advance(timedelta(hours=1))
        await payer.dispatcher(rail).round(payer.tenant)
    assert await payer.status(pending) == "COMPLETED"
    assert len(await payer.actions("transaction.contradiction")) == 1


async def test_a_callback_may_come_before_the_answer(payer: Payer, provider: Provider) -> None:
    """The provider is quicker to call back than to answer, and the answer is lost or says less."""
    [named] = await payer.instruct("SIM:PENDING-ENQUIRY")
    async with payer.rail() as rail:
        told: list[asyncio.Task[httpx.Response]] = []
        rail.before = lambda payment: told.append(asyncio.create_task(provider.call(payment.reference, "SETTLED")))
        submit = rail.provider.submit

        async def slow(payment: Any) -> Any:
            await told[0]
            return await submit(payment)

        rail.provider.submit = slow  # type: ignore[method-assign]  # a connection that is slower than a callback
        await payer.dispatcher(rail).round(payer.tenant)
    assert told[0].result().status_code == 204
    assert (await payer.status(named), await payer.attempts(named)) == ("COMPLETED", ["SUCCESS"])


async def test_what_is_not_understood_is_recorded_and_changes_nothing(
    payer: Payer, provider: Provider, pending: str
) -> None:
    assert (await provider.call(await reference_of(payer, pending), "ON_HOLIDAY")).status_code == 204
    assert await payer.status(pending) == "PROCESSING"
    assert len(await payer.actions("notification.not-understood")) == 1


@pytest.mark.parametrize("reference", [STRANGER, "nonsense", "A" * 32, "{" + STRANGER[:30] + "}", ""])
async def test_an_unknown_reference_is_taken_and_recorded(payer: Payer, provider: Provider, reference: str) -> None:
    assert (await provider.call(reference, "SETTLED")).status_code == 204
    assert len(await payer.actions("notification.unknown-reference")) == 1


async def test_another_tenants_payment_is_out_of_reach(
    platform: Platform, payer: Payer, pending: str, simulator: SimulatorProcess
) -> None:
    other = await Payer.make(payer.app, await platform.new_tenant(), simulator, payer.outbox)
    answer = await Provider(platform, other.tenant).call(await reference_of(payer, pending), "SETTLED")
    assert answer.status_code == 204
    assert await payer.status(pending) == "PROCESSING"
    assert len(await other.actions("notification.unknown-reference")) == 1


async def test_an_app_speaks_for_its_own_payments_only(payer: Payer, provider: Provider, pending: str) -> None:
    async with payer.operation() as op:
        await op.run("update transactions set app_id = 'another' where app_id = 'simulator'")
    assert (await provider.call(await reference_of(payer, pending), "SETTLED")).status_code == 204
    assert await payer.status(pending) == "PROCESSING"
    assert len(await payer.actions("notification.unknown-reference")) == 1


@pytest.mark.parametrize(
    "forged",
    [
        {"secret": b"another secret, 32 characters and more"},
        {"late_by": timedelta(minutes=30)},
        {"late_by": timedelta(minutes=-30)},
        {"changed": b" "},
    ],
)
async def test_a_forged_or_stale_callback_is_refused(
    payer: Payer, provider: Provider, pending: str, forged: dict[str, Any]
) -> None:
    answer = await provider.call(await reference_of(payer, pending), "SETTLED", **forged)
    assert answer.status_code == 401
    assert answer.json()["errors"][0]["errorCode"] == "NOTIFICATION_SIGNATURE_INVALID"
    assert await payer.status(pending) == "PROCESSING"


async def test_a_stranger_learns_nothing_of_who_is_here_and_what_they_use(
    platform: Platform, payer: Payer, provider: Provider
) -> None:
    """One answer, word for word, and none before the same time, whatever is wrong."""
    bare = str((await platform.new_tenant()).tenant_id)
    wrong: dict[str, tuple[UUID | str, str, bytes | None]] = {
        "signature": (payer.tenant, "simulator", b"another secret, 32 characters and more"),
        "app that sends none": (payer.tenant, "sepa-credit-transfer", None),
        "no such app": (payer.tenant, "no-such-app", None),
        "app not installed": (bare, "simulator", None),
        "no such tenant": (new_uuid(), "simulator", None),
        "no tenant's id": ("nobody", "simulator", None),
    }
    said = set()
    for tenant, app, secret in wrong.values():
        began = time.monotonic()
        answer = await Provider(platform, tenant).call(new_uuid().hex, "SETTLED", app=app, secret=secret)
        assert time.monotonic() - began >= REFUSED_AFTER_S
        [failure] = answer.json()["errors"]
        del failure["metadata"]["correlationId"]
        said.add((answer.status_code, str(failure), answer.headers["www-authenticate"]))
    assert len(said) == 1
    assert said.pop()[0] == 401
