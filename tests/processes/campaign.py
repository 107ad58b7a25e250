"""A campaign of kills: a served installation, a client that doesn't give up, a killer, and the accounts at the end.

Everything goes through the doors that others use: `strongroom serve` with all its processes, the API over TLS. What
came of it is then read where it can't be embellished: the database, and the simulator's own books.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import psutil
import psycopg

from strongroom.assembly import Installation
from strongroom.database.databases import url_of
from strongroom.kernel.actors import system
from strongroom.kernel.clock import SystemClock
from strongroom.kernel.config import Config
from strongroom.kernel.errors import Unavailable
from strongroom.kernel.ids import TenantId
from strongroom.kernel.secret import Secret
from strongroom.outbound import Destination, Outbound
from strongroom.payments.contents import instruction_id_of
from strongroom.payments.standing import Standing, find_standings
from strongroom.rails.connectors.simulator import Execution, Simulator
from tests.fixtures.platform import Server
from tests.fixtures.signing import authorization

ORDERS = "/v1/order-management"
WORDS = ("PENDING-SETTLE", "REFUSE-AM04", "ERROR-200", "DUPLICATE-CALLBACK", "OUT-OF-ORDER", "PENDING-FAIL")
"""What some of the instructions ask of the simulator; most ask for nothing."""
REFUSED = frozenset({"REFUSE-AM04", "PENDING-FAIL"})
VICTIMS = ("api", "api worker", "worker", "simulator", "database", "database session")
SLOW_S = 10.0
"""An answer that takes longer has been held up by something that died, which nobody may be."""
_PATIENCE_S = 180
UP_AGAIN_S = 60
"""How long a request is repeated before the campaign is given up."""


def left_behind(server: Server) -> list[psutil.Process]:
    """Processes of an installation that has stopped, the database's included."""
    data_dir = str(server.data_dir)
    left = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        environment = process.info["environ"] or {}
        if environment.get("STRONGROOM_DATA_DIR") == data_dir or any(
            data_dir in word for word in process.info["cmdline"] or []
        ):
            left.append(process)
    return left


def database_processes(server: Server) -> psutil.Process:
    """The database's main process."""
    return psutil.Process(int((server.data_dir / "database/data/postmaster.pid").read_text().split()[0]))


@dataclass
class Wanted:
    """An instruction as it was sent: what it asks of the simulator, and what it is for."""

    order_ref: str
    ref: str
    minor: int
    word: str

    def body(self, today: str, scheme_id: str, instrument_id: str = "") -> dict[str, Any]:
        """As the API takes it."""
        text = f"SIM:{self.word}" if self.word else "no tricks"
        sent = {
            "instructionRef": self.ref,
            "customerRef": "customer",
            "direction": "CREDIT",
            "amount": f"{self.minor / 100:.2f}",
            "currency": "EUR",
            "country": "DE",
            "settledByDate": today,
            "schemeId": scheme_id,
            "metadata": {"remittanceInformation": text},
        }
        if instrument_id:
            return {**sent, "financialInstrumentId": instrument_id}
        account = {"accountHolder": "Ada Sample", "iban": "DE89370400440532013000", "country": "DE"}
        return {**sent, "orderRef": self.order_ref, "bankAccount": account}


@dataclass
class Figures:
    """What came of a campaign."""

    kills: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    acknowledged: int = 0
    repeated_requests: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unended: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    executed: int = 0
    refused: int = 0
    attempts: int = 0
    unconfirmed_at_some_time: int = 0
    contradictions: int = 0
    slow: int = 0
    slowest_s: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        kills = ", ".join(f"{count} {name}" for name, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({kills}); {self.sent} instructions sent, {self.acknowledged} acknowledged "
            f"({self.repeated_requests} requests repeated), {len(self.lost)} lost; {self.executed} executed, "
            f"{len(self.doubled)} doubled, {self.refused} refused, {len(self.unended)} without an end, "
            f"{len(self.wrong)} wrong; {self.attempts} attempts, of them {self.unconfirmed_at_some_time} "
            f"unconfirmed at some time, {self.contradictions} contradictions; {self.slow} answers took "
            f"longer than {SLOW_S:.0f} s, the slowest {self.slowest_s:.1f} s; {self.seconds:.0f} s in all"
        )


