"""Coming in: invitations and signing in.

The token of an invitation's link is taken into a cookie at once, so that no page shows it in its address, and nothing
that a page loads or leads to is told it. Looking at an invitation doesn't use it up: mail scanners look at every link.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import segno
from markupsafe import Markup

from strongroom.api.problems import status_of
from strongroom.kernel.errors import Failure, StrongroomError, Unauthenticated
from strongroom.kernel.ids import AccountId, parse_uuid
from strongroom.kernel.secret import Secret
from strongroom.people.acceptance import Accepted, accept_with_password, company_of
from strongroom.people.front_door import INVITATION_PATH, SIGN_IN_PATH, FrontDoor
from strongroom.people.invitations import look_up
from strongroom.people.sign_in import Entered, check_first_factor, check_second_factor
from strongroom.people.totp import as_base32, as_uri, new_totp_secret
from strongroom.portals.web import (
    DEVICE_COOKIE,
    HOME_PATH,
    SESSION_COOKIE,
    WAITING_COOKIE,
    Answer,
    Cookie,
    Entrance,
    Page,
    Visit,
    redirect,
)

INVITATION_COOKIE: Final = "__Host-invitation"
CODE_PATH: Final = "/portal/sign-in/code"
_INVITATION_PAGE: Final = INVITATION_PATH.rstrip("/")
_INVITATION_KEPT_S: Final = int(timedelta(hours=1).total_seconds())
_DEVICE_KEPT_S: Final = int(timedelta(days=365).total_seconds())
_SETUP: Final = "totp setup"


async def _open_link(visit: Visit) -> Answer:
    token = Cookie(Secret(visit.path["token"]), _INVITATION_KEPT_S)
    return redirect(_INVITATION_PAGE, {INVITATION_COOKIE: token})


async def _show_invitation(visit: Visit) -> Answer:
    return await _invitation_page(visit)


async def _invitation_page(visit: Visit, wrong: StrongroomError | None = None) -> Answer:
    token = invitation_token(visit)
    link, invitation = await look_up(visit.door.databases, visit.door.keys, token)
    secret = _read_setup(visit.door, token, visit.form.get("setup", "")) or new_totp_secret()
    uri = as_uri(secret, address=invitation.address, issuer="strongroom")
    return visit.render(
        "invitation.html",
        status=200 if wrong is None else status_of(wrong),
        wrong="" if wrong is None else str(wrong),
        company=await company_of(visit.door, link),
        invitation=invitation,
        name=visit.form.get("name", ""),
        setup=visit.door.keys.seal(_SETUP, secret.reveal() + _bound_to(token)),
        secret=as_base32(secret),
        picture=_picture(uri),
    )


async def _accept(visit: Visit) -> Answer:
    token, form = invitation_token(visit), visit.form
    secret = _read_setup(visit.door, token, form.get("setup", ""))
    if secret is None:
        return await _invitation_page(visit)
    try:
        accepted = await accept_with_password(
            visit.door,
            token,
            name=form.get("name", ""),
            password=Secret(form.get("password", "")),
            totp=secret,
            code=form.get("code", ""),
            visitor=visit.visitor,
        )
    except StrongroomError as error:
        if error.code == "INVITATION_INVALID":
            raise
        return await _invitation_page(visit, error)
    return came_in(visit, accepted)


def came_in(visit: Visit, accepted: Accepted) -> Answer:
    """The page that somebody who has just become a person sees, once."""
    answer = visit.render("recovery_codes.html", codes=[code.reveal() for code in accepted.recovery_codes])
    answer.cookies = {**entered(accepted.entered), INVITATION_COOKIE: None}
    return answer


def entered(cookies: Entered) -> dict[str, Cookie | None]:
    """The cookies of somebody who has signed in."""
    return {
        SESSION_COOKIE: Cookie(cookies.session),
        DEVICE_COOKIE: Cookie(cookies.device, _DEVICE_KEPT_S),
        WAITING_COOKIE: None,
    }


async def _show_sign_in(visit: Visit) -> Answer:
    return visit.render("sign_in.html", address="", account=visit.query.get("account", ""), wrong="")


async def _sign_in(visit: Visit) -> Answer:
    form = visit.form
    account = parse_uuid(form.get("account", ""))
    try:
        waiting = await check_first_factor(
            visit.door,
            form.get("address", ""),
            Secret(form.get("password", "")),
            visit.visitor,
            device=visit.device,
            account=None if account is None else AccountId(account),
        )
    except StrongroomError as error:
        return visit.render(
            "sign_in.html",
            status=status_of(error),
            address=form.get("address", ""),
            account=form.get("account", ""),
            wrong=str(error),
        )
    return redirect(CODE_PATH, {WAITING_COOKIE: Cookie(waiting)})


async def _show_code(visit: Visit) -> Answer:
    return visit.render("second_factor.html")


async def _check_code(visit: Visit) -> Answer:
    try:
        cookies = await check_second_factor(
            visit.door, visit.token, visit.form.get("code", ""), visit.visitor, device=visit.device
        )
    except StrongroomError as error:
        if error.code == "SESSION_ENDED":
            raise
        return visit.render("second_factor.html", status=status_of(error), wrong=str(error))
    return redirect(HOME_PATH, entered(cookies))


def invitation_token(visit: Visit) -> Secret[str]:
    """The token of the link that was opened. Raises errors.Unauthenticated (`INVITATION_INVALID`)."""
    token = visit.cookies.get(INVITATION_COOKIE, "")
    if not token:
        raise Unauthenticated(Failure("INVITATION_INVALID", "Open the link of your invitation once more."))
    return Secret(token)


def _read_setup(door: FrontDoor, token: Secret[str], setup: str) -> Secret[bytes] | None:
    """The secret that a page showed; None unless it was for this very link."""
    content = door.keys.open(_SETUP, setup)
    bound = _bound_to(token)
    if content is None or not content.endswith(bound):
        return None
    return Secret(content[: -len(bound)])


def _bound_to(token: Secret[str]) -> bytes:
    return hashlib.sha256(token.reveal().encode()).digest()


def _picture(uri: Secret[str]) -> Markup:
    """A QR code (ISO/IEC 18004) as SVG."""
    output = io.BytesIO()
    code = segno.make(uri.reveal(), error="m", micro=False)
    code.save(output, kind="svg", border=0, xmldecl=False, svgns=True, omitsize=True, nl=False)
    return Markup(output.getvalue().decode())  # noqa: S704  drawn by the library: paths and numbers


PAGES: Final[Sequence[Page]] = (
    Page(method="GET", path=f"{INVITATION_PATH}{{token}}", entrance=Entrance.EVERYBODY, handler=_open_link),
    Page(method="GET", path=_INVITATION_PAGE, entrance=Entrance.EVERYBODY, handler=_show_invitation),
    Page(method="POST", path=_INVITATION_PAGE, entrance=Entrance.EVERYBODY, handler=_accept),
    Page(method="GET", path=SIGN_IN_PATH, entrance=Entrance.EVERYBODY, handler=_show_sign_in),
    Page(method="POST", path=SIGN_IN_PATH, entrance=Entrance.EVERYBODY, handler=_sign_in),
    Page(method="GET", path=CODE_PATH, entrance=Entrance.WAITING, handler=_show_code),
    Page(method="POST", path=CODE_PATH, entrance=Entrance.WAITING, handler=_check_code),
)
