"""Dispatch: moving the money, in three beats.

*Intend*: what is due is claimed and an attempt written under our own reference; committed. *Act*: the rail is asked,
with no operation open. *Record*: its answer is written. A process that dies between the beats leaves an attempt that
nobody answers for; once its claim has run out it is UNCONFIRMED, and the rail is asked by our reference what became of
it. An attempt is repeated (under a new reference) only when the rail is certain that the old one moved nothing and
never will.

Files go the same way: the file's exact bytes are kept with the attempts, so that writing it again writes the same file.

An app that can't be reached, or answers nothing time after time, rests for a while. What only it can carry stays READY;
then one instruction goes ahead of the others.

Only an approved tenant pays; what one that isn't any more had on its way to a file is withdrawn. While the customer's
key is away their accounts can't be opened: instructions stay READY then, and attempts by file stay where they are; both
go on when the key is back. What has been asked of rails before is found out about all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import structlog

from strongroom.audit import record
from strongroom.database import (
    Coalescer,
    Databases,
    Operation,
    Purpose,
    in_operation,
    pack_bytes,
    pack_texts,
    pack_uuids,
)
from strongroom.kernel.actors import system
from strongroom.kernel.errors import Broken, Failure, StrongroomError, Unavailable
from strongroom.kernel.ids import FileId, TenantId, new_uuid, new_uuid_bytes
from strongroom.kernel.money import Money
from strongroom.payments.approvals import expire
from strongroom.payments.apps import find_installed_ids, get_settings
from strongroom.payments.contents import decode_instruction
from strongroom.payments.instructions import TransactionContent, add_event
from strongroom.payments.instruments import open_accounts
from strongroom.payments.payment_files import LEASE, intend_files, mark_delivered, outcome_of, remittance_of, withdraw
from strongroom.payments.routing import choose
from strongroom.payments.schemes import find_published
from strongroom.payments.transactions import NOT_SENT, apply_outcomes, reference_of, seal_content
from strongroom.rails.bank import profile
from strongroom.rails.contract import BankAccount, Direction, Outcome, OutcomeKind, Payment, Provider
from strongroom.rails.formats import pain001
from strongroom.rails.marketplace import get_app
from strongroom.tenancy import TenantStatus

log = structlog.get_logger(__name__)

WORKER: Final = system("dispatch")
LEAD: Final = timedelta(days=1)
"""Money is asked for this long before the day by which it has to be there."""
CLAIM: Final = 200
"""Most instructions in one first beat."""
CONCURRENCY: Final = 8
"""Most second beats under way at once, in one round."""
ROUNDS: Final = 8
"""Most rounds under way at once, in one process; with CONCURRENCY, no more requests than `outbound` has connections."""
ROUNDS_OF_TENANT: Final = 3
"""Most of them for one tenant, so that a slow payment holds up its own batch only."""
ACT_WITHIN: Final = LEASE / 2
"""An attempt whose turn hasn't come by then is given back unsent: the rest of its lease outlasts any rail's answer."""
RECORD_AGAIN: Final = 60
RECORD_AGAIN_S: Final = 0.5
"""How often an outcome that could not be recorded is recorded again, and after which pause."""
ENQUIRE_AFTER: Final = timedelta(seconds=5)
"""How long an attempt that nobody could confirm rests before the first enquiry."""
PENDING_ENQUIRE_AFTER: Final = timedelta(seconds=30)
"""The same for one that the rail has accepted, and will end by itself."""
LONGEST_ENQUIRY_REST: Final = timedelta(minutes=10)
"""Rests between enquiries grow with the attempt's age, up to this."""
FIRST_REST: Final = timedelta(seconds=1)
"""How long an app rests when it could not be reached; every further time twice as long."""
LONGEST_REST: Final = timedelta(minutes=1)
SILENCES: Final = 16
"""So many submissions in a row without an answer that says anything, and an app rests as well."""
MAX_LEFT: Final = 20_000
"""Most instructions of a tenant that are remembered as waiting for an app that rests."""
KEY_UNAVAILABLE: Final = "KEY_UNAVAILABLE"
"""The code with which an envelope under the customer's own key isn't opened for now."""

