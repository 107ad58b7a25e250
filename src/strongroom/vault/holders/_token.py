"""The process that talks to one PKCS#11 token, for `pkcs11.Pkcs11Holder` and nobody else.

The library of a token runs inside whoever loads it, may hang for minutes, may crash, and may be entered by one thread
only. So it has a process of its own, which can be killed. It reads requests from its standard input and writes answers
to its standard output, MessagePack behind a length of 4 bytes, and ends when its input ends.

Run as a file. It imports nothing of ours, so that it starts in a moment.
"""

from __future__ import annotations

import ctypes
import fcntl
import hmac
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, ObjectClass, TokenFlag

NONCE_BYTES = 12
TAG_BITS = 128
KEY_BYTES = 32
FORMAT = b"\x01"
PR_SET_PDEATHSIG = 1
"""prctl(2): be killed when the parent dies, even if the library hangs and nobody reads the input's end."""
Answer = dict[str, Any]


class CantError(Exception):
    """The request can't be answered; `reason` is one of `contract.Reason`, or `BROKEN`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class Token:
    """One token, with a session in it that is opened when it is needed and opened anew when it is lost."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._module: str = settings["module"]
        self._label: str = settings["token"]
        self._pin: str = settings["pin"]
        self._pin_stamp: str = settings["pin_stamp"]
        self._refused = Path(settings["refused"])
        self._library: Any = None
        self._session: Any = None

    def answer(self, request: dict[str, Any]) -> Answer:
        """What a request comes to. A token that lost us is looked for once more; no request does anything twice."""
        try:
            try:
                return self._do(request)
            except pkcs11.PKCS11Error:
                self._begin_again()
                return self._do(request)
        except CantError as error:
            return {"reason": error.reason, "detail": error.detail}
        except pkcs11.PKCS11Error as error:
            self._session = None
            return {"reason": "AWAY", "detail": f"{type(error).__name__} {error}".strip()}

    def _do(self, request: dict[str, Any]) -> Answer:
        key = self._find(request["reference"])
        if request["do"] == "describe":
            return {"key": None if key is None else _described(key)}
        if key is None:
            raise CantError("GONE")
        if key[Attribute.KEY_TYPE] != KeyType.AES or key[Attribute.VALUE_LEN] != KEY_BYTES:
            raise CantError("UNFIT")
        if not (key[Attribute.ENCRYPT] and key[Attribute.DECRYPT]):
            raise CantError("DISABLED", "the token doesn't let it encrypt and decrypt")
        if request["do"] == "wrap":
            return {"bytes": _wrap(key, request["bytes"], request["context"])}
        return {"bytes": _unwrap(key, request["bytes"], request["context"])}

    def _find(self, reference: str) -> Any:
        """The key of this label. That there is none is believed of a new session alone, as a token may be back."""
        key = self._search(reference)
        if key is None:
            self._begin_again()
            key = self._search(reference)
        return key

    def _search(self, reference: str) -> Any:
        if self._session is None:
            self._open()
        wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: reference}
        found = list(self._session.get_objects(wanted))
        if len(found) > 1:
            raise CantError("NONSENSE", "several keys have this label")
        return found[0] if found else None

    def _begin_again(self) -> None:
        """Forget the session, and have the library look for its tokens anew."""
        self._session = None
        if self._library is not None:
            with suppress(pkcs11.PKCS11Error):
                self._library.finalize()
        self._open()

    def _open(self) -> None:
        try:
            if self._library is None:
                self._library = pkcs11.lib(self._module)
            self._library.initialize()
            token = self._library.get_token(token_label=self._label)
        except pkcs11.MultipleTokensReturned:
            raise CantError("NONSENSE", "several tokens have this label") from None
        except pkcs11.NoSuchToken:
            raise CantError("AWAY", "there is no token of this label") from None
        self._session = self._log_in(token)

    def _log_in(self, token: Any) -> Any:
        """Open a session with the PIN, unless the token refused this very PIN before: it would lock itself."""
        with self._refused.open("a+") as marker:
            fcntl.flock(marker, fcntl.LOCK_EX)
            marker.seek(0)
            if marker.read() == self._pin_stamp:
                raise CantError("DENIED", "it refused the PIN, which isn't tried again until its file changes")
            if token.flags & TokenFlag.USER_PIN_LOCKED:
                raise CantError("DENIED", "its PIN is locked")
            if token.flags & TokenFlag.USER_PIN_FINAL_TRY:
                raise CantError("DENIED", "its PIN has a single try left, which is left to you")
            try:
                session = token.open(user_pin=self._pin)
            except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange):
                marker.truncate(0)
                marker.write(self._pin_stamp)
                raise CantError("DENIED", "it refuses the PIN") from None
            except (pkcs11.PinLocked, pkcs11.PinExpired, pkcs11.UserPinNotInitialized) as error:
                raise CantError("DENIED", type(error).__name__) from None
            marker.truncate(0)
            return session


