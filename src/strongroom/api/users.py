"""People: those of an account, those of a tenant as its account sees them, and their sessions.

A user is somebody who was invited: INVITED or EXPIRED until they accept, ACCEPTED from then on. Links go out by mail
alone; no answer holds one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from strongroom.access import Permission
from strongroom.api.reading import Collector, read_object
from strongroom.api.routing import Access, Call, OperationHandler, Reply, Route
from strongroom.database import Operation
from strongroom.kernel.errors import Failure, NotFound
from strongroom.kernel.ids import PersonId, SessionId, TenantId, parse_uuid
from strongroom.kernel.mail_addresses import MAX_ADDRESS, find_address
from strongroom.people import FrontDoor, Invitation, Person
from strongroom.people.grants import check_tenant, roles_in, roles_of
from strongroom.people.invitations import get_invitation, list_open, revoke
from strongroom.people.inviting import invite_by_mail, resend_by_mail
from strongroom.people.persons import change_roles, find_person_by_id, list_persons, remove_from
from strongroom.people.sessions import (
    SessionSettings,
    SessionView,
    end_session,
    end_sessions,
    get_settings,
    list_sessions,
    put_settings,
    require_settings,
)
from strongroom.people.single_sign_on.providers import is_linked

DEFAULT_PAGE: Final = 20
MAX_PAGE: Final = 100
_ACCEPTED: Final = "ACCEPTED"


class UserBody(msgspec.Struct, rename="camel"):
    """Somebody. `expiry_date` is the end of an invitation that isn't accepted; null from then on.

    `is_sso_user`: the account's provider has vouched for them.
    """

    user_id: str
    email_address: str
    name: str | None
    roles: list[str]
    invitation_status: str
    expiry_date: datetime | None
    is_sso_user: bool


class UsersBody(msgspec.Struct, rename="camel"):
    """A page of users; `current_page` begins with 1."""

    current_page: int
    page_count: int
    page_size: int
    row_count: int
    results: list[UserBody]


class NewUserRequest(msgspec.Struct, rename="camel"):
    """Whom to invite, and to which roles."""

    email_address: str
    roles: list[str]


class RolesRequest(msgspec.Struct, rename="camel"):
    """What somebody may do from now on."""

    roles: list[str]


class ResendRequest(msgspec.Struct, rename="camel"):
    """Whose invitation to send again."""

    user_id: str


class SessionBody(msgspec.Struct, rename="camel"):
    """A browser that somebody is signed in with."""

    session_id: str
    method: str
    ip_address: str
    user_agent: str
    created_on: datetime
    last_seen_on: datetime
    expiry_date: datetime


class SessionsBody(msgspec.Struct, rename="camel"):
    """Somebody's sessions, the newest first."""

    sessions: list[SessionBody]


class SessionSettingsBody(msgspec.Struct, rename="camel"):
    """How long sessions last, in seconds: unused, and at all."""

    idle_seconds: int
    lifetime_seconds: int


