"""Pages: from bytes to a `Visit`, from an `Answer` or an error to bytes.

Every page is a row of a table that says who gets to it. Pages work without scripts, except where a passkey is used;
what is not a page of ours can neither be shown in one nor show one of ours. A form counts only when it comes from a
page of ours (what the browser says of its origin) and holds a token made for this browser's session.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
import structlog
from jinja2 import Environment, PackageLoader, StrictUndefined

from strongroom.access import Permission, require_held
from strongroom.api.problems import status_of
from strongroom.api.source import SourceReader
from strongroom.audit import record
from strongroom.kernel.errors import (
    Failure,
    Forbidden,
    Invalid,
    StrongroomError,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from strongroom.kernel.ids import new_uuid_text
from strongroom.kernel.secret import Secret
from strongroom.people.front_door import SIGN_IN_PATH, FrontDoor
from strongroom.people.keys import decode, encode
from strongroom.people.sessions import SignedIn, Stage, Visitor, find_session, renew_session, session_ended

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
MAX_BODY_BYTES: Final = 64 * 1024
MAX_ANSWER_BYTES: Final = 512 * 1024
"""Largest answer of an identity provider: SAML is wordy."""
MAX_COOKIES_BYTES: Final = 8 * 1024
HOME_PATH: Final = "/portal/account"
PROVE_PATH: Final = "/portal/prove"
SESSION_COOKIE: Final = "__Host-session"
WAITING_COOKIE: Final = "__Host-waiting"
"""A session that waits for the second factor."""
DEVICE_COOKIE: Final = "__Host-device"
VISITOR_COOKIE: Final = "__Host-visitor"
"""Ties forms to a browser that isn't signed in."""
FORM_FIELD: Final = "form"
FORM_HEADER: Final = "x-form-token"
HTML: Final = b"text/html; charset=utf-8"
_HEADERS: Final = (
    (b"strict-transport-security", b"max-age=63072000; includeSubDomains"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"permissions-policy",
        b"camera=(), geolocation=(), microphone=(), payment=(), usb=(), publickey-credentials-get=(self), "
        b"publickey-credentials-create=(self)",
    ),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
        b"base-uri 'none'; frame-ancestors 'none'",
    ),
)


class Entrance(enum.StrEnum):
    """Who gets to a page."""

    EVERYBODY = "everybody"
    WAITING = "waiting"
    """Who has proven the first factor and owes the second."""
    SIGNED_IN = "signed-in"


@dataclass(slots=True)
class Answer:
    """What a visit is answered with. `cookies`: name → value, None to take it away."""

    status: int = 200
    content: bytes = b""
    media: bytes = HTML
    location: str = ""
    cookies: dict[str, Cookie | None] = field(default_factory=dict)
    cache: bytes = b"no-store"


@dataclass(frozen=True, slots=True)
class Cookie:
    """A cookie's value and how long it lasts; None: as long as the browser runs."""

    value: Secret[str]
    max_age_s: int | None = None


@dataclass(slots=True, kw_only=True)
class Visit:
    """One request of a browser."""

    door: FrontDoor
    page: Page
    path: Mapping[str, str]
    query: Mapping[str, str]
    cookies: Mapping[str, str]
    visitor: Visitor
    body: bytes = b""
    form: Mapping[str, str] = field(default_factory=dict)
    session: SignedIn | None = None
    token: str = ""
    """What the form token is made for: the session's secret, or the visitor's."""

    @property
    def signed_in(self) -> SignedIn:
        """The session; asking on a page for everybody is a programming error."""
        if self.session is None:
            raise LookupError("this page asks for no session")
        return self.session

    @property
    def device(self) -> str:
        """The device cookie, or an empty string."""
        return self.cookies.get(DEVICE_COOKIE, "")

    @property
    def form_token(self) -> str:
        """What a form of this browser has to hold."""
        return encode(self.door.keys.hash("form", self.token.encode()))

    def render(self, template: str, *, status: int = 200, **values: object) -> Answer:
        """A page."""
        text = _TEMPLATES.get_template(template).render(
            values, form_token=self.form_token, session=self.session, FORM_FIELD=FORM_FIELD
        )
        return Answer(status=status, content=text.encode())


