"""What else is on the stage for checks to reach for: people, and what is about who may do what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from strongroom.kernel.ids import ApiKeyId, PersonId, SessionId, new_uuid, parse_uuid
from strongroom.kernel.secret import Secret
from strongroom.notices import queue_letter
from strongroom.people import accept_with_password, invite
from strongroom.people.grants import set_roles
from strongroom.people.sessions import SessionSettings, Visitor, list_sessions, put_settings
from strongroom.people.single_sign_on.flow import addresses_of
from strongroom.people.totp import code_at, new_totp_secret, step_of
from strongroom.trust.client import Caller, Key, Refused, codes
from strongroom.trust.identity_provider import ROUTE, Arrival, Said, identity_provider, verify_domain
from strongroom.trust.oauth_client import REVOCATION_PATH, open_client
from strongroom.trust.stage import PROVER, Seat, Stage
from strongroom.trust.workbench import Workbench

_CEILINGS: Final = {"ceilings": [{"currency": "EUR", "perDay": "1000.00"}]}
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


async def furnish_access(scene: Stage, payout: Mapping[str, Any]) -> Mapping[str, str]:
    """A role of the account's own, and a payout by who holds it that waits for a second approval; ids, as in paths."""
    account, admin = await scene.account_caller(scene.here), await scene.caller(scene.here)
    role = {"name": "prove", "level": "tenant", "permissions": ["transactions:write"], "conditions": _CEILINGS}
    await account.done("POST", "/v1/account/roles", role)
    rule = await admin.done("POST", "/v1/tenant/approval-rules", {"name": "prove", "approvals": 2})
    maker = await make_holder(scene, admin, ["custom:prove"])
    order = {"orderRef": "prove-waiting", "instructions": [payout]}
    await maker.done("POST", "/v1/order-management", order)
    approver = await make_holder(scene, admin, ["tenant-approval"])
    path = f"/v1/order-management/prove-waiting/instruction/{payout['instructionRef']}"
    [waiting] = (await approver.done("GET", "/v1/approvals"))["approvals"]
    await approver.done("POST", f"{path}/approve", {"contentHash": waiting["contentHash"]})
    return {"name": "prove", "ruleId": rule["ruleId"]}


async def furnish_single_sign_on(bench: Workbench, scene: Stage) -> tuple[UUID, str]:
    """A provider of the account's own, somebody whom it has signed in, and somebody who is on the way; its domain."""
    account, caller = scene.here.account_id, await scene.account_caller(scene.here)
    domain = f"{new_uuid().hex}.example"
    domain_id = await verify_domain(bench, account, domain)
    provider, where = identity_provider(), addresses_of(bench.front_door, account)
    await caller.done("PUT", ROUTE, provider.settings)
    person = Arrival(bench, account)
    said = Said(
        audience=where["metadata"],
        recipient=where["answer"],
        request=await person.leave(),
        address=f"prove@{domain}",
        now=bench.clock.now(),
    )
    if not await person.arrive(said.request, provider.assertion(said)):
        raise Refused("the provider of the checks' own signs nobody in")
    await Arrival(bench, account).leave()
    return domain_id, domain


async def furnish_revocation(scene: Stage) -> None:
    """A token of the tenant's that its key has revoked."""
    client = await open_client(scene)
    answer = await client.post(REVOCATION_PATH, token=await client.token())
    if answer.status != 200:
        raise Refused(f"revoking a token was answered {answer.status} {codes(answer)}")


async def make_holder(scene: Stage, admin: Caller, roles: Sequence[str]) -> Caller:
    """Somebody with a key of their own that an admin made, signed in."""
    level = "account" if admin.key.tenant_id is None else "tenant"
    made = await admin.done("POST", f"/v1/{level}/keys", {"name": "prove", "roles": list(roles)})
    public_key = parse_uuid(made["publicKey"])
    if public_key is None:
        raise ValueError("a key's public half is a UUID")
    key = Key(
        public_key=ApiKeyId(public_key),
        private_key=Secret(made["privateKey"]),
        account_id=admin.key.account_id,
        tenant_id=admin.key.tenant_id,
    )
    return await scene.client.caller(key)
