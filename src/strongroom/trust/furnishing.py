"""People on the stage: somebody who is there with all that belongs to a person, for checks to reach for."""

from __future__ import annotations

from typing import Final

from strongroom.kernel.ids import PersonId, SessionId, new_uuid
from strongroom.kernel.secret import Secret
from strongroom.notices import queue_letter
from strongroom.people import accept_with_password, invite
from strongroom.people.grants import set_roles
from strongroom.people.sessions import SessionSettings, Visitor, list_sessions, put_settings
from strongroom.people.totp import code_at, new_totp_secret, step_of
from strongroom.trust.stage import PROVER, Seat
from strongroom.trust.workbench import Workbench

_VISITOR: Final = Visitor(source="", agent="prove")
_LETTER: Final = {"company": "prove", "address": "prove@example.com", "link": "", "until": ""}


async def furnish_person(bench: Workbench, seat: Seat) -> tuple[PersonId, SessionId]:
    """Somebody of the seat's account who holds a role in its tenant, too; who they are and where they are signed in.

    They have a letter that is never due, and are the reason that the account has settings for sessions.
    """
    door, account = bench.front_door, seat.account_id
    async with bench.databases.operation(PROVER, account=account) as op:
        invitation, token = await invite(
            op,
            bench.databases,
            door.keys,
            address=f"prove.{new_uuid()}@example.com",
            roles=["account-tenant-read"],
        )
        await put_settings(op, SessionSettings())
        mail = await queue_letter(op, "invitation", "prove@example.com", _LETTER)
        await op.run("update due_mails set due_at = 'infinity' where account_id = %s and mail_id = %s", account, mail)
    if token is None:
        raise LookupError("an address that nobody has needs a link")
    totp = new_totp_secret()
    await accept_with_password(
        door,
        token,
        name="Ada Sample",
        password=Secret(str(new_uuid())),
        totp=totp,
        code=code_at(totp, step_of(bench.clock.now())),
        visitor=_VISITOR,
    )
    async with bench.databases.operation(PROVER, account=account) as op:
        await set_roles(op, invitation.person_id, seat.tenant_id, ["tenant-app-read"])
        (session,) = await list_sessions(op, invitation.person_id)
    return invitation.person_id, session.session_id
