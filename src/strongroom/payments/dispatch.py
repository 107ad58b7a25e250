"""Dispatch: moving the money, in three beats.

*Intend*: what is due is claimed and an attempt written under our own reference; committed. *Act*: the rail is asked, with
no operation open. *Record*: its answer is written. A process that dies between the beats leaves an attempt that nobody
answers for; once its claim has run out it is UNCONFIRMED, and the rail is asked by our reference what became of it. An
attempt is repeated (under a new reference) only when the rail is certain that the old one moved nothing and never will.

Files go the same way: the file's exact bytes are kept with the attempts, so that writing it again writes the same file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog

from strongroom.audit import record
from strongroom.database import Databases, Operation, pack_bytes, pack_texts, pack_uuids
from strongroom.kernel.actors import system
from strongroom.kernel.errors import Broken, Failure, StrongroomError
from strongroom.kernel.ids import FileId, TenantId, new_uuid, new_uuid_bytes
from strongroom.kernel.money import Money
from strongroom.payments.apps import find_installed_ids, get_settings
from strongroom.payments.contents import InstructionContent, decode_instruction
from strongroom.payments.instructions import TransactionContent, add_event
from strongroom.payments.instruments import open_accounts
from strongroom.payments.routing import choose
from strongroom.payments.schemes import find_published
from strongroom.payments.transactions import apply_outcome, reference_of, seal_content
from strongroom.rails.bank import profile
from strongroom.rails.contract import Direction, Outcome, OutcomeKind, Payment, Provider
from strongroom.rails.formats import pain001
from strongroom.rails.marketplace import get_app

log = structlog.get_logger(__name__)

WORKER: Final = system("dispatch")
LEAD: Final = timedelta(days=1)
"""Money is asked for this long before the day by which it has to be there."""
CLAIM: Final = 200
"""Most instructions in one first beat."""
CONCURRENCY: Final = 16
"""Most second beats under way at once, in one process."""
LEASE: Final = timedelta(seconds=90)
"""How long an attempt belongs to the process that wrote it; longer than any rail's time-out."""
ENQUIRE_AFTER: Final = timedelta(seconds=5)
"""How long an attempt rests between two enquiries."""
PENDING_ENQUIRE_AFTER: Final = timedelta(seconds=30)
REMITTANCE_KEY: Final = "remittanceInformation"
"""The metadata key whose value the customer reads on their statement; without it, the order's reference."""
MAX_REMITTANCE: Final = 140

