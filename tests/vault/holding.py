"""A holder as customers run them, that does what a test tells it: it is away, slow, disabled, or answers nonsense."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.kernel.secret import Secret
from strongroom.vault.holders.contract import HeldKey, HeldState, KeyUnavailable, Reason, wrapped_key_broken


@dataclass
class Elsewhere:
    """Keys by reference, each a cipher; `wrong` is what is the matter now."""

    name: str = "hsm"
    keys: dict[str, AESGCM] = field(default_factory=dict)
    wrong: Reason | None = None
    delay_s: float = 0.0
    gate: asyncio.Event | None = None
    """Whoever asks waits for it."""
    garbage: bytes | None = None
    asked: int = 0

    def add(self, name: str) -> str:
        """A new key's reference, which no other test has."""
        reference = f"{name}-{os.urandom(8).hex()}"
        self.replace(reference)
        return reference

    def replace(self, reference: str) -> None:
        """Another key under the same name."""
        self.keys[reference] = AESGCM(os.urandom(32))

    async def wrap(self, reference: str, key: Secret[bytes], context: bytes) -> bytes:
        cipher = await self._key(reference)
        nonce = os.urandom(12)
        return nonce + cipher.encrypt(nonce, key.reveal(), context)

    async def unwrap(self, reference: str, wrapped: bytes, context: bytes) -> Secret[bytes]:
        cipher = await self._key(reference)
        if self.garbage is not None:
            return Secret(self.garbage)
        try:
            return Secret(cipher.decrypt(wrapped[:12], wrapped[12:], context))
        except InvalidTag:
            raise wrapped_key_broken(self.name) from None

    async def describe(self, reference: str) -> HeldKey:
        state = HeldState.ENABLED if reference in self.keys else HeldState.GONE
        return HeldKey(reference=reference, algorithm="AES-256", is_extractable=False, state=state)

    async def close(self) -> None:
        self.keys.clear()

    async def _key(self, reference: str) -> AESGCM:
        self.asked += 1
        await asyncio.sleep(self.delay_s)
        if self.gate is not None:
            await self.gate.wait()
        if self.wrong is not None:
            raise KeyUnavailable(self.name, self.wrong)
        if reference not in self.keys:
            raise KeyUnavailable(self.name, Reason.GONE)
        return self.keys[reference]
