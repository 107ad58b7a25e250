"""Signing in with an API key (wire contract, section 2).

The client signs `{publicKey}:{nonce}:{epoch}:{bodyHash}` with HMAC-SHA-256 (RFC 2104) under its private key. A
signature counts once: it is good for five minutes around its epoch, and its nonce is remembered for longer than that,
in the key's region, so that neither another process nor a restart forgets it. Every sign-in of a known key, and every
refusal of one, is in the record. All refusals take the same time, so that it doesn't tell which keys exist.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import hmac
import re
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog

from strongroom.audit import record
from strongroom.database import Databases, DirectoryEntry, Operation, in_operation
from strongroom.identity.api_keys import mark_used, private_key_of
from strongroom.identity.ip_lists import check_source
from strongroom.identity.tokens import Issued, Tokens
from strongroom.kernel.actors import Actor, ActorKind, system
from strongroom.kernel.clock import sleep_until
from strongroom.kernel.errors import Broken, Failure, Forbidden, StrongroomError, Unauthenticated, Unavailable
from strongroom.kernel.ids import ApiKeyId, parse_uuid
from strongroom.kernel.networks import Address
from strongroom.kernel.secret import Secret

log = structlog.get_logger(__name__)

CLOCK_WINDOW: Final = timedelta(minutes=5)
"""How far a signature's epoch may be from now, either way."""
NONCE_KEPT: Final = 3 * CLOCK_WINDOW
"""How long a nonce is remembered: more than the two windows in which its signature could be good."""
MAX_NONCE_CHARACTERS: Final = 128
REFUSAL_TAKES_S: Final = 0.15
_PURGED_AT_ONCE: Final = 64
_EPOCH: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", re.ASCII)
_NONCE: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_NONCE_CHARACTERS}}}", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    """What the Authorization header says. `text` is what was signed."""

    public_key: ApiKeyId
    nonce: str
    epoch: float
    text: str
    signature: bytes


async def sign_in(
    databases: Databases,
    tokens: Tokens,
    *,
    authorization: str,
    body: bytes,
    correlation_id: str,
    source: Address | None = None,
) -> Issued:
    """A token for a signed request that came from the address `source`.

    Raises errors.Unauthenticated (`SIGNATURE_IS_REQUIRED`, `SIGNATURE_MALFORMED`, `SIGNATURE_REFUSED`,
    `CLOCK_OUT_OF_RANGE`, `NONCE_REPLAYED`, `KEY_OF_OTHER_ENVIRONMENT`, `API_KEY_EXPIRED`) and errors.Forbidden
    (`TENANT_NOT_APPROVED`, `ADDRESS_NOT_ALLOWED`).
    """
    started = time.monotonic()
    try:
        signed = _parse(authorization, body)
        entry = await databases.find_key(signed.public_key)
        if entry is None:
            raise _refused()
        try:
            return await _exchange(databases, tokens, entry, signed, correlation_id=correlation_id, source=source)
        except (Unauthenticated, Forbidden) as error:
            await _record_refusal(databases, entry, signed, error, correlation_id)
            raise
    except (Unauthenticated, Forbidden):
        await sleep_until(started + REFUSAL_TAKES_S)
        raise


async def _exchange(
    databases: Databases,
    tokens: Tokens,
    entry: DirectoryEntry,
    signed: _Signed,
    *,
    correlation_id: str,
    source: Address | None,
) -> Issued:
    if entry.environment != databases.environment.value:
        raise Unauthenticated(
            Failure(
                "KEY_OF_OTHER_ENVIRONMENT",
                "This key belongs to the environment {found}; this installation is {environment}.",
                {"found": entry.environment, "environment": databases.environment.value},
            )
        )
    begin = partial(
        databases.operation,
        system("sign-in"),
        account=entry.account_id,
        tenant=entry.tenant_id,
        region=entry.region,
        correlation_id=correlation_id,
    )

    async def check(op: Operation) -> tuple[Sequence[str], datetime | None]:
        op.actor = _actor(entry, signed.public_key)
        row = await op.row(
            "select sealed, roles, expires_at from api_keys where public_key = %s and deleted_at is null",
            signed.public_key,
        )
        if row is None or not _is_signature_of(_private_key(op, signed, row[0]), signed):
            raise _refused()
        # After the signature: a stranger isn't told that there is a list.
        await check_source(op, dataclasses.replace(op.actor, source=source))
        _check_end(op, row[2])
        _check_clock(op, signed)
        await _check_tenant(op)
        await _spend_nonce(op, signed)
        await mark_used(op, signed.public_key)
        await record(op, "sign-in", "api-key", signed.public_key)
        return row[1], row[2]

    roles, end = await in_operation(begin, check)
    return tokens.issue(signed.public_key, account=entry.account_id, tenant=entry.tenant_id, roles=roles, until=end)


def _parse(authorization: str, body: bytes) -> _Signed:
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() != "hmac" or not rest:
        raise Unauthenticated(
            Failure(
                "SIGNATURE_IS_REQUIRED",
                "Send the header Authorization: Hmac publicKey:nonce:epoch:signature.",
            )
        )
    parts = rest.strip().split(":")
    if len(parts) != 4:
        raise _malformed("four parts between colons")
    public_key, nonce, epoch, signature = parts
    key = parse_uuid(public_key)
    if key is None:
        raise _malformed("a UUID as the public key")
    if not _NONCE.fullmatch(nonce):
        raise _malformed(f"a nonce of 1 to {MAX_NONCE_CHARACTERS} visible characters")
    if not _EPOCH.fullmatch(epoch):
        raise _malformed("the epoch in seconds as a decimal number")
    try:
        decoded = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("the signature in base64") from None
    body_hash = base64.b64encode(hashlib.sha256(body).digest()).decode() if body else ""
    return _Signed(
        public_key=ApiKeyId(key),
        nonce=nonce,
        epoch=float(epoch),
        text=f"{public_key}:{nonce}:{epoch}:{body_hash}",
        signature=decoded,
    )


def _private_key(op: Operation, signed: _Signed, envelope: bytes) -> Secret[bytes]:
    """The private half. One that doesn't open here lets nobody in: the row was altered, or it is another
    installation's under our label. Somebody has to look at that, so it is told, but not to who knocks."""
    try:
        return private_key_of(op, signed.public_key, envelope)
    except Broken as error:
        log.exception("sign_in.key_broken", public_key=str(signed.public_key), code=error.code)
        raise _refused() from error


