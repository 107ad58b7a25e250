"""One file, all the way: the platform is started, a tenant set up, the file sent, executed, answered and reconciled.

A rehearsal runs in the sandbox: payments go to the provider simulator and, as files, to a bank simulator that this
process plays. Everything else is the platform as it is, in processes of its own; it is spoken to through its public API
over TLS with a signed key. The figures at the end are read from the database afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from strongroom.assembly import App
from strongroom.cli.client import Client, Key
from strongroom.cli.payment_file import PaymentFile
from strongroom.cli.report import Break, Report, make_report
from strongroom.cli.sending import Sent, send
from strongroom.cli.tenant_setup import PAYING_ACCOUNT, Setup, make_tenant, read_setup, write_setup
from strongroom.cli.watching import Watch, progress_on
from strongroom.identity import open_account
from strongroom.kernel.actors import operator
from strongroom.kernel.ids import TenantId
from strongroom.payments.dispatch import LEAD
from strongroom.payments.standing import Standing, find_standings
from strongroom.reconciliation import list_breaks

MAX_BREAKS: Final = 20
"""Most breaks that are listed."""
_STANDINGS: Final = 2_000
"""How many instructions are read at once for the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What became of a file, and where everything is."""

    report: Report
    url: str
    ca_file: Path
    key_file: Path
    payment_files: Path
    bank_answers: Path


async def rehearse(
    app: App, file: PaymentFile, refused_file: Path, console: Console, *, with_break: bool = False
) -> Rehearsed:
    """Rehearse a file on a running installation; `console` shows the progress.

    `with_break`: the bank also books a payment that is none of ours. Raises whatever the API refuses.
    """
    url, trust = f"https://127.0.0.1:{app.config.port}", app.installation.ca_file
    key_file = app.config.keys_dir / "rehearsal.json"
    setup = await _set_up(app, url, key_file)
    with progress_on(console) as progress:
        watch = Watch(app, setup.tenant_id, progress, with_break=with_break)
        execution = asyncio.create_task(watch.run())
        sending = progress.add_task("Sending", total=file.size, says="")

        def show(sent: Sent) -> None:
            says = f"{sent.accepted:,} accepted · {sent.refused:,} refused"
            progress.update(sending, completed=file.position, says=says)

        try:
            async with Client(url, setup.key, trust=trust) as client:
                sent = await send(client, file, setup.schemes, refused_file, show)
            watch.is_all_sent = True
            await execution
        finally:
            execution.cancel()
    async with Client(url, setup.key, trust=trust) as client:
        report = await make_report(
            sent,
            _standings(app, client, setup.tenant_id, sent),
            await _breaks(app, setup.tenant_id),
            due_until=app.clock.now().date() + LEAD,
        )
    return Rehearsed(
        report=report,
        url=url,
        ca_file=trust,
        key_file=key_file,
        payment_files=app.config.files_dir / "outbox" / str(setup.tenant_id),
        bank_answers=app.config.files_dir / "inbox" / str(setup.tenant_id) / "done",
    )


async def _set_up(app: App, url: str, key_file: Path) -> Setup:
    """The tenant that files are sent for: made at the first time, known again afterwards."""
    if await asyncio.to_thread(key_file.exists):
        return read_setup(key_file)
    opened = await open_account(app.databases, app.keyring, operator(), company_name=PAYING_ACCOUNT["holder"])
    account_key = Key(
        account_id=str(opened.account.account_id),
        public_key=str(opened.key.public_key),
        private_key=opened.private_key,
    )
    setup = await make_tenant(url, account_key, trust=app.installation.ca_file)
    write_setup(key_file, setup)
    return setup


async def _standings(app: App, client: Client, tenant: TenantId, sent: Sent) -> AsyncIterator[Standing]:
    """How every accepted line's instruction stands."""
    refs: list[tuple[str, str]] = []
    for job_id in sent.jobs:
        async for verdict in client.results(job_id):
            if verdict["status"] == "ACCEPTED":
                refs.append((verdict["orderRef"], verdict["instructionRef"]))
            if len(refs) == _STANDINGS:
                for standing in await _find(app, tenant, refs):
                    yield standing
                refs = []
    for standing in await _find(app, tenant, refs):
        yield standing


async def _find(app: App, tenant: TenantId, refs: Sequence[tuple[str, str]]) -> list[Standing]:
    async with app.operation(operator(), tenant=tenant) as op:
        return await find_standings(op, refs)


async def _breaks(app: App, tenant: TenantId) -> list[Break]:
    async with app.operation(operator(), tenant=tenant) as op:
        lines = await list_breaks(op, take=MAX_BREAKS)
    return [
        Break(
            minor=line.content.minor,
            currency=line.content.currency,
            booked_on=line.booked_on,
            reason=line.content.reason,
        )
        for line in lines
    ]
