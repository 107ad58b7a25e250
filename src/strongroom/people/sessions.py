"""Sessions: a person's browser, signed in.

The browser holds a random secret in a cookie; the database holds its hash. A session whose first factor was proven
waits for the second (SECOND_FACTOR) and opens nothing; then it is followed by another one, under another secret. The
secret changes as well when the person proves themselves again and when what they may do was changed. Every request
asks the database, so a session that is ended is ended in every process at once.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from strongroom.access import Permission, require, with_own_roles
from strongroom.audit import record
from strongroom.database import Databases, Operation
from strongroom.identity.ip_lists import check_source
from strongroom.kernel.actors import Actor, ActorKind, system
from strongroom.kernel.custom_roles import CustomRole
from strongroom.kernel.errors import Failure, Invalid, NotFound, Unauthenticated
from strongroom.kernel.ids import AccountId, PersonId, SessionId, new_uuid
from strongroom.kernel.networks import NOWHERE, Address, parse_address
from strongroom.kernel.secret import Secret
from strongroom.people.grants import roles_of
from strongroom.people.keys import decode, encode
from strongroom.people.persons import Person, get_person

SECOND_FACTOR_WITHIN: Final = timedelta(minutes=5)
PROVEN_FOR: Final = timedelta(minutes=5)
"""How long a proof lasts for what is dangerous (see `is_fresh`)."""
TOUCHED_EVERY: Final = timedelta(seconds=30)
"""A session's last use is written down so often at most."""
MAX_SESSIONS: Final = 50
"""Most sessions of a person; a new one beyond ends the oldest."""
MAX_AGENT: Final = 300
_SECRET_BYTES: Final = 32


class Stage(enum.StrEnum):
    """How far a session has come."""

    SECOND_FACTOR = "SECOND_FACTOR"
    SIGNED_IN = "SIGNED_IN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Where a request comes from: an IP address, and what the browser calls itself."""

    source: str
    agent: str

    @property
    def address(self) -> Address:
        """The IP address; where it isn't known, one that no IP list has."""
        return parse_address(self.source) or NOWHERE


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A session as its person sees it. `method` says how it was begun."""

    session_id: SessionId
    method: str
    visitor: Visitor
    created_at: datetime
    seen_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A person's session, found by its secret. `roles` are those in the account itself, `source` where they are."""

    account_id: AccountId
    session_id: SessionId
    stage: Stage
    person: Person
    roles: tuple[str, ...]
    method: str
    proven_at: datetime
    is_due: bool
    source: Address | None = None
    custom_roles: tuple[CustomRole, ...] = ()

    @property
    def actor(self) -> Actor:
        """Who acts."""
        return Actor(
            kind=ActorKind.PERSON,
            name=str(self.person.person_id),
            account_id=self.account_id,
            roles=frozenset(self.roles),
            source=self.source,
            custom_roles=self.custom_roles,
            proven_at=self.proven_at,
        )

    def is_fresh(self, now: datetime) -> bool:
        """Whether the person proved themselves lately enough for something dangerous."""
        return now - self.proven_at < PROVEN_FOR


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How long sessions of an account last: without being used, and at all."""

    MIN_IDLE = timedelta(minutes=1)
    MAX_IDLE = timedelta(hours=24)
    MIN_LIFETIME = timedelta(minutes=5)
    MAX_LIFETIME = timedelta(days=7)

    idle: timedelta = timedelta(minutes=15)
    lifetime: timedelta = timedelta(hours=12)


async def get_settings(op: Operation) -> SessionSettings:
    """The account's settings, or what holds where it has none."""
    row = await op.row("select idle_s, lifetime_s from session_settings where account_id = %s", op.account)
    if row is None:
        return SessionSettings()
    return SessionSettings(idle=timedelta(seconds=row[0]), lifetime=timedelta(seconds=row[1]))


def require_settings(op: Operation, *, writes: bool) -> None:
    """Raises errors.Forbidden (`FORBIDDEN`) unless the actor may see (or change) the account's settings."""
    require(op, Permission.USERS_MANAGE if writes else Permission.USERS_READ)