ProviderFor = Callable[[TenantId, str, Mapping[str, str]], Provider]
"""Tenant, app id and settings → the rail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    """An attempt that has been written and now has to be acted on."""

    transaction_id: UUID
    app_id: str
    payment: Payment


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """An attempt about to be written."""

    order_id: UUID
    instruction_id: UUID
    due: _Due
    is_file_rail: bool


@dataclass(slots=True)
class Tally:
    """What one round did."""

    intended: int = 0
    settled: int = 0
    refused: int = 0
    pending: int = 0
    unconfirmed: int = 0
    files: list[Path] = field(default_factory=list)

    def add(self, kind: OutcomeKind) -> None:
        """Count an outcome."""
        match kind:
            case OutcomeKind.SETTLED:
                self.settled += 1
            case OutcomeKind.REFUSED | OutcomeKind.NEVER_RECEIVED:
                self.refused += 1
            case OutcomeKind.PENDING:
                self.pending += 1
            case OutcomeKind.UNCONFIRMED:
                self.unconfirmed += 1

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.intended or self.settled or self.refused or self.pending or self.unconfirmed or self.files)


class Dispatcher:
    """Moves what is due, for any tenant. Any number of dispatchers may run side by side."""

    def __init__(self, databases: Databases, providers: ProviderFor, outbox: Path) -> None:
        self._databases = databases
        self._providers = providers
        self._outbox = outbox
        self._slots = asyncio.Semaphore(CONCURRENCY)

    async def tenants_with_work(self, region: str) -> list[TenantId]:
        """The region's tenants that may have something due."""
        async with self._databases.operation(WORKER, region=region) as op:
            rows = await op.rows(
                "select distinct tenant_id from due_work where due_on <= %s order by tenant_id", op.today
            )
        return [TenantId(row[0]) for row in rows]

    async def round(self, tenant: TenantId) -> Tally:
        """One round for a tenant: one batch of what is due, files that wait, attempts to be asked about."""
        tally = Tally()
        async with self._databases.operation(WORKER, tenant=tenant) as op:
            due = await _intend(op)
            settings = {app_id: await get_settings(op, app_id) for app_id in {item.app_id for item in due}}
        tally.intended = len(due)
        rails = {app_id: self._providers(tenant, app_id, found) for app_id, found in settings.items()}
        await asyncio.gather(*(self._act(tenant, rails[item.app_id], item, tally) for item in due))
        tally.files += await self._files(tenant)
        await self._resolve(tenant, tally)
        return tally

    async def _act(self, tenant: TenantId, rail: Provider, item: _Due, tally: Tally) -> None:
        """Second and third beat for one attempt at a provider."""
        async with self._slots:
            outcome = await rail.submit(item.payment)
            await self._record(tenant, item.transaction_id, outcome)
        tally.add(outcome.kind)

    async def _record(self, tenant: TenantId, transaction_id: UUID, outcome: Outcome) -> None:
        async with self._databases.operation(WORKER, tenant=tenant) as op:
            await apply_outcome(op, transaction_id, outcome)

    async def _files(self, tenant: TenantId) -> list[Path]:
        """First beat for file rails, then second and third for every file that hasn't been delivered."""
        async with self._databases.operation(WORKER, tenant=tenant) as op:
            await _intend_files(op)
        async with self._databases.operation(WORKER, tenant=tenant) as op:
            rows = await op.rows("select file_id, sealed from payment_files where status = 'INTENDED'")
            files = [(FileId(row[0]), op.cipher.open("payment_files", "sealed", row[0].bytes, row[1])) for row in rows]
        paths = []
        for file_id, content in files:
            path = self._outbox / str(tenant) / f"{file_id.hex}.xml"
            await asyncio.to_thread(write_once, path, content)
            async with self._databases.operation(WORKER, tenant=tenant) as op:
                await _delivered(op, file_id)
            paths.append(path)
        return paths

    async def _resolve(self, tenant: TenantId, tally: Tally) -> None:
        """Ask about attempts whose process died, that nobody could confirm, or that have been pending for a while."""
        async with self._databases.operation(WORKER, tenant=tenant) as op:
            asked = await _claim_unresolved(op)
            settings = {app_id: await get_settings(op, app_id) for app_id in {app_id for _, app_id in asked}}
        rails = {app_id: self._providers(tenant, app_id, found) for app_id, found in settings.items()}

        async def enquire(transaction_id: UUID, app_id: str) -> None:
            async with self._slots:
                outcome = await rails[app_id].enquire(reference_of(transaction_id))
                await self._record(tenant, transaction_id, outcome)
            tally.add(outcome.kind)

        await asyncio.gather(*(enquire(transaction_id, app_id) for transaction_id, app_id in asked))


async def _intend(op: Operation) -> list[_Due]:
    """First beat: claim what is due and write its attempts. What a file rail carries waits for `_intend_files`."""
    rows = await op.rows(
        """
        select order_id, instruction_id, direction, currency, country, settled_by, scheme_id, financial_instrument_id,
               sealed, array(select app_id from transactions t
                             where (t.tenant_id, t.order_id, t.instruction_id)
                                 = (i.tenant_id, i.order_id, i.instruction_id))
        from instructions i where status = 'READY' and settled_by <= %s
        order by settled_by limit %s for update of i skip locked
        """,
        op.today + LEAD,
        CLAIM,
    )
    if not rows:
        return []
    schemes = await find_published(op, {row[6] for row in rows})
    installed = {app_id for app_id, configured in (await find_installed_ids(op)).items() if configured}
    accounts = await open_accounts(op, {row[7].bytes for row in rows})
    banks = {
        app_id: profile.parse(await get_settings(op, app_id)) for app_id in installed if get_app(app_id).is_file_rail
    }
    attempts: list[_Attempt] = []
    for (
        order_id,
        instruction_id,
        direction,
        currency,
        country,
        settled_by,
        scheme_id,
        instrument_id,
        sealed,
        tried,
    ) in rows:
        content = decode_instruction(op.cipher.open("instructions", "sealed", instruction_id.bytes, sealed))
        money = Money(content.minor, currency)
        choice = choose(schemes[scheme_id], installed, direction, country, money)
        apps = [app_id for app_id in choice.apps if op.environment.value in get_app(app_id).environments]
        # An app that failed without moving money comes again only when no fallback is left.
        app_id = next((app for app in apps if app not in tried), apps[0] if apps else None)
        transaction_id = new_uuid()
        payment = Payment(
            reference=reference_of(transaction_id),
            direction=Direction(direction),
            money=money,
            counterparty=accounts[instrument_id.bytes],
            due_on=settled_by,
            remittance=_remittance(content),
            instruction=instruction_id.hex,
        )
        if app_id is None:
            await _hold(op, order_id, instruction_id, "NO_ROUTE")
            continue
        bank = banks.get(app_id)
        failures = pain001.check(payment, debtor=bank.account, rules=bank.rules) if bank else []
        if failures:
            await _hold(op, order_id, instruction_id, failures[0].code)
            continue
        attempts.append(
            _Attempt(
                order_id=order_id,
                instruction_id=instruction_id,
                due=_Due(transaction_id=transaction_id, app_id=app_id, payment=payment),
                is_file_rail=bank is not None,
            )
        )
    await _write_attempts(op, attempts)
    await record(op, "dispatch.intend", "tenant", op.tenant, detail=f"instructions={len(rows)}")
    return [attempt.due for attempt in attempts if not attempt.is_file_rail]


