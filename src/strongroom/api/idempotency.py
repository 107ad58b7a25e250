"""Idempotency keys (IETF draft-ietf-httpapi-idempotency-key-header): the same key and body give the stored answer.

The key is taken in the same operation as the change, so either both exist or neither. Keys are kept for 24 hours as
keyed hashes; answers are sealed. Fields that are shown once (a private key) are answered with null in a replay.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

import msgspec

from strongroom.api.routing import Call, OperationHandler, Reply
from strongroom.database import Operation, in_operation
from strongroom.kernel.errors import Conflict, Failure, InFlight, Invalid, KeyReused, StrongroomError
from strongroom.kernel.ids import new_uuid

KEY: Final = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
KEPT_FOR: Final = "24 hours"
TAKEN_OVER_AFTER: Final = timedelta(seconds=60)
"""A request that has had its key for so long without an answer may be carried out by whoever sends it again."""
Witness = Callable[[Operation], Awaitable[None]]
"""Writes down, in the operation that makes a change, that it was made."""


async def once(op: Operation, call: Call, handler: OperationHandler) -> Reply:
    """Run the handler, or answer what it answered the last time this key was sent.

    Raises errors.Invalid (`IDEMPOTENCY_KEY_INVALID`), errors.KeyReused (`IDEMPOTENCY_KEY_REUSED`) when the body
    differs, errors.InFlight (`IDEMPOTENCY_KEY_IN_FLIGHT`) while the first request is still being worked on.
    """
    key = key_of(call)
    if key is None:
        return await handler(op, call)
    key_hash = op.cipher.index("idempotency_keys", "key_hash", key)
    request_hash = fingerprint(call)
    stored = await claim(op, key_hash, request_hash)
    if stored is not None:
        return stored
    reply = await handler(op, call)
    await store(op, key_hash, reply)
    return reply


async def once_around(
    call: Call,
    operation: Callable[[], AbstractAsyncContextManager[Operation]],
    act: Callable[[Witness | None], Awaitable[Reply]],
) -> Reply:
    """As `once`, for work that begins operations of its own, with something between them.

    The key is taken before the work and answered after it. A refusal is not kept. When it isn't known how far the work
    came (the process died, the outcome of a commit is unknown), the key stays in flight for `TAKEN_OVER_AFTER`; who
    sends the request again then takes it over. That is safe because `act` gets a witness, which it calls in the
    operation that makes the change: this writes down, together with the change, that it was made, and raises
    (`IDEMPOTENCY_KEY_IN_FLIGHT`) when the key was taken over. So of all attempts one makes the change at most.

    Raises as `once`, and errors.Conflict (`IDEMPOTENCY_ANSWER_LOST`) when the change was made and nobody knows the
    answer any more.
    """
    key = key_of(call)
    if key is None:
        return await act(None)
    attempt = new_uuid()

    async def take(op: Operation) -> tuple[bytes, Reply | None]:
        key_hash = op.cipher.index("idempotency_keys", "key_hash", key)
        return key_hash, await _claim_attempt(op, key_hash, fingerprint(call), attempt)

    key_hash, stored = await in_operation(operation, take)
    if stored is not None:
        return stored

    async def witness(op: Operation) -> None:
        if not await op.run(_CARRY_OUT, op.scope, key_hash, attempt):
            raise _in_flight()

    try:
        reply = await act(witness)
    except StrongroomError as error:
        if error.code != "OUTCOME_UNKNOWN":
            async with operation() as op:
                await op.run(_GIVE_BACK, op.scope, key_hash, attempt)
        raise
    async with operation() as op:
        await store(op, key_hash, reply)
    return reply


async def _claim_attempt(op: Operation, key_hash: bytes, request_hash: bytes, attempt: UUID) -> Reply | None:
    """As `claim`, for an attempt that can be taken over, or takes over."""
    try:
        stored = await claim(op, key_hash, request_hash)
    except InFlight:
        row = await op.row(_LOOK_AT_LEFT, op.scope, key_hash, op.now - TAKEN_OVER_AFTER)
        if row is None:
            raise
        if row[0]:
            raise _answer_lost() from None
        keyed = op.cipher.index("idempotency_keys", "request_hash", request_hash.hex())
        taken = await op.run(_TAKE_OVER, attempt, op.now, op.scope, key_hash, keyed, row[1])
        if not taken:
            raise
        return None
    if stored is None:
        await op.run(
            "update idempotency_keys set attempt = %s where scope_id = %s and key_hash = %s",
            attempt,
            op.scope,
            key_hash,
        )
    return stored


def key_of(call: Call) -> str | None:
    """The request's idempotency key, if it is a POST that has one."""
    if call.route.method != "POST":
        return None
    header = call.headers.get(b"idempotency-key")
    if header is None:
        return None
    text = header.decode("latin-1")
    if not KEY.fullmatch(text):
        raise Invalid(
            Failure(
                "IDEMPOTENCY_KEY_INVALID",
                "An Idempotency-Key has 1 to 255 visible ASCII characters, without blanks.",
            )
        )
    return text


def fingerprint(call: Call) -> bytes:
    """What makes two requests the same one: method, path and body."""
    path = call.route.path.format_map(call.path) if call.path else call.route.path
    digest = hashlib.sha256(f"{call.route.method} {path}\n".encode())
    digest.update(call.body)
    return digest.digest()


