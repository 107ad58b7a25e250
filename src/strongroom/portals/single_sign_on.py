"""Signing in through an account's own provider: there, back, and what providers send by themselves.

A browser that has sent a form may not be led away by its answer (`form-action` of the content security policy covers
redirects), so the way to the provider goes through a page that moves on by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from strongroom.api.problems import status_of
from strongroom.kernel.errors import Failure, NotFound, StrongroomError, Unauthenticated
from strongroom.kernel.ids import AccountId, parse_uuid
from strongroom.people.sign_in import Entered
from strongroom.people.single_sign_on.flow import (
    PATH,
    UNDER_WAY,
    Departure,
    Tested,
    begin,
    end_by_frame,
    end_by_token,
    find_account_for,
    finish_oidc,
    finish_saml,
    needs_confirmation,
    own_metadata,
    provider_of,
    take_saml,
)
from strongroom.people.single_sign_on.providers import Kind
from strongroom.portals.entrance import entered
from strongroom.portals.web import HOME_PATH, Answer, Cookie, Entrance, Page, Visit, as_json, redirect

BROWSER_COOKIE: Final = "__Host-single-sign-on"
_AWAY_S: Final = int(UNDER_WAY.total_seconds())
_SAML_METADATA: Final = b"application/samlmetadata+xml"


async def _by_address(visit: Visit) -> Answer:
    address = visit.form.get("address", "")
    account = await find_account_for(visit.door, address)
    if account is None:
        wrong = Unauthenticated(
            Failure("SINGLE_SIGN_ON_NOT_FOUND", "No organisation signs people of this address in through a provider.")
        )
        return _sign_in_page(visit, address, wrong)
    try:
        departure = await begin(visit.door, account, login_hint=address)
    except StrongroomError as error:
        return _sign_in_page(visit, address, error)
    return leave(visit, departure)


async def _begin(visit: Visit) -> Answer:
    hint, afresh = visit.query.get("login_hint", "")[:254], visit.query.get("afresh") == "yes"
    departure = await begin(visit.door, _account(visit), login_hint=hint, afresh=afresh)
    return redirect(departure.url, {BROWSER_COOKIE: _kept(departure)})


async def _callback(visit: Visit) -> Answer:
    outcome = await finish_oidc(
        visit.door,
        _account(visit),
        visit.query,
        visit.cookies.get(BROWSER_COOKIE, ""),
        visit.visitor,
        device=visit.device,
    )
    return _arrived(visit, outcome)


async def _take_answer(visit: Visit) -> Answer:
    return redirect(await take_saml(visit.door, _account(visit), visit.form, visit.visitor))


async def _arrive(visit: Visit) -> Answer:
    account, state = _account(visit), visit.query.get("state", "")
    address = await needs_confirmation(visit.door, account, state)
    if address is not None:
        return visit.render("single_sign_on_confirm.html", account=account, state=state, address=address)
    browser = visit.cookies.get(BROWSER_COOKIE, "")
    outcome = await finish_saml(visit.door, account, state, browser, visit.visitor, device=visit.device)
    return _arrived(visit, outcome)


async def _confirm(visit: Visit) -> Answer:
    outcome = await finish_saml(
        visit.door, _account(visit), visit.form.get("state", ""), None, visit.visitor, device=visit.device
    )
    return _arrived(visit, outcome)


async def _metadata(visit: Visit) -> Answer:
    account = _account(visit)
    provider = await provider_of(visit.door, account, enabled=False)
    if provider.kind is not Kind.SAML:
        raise _nothing()
    return Answer(content=own_metadata(visit.door, account, provider), media=_SAML_METADATA)


async def _keys(visit: Visit) -> Answer:
    provider = await provider_of(visit.door, _account(visit), enabled=False)
    if provider.kind is not Kind.OIDC:
        raise _nothing()
    return as_json(provider.key.public_key_set())


async def _back_channel(visit: Visit) -> Answer:
    """After Back-Channel Logout 1.0 sections 2.5 and 2.8."""
    try:
        await end_by_token(visit.door, _account(visit), visit.form.get("logout_token", ""), visit.visitor)
    except Unauthenticated as error:
        return as_json({"error": "invalid_request", "error_description": str(error)}, status=400)
    return Answer()


async def _front_channel(visit: Visit) -> Answer:
    await end_by_frame(visit.door, _account(visit), visit.query.get("iss", ""), visit.query.get("sid", ""))
    return visit.render("single_sign_on_ended.html")


def leave(visit: Visit, departure: Departure) -> Answer:
    """The page that takes the browser to the provider."""
    answer = visit.render("single_sign_on_leave.html", url=departure.url)
    answer.cookies = {BROWSER_COOKIE: _kept(departure)}
    return answer


def _arrived(visit: Visit, outcome: Entered | Tested) -> Answer:
    if isinstance(outcome, Entered):
        return redirect(HOME_PATH, {**entered(outcome), BROWSER_COOKIE: None})
    answer = visit.render("single_sign_on_tested.html", claims=outcome.claims, roles=outcome.roles)
    answer.cookies = {BROWSER_COOKIE: None}
    return answer


def _kept(departure: Departure) -> Cookie:
    return Cookie(departure.browser, _AWAY_S)


def _sign_in_page(visit: Visit, address: str, wrong: StrongroomError) -> Answer:
    return visit.render("sign_in.html", status=status_of(wrong), address=address, account="", wrong=str(wrong))


def _account(visit: Visit) -> AccountId:
    account = parse_uuid(visit.path["accountId"])
    if account is None:
        raise _nothing()
    return AccountId(account)


def _nothing() -> NotFound:
    return NotFound(Failure("SINGLE_SIGN_ON_NOT_FOUND", "There is no single sign-on here."))


_ONE: Final = f"{PATH}/{{accountId}}"
_ALL: Final = Entrance.EVERYBODY
PAGES: Final[Sequence[Page]] = (
    Page(method="POST", path=PATH, entrance=_ALL, handler=_by_address),
    Page(method="GET", path=_ONE, entrance=_ALL, handler=_begin),
    Page(method="GET", path=f"{_ONE}/callback", entrance=_ALL, handler=_callback),
    Page(method="POST", path=f"{_ONE}/answer", entrance=_ALL, handler=_take_answer, from_elsewhere=True),
    Page(method="GET", path=f"{_ONE}/arrival", entrance=_ALL, handler=_arrive),
    Page(method="POST", path=f"{_ONE}/arrival", entrance=_ALL, handler=_confirm),
    Page(method="GET", path=f"{_ONE}/metadata", entrance=_ALL, handler=_metadata),
    Page(method="GET", path=f"{_ONE}/keys", entrance=_ALL, handler=_keys),
    Page(method="POST", path=f"{_ONE}/back-channel-logout", entrance=_ALL, handler=_back_channel, from_elsewhere=True),
    Page(method="GET", path=f"{_ONE}/front-channel-logout", entrance=_ALL, handler=_front_channel),
)
