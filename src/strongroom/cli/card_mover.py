"""Moving cards with an API key: the card vault's public door, and the folder that holds the parts in between."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from strongroom.assembly import Installation
from strongroom.cli.client import Client, Key, refusal_of
from strongroom.identity.certificates import write_private
from strongroom.kernel.errors import Conflict, Failure, Invalid, NotFound, Refused
from strongroom.kernel.secret import Secret
from strongroom.outbound import Destination, Limits, Outbound

_LIMITS: Final = Limits(idle_s=60.0, total_s=120.0, answer_bytes=1 << 20)
_NAMES: Final = ("accountId", "tenantId", "publicKey", "privateKey")


class Parts:
    """A folder of parts: `part-00001.jwe` and so on, each as it went over."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __len__(self) -> int:
        number = 0
        while self._path(number + 1).exists():
            number += 1
        return number

    def read(self, number: int) -> str:
        """A part, from 1. Raises errors.NotFound (`TRANSFER_PART_NOT_FOUND`)."""
        try:
            return self._path(number).read_text("ascii")
        except (FileNotFoundError, UnicodeDecodeError):
            raise NotFound(
                Failure("TRANSFER_PART_NOT_FOUND", "{path} isn't there.", {"path": str(self._path(number))})
            ) from None

    def write(self, number: int, content: str) -> None:
        """Keep a part, whole or not at all, for its owner alone."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self._path(number), content.encode("ascii"))

    def digest(self) -> str:
        """The chain over all parts: `digest(n) = SHA-256(digest(n-1) + SHA-256(part n))`."""
        chain = b""
        for number in range(1, len(self) + 1):
            chain = hashlib.sha256(chain + hashlib.sha256(self.read(number).encode()).digest()).digest()
        return chain.hex()

    def _path(self, number: int) -> Path:
        return self._folder / f"part-{number:05}.jwe"


class Mover:
    """The transfers of a card vault, as the holder of one API key. Use it as an asynchronous context manager.

    Everything raises as `Client.request`, with what the vault says.
    """

    def __init__(self, served: Installation, key: Key) -> None:
        config = served.config
        host = "127.0.0.1" if config.host in {"0.0.0.0", "::"} else config.host  # noqa: S104  recognised, not bound
        shown = f"[{host}]" if ":" in host else host
        trust = served.ca_file if config.certificate is None else None
        self._api = Client(f"https://{shown}:{config.port}", key, trust=trust)
        self._url = f"https://{shown}:{config.cards_port}/v1/transfers"
        allowed = [Destination(host=host, port=config.cards_port, loopback_ok=True)]
        self._outbound = Outbound(allowed=allowed, trust=trust, limits=_LIMITS)

    async def __aenter__(self) -> Self:
        await self._api.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._outbound.aclose()
        await self._api.__aexit__(kind, error, trace)

    async def get(self, path: str) -> Any:
        """Read something."""
        return await self._ask("GET", path, None)

    async def post(self, path: str, body: object) -> Any:
        """Ask for something to be done."""
        return await self._ask("POST", path, body)

    async def find(self, transfer: UUID) -> Any:
        """How a transfer stands."""
        return await self.get(f"/{transfer}")

    async def fetch(self, transfer: UUID, parts: Parts, progress: Callable[[int], None]) -> Any:
        """Get all parts of an export; those that are in the folder already are compared, not fetched.

        Raises errors.Conflict (`TRANSFER_FOLDER_DIFFERS`) when the folder holds something else.
        """
        number, found = len(parts), await self.find(transfer)
        while found["state"] != "COMPLETED" or number < found["parts"]:
            number += 1
            told = await self.get(f"/{transfer}/parts/{number}")
            parts.write(number, told["content"])
            found = told["transfer"]
            progress(found["count"])
        if parts.digest() != found["digest"]:
            raise Conflict(
                Failure(
                    "TRANSFER_FOLDER_DIFFERS",
                    "The folder holds parts of another export, or one of them was changed. Use an empty folder; the "
                    "parts can be fetched again.",
                )
            )
        return found

    async def send(self, transfer: UUID, parts: Parts, progress: Callable[[int], None]) -> Any:
        """Hand over all parts of an import; those that are there already are left out."""
        found = await self.find(transfer)
        for number in range(found["parts"] + 1, len(parts) + 1):
            found = await self._ask("PUT", f"/{transfer}/parts/{number}", {"content": parts.read(number)})
            progress(number)
        return found

    async def _ask(self, method: str, path: str, body: object) -> Any:
        headers = await self._api.credentials()
        content = b"" if body is None else json.dumps(body).encode()
        answer = await self._outbound.request(method, self._url + path, headers=headers, body=content)
        if answer.status >= 400:
            raise refusal_of(answer, f"{method} {path}")
        return json.loads(answer.body)


def read_key(path: Path) -> Key:
    """An API key out of a file. Raises errors.Refused (`API_KEY_FILE_UNSAFE`, `API_KEY_FILE_INVALID`)."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise Refused(
                    Failure(
                        "API_KEY_FILE_UNSAFE",
                        "{path} can be read by others. Run: chmod 600 {path}",
                        {"path": str(path)},
                    )
                )
            kept = json.load(file)
        account, tenant, public, private = (str(kept[name]) for name in _NAMES)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(
            Failure(
                "API_KEY_FILE_INVALID",
                "{path} can't be used ({reason}). It holds an API key as JSON: {names}.",
                {"path": str(path), "reason": type(error).__name__, "names": ", ".join(_NAMES)},
            )
        ) from error
    return Key(account_id=account, tenant_id=tenant, public_key=public, private_key=Secret(private))


def read_receiver_key(path: Path) -> Any:
    """A public key as JSON. Raises errors.Invalid (`RECEIVER_KEY_INVALID`)."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Invalid(
            Failure(
                "RECEIVER_KEY_INVALID",
                "{path} holds no JSON Web Key ({reason}). The receiver prints theirs with `strongroom cards "
                "receiver-key`.",
                {"path": str(path), "reason": type(error).__name__},
            )
        ) from error


def require_digest(parts: Parts, digest: str) -> None:
    """Raises errors.Conflict (`TRANSFER_FOLDER_DIFFERS`) when the folder isn't what the sender told."""
    if not hmac.compare_digest(parts.digest().encode(), digest.strip().lower().encode()):
        raise Conflict(
            Failure(
                "TRANSFER_FOLDER_DIFFERS",
                "The folder's {count} parts have the digest {found}, not the one that was told. A part is missing, was "
                "changed, or is of another export. Nothing was asked for.",
                {"count": len(parts), "found": parts.digest() or "of nothing"},
            )
        )
