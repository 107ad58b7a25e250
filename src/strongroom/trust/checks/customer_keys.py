"""ENC-3: what tells of a customer's people is under the customer's own key as well, and comes and goes with it.

Three tenants of the stage get sensitive fields in every column that the catalogue calls so.

*Alone*: with all of the platform's data keys and without the customer's, none of these fields opens.
*Disabled*: one tenant's key is, once by its owner's word to us and once in its holder, which tells nobody. The API is
asked over ever new connections, so that each of its processes answers, until none has told a field for a while; so is
this process. The second tenant reads on all the while. Enabled, all is back.
*Rotated*: its data keys are, in both layers, while requests read and write; none fails.
*Destroyed*: a backup is made, then the third tenant's key ends for good (by two, and without the delay that the API
insists on: these are the check's own), and one customer of the second tenant's is forgotten. The database is restored
from the backup, beside the running one: nothing of either opens, and all that is others' does.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final
from uuid import UUID

import msgspec

from strongroom.database.catalogue import PERSONAL, SENSITIVE
from strongroom.kernel.actors import operator
from strongroom.kernel.errors import StrongroomError
from strongroom.kernel.ids import new_uuid
from strongroom.outbound import Answer, Destination, Limits, NoAnswer, NotSent, Outbound
from strongroom.payments.customers import customer_id_of
from strongroom.rails.marketplace import SEPA_CREDIT_TRANSFER
from strongroom.trust.backups import base_backup, files_below
from strongroom.trust.bank import SETTINGS, statement
from strongroom.trust.client import Caller, Client, codes
from strongroom.trust.sealed_fields import Field, open_layers, read_fields
from strongroom.trust.searching import Pattern, Search
from strongroom.trust.stage import PROVER, Seat, Stage, stage
from strongroom.trust.verdicts import Figure, Findings
from strongroom.trust.workbench import Workbench
from strongroom.vault import Layer, Scope, get_scope_key
from strongroom.vault.envelopes import FORMAT, PERSON_FORMAT, context_of

WITHIN_S: Final = 5.0
"""How long a disabled key may still be used anywhere."""
QUIET_S: Final = 1.8
"""For how long nothing must have been told until it counts as over."""
SECOND: Final = operator("prove, the second of two")
UNAVAILABLE: Final = "KEY_UNAVAILABLE"
_CUSTOMERS: Final = 8
_CONNECTIONS: Final = 6
"""New ones in each round."""
_ROUND_S: Final = 0.1
_HASTY: Final = Limits(connect_s=5.0, idle_s=10.0, total_s=10.0)
_IBAN: Final = "DE89370400440532013000"
"""The published example."""
_SAMPLES: Final = 2
_TRAFFIC: Final = 3
_VAULT: Final = "/v1/customer-vault"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tenant:
    """A tenant with sensitive fields, of which each has `word` in it."""

    seat: Seat
    caller: Caller
    word: str
    instrument: str
    """Id of an account of the first customer's."""

    @property
    def scope(self) -> Scope:
        return Scope(account=self.seat.account_id, tenant=self.seat.tenant_id)

    def path(self, number: int) -> str:
        """Of a customer, whose metadata is sensitive."""
        return f"{_VAULT}/{self.word}-{number % _CUSTOMERS}"

    async def reference(self, bench: Workbench) -> str:
        """What its key's holder calls it."""
        async with bench.databases.operation(PROVER, account=self.seat.account_id, tenant=self.seat.tenant_id) as op:
            return (await get_scope_key(op, Layer.CUSTOMER)).reference

    async def fields(self, bench: Workbench) -> list[Field]:
        """Its sensitive fields."""
        async with bench.databases.operation(PROVER, account=self.seat.account_id, tenant=self.seat.tenant_id) as op:
            return [found for found in await read_fields(op) if found.is_sensitive]

    async def refusals(self, bench: Workbench, *, sensitive: bool = True) -> list[str]:
        """What opening each of its fields ends in here; empty where one opens."""
        async with bench.databases.operation(PROVER, account=self.seat.account_id, tenant=self.seat.tenant_id) as op:
            fields = await read_fields(op)
            return [found.refusal(op.cipher) for found in fields if found.is_sensitive is sensitive]