async def claim(op: Operation, key_hash: bytes, request_hash: bytes) -> Reply | None:
    """Take the key for this request; the stored answer when it was taken and answered before."""
    # Keyed, since a small body could be guessed from its plain hash.
    request_hash = op.cipher.index("idempotency_keys", "request_hash", request_hash.hex())
    # The lock is there until the claim is committed. An insert alone would wait for it, and two batches with the same
    # keys could wait for each other.
    taken = await op.run(
        "insert into idempotency_keys (scope_id, key_hash, request_hash, created_at) "
        "select %s::uuid, %s::bytea, %s::bytea, %s::timestamptz where pg_try_advisory_xact_lock(%s::bigint) "
        "on conflict do nothing",
        op.scope,
        key_hash,
        request_hash,
        op.now,
        int.from_bytes(key_hash[:8], "big", signed=True),
    )
    if taken:
        return None
    row = await op.row(
        "select request_hash, status, sealed from idempotency_keys where scope_id = %s and key_hash = %s",
        op.scope,
        key_hash,
    )
    return replay(op, key_hash, request_hash, row)


def replay(op: Operation, key_hash: bytes, request_hash: bytes, row: tuple[Any, ...] | None) -> Reply:
    """The answer kept in a row of `idempotency_keys`."""
    if row is None or row[1] is None:
        raise _in_flight()
    if row[0] != request_hash:
        raise KeyReused(
            Failure(
                "IDEMPOTENCY_KEY_REUSED",
                "This Idempotency-Key was used for another request. Use a new key for a new request.",
            )
        )
    content = op.cipher.open("idempotency_keys", "sealed", key_hash, row[2])
    return Reply(row[1], content=content, headers=((b"idempotency-replayed", b"true"),))


async def store(op: Operation, key_hash: bytes, reply: Reply) -> None:
    """Keep the answer under a key that was claimed in this operation."""
    body = reply.body
    if reply.unrepeatable:
        body = {**msgspec.to_builtins(body), **dict.fromkeys(reply.unrepeatable)}
    content = reply.content if reply.content is not None else b"" if body is None else _encode(body)
    await op.run(
        "update idempotency_keys set status = %s, sealed = %s where scope_id = %s and key_hash = %s",
        reply.status,
        op.cipher.seal("idempotency_keys", "sealed", key_hash, content),
        op.scope,
        key_hash,
    )


class Keyed(Protocol):
    """A command that may carry an idempotency key."""

    @property
    def key(self) -> str | None:
        """The key as sent."""
        ...

    @property
    def request_hash(self) -> bytes:
        """See `fingerprint`."""
        ...


C = TypeVar("C", bound=Keyed)


async def once_each(
    op: Operation,
    commands: Sequence[C],
    run: Callable[[Operation, Sequence[C]], Awaitable[Sequence[Reply | StrongroomError]]],
) -> list[Reply | StrongroomError]:
    """As `once`, for the commands of a coalesced write: those seen before are answered, the rest run together.

    Refusals are not kept, so a refused request may be sent again.
    """
    verdicts: dict[int, Reply | StrongroomError] = {}
    claimed: dict[int, bytes] = {}
    for position, command in enumerate(commands):
        if command.key is None:
            continue
        key_hash = op.cipher.index("idempotency_keys", "key_hash", command.key)
        try:
            stored = await claim(op, key_hash, command.request_hash)
        except StrongroomError as error:
            verdicts[position] = error
            continue
        if stored is None:
            claimed[position] = key_hash
        else:
            verdicts[position] = stored
    open_positions = [position for position in range(len(commands)) if position not in verdicts]
    results = await run(op, [commands[position] for position in open_positions])
    for position, result in zip(open_positions, results, strict=True):
        verdicts[position] = result
        claimed_hash = claimed.get(position)
        if claimed_hash is None:
            continue
        if isinstance(result, StrongroomError):
            await _release(op, claimed_hash)
        else:
            await store(op, claimed_hash, result)
    return [verdicts[position] for position in range(len(commands))]


async def _release(op: Operation, key_hash: bytes) -> None:
    """Let a key that was claimed be used again."""
    await op.run("delete from idempotency_keys where scope_id = %s and key_hash = %s", op.scope, key_hash)


def _in_flight() -> InFlight:
    return InFlight(
        Failure(
            "IDEMPOTENCY_KEY_IN_FLIGHT", "A request with this Idempotency-Key is being worked on. Try again shortly."
        )
    )


def _answer_lost() -> Conflict:
    return Conflict(
        Failure(
            "IDEMPOTENCY_ANSWER_LOST",
            "What this Idempotency-Key was sent for has been done, once, and the answer was lost. Read the resource.",
        )
    )


_CARRY_OUT: Final = (
    "update idempotency_keys set carried_out = true where scope_id = %s and key_hash = %s and attempt = %s"
)
_GIVE_BACK: Final = "delete from idempotency_keys where scope_id = %s and key_hash = %s and attempt = %s"
_LOOK_AT_LEFT: Final = (
    "select carried_out, attempt from idempotency_keys "
    "where scope_id = %s and key_hash = %s and status is null and created_at <= %s"
)
_TAKE_OVER: Final = (
    "update idempotency_keys set attempt = %s, created_at = %s "
    "where scope_id = %s and key_hash = %s and request_hash = %s and attempt = %s and status is null "
    "and not carried_out"
)
_encode = msgspec.json.Encoder(decimal_format="number").encode
