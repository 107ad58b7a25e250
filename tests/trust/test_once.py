"""PAY-2 turns red when a payment is sent again under another reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pytest

from strongroom.kernel.ids import new_uuid
from strongroom.rails.contract import Outcome, OutcomeKind, Payment, Provider
from strongroom.trust import Workbench
from strongroom.trust.checks.once import check_once
from strongroom.trust.verdicts import CannotTell


@dataclasses.dataclass(frozen=True)
class Impatient:
    """Hears nothing, and tries again as if nothing had happened."""

    provider: Provider

    async def submit(self, payment: Payment) -> Outcome:
        outcome = await self.provider.submit(payment)
        if outcome.kind is OutcomeKind.UNCONFIRMED:
            outcome = await self.provider.submit(
                dataclasses.replace(payment, reference=new_uuid().hex, remittance="again")
            )
        return dataclasses.replace(outcome, reference=payment.reference)

    async def enquire(self, reference: str) -> Outcome:
        return await self.provider.enquire(reference)

    def read_notification(self, headers: Mapping[str, str], body: bytes) -> Sequence[Outcome]:
        return self.provider.read_notification(headers, body)


class Credulous(Impatient):
    """Takes it for granted that what wasn't answered was executed."""

    async def submit(self, payment: Payment) -> Outcome:
        outcome = await self.provider.submit(payment)
        if outcome.kind is OutcomeKind.UNCONFIRMED:
            return dataclasses.replace(outcome, kind=OutcomeKind.SETTLED)
        return outcome


async def test_dispatch_as_it_is_is_green(bench: Workbench) -> None:
    figure = await check_once(bench)
    assert figure.breaches == ()
    assert figure.text == (
        "21 instructions, 12 misbehaviours, 2 deaths: 18 executed once, 3 refused and never executed, 0 executed twice"
    )


async def test_trying_again_under_another_reference_is_red(bench: Workbench) -> None:
    figure = await check_once(bench, rail=Impatient)
    assert figure.breaches.count("SIM:TIMEOUT-AFTER was executed 2 times") == 2
    assert "SIM:ERROR-200 was executed 2 times" in figure.breaches
    assert any(breach.startswith("the books have a reference that we never wrote") for breach in figure.breaches)


async def test_guessing_that_it_was_executed_is_red(bench: Workbench) -> None:
    figure = await check_once(bench, rail=Credulous)
    assert "SIM:TIMEOUT-BEFORE is SUCCESS and was executed 0 times" in figure.breaches


async def test_without_a_simulator_nothing_is_claimed(bench: Workbench) -> None:
    with pytest.raises(CannotTell):
        await check_once(dataclasses.replace(bench, simulator=None))