@dataclass(frozen=True, slots=True)
class _Switch:
    """A way to disable a key, and to enable it again."""

    where: str
    off: Callable[[], Awaitable[None]]
    on: Callable[[], Awaitable[None]]


async def check_customer_keys(bench: Workbench) -> Figure:
    """See the module."""
    findings = Findings()
    async with stage(bench) as scene:
        owner, leaver, neighbour = [
            await _furnish(bench, scene, seat) for seat in (scene.here, scene.abroad, scene.other)
        ]
        fields = await _try_alone(findings, bench, (owner, leaver, neighbour))
        if findings.breaches:
            return findings.figure("")  # with one lock off, nothing further is put at risk
        waits = []
        for switch in await _switches(bench, owner):
            waits.append(await _disable(findings, bench, owner, neighbour, switch))
            if findings.breaches:
                return findings.figure("")
        resealed, requests = await _rotate(findings, bench, owner)
        destroyed = await _destroy(findings, bench, leaver, neighbour)
    [(here_s, back_s), (there_s, _)] = waits
    return findings.figure(
        f"{fields} fields, of which the platform's keys alone open 0; key disabled: read nowhere after {here_s:.1f} s, "
        f"in its holder alone after {there_s:.1f} s (at most {WITHIN_S:.0f}), enabled back after {back_s:.1f} s, "
        f"another tenant read on; {resealed} envelopes sealed anew under {requests} requests, 0 failed; "
        f"key destroyed: {destroyed}"
    )


async def _furnish(bench: Workbench, scene: Stage, seat: Seat) -> _Tenant:
    """Write something into every sensitive column."""
    caller, word = await scene.caller(seat), f"prove{secrets.token_hex(8)}"
    made = await caller.done("POST", f"{_VAULT}/{word}-0/financial-instrument", _account(word))
    tenant = _Tenant(seat=seat, caller=caller, word=word, instrument=made["id"])
    for number in range(_CUSTOMERS):
        await caller.done("POST", f"{tenant.path(number)}/financial-instrument", _account(word))
        await caller.done("PUT", tenant.path(number), {"note": word})
    await caller.done("POST", f"/v1/marketplace/apps/{SEPA_CREDIT_TRANSFER}/install", b"")
    settings = {"holder": f"Ada {word}", "iban": _IBAN, **SETTINGS}
    await caller.done("POST", f"/v1/apps/installed/{SEPA_CREDIT_TRANSFER}/configuration", settings)
    report = statement(iban=_IBAN, amount=Decimal("12.34"), text=word, day=caller.today)
    await caller.done("POST", "/v1/reconciliation/reports", report, content_type="application/xml")
    async with bench.databases.operation(PROVER, tenant=seat.tenant_id) as op:
        file_id = new_uuid()
        await op.run(
            "insert into payment_files (tenant_id, file_id, app_id, status, sealed, created_at, updated_at) "
            "values (%s, %s, %s, 'ANSWERED', %s, %s, %s)",
            op.tenant,
            file_id,
            SEPA_CREDIT_TRANSFER,
            op.cipher.seal("payment_files", "sealed", file_id.bytes, word.encode()),
            op.now,
            op.now,
        )
    return tenant


def _account(word: str) -> Mapping[str, Any]:
    return {"type": "BANK_ACCOUNT", "iban": _IBAN, "accountHolderName": f"Ada {word}"}


async def _switches(bench: Workbench, owner: _Tenant) -> Sequence[_Switch]:
    """Our own switch for a tenant's key, and its holder's."""
    desk, holder, reference = bench.key_desk, bench.keyring.holders.own, await owner.reference(bench)
    return (
        _Switch("here", partial(desk.disable, PROVER, owner.scope), partial(desk.enable, PROVER, owner.scope)),
        _Switch("in its holder", partial(holder.disable, reference), partial(holder.enable, reference)),
    )