ProviderFor = Callable[[TenantId, str, Mapping[str, str]], Provider]
"""Tenant, app id and settings → the rail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    """An attempt that has been written and now has to be acted on."""

    transaction_id: UUID
    app_id: str
    payment: Payment
    act_by: datetime


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
            case OutcomeKind.REFUSED | OutcomeKind.NEVER_RECEIVED | OutcomeKind.NOT_SENT | OutcomeKind.RETURNED:
                self.refused += 1
            case OutcomeKind.PENDING:
                self.pending += 1
            case OutcomeKind.UNCONFIRMED:
                self.unconfirmed += 1

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.intended or self.settled or self.refused or self.pending or self.unconfirmed or self.files)


@dataclass(slots=True)
class _Trouble:
    """How an app has fared lately, in one tenant."""

    silences: int = 0
    rest: timedelta = timedelta(0)
    rests_until: datetime | None = None


class _Troubles:
    """What one process remembers of the apps of a tenant that could not be reached, and of what waits for them."""

    def __init__(self) -> None:
        self._apps: dict[str, _Trouble] = {}
        self.left: set[UUID] = set()
        """Instructions that were looked at and left READY: only apps that rest could carry them."""

    def rests(self, app_id: str, now: datetime) -> bool:
        """Whether nothing may be sent there at the moment."""
        trouble = self._apps.get(app_id)
        return trouble is not None and trouble.rests_until is not None and now < trouble.rests_until

    def on_trial(self, app_id: str) -> bool:
        """Whether it hasn't taken anything since it last rested, so that one instruction goes ahead of the others."""
        trouble = self._apps.get(app_id)
        return trouble is not None and trouble.rests_until is not None

    def wake(self, now: datetime) -> None:
        """Look again at what was left, once a rest is over."""
        if any(trouble.rests_until is not None and now >= trouble.rests_until for trouble in self._apps.values()):
            self.left.clear()

    def leave(self, instruction_id: UUID) -> None:
        """Remember an instruction that has to wait."""
        if len(self.left) < MAX_LEFT:
            self.left.add(instruction_id)

    def learn(self, app_id: str, outcome: Outcome, now: datetime) -> None:
        """Take in what a submission came to."""
        not_reached = outcome.kind is OutcomeKind.NOT_SENT
        if not not_reached and outcome.kind is not OutcomeKind.UNCONFIRMED:
            self._apps.pop(app_id, None)
            self.left.clear()
            return
        if self.rests(app_id, now):
            return
        trouble = self._apps.setdefault(app_id, _Trouble())
        trouble.silences += 1
        if not_reached or self.on_trial(app_id) or trouble.silences >= SILENCES:
            trouble.silences = 0
            trouble.rest = min(2 * trouble.rest or FIRST_REST, LONGEST_REST)
            trouble.rests_until = now + trouble.rest
            log.warning("dispatch.app_rests", app=app_id, reason=outcome.reason, seconds=trouble.rest.total_seconds())


