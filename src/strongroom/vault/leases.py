"""Leases: for how long a process may use the customer's layer of a scope without asking the key's holder again.

A key can be disabled in its holder without a word to us, so a lease lasts 4 seconds, and is renewed in the background
while its scope is in use. A holder that is away, slow or wrong costs its own scopes alone: it is asked once at a time,
for so long at most, and not again at once after it failed.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from strongroom.kernel.errors import Broken, Failure, StrongroomError, Unavailable
from strongroom.vault.envelopes import LayerCipher
from strongroom.vault.holders.contract import KeyUnavailable, Reason

log = structlog.get_logger(__name__)

LEASE_S: Final = 4.0
"""How long data keys may be used, from when the holder that opened them was asked."""
RENEW_EVERY_S: Final = 1.5
IN_USE_S: Final = 30.0
"""How long after its last operation a scope counts as in use, so that its lease is renewed."""
ANSWER_WITHIN_S: Final = 2.0
"""How long a holder may take to open a scope's data keys. The first time an operation waits for it, no longer."""
FAILED_FOR_S: Final = 1.0
"""How long a failure stands before the holder is asked again."""

Opener = Callable[[], Awaitable[LayerCipher]]


class Lease:
    """The customer's layer of a scope in one process; implements `envelopes.CustomerLayer`."""

    def __init__(self, opener: Opener, *, holder: str, newest: int) -> None:
        """`opener` asks the holder for all data keys of the layer."""
        self.newest = newest
        self._opener = opener
        self._holder = holder
        self._cipher: LayerCipher | None = None
        self._until_s = -math.inf
        self._used_s = time.monotonic()
        self._failed_s = -math.inf
        self._failed: tuple[type[StrongroomError], Sequence[Failure]] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None

    def cipher(self) -> LayerCipher:
        """See `envelopes.CustomerLayer.cipher`."""
        if self._cipher is not None and time.monotonic() < self._until_s:
            return self._cipher
        if self._failed is not None:
            kind, failures = self._failed
            raise kind(*failures)
        raise KeyUnavailable(self._holder, Reason.SLOW)

    def use(self) -> bool:
        """Note that the scope is in use; whether an operation can begin now.

        It can't when the lease is over because nobody used it: then `renew` first. One that has just failed is asked
        for again in the background, so that what doesn't need the key goes on.
        """
        self._used_s = now_s = time.monotonic()
        if now_s < self._until_s:
            return True
        if self._failed is None:
            return False
        if now_s - self._failed_s >= FAILED_FOR_S:
            self._start()
        return True

    async def renew(self) -> None:
        """Ask the holder, or wait for whoever is asking. Never raises for what the holder does: `cipher` tells."""
        await asyncio.shield(self._start())

    async def close(self) -> None:
        """As `end`, and wait until nothing goes on any more."""
        self.end()
        tasks = [task for task in (self._renewal, self._keeping) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def end(self) -> None:
        """Forget the keys at once, and ask for them no more."""
        self._cipher, self._until_s = None, -math.inf
        for task in (self._renewal, self._keeping):
            if task is not None:
                task.cancel()

    def _start(self) -> asyncio.Task[None]:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())
        return self._renewal

    async def _renew(self) -> None:
        asked_s = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                cipher = await self._opener()
        except (Unavailable, Broken) as error:
            self._fail(error)
        except TimeoutError:
            self._fail(KeyUnavailable(self._holder, Reason.SLOW))
        except Exception:
            # A holder is somebody else's: whatever goes wrong in it is this scope's trouble and nobody else's.
            log.exception("keys.holder_failed", holder=self._holder)
            self._fail(KeyUnavailable(self._holder, Reason.NONSENSE))
        else:
            self._cipher, self._failed = cipher, None
            self._until_s = asked_s + LEASE_S
            if self._keeping is None or self._keeping.done():
                self._keeping = asyncio.create_task(self._keep())

    def _fail(self, error: StrongroomError) -> None:
        if self._failed is None:
            log.warning("keys.unavailable", holder=self._holder, code=error.code, message=str(error))
        kind = Broken if isinstance(error, Broken) else Unavailable
        self._failed, self._failed_s = (kind, error.failures), time.monotonic()
        if isinstance(error, KeyUnavailable) and error.reason in {Reason.DISABLED, Reason.GONE, Reason.DENIED}:
            # Somebody meant it. Anything else may pass within the lease.
            self._cipher, self._until_s = None, -math.inf

    async def _keep(self) -> None:
        """Renew while the scope is in use. Afterwards the keys are forgotten when the lease ends."""
        while time.monotonic() - self._used_s < IN_USE_S:
            await asyncio.sleep(RENEW_EVERY_S)
            await self._start()
        await asyncio.sleep(max(self._until_s - time.monotonic(), 0))
        if time.monotonic() >= self._until_s:
            self._cipher = None


class Shut:
    """The customer's layer of a scope whose key is disabled or destroyed; implements `envelopes.CustomerLayer`."""

    def __init__(self, newest: int, holder: str, reason: Reason, detail: str = "") -> None:
        self.newest = newest
        self._why = (holder, reason, detail)

    def cipher(self) -> LayerCipher:
        """Raises `KeyUnavailable`."""
        raise KeyUnavailable(*self._why)
