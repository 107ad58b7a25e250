"""ACC-5: who moves money does so within limits, and nobody lets out alone what a rule wants two for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from strongroom.payments.approvals import expire
from strongroom.rails.marketplace import SEPA_CREDIT_TRANSFER
from strongroom.trust import bank
from strongroom.trust.client import Caller, codes
from strongroom.trust.furnishing import make_holder
from strongroom.trust.stage import PROVER, Stage, stage
from strongroom.trust.verdicts import Figure, Findings
from strongroom.trust.workbench import Workbench

_ORDERS: Final = "/v1/order-management"
_FAR_OFF: Final = "2099-12-31"
_IBAN: Final = "DE89370400440532013000"
"""The published example."""
_LARGE: Final = "1000.00"
_SMALL: Final = "999.99"
_PAYING: Final = ["transactions:read", "transactions:write"]


class _Payouts:
    """Makes payouts of a tenant, with this in each of them; one reference after the other."""

    def __init__(self, complete: Mapping[str, str]) -> None:
        self._complete = complete
        self._made = 0

    async def send(self, caller: Caller, amount: str, currency: str = "EUR") -> tuple[str, int, str]:
        """One more: its path, the answer's status, and its codes."""
        self._made += 1
        ref = f"prove-{'complete' if self._complete else 'open'}-{self._made}"
        instruction = {
            "instructionRef": "i", "customerRef": "prove", "direction": "CREDIT", "amount": amount,
            "currency": currency, "country": "DE", "settledByDate": _FAR_OFF, **self._complete,
        }  # fmt: skip
        answer = await caller.send("POST", _ORDERS, {"orderRef": ref, "instructions": [instruction]})
        return f"{_ORDERS}/{ref}/instruction/i", answer.status, codes(answer)

    async def make(self, caller: Caller, amount: str) -> str:
        """One that has to be taken; its path."""
        path, status, said = await self.send(caller, amount)
        if status != 202:
            raise ValueError(f"a payout was answered {status} {said}")
        return path


async def check_limits(bench: Workbench) -> Figure:
    """See the module."""
    findings = Findings()
    async with stage(bench) as scene:
        admin = await scene.caller(scene.here)
        await _check_ceilings(findings, scene, admin)
        await _check_step_up(findings, scene, admin)
        await _check_four_eyes(findings, bench, scene, admin)
    return findings.figure(
        "ceilings for a payment and for a day hold, other currencies are refused, what takes a fresh proof is refused "
        "to keys; a large payout waits, no author lets it go, nor by a key of theirs; another does, once, in time, and "
        "for exactly what they saw"
    )


async def _complete(admin: Caller) -> Mapping[str, str]:
    """A scheme and an account to pay to."""
    settings = {"holder": "Ada Sample", "iban": _IBAN, **bank.SETTINGS}
    await admin.done("POST", f"/v1/marketplace/apps/{SEPA_CREDIT_TRANSFER}/install")
    await admin.done("POST", f"/v1/apps/installed/{SEPA_CREDIT_TRANSFER}/configuration", settings)
    rules = [{"apps": [{"appId": SEPA_CREDIT_TRANSFER}], "currencies": ["EUR"]}]
    made = await admin.done("POST", "/v1/schemes/payout", {"name": "prove", "rules": rules})
    draft = made["drafts"][0]["draftId"]
    await admin.done("POST", f"/v1/schemes/payout/{made['schemeId']}/drafts/{draft}/publish")
    account = {"type": "BANK_ACCOUNT", "accountHolderName": "Ada Sample", "iban": _IBAN}
    instrument = await admin.done("POST", "/v1/customer-vault/prove/financial-instrument", account)
    return {"schemeId": made["schemeId"], "financialInstrumentId": instrument["id"]}


async def _check_ceilings(findings: Findings, scene: Stage, admin: Caller) -> None:
    payouts = _Payouts({})
    ceilings = [{"currency": "EUR", "perPayment": "100.00", "perDay": "150.00"}]
    clerk = await _holder_of(scene, admin, "prove-clerk", {"ceilings": ceilings})
    for amount, currency, wanted in (
        ("100.01", "EUR", "AMOUNT_OVER_CEILING"),
        ("1.00", "CHF", "CURRENCY_NOT_IN_ROLE"),
        ("100.00", "EUR", ""),
        ("50.01", "EUR", "DAY_CEILING_REACHED"),
        ("50.00", "EUR", ""),
        ("0.01", "EUR", "DAY_CEILING_REACHED"),
    ):
        _, status, said = await payouts.send(clerk, amount, currency)
        right = said == wanted and status == (403 if wanted else 202)
        findings.expect(right, f"{amount} {currency} is answered {status} {said} where ceilings are 100 and 150 EUR")