def _described(key: Any) -> Answer:
    is_aes = key[Attribute.KEY_TYPE] == KeyType.AES
    return {
        "algorithm": f"AES-{key[Attribute.VALUE_LEN] * 8}" if is_aes else str(key[Attribute.KEY_TYPE]),
        "extractable": bool(key[Attribute.EXTRACTABLE]) or not key[Attribute.SENSITIVE],
        "usable": bool(key[Attribute.ENCRYPT] and key[Attribute.DECRYPT]),
    }


def _wrap(key: Any, plain: bytes, context: bytes) -> bytes:
    """Encrypt, and see that it opens again: some tokens take a nonce of their own and say so only in the parameters."""
    params = GCMParams(os.urandom(NONCE_BYTES), FORMAT + context, TAG_BITS)
    sealed: bytes = key.encrypt(plain, mechanism=Mechanism.AES_GCM, mechanism_param=params)
    nonce = bytes(params.nonce)
    try:
        opened = _open(key, nonce, sealed, context)
    except pkcs11.PKCS11Error:
        opened = b""
    if not hmac.compare_digest(opened, plain):
        raise CantError("NONSENSE", "what it encrypts doesn't open again")
    return FORMAT + nonce + sealed


def _unwrap(key: Any, wrapped: bytes, context: bytes) -> bytes:
    """Decrypt. Tokens call a wrong tag all kinds of things; it is one if the key works otherwise."""
    if not wrapped.startswith(FORMAT):
        raise CantError("BROKEN")
    nonce, sealed = wrapped[1 : 1 + NONCE_BYTES], wrapped[1 + NONCE_BYTES :]
    try:
        return _open(key, nonce, sealed, context)
    except pkcs11.PKCS11Error:
        probe = os.urandom(KEY_BYTES)
        _wrap(key, probe, context)
        raise CantError("BROKEN") from None


def _open(key: Any, nonce: bytes, sealed: bytes, context: bytes) -> bytes:
    params = GCMParams(nonce, FORMAT + context, TAG_BITS)
    return bytes(key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=params))


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests, of which the first brings the settings, until there are no more."""
    settings = _read(requests)
    if settings is None:
        return
    token = Token(settings)
    answer: Callable[[dict[str, Any]], Answer] = token.answer
    while (request := _read(requests)) is not None:
        content = msgspec.msgpack.encode(answer(request))
        answers.write(len(content).to_bytes(4, "big") + content)
        answers.flush()


def _read(requests: BinaryIO) -> dict[str, Any] | None:
    head = requests.read(4)
    if len(head) < 4:
        return None
    content: dict[str, Any] = msgspec.msgpack.decode(requests.read(int.from_bytes(head, "big")))
    return content


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with suppress(KeyboardInterrupt, BrokenPipeError):
        serve(sys.stdin.buffer, answers)
