"""A holder over the network: the transit engine of OpenBao, or of HashiCorp Vault, which speaks the same.

The key is an `aes256-gcm96` key of the engine, named by its name there. The engine encrypts with the context as
associated data (`associated_data`) and says `vault:v1:…`, which is the wrapped key; it keeps old versions when the key
is rotated there. What is needed of its policies: `update` on `encrypt/NAME` and `decrypt/NAME`, `read` on `keys/NAME`.
Not `create`: the engine would make a key for any name, so it is asked for the key before anything is wrapped.

The token is read from its file whenever that changes, so an agent may renew it there.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from strongroom.kernel.errors import Failure, Invalid
from strongroom.kernel.secret import Secret
from strongroom.outbound import Destination, Limits, NoAnswer, NotSent, Outbound
from strongroom.vault.holders import _files
from strongroom.vault.holders.contract import (
    KEY_BYTES,
    MAX_CONTEXT_BYTES,
    MAX_WRAPPED_BYTES,
    HeldKey,
    HeldState,
    KeyUnavailable,
    Reason,
    wrapped_key_broken,
)

ALGORITHM: Final = "aes256-gcm96"
CONNECTIONS: Final = 8
MAX_ANSWER_BYTES: Final = 1 << 16
_NAME: Final = re.compile(r"\w(?:[\w.-]{0,126}\w)?", re.ASCII)
_MIN_WRAPPED: Final = KEY_BYTES


class TransitHolder:
    """Keys in a transit engine; implements `contract.Holder`."""

    def __init__(
        self,
        name: str,
        *,
        url: str,
        mount: str,
        token_file: Path,
        limit_s: float,
        ca_file: Path | None = None,
        namespace: str | None = None,
        private: bool = False,
    ) -> None:
        """The engine mounted at `mount` of the server at `url` (https), with the token in a file of mode 0600.

        The server's certificate is verified against `ca_file`, or the system's authorities. With `private` the server
        may be in a private network, or on this machine. A call takes `limit_s` seconds at most.
        """
        parts = urlsplit(url)
        destination = Destination(
            host=parts.hostname or "", port=parts.port or 443, loopback_ok=private, private_ok=private
        )
        self._name = name
        self._base = f"{url.rstrip('/')}/v1/{mount.strip('/')}"
        self._namespace = namespace
        self._token_file = token_file
        self._token: tuple[_files.Stamp | None, str] = (None, "")
        limits = Limits(
            connect_s=limit_s,
            idle_s=limit_s,
            total_s=limit_s,
            answer_bytes=MAX_ANSWER_BYTES,
            connections=CONNECTIONS,
        )
        self._outbound = Outbound(allowed=[destination], trust=ca_file, limits=limits)

    @property
    def name(self) -> str:
        """See `contract.Holder.name`."""
        return self._name

    async def wrap(self, reference: str, key: Secret[bytes], context: bytes) -> bytes:
        """See `contract.Holder.wrap`."""
        if len(key.reveal()) != KEY_BYTES or len(context) > MAX_CONTEXT_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, a context at most {MAX_CONTEXT_BYTES}")
        name = _key_name(reference)
        await self._usable(name)
        body = {"plaintext": _base64(key.reveal()), "associated_data": _base64(context)}
        try:
            wrapped = str((await self._ask("POST", f"encrypt/{name}", body)).get("ciphertext", "")).encode()
        except (_RefusedError, _MissingError):
            raise KeyUnavailable(self._name, Reason.NONSENSE, "it doesn't encrypt with this key") from None
        if not _MIN_WRAPPED < len(wrapped) <= MAX_WRAPPED_BYTES:
            raise KeyUnavailable(self._name, Reason.NONSENSE, f"{len(wrapped)} bytes for a wrapped key")
        return wrapped

    async def unwrap(self, reference: str, wrapped: bytes, context: bytes) -> Secret[bytes]:
        """See `contract.Holder.unwrap`."""
        name = _key_name(reference)
        if not _MIN_WRAPPED < len(wrapped) <= MAX_WRAPPED_BYTES or not wrapped.isascii():
            raise wrapped_key_broken(self._name)
        body = {"ciphertext": wrapped.decode(), "associated_data": _base64(context)}
        try:
            plain = (await self._ask("POST", f"decrypt/{name}", body)).get("plaintext", "")
        except (_RefusedError, _MissingError):
            # The engine says 400 for a key that isn't there as well, and for one that it has put aside.
            await self._usable(name)
            raise wrapped_key_broken(self._name) from None
        try:
            key = base64.b64decode(str(plain), validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise KeyUnavailable(self._name, Reason.NONSENSE, f"{len(key)} bytes for a key")
        return Secret(key)

    async def describe(self, reference: str) -> HeldKey:
        """See `contract.Holder.describe`."""
        about = await self._about(_key_name(reference))
        if about is None:
            return HeldKey(reference=reference, algorithm="", is_extractable=False, state=HeldState.GONE)
        kind = str(about.get("type", ""))
        return HeldKey(
            reference=reference,
            algorithm="AES-256" if kind == ALGORITHM else kind,
            is_extractable=about.get("exportable") is not False or about.get("allow_plaintext_backup") is not False,
            state=HeldState.DISABLED if about.get("soft_deleted") else HeldState.ENABLED,
        )

    async def close(self) -> None:
        """See `contract.Holder.close`."""
        await self._outbound.aclose()

    async def _usable(self, name: str) -> None:
        about = await self._about(name)
        if about is None:
            raise KeyUnavailable(self._name, Reason.GONE)
        if about.get("type") != ALGORITHM:
            raise KeyUnavailable(self._name, Reason.UNFIT)
        if about.get("soft_deleted"):
            raise KeyUnavailable(self._name, Reason.DISABLED, "it is soft-deleted")

    async def _about(self, name: str) -> dict[str, Any] | None:
        """What the engine says of a key; None when there is none."""
        try:
            return await self._ask("GET", f"keys/{name}")
        except _MissingError:
            return None

    async def _ask(self, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        """The `data` of an answer. Raises KeyUnavailable, and for 400 and 404 the two errors below."""
        headers = {"x-vault-token": self._read_token(), "x-vault-request": "true"}
        if self._namespace is not None:
            headers["x-vault-namespace"] = self._namespace
        try:
            answer = await self._outbound.request(
                method, f"{self._base}/{path}", headers=headers, body=b"" if body is None else msgspec.json.encode(body)
            )
        except NoAnswer as error:
            reason = Reason.SLOW if error.code == "OUTBOUND_ANSWER_LATE" else Reason.NONSENSE
            raise KeyUnavailable(self._name, reason, error.failures[0].message) from None
        except NotSent as error:
            raise KeyUnavailable(self._name, Reason.AWAY, error.failures[0].message) from None
        match answer.status:
            case 400:
                raise _RefusedError
            case 403:
                raise KeyUnavailable(self._name, Reason.DENIED, "the token isn't valid, or its policies lack a path")
            case 404 if _is_missing_key(answer.body):
                raise _MissingError
            case 429:
                raise KeyUnavailable(self._name, Reason.THROTTLED)
            case 200:
                return self._data(answer.body)
        raise KeyUnavailable(self._name, Reason.AWAY, f"status {answer.status}")

    def _data(self, body: bytes) -> dict[str, Any]:
        try:
            data = msgspec.json.decode(body, type=dict[str, Any]).get("data")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            data = None
        if not isinstance(data, dict):
            raise KeyUnavailable(self._name, Reason.NONSENSE)
        return data

    def _read_token(self) -> str:
        stamp = _files.stamp(self._token_file)
        if stamp is None:
            raise KeyUnavailable(self._name, Reason.DENIED, f"there is no file {self._token_file}")
        if stamp != self._token[0]:
            content, stamp = _files.read(self._token_file)
            self._token = (stamp, content.decode("ascii", errors="replace").strip())
        return self._token[1]


class _RefusedError(Exception):
    """Status 400: the engine can't do that with this key."""


class _MissingError(Exception):
    """Status 404."""


def _is_missing_key(body: bytes) -> bool:
    """Whether a 404 is about a key. A path that leads nowhere, such as a wrong mount, is explained in `errors`."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any]).get("errors") == []
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


def _key_name(reference: str) -> str:
    if not _NAME.fullmatch(reference) or ".." in reference:
        raise Invalid(
            Failure(
                "KEY_REFERENCE_INVALID",
                "A key in a transit engine is called by its name, 1 to 128 of a-z A-Z 0-9 _ . -",
            )
        )
    return reference


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
