"""A holder behind PKCS#11: a hardware security module, or a token.

The key is an AES-256 secret key in the token, found by its label, which is the reference. It is the token that encrypts
(CKM_AES_GCM, PKCS #11 v2.40 mechanisms, section 2.12.3) with the context as associated data; the key's value doesn't
leave it (CKA_SENSITIVE, and CKA_EXTRACTABLE false, as `describe` tells). Somebody who takes away CKA_ENCRYPT or
CKA_DECRYPT, or destroys the key, is obeyed at the next use.

Wrapped keys: one byte `0x01`, the 96-bit nonce, the encrypted key with its 128-bit tag: 61 bytes. Associated data: that
byte and the context.

Each holder talks to its token through a process of its own (see `_token`), one request at a time. A call that takes too
long has that process killed; so a token that hangs stalls nobody but those who need it, for no longer than the limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from strongroom.kernel.errors import Failure, Invalid
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import _files
from strongroom.vault.holders.contract import (
    KEY_BYTES,
    MAX_CONTEXT_BYTES,
    HeldKey,
    HeldState,
    KeyUnavailable,
    Reason,
    wrapped_key_broken,
)

MAX_LABEL_BYTES: Final = 255
MAX_WAITING: Final = 100
"""Calls at once, of which one is under way; more are refused at once."""
PAUSE_S: Final = 0.5
"""After a call that took too long, or its process's death, a token is left alone for so long; calls fail meanwhile."""
CLOSING_S: Final = 1.0
_WRAPPED_BYTES: Final = 1 + 12 + KEY_BYTES + 16
_MAX_ANSWER_BYTES: Final = 1 << 16
_PROGRAM: Final = Path(__file__).with_name("_token.py")