async def _list(op: Operation, call: Call) -> Reply:
    found = Collector()
    page = _number(found, call.query.get("page", ""), "PAGE", 1, 1_000_000)
    size = _number(found, call.query.get("pageSize", ""), "PAGE_SIZE", DEFAULT_PAGE, MAX_PAGE)
    found.check()
    tenant = await _tenant(op, call)
    found_here = await list_persons(op, tenant)
    linked = await is_linked(op, [person.person_id for person, _ in found_here])
    users = [_person_body(person, roles, linked) for person, roles in found_here]
    users += [_invitation_body(invitation) for invitation in await list_open(op, tenant)]
    users.sort(key=lambda user: user.user_id)
    body = UsersBody(
        current_page=page,
        page_count=-(-len(users) // size),
        page_size=size,
        row_count=len(users),
        results=users[(page - 1) * size : page * size],
    )
    return Reply(200, body)


async def _invite(op: Operation, call: Call) -> Reply:
    tenant = await _tenant(op, call)
    source, found = read_object(call.body), Collector()
    text = found.text(source, "emailAddress", "EMAIL_ADDRESS", max_length=MAX_ADDRESS)
    address = find_address(text) if text else None
    if text and address is None:
        found.add("EMAIL_ADDRESS_IS_INVALID", "emailAddress must be a mail address, such as ada@example.com.")
    roles = found.choices(source, "roles", "ROLES", await roles_in(op, call.services.databases, tenant))
    found.check()
    assert address is not None  # noqa: S101  found.check() has seen to it
    invitation = await invite_by_mail(op, _door(call), address=address, roles=roles, tenant=tenant)
    person = await find_person_by_id(op, invitation.person_id)
    if person is not None:
        linked = await is_linked(op, [person.person_id])
        return Reply(201, _person_body(person, await roles_of(op, person.person_id, tenant), linked))
    return Reply(201, _invitation_body(invitation))


async def _resend(op: Operation, call: Call) -> Reply:
    tenant = await _tenant(op, call)
    found = Collector()
    user_id = found.uuid(read_object(call.body), "userId", "USER_ID")
    found.check()
    assert user_id is not None  # noqa: S101  found.check() has seen to it
    return Reply(201, _invitation_body(await resend_by_mail(op, _door(call), PersonId(user_id), tenant)))


async def _get(op: Operation, call: Call) -> Reply:
    tenant, user = await _tenant(op, call), _user_id(call)
    person = await find_person_by_id(op, user)
    if person is None:
        return Reply(200, _invitation_body(await get_invitation(op, user, tenant)))
    roles = await roles_of(op, user, tenant)
    if not roles and tenant is not None:
        raise _not_found()
    return Reply(200, _person_body(person, roles, await is_linked(op, [user])))


async def _put(op: Operation, call: Call) -> Reply:
    tenant, user = await _tenant(op, call), _user_id(call)
    found = Collector()
    known = await roles_in(op, call.services.databases, tenant)
    roles = found.choices(read_object(call.body), "roles", "ROLES", known)
    found.check()
    await change_roles(op, call.services.databases, user, tenant, roles)
    return Reply(204)


async def _delete(op: Operation, call: Call) -> Reply:
    tenant, user = await _tenant(op, call), _user_id(call)
    if await find_person_by_id(op, user) is None:
        await revoke(op, user, tenant)
    else:
        await remove_from(op, _door(call).book, user, tenant)
    return Reply(204)


async def _sessions(op: Operation, call: Call) -> Reply:
    user = await _somebody(op, call)
    return Reply(200, SessionsBody([_session_body(session) for session in await list_sessions(op, user)]))


async def _end_sessions(op: Operation, call: Call) -> Reply:
    await end_sessions(op, await _somebody(op, call))
    return Reply(204)


async def _end_session(op: Operation, call: Call) -> Reply:
    user, session_id = await _somebody(op, call), parse_uuid(call.path["sessionId"])
    if session_id is None:
        raise NotFound(Failure("SESSION_NOT_FOUND", "There is no such session."))
    await end_session(op, user, SessionId(session_id))
    return Reply(204)


async def _get_settings(op: Operation, _: Call) -> Reply:
    require_settings(op, writes=False)
    settings = await get_settings(op)
    return Reply(
        200,
        SessionSettingsBody(
            idle_seconds=int(settings.idle.total_seconds()), lifetime_seconds=int(settings.lifetime.total_seconds())
        ),
    )


async def _put_settings(op: Operation, call: Call) -> Reply:
    source, found = read_object(call.body), Collector()
    idle = _seconds(found, source, "idleSeconds", "SESSION_IDLE")
    lifetime = _seconds(found, source, "lifetimeSeconds", "SESSION_LIFETIME")
    found.check()
    await put_settings(op, SessionSettings(idle=timedelta(seconds=idle), lifetime=timedelta(seconds=lifetime)))
    return Reply(204)


def _seconds(found: Collector, source: Mapping[str, Any], field: str, code: str) -> int:
    value = source.get(field)
    if value is None:
        found.required(field, code)
    elif not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SECONDS:
        found.add(f"{code}_OUT_OF_RANGE", "{field} must be a whole number of seconds.", field=field)
    else:
        return value
    return 0


def _number(found: Collector, text: str, code: str, default: int, most: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and 1 <= int(text) <= most):
        found.add(f"{code}_OUT_OF_RANGE", "This is a number from 1 to {max}.", max=most)
        return default
    return int(text)


async def _tenant(op: Operation, call: Call) -> TenantId | None:
    """The tenant that the path names, which is one of the operation's account; None on the account's own paths."""
    if "tenantId" not in call.path:
        return None
    tenant = parse_uuid(call.path["tenantId"])
    if tenant is None:
        raise NotFound(Failure("TENANT_NOT_FOUND", "There is no such tenant."))
    await check_tenant(call.services.databases, op, TenantId(tenant))
    return TenantId(tenant)


async def _somebody(op: Operation, call: Call) -> PersonId:
    user = _user_id(call)
    if await find_person_by_id(op, user) is None:
        raise _not_found()
    return user


def _user_id(call: Call) -> PersonId:
    user = parse_uuid(call.path["userId"])
    if user is None:
        raise _not_found()
    return PersonId(user)


def _door(call: Call) -> FrontDoor:
    door: FrontDoor = call.services.part(FrontDoor)
    return door


def _person_body(person: Person, roles: Sequence[str], linked: Collection[PersonId]) -> UserBody:
    return UserBody(
        user_id=str(person.person_id),
        email_address=person.address,
        name=person.name,
        roles=list(roles),
        invitation_status=_ACCEPTED,
        expiry_date=None,
        is_sso_user=person.person_id in linked,
    )


def _invitation_body(invitation: Invitation) -> UserBody:
    return UserBody(
        user_id=str(invitation.person_id),
        email_address=invitation.address,
        name=None,
        roles=list(invitation.roles),
        invitation_status=invitation.state.value,
        expiry_date=invitation.expires_at,
        is_sso_user=False,
    )


def _session_body(session: SessionView) -> SessionBody:
    return SessionBody(
        session_id=str(session.session_id),
        method=session.method,
        ip_address=session.visitor.source,
        user_agent=session.visitor.agent,
        created_on=session.created_at,
        last_seen_on=session.seen_at,
        expiry_date=session.expires_at,
    )


def _not_found() -> NotFound:
    return NotFound(Failure("USER_NOT_FOUND", "There is no such person."))


def _user_routes(path: str, tag: str, whose: str, reads: Permission, writes: Permission) -> Sequence[Route]:
    def route(
        method: str,
        path: str,
        summary: str,
        handler: OperationHandler,
        replies: Mapping[int, Any],
        *,
        request: Any = None,
        query: Mapping[str, str] | None = None,
    ) -> Route:
        return Route(
            method=method,
            path=path,
            summary=summary,
            tag=tag,
            access=Access.ACCOUNT,
            permission=reads if method == "GET" else writes,
            operation=handler,
            request=request,
            replies=replies,
            query=query or {},
        )

    one = f"{path}/{{userId}}"
    paging = {
        "page": "Which page, from 1.",
        "pageSize": f"How many on a page: 1 to {MAX_PAGE}, default {DEFAULT_PAGE}.",
    }
    return (
        route("GET", path, f"The {whose}'s people and open invitations", _list, {200: UsersBody}, query=paging),
        route("POST", path, f"Invite somebody to the {whose}", _invite, {201: UserBody}, request=NewUserRequest),
        route("POST", f"{path}/resend", "Send an invitation again", _resend, {201: UserBody}, request=ResendRequest),
        route("GET", one, f"One of the {whose}'s people", _get, {200: UserBody}),
        route("PUT", one, "Change what somebody may do", _put, {204: None}, request=RolesRequest),
        route("DELETE", one, "Remove somebody, or withdraw their invitation", _delete, {204: None}),
    )


def _route(method: str, path: str, summary: str, handler: OperationHandler, *, status: int, body: Any = None) -> Route:
    return Route(
        method=method,
        path=path,
        summary=summary,
        tag="Account users",
        access=Access.ACCOUNT,
        permission=Permission.USERS_READ if method == "GET" else Permission.USERS_MANAGE,
        operation=handler,
        request=body if method == "PUT" else None,
        replies={status: None if method == "PUT" else body},
    )


MAX_SECONDS: Final = 10_000_000
_SESSIONS: Final = "/v1/account/users/{userId}/sessions"
_SETTINGS: Final = "/v1/account/session-settings"
ROUTES: Final[Sequence[Route]] = (
    *_user_routes("/v1/account/users", "Account users", "account", Permission.USERS_READ, Permission.USERS_MANAGE),
    *_user_routes(
        "/v1/tenant/{tenantId}/users", "Tenant users", "tenant", Permission.TENANTS_READ, Permission.TENANTS_WRITE
    ),
    _route("GET", _SESSIONS, "Where somebody is signed in", _sessions, status=200, body=SessionsBody),
    _route("DELETE", _SESSIONS, "Sign somebody out everywhere", _end_sessions, status=204),
    _route("DELETE", f"{_SESSIONS}/{{sessionId}}", "End one of somebody's sessions", _end_session, status=204),
    _route("GET", _SETTINGS, "How long sessions last", _get_settings, status=200, body=SessionSettingsBody),
    _route("PUT", _SETTINGS, "Change how long sessions last", _put_settings, status=204, body=SessionSettingsBody),
)
