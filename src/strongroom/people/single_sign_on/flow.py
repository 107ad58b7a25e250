"""A sign-in through the provider: away with the browser, back with an answer, and in.

What is under way is a row that is used up by the answer, and counts only for the browser that began it: it holds a
cookie whose hash the row has. Answers of SAML come by a form of another site, with which browsers send no cookies: they
are checked at once and wait, sealed, for the browser to fetch them with a request of its own. A sign-in that the
provider began (where the account takes those) has no browser to be bound to, so its person confirms it on a page.

Nobody is signed in by a test: it goes the same way, and shows what the provider said.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from strongroom.audit import record
from strongroom.database import Operation
from strongroom.kernel.actors import system
from strongroom.kernel.errors import Failure, NotFound, StrongroomError, Unauthenticated
from strongroom.kernel.ids import AccountId, new_uuid
from strongroom.kernel.mail_addresses import find_address
from strongroom.kernel.secret import Secret
from strongroom.people.enforcement import METHOD_PREFIX, domain_of
from strongroom.people.front_door import FrontDoor
from strongroom.people.keys import decode, encode
from strongroom.people.lockout import Counter, count_attempt, forget_failures, place_of
from strongroom.people.sessions import Visitor
from strongroom.people.sign_in import Entered, Vouched, enter
from strongroom.people.single_sign_on import oidc, saml
from strongroom.people.single_sign_on.admitting import admit, roles_for, session_hash, subject_hash
from strongroom.people.single_sign_on.claims import Claims, refused
from strongroom.people.single_sign_on.domains import account_of
from strongroom.people.single_sign_on.providers import Kind, Provider, find_provider

PATH: Final = "/portal/single-sign-on"
UNDER_WAY: Final = timedelta(minutes=10)
"""How long the browser may be away."""
_STATE: Final = "single sign-on"
_MAX_BROWSER: Final = 100
LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""When somebody proved themselves of whom the provider doesn't say when."""
MAX_REFUSED: Final = 100
"""Answers and logout tokens from one place that may be refused to an account in a row (see `lockout`)."""


