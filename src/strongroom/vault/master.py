"""The installation's master key, held in a file that only its owner may read. It wraps data keys and nothing else."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final, Literal
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Broken, Failure
from strongroom.kernel.secret import Secret

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
Purpose = Literal["seal", "index"]


class MasterKey:
    """AES-256-GCM key that wraps the data keys of one environment."""

    def __init__(self, key: Secret[bytes], environment: Environment) -> None:
        if len(key.reveal()) != KEY_BYTES:
            raise ValueError(f"a master key has {KEY_BYTES} bytes")
        self._cipher = AESGCM(key.reveal())
        self._environment = environment

    def wrap(self, key: Secret[bytes], *, scope: UUID, purpose: Purpose, version: int) -> bytes:
        """The key, encrypted and bound to its environment, scope, purpose and version."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key.reveal(), self._context(scope, purpose, version))

    def unwrap(self, wrapped: bytes, *, scope: UUID, purpose: Purpose, version: int) -> Secret[bytes]:
        """The key again.

        Raises errors.Broken (`DATA_KEY_BROKEN`) when it was altered, or wrapped elsewhere or for something else.
        """
        try:
            plain = self._cipher.decrypt(
                wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], self._context(scope, purpose, version)
            )
        except InvalidTag:
            raise Broken(
                Failure(
                    "DATA_KEY_BROKEN",
                    "A data key does not open under this installation's master key: it was altered, or it belongs to "
                    "another installation or tenant. Restore the master key file that it was made with.",
                )
            ) from None
        return Secret(plain)

    def _context(self, scope: UUID, purpose: Purpose, version: int) -> bytes:
        return b"\0".join(
            (
                b"strongroom data key",
                self._environment.encode(),
                scope.bytes,
                purpose.encode(),
                version.to_bytes(4, "big"),
            )
        )


def load_or_make_master_key(path: Path, environment: Environment) -> MasterKey:
    """Read the key file; make it (32 random bytes, mode 0600) when there is none.

    Raises errors.Broken (`MASTER_KEY_UNSAFE`, `MASTER_KEY_BROKEN`) when others may read it or its size is wrong.
    """
    return MasterKey(Secret(read_or_make_secret(path, KEY_BYTES)), environment)


def read_or_make_secret(path: Path, size: int) -> bytes:
    """The `size` random bytes kept in a file of mode 0600, made on first use (safely when several processes start)."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(size))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    mode = path.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Broken(
            Failure("MASTER_KEY_UNSAFE", "{path} can be read by others. Run: chmod 600 {path}", {"path": str(path)})
        )
    content = path.read_bytes()
    if len(content) != size:
        raise Broken(
            Failure(
                "MASTER_KEY_BROKEN",
                "{path} holds {found} bytes instead of {size}. Restore it from your backup of the keys.",
                {"path": str(path), "found": len(content), "size": size},
            )
        )
    return content
