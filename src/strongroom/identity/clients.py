"""Who signs in: an API key proves itself, by whichever credential, and the rules that are the same for all of them.

A credential counts once: what makes it unique is remembered for longer than it could be good, in the key's region, so
that neither another process nor a restart forgets it. Every proof of a known key, and every refusal of one, is in the
record. All refusals take the same time, so that it doesn't tell which keys exist.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol, TypeVar

import structlog

from strongroom.audit import record
from strongroom.database import Databases, DirectoryEntry, Operation, in_operation
from strongroom.identity.api_keys import SealedKey, mark_used, open_key
from strongroom.identity.ip_lists import check_source
from strongroom.kernel.actors import Actor, ActorKind, system
from strongroom.kernel.clock import sleep_until
from strongroom.kernel.errors import Broken, Failure, Forbidden, Invalid, StrongroomError, Unauthenticated, Unavailable
from strongroom.kernel.ids import AccountId, ApiKeyId, TenantId
from strongroom.kernel.networks import Address

log = structlog.get_logger(__name__)

CLOCK_WINDOW: Final = timedelta(minutes=5)
"""How far from now what a client signs may say it was signed, either way."""
NONCE_KEPT: Final = 3 * CLOCK_WINDOW
"""How long a nonce is remembered: more than the two windows in which its signature could be good."""
REFUSAL_TAKES_S: Final = 0.15
_PURGED_AT_ONCE: Final = 64
T = TypeVar("T")


class Credential(Protocol):
    """What a client shows; the HMAC signature and the signed assertion."""

    @property
    def public_key(self) -> ApiKeyId:
        """The key whose credential it says it is."""
        ...

    @property
    def nonce(self) -> str:
        """What makes it unique among the key's credentials of all kinds."""
        ...

    def check_signature(self, key: SealedKey) -> None:
        """Raises errors.Unauthenticated unless the key signed it."""
        ...

    def check_time(self, now: datetime) -> None:
        """Raises errors.Unauthenticated unless it is good now."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A key that has proven itself, and what its tokens may be."""

    public_key: ApiKeyId
    account_id: AccountId
    tenant_id: TenantId | None
    region: str
    roles: Collection[str]
    scopes: tuple[str, ...] | None
    per_minute: int | None
    ends_at: datetime | None


async def authenticate(
    databases: Databases,
    credential: Credential,
    decide: Callable[[Client], T],
    *,
    action: str,
    correlation_id: str,
    source: Address | None,
    proof_nonces: Sequence[str] = (),
) -> T:
    """What `decide` makes of the client that the credential proves, who comes from the address `source`.

    `action` is what the record says; `proof_nonces` are of DPoP proofs, which count once as well. What `decide`
    raises refuses the client: nothing is spent then.

    Raises errors.Unauthenticated (`KEY_OF_OTHER_ENVIRONMENT`, `API_KEY_EXPIRED`, `NONCE_REPLAYED`,
    `DPOP_PROOF_REPLAYED`, and what the credential raises) and errors.Forbidden (`TENANT_NOT_APPROVED`,
    `ADDRESS_NOT_ALLOWED`).
    """
    key = credential.public_key
    entry = await databases.find_key(key)
    if entry is None:
        raise refused()
    begin = partial(
        databases.operation,
        system("sign-in"),
        account=entry.account_id,
        tenant=entry.tenant_id,
        region=entry.region,
        correlation_id=correlation_id,
    )

    async def check(op: Operation) -> T:
        op.actor = _actor(entry, key)
        row = await op.row(
            "select sealed, roles, expires_at from api_keys where public_key = %s and deleted_at is null", key
        )
        if row is None:
            raise refused()
        sealed = _opened(op, key, row[0])
        credential.check_signature(sealed)
        # After the signature: a stranger isn't told that there is a list.
        await check_source(op, dataclasses.replace(op.actor, source=source))
        _check_end(op, row[2])
        credential.check_time(op.now)
        await _check_tenant(op)
        client = Client(
            public_key=key,
            account_id=entry.account_id,
            tenant_id=entry.tenant_id,
            region=entry.region,
            roles=row[1],
            scopes=sealed.scopes,
            per_minute=sealed.per_minute,
            ends_at=row[2],
        )
        decided = decide(client)
        await spend_nonce(op, key, credential.nonce)
        for nonce in proof_nonces:
            await spend_nonce(op, key, nonce, code="DPOP_PROOF_REPLAYED")
        await mark_used(op, key)
        await record(op, action, "api-key", key)
        return decided

    try:
        _check_environment(databases, entry)
        return await in_operation(begin, check)
    except (Unauthenticated, Forbidden, Invalid) as error:
        await _record_refusal(databases, entry, key, action, error, correlation_id=correlation_id)
        raise


