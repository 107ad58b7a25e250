"""What sealing costs: fields a second against the bare cipher, the second layer on orders, rotation, and memory.

`python -m bench.sealing COUNT` prints how many MiB so many loaded scopes take in a process.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from unittest.mock import patch

import psutil
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.assembly import App, Installation
from strongroom.database.catalogue import Purpose
from strongroom.kernel.actors import operator
from strongroom.kernel.clock import SystemClock
from strongroom.kernel.config import Config, Environment
from strongroom.kernel.ids import AccountId, TenantId, new_uuid, new_uuid_bytes
from strongroom.kernel.secret import Secret
from strongroom.payments.contents import NewInstruction, NewOrder
from strongroom.payments.instruments import add_many, check_bank_account
from strongroom.payments.orders import create_orders
from strongroom.tenancy import create_tenant, find_account, plan_tenant, register_tenant
from strongroom.vault import Layer, LayerCipher, Scope, ScopeCipher, ensure_keys, renew_scope_keys
from strongroom.vault.holders import FileHolder
from strongroom.vault.holders.persons import PersonSecrets
from strongroom.vault.leases import Lease

FIELD_BYTES = 300
SCOPES = 10_000
RENEWED = 200
"""Tenants whose scope keys are renewed together."""
ROUNDS = 3
_TURNS = 12
"""Short ones, so that a change in the machine's mood meets both tenants."""
_BATCH = 500
_PLACES = (("orders", "sealed"), ("payment_files", "sealed"), ("financial_instruments", "sensitive"))
"""Columns of one layer, of both, and of both for one person."""
_WRITERS = 16
_OPERATOR = operator("bench")
_REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Fields of 300 bytes a second, sealed and opened."""

    sealed: float
    opened: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """Everything that was measured of keys. `with_one` and `with_both` are orders a second, by layers."""

    bare: Speed
    one_layer: Speed
    both_layers: Speed
    personal: Speed
    """Both layers of what is one person's alone, whose secret is read from its file each time."""
    with_one: float
    with_both: float
    rewrapped: float
    reencrypted: float
    scopes_mib: float


class _Open:
    """A customer's layer that is at hand."""

    def __init__(self, layer: LayerCipher) -> None:
        self._layer = layer

    @property
    def newest(self) -> int:
        return self._layer.newest

    def cipher(self) -> LayerCipher:
        return self._layer


def measure_fields(seconds: float) -> tuple[Speed, Speed, Speed, Speed]:
    """The bare cipher, one layer, both, and both for one person, each for so long, turn and turn about."""
    with TemporaryDirectory() as folder:
        secrets = FileHolder(Path(folder) / "keys", Environment.SANDBOX, SystemClock()).persons("bench")
        return _measure_fields(seconds, secrets)


def _measure_fields(seconds: float, secrets: PersonSecrets) -> tuple[Speed, Speed, Speed, Speed]:
    scope, row, content = new_uuid(), new_uuid_bytes(), os.urandom(FIELD_BYTES)
    platform, customer = (LayerCipher(scope, layer, {1: Secret(os.urandom(32))}) for layer in Layer)
    whole = ScopeCipher(scope, platform, Secret(os.urandom(32)), _Open(customer), persons=secrets)
    [person, *_] = secrets.take([0])
    cipher = whole.for_person(person).for_purpose(Purpose.EXECUTION)
    bare, bound = AESGCM(os.urandom(32)), os.urandom(80)

    def seal_bare(number: int) -> bytes:
        return bare.encrypt(number.to_bytes(12, "big"), content, bound)

    def seal(place: tuple[str, str]) -> Callable[[int], bytes]:
        return lambda _: cipher.seal(*place, row, content)

    sealed = seal_bare(0)
    envelopes_of = {place: cipher.seal(*place, row, content) for place in _PLACES}

    def open_(place: tuple[str, str]) -> Callable[[int], bytes]:
        return lambda _: cipher.open(*place, row, envelopes_of[place])

    ways = [
        (seal_bare, lambda _: bare.decrypt(bytes(12), sealed, bound)),
        *((seal(place), open_(place)) for place in _PLACES),
    ]
    rates: list[list[list[float]]] = [[[], []] for _ in ways]
    for _ in range(ROUNDS):
        for found, way in zip(rates, ways, strict=True):
            for reached, act in zip(found, way, strict=True):
                reached.append(_rate(act, seconds / ROUNDS / 2))
    bare_speed, one, both, personal = (
        Speed(sealed=mean(sealings), opened=mean(openings)) for sealings, openings in rates
    )
    return bare_speed, one, both, personal


def _rate(act: Callable[[int], object], seconds: float) -> float:
    """How often in a second of CPU: what else the machine does is no cost of sealing."""
    began, done = time.thread_time(), 0
    while (took := time.thread_time() - began) < seconds:
        for number in range(done, done + _BATCH):
            act(number)
        done += _BATCH
    return done / took


def measure_scopes() -> float:
    """MiB that 10,000 loaded scopes take, in a process of their own."""
    command = [sys.executable, "-m", "bench.sealing", str(SCOPES)]
    done = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True, check=True)
    return float(done.stdout)


