"""`strongroom customers`: finding customers from the installation's own command line, masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from strongroom.cli.settings import AsJson, Database, DataDir, EnvironmentOption, config_for
from strongroom.kernel.config import Environment
from strongroom.payments.customer_search import SearchBy

if TYPE_CHECKING:
    from strongroom.assembly import Installation
    from strongroom.payments.customer_search import Found

app = typer.Typer(help="Find customers.", no_args_is_help=True)


@app.callback()
def customers() -> None:
    """Find customers."""


@app.command("search")
def search(
    *,
    tenant: Annotated[UUID, typer.Option("--tenant", help="The tenant whose customers they are.")],
    by: Annotated[SearchBy, typer.Option("--by", help="What to look for; it is matched exactly.")] = SearchBy.EMAIL,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Find a tenant's customers by mail address, IBAN or reference.

    The value is asked for, or read from standard input: on a command line it would be in the shell's history and in
    every list of processes. Exit status 1 when there is nobody.
    """
    import asyncio
    import json
    import logging
    import sys

    from rich.console import Console
    from rich.table import Table

    from strongroom.assembly import Installation
    from strongroom.kernel.telemetry import configure_logs

    value = typer.prompt(by.value) if sys.stdin.isatty() else sys.stdin.readline().strip()
    configure_logs(level=logging.ERROR)
    installation = Installation(config_for(data_dir, environment, database))
    installation.start()
    try:
        found = asyncio.run(_search(installation, tenant, by, value))
    finally:
        installation.stop()
    if as_json:
        typer.echo(json.dumps([{"customerRef": each.ref, "email": each.email_mask or None} for each in found]))
    elif found:
        table = Table("Customer", "E-mail", "Known since")
        for each in found:
            table.add_row(each.ref, each.email_mask, f"{each.created_at:%Y-%m-%d %H:%M} UTC")
        Console(highlight=False).print(table)
    if not found:
        Console(stderr=True, highlight=False).print("There is no such customer.")
        raise typer.Exit(1)


async def _search(installation: Installation, tenant: UUID, by: SearchBy, value: str) -> list[Found]:
    from strongroom.kernel.actors import operator
    from strongroom.kernel.ids import TenantId
    from strongroom.payments.customer_search import search_customers

    app = installation.app(connections=1)
    found: list[Found] = []
    try:
        await app.open()
        page = None
        while page is None or len(page) == _PAGE:
            after = found[-1].customer_id if found else bytes(16)
            async with app.operation(operator(), tenant=TenantId(tenant)) as op:
                page = await search_customers(op, by, value, after=after, take=_PAGE)
            found += page
    finally:
        await app.close()
    return found


_PAGE = 1000
