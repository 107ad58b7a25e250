"""`strongroom accounts`: opening accounts, which only the installation's operator can do."""

from __future__ import annotations

from typing import Annotated

import typer

from strongroom.cli.settings import AsJson, Database, DataDir, EnvironmentOption, config_for
from strongroom.kernel.config import Environment

app = typer.Typer(help="Open accounts.", no_args_is_help=True)


@app.callback()
def accounts() -> None:
    """Open accounts."""


@app.command("create")
def create(
    *,
    name: Annotated[str, typer.Option("--name", help="The company's name.")],
    region: Annotated[str | None, typer.Option("--region", help="Home region. [default: the first one]")] = None,
    approval: Annotated[
        bool, typer.Option("--tenant-approval/--no-tenant-approval", help="Whether new tenants await approval.")
    ] = False,
    max_tenants: Annotated[int, typer.Option("--max-tenants", min=-1, help="How many tenants; -1 is unlimited.")] = -1,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Open an account and make its first key (role account-admin), whose private half is shown now and never again."""
    import asyncio
    import json
    import logging

    from rich.console import Console

    from strongroom.assembly import Installation
    from strongroom.identity import OpenedAccount, open_account
    from strongroom.kernel.actors import operator
    from strongroom.kernel.telemetry import configure_logs
    from strongroom.tenancy import License

    async def open_one(installation: Installation) -> OpenedAccount:
        app = installation.app(connections=1)
        try:
            await app.open()
            return await open_account(
                app.databases,
                app.keyring,
                operator(),
                company_name=name,
                region=region or "",
                tenant_creation_approval_required=approval,
                account_license=License(max_tenants=max_tenants),
            )
        finally:
            await app.close()

    configure_logs(level=logging.ERROR)
    installation = Installation(config_for(data_dir, environment, database))
    installation.start()
    try:
        opened = asyncio.run(open_one(installation))
    finally:
        installation.stop()
    private_key = opened.private_key.reveal()
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "accountId": str(opened.account.account_id),
                    "region": opened.region,
                    "publicKey": str(opened.key.public_key),
                    "privateKey": private_key,
                    "roles": list(opened.key.roles),
                }
            )
        )
        return
    console = Console(highlight=False)
    console.print(f"Account      [bold]{opened.account.account_id}[/] in region {opened.region}")
    console.print(f"Public key   {opened.key.public_key}")
    console.print(f"Private key  {private_key}", markup=False)
    console.print("The private key is shown this once. Keep it where secrets are kept.", style="yellow")