async def measure_keys(data: Path, seconds: float) -> tuple[float, float, float, float]:
    """On the installation in `data`, which is being served and has a tenant with many payments: orders a second of
    customers who bring an account, with one layer and with both; data keys rewrapped and fields sealed anew a second.
    """
    app = Installation(Config(data_dir=data)).app(connections=_WRITERS)
    await app.open()
    try:
        async with app.databases.directory() as directory:
            row = await (await directory.execute("select account_id, tenant_id from tenants limit 1")).fetchone()
        assert row is not None  # noqa: S101  the tenant that was filled
        scope = Scope(account=AccountId(row[0]), tenant=TenantId(row[1]))
        with_one, with_both = await _compare_layers(app, scope.account, seconds)
        return with_one, with_both, await _rewrap(app, scope.account, seconds), await _reencrypt(app, scope)
    finally:
        await app.close()


async def _compare_layers(app: App, account: AccountId, seconds: float) -> tuple[float, float]:
    """Two new tenants, of which the first one's cipher is made to know of no sensitive columns."""
    tenants = [await _new_tenant(app, account) for _ in range(2)]
    with patch("strongroom.vault.envelopes.SENSITIVE", frozenset()):
        await _order(app, tenants[0])  # a cipher remembers what it has once looked up
    await _order(app, tenants[1])
    rates: list[list[float]] = [[], []]
    for _ in range(_TURNS):
        for found, tenant in zip(rates, tenants, strict=True):
            found.append(await _order_rate(app, tenant, seconds / _TURNS))
    return mean(rates[0]), mean(rates[1])


async def _order_rate(app: App, tenant: TenantId, seconds: float) -> float:
    began, done = time.perf_counter(), 0

    async def write() -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            await _order(app, tenant)
            done += 1

    await asyncio.gather(*(write() for _ in range(_WRITERS)))
    return done / (time.perf_counter() - began)


async def _order(app: App, tenant: TenantId) -> None:
    """An order with a payment to a new customer, who brings an account."""
    ref = new_uuid().hex
    async with app.operation(_OPERATOR, tenant=tenant) as op:
        sent = {"accountHolderName": "Ada Sample", "iban": "DE89370400440532013000"}
        [instrument] = await add_many(op, [(ref, check_bank_account(sent))])
        line = NewInstruction(
            ref="1",
            customer_ref=ref,
            direction="CREDIT",
            minor=20_000,
            currency="EUR",
            country="DE",
            settled_by=op.today + timedelta(days=30),
            financial_instrument_id=instrument,
            metadata={"claimNumber": "CL-2026-004711", "policyNumber": "HH-88-120-553"},
        )
        [verdict] = await create_orders(op, [NewOrder(ref, [line])], [""])
        if isinstance(verdict, Exception):
            raise verdict


async def _rewrap(app: App, account: AccountId, seconds: float) -> float:
    """The scope keys of many tenants renewed in both layers, again and again."""
    scopes = [Scope(account=account, tenant=await _new_tenant(app, account)) for _ in range(RENEWED)]
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for layer in Layer:
            renewed = await renew_scope_keys(
                app.databases, app.keyring, _OPERATOR, layer, scopes, before=app.clock.now()
            )
            done += renewed.data_keys
    return done / (time.perf_counter() - began)


async def _reencrypt(app: App, scope: Scope) -> float:
    await app.key_desk.rotate_data_key(_OPERATOR, scope, Layer.PLATFORM)
    began = time.perf_counter()
    work = await app.key_desk.tend(scope)
    return (0 if work is None else work.done) / (time.perf_counter() - began)


async def _new_tenant(app: App, account: AccountId) -> TenantId:
    tenant_id = TenantId(new_uuid())
    async with app.operation(_OPERATOR, account=account) as op:
        owner, region = await find_account(op), op.region
    assert owner is not None  # noqa: S101  the account that was opened
    operation = partial(app.operation, _OPERATOR, account=account, tenant=tenant_id, region=region)
    await ensure_keys(app.keyring, operation)
    async with operation() as op:
        tenant = plan_tenant(op, owner, name="Bench", address=None, in_use=0)
        await create_tenant(op, tenant)
    await register_tenant(app.databases, tenant)
    return tenant_id


async def _load_scopes(count: int) -> float:
    """MiB for so many scopes as a keyring has them: both layers, and a lease that is looked after."""

    def scope() -> tuple[ScopeCipher, Lease]:
        owner = new_uuid()
        platform = LayerCipher(owner, Layer.PLATFORM, {1: Secret(os.urandom(32))})

        async def opener() -> LayerCipher:
            return LayerCipher(owner, Layer.CUSTOMER, {1: Secret(os.urandom(32))})

        lease = Lease(opener, holder="bench", newest=1)
        return ScopeCipher(owner, platform, Secret(os.urandom(32)), lease), lease

    process = psutil.Process()
    before = process.memory_info().rss
    loaded = []
    for _ in range(count):
        cipher, lease = scope()
        await lease.renew()
        for table in ("orders", "instructions", "customers"):
            cipher.seal(table, "sealed", bytes(16), b"")
            cipher.index(table, "id", "")
        cipher.seal("payment_files", "sealed", bytes(16), b"")
        loaded.append((cipher, lease))
    took = process.memory_info().rss - before
    for _, lease in loaded:
        await lease.close()
    return took / 2**20


if __name__ == "__main__":
    sys.stdout.write(f"{asyncio.run(_load_scopes(int(sys.argv[1])))}\n")