class Caller:
    """A client with a key that repeats a request, with the same idempotency key, until it is answered."""

    def __init__(self, server: Server, account_id: str, public_key: str, private_key: str, tenant_id: str = "") -> None:
        self.http = httpx.AsyncClient(
            base_url=server.url, verify=ssl.create_default_context(cafile=server.ca_file), timeout=40
        )
        self.account_id, self.tenant_id = account_id, tenant_id
        self._keys = (public_key, private_key)
        self._token = ""
        self.repeated = 0
        self.slow = 0
        self.slowest_s = 0.0

    async def done(
        self, method: str, path: str, json_body: Any = None, *, content: bytes = b"", media: str = "application/json"
    ) -> Any:
        """The answer's body, once there is a success. Anything that isn't worth repeating is an error."""
        if json_body is not None:
            content = json.dumps(json_body).encode()
        key = uuid4().hex if method == "POST" else ""
        deadline = time.monotonic() + _PATIENCE_S
        pause_s = 0.05
        while True:
            began = time.monotonic()
            answer = await self.once(method, path, content, media, key)
            took_s = time.monotonic() - began
            self.slow += took_s > SLOW_S
            self.slowest_s = max(self.slowest_s, took_s)
            if answer is not None and answer.is_success:
                return answer.json() if answer.content else None
            said = "no answer" if answer is None else f"{answer.status_code} {answer.text}"
            worth_it = answer is None or answer.status_code in {401, 409, 503}
            assert worth_it and time.monotonic() < deadline, f"{method} {path}: {said}"
            if answer is not None and answer.status_code == 401:
                self._token = ""
            self.repeated += 1
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 1.0)

    async def once(
        self, method: str, path: str, content: bytes = b"", media: str = "application/json", key: str = ""
    ) -> httpx.Response | None:
        """One request; None when there was no answer."""
        try:
            if not self._token:
                answer = await self.http.post(
                    "/v1/identity/hmac", headers={"Authorization": authorization(*self._keys)}
                )
                if answer.status_code != 201:
                    return answer
                self._token = answer.json()["accessToken"]
            headers = {"Authorization": f"Bearer {self._token}", "x-account-id": self.account_id}
            if self.tenant_id:
                headers["x-tenant-id"] = self.tenant_id
            if content:
                headers["Content-Type"] = media
            if key:
                headers["Idempotency-Key"] = key
            return await self.http.request(method, path, headers=headers, content=content)
        except httpx.TransportError:
            return None


@dataclass
class Payer:
    """A tenant that pays through the simulator."""

    caller: Caller
    tenant: TenantId
    scheme_id: str
    instrument_id: str


async def make_payer(server: Server) -> Payer:
    """An account, a tenant, the simulator installed, a scheme published, a customer with an account."""
    opened = await asyncio.to_thread(server.run, "accounts", "create", "--name", "Alpine Mutual", "--json")
    assert opened.returncode == 0, opened.stderr
    key = json.loads(opened.stdout)
    admin = Caller(server, key["accountId"], key["publicKey"], key["privateKey"])
    tenant_id = (await admin.done("POST", "/v1/account/tenants", {"name": "Claims", "region": "eu"}))["tenantId"]
    made = await admin.done("POST", f"/v1/tenant/{tenant_id}/keys", {"name": "Worker", "roles": ["tenant-admin"]})
    await admin.http.aclose()
    caller = Caller(server, key["accountId"], made["publicKey"], made["privateKey"], tenant_id)
    await caller.done("POST", "/v1/marketplace/apps/simulator/install")
    draft = {"name": "Claims", "rules": [{"apps": [{"appId": "simulator"}]}]}
    scheme = await caller.done("POST", "/v1/schemes/payout", draft)
    path = f"/v1/schemes/payout/{scheme['schemeId']}/drafts/{scheme['drafts'][0]['draftId']}/publish"
    await caller.done("POST", path)
    await caller.done("POST", ORDERS, {"orderRef": "first", "instructions": []})
    account = {"type": "BANK_ACCOUNT", "accountHolderName": "Ada Sample", "iban": "DE89370400440532013000"}
    instrument = await caller.done("POST", "/v1/customer-vault/customer/financial-instrument", account)
    return Payer(caller, TenantId(UUID(tenant_id)), scheme["schemeId"], instrument["id"])


