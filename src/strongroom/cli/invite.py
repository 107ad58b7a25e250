"""`strongroom invite`: an invitation by the installation's operator, as an account's first administrator needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.settings import AsJson, Database, DataDir, EnvironmentOption, config_for
from strongroom.kernel.config import Environment

if TYPE_CHECKING:
    from strongroom.people import Invitation


def invite(
    *,
    account: Annotated[str, typer.Option("--account", help="The account's id.")],
    email: Annotated[str, typer.Option("--email", help="The mail address of whom to invite.")],
    role: Annotated[list[str], typer.Option("--role", help="A role to be granted; may be given several times.")],
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="The roles are in this tenant. [default: in the account itself]")
    ] = None,
    hours: Annotated[int, typer.Option("--hours", min=1, max=336, help="How long the link is good.")] = 72,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Where browsers find the installation. [default: where it is being served]"),
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Invite somebody, and print the link, which works once. It isn't mailed: hand it over yourself."""
    import asyncio
    import dataclasses
    import logging
    from datetime import timedelta

    from strongroom.assembly import Installation
    from strongroom.cli.workbenches import find_served
    from strongroom.kernel.actors import operator
    from strongroom.kernel.errors import Failure, Invalid
    from strongroom.kernel.ids import AccountId, TenantId, parse_uuid
    from strongroom.kernel.mail_addresses import find_address
    from strongroom.kernel.secret import Secret
    from strongroom.kernel.telemetry import configure_logs
    from strongroom.people import invite as invite_one

    account_id, tenant_id, address = parse_uuid(account), parse_uuid(tenant), find_address(email)
    if account_id is None:
        raise Invalid(Failure("ACCOUNT_ID_IS_INVALID", "--account is the account's id, a UUID."))
    if tenant is not None and tenant_id is None:
        raise Invalid(Failure("TENANT_ID_IS_INVALID", "--tenant is the tenant's id, a UUID."))
    if address is None:
        raise Invalid(Failure("EMAIL_ADDRESS_IS_INVALID", "--email is a mail address, such as ada@example.com."))

    async def invite_somebody(installation: Installation) -> tuple[Invitation, Secret[str] | None]:
        app = installation.app(connections=1)
        try:
            await app.open()
            door = app.front_door
            if url is not None:
                door = dataclasses.replace(door, origin=url.rstrip("/"))
            async with app.operation(operator(), account=AccountId(account_id)) as op:
                invitation, token = await invite_one(
                    op,
                    app.databases,
                    door.keys,
                    address=address,
                    roles=role,
                    tenant=None if tenant_id is None else TenantId(tenant_id),
                    lifetime=timedelta(hours=hours),
                )
            return invitation, None if token is None else door.invitation_link(token)
        finally:
            await app.close()

    configure_logs(level=logging.ERROR)
    installation = Installation(config_for(data_dir, environment, database))
    installation.start()
    try:
        invitation, link = asyncio.run(invite_somebody(find_served(installation) or installation))
    finally:
        installation.stop()
    _print(invitation, None if link is None else link.reveal(), as_json=as_json)


def _print(invitation: Invitation, link: str | None, *, as_json: bool) -> None:
    import json

    from rich.console import Console

    if as_json:
        told = {
            "userId": str(invitation.person_id),
            "emailAddress": invitation.address,
            "roles": list(invitation.roles),
            "expiryDate": invitation.expires_at.isoformat(),
            "invitationStatus": invitation.state.value,
            "link": link,
        }
        typer.echo(json.dumps(told))
        return
    console = Console(highlight=False, soft_wrap=True)
    if link is None:
        console.print("This person is in the account already; the roles are granted, and no link is needed.")
        return
    console.print(f"User   {invitation.person_id}")
    console.print(f"Until  {invitation.expires_at:%Y-%m-%d %H:%M} UTC")
    console.print(f"Link   {link}", markup=False)
    console.print("The link works once. Hand it to nobody but the person it is for.", style="yellow")