class Purpose(enum.StrEnum):
    """What a browser is sent to the provider for."""

    SIGN_IN = "sign-in"
    TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """What is sealed of a sign-in under way. `claims` is there once the provider's answer was checked."""

    purpose: Purpose
    version_id: UUID
    begun: oidc.Begun | None = None
    claims: Claims | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """Where the browser goes, and the secret that it keeps in a cookie meanwhile."""

    url: str
    browser: Secret[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """What a provider said in a test, and the roles that would come of it, by place."""

    claims: Claims
    roles: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where things of one account stand."""

    door: FrontDoor
    account: AccountId

    @property
    def url(self) -> str:
        """What all addresses of the account's single sign-on begin with; as SAML's entity id, it is who we are."""
        return f"{self.door.origin}{PATH}/{self.account}"

    def oidc_client(self, provider: Provider) -> oidc.Client:
        return oidc.Client(
            provider=provider,
            redirect_uri=f"{self.url}/callback",
            outside=self.door.outside,
            clock=self.door.databases.clock,
        )

    def saml_client(self, provider: Provider) -> saml.Client:
        return saml.Client(provider=provider, entity_id=f"{self.url}/metadata", answers_url=f"{self.url}/answer")


def addresses_of(door: FrontDoor, account: AccountId) -> Mapping[str, str]:
    """What an account's provider has to be told of us."""
    url = _Place(door, account).url
    return {
        "sign_in": url,
        "callback": f"{url}/callback",
        "answer": f"{url}/answer",
        "metadata": f"{url}/metadata",
        "keys": f"{url}/keys",
        "back_channel_logout": f"{url}/back-channel-logout",
        "front_channel_logout": f"{url}/front-channel-logout",
    }


async def find_account_for(door: FrontDoor, address: str) -> AccountId | None:
    """The account whose provider vouches for people of this address's domain."""
    found = find_address(address)
    account = None if found is None else await account_of(door, domain_of(found))
    if account is None:
        return None
    async with door.databases.operation(system("single-sign-on"), account=account) as op:
        provider = await find_provider(op)
    return account if provider is not None and provider.is_enabled else None


async def provider_of(door: FrontDoor, account: AccountId, *, enabled: bool = True) -> Provider:
    """An account's provider. Raises errors.NotFound (`SINGLE_SIGN_ON_NOT_FOUND`)."""
    try:
        async with door.databases.operation(system("single-sign-on"), account=account) as op:
            provider = await find_provider(op)
    except NotFound:
        provider = None
    if provider is None or (enabled and not provider.is_enabled):
        raise NotFound(Failure("SINGLE_SIGN_ON_NOT_FOUND", "There is no single sign-on here."))
    return provider


async def begin(
    door: FrontDoor,
    account: AccountId,
    *,
    purpose: Purpose = Purpose.SIGN_IN,
    login_hint: str = "",
    afresh: bool = False,
) -> Departure:
    """Begin a sign-in, or a test, which also a provider that isn't enabled takes.

    `afresh`: the provider has somebody prove themselves anew, whatever it knows of them; for a step-up.

    Raises errors.NotFound (`SINGLE_SIGN_ON_NOT_FOUND`), errors.Unauthenticated (`PROVIDER_ANSWER_REFUSED`) and
    errors.Unavailable (`PROVIDER_UNAVAILABLE`).
    """
    provider = await provider_of(door, account, enabled=purpose is Purpose.SIGN_IN)
    place, request_id, browser = _Place(door, account), new_uuid(), encode(os.urandom(32))
    begun = None
    if provider.kind is Kind.OIDC:
        begun = oidc.new_begun()
        state = _state(door, account, request_id)
        url = await place.oidc_client(provider).authorization_url(begun, state, login_hint, afresh=afresh)
    else:
        url = place.saml_client(provider).request_url(request_id, door.databases.clock.now(), afresh=afresh)
    assert provider.version_id is not None  # noqa: S101  it was kept
    under_way = UnderWay(purpose=purpose, version_id=provider.version_id, begun=begun)
    async with door.databases.operation(system("single-sign-on"), account=account) as op:
        await _write(op, request_id, under_way, browser=browser)
    return Departure(url=url, browser=Secret(browser))


async def finish_oidc(
    door: FrontDoor, account: AccountId, query: Mapping[str, str], browser: str, visitor: Visitor, *, device: str
) -> Entered | Tested:
    """What comes of an OpenID provider's answer: somebody is signed in, or a test shows what was said.

    Raises errors.Unauthenticated (`PROVIDER_ANSWER_REFUSED`, `SIGN_IN_NOT_EXPECTED`, `SIGN_IN_NOT_ADMITTED`),
    errors.TooOften (`SIGN_IN_LOCKED`) and errors.Unavailable (`PROVIDER_UNAVAILABLE`).
    """
    provider = await provider_of(door, account, enabled=False)
    request_id = _read_state(door, account, query.get("state", ""))
    async with door.databases.operation(system("single-sign-on"), account=account) as op:
        under_way = await _take(op, request_id, browser, answered=False)
    async with _recorded(door, account, visitor):
        if under_way.begun is None or under_way.version_id != provider.version_id:
            raise _not_expected()
        place = _Place(door, account)
        claims = await place.oidc_client(provider).read_answer(under_way.begun, query)
        return await _finish(place, provider, dataclasses.replace(under_way, claims=claims), visitor, device)


async def take_saml(door: FrontDoor, account: AccountId, form: Mapping[str, str], visitor: Visitor) -> str:
    """Check a SAML response, and keep what it says for the browser to fetch; where it goes for that.

    Raises errors.NotFound (`SINGLE_SIGN_ON_NOT_FOUND`), errors.Unauthenticated (`PROVIDER_ANSWER_REFUSED`,
    `SIGN_IN_NOT_EXPECTED`) and errors.TooOften (`SIGN_IN_LOCKED`).
    """
    provider = await provider_of(door, account, enabled=False)
    if provider.kind is not Kind.SAML or provider.version_id is None:
        raise _not_expected()
    async with _recorded(door, account, visitor):
        now = door.databases.clock.now()
        response = _Place(door, account).saml_client(provider).read_answer(form.get("SAMLResponse", ""), now)
        async with door.databases.operation(system("single-sign-on"), account=account) as op:
            await _spend(op, f"assertion {provider.issuer} {response.assertion_id}", response.ends_at)
            if response.request_id is None:
                if not provider.is_enabled:
                    raise _not_expected()
                request_id = new_uuid()
                under_way = UnderWay(purpose=Purpose.SIGN_IN, version_id=provider.version_id, claims=response.claims)
                await _write(op, request_id, under_way, browser=None)
            else:
                request_id = response.request_id
                await _keep_answer(op, request_id, provider.version_id, response.claims)
    return f"{PATH}/{account}/arrival?state={_state(door, account, request_id)}"


async def needs_confirmation(door: FrontDoor, account: AccountId, state: str) -> str | None:
    """The address of whoever the provider itself began to sign in; None where our own browser did.

    Raises errors.Unauthenticated (`SIGN_IN_NOT_EXPECTED`).
    """
    request_id = _read_state(door, account, state)
    async with door.databases.operation(system("single-sign-on"), account=account) as op:
        row = await op.row(
            "select sealed from sign_in_requests where request_id = %s and browser_hash is null "
            "and answered_at is not null and expires_at > %s",
            request_id,
            op.now,
        )
        under_way = None if row is None else _open(op, request_id, row[0])
    return None if under_way is None or under_way.claims is None else under_way.claims.address


async def finish_saml(
    door: FrontDoor, account: AccountId, state: str, browser: str | None, visitor: Visitor, *, device: str
) -> Entered | Tested:
    """What comes of a SAML response that was kept. `browser`: None where its person has confirmed it.

    Raises errors.Unauthenticated (`SIGN_IN_NOT_EXPECTED`, `SIGN_IN_NOT_ADMITTED`) and errors.TooOften
    (`SIGN_IN_LOCKED`).
    """
    provider = await provider_of(door, account, enabled=False)
    request_id = _read_state(door, account, state)
    async with door.databases.operation(system("single-sign-on"), account=account) as op:
        under_way = await _take(op, request_id, browser, answered=True)
    async with _recorded(door, account, visitor):
        if under_way.version_id != provider.version_id:
            raise _not_expected()
        return await _finish(_Place(door, account), provider, under_way, visitor, device)


async def end_by_token(door: FrontDoor, account: AccountId, token: str, visitor: Visitor) -> int:
    """End what a logout token says (Back-Channel Logout 1.0 section 2.7); how many sessions that were.

    Raises errors.NotFound (`SINGLE_SIGN_ON_NOT_FOUND`), errors.Unauthenticated (`PROVIDER_ANSWER_REFUSED`),
    errors.TooOften (`SIGN_IN_LOCKED`) and errors.Unavailable (`PROVIDER_UNAVAILABLE`).
    """
    provider = await provider_of(door, account)
    if provider.kind is not Kind.OIDC:
        raise refused("this account's provider doesn't send logout tokens")
    async with _recorded(door, account, visitor):
        subject, session, token_id = await _Place(door, account).oidc_client(provider).read_logout(token)
        async with door.databases.operation(system("single-sign-on"), account=account) as op:
            await _spend(op, f"logout {provider.issuer} {token_id}", op.now + oidc.MAX_TOKEN_AGE + 2 * oidc.SKEW)
            return await _end(op, provider, subject, session)


async def end_by_frame(door: FrontDoor, account: AccountId, issuer: str, session: str) -> int:
    """End the provider's own session that a page of it names (Front-Channel Logout 1.0 section 3).

    Only the provider and we know what it calls its session; that stands in for the cookie, which browsers don't send
    from within somebody else's page. Raises errors.NotFound (`SINGLE_SIGN_ON_NOT_FOUND`).
    """
    provider = await provider_of(door, account)
    if provider.kind is not Kind.OIDC or provider.issuer != issuer or not session:
        return 0
    async with door.databases.operation(system("single-sign-on"), account=account) as op:
        return await _end(op, provider, "", session)


def client_of(door: FrontDoor, account: AccountId, provider: Provider) -> oidc.Client:
    """We, towards an account's OpenID provider."""
    return _Place(door, account).oidc_client(provider)


def own_metadata(door: FrontDoor, account: AccountId, provider: Provider) -> bytes:
    """What a SAML provider has to know of us (SAML 2.0 Metadata section 2.4.4)."""
    return _Place(door, account).saml_client(provider).metadata()


async def _finish(
    place: _Place, provider: Provider, under_way: UnderWay, visitor: Visitor, device: str
) -> Entered | Tested:
    claims = under_way.claims
    if claims is None:
        raise _not_expected()
    if under_way.purpose is Purpose.TEST:
        async with place.door.databases.operation(system("single-sign-on"), account=place.account) as op:
            await record(op, "single-sign-on.test", "account", place.account)
        return Tested(claims=claims, roles=_shown(provider, claims))
    if not provider.is_enabled:
        raise _not_expected()
    admitted = await admit(place.door, place.account, provider, claims)
    return await enter(
        place.door,
        place.account,
        admitted.person,
        visitor,
        method=f"{METHOD_PREFIX} ({provider.kind.value})",
        device=device,
        vouched=Vouched(
            session_hash=admitted.session_hash if claims.session else None,
            session_ends=claims.session_ends,
            proven_at=claims.proven_at or LONG_AGO,
        ),
    )


async def _end(op: Operation, provider: Provider, subject: str, session: str) -> int:
    """End the provider's session, and those of the subject of which we don't know which one they came from.

    Without a session's name, all of the subject's end.
    """
    named = session_hash(op, provider, session) if session else None
    ended = await op.run(
        "update sessions set ended_at = %s where ended_at is null and (provider_session = %s or "
        "((provider_session is null or %s) and method like %s and person_id in "
        "(select person_id from provider_subjects where subject_hash = %s)))",
        op.now,
        named,
        named is None,
        f"{METHOD_PREFIX}%",
        subject_hash(op, provider, subject) if subject else None,
    )
    if ended:
        await record(op, "session.end-by-provider", "account", op.account, detail=f"{ended} ended")
    return ended


@asynccontextmanager
async def _recorded(door: FrontDoor, account: AccountId, visitor: Visitor) -> AsyncIterator[None]:
    """Within the block, a refusal is told to the account's record.

    Anybody can send what will be refused, so attempts are counted before they are made.
    """
    subject = door.keys.hash("failures", account.bytes, b"provider", place_of(visitor.source).encode())
    counters = [Counter(subject, MAX_REFUSED)]
    await count_attempt(door.databases, counters)
    try:
        yield
    except StrongroomError as error:
        async with door.databases.operation(system("single-sign-on"), account=account) as op:
            detail = str(error)[:300] if error.code == "PROVIDER_ANSWER_REFUSED" else error.code
            await record(op, "sign-in", "account", account, outcome="refused", detail=detail)
        raise
    await forget_failures(door.databases, counters)


async def _write(op: Operation, request_id: UUID, under_way: UnderWay, *, browser: str | None) -> None:
    await op.run(
        "insert into sign_in_requests (account_id, request_id, browser_hash, sealed, answered_at, expires_at) "
        "values (%s, %s, %s, %s, %s, %s)",
        op.account,
        request_id,
        None if browser is None else _hash(browser),
        _seal(op, request_id, under_way),
        None if under_way.claims is None else op.now,
        op.now + UNDER_WAY,
    )


async def _take(op: Operation, request_id: UUID, browser: str | None, *, answered: bool) -> UnderWay:
    """Use a sign-in under way up; of two at once, one gets it."""
    row = await op.row(
        "delete from sign_in_requests where request_id = %s and browser_hash is not distinct from %s "
        "and (answered_at is not null) = %s and expires_at > %s returning sealed",
        request_id,
        None if browser is None else _hash(browser),
        answered,
        op.now,
    )
    if row is None:
        raise _not_expected()
    return _open(op, request_id, row[0])


async def _keep_answer(op: Operation, request_id: UUID, version_id: UUID, claims: Claims) -> None:
    row = await op.row(
        "select sealed from sign_in_requests where request_id = %s and browser_hash is not null "
        "and answered_at is null and expires_at > %s for update",
        request_id,
        op.now,
    )
    before = None if row is None else _open(op, request_id, row[0])
    if before is None or before.version_id != version_id:
        raise _not_expected()
    answered = UnderWay(purpose=before.purpose, version_id=version_id, claims=claims)
    await op.run(
        "update sign_in_requests set sealed = %s, answered_at = %s where request_id = %s",
        _seal(op, request_id, answered),
        op.now,
        request_id,
    )


async def _spend(op: Operation, name: str, until: datetime) -> None:
    """Raises errors.Unauthenticated (`PROVIDER_ANSWER_REFUSED`) the second time."""
    fresh = await op.run(
        "insert into spent_assertions (account_id, assertion_hash, expires_at) values (%s, %s, %s) "
        "on conflict do nothing",
        op.account,
        hashlib.sha256(name.encode()).digest(),
        until,
    )
    if not fresh:
        raise refused("it was used before")


def _shown(provider: Provider, claims: Claims) -> Mapping[str, tuple[str, ...]]:
    return {
        "account" if place is None else str(place): tuple(sorted(roles))
        for place, roles in roles_for(provider, claims.groups).items()
    }


def _state(door: FrontDoor, account: AccountId, request_id: UUID) -> str:
    return door.keys.seal(_STATE, account.bytes + request_id.bytes)


def _read_state(door: FrontDoor, account: AccountId, state: str) -> UUID:
    content = door.keys.open(_STATE, state)
    if content is None or len(content) != 32 or content[:16] != account.bytes:
        raise _not_expected()
    return UUID(bytes=content[16:])


def _seal(op: Operation, request_id: UUID, under_way: UnderWay) -> bytes:
    return op.cipher.seal("sign_in_requests", "sealed", request_id.bytes, msgspec.msgpack.encode(under_way))


def _open(op: Operation, request_id: UUID, envelope: bytes) -> UnderWay:
    return _DECODER.decode(op.cipher.open("sign_in_requests", "sealed", request_id.bytes, envelope))


def _hash(browser: str) -> bytes:
    return hashlib.sha256(decode(browser[:_MAX_BROWSER]) or b"").digest()


def _not_expected() -> Unauthenticated:
    return Unauthenticated(
        Failure(
            "SIGN_IN_NOT_EXPECTED",
            "This answer belongs to no sign-in that this browser began, or it took too long. Begin again.",
        )
    )


_DECODER: Final = msgspec.msgpack.Decoder(UnderWay)