async def _try_alone(findings: Findings, bench: Workbench, tenants: Sequence[_Tenant]) -> int:
    """Try every sensitive field with the platform's data keys and no others; returns how many there were."""
    tried = 0
    for tenant in tenants:
        scope = tenant.scope.id
        fields = await tenant.fields(bench)
        empty = sorted(
            f"{table}.{column}" for table, column in SENSITIVE - {(found.table, found.column) for found in fields}
        )
        findings.expect(not empty, f"nothing stands in {', '.join(empty)}: nothing is shown of it")
        platform = (await open_layers(bench, tenant.seat))[Layer.PLATFORM]
        for found in fields:
            tried += 1
            place = context_of(scope, Layer.PLATFORM, found.table, found.column)
            content = platform.open(place, found.row, found.envelope)
            if content is None:
                findings.breach(f"the platform's layer of {found.place} does not open: nothing is shown")
                continue
            further = [
                platform.open(context_of(scope, layer, found.table, found.column), found.row, content)
                for layer in Layer
            ]
            findings.expect(
                content[:2] == bytes([_format_of(found), Layer.CUSTOMER.code])
                and tenant.word.encode() not in content
                and further == [None, None],
                f"{found.place} is readable with the platform's keys alone",
            )
    return tried


def _format_of(found: Field) -> int:
    """Of the customer's layer's envelope."""
    return PERSON_FORMAT if (found.table, found.column) in PERSONAL else FORMAT


async def _disable(
    findings: Findings, bench: Workbench, owner: _Tenant, neighbour: _Tenant, switch: _Switch
) -> tuple[float, float]:
    """Switch a tenant's key off and on; after how many seconds its fields were gone, and then back."""
    before = await _ask(bench, owner, 0)
    findings.expect(set(before) == {""}, f"sensitive fields don't open before anything was done: {sorted(set(before))}")
    began_s = time.monotonic()
    await switch.off()
    told_s, rounds = 0.0, 0
    while (now_s := time.monotonic() - began_s) < WITHIN_S + QUIET_S and now_s < told_s + QUIET_S:
        rounds += 1
        answers, others = await asyncio.gather(_ask(bench, owner, rounds), _ask(bench, neighbour, rounds, _SAMPLES))
        said = {*answers, *await owner.refusals(bench)}
        if "" in said:
            told_s = time.monotonic() - began_s
        _expect_only(findings, said - {""}, UNAVAILABLE, f"fields whose key is disabled {switch.where} end in")
        _expect_only(findings, others, "", "another tenant's fields, while a key is disabled, end in")
        await asyncio.sleep(_ROUND_S)
    findings.expect(
        told_s <= WITHIN_S, f"a field was still read {told_s:.1f} s after its key was disabled {switch.where}"
    )
    await _refused_to_write(findings, owner)
    began_s = time.monotonic()
    await switch.on()
    back_s = 0.0
    while back_s < WITHIN_S:
        rounds += 1
        answers = await _ask(bench, owner, rounds)
        back_s = time.monotonic() - began_s
        if {*answers, *await owner.refusals(bench)} == {""}:
            return told_s, back_s
        await asyncio.sleep(_ROUND_S)
    findings.breach(f"{WITHIN_S:.0f} s after its key was enabled again {switch.where} not every field is back")
    return told_s, back_s


async def _refused_to_write(findings: Findings, owner: _Tenant) -> None:
    """Nothing sensitive is taken that couldn't be sealed; what is not sensitive is shown all the same."""
    answer = await owner.caller.send("PUT", owner.path(0), {"note": "later"})
    findings.expect(
        (answer.status, codes(answer)) == (503, UNAVAILABLE),
        f"a change under a disabled key is answered {answer.status}",
    )
    masked = await owner.caller.send("GET", f"{owner.path(0)}/financial-instrument/{owner.instrument}")
    findings.expect(masked.status == 200, f"what is masked is answered {masked.status} while a key is disabled")


