"""ACC-1: an invitation's link tells nothing, and works once, in time, unaltered, not withdrawn.

There is no other way in but by the account's own provider, where the account lets it (ACC-2).
"""

from __future__ import annotations

import base64
import os
import re
from datetime import timedelta
from typing import Final

import psycopg

from strongroom.kernel.errors import Collided
from strongroom.kernel.ids import AccountId, PersonId, new_uuid
from strongroom.kernel.secret import Secret
from strongroom.outbound import Answer
from strongroom.people import DoorKeys, Invitation, invite
from strongroom.people.credentials import find_password
from strongroom.people.invitations import resend, revoke
from strongroom.people.keys import SECRET_BYTES, decode, encode
from strongroom.people.totp import code_at, step_of
from strongroom.trust.stage import PROVER, Stage, stage
from strongroom.trust.verdicts import Figure, Findings
from strongroom.trust.visitor import Visitor
from strongroom.trust.workbench import Workbench

_LINK: Final = "/portal/invitation/"
_PAGE: Final = "/portal/invitation"
_HOME: Final = "/portal/account"
_ROLES: Final = ("account-tenant-read",)
_PASSWORD: Final = "neun Esel tragen Heu"  # noqa: S105  of nobody: made for the check
_COMMON: Final = "password1"
_HIDDEN: Final = re.compile(r'name="(form|setup)" value="([^"]*)"')
_SHOWN: Final = re.compile(r'id="totp-secret">([A-Z2-7 ]+)<')
_STEP: Final = 12
"""Every so many characters of a link one is altered."""


async def check_invitations(bench: Workbench) -> Figure:
    """See the module."""
    findings = Findings()
    async with stage(bench) as scene:
        account = scene.here.account_id
        good, token = await _invite(bench, account)
        refused = await _check_bad_links(findings, bench, account, token)
        await _check_weak(findings, bench, token)
        await _check_good(findings, bench, scene, good, token)
        await _expect_closed(findings, bench, "a used link", token)
        await _check_nothing_else(findings, bench, account)
    return findings.figure(
        f"a link made a person once, with a password (argon2id) and a second factor; {refused} bad links refused "
        "(altered, cut, of another key, expired, withdrawn, replaced, used); nobody is there without an "
        "accepted one, or a provider's word that the account takes"
    )


async def _invite(
    bench: Workbench, account: AccountId, *, lifetime: timedelta = timedelta(hours=1)
) -> tuple[Invitation, Secret[str]]:
    """An invitation of an address that nobody has, and its link's token."""
    door = bench.front_door
    async with bench.databases.operation(PROVER, account=account) as op:
        invitation, token = await invite(
            op,
            bench.databases,
            door.keys,
            address=f"prove.{new_uuid()}@example.com",
            roles=_ROLES,
            lifetime=lifetime,
        )
    if token is None:
        raise LookupError("an address that nobody has needs a link")
    return invitation, token