class Dispatcher:
    """Moves what is due, for any tenant. Any number of dispatchers may run side by side."""

    def __init__(self, databases: Databases, providers: ProviderFor, outbox: Path) -> None:
        self._databases = databases
        self._providers = providers
        self._outbox = outbox
        self._troubles: dict[TenantId, _Troubles] = {}
        self._records = Coalescer(self._write_outcomes)

    async def tenants_with_work(self, region: str) -> list[TenantId]:
        """The region's tenants that may have something due."""
        async with self._databases.operation(WORKER, region=region) as op:
            rows = await op.rows(
                "select distinct tenant_id from due_work where due_on <= %s order by tenant_id", op.today
            )
        return [TenantId(row[0]) for row in rows]

    async def round(self, tenant: TenantId) -> Tally:
        """One round for a tenant: what wasn't approved in time, a batch of what is due, files, attempts to ask about.

        Returns when all of it has ended, then raises the first error; what wasn't recorded is enquired about later.
        """
        tally = Tally()
        troubles = self._troubles.setdefault(tenant, _Troubles())
        begin = partial(self._databases.operation, WORKER, tenant=tenant)

        async def intend(op: Operation) -> tuple[list[_Due], dict[str, Mapping[str, str]]]:
            await expire(op)
            due = await _intend(op, troubles) if await _may_pay(op) else []
            return due, {app_id: await get_settings(op, app_id) for app_id in {item.app_id for item in due}}

        due, settings = await in_operation(begin, intend)
        tally.intended = len(due)
        rails = {app_id: self._providers(tenant, app_id, found) for app_id, found in settings.items()}
        slots = asyncio.Semaphore(CONCURRENCY)

        async def act(item: _Due) -> None:
            async with slots:
                outcome = await self._submit(rails[item.app_id], item, troubles)
            await self._record(tenant, item.transaction_id, outcome)
            tally.add(outcome.kind)

        await _all(*(act(item) for item in due))
        tally.files += await self._files(tenant)
        await self._resolve(tenant, tally)
        return tally

    async def _submit(self, rail: Provider, item: _Due, troubles: _Troubles) -> Outcome:
        """Second beat. What can't be sent any more, or is better not sent, is certain not to have been."""
        clock = self._databases.clock
        if clock.now() >= item.act_by or troubles.rests(item.app_id, clock.now()):
            return Outcome(kind=OutcomeKind.NOT_SENT, reference=item.payment.reference, reason=NOT_SENT)
        outcome = await rail.submit(item.payment)
        troubles.learn(item.app_id, outcome, clock.now())
        return outcome

    async def _record(self, tenant: TenantId, transaction_id: UUID, outcome: Outcome) -> None:
        """Third beat. What is known is not given up because the database is away for a moment."""
        for _ in range(RECORD_AGAIN):
            try:
                await self._records.submit(tenant, (transaction_id, outcome))
            except Unavailable:
                await asyncio.sleep(RECORD_AGAIN_S)
            else:
                return
        await self._records.submit(tenant, (transaction_id, outcome))

    async def _write_outcomes(self, tenant: TenantId, outcomes: Sequence[tuple[UUID, Outcome]]) -> Sequence[bool]:
        """What has ended in the meantime, together."""
        begin = partial(self._databases.operation, WORKER, tenant=tenant)
        return await in_operation(begin, lambda op: apply_outcomes(op, outcomes))

    async def _files(self, tenant: TenantId) -> list[Path]:
        """First beat for file rails, then second and third for every file that hasn't been delivered."""
        begin = partial(self._databases.operation, WORKER, tenant=tenant)

        async def intend(op: Operation) -> list[tuple[FileId, bytes]]:
            if not await _may_pay(op):
                await withdraw(op, self._outbox / str(tenant))
                return []
            with _parking(op), op.opening(Purpose.EXECUTION):
                await intend_files(op)
            rows = await op.rows("select file_id, sealed from payment_files where status = 'INTENDED'")
            with _parking(op), op.opening(Purpose.EXECUTION):
                return [
                    (FileId(row[0]), op.cipher.open("payment_files", "sealed", row[0].bytes, row[1])) for row in rows
                ]
            return []

        paths = []
        for file_id, content in await in_operation(begin, intend):
            path = self._outbox / str(tenant) / f"{file_id.hex}.xml"
            try:
                await asyncio.to_thread(write_once, path, content)
            except (OSError, Broken):
                log.exception("dispatch.file_not_written", path=str(path))
                continue
            async with begin() as op:
                await mark_delivered(op, file_id)
            paths.append(path)
        return paths

    async def _resolve(self, tenant: TenantId, tally: Tally) -> None:
        """Ask about attempts whose process died, that nobody could confirm, or that have been pending for a while."""

        async def claim(op: Operation) -> tuple[list[tuple[UUID, str]], dict[str, Mapping[str, str]]]:
            asked = await _claim_unresolved(op)
            return asked, {app_id: await get_settings(op, app_id) for app_id in {app_id for _, app_id in asked}}

        asked, settings = await in_operation(partial(self._databases.operation, WORKER, tenant=tenant), claim)
        rails = {app_id: self._providers(tenant, app_id, found) for app_id, found in settings.items()}
        slots = asyncio.Semaphore(CONCURRENCY)

        async def enquire(transaction_id: UUID, app_id: str) -> None:
            async with slots:
                outcome = await rails[app_id].enquire(reference_of(transaction_id))
            await self._record(tenant, transaction_id, outcome)
            tally.add(outcome.kind)

        await _all(*(enquire(transaction_id, app_id) for transaction_id, app_id in asked))


async def _all(*beats: Coroutine[Any, Any, None]) -> None:
    """Run to the end of all of them, then raise what the first that failed raised."""
    for ended in await asyncio.gather(*beats, return_exceptions=True):
        if ended is not None:
            raise ended


async def _may_pay(op: Operation) -> bool:
    """Whether the tenant is approved. One that isn't any more sends nothing; what it has sent is asked about."""
    row = await op.row("select status from tenants where tenant_id = %s", op.tenant)
    return row is not None and row[0] == TenantStatus.APPROVED


