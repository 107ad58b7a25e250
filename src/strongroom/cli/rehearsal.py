"""One file, all the way: the platform is started, a tenant set up, the file sent, executed, answered and reconciled.

A rehearsal runs in the sandbox: payments go to the provider simulator and, as files, to a bank simulator that this
process plays. Everything else is the platform as it is, in processes of its own; it is spoken to through its public API
over TLS with a signed key. The figures at the end are read from the database afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from strongroom.assembly import App, Installation
from strongroom.cli.client import Client, Key
from strongroom.cli.payment_file import PaymentFile
from strongroom.cli.report import Break, Report, make_report, show, show_places
from strongroom.cli.sending import Schemes, Sent, send
from strongroom.cli.settings import config_for
from strongroom.cli.supervisor import choose_port
from strongroom.identity import open_account
from strongroom.identity.certificates import write_private
from strongroom.kernel.actors import operator
from strongroom.kernel.config import Config, Environment
from strongroom.kernel.errors import Failure, Unavailable
from strongroom.kernel.ids import TenantId
from strongroom.kernel.secret import Secret
from strongroom.kernel.telemetry import end_with_parent
from strongroom.payments.dispatch import LEAD
from strongroom.payments.standing import Standing, count_attempts, count_due, find_standings
from strongroom.rails.bank.simulator import Behaviour, answer_outbox
from strongroom.rails.marketplace import SEPA_COUNTRIES, SEPA_CREDIT_TRANSFER, SIMULATOR
from strongroom.reconciliation import list_breaks

START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 60.0
PATIENCE_S: Final = 45.0
"""How long nothing may change before we stop waiting: longer than any pause between two enquiries."""
SETTLED_S: Final = 1.5
"""How long everything has to stay at rest to be at its end."""
_LOOK_EVERY_S: Final = 0.25
_MAX_BREAKS: Final = 20
"""Most breaks that are listed."""
_STANDINGS: Final = 2_000
"""How many instructions are read at once for the report."""
SETUP_FILE: Final = "rehearsal.json"
PAYING_ACCOUNT: Final[Mapping[str, str]] = {
    "holder": "Fjord & Alpine Mutual Insurance",
    "iban": "DE75512108001245126199",
    "bic": "SOGEDEFFXXX",
    "street": "Speicherstraße",
    "building": "12",
    "postCode": "60327",
    "town": "Frankfurt am Main",
    "country": "DE",
}
"""The made-up insurer's account that pays: a published example IBAN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The tenant that files are sent for."""

    key: Key
    schemes: Schemes

    @property
    def tenant_id(self) -> TenantId:
        """Its id."""
        return TenantId(UUID(self.key.tenant_id))


