"""The account portal's first page: who am I, how do I sign in, where am I signed in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from strongroom.access import Permission, allows
from strongroom.api.problems import status_of
from strongroom.kernel.errors import Failure, NotFound, StrongroomError
from strongroom.kernel.ids import SessionId, parse_uuid
from strongroom.people.credentials import count_recovery_codes, list_credentials, replace_recovery_codes
from strongroom.people.enforcement import METHOD_PREFIX
from strongroom.people.front_door import SIGN_IN_PATH
from strongroom.people.sessions import end_session, end_sessions, list_sessions
from strongroom.people.sign_in import prove_again
from strongroom.portals.web import (
    HOME_PATH,
    PROVE_PATH,
    SESSION_COOKIE,
    Answer,
    Cookie,
    Entrance,
    Page,
    Visit,
    redirect,
)
from strongroom.tenancy import find_account

_KINDS: Final = {"PASSWORD": "A password", "TOTP": "An authenticator", "PASSKEY": "A passkey"}


async def _home(visit: Visit) -> Answer:
    session = visit.signed_in
    person = session.person.person_id
    async with visit.door.databases.operation(session.actor, account=session.account_id) as op:
        account = await find_account(op)
        credentials = await list_credentials(op, person)
        return visit.render(
            "account.html",
            company="" if account is None else account.company_name,
            kinds=_KINDS,
            credentials=credentials,
            has_code=any(credential.kind == "TOTP" for credential in credentials),
            recovery_codes=await count_recovery_codes(op, person),
            sessions=await list_sessions(op, person),
            looks_after_account=allows(session.actor, Permission.ACCOUNT_MANAGE),
        )


async def _end(visit: Visit) -> Answer:
    session, session_id = visit.signed_in, parse_uuid(visit.path["sessionId"])
    if session_id is None:
        raise NotFound(Failure("SESSION_NOT_FOUND", "There is no such session."))
    async with visit.door.databases.operation(session.actor, account=session.account_id) as op:
        await end_session(op, session.person.person_id, SessionId(session_id))
    return redirect(HOME_PATH)


async def _end_others(visit: Visit) -> Answer:
    session = visit.signed_in
    async with visit.door.databases.operation(session.actor, account=session.account_id) as op:
        await end_sessions(op, session.person.person_id, but=session.session_id)
    return redirect(HOME_PATH)


async def _sign_out(visit: Visit) -> Answer:
    session = visit.signed_in
    async with visit.door.databases.operation(session.actor, account=session.account_id) as op:
        await end_session(op, session.person.person_id, session.session_id)
    return redirect(SIGN_IN_PATH, {SESSION_COOKIE: None})


async def _new_codes(visit: Visit) -> Answer:
    session = visit.signed_in
    async with visit.door.databases.operation(session.actor, account=session.account_id) as op:
        codes = await replace_recovery_codes(op, session.person.person_id)
    return visit.render("recovery_codes.html", codes=[code.reveal() for code in codes])


async def _show_proof(visit: Visit) -> Answer:
    return await _proof_page(visit)


async def _prove(visit: Visit) -> Answer:
    try:
        token = await prove_again(
            visit.door, visit.signed_in, visit.form.get("code", ""), visit.visitor, device=visit.device
        )
    except StrongroomError as error:
        return await _proof_page(visit, error)
    return redirect(HOME_PATH, {SESSION_COOKIE: Cookie(token)})


async def _proof_page(visit: Visit, wrong: StrongroomError | None = None) -> Answer:
    session = visit.signed_in
    async with visit.door.databases.operation(session.actor, account=session.account_id) as op:
        kinds = {credential.kind for credential in await list_credentials(op, session.person.person_id)}
    return visit.render(
        "proof.html",
        status=200 if wrong is None else status_of(wrong),
        has_passkey="PASSKEY" in kinds,
        has_code="TOTP" in kinds,
        account=session.account_id if session.method.startswith(METHOD_PREFIX) else None,
        wrong="" if wrong is None else str(wrong),
    )


_SIGNED_IN: Final = Entrance.SIGNED_IN
PAGES: Final[Sequence[Page]] = (
    Page(method="GET", path=HOME_PATH, entrance=_SIGNED_IN, handler=_home),
    Page(method="POST", path="/portal/sessions/end-others", entrance=_SIGNED_IN, handler=_end_others),
    Page(method="POST", path="/portal/sessions/{sessionId}/end", entrance=_SIGNED_IN, handler=_end),
    Page(method="POST", path="/portal/sign-out", entrance=_SIGNED_IN, handler=_sign_out),
    Page(method="POST", path="/portal/recovery-codes", entrance=_SIGNED_IN, handler=_new_codes, proven=True),
    Page(method="GET", path=PROVE_PATH, entrance=_SIGNED_IN, handler=_show_proof),
    Page(method="POST", path=PROVE_PATH, entrance=_SIGNED_IN, handler=_prove),
)