class Campaign:
    """Sends, kills, and counts."""

    def __init__(self, server: Server, payer: Payer, *, seed: int) -> None:
        self.server = server
        self.payer = payer
        self.figures = Figures()
        self._chance = random.Random(seed)
        self._today = datetime.now(UTC).date().isoformat()
        self._acknowledged: list[Wanted] = []
        self._worker_died_at = datetime.now(UTC)
        self._began = time.monotonic()

    # Sending

    async def send(self, count: int, over_s: float, *, orders: int = 4, uploads: int = 2) -> None:
        """Send `count` instructions spread over some seconds, about half of them in orders, half in bulk uploads."""
        packets = list(self._packets(count))
        began = time.monotonic()
        waiting = iter(enumerate(packets))

        async def sender() -> None:
            for at, (in_bulk, packet) in waiting:
                ahead_s = over_s * at / len(packets) - (time.monotonic() - began)
                await asyncio.sleep(max(0.0, ahead_s))
                self.figures.sent += len(packet)
                await (self._upload(packet) if in_bulk else self._order(packet))
                self._acknowledged += packet

        async with asyncio.TaskGroup() as tasks:
            for _ in range(orders + uploads):
                tasks.create_task(sender())
        self.figures.acknowledged = len(self._acknowledged)
        self.figures.repeated_requests = self.payer.caller.repeated
        self.figures.slow = self.payer.caller.slow
        self.figures.slowest_s = self.payer.caller.slowest_s

    def _packets(self, count: int) -> Iterator[tuple[bool, list[Wanted]]]:
        left = count
        while left:
            in_bulk = self._chance.random() < 0.15
            size = min(left, self._chance.randint(10, 40) if in_bulk else self._chance.randint(1, 6))
            order_ref = f"{'bulk' if in_bulk else 'order'}-{uuid4().hex}"
            yield in_bulk, [self._wanted(order_ref, at) for at in range(size)]
            left -= size

    def _wanted(self, order_ref: str, at: int) -> Wanted:
        word = self._chance.choice(WORDS) if self._chance.random() < 0.1 else ""
        return Wanted(order_ref, f"i-{at}", self._chance.randint(1, 10**7), word)

    async def _order(self, packet: Sequence[Wanted]) -> None:
        payer = self.payer
        lines = [wanted.body(self._today, payer.scheme_id, payer.instrument_id) for wanted in packet]
        await payer.caller.done("POST", ORDERS, {"orderRef": packet[0].order_ref, "instructions": lines})

    async def _upload(self, packet: Sequence[Wanted]) -> None:
        lines = [json.dumps(wanted.body(self._today, self.payer.scheme_id)).encode() for wanted in packet]
        job = await self.payer.caller.done(
            "POST", f"{ORDERS}/bulk", content=b"\n".join(lines), media="application/x-ndjson"
        )
        assert (job["status"], job["accepted"], job["refused"]) == ("COMPLETED", len(packet), 0)

    # Killing

    async def kill(self, count: int, pause_s: Callable[[random.Random], float]) -> None:
        """SIGKILL parts in random order at random times, `count` times; every kind as often as the others."""
        waiting: list[str] = []
        while self.figures.kills.total() < count:
            waiting = waiting or self._chance.sample(VICTIMS, len(VICTIMS))
            await asyncio.sleep(pause_s(self._chance))
            if await asyncio.to_thread(self._kill, waiting[-1]):
                self.figures.kills[waiting.pop()] += 1

    def _kill(self, name: str) -> bool:
        try:
            victim = self._find(name)
            if victim is None:
                return False
            victim.kill()
        except (psutil.NoSuchProcess, FileNotFoundError, ValueError):
            return False  # killed just now, and not up again
        if name == "worker":
            self._worker_died_at = datetime.now(UTC)
        return True

    def _find(self, name: str) -> psutil.Process | None:
        match name:
            case "database":
                return database_processes(self.server)
            case "database session":
                sessions = [
                    child
                    for child in database_processes(self.server).children()
                    if "strongroom_app" in child.cmdline()[0]
                ]
                return self._chance.choice(sessions) if sessions else None
            case "api worker":
                api = self._part("serve-api")
                workers = [child for child in api.children() if child.status() != psutil.STATUS_ZOMBIE] if api else []
                return self._chance.choice(workers) if workers else None
            case _:
                words = {"api": "serve-api", "worker": "serve-worker", "simulator": "strongroom.rails.simulator"}
                return self._part(words[name])

    def _part(self, word: str) -> psutil.Process | None:
        for child in psutil.Process(self.server.pid).children():
            try:
                if child.status() != psutil.STATUS_ZOMBIE and word in child.cmdline():
                    return child
            except psutil.NoSuchProcess:
                continue
        return None

    # Counting

    async def settle(self, patience_s: float, *, hurry: bool) -> None:
        """Wait until every instruction has come to its end. `hurry`: time passes faster for attempts of the dead."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if await asyncio.to_thread(self._open_instructions, hurry=hurry) == 0:
                return
            await asyncio.sleep(0.5)

    def _open_instructions(self, *, hurry: bool) -> int:
        try:
            with self.admin() as connection:
                if hurry:
                    self._pass_time(connection)
                row = connection.execute(
                    "select count(*) from instructions where tenant_id = %s and status not in ('COMPLETED', 'FAILED')",
                    (self.payer.tenant,),
                ).fetchone()
        except psycopg.OperationalError:
            return -1
        return int(row[0]) if row else 0

    def _pass_time(self, connection: psycopg.Connection[Any]) -> None:
        """A minute and a half for attempts whose worker has died since; half a minute for those that wait."""
        connection.execute(
            "update transactions set claimed_until = now() - interval '1 second' "
            "where tenant_id = %s and status = 'INTENDED' and created_at < %s and claimed_until > now()",
            (self.payer.tenant, self._worker_died_at),
        )
        connection.execute(
            "update transactions set updated_at = updated_at - interval '30 seconds', "
            "claimed_until = least(claimed_until, now() - interval '1 second') "
            "where tenant_id = %s and status in ('UNCONFIRMED', 'PROCESSING') "
            "and updated_at > now() - interval '30 seconds'",
            (self.payer.tenant,),
        )

    def admin(self, region: str = "eu") -> psycopg.Connection[Any]:
        """The region's database, with all tenants in sight."""
        return psycopg.connect(url_of(self._installation.admin_url, region).reveal(), autocommit=True)

    @property
    def _installation(self) -> Installation:
        address = urlsplit(self.server.url)
        told = next(line.split()[1] for line in self.server.log.splitlines() if line.startswith("Simulator "))
        return Installation(
            Config(
                data_dir=self.server.data_dir, port=int(address.port or 0), simulator_port=int(urlsplit(told).port or 0)
            )
        )

    async def count(self) -> Figures:
        """Hold what was acknowledged against the database, and the database against the simulator's books."""
        figures = self.figures
        standings, ids = await self._standings()
        books = await self._books()
        executed = Counter(line.instruction for line in books)
        money = {line.instruction: line.money.minor for line in books}
        for wanted in self._acknowledged:
            name = f"{wanted.order_ref}/{wanted.ref}"
            standing = standings.get((wanted.order_ref, wanted.ref))
            if standing is None:
                figures.lost.append(name)
                continue
            times = executed.pop(ids[wanted.order_ref, wanted.ref], 0)
            ends = "FAILED" if wanted.word in REFUSED else "COMPLETED"
            if times > 1:
                figures.doubled.append(name)
            if standing.status not in {"COMPLETED", "FAILED"}:
                figures.unended.append(f"{name} {standing.status}")
            elif standing.status != ends or times != (ends == "COMPLETED") or standing.money.minor != wanted.minor:
                figures.wrong.append(f"{name} {wanted.word} {standing.status} executed {times} times")
            elif times and money[ids[wanted.order_ref, wanted.ref]] != wanted.minor:
                figures.wrong.append(f"{name} executed with another amount")
            figures.executed += times
            figures.refused += standing.status == "FAILED"
        figures.wrong += [f"{instruction} is in the books and was never acknowledged" for instruction in executed]
        with self.admin() as connection:
            figures.attempts = self._number(connection, "select count(*) from transactions where tenant_id = %s")
            figures.unconfirmed_at_some_time = self._number(
                connection,
                "select count(distinct transaction_id) from instruction_events "
                "where tenant_id = %s and status = 'UNCONFIRMED'",
            )
            figures.contradictions = self._number(
                connection,
                "select count(*) from audit_entries where tenant_id = %s and action = 'transaction.contradiction'",
            )
        figures.seconds = time.monotonic() - self._began
        return figures

    def _number(self, connection: psycopg.Connection[Any], query: str) -> int:
        row = connection.execute(query.encode(), (self.payer.tenant,)).fetchone()
        return int(row[0]) if row else 0

    async def _standings(self) -> tuple[Mapping[tuple[str, str], Standing], Mapping[tuple[str, str], str]]:
        app = self._installation.app(connections=1)
        await app.open()
        try:
            refs = [(wanted.order_ref, wanted.ref) for wanted in self._acknowledged]
            async with app.operation(system("campaign"), tenant=self.payer.tenant) as op:
                found = await find_standings(op, refs) if refs else []
                ids = {(order, ref): instruction_id_of(op, order, ref).hex() for order, ref in refs}
        finally:
            await app.close()
        return {(standing.order_ref, standing.ref): standing for standing in found}, ids

    async def _books(self) -> Sequence[Execution]:
        """The simulator's books; it may just be on its way up again after the last kill."""
        deadline = time.monotonic() + UP_AGAIN_S
        while True:
            async with self.simulator() as simulator:
                try:
                    return await simulator.executions()
                except Unavailable:
                    if time.monotonic() > deadline:
                        raise
            await asyncio.sleep(0.5)

    @asynccontextmanager
    async def simulator(self) -> AsyncIterator[Simulator]:
        """A connection to the served simulator."""
        installation = self._installation
        port = installation.config.simulator_port
        outbound = Outbound(
            allowed=[Destination(host="127.0.0.1", port=port, loopback_ok=True)], trust=installation.ca_file
        )
        secret = Secret(installation.simulator_secret_file().read_text().strip())
        async with outbound:
            yield Simulator(outbound=outbound, url=f"https://127.0.0.1:{port}", secret=secret, clock=SystemClock())


async def all_up(server: Server, patience_s: float = 60) -> None:
    """Wait until the API answers that it is ready."""
    deadline = time.monotonic() + patience_s
    async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=server.ca_file), timeout=10) as http:
        while time.monotonic() < deadline:
            try:
                if (await http.get(f"{server.url}/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.2)
    raise AssertionError(f"it is not up again:\n{server.log[-3000:]}")