class Rehearsal:
    """An installation, kept up by a `strongroom serve` of our own for as long as the context lasts."""

    def __init__(self, config: Config, app: App, console: Console) -> None:
        self.config = config
        self.app = app
        self._console = console

    @property
    def url(self) -> str:
        """The API's address."""
        return f"https://127.0.0.1:{self.config.port}"

    @property
    def ca_file(self) -> Path:
        """What clients have to trust."""
        return self.app.installation.ca_file

    @property
    def outbox(self) -> Path:
        """Where payment files for the bank are."""
        return self.config.files_dir / "outbox"

    @property
    def inbox(self) -> Path:
        """Where the bank's answers are."""
        return self.config.files_dir / "inbox"

    def client(self, key: Key) -> Client:
        """A client of the API with that key."""
        return Client(self.url, key, trust=self.ca_file)

    async def set_up(self) -> Setup:
        """The tenant that files are sent for: made at the first time, remembered (0600, beside the other keys)."""
        path = self.config.keys_dir / SETUP_FILE
        if path.exists():
            return _read_setup(path.read_text())
        opened = await open_account(
            self.app.databases, self.app.keyring.master, operator(), company_name=PAYING_ACCOUNT["holder"]
        )
        account_key = Key(
            account_id=str(opened.account.account_id),
            public_key=str(opened.key.public_key),
            private_key=opened.private_key,
        )
        setup = await make_tenant(self.url, account_key, trust=self.ca_file)
        write_private(path, _setup_text(setup).encode())
        return setup

    async def carry_out(self, file: PaymentFile, refused_file: Path, *, with_break: bool) -> tuple[Setup, Report]:
        """Send the file, have it executed and answered, and report.

        `with_break`: the bank also books a payment that is none of ours.
        """
        setup = await self.set_up()
        with _progress(self._console) as progress:
            watch = _Watch(self, setup.tenant_id, progress, with_break=with_break)
            execution = asyncio.create_task(watch.run())
            try:
                task = progress.add_task("Sending", total=file.size, says="")

                def sent_so_far(sent: Sent) -> None:
                    progress.update(
                        task,
                        completed=file.position,
                        says=f"{sent.accepted:,} accepted · {sent.refused:,} refused",
                    )

                async with self.client(setup.key) as client:
                    sent = await send(client, file, setup.schemes, refused_file, sent_so_far)
                watch.is_all_sent = True
                await execution
            finally:
                execution.cancel()
        due_until = self.app.clock.now().date() + LEAD
        async with self.client(setup.key) as client:
            standings = self._standings(client, setup.tenant_id, sent)
            report = await make_report(sent, standings, await self._breaks(setup.tenant_id), due_until=due_until)
        return setup, report

    async def _standings(self, client: Client, tenant: TenantId, sent: Sent) -> AsyncIterator[Standing]:
        """How every accepted line's instruction stands."""
        refs: list[tuple[str, str]] = []
        for job_id in sent.jobs:
            async for verdict in client.results(job_id):
                if verdict["status"] == "ACCEPTED":
                    refs.append((verdict["orderRef"], verdict["instructionRef"]))
                if len(refs) == _STANDINGS:
                    for standing in await self._find(tenant, refs):
                        yield standing
                    refs = []
        for standing in await self._find(tenant, refs):
            yield standing

    async def _find(self, tenant: TenantId, refs: Sequence[tuple[str, str]]) -> list[Standing]:
        async with self.app.operation(operator(), tenant=tenant) as op:
            return await find_standings(op, refs)

    async def _breaks(self, tenant: TenantId) -> list[Break]:
        async with self.app.operation(operator(), tenant=tenant) as op:
            lines = await list_breaks(op, take=_MAX_BREAKS)
        return [
            Break(
                minor=line.content.minor,
                currency=line.content.currency,
                booked_on=line.booked_on,
                reason=line.content.reason,
            )
            for line in lines
        ]


async def make_tenant(url: str, account_key: Key, *, trust: Path | None) -> Setup:
    """A new tenant with a key, both rails and a scheme for each direction, all through the API."""
    async with Client(url, account_key, trust=trust) as client:
        tenant_id = (await client.post("/v1/account/tenants", {"name": "Claims and premiums"}))["tenantId"]
        key_body = {"name": "Claims system", "roles": ["tenant-admin"]}
        made = await client.post(f"/v1/tenant/{tenant_id}/keys", key_body)
    key = Key(
        account_id=account_key.account_id,
        tenant_id=tenant_id,
        public_key=made["publicKey"],
        private_key=Secret(made["privateKey"]),
    )
    async with Client(url, key, trust=trust) as client:
        await _install(client)
        return Setup(key=key, schemes=await _make_schemes(client))


@contextlib.asynccontextmanager
async def rehearsal(config: Config, console: Console) -> AsyncIterator[Rehearsal]:
    """Start the platform on free ports below the configured folder; stop it at the end.

    Raises errors.Unavailable (`DATABASE_NOT_STARTED`, `API_NOT_STARTED`).
    """
    installation = Installation(config)
    with console.status("Starting the database"):
        await asyncio.to_thread(installation.start)
    try:
        installation.certificate()
        app = installation.app(connections=4)
        with _serving(config) as server, console.status("Starting the API, the worker and the provider simulator"):
            await _await_api(config, server)
            await app.open()
            try:
                yield Rehearsal(config, app, console)
            finally:
                await app.close()
    finally:
        await asyncio.to_thread(installation.stop)