async def put_settings(op: Operation, settings: SessionSettings) -> None:
    """Change how long sessions last; the idle time counts at once, the lifetime for sessions to come.

    Raises errors.Invalid (`SESSION_IDLE_OUT_OF_RANGE`, `SESSION_LIFETIME_OUT_OF_RANGE`).
    """
    require_settings(op, writes=True)
    kind = SessionSettings
    failures = [
        Failure(code, "{field} is from {min} to {max} seconds.", {"field": field, "min": _seconds(low), "max": high})
        for code, field, value, low, high in (
            ("SESSION_IDLE_OUT_OF_RANGE", "idleSeconds", settings.idle, kind.MIN_IDLE, _seconds(kind.MAX_IDLE)),
            (
                "SESSION_LIFETIME_OUT_OF_RANGE",
                "lifetimeSeconds",
                settings.lifetime,
                kind.MIN_LIFETIME,
                _seconds(kind.MAX_LIFETIME),
            ),
        )
        if not _seconds(low) <= _seconds(value) <= high
    ]
    if failures:
        raise Invalid(*failures)
    before = await get_settings(op)
    await op.run(
        "insert into session_settings (account_id, idle_s, lifetime_s, updated_at) values (%s, %s, %s, %s) "
        "on conflict (account_id) do update set idle_s = excluded.idle_s, lifetime_s = excluded.lifetime_s, "
        "updated_at = excluded.updated_at",
        op.account,
        _seconds(settings.idle),
        _seconds(settings.lifetime),
        op.now,
    )
    detail = (
        f"idle {_seconds(before.idle)} > {_seconds(settings.idle)} s, "
        f"lifetime {_seconds(before.lifetime)} > {_seconds(settings.lifetime)} s"
    )
    await record(op, "session-settings.change", "account", op.account, detail=detail)


async def begin_session(
    op: Operation,
    person: PersonId,
    visitor: Visitor,
    *,
    stage: Stage,
    method: str,
    provider_session: bytes | None = None,
    ends_by: datetime | None = None,
    proven_at: datetime | None = None,
) -> tuple[SessionId, Secret[str]]:
    """Begin a session; the secret is what the browser's cookie holds.

    `provider_session`: a hash of what the account's provider calls its own session, when it vouched for the person. It
    lasts as long as the account says, but not beyond `ends_by`. `proven_at`: when the person
    proved who they are, if not just now.

    Raises errors.Forbidden (`ADDRESS_NOT_ALLOWED`).
    """
    whoever = Actor(kind=ActorKind.PERSON, name=str(person), account_id=op.account, source=visitor.address)
    await check_source(op, whoever)
    session_id = SessionId(new_uuid())
    token, hashed = _new_token(op.account)
    lasts = (await get_settings(op)).lifetime if stage is Stage.SIGNED_IN else SECOND_FACTOR_WITHIN
    await op.run(
        "insert into sessions (account_id, session_id, person_id, session_hash, stage, method, sealed, created_at, "
        "proven_at, seen_at, expires_at, provider_session) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        op.account,
        session_id,
        person,
        hashed,
        stage.value,
        method,
        _seal(op, session_id, visitor),
        op.now,
        op.now if proven_at is None else min(proven_at, op.now),
        op.now,
        op.now + lasts if ends_by is None else min(op.now + lasts, ends_by),
        provider_session,
    )
    if stage is Stage.SIGNED_IN:
        await op.run(
            "update sessions set ended_at = %s where session_id in (select session_id from sessions where "
            "person_id = %s and ended_at is null order by session_id desc offset %s)",
            op.now,
            person,
            MAX_SESSIONS,
        )
        await record(op, "session.begin", "person", person, detail=f"session={session_id} {method}")
    return session_id, token


async def renew_session(op: Operation, session_id: SessionId, *, proven: bool) -> Secret[str]:
    """Another secret for a session; the one before opens nothing any more. `proven`: the person has just proven it."""
    token, hashed = _new_token(op.account)
    await op.run(
        "update sessions set session_hash = %s, is_due = false, seen_at = %s, "
        "proven_at = case when %s then %s else proven_at end where session_id = %s and ended_at is null",
        hashed,
        op.now,
        proven,
        op.now,
        session_id,
    )
    await record(op, "session.renew", "session", session_id, detail="proven" if proven else "roles changed")
    return token


async def find_session(
    databases: Databases, token: str, visitor: Visitor, *, stage: Stage = Stage.SIGNED_IN
) -> SignedIn:
    """Whose session this is, now; notes that it was used.

    Raises errors.Unauthenticated (`SESSION_ENDED`) when it is nobody's, was ended, waited too long, or is at another
    stage, and errors.Forbidden (`ADDRESS_NOT_ALLOWED`) when the account's IP list doesn't have the visitor's address.
    """
    raw = decode(token)
    if raw is None or len(raw) != 16 + _SECRET_BYTES:
        raise session_ended()
    account = AccountId(UUID(bytes=raw[:16]))
    try:
        await databases.locate_account(account)
    except NotFound:
        raise session_ended() from None
    async with databases.operation(system("front-door"), account=account) as op:
        found = await _find(op, raw, stage)
    found = dataclasses.replace(found, source=visitor.address)
    await databases.check_address(found.actor, account)
    return dataclasses.replace(found, custom_roles=(await with_own_roles(databases, found.actor)).custom_roles)