async def _check_step_up(findings: Findings, scene: Stage, admin: Caller) -> None:
    key = await _holder_of(scene, admin, "prove-dangerous", {"stepUp": True})
    answer = await key.send("POST", _ORDERS, {"orderRef": "prove-step"})
    right = answer.status == 403 and codes(answer) == "STEP_UP_REQUIRED"
    findings.expect(right, f"what takes a fresh proof is answered {answer.status} {codes(answer)} to a key")


async def _holder_of(scene: Stage, admin: Caller, name: str, conditions: Mapping[str, Any]) -> Caller:
    account = await scene.account_caller(scene.here)
    role = {"name": name, "level": "tenant", "permissions": _PAYING, "conditions": conditions}
    await account.done("POST", "/v1/account/roles", role)
    return await make_holder(scene, admin, [f"custom:{name}"])


async def _check_four_eyes(findings: Findings, bench: Workbench, scene: Stage, admin: Caller) -> None:
    payouts = _Payouts(await _complete(admin))
    thresholds = [{"currency": "EUR", "amount": _LARGE}]
    await admin.done("POST", "/v1/tenant/approval-rules", {"name": "prove", "thresholds": thresholds})
    maker = await make_holder(scene, admin, ["tenant-transaction-write"])
    other = await make_holder(scene, admin, ["tenant-approval"])

    async def expect(path: str, status: str, what: str) -> None:
        found = (await admin.done("GET", path))["status"]
        findings.expect(found == status, f"{what} is {found}, not {status}")

    async def refused(caller: Caller, path: str, code: str, what: str, seen: str | None = None) -> None:
        body = {"contentHash": seen or await _look_at(admin, path)}
        answer = await caller.send("POST", f"{path}/approve", body)
        findings.expect(codes(answer) == code, f"{what} is answered {answer.status} {codes(answer)}, not {code}")

    await expect(await payouts.make(maker, _SMALL), "READY", "a small payout")
    own = await payouts.make(admin, _LARGE)
    await expect(own, "AWAITING_APPROVAL", "a large payout")
    await refused(admin, own, "APPROVER_IS_AUTHOR", "the author's approval")
    await refused(other, own, "APPROVER_IS_AUTHOR", "an approval by a key that the author made")
    await expect(own, "AWAITING_APPROVAL", "a large payout that only its author approved")
    path = await payouts.make(maker, _LARGE)
    await refused(maker, path, "FORBIDDEN", "an approval by somebody without the role")
    await refused(admin, path, "APPROVER_IS_AUTHOR", "an approval by who made the author's key")
    await _approve(findings, other, path)
    await expect(path, "READY", "a large payout that another approved")
    await maker.done("PUT", path, {"amount": "1000.01"})
    await expect(path, "AWAITING_APPROVAL", "a payout that was changed after its approval")
    late = await payouts.make(maker, _LARGE)
    seen = await _look_at(admin, late)
    await _make_old(bench, scene)
    await refused(other, late, "APPROVAL_EXPIRED", "an approval that comes too late", seen)
    async with bench.databases.operation(PROVER, tenant=scene.here.tenant_id) as op:
        await expire(op)
    await expect(late, "CANCELLED", "a payout that waited for too long")


async def _approve(findings: Findings, caller: Caller, path: str) -> None:
    """Let a payout go, for exactly what is on the list."""
    seen = await _look_at(caller, path)
    answer = await caller.send("POST", f"{path}/approve", {"contentHash": seen})
    right = seen is not None and answer.status == 202
    findings.expect(right, f"another's approval is answered {answer.status} {codes(answer)}")


async def _look_at(caller: Caller, path: str) -> str | None:
    """What stands for a payout on the list; None when it isn't there."""
    waiting = (await caller.done("GET", "/v1/approvals"))["approvals"]
    ref = path.split("/")[3]
    return next((item["contentHash"] for item in waiting if item["orderRef"] == ref), None)


async def _make_old(bench: Workbench, scene: Stage) -> None:
    """What waits in the tenant has done so for longer than it may."""
    tenant: UUID = scene.here.tenant_id
    before = bench.clock.now() - timedelta(seconds=1)
    async with bench.admin(scene.here.region) as connection:
        await connection.execute(
            "update approvals set expires_at = %s where tenant_id = %s and state = 'PENDING'", (before, tenant)
        )