async def rehearse(
    data_dir: Path | None, file: PaymentFile, refused_file: Path, console: Console, *, with_break: bool = False
) -> Report:
    """Rehearse a file in an installation (the sandbox's by default), and print what became of it.

    Raises errors.Unavailable (`DATABASE_NOT_STARTED`, `API_NOT_STARTED`) and whatever the API refuses.
    """
    port, simulator_port = _free_ports()
    config = config_for(data_dir, Environment.SANDBOX, None, port=port, simulator_port=simulator_port)
    for name in file.ignored:
        console.print(f"The column {name} is not read.", style="yellow", markup=False)
    async with rehearsal(config, console) as stage:
        setup, report = await stage.carry_out(file, refused_file, with_break=with_break)
    show(report, console)
    tenant = str(setup.tenant_id)
    answers = stage.inbox / tenant / "done"
    places: list[tuple[str, str | Path]] = [
        ("Payment files (pain.001)", stage.outbox / tenant),
        ("The bank's answers (pain.002, camt.053)", answers),
    ]
    if report.sent.refused:
        places.append(("Refused lines, with reasons", refused_file))
    places += [
        ("API", f"{stage.url} (stopped; this starts it again, and keeps it up:)"),
        ("", f"strongroom serve --data-dir {config.data_dir} --port {port} --simulator-port {simulator_port}"),
        ("CA file", stage.ca_file),
        ("A key to sign in with (0600)", config.keys_dir / SETUP_FILE),
    ]
    show_places(console, places)
    return report


def _free_ports() -> tuple[int, int]:
    """For the API and for the provider simulator; those of `serve` where they are free."""
    ports: list[int] = []
    for wanted in (8443, 8444):
        try:
            ports.append(choose_port("127.0.0.1", wanted))
        except Unavailable:
            ports.append(choose_port("127.0.0.1", 0))
    return ports[0], ports[1]


class _Watch:
    """Plays the bank, and shows how far execution is until nothing more happens."""

    def __init__(self, rehearsal: Rehearsal, tenant: TenantId, progress: Progress, *, with_break: bool) -> None:
        self.is_all_sent = False
        self._rehearsal = rehearsal
        self._tenant = tenant
        self._progress = progress
        self._with_break = with_break
        self._tasks: dict[str, TaskID] = {}

    async def run(self) -> None:
        """Until everything that is due came to an end, or nothing has changed for `PATIENCE_S`."""
        seen: object = None
        changed_at = time.monotonic()
        while True:
            answered = await self._answer()
            state = await self._look()
            if answered or state != seen:
                seen, changed_at = state, time.monotonic()
            for_s = time.monotonic() - changed_at
            if self.is_all_sent and for_s >= (SETTLED_S if self._is_at_rest(state) else PATIENCE_S):
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _answer(self) -> int:
        """The bank reads what is new in the outbox, and drops its answers into the inbox."""
        inbox = self._rehearsal.inbox / str(self._tenant)
        dropped = await asyncio.to_thread(
            answer_outbox,
            self._rehearsal.outbox / str(self._tenant),
            inbox,
            books_dir=self._rehearsal.config.data_dir / "bank",
            at=self._rehearsal.app.clock.now(),
            behaviour=Behaviour(unrelated_incoming=self._with_break),
        )
        self._with_break = self._with_break and not dropped
        return len(dropped)

    async def _look(self) -> tuple[Mapping[tuple[str, str], int], int, int]:
        """Attempts by app and state; what is due and not begun; files of the bank that nobody has read yet."""
        app = self._rehearsal.app
        async with app.operation(operator(), tenant=self._tenant) as op:
            attempts = await count_attempts(op)
            due = await count_due(op, op.today + LEAD)
        inbox = self._rehearsal.inbox / str(self._tenant)
        unread = len([*inbox.glob("*.xml"), *inbox.glob("taken/*.xml")])
        for app_id, title in ((SIMULATOR, "Provider simulator"), (SEPA_CREDIT_TRANSFER, "SEPA by file")):
            self._show(app_id, title, attempts)
        return attempts, due, unread

    def _show(self, app_id: str, title: str, attempts: Mapping[tuple[str, str], int]) -> None:
        states = {state: count for (name, state), count in attempts.items() if name == app_id}
        if not states:
            return
        if app_id not in self._tasks:
            self._tasks[app_id] = self._progress.add_task(title, total=None, says="")
        paid, failed = states.get("SUCCESS", 0), states.get("FAILED", 0)
        parts = [f"{paid:,} paid", f"{failed:,} failed"]
        parts += [f"{states[state]:,} {state.lower()}" for state in ("UNCONFIRMED", "PROCESSING") if states.get(state)]
        self._progress.update(
            self._tasks[app_id], total=sum(states.values()), completed=paid + failed, says=" · ".join(parts)
        )

    @staticmethod
    def _is_at_rest(state: tuple[Mapping[tuple[str, str], int], int, int]) -> bool:
        """Whether nothing is to be expected any more: what a bank says nothing about stays as it is."""
        attempts, due, unread = state
        moving = {"INTENDED", "UNCONFIRMED", "PROCESSING"}
        waiting = sum(
            count
            for (app_id, status), count in attempts.items()
            if status in moving and (app_id, status) != (SEPA_CREDIT_TRANSFER, "PROCESSING")
        )
        return not (waiting or due or unread)


