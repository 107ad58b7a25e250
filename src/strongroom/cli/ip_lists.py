"""`strongroom ip-lists`: looking at IP lists, and letting those back in who shut themselves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from strongroom.cli.settings import AsJson, Database, DataDir, EnvironmentOption, config_for
from strongroom.kernel.config import Environment

if TYPE_CHECKING:
    from strongroom.assembly import Installation
    from strongroom.identity.ip_lists import IpRules
    from strongroom.kernel.config import Config

app = typer.Typer(help="IP lists of accounts and tenants.", no_args_is_help=True)
Account = Annotated[UUID | None, typer.Option("--account", help="The account whose list it is.", show_default=False)]
Tenant = Annotated[UUID | None, typer.Option("--tenant", help="Or the tenant.", show_default=False)]


@app.callback()
def ip_lists() -> None:
    """IP lists of accounts and tenants."""


@app.command("show")
def show(
    *,
    account: Account = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Show from where an account or a tenant may be reached."""
    import json

    from rich.console import Console
    from rich.table import Table

    rules = _change(config_for(data_dir, environment, database), account, tenant, off=False)
    if as_json:
        listed = [
            {"name": rule.name, "first": rule.first, "last": rule.last, "interfaces": list(rule.interfaces)}
            for rule in rules.rules
        ]
        typer.echo(json.dumps({"enabled": rules.is_enabled, "rules": listed}))
        return
    console = Console(highlight=False)
    console.print("On: nobody else gets in." if rules.is_enabled else "Off: any address will do.")
    if rules.rules:
        table = Table("Rule", "From", "To", "Holds for")
        for rule in rules.rules:
            table.add_row(rule.name, rule.first, rule.last, ", ".join(rule.interfaces))
        console.print(table)


@app.command("off")
def off(
    *,
    account: Account = None,
    tenant: Tenant = None,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Switch a list off, for those who shut themselves out. Its rules stay, and can be switched on again."""
    _change(config_for(data_dir, environment, database), account, tenant, off=True)
    typer.echo("Off: any address will do.")


def _change(config: Config, account: UUID | None, tenant: UUID | None, *, off: bool) -> IpRules:
    import asyncio
    import logging

    from strongroom.assembly import Installation
    from strongroom.kernel.telemetry import configure_logs

    if (account is None) == (tenant is None):
        raise typer.BadParameter("name an account (--account) or a tenant (--tenant)")
    configure_logs(level=logging.ERROR)
    installation = Installation(config)
    installation.start()
    try:
        return asyncio.run(_in_operation(installation, account, tenant, off=off))
    finally:
        installation.stop()


async def _in_operation(installation: Installation, account: UUID | None, tenant: UUID | None, *, off: bool) -> IpRules:
    from strongroom.identity.ip_lists import get_ip_rules, set_ip_rules
    from strongroom.kernel.actors import operator
    from strongroom.kernel.ids import AccountId, TenantId

    app = installation.app(connections=1)
    try:
        await app.open()
        whose, named = (AccountId(account) if account else None), (TenantId(tenant) if tenant else None)
        async with app.databases.operation(operator(), account=whose, tenant=named) as op:
            rules = await get_ip_rules(op)
            if off:
                rules = await set_ip_rules(op, app.databases, is_enabled=False, rules=rules.rules, forced=True)
            return rules
    finally:
        await app.close()