Handler = Callable[[Visit], Awaitable[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A row of the table. What is a person's own takes no permission."""

    method: str
    path: str
    entrance: Entrance
    handler: Handler
    permission: Permission | None = None
    proven: bool = False
    """Something dangerous: the person must have proven who they are in the last minutes."""
    is_data: bool = False
    """Asked by the script of a page, and answered with JSON."""
    from_elsewhere: bool = False
    """Sent by an identity provider, or a page of one: what is sent is signed, and the handler sees to it."""


class Portals:
    """Serves one table of pages, below `/portal/`."""

    def __init__(self, door: FrontDoor, pages: Sequence[Page], sources: SourceReader) -> None:
        self._door = door
        self._sources = sources
        self._pages = [(page.path.strip("/").split("/"), page) for page in pages]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope (ASGI 3)."""
        try:
            answer = await self._answer(scope, receive)
        except Exception:
            log.exception("portals.failed")
            answer = Answer(status=500, content=_plain("Something went wrong on our side. Try again."))
        headers = [*_HEADERS, (b"cache-control", answer.cache), (b"content-type", answer.media)]
        headers.append((b"content-length", str(len(answer.content)).encode()))
        if answer.location:
            headers.append((b"location", answer.location.encode()))
        headers += [(b"set-cookie", _cookie_header(name, cookie)) for name, cookie in answer.cookies.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.content})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        page, path = self._find(scope["method"], scope["path"])
        if page is None:
            return Answer(status=404, content=_plain("There is nothing at this address."))
        headers = dict(scope["headers"])
        visit = Visit(
            door=self._door,
            page=page,
            path=path,
            query=dict(parse_qsl(scope["query_string"].decode("latin-1"))),
            cookies=_cookies(scope["headers"]),
            visitor=Visitor(
                source=str(self._sources.read(scope.get("client"), scope["headers"])),
                agent=headers.get(b"user-agent", b"").decode("latin-1"),
            ),
        )
        try:
            return await self._serve(visit, headers, receive)
        except Unauthenticated as error:
            if error.code != "SESSION_ENDED":
                return await self._refuse(visit, error)
            away: dict[str, Cookie | None] = dict.fromkeys((SESSION_COOKIE, WAITING_COOKIE))
            return Answer(status=303, location=SIGN_IN_PATH, cookies=away)
        except StrongroomError as error:
            return await self._refuse(visit, error)

    async def _serve(self, visit: Visit, headers: Mapping[bytes, bytes], receive: Receive) -> Answer:
        page, cookies = visit.page, visit.cookies
        fresh: dict[str, Cookie | None] = {}
        changes = page.method == "POST"
        if changes:
            if not page.from_elsewhere:
                _check_origin(headers)
            visit.body = await _read_body(receive, MAX_ANSWER_BYTES if page.from_elsewhere else MAX_BODY_BYTES)
        if page.entrance is Entrance.EVERYBODY:
            visit.token = cookies.get(VISITOR_COOKIE, "")
            if not visit.token and not changes:
                visit.token = encode(os.urandom(32))
                fresh[VISITOR_COOKIE] = Cookie(Secret(visit.token))
        else:
            stage = Stage.SIGNED_IN if page.entrance is Entrance.SIGNED_IN else Stage.SECOND_FACTOR
            visit.token = cookies.get(SESSION_COOKIE if stage is Stage.SIGNED_IN else WAITING_COOKIE, "")
            if not visit.token:
                raise session_ended()
            visit.session = await find_session(visit.door.databases, visit.token, visit.visitor, stage=stage)
        if changes:
            _read_form(visit, headers)
            if not page.from_elsewhere:
                _check_form(visit, headers)
        if visit.session is not None:
            await self._enter(visit, fresh)
            if page.proven and not visit.session.is_fresh(visit.door.databases.clock.now()):
                return Answer(status=303, location=PROVE_PATH, cookies=fresh)
        answer = await page.handler(visit)
        answer.cookies = {**fresh, **answer.cookies}
        return answer

    async def _enter(self, visit: Visit, fresh: dict[str, Cookie | None]) -> None:
        """Go on only with the page's permission; where what the person may do was changed, under another secret."""
        session = visit.signed_in
        if visit.page.permission is not None:
            require_held(session.actor, visit.page.permission)
        if session.is_due and session.stage is Stage.SIGNED_IN:
            async with visit.door.databases.operation(session.actor, account=session.account_id) as op:
                token = await renew_session(op, session.session_id, proven=False)
            visit.token = token.reveal()
            fresh[SESSION_COOKIE] = Cookie(token)

    async def _refuse(self, visit: Visit, error: StrongroomError) -> Answer:
        status = status_of(error)
        if status == 500:
            log.exception("portals.broken", codes=[failure.code for failure in error.failures], path=visit.page.path)
        if visit.session is not None and status in {401, 403}:
            await self._record(visit.session, visit.page, error)
        message = "Something went wrong on our side. Try again." if status == 500 else str(error)
        if visit.page.is_data:
            return as_json({"message": message}, status=status)
        return Answer(status=status, content=_plain(message))

    async def _record(self, session: SignedIn, page: Page, error: StrongroomError) -> None:
        """A refusal stands also when it can't be recorded, because the database is away."""
        try:
            async with self._door.databases.operation(session.actor, account=session.account_id) as op:
                await record(
                    op, f"{page.method} {page.path}", "request", new_uuid_text(), outcome="refused", detail=error.code
                )
        except Unavailable as away:
            log.warning("portals.refusal_not_recorded", code=away.code)

    def _find(self, method: str, path: str) -> tuple[Page | None, Mapping[str, str]]:
        parts = path.strip("/").split("/")
        for pattern, page in self._pages:
            if page.method == method and len(pattern) == len(parts):
                found = {want[1:-1]: part for want, part in zip(pattern, parts, strict=True) if want.startswith("{")}
                if all(want.startswith("{") or want == part for want, part in zip(pattern, parts, strict=True)):
                    return page, found
        return None, {}


def redirect(location: str, cookies: Mapping[str, Cookie | None] | None = None) -> Answer:
    """To another page, with GET."""
    return Answer(status=303, location=location, cookies=dict(cookies or {}))


def as_json(body: Mapping[str, object], *, status: int = 200) -> Answer:
    """An answer to the script of a page."""
    return Answer(status=status, content=msgspec.json.encode(body), media=b"application/json")


def _check_origin(headers: Mapping[bytes, bytes]) -> None:
    """What changes something comes from a page of ours: by Fetch Metadata, or else by the Origin header (RFC 6454)."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        if site == b"same-origin":
            return
    elif (origin := headers.get(b"origin")) is not None:
        host = headers.get(b"host", b"").decode("latin-1")
        if urlsplit(origin.decode("latin-1")).netloc == host and host:
            return
    raise Forbidden(Failure("FORM_OF_OTHER_ORIGIN", "This form was not sent from a page of ours. Open the page again."))


def _read_form(visit: Visit, headers: Mapping[bytes, bytes]) -> None:
    media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media == b"application/x-www-form-urlencoded":
        pairs = parse_qsl(visit.body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=50)
        visit.form = dict(pairs)


def _check_form(visit: Visit, headers: Mapping[bytes, bytes]) -> None:
    given = visit.form.get(FORM_FIELD) or headers.get(FORM_HEADER.encode(), b"").decode("latin-1")
    expected = decode(visit.form_token) or b""
    if not visit.token or not visit.door.keys.is_hash(decode(given) or b"", expected):
        raise Forbidden(Failure("FORM_TOO_OLD", "This form is not valid any more. Open the page again."))


async def _read_body(receive: Receive, limit: int) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Invalid(Failure("CLIENT_GONE", "The request broke off before it was complete."))
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise TooLarge(Failure("REQUEST_TOO_LARGE", "A request body has at most {limit} bytes.", {"limit": limit}))
        parts.append(part)
        more = bool(message.get("more_body"))
    return b"".join(parts)


def _cookies(headers: Sequence[tuple[bytes, bytes]]) -> Mapping[str, str]:
    """The cookies of a request; HTTP/2 may send each in a header of its own."""
    text = "; ".join(value.decode("latin-1") for name, value in headers if name == b"cookie")
    if len(text) > MAX_COOKIES_BYTES:
        return {}
    pairs = (part.strip().partition("=") for part in text.split(";"))
    return {name: value for name, _, value in pairs if name}


def _cookie_header(name: str, cookie: Cookie | None) -> bytes:
    """`__Host-` (RFC 6265bis section 4.1.3.2): for this host alone, over TLS alone; never for scripts."""
    value = "" if cookie is None else cookie.value.reveal()
    age = 0 if cookie is None else cookie.max_age_s
    ends = "" if age is None else f"; Max-Age={age}"
    return f"{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax{ends}".encode()


def _plain(message: str) -> bytes:
    return _TEMPLATES.get_template("message.html").render(message=message, session=None).encode()


_TEMPLATES: Final = Environment(
    loader=PackageLoader("strongroom.portals"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