class Pkcs11Holder:
    """Keys in one token; implements `contract.Holder`."""

    def __init__(self, name: str, *, module: Path, token: str, pin_file: Path, limit_s: float) -> None:
        """The token labelled `token`, through the library `module`, with the PIN in a file of mode 0600.

        A call takes `limit_s` seconds at most, waiting for others included. A PIN that the token refuses is not tried
        again, by any process, until its file changes.
        """
        self._name = name
        self._module = module
        self._token = token
        self._pin_file = pin_file
        self._limit_s = limit_s
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._child: asyncio.subprocess.Process | None = None
        self._pin_stamp: _files.Stamp | None = None
        self._paused_until = 0.0
        self._paused_for = Reason.AWAY
        self._is_closed = False

    @property
    def name(self) -> str:
        """See `contract.Holder.name`."""
        return self._name

    async def wrap(self, reference: str, key: Secret[bytes], context: bytes) -> bytes:
        """See `contract.Holder.wrap`."""
        if len(key.reveal()) != KEY_BYTES or len(context) > MAX_CONTEXT_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, a context at most {MAX_CONTEXT_BYTES}")
        wrapped = await self._bytes("wrap", reference, key.reveal(), context)
        if len(wrapped) != _WRAPPED_BYTES:
            raise KeyUnavailable(self._name, Reason.NONSENSE, f"{len(wrapped)} bytes for a wrapped key")
        return wrapped

    async def unwrap(self, reference: str, wrapped: bytes, context: bytes) -> Secret[bytes]:
        """See `contract.Holder.unwrap`."""
        if len(wrapped) != _WRAPPED_BYTES:
            raise wrapped_key_broken(self._name)
        key = await self._bytes("unwrap", reference, wrapped, context)
        if len(key) != KEY_BYTES:
            raise KeyUnavailable(self._name, Reason.NONSENSE, f"{len(key)} bytes for a key")
        return Secret(key)

    async def describe(self, reference: str) -> HeldKey:
        """See `contract.Holder.describe`."""
        key = (await self._ask({"do": "describe", "reference": self._label(reference)})).get("key")
        if key is None:
            return HeldKey(reference=reference, algorithm="", is_extractable=False, state=HeldState.GONE)
        return HeldKey(
            reference=reference,
            algorithm=key["algorithm"],
            is_extractable=key["extractable"],
            state=HeldState.ENABLED if key["usable"] else HeldState.DISABLED,
        )

    async def close(self) -> None:
        """See `contract.Holder.close`."""
        self._is_closed = True
        child = self._end_child()
        if child is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), CLOSING_S)

    async def _bytes(self, do: str, reference: str, content: bytes, context: bytes) -> bytes:
        request = {"do": do, "reference": self._label(reference), "bytes": content, "context": context}
        found: bytes = (await self._ask(request)).get("bytes", b"")
        return found

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer of the token's process, within the limit."""
        if self._waiting >= MAX_WAITING:
            raise KeyUnavailable(self._name, Reason.SLOW, "too many calls wait for it")
        self._waiting += 1
        is_our_turn = False
        try:
            async with asyncio.timeout(self._limit_s), self._turn:
                is_our_turn = True
                answer = await self._exchange(request)
        except TimeoutError:
            if is_our_turn:
                self._pause(Reason.SLOW)
            raise KeyUnavailable(self._name, Reason.SLOW) from None
        finally:
            self._waiting -= 1
        reason = answer.get("reason")
        if reason == "BROKEN":
            raise wrapped_key_broken(self._name)
        if reason is not None:
            raise KeyUnavailable(self._name, Reason(reason), answer.get("detail", ""))
        return answer

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        if time.monotonic() < self._paused_until:
            raise KeyUnavailable(self._name, self._paused_for, "it is left alone for a moment")
        try:
            child = await self._ready()
            assert child.stdin is not None and child.stdout is not None  # noqa: S101  both are pipes
            child.stdin.write(_framed(request))
            await child.stdin.drain()
            size = int.from_bytes(await child.stdout.readexactly(4), "big")
            if size > _MAX_ANSWER_BYTES:
                raise KeyUnavailable(self._name, Reason.NONSENSE)
            answer = msgspec.msgpack.decode(await child.stdout.readexactly(size), type=dict[str, Any])
        except (OSError, asyncio.IncompleteReadError, msgspec.MsgspecError):
            self._end_child()
            self._pause(Reason.AWAY)
            raise KeyUnavailable(self._name, Reason.AWAY, "its library failed") from None
        except BaseException:
            # Out of time, or nobody waits any more: an answer may come late, and it would be taken for the next one.
            self._end_child()
            raise
        return answer

    async def _ready(self) -> asyncio.subprocess.Process:
        """The token's process, started when there is none or the PIN's file has changed."""
        if self._is_closed:
            raise KeyUnavailable(self._name, Reason.AWAY, "it is closed")
        stamp = _files.stamp(self._pin_file)
        if self._child is not None and self._child.returncode is None and stamp == self._pin_stamp:
            return self._child
        self._end_child()
        try:
            content, self._pin_stamp = _files.read(self._pin_file)
        except FileNotFoundError:
            raise KeyUnavailable(self._name, Reason.DENIED, f"there is no file {self._pin_file}") from None
        settings = {
            "module": str(self._module),
            "token": self._token,
            "pin": content.decode(errors="replace").strip(),
            "pin_stamp": " ".join(map(str, self._pin_stamp)),
            "refused": str(self._pin_file.with_name(f".{self._pin_file.name}.refused")),
        }
        pipe = asyncio.subprocess.PIPE
        self._child = child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", str(_PROGRAM), stdin=pipe, stdout=pipe
        )
        assert child.stdin is not None  # noqa: S101  it is a pipe
        child.stdin.write(_framed(settings))
        return child

    def _pause(self, reason: Reason) -> None:
        self._paused_until = time.monotonic() + PAUSE_S
        self._paused_for = reason

    def _end_child(self) -> asyncio.subprocess.Process | None:
        """Kill the token's process. One that hangs in its driver may take its time, and is not waited for."""
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        return child

    def _label(self, reference: str) -> str:
        if not reference or len(reference.encode()) > MAX_LABEL_BYTES or not reference.isprintable():
            raise Invalid(
                Failure(
                    "KEY_REFERENCE_INVALID",
                    "A key in a token is called by its label, 1 to {most} bytes that can be printed.",
                    {"most": MAX_LABEL_BYTES},
                )
            )
        return reference


def _framed(content: dict[str, Any]) -> bytes:
    encoded = msgspec.msgpack.encode(content)
    return len(encoded).to_bytes(4, "big") + encoded
