"""Approvals and dispatch: what waits isn't sent, what is approved is, and what has waited for too long never is."""

from __future__ import annotations

from datetime import timedelta

import pytest

from strongroom.database import Operation
from strongroom.kernel.actors import Actor
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Conflict
from strongroom.payments.approval_rules import Rule, create_rule
from strongroom.payments.approvals import decide
from tests.fixtures.platform import Client
from tests.payments.paying import Payer


async def approve(payer: Payer, named: str, approver: Actor) -> None:
    """Somebody else's word, as of the payer's process."""
    order_ref, _, ref = named.partition("/")
    async with payer.app.databases.operation(approver, account=payer.account, tenant=payer.tenant) as op:
        await decide(op, order_ref, ref, "APPROVE")


async def make_rule(op: Operation) -> None:
    await create_rule(op, Rule(name="All", hours=72))


async def test_only_what_is_approved_in_time_is_sent(payer: Payer, tenant: Client, clock: ManualClock) -> None:
    async with payer.operation() as op:
        await make_rule(op)
    [approved] = await payer.instruct("approved")
    [waits] = await payer.instruct("waits")
    other = await tenant.new_key("tenant-approval")
    await other.sign_in()
    approver = payer.app.tokens.read(other.token).actor
    await approve(payer, approved, approver)
    async with payer.rail() as rail:
        dispatcher = payer.dispatcher(rail)
        await dispatcher.round(payer.tenant)
        assert [payment.remittance for payment in rail.submitted] == ["approved"]
        assert await payer.status(waits) == "AWAITING_APPROVAL"
        clock.advance(timedelta(hours=72))
        with pytest.raises(Conflict, match="too long"):
            await approve(payer, waits, approver)
        await dispatcher.round(payer.tenant)
        assert await payer.status(waits) == "CANCELLED"
        assert (await payer.reasons(waits))[-1] == "APPROVAL_EXPIRED"
        assert len(rail.submitted) == 1