def _is_signature_of(private_key: Secret[bytes], signed: _Signed) -> bool:
    return hmac.compare_digest(hmac.digest(private_key.reveal(), signed.text.encode(), "sha256"), signed.signature)


def _check_end(op: Operation, expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= op.now:
        raise Unauthenticated(
            Failure(
                "API_KEY_EXPIRED",
                "This key ended on {end}. Make a new one, or give it another end.",
                {"end": f"{expires_at:%Y-%m-%d}"},
            )
        )


def _check_clock(op: Operation, signed: _Signed) -> None:
    now = op.now.timestamp()
    if abs(now - signed.epoch) > CLOCK_WINDOW.total_seconds():
        raise Unauthenticated(
            Failure(
                "CLOCK_OUT_OF_RANGE",
                "The signature's epoch is more than {seconds} seconds away from now ({now}). Set your clock.",
                {"seconds": int(CLOCK_WINDOW.total_seconds()), "now": int(now)},
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


async def _spend_nonce(op: Operation, signed: _Signed) -> None:
    await op.run(
        "delete from nonces where (public_key, nonce_hash) in "
        "(select public_key, nonce_hash from nonces where expires_at < %s limit %s)",
        op.now,
        _PURGED_AT_ONCE,
    )
    fresh = await op.run(
        "insert into nonces (public_key, nonce_hash, expires_at) values (%s, %s, %s) on conflict do nothing",
        signed.public_key,
        op.cipher.index("nonces", "nonce_hash", f"{signed.public_key} {signed.nonce}"),
        op.now + NONCE_KEPT,
    )
    if not fresh:
        raise Unauthenticated(Failure("NONCE_REPLAYED", "This nonce was used before. Sign every time with a new one."))


async def _record_refusal(
    databases: Databases, entry: DirectoryEntry, signed: _Signed, error: StrongroomError, correlation_id: str
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
            op.actor = _actor(entry, signed.public_key)
            await record(op, "sign-in", "api-key", signed.public_key, outcome="refused", detail=error.code)
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


def _malformed(wanted: str) -> Unauthenticated:
    return Unauthenticated(
        Failure("SIGNATURE_MALFORMED", "The Authorization header should hold {wanted}.", {"wanted": wanted})
    )


def _refused() -> Unauthenticated:
    return Unauthenticated(
        Failure("SIGNATURE_REFUSED", "There is no such key, or the signature was not made with its private half.")
    )
