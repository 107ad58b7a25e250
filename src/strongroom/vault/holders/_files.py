"""Files that hold keys: whole or not there, readable by their owner alone, changed by one process at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Final

from strongroom.kernel.errors import Broken, Failure, Unavailable

MAX_FILE_BYTES: Final = 1 << 20
LOCK_WAIT_S: Final = 10.0
"""How long a change waits for another process's change to end."""
_LOCK_PAUSE_S: Final = 0.02
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
Stamp = tuple[int, int, int, int]
"""What tells one version of a file from the next: inode, size, and both times in nanoseconds."""


def stamp(path: Path) -> Stamp | None:
    """Which version of the file is there; None when there is none. 1 µs."""
    try:
        found = os.stat(path)  # noqa: PTH116  Path.stat takes twice as long, and this is asked at every use of a key
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read(path: Path) -> tuple[bytes, Stamp]:
    """A file's content and its version.

    Raises FileNotFoundError, and errors.Broken (`KEY_FILE_UNSAFE`, `KEY_FILE_BROKEN`) when others may read it, or it is
    larger than any key file.
    """
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if found.st_mode & _OTHERS:
            raise Broken(
                Failure("KEY_FILE_UNSAFE", "{path} can be read by others. Run: chmod 600 {path}", {"path": str(path)})
            )
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise broken(path, "it is too large")
    return content, (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def put(path: Path, content: bytes, *, shred_old: bool = False) -> None:
    """Replace a file, or make it: after a crash it is there whole, as it was or as it shall be.

    With `shred_old` what it held is overwritten afterwards; whoever reads it at that moment finds it damaged.

    Raises errors.Unavailable (`KEY_FILE_NOT_WRITTEN`) when the disk doesn't take it; then nothing was changed.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        old = path.open("r+b", buffering=0) if shred_old and path.exists() else None
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            sync_folder(path.parent)
            if old is not None:
                _overwrite(old)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        finally:
            if old is not None:
                old.close()
    except OSError as error:
        raise _not_written(path, error) from error


def put_many(contents: Mapping[Path, bytes]) -> None:
    """Replace or make many files of one folder, for little more than what one costs: they go to the disk together.

    After a crash each is there whole, as it was or as it shall be.

    Raises errors.Unavailable (`KEY_FILE_NOT_WRITTEN`) when the disk doesn't take them; then nothing was changed, unless
    it is their names that it doesn't take.
    """
    fresh = {path: path.with_name(f".{path.name}.{secrets.token_hex(8)}") for path in contents}
    folder = next((path.parent for path in contents), None)
    if folder is None:
        return
    try:
        with ExitStack() as opened:
            files = []
            for path, content in contents.items():
                handle = os.open(fresh[path], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                file = opened.enter_context(os.fdopen(handle, "wb"))
                file.write(content)
                file.flush()
                files.append(file)
            for file in files:
                os.fsync(file.fileno())
        for path, made in fresh.items():
            made.replace(path)
        sync_folder(folder)
    except OSError as error:
        for made in fresh.values():
            made.unlink(missing_ok=True)
        raise _not_written(folder, error) from error


def shred(path: Path) -> None:
    """Overwrite a file and remove it, with copies that a change cut short may have left beside it.

    Where the storage keeps old blocks (flash, snapshots), what remains there is still wrapped under the root key.
    """
    for found in (path, *path.parent.glob(f".{path.name}.*")):
        if not found.exists():
            continue
        with found.open("r+b", buffering=0) as file:
            _overwrite(file)
        found.unlink()
    sync_folder(path.parent)


def _overwrite(file: FileIO) -> None:
    file.write(os.urandom(os.fstat(file.fileno()).st_size))
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make what was renamed or removed in a folder survive a crash."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process (and one thread) changes the keys of a folder at a time. The lock goes with its process.

    Raises errors.Unavailable (`KEYS_IN_USE`) when another change doesn't end.
    """
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable(
                        Failure(
                            "KEYS_IN_USE",
                            "Another process has been changing the keys in {path} for too long. Nothing was changed.",
                            {"path": str(folder)},
                        )
                    ) from None
                time.sleep(_LOCK_PAUSE_S)
        yield
    finally:
        os.close(handle)


def _not_written(path: Path, error: OSError) -> Unavailable:
    return Unavailable(
        Failure(
            "KEY_FILE_NOT_WRITTEN",
            "{path} can't be written ({reason}). Nothing was changed; make room or mend the disk, and do it again.",
            {"path": str(path), "reason": error.strerror or type(error).__name__},
        )
    )


def broken(path: Path, why: str) -> Broken:
    """The error for a key file that isn't what was written."""
    return Broken(
        Failure(
            "KEY_FILE_BROKEN",
            "{path} is damaged: {why}. Restore it from your backup of the keys.",
            {"path": str(path), "why": why},
        )
    )
