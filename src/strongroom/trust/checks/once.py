"""PAY-2: an instruction is executed once, whatever the provider and our own processes do.

Instructions go through the public API to the provider simulator, whose books are its own. Some ask it to misbehave,
and over two the dispatching process dies: once before the provider was told, once after. Then dispatch goes on until
everything has come to an end, and the simulator's books are held against what we believe. Every instruction has an
amount that nothing else has, so the books show a second execution under whatever reference it was made.

When the installation is being served, its own worker takes part; both are what runs in earnest.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec

from strongroom.outbound import Destination, Limits, Outbound
from strongroom.payments.dispatch import Dispatcher
from strongroom.rails.connectors.simulator import Simulator
from strongroom.rails.contract import Outcome, Payment, Provider
from strongroom.rails.marketplace import SIMULATOR
from strongroom.trust.client import Caller
from strongroom.trust.stage import Seat, stage
from strongroom.trust.verdicts import CannotTell, Figure, Findings
from strongroom.trust.workbench import Workbench

MISBEHAVIOUR: Final[Sequence[str]] = (
    "", "", "", "", "",
    "REFUSE-AM04", "REFUSE-AC04",
    "PENDING-SETTLE", "PENDING-FAIL", "PENDING-ENQUIRY",
    "TIMEOUT-AFTER", "TIMEOUT-AFTER", "TIMEOUT-BEFORE", "LATE",
    "ERROR-200", "ERROR-200", "SLOW-DRIP",
    "DUPLICATE-CALLBACK", "OUT-OF-ORDER",
)  # fmt: skip
"""What each instruction asks of the simulator (docs/rails/simulator.md)."""
DEATHS: Final = ("before", "after")
"""When the process dies, seen from the provider's being told."""
PATIENCE_S: Final = 120
_HASTY: Final = Limits(connect_s=5.0, idle_s=1.5, total_s=1.5, connections=64)
_PATIENT: Final = Limits(connect_s=5.0, idle_s=30.0, total_s=60.0, answer_bytes=1 << 26)
_TRIES: Final = 5
_PAUSE_S: Final = 0.4
_ORDERS: Final = "/v1/order-management"
_IBAN: Final = "DE89370400440532013000"  # the published example
_ENDS: Final = frozenset({"COMPLETED", "FAILED"})
_ENDLESS: Final = frozenset({"TIMEOUT-BEFORE", "LATE"})
"""Words under which an attempt comes to nothing again and again, as long as nobody changes them."""

