"""Passkeys on pages: what the script of the pages asks for, and what it brings back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from strongroom.kernel.errors import Failure, Invalid
from strongroom.people.passkeys import (
    accept_with_passkey,
    add_passkey,
    options_to_accept,
    options_to_add,
    options_to_prove,
    options_to_sign_in,
    prove_with_passkey,
    sign_in_with_passkey,
)
from strongroom.portals.entrance import INVITATION_COOKIE, entered, invitation_token
from strongroom.portals.web import (
    HOME_PATH,
    PROVE_PATH,
    SESSION_COOKIE,
    Answer,
    Cookie,
    Entrance,
    Handler,
    Page,
    Visit,
    as_json,
)

_ACCEPT: Final = "/portal/passkey/accept"
_ADD: Final = "/portal/passkey/add"
_SIGN_IN: Final = "/portal/passkey/sign-in"
_PROVE: Final = f"{PROVE_PATH}/passkey"


async def _accept_options(visit: Visit) -> Answer:
    return _options(await options_to_accept(visit.door, invitation_token(visit), visit.token))


async def _accept(visit: Visit) -> Answer:
    source = _read(visit)
    name = source.get("name")
    accepted = await accept_with_passkey(
        visit.door,
        invitation_token(visit),
        name=name if isinstance(name, str) else "",
        answer=_answer(source),
        browser=visit.token,
        visitor=visit.visitor,
    )
    return _go(HOME_PATH, {**entered(accepted.entered), INVITATION_COOKIE: None})


async def _add_options(visit: Visit) -> Answer:
    return _options(await options_to_add(visit.door, visit.signed_in, visit.token))


async def _add(visit: Visit) -> Answer:
    await add_passkey(visit.door, visit.signed_in, answer=_answer(_read(visit)), browser=visit.token)
    return _go(HOME_PATH)


async def _sign_in_options(visit: Visit) -> Answer:
    return _options(await options_to_sign_in(visit.door, visit.token))


async def _sign_in(visit: Visit) -> Answer:
    cookies = await sign_in_with_passkey(
        visit.door,
        answer=_answer(_read(visit)),
        browser=visit.token,
        visitor=visit.visitor,
        device=visit.device,
    )
    return _go(HOME_PATH, entered(cookies))


async def _prove_options(visit: Visit) -> Answer:
    return _options(await options_to_prove(visit.door, visit.signed_in, visit.token))


async def _prove(visit: Visit) -> Answer:
    token = await prove_with_passkey(visit.door, visit.signed_in, answer=_answer(_read(visit)), browser=visit.token)
    return _go(HOME_PATH, {SESSION_COOKIE: Cookie(token)})


def _read(visit: Visit) -> dict[str, Any]:
    try:
        return msgspec.json.decode(visit.body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError):
        raise Invalid(Failure("REQUEST_BODY_INVALID", "Send a JSON object as the request's body.")) from None


def _answer(source: dict[str, Any]) -> str:
    """What the authenticator said, as the library reads it."""
    return msgspec.json.encode(source.get("credential")).decode()


def _options(options: str) -> Answer:
    return Answer(content=options.encode(), media=b"application/json")


def _go(location: str, cookies: dict[str, Cookie | None] | None = None) -> Answer:
    answer = as_json({"location": location})
    answer.cookies = cookies or {}
    return answer


def _pages(path: str, entrance: Entrance, options: Handler, answer: Handler, *, proven: bool = False) -> Sequence[Page]:
    return [
        Page(method="POST", path=at, entrance=entrance, handler=handler, proven=proven, is_data=True)
        for at, handler in ((f"{path}/options", options), (path, answer))
    ]


PAGES: Final[Sequence[Page]] = (
    *_pages(_ACCEPT, Entrance.EVERYBODY, _accept_options, _accept),
    *_pages(_SIGN_IN, Entrance.EVERYBODY, _sign_in_options, _sign_in),
    *_pages(_ADD, Entrance.SIGNED_IN, _add_options, _add, proven=True),
    *_pages(_PROVE, Entrance.SIGNED_IN, _prove_options, _prove),
)
