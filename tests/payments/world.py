"""What tests of payments need: operations in a tenant, by anybody, and schemes and accounts to pay with."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from strongroom.assembly import App
from strongroom.database import Operation
from strongroom.kernel.actors import Actor, ActorKind, system
from strongroom.kernel.ids import AccountId, AppId, TenantId
from strongroom.payments import apps, schemes
from strongroom.payments.contents import NewInstruction, NewOrder
from strongroom.payments.instruments import NewBankAccount, check_bank_account
from strongroom.payments.orders import create_orders
from strongroom.payments.routing import AppChoice, Rule, SchemeKind
from tests.fixtures.platform import Client

SIMULATOR = AppId("simulator")
SEPA = AppId("sepa-credit-transfer")
IBAN = "DE89370400440532013000"
"""The example of the IBAN registry."""


@dataclass(frozen=True)
class World:
    """One tenant, from inside."""

    app: App
    tenant: TenantId
    account: AccountId

    @classmethod
    def of(cls, app: App, client: Client) -> World:
        return cls(app, TenantId(UUID(client.tenant_id)), AccountId(UUID(client.account_id)))

    def operation(self, *roles: str) -> AbstractAsyncContextManager[Operation]:
        """An operation by one of our own processes, or by a key with these roles."""
        actor = system("test")
        if roles:
            actor = Actor(
                kind=ActorKind.API_KEY,
                name="key",
                account_id=self.account,
                tenant_id=self.tenant,
                roles=frozenset(roles),
            )
        return self.app.operation(actor, tenant=self.tenant, correlation_id="of-the-test")

    async def actions(self, prefix: str) -> list[tuple[str, str, str]]:
        """What the record says was done, of those whose name begins so: action, subject, detail."""
        async with self.operation() as op:
            rows = await op.rows(
                "select action, subject_id, detail from audit_entries where tenant_id = %s and action ^@ %s "
                "order by entry_id",
                self.tenant,
                prefix,
            )
        return [tuple(row) for row in rows]


def draft(name: str = "Claims", *rules: Rule, **more: Any) -> schemes.NewDraft:
    """A draft that sends everything to the simulator, unless rules are given."""
    return schemes.NewDraft(name=name, rules=rules or (rule(0),), **more)


def rule(priority: int, *app_ids: str, **conditions: Any) -> Rule:
    """A rule for the simulator, unless apps are given."""
    choices = tuple(AppChoice(app_id=AppId(app_id)) for app_id in app_ids or (SIMULATOR,))
    return Rule(priority=priority, apps=choices, **conditions)


def bank_account(holder: str = "Erika Mustermann", iban: str = IBAN, **more: Any) -> NewBankAccount:
    return check_bank_account({"accountHolderName": holder, "iban": iban, **more})


async def publish_scheme(op: Operation, kind: SchemeKind = "payout", name: str = "Claims") -> str:
    """A published scheme that the simulator carries; returns its id."""
    if SIMULATOR not in await apps.find_installed_ids(op):
        await apps.install(op, SIMULATOR)
    scheme = await schemes.create_scheme(op, kind, draft(name))
    await schemes.publish(op, kind, scheme.scheme_id, str(scheme.drafts[0].draft_id))
    return scheme.scheme_id


async def instruct(op: Operation, order_ref: str, customer_ref: str, scheme_id: str, instrument_id: bytes) -> None:
    """An order with one instruction that is ready to be paid."""
    instruction = NewInstruction(
        ref="1",
        customer_ref=customer_ref,
        direction="CREDIT",
        minor=10_000,
        currency="EUR",
        country="DE",
        settled_by=date(2026, 12, 1),
        scheme_id=scheme_id,
        financial_instrument_id=instrument_id,
    )
    [verdict] = await create_orders(op, [NewOrder(order_ref, [instruction])], [""])
    if isinstance(verdict, Exception):
        raise verdict
