"""The simulator as a process of its own, and what tests send it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path

import msgspec

from strongroom.kernel.clock import Clock, SystemClock
from strongroom.kernel.ids import new_uuid
from strongroom.kernel.money import Money
from strongroom.kernel.secret import Secret
from strongroom.outbound import Answer, Destination, Limits, NotSent, Outbound
from strongroom.rails.connectors.simulator import Simulator
from strongroom.rails.contract import BankAccount, Direction, Payment
from tests.certificates import Authority

SECRET = "a secret for rehearsals, 32 characters and more"
PATIENT = Limits(connect_s=5.0, idle_s=15.0, total_s=20.0, connections=64)
HASTY = Limits(connect_s=5.0, idle_s=0.7, total_s=0.7, connections=64)
"""For what is never answered."""


class SimulatorProcess:
    """Starts, kills and starts again, always with the same books and the same port."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self.authority = authority
        self.books = directory / "books"
        self.secret_file = directory / "secret"
        self.secret_file.write_text(SECRET)
        self.secret_file.chmod(0o600)
        self.port = free_port()
        self._certificate = authority.issue("localhost", "127.0.0.1")
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "strongroom.rails.simulator", "--data", str(self.books), "--port", str(self.port)),
            *("--certificate", str(self._certificate.chain), "--key", str(self._certificate.key)),
            *("--secret-file", str(self.secret_file), "--callback-ca", str(self.authority.ca)),
        ]

    async def start(self) -> None:
        """Start it and wait until it is up."""
        self._process = self._spawn()
        async with self.outbound(PATIENT) as outbound:
            for _ in range(200):
                try:
                    if (await outbound.request("GET", f"{self.url}/health")).status == 200:
                        return
                except NotSent:
                    pass
                assert self._process.poll() is None, self._log.read_text()
                await asyncio.sleep(0.05)
        raise AssertionError(f"the simulator did not come up: {self._log.read_text()}")

    def kill(self) -> None:
        """SIGKILL: it gets no chance to tidy up."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=10)

    def end(self) -> None:
        """Leave nothing running."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def outbound(self, limits: Limits) -> Outbound:
        allowed = [Destination(host="localhost", port=self.port, loopback_ok=True)]
        return Outbound(allowed=allowed, trust=self.authority.ca, limits=limits)

    @asynccontextmanager
    async def connector(
        self, limits: Limits = PATIENT, *, callback_url: str = "", secret: str = SECRET, clock: Clock | None = None
    ) -> AsyncIterator[Simulator]:
        async with self.outbound(limits) as outbound:
            yield Simulator(
                outbound=outbound,
                url=self.url,
                secret=Secret(secret),
                clock=clock or SystemClock(),
                callback_url=callback_url,
            )

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """A request in the provider's dialect, by hand. `headers` replace the usual ones, `_` standing for -."""
        given = {"authorization": f"Bearer {SECRET}"} | {name.replace("_", "-"): text for name, text in headers.items()}
        encoded = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        async with self.outbound(PATIENT) as outbound:
            return await outbound.request(method, self.url + path, headers=given, body=encoded)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self.command(), stdout=log, stderr=log, env={**os.environ, "TZ": "Asia/Tokyo"})


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def payment(
    remittance: str = "Claim 4711", *, amount: str = "120.50", currency: str = "EUR", instruction: str = ""
) -> Payment:
    """A payment to a made-up person, under a reference of its own."""
    return Payment(
        reference=new_uuid().hex,
        direction=Direction.CREDIT,
        money=Money.parse(amount, currency),
        counterparty=BankAccount(holder="Ada Sample", iban="DE89370400440532013000"),
        due_on=date(2030, 1, 2),
        remittance=remittance,
        instruction=instruction,
    )


def dialect(reference: str, **changes: object) -> dict[str, object]:
    """A body for `POST /payments`."""
    return {
        "reference": reference,
        "direction": "CREDIT",
        "amount": "120.50",
        "currency": "EUR",
        "account": {"holder": "Ada Sample", "iban": "DE89370400440532013000"},
        "due_on": "2030-01-02",
        "remittance": "Claim 4711",
    } | changes