async def _ask(bench: Workbench, tenant: _Tenant, turn: int, count: int = _CONNECTIONS) -> list[str]:
    """Ask the API for sensitive fields over connections made for it; the errors' codes, empty where it told."""
    async with _connected(bench, tenant, count) as callers:
        return await asyncio.gather(
            *(_outcome(caller, "GET", tenant.path(turn + at)) for at, caller in enumerate(callers))
        )


@asynccontextmanager
async def _connected(bench: Workbench, tenant: _Tenant, count: int) -> AsyncIterator[list[Caller]]:
    """The tenant's caller over so many connections of their own."""
    allowed = [Destination(host=bench.api.host, port=bench.api.port, loopback_ok=True)]
    async with AsyncExitStack() as stack:
        callers = []
        for _ in range(count):
            outbound = Outbound(allowed=allowed, trust=bench.api.trust, limits=_HASTY)
            client = Client(replace(bench, outbound=await stack.enter_async_context(outbound)))
            callers.append(Caller(client, tenant.caller.key, tenant.caller.token))
        yield callers


async def _outcome(caller: Caller, method: str, path: str, body: object = None) -> str:
    """What a request ended in: an error's code, its status where it has none, or nothing when it was done."""
    try:
        answer: Answer = await caller.send(method, path, body)
    except (NotSent, NoAnswer) as error:
        return type(error).__name__
    return "" if answer.status < 300 else codes(answer) or str(answer.status)


def _expect_only(findings: Findings, found: Sequence[str] | set[str], wanted: str, what: str) -> None:
    for other in sorted(set(found) - {wanted}):
        findings.breach(f"{what} {other or 'nothing: they open'}")
    findings.checked += len(found)


@dataclass(slots=True)
class _Traffic:
    """Requests that go on until they are told to stop."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    requests: int = 0
    failed: set[str] = field(default_factory=set)

    async def run(self, caller: Caller, path: str, word: str) -> None:
        """Write sensitive fields, and read them."""
        while not self.stop.is_set():
            note = f"{word} {self.requests}"
            asked: list[tuple[str, str, object]] = [
                ("PUT", path, {"note": note}),
                ("POST", f"{path}/financial-instrument", _account(note)),
            ]
            for method, wanted, body in asked:
                self.requests += 1
                if code := await _outcome(caller, method, wanted, body):
                    self.failed.add(f"{method} … {code}")
            answer = await caller.send("GET", path)
            self.requests += 1
            if answer.status != 200:
                self.failed.add(f"GET … {codes(answer) or answer.status}")
            elif msgspec.json.decode(answer.body)["metadata"] != {"note": note}:
                self.failed.add("GET … something else than was written")


async def _rotate(findings: Findings, bench: Workbench, owner: _Tenant) -> tuple[int, int]:
    """Put new data keys in the place of a tenant's, in both layers, under load; envelopes sealed anew, and requests."""
    traffic, done = _Traffic(), 0
    async with _connected(bench, owner, _TRAFFIC) as callers, asyncio.TaskGroup() as tasks:
        for number, caller in enumerate(callers):
            tasks.create_task(traffic.run(caller, owner.path(number), owner.word))
        try:
            for layer in Layer:
                await bench.key_desk.rotate_data_key(PROVER, owner.scope, layer)
                work = await bench.key_desk.tend(owner.scope)
                if work is not None:
                    findings.expect(work.is_done, f"the rotation of the {layer} layer's data key has not ended")
                    done += work.done
        finally:
            traffic.stop.set()
    for failed in sorted(traffic.failed):
        findings.breach(f"a request failed during a rotation: {failed}")
    _expect_only(findings, await owner.refusals(bench), "", "fields after a rotation end in")
    return done, traffic.requests