Rail = Callable[[Provider], Provider]
"""What stands between dispatch and the connector; nothing, but in the tests that break it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """An instruction of this check. `amount` is in EUR."""

    order_ref: str
    ref: str
    amount: Decimal
    word: str

    @property
    def path(self) -> str:
        return f"{_ORDERS}/{self.order_ref}/instruction/{self.ref}"


class _Died(Exception):
    """Stands for the death of the process: nothing after it is carried out."""


class _Mortal:
    """A connector whose process dies while it submits."""

    def __init__(self, provider: Provider, when: str) -> None:
        self._provider = provider
        self._when = when

    async def submit(self, payment: Payment) -> Outcome:
        if self._when == "after":
            await self._provider.submit(payment)
        raise _Died

    async def enquire(self, reference: str) -> Outcome:
        return await self._provider.enquire(reference)

    def read_notification(self, headers: Mapping[str, str], body: bytes) -> Sequence[Outcome]:
        return self._provider.read_notification(headers, body)


async def check_once(bench: Workbench, *, rail: Rail = lambda provider: provider) -> Figure:
    """See the module."""
    if bench.simulator is None:
        raise CannotTell("Production has no simulator to compare with; the sandbox shows it.")
    findings = Findings()
    async with stage(bench) as scene, _rails(bench, scene.here) as (connector, books):
        dispatch = _Dispatch(bench, scene.here, rail(connector))
        known = {(line.direction.value, line.money.decimal) for line in await books.executions()}
        caller = await scene.caller(scene.here)
        tenant = _Tenant(caller, await _schemes(caller), known)
        sent = [await dispatch.die(tenant, when) for when in DEATHS]
        sent += await tenant.send([(word, "CREDIT" if at % 3 else "DEBIT") for at, word in enumerate(MISBEHAVIOUR)])
        await dispatch.finish(tenant, sent)
        lines = [line for line in await books.executions() if line.money.decimal in {item.amount for item in sent}]
        ours = await dispatch.references()
        for line in lines:
            findings.expect(line.reference in ours, f"the books have a reference that we never wrote: {line.reference}")
        executed = Counter(line.money.decimal for line in lines)
        twice = [item for item in sent if executed[item.amount] > 1]
        for item in twice:
            findings.breach(f"SIM:{item.word or 'none'} was executed {executed[item.amount]} times")
        for item in sent:
            status, attempt = await tenant.look(item)
            findings.expect(status in _ENDS, f"SIM:{item.word or 'none'} is still {status}")
            findings.expect(
                (attempt == "SUCCESS") == (executed[item.amount] > 0),
                f"SIM:{item.word or 'none'} is {attempt} and was executed {executed[item.amount]} times",
            )
        findings.expect(await dispatch.contradictions() == 0, "the simulator contradicted an end that it had told")
    once = sum(executed[item.amount] == 1 for item in sent)
    kinds = len({word for word in MISBEHAVIOUR if word})
    return findings.figure(
        f"{len(sent)} instructions, {kinds} misbehaviours, {len(DEATHS)} deaths: "
        f"{once} executed once, {len(sent) - once} refused and never executed, 0 executed twice"
    )


class _Tenant:
    """Sends instructions and looks at them, through the API."""

    def __init__(self, caller: Caller, schemes: Mapping[str, str], known: set[tuple[str, Decimal]]) -> None:
        self._caller = caller
        self._schemes = schemes
        self._known = known
        self._count = 0

    async def send(self, wanted: Sequence[tuple[str, str]]) -> list[_Sent]:
        """One instruction for each magic word and direction, all in one upload."""
        order_ref = f"prove-{secrets.token_hex(6)}"
        sent = [
            _Sent(order_ref=order_ref, ref=f"{at}", amount=self._amount(), word=word)
            for at, (word, _) in enumerate(wanted)
        ]
        lines = b"\n".join(
            msgspec.json.encode(self._line(item, direction)) for item, (_, direction) in zip(sent, wanted, strict=True)
        )
        job = await self._caller.done("POST", f"{_ORDERS}/bulk", lines, content_type="application/x-ndjson")
        if job["refused"]:
            raise ValueError(f"{job['refused']} of {len(sent)} instructions were refused")
        return sent

    async def look(self, item: _Sent) -> tuple[str, str]:
        """The instruction's status, and its last attempt's."""
        view = await self._caller.done("GET", item.path)
        return view["status"], (view["transaction"] or {"status": "none"})["status"]

    async def calm(self, item: _Sent) -> None:
        """Ask for good behaviour instead, once the simulator has forgotten the first attempt for good."""
        await self._caller.send("PUT", item.path, {"metadata": {"remittanceInformation": "no more tricks"}})

    def _amount(self) -> Decimal:
        while True:
            amount = Decimal(10**9 + secrets.randbelow(9 * 10**9)).scaleb(-2)
            if not {("CREDIT", amount), ("DEBIT", amount)} & self._known:
                self._known |= {("CREDIT", amount), ("DEBIT", amount)}
                return amount

    def _line(self, item: _Sent, direction: str) -> Mapping[str, object]:
        return {
            "orderRef": item.order_ref,
            "instructionRef": item.ref,
            "customerRef": "prove-customer",
            "direction": direction,
            "amount": str(item.amount),
            "currency": "EUR",
            "country": "DE",
            "settledByDate": self._caller.today.isoformat(),
            "schemeId": self._schemes[direction],
            "metadata": {"remittanceInformation": f"SIM:{item.word}" if item.word else "no tricks"},
            "bankAccount": {"accountHolder": "Ada Sample", "iban": _IBAN, "country": "DE"},
        }


class _Dispatch:
    """Rounds of dispatch for one tenant, and the passing of time."""

    def __init__(self, bench: Workbench, seat: Seat, provider: Provider) -> None:
        self._bench = bench
        self._seat = seat
        self._provider = provider
        self._outbox = Path(tempfile.gettempdir())  # no rail of this tenant writes files
        self._started_at = bench.clock.now()

    def _dispatcher(self, provider: Provider) -> Dispatcher:
        return Dispatcher(self._bench.databases, lambda tenant, app_id, settings: provider, self._outbox)

    async def die(self, tenant: _Tenant, when: str) -> _Sent:
        """Send an instruction, and die in the middle of carrying it out, so that its claim has to run out.

        The installation's own worker may be quicker; then another is tried.
        """
        for _ in range(_TRIES):
            [item] = await tenant.send([("", "CREDIT")])
            try:
                await self._dispatcher(_Mortal(self._provider, when)).round(self._seat.tenant_id)
            except _Died:
                await self._pass_time(dead=True)
                return item
        raise TimeoutError("the installation's worker was always quicker; no death could be rehearsed")

    async def finish(self, tenant: _Tenant, sent: Sequence[_Sent]) -> None:
        """Go on until everything is at its end."""
        dispatcher = self._dispatcher(self._provider)
        waiting = list(sent)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while waiting:
                    await dispatcher.round(self._seat.tenant_id)
                    still = []
                    for item in waiting:
                        status, _ = await tenant.look(item)
                        if status not in _ENDS:
                            still.append(item)
                        if status == "READY" and item.word in _ENDLESS:
                            await tenant.calm(item)
                    waiting = still
                    await asyncio.sleep(_PAUSE_S)
                    await self._pass_time()

    async def references(self) -> set[str]:
        """The references of all attempts that we wrote down."""
        async with self._bench.admin(self._seat.region) as connection:
            cursor = await connection.execute(
                "select transaction_id from transactions where tenant_id = %s", (self._seat.tenant_id,)
            )
            return {row[0].hex for row in await cursor.fetchall()}

    async def contradictions(self) -> int:
        """How often the rail took back an end that it had told."""
        async with self._bench.admin(self._seat.region) as connection:
            cursor = await connection.execute(
                "select count(*) from audit_entries "
                "where tenant_id = %s and action = 'transaction.contradiction' and at >= %s",
                (self._seat.tenant_id, self._started_at),
            )
            row = await cursor.fetchone()
            return int(row[0]) if row else 0

    async def _pass_time(self, *, dead: bool = False) -> None:
        """Let a minute pass for this tenant's attempts, instead of waiting for it. `dead`: also for those whose process
        has died; the claims of living ones stand."""
        states = ["UNCONFIRMED", "PROCESSING", *(["INTENDED"] if dead else [])]
        async with self._bench.admin(self._seat.region) as connection:
            await connection.execute(
                "update transactions set updated_at = updated_at - interval '1 minute', "
                "claimed_until = least(claimed_until, now() - interval '1 second') "
                "where tenant_id = %s and status = any(%s)",
                (self._seat.tenant_id, states),
            )


@contextlib.asynccontextmanager
async def _rails(bench: Workbench, seat: Seat) -> AsyncIterator[tuple[Simulator, Simulator]]:
    """The connector, twice: one that doesn't wait long for payments, and one that has time to read the books."""
    simulator, secret = bench.simulator, bench.simulator_secret
    if simulator is None or secret is None:
        raise CannotTell("There is no simulator here.")
    allowed = [Destination(host=simulator.host, port=simulator.port, loopback_ok=True)]
    callback_url = f"{bench.api.url}/v1/notifications/{seat.tenant_id}/{SIMULATOR}"
    async with (
        Outbound(allowed=allowed, trust=simulator.trust, limits=_HASTY) as hasty,
        Outbound(allowed=allowed, trust=simulator.trust, limits=_PATIENT) as patient,
    ):
        yield (
            Simulator(outbound=hasty, url=simulator.url, secret=secret, clock=bench.clock, callback_url=callback_url),
            Simulator(outbound=patient, url=simulator.url, secret=secret, clock=bench.clock),
        )


async def _schemes(caller: Caller) -> Mapping[str, str]:
    """Direction → a published scheme that carries everything over the simulator."""
    await caller.done("POST", f"/v1/marketplace/apps/{SIMULATOR}/install")
    made = {}
    for direction, kind, more in (
        ("CREDIT", "payout", {}),
        ("DEBIT", "collect", {"agreementType": "SingleUse"}),
    ):
        draft = {"name": f"prove {kind}", "rules": [{"apps": [{"appId": SIMULATOR}]}], **more}
        scheme = await caller.done("POST", f"/v1/schemes/{kind}", draft)
        scheme_id, draft_id = scheme["schemeId"], scheme["drafts"][0]["draftId"]
        await caller.done("POST", f"/v1/schemes/{kind}/{scheme_id}/drafts/{draft_id}/publish")
        made[direction] = scheme_id
    return made