@contextlib.contextmanager
def _serving(config: Config) -> Iterator[subprocess.Popen[bytes]]:
    """A `strongroom serve` of our own; what it says goes to `serve.log` in the installation's folder."""
    command = [
        sys.executable, "-P", "-m", "strongroom.cli", "serve",
        "--data-dir", str(config.data_dir),
        "--port", str(config.port),
        "--simulator-port", str(config.simulator_port),
    ]  # fmt: skip
    variables = {name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")}
    with (config.data_dir / "serve.log").open("ab") as log:
        server = subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509  # one call of libc, before exec
        )
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


async def _await_api(config: Config, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", config.port)
            writer.close()
            return
        if server.poll() is not None or time.monotonic() > deadline:
            raise Unavailable(
                Failure(
                    "API_NOT_STARTED",
                    "The platform did not start; {log} says why.",
                    {"log": str(config.data_dir / "serve.log")},
                )
            )
        await asyncio.sleep(0.05)


async def _install(client: Client) -> None:
    for app_id in (SIMULATOR, SEPA_CREDIT_TRANSFER):
        await client.post(f"/v1/marketplace/apps/{app_id}/install")
    await client.post(f"/v1/apps/installed/{SEPA_CREDIT_TRANSFER}/configuration", PAYING_ACCOUNT)


async def _make_schemes(client: Client) -> Schemes:
    """Payouts in euro within SEPA go by file, with the provider as fallback; everything else to the provider."""
    provider = {"apps": [{"appId": SIMULATOR}]}
    by_file = {
        "currencies": ["EUR"],
        "countries": sorted(SEPA_COUNTRIES),
        "apps": [{"appId": SEPA_CREDIT_TRANSFER}, {"appId": SIMULATOR}],
    }
    payout = await _publish(client, "payout", {"name": "Claims", "code": "claims", "rules": [by_file, provider]})
    collect = await _publish(
        client,
        "collect",
        {"name": "Premiums", "code": "premiums", "agreementType": "Reuse", "rules": [provider]},
    )
    return Schemes(collect=collect, payout=payout)


async def _publish(client: Client, kind: str, draft: Mapping[str, object]) -> str:
    scheme = await client.post(f"/v1/schemes/{kind}", draft)
    scheme_id = str(scheme["schemeId"])
    await client.post(f"/v1/schemes/{kind}/{scheme_id}/drafts/{scheme['drafts'][0]['draftId']}/publish")
    return scheme_id


def _setup_text(setup: Setup) -> str:
    key = setup.key
    return json.dumps(
        {
            "accountId": key.account_id,
            "tenantId": key.tenant_id,
            "publicKey": key.public_key,
            "privateKey": key.private_key.reveal(),
            "collectSchemeId": setup.schemes.collect,
            "payoutSchemeId": setup.schemes.payout,
        }
    )


def _read_setup(text: str) -> Setup:
    kept = json.loads(text)
    return Setup(
        key=Key(
            account_id=kept["accountId"],
            tenant_id=kept["tenantId"],
            public_key=kept["publicKey"],
            private_key=Secret(kept["privateKey"]),
        ),
        schemes=Schemes(collect=kept["collectSchemeId"], payout=kept["payoutSchemeId"]),
    )


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<20}"),
        BarColumn(bar_width=32),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[says]}"),
        TimeElapsedColumn(),
        console=console,
    )
