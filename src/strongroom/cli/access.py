"""`strongroom access`: why a key or a person may do something, or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from strongroom.cli.settings import AsJson, Database, DataDir, EnvironmentOption, config_for
from strongroom.kernel.config import Environment

if TYPE_CHECKING:
    from strongroom.access import Explanation, Permission
    from strongroom.assembly import Installation

app = typer.Typer(help="Who may do what, and why.", no_args_is_help=True)
Account = Annotated[UUID | None, typer.Option("--account", help="In which account.", show_default=False)]
Tenant = Annotated[UUID | None, typer.Option("--tenant", help="Or in which tenant.", show_default=False)]
Key = Annotated[UUID | None, typer.Option("--key", help="Which key, by its public half.", show_default=False)]
Person = Annotated[UUID | None, typer.Option("--person", help="Or which person, by their id.", show_default=False)]


@app.callback()
def access() -> None:
    """Who may do what, and why."""


@app.command("explain")
def explain(
    permission: Annotated[str, typer.Argument(help="What they want to do, such as transactions:write.")],
    *,
    account: Account = None,
    tenant: Tenant = None,
    key: Key = None,
    person: Person = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Tell which rule lets a key or a person do something now, or stops them. Exit status 1: they may not."""
    import asyncio
    import json
    import logging

    from strongroom.access import Permission
    from strongroom.assembly import Installation
    from strongroom.kernel.telemetry import configure_logs

    if (account is None) == (tenant is None):
        raise typer.BadParameter("name an account (--account) or a tenant (--tenant)")
    if (key is None) == (person is None) or (person is not None and account is None):
        raise typer.BadParameter("name a key (--key), or in an account a person (--person)")
    try:
        wanted = Permission(permission)
    except ValueError:
        known = ", ".join(sorted(item.value for item in Permission))
        raise typer.BadParameter(f"there is no permission {permission}; there are {known}") from None
    configure_logs(level=logging.ERROR)
    installation = Installation(config_for(data_dir, environment, database))
    installation.start()
    try:
        found = asyncio.run(_explain(installation, wanted, account=account, tenant=tenant, key=key, person=person))
    finally:
        installation.stop()
    if as_json:
        told = {
            "allowed": found.allowed,
            "sentence": found.sentence,
            "rules": found.rules,
            "code": found.refusal_code or None,
        }
        typer.echo(json.dumps(told))
    else:
        typer.echo(found.sentence)
    raise typer.Exit(0 if found.allowed else 1)


async def _explain(
    installation: Installation,
    wanted: Permission,
    *,
    account: UUID | None,
    tenant: UUID | None,
    key: UUID | None,
    person: UUID | None,
) -> Explanation:
    from strongroom.kernel.actors import operator
    from strongroom.kernel.errors import Failure, NotFound
    from strongroom.kernel.ids import AccountId, ApiKeyId, PersonId, TenantId
    from strongroom.people.explaining import explain_key, explain_person

    app = installation.app(connections=1)
    try:
        await app.open()
        whose, named = (AccountId(account) if account else None), (TenantId(tenant) if tenant else None)
        async with app.databases.operation(operator(), account=whose, tenant=named) as op:
            if key is not None:
                return await explain_key(op, app.databases, ApiKeyId(key), wanted)
            if person is not None:
                return await explain_person(op, app.databases, PersonId(person), wanted)
            raise NotFound(Failure("USER_NOT_FOUND", "There is no such person."))
    finally:
        await app.close()