async def _intend(op: Operation, troubles: _Troubles) -> list[_Due]:
    """First beat: claim what is due and write its attempts. What a file rail carries waits for `intend_files`."""
    troubles.wake(op.now)
    rows = await op.rows(
        """
        select order_id, instruction_id, direction, currency, country, settled_by, scheme_id, financial_instrument_id,
               sealed, array(select app_id from transactions t
                             where (t.tenant_id, t.order_id, t.instruction_id)
                                 = (i.tenant_id, i.order_id, i.instruction_id))
        from instructions i where status = 'READY' and settled_by <= %s and instruction_id <> all(%s)
        order by settled_by limit %s for update of i skip locked
        """,
        op.today + LEAD,
        pack_uuids([instruction_id.bytes for instruction_id in troubles.left]),
        CLAIM,
    )
    if not rows:
        return []
    accounts: Mapping[bytes, BankAccount] | None = None
    with _parking(op), op.opening(Purpose.EXECUTION):
        accounts = await open_accounts(op, {row[7].bytes for row in rows})
    if accounts is None:
        return []
    schemes = await find_published(op, {row[6] for row in rows})
    installed = {app_id for app_id, configured in (await find_installed_ids(op)).items() if configured}
    banks = {
        app_id: profile.parse(await get_settings(op, app_id)) for app_id in installed if get_app(app_id).is_file_rail
    }
    attempts: list[_Attempt] = []
    taken: Counter[str] = Counter()
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
        try:
            content = decode_instruction(op.cipher.open("instructions", "sealed", instruction_id.bytes, sealed))
        except Broken as error:
            log.exception("dispatch.instruction_broken", instruction=instruction_id.hex)
            await _hold(op, order_id, instruction_id, error.code)
            continue
        money = Money(content.minor, currency)
        choice = choose(schemes[scheme_id], installed, direction, country, money)
        apps = [app_id for app_id in choice.apps if op.environment.value in get_app(app_id).environments]
        if not apps:
            await _hold(op, order_id, instruction_id, "NO_ROUTE")
            continue
        account = accounts.get(instrument_id.bytes)
        if account is None:
            await _hold(op, order_id, instruction_id, "FINANCIAL_INSTRUMENT_NOT_FOUND")
            continue
        awake = [app for app in apps if not troubles.rests(app, op.now) and not (troubles.on_trial(app) and taken[app])]
        # An app that failed without moving money comes again only when no fallback is left.
        app_id = next((app for app in awake if app not in tried), awake[0] if awake else None)
        if app_id is None:
            troubles.leave(instruction_id)
            continue
        transaction_id = new_uuid()
        payment = Payment(
            reference=reference_of(transaction_id),
            direction=Direction(direction),
            money=money,
            counterparty=account,
            due_on=settled_by,
            remittance=remittance_of(content),
            instruction=instruction_id.hex,
        )
        bank = banks.get(app_id)
        failures = pain001.check(payment, debtor=bank.account, rules=bank.rules) if bank else []
        if failures:
            await _hold(op, order_id, instruction_id, failures[0].code)
            continue
        taken[app_id] += 1
        attempts.append(
            _Attempt(
                order_id=order_id,
                instruction_id=instruction_id,
                due=_Due(transaction_id=transaction_id, app_id=app_id, payment=payment, act_by=op.now + ACT_WITHIN),
                is_file_rail=bank is not None,
            )
        )
    if not attempts:
        return []
    await _write_attempts(op, attempts)
    await record(op, "dispatch.intend", "tenant", op.tenant, detail=f"instructions={len(attempts)}")
    return [attempt.due for attempt in attempts if not attempt.is_file_rail]