async def _write_attempts(op: Operation, attempts: Sequence[_Attempt]) -> None:
    content = TransactionContent()
    await op.rows_named(
        """
        with attempts as (
            select * from unnest(%(order)s, %(instruction)s, %(transaction)s, %(app)s, %(file)s, %(sealed)s, %(event)s)
                as t(order_id, instruction_id, transaction_id, app_id, is_file_rail, sealed, event_id)
        ), written as (
            insert into transactions (tenant_id, transaction_id, order_id, instruction_id, app_id, status, claimed_until,
                                      sealed, created_at, updated_at)
            select %(tenant)s, transaction_id, order_id, instruction_id, app_id, 'INTENDED',
                   case when is_file_rail = 'f' then %(lease)s::timestamptz end, sealed, %(now)s, %(now)s
            from attempts
        ), moved as (
            update instructions i set status = 'PROCESSING', updated_at = %(now)s from attempts a
            where i.tenant_id = %(tenant)s and i.order_id = a.order_id and i.instruction_id = a.instruction_id
        ), told as (
            insert into instruction_events (tenant_id, order_id, instruction_id, event_id, at, status, transaction_id,
                                            reason)
            select %(tenant)s, order_id, instruction_id, event_id, %(now)s, 'PROCESSING', transaction_id, ''
            from attempts
        )
        select 1
        """,
        {
            "tenant": op.tenant,
            "now": op.now,
            "lease": op.now + LEASE,
            "order": pack_uuids([attempt.order_id.bytes for attempt in attempts]),
            "instruction": pack_uuids([attempt.instruction_id.bytes for attempt in attempts]),
            "transaction": pack_uuids([attempt.due.transaction_id.bytes for attempt in attempts]),
            "app": pack_texts([attempt.due.app_id for attempt in attempts]),
            "file": pack_texts(["t" if attempt.is_file_rail else "f" for attempt in attempts]),
            "sealed": pack_bytes([seal_content(op, attempt.due.transaction_id, content) for attempt in attempts]),
            "event": pack_uuids([new_uuid_bytes() for _ in attempts]),
        },
    )


async def _hold(op: Operation, order_id: UUID, instruction_id: UUID, reason: str) -> None:
    """Nothing can carry it as it is: back to INCOMPLETE, so that a person can change it, with the reason on record."""
    await op.run(
        "update instructions set status = 'INCOMPLETE', updated_at = %s where order_id = %s and instruction_id = %s",
        op.now,
        order_id,
        instruction_id,
    )
    await add_event(op, order_id.bytes, instruction_id.bytes, "INCOMPLETE", reason=reason)


def _remittance(content: InstructionContent) -> str:
    return (content.metadata.get(REMITTANCE_KEY) or content.order_ref)[:MAX_REMITTANCE]


async def _intend_files(op: Operation) -> None:
    """Put attempts of file rails that are in no file yet into files."""
    rows = await op.rows(
        """
        select t.transaction_id, t.app_id, i.direction, i.currency, i.settled_by, i.financial_instrument_id,
               i.instruction_id, i.sealed
        from transactions t join instructions i using (tenant_id, order_id, instruction_id)
        where t.status = 'INTENDED' and t.claimed_until is null and t.file_id is null
        order by t.transaction_id limit %s for update of t skip locked
        """,
        pain001.MAX_TRANSACTIONS,
    )
    accounts = await open_accounts(op, {row[5].bytes for row in rows})
    by_app: dict[str, list[Payment]] = {}
    ids: dict[str, UUID] = {}
    for transaction_id, app_id, direction, currency, settled_by, instrument_id, instruction_id, sealed in rows:
        content = decode_instruction(op.cipher.open("instructions", "sealed", instruction_id.bytes, sealed))
        reference = reference_of(transaction_id)
        ids[reference] = transaction_id
        by_app.setdefault(app_id, []).append(
            Payment(
                reference=reference,
                direction=Direction(direction),
                money=Money(content.minor, currency),
                counterparty=accounts[instrument_id.bytes],
                due_on=settled_by,
                remittance=_remittance(content),
            )
        )
    for app_id, payments in by_app.items():
        bank = profile.parse(await get_settings(op, app_id))
        for batches in pain001.split(payments, bank.rules, not_before=op.today):
            await _keep_file(op, app_id, bank, batches, ids)


