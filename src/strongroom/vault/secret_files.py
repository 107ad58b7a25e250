"""Secrets of the installation itself, in files that only their owner may read."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from strongroom.kernel.errors import Broken, Failure


def read_or_make_secret(path: Path, size: int) -> bytes:
    """The `size` random bytes kept in a file of mode 0600, made on first use (safely when several processes start)."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        fresh = _write_beside(path, os.urandom(size))
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return read_secret(path, size)


def replace_secret(path: Path, content: bytes) -> None:
    """Put a secret into its file, of mode 0600; whoever reads it meanwhile finds the old or the new one, whole."""
    _write_beside(path, content).replace(path)


def read_secret(path: Path, size: int) -> bytes:
    """The `size` bytes of a secret's file.

    Raises errors.Broken (`MASTER_KEY_UNSAFE` when others may read it, `MASTER_KEY_BROKEN` when its size is wrong).
    """
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


def _write_beside(path: Path, content: bytes) -> Path:
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return fresh