async def _check_bad_links(findings: Findings, bench: Workbench, account: AccountId, token: Secret[str]) -> int:
    text = token.reveal()
    raw = decode(text) or b""
    findings.expect(account.bytes not in raw, "a link shows its account")
    bad = {
        **{
            f"a link altered at character {at}": text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
            for at in range(0, len(text), _STEP)
        },
        "a link altered at its end": encode(raw[:-1] + bytes([raw[-1] ^ 1])),
        "a link cut short": text[: len(text) // 2],
        "a link of another key": DoorKeys(Secret(os.urandom(SECRET_BYTES))).seal("invitation", bytes(64)),
        "an invented link": encode(os.urandom(len(raw))),
    }
    for what, wrong in bad.items():
        await _expect_closed(findings, bench, what, Secret(wrong))
    _, expired = await _invite(bench, account, lifetime=timedelta(seconds=-1))
    await _expect_closed(findings, bench, "an expired link", expired)
    keys = bench.front_door.keys
    withdrawn, gone = await _invite(bench, account)
    async with bench.databases.operation(PROVER, account=account) as op:
        await revoke(op, withdrawn.person_id, None)
    await _expect_closed(findings, bench, "a withdrawn link", gone)
    replaced, before = await _invite(bench, account)
    async with bench.databases.operation(PROVER, account=account) as op:
        await resend(op, keys, replaced.person_id, None)
    await _expect_closed(findings, bench, "a link that was replaced", before)
    return len(bad) + 4


async def _check_weak(findings: Findings, bench: Workbench, token: Secret[str]) -> None:
    """What isn't secure enough is refused, and leaves the link as it was."""
    for what, password, right in (
        ("a short password", "a1b2c3d", True),
        ("a common password", _COMMON, True),
        ("no second factor", _PASSWORD, False),
    ):
        visitor = _Visitor(bench)
        if await visitor.open(token):
            answer = await visitor.accept(password, right_code=right)
            findings.expect(answer.status in {400, 401}, f"{what} is answered {answer.status}")


async def _check_good(
    findings: Findings, bench: Workbench, scene: Stage, invitation: Invitation, token: Secret[str]
) -> None:
    visitor = _Visitor(bench)
    if not findings.expect(await visitor.open(token), "a good link doesn't open"):
        return
    answer = await visitor.accept(_PASSWORD)
    if not findings.expect(answer.status == 200, f"a good link's acceptance is answered {answer.status}"):
        return
    home = await visitor.send("GET", _HOME)
    findings.expect(home.status == 200, f"the first page is answered {home.status} to somebody who has just come in")
    findings.expect(invitation.address.encode() in home.body, "who comes in doesn't have the invited address")
    user = await (await scene.account_caller(scene.here)).done("GET", f"/v1/account/users/{invitation.person_id}")
    findings.expect(tuple(user["roles"]) == _ROLES, "who comes in doesn't have the invited roles")
    await _check_kept(findings, bench, scene.here.account_id, invitation.person_id)


async def _check_kept(findings: Findings, bench: Workbench, account: AccountId, person: PersonId) -> None:
    async with bench.databases.operation(PROVER, account=account) as op:
        kept = await find_password(op, person)
    is_argon2id = kept is not None and kept.startswith("$argon2id$") and _PASSWORD not in kept
    findings.expect(is_argon2id, "a password isn't kept as an Argon2id hash")


async def _check_nothing_else(findings: Findings, bench: Workbench, account: AccountId) -> None:
    """The database itself refuses a person without an accepted invitation, and has none, of anybody."""
    invitation, _ = await _invite(bench, account)
    try:
        async with bench.databases.operation(PROVER, account=account) as op:
            await op.run(
                "insert into persons (account_id, person_id, invitation_id, state, address_hash, sealed, created_at, "
                "updated_at) select account_id, person_id, invitation_id, 'ACTIVE', address_hash, sealed, %s, %s "
                "from invitations where invitation_id = %s",
                op.now,
                op.now,
                invitation.invitation_id,
            )
            raise _Made
    except _Made:
        findings.breach("the database takes a person whose invitation nobody accepted")
    except Collided as error:
        refused = isinstance(error.__cause__, psycopg.IntegrityError)
        findings.expect(refused, f"a person without an invitation fails with {type(error).__name__}")
    await _check_admission(findings, bench, account)
    for region in bench.config.regions:
        async with bench.admin(region) as connection:
            cursor = await connection.execute(
                "select count(*) from persons p left join invitations i using (account_id, invitation_id, person_id) "
                "left join admissions a on a.account_id = p.account_id and a.admission_id = p.admission_id "
                "and a.person_id = p.person_id where i.state is distinct from 'ACCEPTED' and a.person_id is null"
            )
            row = await cursor.fetchone()
        findings.expect(row is not None and row[0] == 0, f"{region} has people without an accepted invitation")


async def _check_admission(findings: Findings, bench: Workbench, account: AccountId) -> None:
    """An account that doesn't let its provider's people in can't be made to."""
    try:
        async with bench.databases.operation(PROVER, account=account) as op:
            await op.run(
                "insert into admissions (account_id, admission_id, person_id, domain_id, admitted_at) "
                "values (%s, %s, %s, %s, %s)",
                account,
                new_uuid(),
                new_uuid(),
                new_uuid(),
                op.now,
            )
            raise _Made
    except _Made:
        findings.breach("the database admits people to an account that doesn't let its provider do so")
    except Collided as error:
        refused = isinstance(error.__cause__, psycopg.IntegrityError)
        findings.expect(refused, f"an admission that nobody allowed fails with {type(error).__name__}")


async def _expect_closed(findings: Findings, bench: Workbench, what: str, token: Secret[str]) -> None:
    visitor = _Visitor(bench)
    if not await visitor.open(token):
        findings.expect(True, "")  # noqa: FBT003  one more that was refused
        return
    answer = await visitor.accept(_PASSWORD)
    led = "lets somebody in" if answer.status == 200 else "is shown as good"
    findings.breach(f"{what} {led}")


class _Made(Exception):
    """Ends an operation whose statement should have been refused, so that nothing of it stays."""


class _Visitor(Visitor):
    """A browser without scripts, as far as invitations go."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._page = ""

    async def open(self, token: Secret[str]) -> bool:
        """Whether a link shows an invitation."""
        await self.send("GET", _LINK + token.reveal())
        answer = await self.send("GET", _PAGE)
        self._page = answer.body.decode()
        return answer.status == 200

    async def accept(self, password: str, *, right_code: bool = True) -> Answer:
        """Fill the page in and send it."""
        shown = _SHOWN.search(self._page)
        secret = Secret(base64.b32decode(shown[1].replace(" ", "")) if shown else b"")
        step = step_of(self.bench.clock.now())
        code = code_at(secret, step if right_code else step - 1_000)
        fields = {**dict(_HIDDEN.findall(self._page)), "name": "Prove", "password": password, "code": code}
        return await self.send("POST", _PAGE, fields)