async def _destroy(findings: Findings, bench: Workbench, leaver: _Tenant, neighbour: _Tenant) -> str:
    """Destroy a tenant's key, and forget a customer of another's, and try everything that is left to open their fields;
    says what was tried."""
    reference = await leaver.reference(bench)
    kept = _find_copies(bench, reference)
    findings.expect(len(kept) == 1, f"{len(kept)} files in the folder of the keys hold a tenant's own key")
    if bench.server is None:
        await _end_key(findings, bench, leaver, reference)
        return "read nowhere (no backup restored: the database is on a server of your own)"
    async with AsyncExitStack() as stack:
        place = await asyncio.to_thread(stack.enter_context, base_backup(bench.server))
        await _end_key(findings, bench, leaver, reference)
        await neighbour.caller.done("DELETE", neighbour.path(1))
        restored = await stack.enter_async_context(bench.restored(place))
        opens = await leaver.refusals(restored, sensitive=False)
        findings.expect(opens.count("") == len(opens) > 0, "the restored backup does not open at all: nothing is shown")
        refusals = await leaver.refusals(restored)
        findings.expect(len(refusals) > 0, "the restored backup has no sensitive fields: nothing is shown")
        _expect_only(findings, refusals, UNAVAILABLE, "fields of a restored backup, their key destroyed, end in")
        try:
            await open_layers(restored, leaver.seat)
        except StrongroomError:
            pass
        else:
            findings.breach("data keys of a restored backup open although their key is destroyed")
        forgotten = await _try_forgotten(findings, restored, neighbour)
    return f"a restored backup opens {refusals.count('')} of {len(refusals)}; customer forgotten: it opens {forgotten}"


async def _try_forgotten(findings: Findings, restored: Workbench, tenant: _Tenant) -> str:
    """Try what a backup from before has of a tenant's second customer, and of everybody else."""
    async with restored.databases.operation(PROVER, account=tenant.scope.account, tenant=tenant.scope.tenant) as op:
        customer = customer_id_of(op, tenant.path(1).rpartition("/")[2])
        accounts = await op.rows(
            "select financial_instrument_id from financial_instruments where tenant_id = %s and customer_id = %s",
            op.tenant,
            UUID(bytes=customer),
        )
        rows = {customer, *(row[0].bytes for row in accounts)}
        fields = [found for found in await read_fields(op) if found.is_sensitive]
        of_customer = [found.refusal(op.cipher) for found in fields if found.row in rows]
        of_others = [found.refusal(op.cipher) for found in fields if found.row not in rows]
    findings.expect(len(of_customer) > 1 and len(of_others) > 1, "the restored backup has nobody forgotten in it")
    _expect_only(findings, of_customer, UNAVAILABLE, "fields of a restored backup, of somebody forgotten since, end in")
    _expect_only(findings, of_others, "", "fields of a restored backup, of others than who was forgotten, end in")
    return f"{of_customer.count('')} of {len(of_customer)}"


async def _end_key(findings: Findings, bench: Workbench, leaver: _Tenant, reference: str) -> None:
    desk = replace(bench.key_desk, destroy_delay=timedelta(0))
    await desk.ask_to_destroy(PROVER, leaver.scope)
    await desk.approve_destroying(SECOND, leaver.scope)
    await desk.tend(leaver.scope)
    for path in _find_copies(bench, reference):
        findings.breach(f"a destroyed key is left in the folder of the keys: {path}")
    _expect_only(findings, await _ask(bench, leaver, 0), UNAVAILABLE, "fields whose key is destroyed end in")
    try:
        await desk.enable(PROVER, leaver.scope)
    except StrongroomError:
        return
    findings.breach("a destroyed key was enabled again")


def _find_copies(bench: Workbench, reference: str) -> list[str]:
    """The files in the folder of the keys that have the key of this reference in them."""
    copies = []
    for path in files_below(bench.config.keys_dir):
        search = Search("keys", [Pattern("key", reference.encode())])
        search.file(path, path.name)
        if search.found:
            copies.append(path.name)
    return copies
