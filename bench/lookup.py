"""Look-ups by what is sealed: customers found by their mail address among few and among many."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psycopg

from bench.failure import BenchError
from strongroom.assembly import App, Installation
from strongroom.database import Operation, pack_bytes, pack_uuids
from strongroom.database.databases import url_of
from strongroom.identity import open_account
from strongroom.kernel.actors import operator
from strongroom.kernel.config import Config, Environment
from strongroom.kernel.ids import AccountId, TenantId, new_uuid
from strongroom.payments.customer_search import SearchBy, search_customers
from strongroom.payments.customers import CustomerContent, Details, customer_id_of
from strongroom.tenancy import create_tenant, get_account, plan_tenant, register_tenant
from strongroom.vault import ensure_keys, new_persons

BATCH = 10_000
TAKEN = 500
"""Look-ups of one turn, one after the other."""
ROUNDS = 4
"""Turns that are timed; one before them isn't."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedUp:
    """Look-ups among `customers`, each in an operation of its own, one at a time."""

    customers: int
    rate: float
    p99_ms: float


def measure(folder: Path, counts: Sequence[int]) -> list[LookedUp]:
    """Fill a tenant of a new installation in `folder` with each of these numbers of customers, and look some up.

    Raises:
        BenchError: somebody who is there isn't found, or somebody else is.
        StrongroomError: the database failed.
    """
    installation = Installation(Config(data_dir=folder, environment=Environment.SANDBOX))
    installation.start()
    try:
        return asyncio.run(_measure(installation, counts))
    finally:
        installation.stop()


async def _measure(installation: Installation, counts: Sequence[int]) -> list[LookedUp]:
    app = installation.app(connections=1)
    try:
        await app.open()
        opened = await open_account(app.databases, app.keyring, operator(), company_name="Bench", region="eu")
        tenants = [await _fill(app, opened.account.account_id, count) for count in counts]
        with psycopg.connect(url_of(installation.admin_url, "eu").reveal(), autocommit=True) as admin:
            admin.execute("vacuum analyze customers")
        took: list[list[float]] = [[] for _ in counts]
        # Turn and turn about, so that a change in the machine's mood meets all of them.
        for turn in range(ROUNDS + 1):
            for tenant, count, times in zip(tenants, counts, took, strict=True):
                timed = await _look_up(app, tenant, count, turn)
                times.extend(timed if turn else ())
    finally:
        await app.close()
    return [
        LookedUp(customers=count, rate=len(times) / sum(times), p99_ms=statistics.quantiles(times, n=100)[98] * 1000)
        for count, times in zip(counts, took, strict=True)
    ]


async def _fill(app: App, account_id: AccountId, count: int) -> TenantId:
    tenant = await _open_tenant(app, account_id)
    for first in range(0, count, BATCH):
        async with app.operation(operator(), tenant=tenant) as op:
            await _write(op, range(first, min(first + BATCH, count)))
    return tenant


async def _look_up(app: App, tenant: TenantId, count: int, turn: int) -> list[float]:
    """How long each took, in seconds."""
    took: list[float] = []
    for number in random.Random(turn).choices(range(count), k=TAKEN):
        began = time.perf_counter()
        async with app.operation(operator(), tenant=tenant) as op:
            found = await search_customers(op, SearchBy.EMAIL, _email(number))
        took.append(time.perf_counter() - began)
        if [customer.ref for customer in found] != [_ref(number)]:
            raise BenchError(f"looking for the customer {_ref(number)} among {count:,} found {len(found)} others")
    return took


async def _write(op: Operation, numbers: range) -> None:
    """Customers as the platform writes them, many in one statement."""
    encode = msgspec.msgpack.encode
    ids = [customer_id_of(op, _ref(number)) for number in numbers]
    shown = [encode(CustomerContent(_ref(number), email_mask="c***@example.com")) for number in numbers]
    details = [encode(Details(email=_email(number))) for number in numbers]
    seal, persons = op.cipher.seal, await new_persons(op, len(ids))
    await op.run(
        "insert into customers (tenant_id, customer_id, status, sealed, sensitive, email_index, person, created_at, "
        "updated_at) select %s, id, 'ACTIVE', s, d, e, p, %s, %s "
        "from unnest(%s, %s, %s, %s, %s::bigint[]) as t(id, s, d, e, p)",
        op.tenant,
        op.now,
        op.now,
        pack_uuids(ids),
        pack_bytes([seal("customers", "sealed", row, each) for row, each in zip(ids, shown, strict=True)]),
        pack_bytes(
            [
                op.cipher.for_person(person).seal("customers", "sensitive", row, each)
                for person, row, each in zip(persons, ids, details, strict=True)
            ]
        ),
        pack_bytes([op.cipher.blind("customers", "email_index", _email(number)) for number in numbers]),
        persons,
    )


async def _open_tenant(app: App, account_id: AccountId) -> TenantId:
    tenant_id = TenantId(new_uuid())

    def operation() -> AbstractAsyncContextManager[Operation]:
        return app.operation(operator(), region="eu", account=account_id, tenant=tenant_id)

    await ensure_keys(app.keyring, operation)
    async with app.operation(operator(), account=account_id) as op:
        account = await get_account(op)
    async with operation() as op:
        tenant = plan_tenant(op, account, name="Bench", address=None, in_use=0)
        await create_tenant(op, tenant)
        await register_tenant(app.databases, tenant)
    return tenant_id


def _ref(number: int) -> str:
    return f"C-{number}"


def _email(number: int) -> str:
    return f"customer.{number}@example.com"
