"""Inviting by mail: the invitation, and the letter that its link goes out in."""

from __future__ import annotations

from collections.abc import Collection

from strongroom.database import Operation
from strongroom.kernel.ids import PersonId, TenantId
from strongroom.kernel.secret import Secret
from strongroom.notices import queue_letter
from strongroom.people.front_door import FrontDoor
from strongroom.people.invitations import Invitation, invite, resend
from strongroom.tenancy import find_account


async def invite_by_mail(
    op: Operation, door: FrontDoor, *, address: str, roles: Collection[str], tenant: TenantId | None
) -> Invitation:
    """Invite an address, and tell it so. Raises as `invitations.invite`."""
    invitation, token = await invite(op, door.databases, door.keys, address=address, roles=roles, tenant=tenant)
    if token is not None:
        await _tell(op, door, invitation, token)
    return invitation


async def resend_by_mail(op: Operation, door: FrontDoor, person: PersonId, tenant: TenantId | None) -> Invitation:
    """Send an invitation again, with another link. Raises as `invitations.resend`."""
    invitation, token = await resend(op, door.keys, person, tenant)
    await _tell(op, door, invitation, token)
    return invitation


async def _tell(op: Operation, door: FrontDoor, invitation: Invitation, token: Secret[str]) -> None:
    account = await find_account(op)
    values = {
        "company": "" if account is None else account.company_name,
        "address": invitation.address,
        "link": door.invitation_link(token).reveal(),
        "until": f"{invitation.expires_at:%Y-%m-%d %H:%M} UTC",
    }
    await queue_letter(op, "invitation", invitation.address, values)