@contextlib.asynccontextmanager
async def taking_its_time() -> AsyncIterator[None]:
    """Within the block a refusal takes as long as any other."""
    started = time.monotonic()
    try:
        yield
    except (Unauthenticated, Forbidden):
        await sleep_until(started + REFUSAL_TAKES_S)
        raise


async def spend_nonce(op: Operation, key: ApiKeyId, nonce: str, *, code: str = "NONCE_REPLAYED") -> None:
    """Raises errors.Unauthenticated (with `code`) when the key has used the nonce before."""
    await op.run(
        "delete from nonces where (public_key, nonce_hash) in "
        "(select public_key, nonce_hash from nonces where expires_at < %s limit %s)",
        op.now,
        _PURGED_AT_ONCE,
    )
    fresh = await op.run(
        "insert into nonces (public_key, nonce_hash, expires_at) values (%s, %s, %s) on conflict do nothing",
        key,
        op.cipher.index("nonces", "nonce_hash", f"{key} {nonce}"),
        op.now + NONCE_KEPT,
    )
    if not fresh:
        raise Unauthenticated(Failure(code, "This nonce was used before. Sign every time with a new one."))


def refused() -> Unauthenticated:
    """The refusal that doesn't tell whether there is such a key."""
    return Unauthenticated(
        Failure("SIGNATURE_REFUSED", "There is no such key, or the signature was not made with its private half.")
    )


def _opened(op: Operation, key: ApiKeyId, envelope: bytes) -> SealedKey:
    """What is sealed of the key. One that doesn't open here lets nobody in: the row was altered, or it is another
    installation's under our label. Somebody has to look at that, so it is told, but not to who knocks."""
    try:
        return open_key(op, key, envelope)
    except Broken as error:
        log.exception("sign_in.key_broken", public_key=str(key), code=error.code)
        raise refused() from error


def _check_environment(databases: Databases, entry: DirectoryEntry) -> None:
    if entry.environment != databases.environment.value:
        raise Unauthenticated(
            Failure(
                "KEY_OF_OTHER_ENVIRONMENT",
                "This key belongs to the environment {found}; this installation is {environment}.",
                {"found": entry.environment, "environment": databases.environment.value},
            )
        )


def _check_end(op: Operation, expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= op.now:
        raise Unauthenticated(
            Failure(
                "API_KEY_EXPIRED",
                "This key ended on {end}. Make a new one, or give it another end.",
                {"end": f"{expires_at:%Y-%m-%d}"},
            )
        )


async def _check_tenant(op: Operation) -> None:
    if op.tenant_id is None:
        return
    row = await op.row("select status from tenants where tenant_id = %s", op.tenant_id)
    if row is None or row[0] != "APPROVED":
        raise Forbidden(
            Failure("TENANT_NOT_APPROVED", "This tenant awaits approval, was rejected or is deleted, so it can't act.")
        )


async def _record_refusal(
    databases: Databases,
    entry: DirectoryEntry,
    key: ApiKeyId,
    action: str,
    error: StrongroomError,
    *,
    correlation_id: str,
) -> None:
    """The refusal stands also when it can't be recorded, because the database is away or its keys are another's."""
    try:
        async with databases.operation(
            system("sign-in"),
            account=entry.account_id,
            tenant=entry.tenant_id,
            region=entry.region,
            correlation_id=correlation_id,
        ) as op:
            op.actor = _actor(entry, key)
            await record(op, action, "api-key", key, outcome="refused", detail=error.code)
    except (Unavailable, Broken) as failed:
        log.warning("sign_in.refusal_not_recorded", code=failed.code, correlation_id=correlation_id)


def _actor(entry: DirectoryEntry, public_key: ApiKeyId) -> Actor:
    return Actor(
        kind=ActorKind.API_KEY,
        name=str(public_key),
        account_id=entry.account_id,
        tenant_id=entry.tenant_id,
        key_id=public_key,
    )
