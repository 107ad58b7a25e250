"""Persons' secrets: 32 random bytes for each customer, in files outside the database and its backups.

Below `persons/REGION` in the folder of the keys are *blocks* of 4,096 secrets, made and on disk before the first of
them is used, so that a new customer costs no write of its own. A person is the number of their secret: its block and
its place in it. In a block stand first 64 bytes that say which *runs* of 64 secrets have been handed out, then the
secrets, 64 bytes each: a random 96-bit nonce, the secret encrypted with AES-256-GCM (NIST SP 800-38D) under the
region's kept key, the 128-bit tag, 4 zero bytes. Associated data: environment, region and number.

To destroy a secret is to overwrite it where it stands. Whoever uses one reads its place again first, so all processes
know at their next use.

Runs are counted by the region's database. One that is restored from a backup counts again from where it was; the marks
in the blocks see to it that no secret is handed out a second time.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.kernel.errors import Broken, Failure, Unavailable
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import _files
from strongroom.vault.holders.contract import KEY_BYTES, KeyUnavailable, Reason
from strongroom.vault.holders.root import NONCE_BYTES

RUN: Final = 64
"""So many secrets are handed out to a process at once."""
RUNS: Final = 64
"""In a block."""
BLOCK: Final = RUN * RUNS
"""Secrets in a block."""
SLOT_BYTES: Final = 64
_TAG_BYTES: Final = 16
_SEALED_BYTES: Final = NONCE_BYTES + KEY_BYTES + _TAG_BYTES
_REST: Final = bytes(SLOT_BYTES - _SEALED_BYTES)
_DESTROYED: Final = b"destroyed".ljust(SLOT_BYTES, b"\0")
_FREE, _TAKEN = b"\0", b"\1"
_NAME: Final = "file"


class PersonSecrets:
    """The secrets of one region; any number of processes share the files."""

    def __init__(
        self, folder: Path, *, bound: bytes, cipher: Callable[[], AESGCM], make_key: Callable[[], None]
    ) -> None:
        """`cipher` is the kept key that they are under, which `make_key` makes unless it is there.

        `bound` says whose they are (environment and region).
        """
        self._folder = folder
        self._bound = b"strongroom person\0" + bound + b"\0"
        self._cipher = cipher
        self._make_key = make_key
        self._paths: dict[int, Path] = {}
        self.spare: deque[int] = deque()
        """Persons taken by this process whom nobody is yet."""
        _taking.add(self)

    def find(self, person: int) -> Secret[bytes] | None:
        """A person's secret, as the file has it now; None when it was destroyed. Raises as `read` and `open`."""
        kept = self.read(person)
        return None if kept is None else self.open(person, kept)

    def read(self, person: int) -> bytes | None:
        """See `envelopes.Persons.read`: the place in the file, 64 bytes.

        Raises errors.Unavailable (`KEY_UNAVAILABLE`) when the file isn't there, and errors.Broken (`KEY_FILE_UNSAFE`).
        """
        block, at = divmod(person, BLOCK)
        path = self._path(block)
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise _away(path) from None
        try:
            if os.fstat(handle).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise Broken(
                    Failure(
                        "KEY_FILE_UNSAFE", "{path} can be read by others. Run: chmod 600 {path}", {"path": str(path)}
                    )
                )
            slot = os.pread(handle, SLOT_BYTES, _start(at))
        finally:
            os.close(handle)
        return None if slot == _DESTROYED else slot

    def open(self, person: int, kept: bytes) -> Secret[bytes]:
        """See `envelopes.Persons.open`.

        Raises errors.Unavailable (`KEY_UNAVAILABLE`) when the key that it is under can't be used, and errors.Broken
        (`KEY_FILE_BROKEN`).
        """
        try:
            secret = self._cipher().decrypt(kept[:NONCE_BYTES], kept[NONCE_BYTES:_SEALED_BYTES], self._context(person))
        except (InvalidTag, ValueError):
            raise _files.broken(self._path(person // BLOCK), f"secret {person} was altered") from None
        return Secret(secret)

    def take(self, runs: Collection[int]) -> list[int]:
        """The persons of these runs, who are nobody's yet, their secrets on disk; those handed out before are left out.

        No two callers may ask for the same run at the same time; the region's database counts them. Blocks.

        Raises errors.Unavailable (`KEY_FILE_NOT_WRITTEN`, `KEYS_IN_USE`, `KEY_UNAVAILABLE`).
        """
        taken: list[int] = []
        for block, places in _grouped(runs, RUNS).items():
            path = self._path(block)
            if not path.exists():
                self._make(path, block)
            with _changing(path) as handle:
                free = [at for at in places if os.pread(handle, 1, at) == _FREE]
                for at in free:
                    os.pwrite(handle, _TAKEN, at)
                os.fsync(handle)
            for at in free:
                start = block * BLOCK + at * RUN
                taken += range(start, start + RUN)
        return taken

    def destroy(self, persons: Collection[int]) -> None:
        """Overwrite these persons' secrets, for good; on disk when this returns. Once more does nothing. Blocks.

        Where the storage keeps old blocks (flash, snapshots), what remains there is still under the kept key.

        Raises errors.Unavailable (`KEY_UNAVAILABLE`, `KEY_FILE_NOT_WRITTEN`); then do it again.
        """
        for block, places in _grouped(persons, BLOCK).items():
            path = self._path(block)
            if not path.exists():
                raise _away(path)
            with _changing(path) as handle:
                for at in places:
                    os.pwrite(handle, _DESTROYED, _start(at))
                os.fsync(handle)
                if any(os.pread(handle, SLOT_BYTES, _start(at)) != _DESTROYED for at in places):
                    raise OSError("what is read is not what was written")

    def _make(self, path: Path, block: int) -> None:
        """Put a block of fresh secrets there, unless another process has."""
        for folder in (self._folder.parent, self._folder):
            folder.mkdir(exist_ok=True, mode=0o700)
            _files.sync_folder(folder.parent)
        with _files.locked(self._folder):
            if path.exists():
                return
            self._make_key()
            cipher = self._cipher()
            slots = []
            for person in range(block * BLOCK, (block + 1) * BLOCK):
                nonce = os.urandom(NONCE_BYTES)
                slots.append(nonce + cipher.encrypt(nonce, os.urandom(KEY_BYTES), self._context(person)) + _REST)
            _files.put(path, _FREE * RUNS + b"".join(slots))

    def _path(self, block: int) -> Path:
        """The file of a block; remembered, for making a path takes longer than reading a secret."""
        path = self._paths.get(block)
        if path is None:
            path = self._paths[block] = self._folder / f"{block:08d}.secrets"
        return path

    def _context(self, person: int) -> bytes:
        return self._bound + person.to_bytes(8, "big")


def _away(path: Path) -> KeyUnavailable:
    return KeyUnavailable(_NAME, Reason.AWAY, f"{path.name} isn't there: restore it from the backup of the keys")


_taking: Final[weakref.WeakSet[PersonSecrets]] = weakref.WeakSet()


def _take_anew() -> None:
    for secrets in _taking:
        secrets.spare.clear()


# A forked child would hand out what its parent does.
os.register_at_fork(after_in_child=_take_anew)


def _grouped(numbers: Collection[int], size: int) -> dict[int, list[int]]:
    """Numbers by block, as places in it."""
    found: dict[int, list[int]] = {}
    for block, at in sorted(divmod(number, size) for number in numbers):
        found.setdefault(block, []).append(at)
    return found


def _start(at: int) -> int:
    """Where in its file a secret begins."""
    return RUNS + at * SLOT_BYTES


@contextmanager
def _changing(path: Path) -> Iterator[int]:
    """The file, open for a change; what the disk refuses is told plainly."""
    try:
        handle = os.open(path, os.O_RDWR)
        try:
            yield handle
        finally:
            os.close(handle)
    except OSError as error:
        raise Unavailable(
            Failure(
                "KEY_FILE_NOT_WRITTEN",
                "{path} can't be written ({reason}). Make room or mend the disk, and do it again.",
                {"path": str(path), "reason": error.strerror or str(error)},
            )
        ) from error