async def _keep_file(
    op: Operation,
    app_id: str,
    bank: profile.BankProfile,
    batches: Sequence[pain001.Batch],
    ids: Mapping[str, UUID],
) -> None:
    file_id = new_uuid()
    content = pain001.write(bank.file(file_id.hex, op.now, tuple(batches)))
    await op.run(
        "insert into payment_files (tenant_id, file_id, app_id, status, sealed, created_at, updated_at) "
        "values (%s, %s, %s, 'INTENDED', %s, %s, %s)",
        op.tenant,
        file_id,
        app_id,
        op.cipher.seal("payment_files", "sealed", file_id.bytes, content),
        op.now,
        op.now,
    )
    members = [ids[payment.reference] for batch in batches for payment in batch.payments]
    await op.run(
        "update transactions set file_id = %s, updated_at = %s where transaction_id = any(%s)", file_id, op.now, members
    )
    await record(op, "payment-file.create", "payment-file", file_id, detail=f"payments={len(members)}")


async def _delivered(op: Operation, file_id: UUID) -> None:
    await op.run(
        "update payment_files set status = 'DELIVERED', updated_at = %s where file_id = %s and status = 'INTENDED'",
        op.now,
        file_id,
    )
    await op.run(
        "update transactions set status = 'PROCESSING', updated_at = %s where file_id = %s and status = 'INTENDED'",
        op.now,
        file_id,
    )
    await record(op, "payment-file.deliver", "payment-file", file_id)


async def _claim_unresolved(op: Operation) -> list[tuple[UUID, str]]:
    """Attempts at providers to be asked about; those whose process died become UNCONFIRMED first."""
    died = await op.rows(
        "select transaction_id from transactions where status = 'INTENDED' and claimed_until < %s "
        "for update skip locked",
        op.now,
    )
    for (transaction_id,) in died:
        unknown = Outcome(kind=OutcomeKind.UNCONFIRMED, reference=reference_of(transaction_id), reason="PROCESS_DIED")
        await apply_outcome(op, transaction_id, unknown)
    rows = await op.rows(
        """
        update transactions set claimed_until = %s
        where transaction_id in (
            select transaction_id from transactions
            where file_id is null and (claimed_until is null or claimed_until < %s)
              and ((status = 'UNCONFIRMED' and updated_at < %s) or (status = 'PROCESSING' and updated_at < %s))
            order by transaction_id limit %s for update skip locked)
        returning transaction_id, app_id
        """,
        op.now + LEASE,
        op.now,
        op.now - ENQUIRE_AFTER,
        op.now - PENDING_ENQUIRE_AFTER,
        CLAIM,
    )
    return [(row[0], row[1]) for row in rows]


def write_once(path: Path, content: bytes) -> None:
    """Put a file in place whole and durable; the same content again is nothing new.

    Raises errors.Broken (`FILE_DIFFERS`) when another content stands there already.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists():
        if path.read_bytes() != content:
            raise Broken(Failure("FILE_DIFFERS", "{path} holds something else than was recorded.", {"path": str(path)}))
        return
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


async def run_forever(dispatcher: Dispatcher, regions: Sequence[str], stop: asyncio.Event, pause_s: float) -> None:
    """Go round all tenants until told to stop; a tenant whose round fails doesn't hold up the others."""
    while not stop.is_set():
        idle = True
        for region in regions:
            try:
                tenants = await dispatcher.tenants_with_work(region)
            except StrongroomError as error:
                log.warning("dispatch.region_failed", region=region, code=error.code)
                continue
            for tenant in tenants:
                try:
                    tally = await dispatcher.round(tenant)
                except StrongroomError as error:
                    log.warning("dispatch.round_failed", tenant=str(tenant), code=error.code)
                else:
                    idle = idle and tally.idle
        if idle:
            try:
                async with asyncio.timeout(pause_s):
                    await stop.wait()
            except TimeoutError:
                continue
