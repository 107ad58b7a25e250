"""What every holder of keys does: wrap a key under one that it holds, open it again, and say how that one is.

A holder is where a key lives that never shows itself to the database: a file of ours, a hardware security module, a
cloud's key service. It is named in the settings; a key in it has a *reference*, in the holder's own manner of speaking
(a label, an ARN). Holders may be slow or away, so they are never called inside a database operation.

`context` is authenticated with what is wrapped: a wrapped key opens only with the context that it was wrapped with.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from strongroom.kernel.errors import Broken, Failure, Unavailable
from strongroom.kernel.secret import Secret

KEY_BYTES: Final = 32
"""The size of every key that is wrapped or held: AES-256 (FIPS 197)."""
MAX_CONTEXT_BYTES: Final = 256
MAX_WRAPPED_BYTES: Final = 6144
"""The largest ciphertext that a cloud's key service takes (AWS KMS, Decrypt: CiphertextBlob)."""


class HeldState(enum.StrEnum):
    """How a key is, as its holder tells it."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"
    """There, and not to be used until somebody enables it again (also: waiting for its deletion)."""
    GONE = "GONE"
    """Destroyed, or never there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKey:
    """A key as its holder describes it."""

    reference: str
    algorithm: str
    """`AES-256`, or what the holder calls it when it is another (then it can't be used)."""
    is_extractable: bool
    """Whether its value can leave the holder. False in a security module or a key service."""
    state: HeldState


class Reason(enum.StrEnum):
    """Why a key can't be used now."""

    AWAY = "AWAY"
    """The holder can't be reached, or its token isn't there."""
    SLOW = "SLOW"
    """It didn't answer in time."""
    NONSENSE = "NONSENSE"
    """It answered what can't be."""
    DENIED = "DENIED"
    """It doesn't let us: a wrong PIN, a missing right."""
    THROTTLED = "THROTTLED"
    """It has too many requests."""
    UNFIT = "UNFIT"
    """It is no AES-256 key."""
    DISABLED = "DISABLED"
    GONE = "GONE"


_WHY: Final[Mapping[Reason, str]] = {
    Reason.AWAY: "its holder can't be reached",
    Reason.SLOW: "its holder didn't answer in time",
    Reason.NONSENSE: "its holder answered nonsense",
    Reason.DENIED: "its holder refuses us",
    Reason.THROTTLED: "its holder takes no more requests for now",
    Reason.UNFIT: "it is no AES-256 key",
    Reason.DISABLED: "it is disabled",
    Reason.GONE: "it is gone",
}


class KeyUnavailable(Unavailable):
    """A key can't be used for now (or, with `Reason.GONE`, ever): `KEY_UNAVAILABLE`.

    The failure names the holder and the reason, not the key: whoever asked knows which.
    """

    def __init__(self, holder: str, reason: Reason, detail: str = "") -> None:
        """`detail` is for people: what the holder said, without secrets and in our words where we have some."""
        why = f"{_WHY[reason]} ({detail})" if detail else _WHY[reason]
        super().__init__(
            Failure(
                "KEY_UNAVAILABLE",
                "A key can't be used: {why}. Holder: {holder}.",
                {"holder": holder, "reason": reason.value, "why": why},
            )
        )
        self.reason = reason


def wrapped_key_broken(holder: str) -> Broken:
    """The error for a wrapped key that doesn't open: altered, or of another key, context or holder."""
    return Broken(
        Failure(
            "DATA_KEY_BROKEN",
            "A wrapped key does not open in the holder {holder}: it was altered, or it belongs to another key, tenant "
            "or installation. Restore it together with the keys that it was made with.",
            {"holder": holder},
        )
    )


class Holder(Protocol):
    """Wraps keys under keys that it holds. Belongs to one event loop; safe for many tasks at once.

    Every method may raise `KeyUnavailable`. A key that is disabled or gone wraps and opens nothing.
    """

    @property
    def name(self) -> str:
        """What the settings call it."""
        ...

    async def wrap(self, reference: str, key: Secret[bytes], context: bytes) -> bytes:
        """The key of 32 bytes, encrypted and bound to `context` (at most 256 bytes).

        Raises errors.Invalid (`KEY_REFERENCE_INVALID`) for a reference that no key of this holder can have.
        """
        ...

    async def unwrap(self, reference: str, wrapped: bytes, context: bytes) -> Secret[bytes]:
        """The key again.

        Raises errors.Broken (`DATA_KEY_BROKEN`) when it was altered, or wrapped by another key or for another context.
        """
        ...

    async def describe(self, reference: str) -> HeldKey:
        """How the key is. One that isn't there is `GONE`."""
        ...

    async def close(self) -> None:
        """Let go of sessions, connections, threads, and of keys in memory."""
        ...


class KeyStore(Holder, Protocol):
    """A holder in which we can make keys and end them."""

    async def create(self, reference: str) -> None:
        """Make a new random key.

        Raises errors.AlreadyExists (`KEY_ALREADY_EXISTS`) when there is one, and errors.Conflict (`KEY_DESTROYED`) when
        there was one: a reference is never used twice.
        """
        ...

    async def create_many(self, references: Sequence[str]) -> None:
        """Make some hundred new random keys, for less than one by one.

        They are safe on the disk when this returns. Raises as `create`; then some of them may have been made.
        """
        ...

    async def bring(self, reference: str, key: Secret[bytes]) -> None:
        """Take an imported key of 32 bytes. Raises as `create`."""
        ...

    async def disable(self, reference: str) -> None:
        """Nothing is wrapped or opened with it until it is enabled.

        Raises errors.NotFound (`KEY_NOT_FOUND`), and errors.Conflict (`KEY_DESTROYED`).
        """
        ...

    async def enable(self, reference: str) -> None:
        """Let it be used again. Raises as `disable`."""
        ...

    async def destroy(self, reference: str) -> None:
        """End it for good: what it wrapped never opens again. Once more does nothing.

        Raises errors.NotFound (`KEY_NOT_FOUND`) for a key that never was.
        """
        ...
