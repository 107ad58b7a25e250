"""A tenant that pays through the simulator, and dispatchers that live and die at will."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from strongroom.assembly import App
from strongroom.database import Operation
from strongroom.kernel.ids import new_uuid
from strongroom.payments import apps, schemes
from strongroom.payments.contents import NewInstruction, NewOrder, instruction_id_of
from strongroom.payments.dispatch import Dispatcher
from strongroom.payments.instruments import add_many
from strongroom.payments.orders import create_orders
from strongroom.payments.routing import Rule
from strongroom.rails.connectors.simulator import Simulator
from strongroom.rails.contract import Outcome, Payment, Provider
from tests.fixtures.platform import Client
from tests.payments.world import SEPA, SIMULATOR, World, bank_account, draft, rule
from tests.rails.simulator.process import PATIENT, Limits, SimulatorProcess

BANK = {"iban": "DE02120300000000202051", "bic": "BYLADEM1001", "holder": "Alpine Mutual"}
"""The account that pays by file."""

Submit = Callable[[Payment], Awaitable[Outcome]]


@dataclass
class Rail:
    """The connector, with something in front of each submission if a test wants it. Counts what it is asked."""

    provider: Provider
    before: Callable[[Payment], None] = lambda _: None
    after: Callable[[Payment], None] = lambda _: None
    submitted: list[Payment] = field(default_factory=list)
    enquired: list[str] = field(default_factory=list)

    async def submit(self, payment: Payment) -> Outcome:
        self.submitted.append(payment)
        self.before(payment)
        outcome = await self.provider.submit(payment)
        self.after(payment)
        return outcome

    async def enquire(self, reference: str) -> Outcome:
        self.enquired.append(reference)
        return await self.provider.enquire(reference)

    def read_notification(self, headers: Mapping[str, str], body: bytes) -> Sequence[Outcome]:
        return self.provider.read_notification(headers, body)


@dataclass(frozen=True)
class Payer(World):
    """One tenant with a published payout scheme, `simulator`'s books, and a folder for files."""

    simulator: SimulatorProcess
    outbox: Path
    scheme_id: str

    @classmethod
    async def make(
        cls, app: App, client: Client, simulator: SimulatorProcess, outbox: Path, *rules: Rule, bank: bool = False
    ) -> Payer:
        world = World.of(app, client)
        async with world.operation() as op:
            await apps.install(op, SIMULATOR)
            if bank:
                await apps.install(op, SEPA)
                await apps.configure(op, SEPA, BANK)
            scheme = await schemes.create_scheme(op, "payout", draft("Claims", *(rules or (rule(0),))))
            await schemes.publish(op, "payout", scheme.scheme_id, str(scheme.drafts[0].draft_id))
        return cls(app, world.tenant, world.account, simulator, outbox, scheme.scheme_id)

    async def instruct(self, *remittances: str, days: int = 0, account: Any = None, **changes: Any) -> list[str]:
        """One order with an instruction for each text that the customer is to read; their references, `order/ref`."""
        order_ref = f"O-{new_uuid().hex}"
        async with self.operation() as op:
            [instrument] = await add_many(op, [("C-1", account or bank_account())])
            lines = [
                NewInstruction(
                    **{
                        "ref": str(at),
                        "customer_ref": "C-1",
                        "direction": "CREDIT",
                        "minor": 10_000 + at,
                        "currency": "EUR",
                        "country": "DE",
                        "settled_by": op.today + timedelta(days=days),
                        "scheme_id": self.scheme_id,
                        "financial_instrument_id": instrument,
                        "metadata": {"remittanceInformation": text} if text else {},
                    }
                    | changes
                )
                for at, text in enumerate(remittances)
            ]
            [verdict] = await create_orders(op, [NewOrder(order_ref, lines)], [""])
        assert not isinstance(verdict, Exception), verdict
        return [f"{order_ref}/{line.ref}" for line in lines]

    @asynccontextmanager
    async def rail(self, limits: Limits = PATIENT) -> AsyncIterator[Rail]:
        """A connection to the simulator."""
        async with self.simulator.connector(limits) as connector:
            yield Rail(connector)

    def dispatcher(self, rail: Rail) -> Dispatcher:
        """A dispatcher as of another process: it remembers nothing."""
        return Dispatcher(self.app.databases, lambda tenant, app_id, settings: rail, self.outbox)

    async def status(self, named: str) -> str:
        """An instruction's state."""
        return (await self._row(named))[0]

    async def attempts(self, named: str) -> list[str]:
        """The states of its attempts, oldest first."""
        return list((await self._row(named))[1])

    async def reasons(self, named: str) -> list[str]:
        """Why it went from state to state."""
        async with self.operation() as op:
            rows = await op.rows(
                "select reason from instruction_events where instruction_id = %s::uuid order by event_id",
                self.id_of(op, named),
            )
        return [row[0] for row in rows]

    async def references(self, named: str) -> list[str]:
        """The references of its attempts, oldest first."""
        async with self.operation() as op:
            rows = await op.rows(
                "select transaction_id from transactions where instruction_id = %s::uuid order by transaction_id",
                self.id_of(op, named),
            )
        return [row[0].hex for row in rows]

    async def executions(self, *named: str) -> list[int]:
        """How often the simulator's books say that each was paid."""
        async with self.simulator.connector() as connector:
            books: Simulator = connector
            counts = Counter(line.instruction for line in await books.executions())
        async with self.operation() as op:
            return [counts[self.id_of(op, name)] for name in named]

    @staticmethod
    def id_of(op: Operation, named: str) -> str:
        """An instruction's id in hexadecimal."""
        return instruction_id_of(op, *named.split("/")).hex()

    async def _row(self, named: str) -> tuple[str, list[str]]:
        async with self.operation() as op:
            row = await op.row(
                """
                select status, array(select status from transactions t where t.instruction_id = i.instruction_id
                                     order by transaction_id)
                from instructions i where instruction_id = %s::uuid
                """,
                self.id_of(op, named),
            )
        assert row is not None
        return row[0], row[1]