async def _find(op: Operation, raw: bytes, stage: Stage) -> SignedIn:
    row = await op.row(
        "select session_id, person_id, method, proven_at, seen_at, is_due from sessions "
        "where session_hash = %s and stage = %s and ended_at is null and expires_at > %s",
        hashlib.sha256(raw).digest(),
        stage.value,
        op.now,
    )
    if row is None or op.now - row[4] >= (await get_settings(op)).idle:
        raise session_ended()
    if op.now - row[4] >= TOUCHED_EVERY:
        await op.run("update sessions set seen_at = %s where session_id = %s", op.now, row[0])
    person = await get_person(op, row[1])
    return SignedIn(
        account_id=op.account,
        session_id=SessionId(row[0]),
        stage=stage,
        person=person,
        roles=await roles_of(op, person.person_id, None),
        method=row[2],
        proven_at=row[3],
        is_due=row[5],
    )


async def list_sessions(op: Operation, person: PersonId) -> Sequence[SessionView]:
    """A person's sessions that are signed in and may be used, the newest first."""
    _require_own(op, person, writes=False)
    idle = (await get_settings(op)).idle
    rows = await op.rows(
        "select session_id, method, sealed, created_at, seen_at, expires_at from sessions "
        "where person_id = %s and stage = 'SIGNED_IN' and ended_at is null and expires_at > %s and seen_at > %s "
        "order by session_id desc limit %s",
        person,
        op.now,
        op.now - idle,
        MAX_SESSIONS,
    )
    return [_view(op, row) for row in rows]


async def end_session(op: Operation, person: PersonId, session_id: SessionId) -> None:
    """End one of a person's sessions; it opens nothing from the next request on, in every process.

    Raises errors.NotFound (`SESSION_NOT_FOUND`).
    """
    _require_own(op, person, writes=True)
    ended = await op.run(
        "update sessions set ended_at = %s where person_id = %s and session_id = %s and ended_at is null",
        op.now,
        person,
        session_id,
    )
    if not ended:
        raise NotFound(Failure("SESSION_NOT_FOUND", "There is no such session."))
    await record(op, "session.end", "person", person, detail=f"session={session_id}")


async def end_sessions(op: Operation, person: PersonId, *, but: SessionId | None = None) -> int:
    """End all of a person's sessions, or all but one; returns how many."""
    _require_own(op, person, writes=True)
    ended = await op.run(
        "update sessions set ended_at = %s where person_id = %s and ended_at is null "
        "and session_id is distinct from %s",
        op.now,
        person,
        but,
    )
    await record(op, "session.end-all", "person", person, detail=f"{ended} ended")
    return ended


def session_ended() -> Unauthenticated:
    """The answer to whoever isn't signed in, or isn't any more."""
    return Unauthenticated(Failure("SESSION_ENDED", "You are not signed in, or not any more. Sign in."))


def _require_own(op: Operation, person: PersonId, *, writes: bool) -> None:
    """Everybody sees and ends their own sessions; somebody else's take a permission."""
    if op.actor.kind is ActorKind.PERSON and op.actor.name == str(person):
        return
    require(op, Permission.USERS_MANAGE if writes else Permission.USERS_READ)


def _new_token(account: AccountId) -> tuple[Secret[str], bytes]:
    """What the cookie holds (the account, which says where to look, and the secret), and its hash."""
    raw = account.bytes + os.urandom(_SECRET_BYTES)
    return Secret(encode(raw)), hashlib.sha256(raw).digest()


def _seal(op: Operation, session_id: SessionId, visitor: Visitor) -> bytes:
    short = Visitor(source=visitor.source, agent=visitor.agent[:MAX_AGENT])
    return op.cipher.seal("sessions", "sealed", session_id.bytes, msgspec.msgpack.encode(short))


def _view(op: Operation, row: Sequence[Any]) -> SessionView:
    return SessionView(
        session_id=SessionId(row[0]),
        method=row[1],
        visitor=_DECODER.decode(op.cipher.open("sessions", "sealed", row[0].bytes, row[2])),
        created_at=row[3],
        seen_at=row[4],
        expires_at=row[5],
    )


def _seconds(length: timedelta) -> int:
    return int(length.total_seconds())


_DECODER: Final = msgspec.msgpack.Decoder(Visitor)
