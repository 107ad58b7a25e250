"""A served installation, one of whose tenants keeps its key in a token of its own, and load on several tenants."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import UUID

from strongroom.assembly import App, Installation
from strongroom.kernel.actors import operator
from strongroom.kernel.config import Config
from strongroom.kernel.ids import AccountId
from strongroom.vault import Scope
from tests.fixtures.platform import Server
from tests.processes.campaign import ORDERS, Payer, Wanted
from tests.vault.holders.conftest import MODULE, TOKEN, Hsm

HOLDER = "hsm"
CUSTOMER = "/v1/customer-vault/customer"
"""Reading a customer's metadata takes the tenant's own key."""


def installation_of(server: Server) -> Installation:
    """The same installation, for this process."""
    simulator = next(line.split()[1] for line in server.log.splitlines() if line.startswith("Simulator "))
    ports = [urlsplit(url).port or 0 for url in (server.url, simulator)]
    return Installation(Config(data_dir=server.data_dir, port=ports[0], simulator_port=ports[1]))


@asynccontextmanager
async def opened(installation: Installation) -> AsyncIterator[App]:
    """An app of this process."""
    app = installation.app(connections=4)
    await app.open()
    try:
        yield app
    finally:
        await app.close()


def scope_of(payer: Payer) -> Scope:
    """Whose keys."""
    return Scope(account=AccountId(UUID(payer.caller.account_id)), tenant=payer.tenant)


def name_token(server: Server, hsm: Hsm, account: str) -> None:
    """Tell the installation of the token; it reads that when it starts."""
    section = (
        f'[{HOLDER}]\nkind = "pkcs11"\nmodule = "{MODULE}"\ntoken = "{TOKEN}"\npin_file = "hsm.pin"\n'
        f'accounts = ["{account}"]\n'
    )
    for name, content in (("hsm.pin", hsm.pin_file.read_text()), ("holders.toml", section)):
        path = server.data_dir / "keys" / name
        path.touch(0o600)
        path.write_text(content)


async def attach(server: Server, payer: Payer, label: str) -> None:
    """Put the token's key in the place of the tenant's."""
    async with opened(installation_of(server)) as app:
        await app.key_desk.attach(operator(), scope_of(payer), HOLDER, label)
        await app.key_desk.tend(scope_of(payer))


@contextmanager
def token_gone(server: Server, hsm: Hsm) -> Iterator[None]:
    """The token is pulled out, and what talks to it dies."""
    away = hsm.folder / "pulled-out"
    hsm.tokens.rename(away)
    for process in server.family():
        if any(word.endswith("_token.py") for word in process.cmdline()):
            process.kill()
    try:
        yield
    finally:
        away.rename(hsm.tokens)


@dataclass
class Told:
    """What requests were answered, and how long that took."""

    times_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.times_s) * 1000

    @property
    def p99_ms(self) -> float:
        return statistics.quantiles(self.times_s, n=100)[98] * 1000

    @property
    def slowest_s(self) -> float:
        return max(self.times_s)

    def __str__(self) -> str:
        return (
            f"{len(self.times_s)} requests, p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms, {dict(self.statuses)}"
        )

    def add(self, other: Told) -> None:
        """Take what others were told into account."""
        self.times_s += other.times_s
        self.statuses += other.statuses

    async def ask(self, payer: Payer, method: str, path: str, body: object = None) -> str:
        """One request, not repeated; what it ended in: a status, and an error's code."""
        began = time.monotonic()
        answer = await payer.caller.once(method, path, b"" if body is None else json.dumps(body).encode())
        self.times_s.append(time.monotonic() - began)
        said = "no answer"
        if answer is not None:
            said = str(answer.status_code)
            if answer.status_code >= 400:
                said += " " + answer.json()["errors"][0]["errorCode"]
        self.statuses[said] += 1
        return said


def due_today(payer: Payer, ref: str, minor: int = 100) -> dict[str, object]:
    """An order with one payment that is due now."""
    wanted = Wanted(ref, "1", minor, "")
    today = datetime.now(UTC).date().isoformat()
    return {"orderRef": ref, "instructions": [wanted.body(today, payer.scheme_id, payer.instrument_id)]}


async def load(payer: Payer, seconds: float, *, every_s: float, name: str) -> Told:
    """Orders and reads of a sensitive field in turn, on an even timetable."""
    told = Told()
    began = time.monotonic()
    for number in range(int(seconds / every_s)):
        await asyncio.sleep(max(0.0, began + number * every_s - time.monotonic()))
        if number % 2:
            await told.ask(payer, "GET", CUSTOMER)
        else:
            await told.ask(payer, "POST", ORDERS, due_today(payer, f"{name}-{number}"))
    return told


async def status_of(payer: Payer, ref: str) -> str:
    """The state of an order's only instruction."""
    found = await payer.caller.done("GET", f"{ORDERS}/{ref}/instruction/1")
    return str(found["status"])


async def until_read(payer: Payer, patience_s: float) -> None:
    """Wait until its customer can be read."""
    deadline = time.monotonic() + patience_s
    while (answer := await Told().ask(payer, "GET", CUSTOMER)) != "200":
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.3)


async def until_paid(payer: Payer, refs: list[str], patience_s: float) -> None:
    """Wait until all of these are paid."""
    deadline = time.monotonic() + patience_s
    waiting = list(refs)
    while waiting:
        assert time.monotonic() < deadline, f"{len(waiting)} of {len(refs)} are not paid: {waiting[:3]}"
        waiting = [ref for ref in waiting if await status_of(payer, ref) not in {"COMPLETED", "SUCCESS"}]
        await asyncio.sleep(0.3)