async def _write_attempts(op: Operation, attempts: Sequence[_Attempt]) -> None:
    content = TransactionContent()
    await op.rows_named(
        """
        with attempts as (
            select * from unnest(%(order)s, %(instruction)s, %(transaction)s, %(app)s, %(file)s, %(sealed)s, %(event)s)
                as t(order_id, instruction_id, transaction_id, app_id, is_file_rail, sealed, event_id)
        ), written as (
            insert into transactions (tenant_id, transaction_id, order_id, instruction_id, app_id, status,
                                      claimed_until, sealed, created_at, updated_at)
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


@contextlib.contextmanager
def _parking(op: Operation) -> Iterator[None]:
    """Leave things as they are while the customer's key is away: nothing is written in here before it is needed."""
    try:
        yield
    except Unavailable as error:
        if error.code != KEY_UNAVAILABLE:
            raise
        log.warning("dispatch.parked", tenant=str(op.tenant), code=error.code)


async def _hold(op: Operation, order_id: UUID, instruction_id: UUID, reason: str) -> None:
    """Nothing can carry it as it is: back to INCOMPLETE, so that a person can change it, with the reason on record."""
    await op.run(
        "update instructions set status = 'INCOMPLETE', updated_at = %s where order_id = %s and instruction_id = %s",
        op.now,
        order_id,
        instruction_id,
    )
    await add_event(op, order_id.bytes, instruction_id.bytes, "INCOMPLETE", reason=reason)
    await record(op, "instruction.hold", "instruction", instruction_id.hex, detail=reason)


async def _claim_unresolved(op: Operation) -> list[tuple[UUID, str]]:
    """Attempts at providers to be asked about; those whose process died become UNCONFIRMED first.

    The claim is at the same time the rest until the next enquiry, in case that this one brings nothing new.
    """
    died = await op.rows(
        "select transaction_id from transactions where status = 'INTENDED' and claimed_until < %s "
        "order by transaction_id limit %s for update skip locked",
        op.now,
        CLAIM,
    )
    await apply_outcomes(op, [outcome_of(row[0], OutcomeKind.UNCONFIRMED, "PROCESS_DIED") for row in died])
    rows = await op.rows(
        """
        update transactions
        set claimed_until = %s + greatest(case status when 'UNCONFIRMED' then %s else %s end,
                                          least((%s - created_at) / 4, %s))
        where tenant_id = %s and transaction_id in (
            select transaction_id from transactions
            where file_id is null and (claimed_until is null or claimed_until < %s)
              and ((status = 'UNCONFIRMED' and updated_at < %s) or (status = 'PROCESSING' and updated_at < %s))
            order by transaction_id limit %s for update skip locked)
        returning transaction_id, app_id
        """,
        op.now,
        ENQUIRE_AFTER,
        PENDING_ENQUIRE_AFTER,
        op.now,
        LONGEST_ENQUIRY_REST,
        op.tenant,
        op.now,
        op.now - ENQUIRE_AFTER,
        op.now - PENDING_ENQUIRE_AFTER,
        CLAIM,
    )
    return [(row[0], row[1]) for row in rows]


def write_once(path: Path, content: bytes) -> None:
    """Put a file in place whole and durable; the same content again is nothing new, also when two do it at once.

    Raises errors.Broken (`FILE_DIFFERS`) when another content stands there already, and OSError when it can't be
    written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        partial = path.with_suffix(f".{secrets.token_hex(8)}.partial")
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(partial, path)  # unlike a rename, never replaces what is there
        finally:
            partial.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    if path.read_bytes() != content:
        raise Broken(Failure("FILE_DIFFERS", "{path} holds something else than was recorded.", {"path": str(path)}))


async def run_forever(dispatcher: Dispatcher, regions: Sequence[str], stop: asyncio.Event, pause_s: float) -> None:
    """Go round all tenants until told to stop; one whose round fails, or takes its time, doesn't hold up the others.

    Looks for tenants with work every `pause_s` seconds. What is under way is finished before it returns.
    """
    rounds: dict[TenantId, set[asyncio.Task[None]]] = {}
    turns = asyncio.Semaphore(ROUNDS)
    while not stop.is_set():
        for region in regions:
            for tenant in await _tenants(dispatcher, region):
                under_way = rounds.setdefault(tenant, set())
                if len(under_way) < ROUNDS_OF_TENANT:
                    task = asyncio.create_task(_work_off(dispatcher, tenant, stop, turns))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await stop.wait()
    await asyncio.gather(*(task for under_way in rounds.values() for task in under_way))


async def _tenants(dispatcher: Dispatcher, region: str) -> Sequence[TenantId]:
    try:
        return await dispatcher.tenants_with_work(region)
    except StrongroomError as error:
        log.warning("dispatch.region_failed", region=region, code=error.code)
        return []


async def _work_off(dispatcher: Dispatcher, tenant: TenantId, stop: asyncio.Event, turns: asyncio.Semaphore) -> None:
    """Rounds for a tenant until there is nothing to do, or one fails."""
    idle = False
    while not (idle or stop.is_set()):
        async with turns:
            try:
                idle = (await dispatcher.round(tenant)).idle
            except StrongroomError as error:
                log.warning("dispatch.round_failed", tenant=str(tenant), code=error.code)
                return
            except Exception:
                # Whatever is wrong with one tenant is no reason to stop paying for the others.
                log.exception("dispatch.round_broke", tenant=str(tenant))
                return
