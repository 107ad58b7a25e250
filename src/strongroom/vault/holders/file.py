"""The holder that every installation has: keys in files, wrapped under the root key.

`root` is the root key itself, in `master.key`. Every other reference is a *kept* key: a file of its own below `scope/`,
outside the database, so that no backup of the database ever has it. A kept key's file says in clear what it is and how
it is (JSON); all of that is authenticated together with the key, which is encrypted under the root key with AES-256-GCM
(NIST SP 800-38D). So neither its state nor its name can be changed by hand.

A destroyed key leaves a file `REFERENCE.gone` behind, which wins over a key file that somebody brings back.

Wrapped keys: one byte `0x01`; the root key's version, 4 bytes big-endian (1 for kept keys); a random 96-bit nonce; the
encrypted key of 32 bytes with its 128-bit tag: 65 bytes. Associated data: environment, reference, context and header.
Those of the root key's first time, 60 bytes, begin with the nonce, are of version 1 and have the context alone.

Each use looks whether the file has changed, so what one process does all the others know at their next use.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.kernel.clock import Clock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import AlreadyExists, Broken, Conflict, Failure, Invalid, NotFound
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
from strongroom.vault.holders.passphrase import PLATFORM, RootPlace
from strongroom.vault.holders.persons import PersonSecrets
from strongroom.vault.holders.root import NONCE_BYTES, RootFile, version_in_use

ROOT: Final = "root"
"""The reference of the root key."""
NAME: Final = "file"
_FORMAT: Final = 1
_HEADER_BYTES: Final = 5
_TAG_BYTES: Final = 16
_WRAPPED_BYTES: Final = _HEADER_BYTES + NONCE_BYTES + KEY_BYTES + _TAG_BYTES
_FIRST_WRAPPED_BYTES: Final = NONCE_BYTES + KEY_BYTES + _TAG_BYTES
_REFERENCE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,119}", re.ASCII)
AT_ONCE: Final = 200
"""Kept keys that are wrapped again and written together."""
MAX_LOADED: Final = 10_000
"""Kept keys in memory at once; more than that are read again when they are needed."""
Progress = Callable[[int, int], None]
"""Told how many of how many are done."""


class _Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kept key's file. `sealed` is the key under the root key of version `root`; all else is its associated data."""

    format: Literal["strongroom kept key 1"] = "strongroom kept key 1"
    environment: str
    reference: str
    state: HeldState
    changed_at: str
    root: int
    nonce: bytes = b""
    sealed: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    path: Path
    tombstone: Path
    stamp: _files.Stamp
    file: _Kept
    cipher: AESGCM


class FileHolder:
    """Keys in the folder `keys`; implements `contract.KeyStore`."""

    def __init__(
        self,
        folder: Path,
        environment: Environment,
        clock: Clock,
        passphrase: Secret[str] | None = None,
        *,
        place: RootPlace = PLATFORM,
    ) -> None:
        """Open the folder; make it, and the root key in it, when there is none. Blocks, with a passphrase for long.

        Raises as `root.RootFile`.
        """
        self._folder = folder
        self._environment = environment
        self._clock = clock
        self._root = RootFile(folder / place.file, environment, passphrase)
        self._kept_folder = folder / "scope"
        self._kept_folder.mkdir(exist_ok=True, mode=0o700)
        self._loaded: dict[str, _Loaded] = {}
        self._persons: dict[str, PersonSecrets] = {}
        self._clear_up()

    @property
    def name(self) -> str:
        """See `contract.Holder.name`."""
        return NAME

    async def wrap(self, reference: str, key: Secret[bytes], context: bytes) -> bytes:
        """See `contract.Holder.wrap`."""
        if len(key.reveal()) != KEY_BYTES or len(context) > MAX_CONTEXT_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, a context at most {MAX_CONTEXT_BYTES}")
        if reference == ROOT:
            root = self._root.root
            version, cipher = root.newest, root.ciphers[root.newest]
        else:
            version, cipher = 1, self._usable(reference)
        header = bytes([_FORMAT]) + version.to_bytes(4, "big")
        nonce = os.urandom(NONCE_BYTES)
        return header + nonce + cipher.encrypt(nonce, key.reveal(), self._bound(reference, context, header))

    async def unwrap(self, reference: str, wrapped: bytes, context: bytes) -> Secret[bytes]:
        """See `contract.Holder.unwrap`."""
        header, version = b"", 1
        if len(wrapped) == _WRAPPED_BYTES and wrapped[0] == _FORMAT:
            header, version = wrapped[:_HEADER_BYTES], root_version(wrapped)
            bound = self._bound(reference, context, header)
        elif len(wrapped) == _FIRST_WRAPPED_BYTES and reference == ROOT:
            bound = context
        else:
            raise wrapped_key_broken(NAME)
        cipher = self._root.cipher(version) if reference == ROOT else self._usable(reference)
        if cipher is None:
            raise wrapped_key_broken(NAME)
        rest = wrapped[len(header) :]
        try:
            return Secret(cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], bound))
        except InvalidTag:
            raise wrapped_key_broken(NAME) from None

    async def describe(self, reference: str) -> HeldKey:
        """See `contract.Holder.describe`."""
        state = HeldState.ENABLED
        if reference != ROOT:
            found = self._find(reference)
            state = HeldState.GONE if found is None else found.file.state
        return HeldKey(reference=reference, algorithm="AES-256", is_extractable=True, state=state)

    async def close(self) -> None:
        """See `contract.Holder.close`."""
        self._loaded.clear()

    async def create(self, reference: str) -> None:
        """See `contract.KeyStore.create`."""
        await self.bring(reference, Secret(os.urandom(KEY_BYTES)))

    async def create_many(self, references: Sequence[str]) -> None:
        """See `contract.KeyStore.create_many`."""
        await asyncio.to_thread(self._bring, {reference: Secret(os.urandom(KEY_BYTES)) for reference in references})

    async def bring(self, reference: str, key: Secret[bytes]) -> None:
        """See `contract.KeyStore.bring`."""
        if len(key.reveal()) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        await asyncio.to_thread(self._bring, {reference: key})

    async def disable(self, reference: str) -> None:
        """See `contract.KeyStore.disable`."""
        await asyncio.to_thread(self._change, reference, HeldState.DISABLED)

    async def enable(self, reference: str) -> None:
        """See `contract.KeyStore.enable`."""
        await asyncio.to_thread(self._change, reference, HeldState.ENABLED)

    async def destroy(self, reference: str) -> None:
        """See `contract.KeyStore.destroy`."""
        await asyncio.to_thread(self._destroy, reference)

    async def rotate_root(self) -> int:
        """Make a new version of the root key, which wraps from now on, and return its number.

        What older ones wrapped still opens. Wrap it again (`rewrap_kept` for kept keys; the keyring for what is in the
        database), then `end_root_version`.

        Raises errors.Conflict (`ROOT_ROTATION_UNFINISHED`) while kept keys are under an older version: one rotation at
        a time; and as `RootFile.add_version`.
        """
        return await asyncio.to_thread(self._rotate_root)

    async def rewrap_kept(self, progress: Progress | None = None) -> int:
        """Wrap every kept key under the newest root key, and return how many there were to do.

        May break off anywhere and be called again: what is done stays done. Keys are in use all the while.
        """
        return await asyncio.to_thread(self._rewrap_kept, progress)

    async def end_root_version(self, version: int) -> None:
        """Forget an old version of the root key. What the database has under it must have been wrapped again before.

        Raises errors.Conflict (`ROOT_VERSION_IN_USE`) for the newest, or while a kept key is under it.
        """
        await asyncio.to_thread(self._end_root_version, version)

    async def change_passphrase(self, passphrase: Secret[str] | None) -> None:
        """Protect the root key by another passphrase, or by none.

        Raises errors.Invalid (`PASSPHRASE_TOO_SHORT`).
        """
        await asyncio.to_thread(self._change_passphrase, passphrase)

    def persons(self, region: str) -> PersonSecrets:
        """The secrets of the persons of a region, under a kept key of their own."""
        found = self._persons.get(region)
        if found is not None:
            return found
        reference = f"persons-{region}"

        def make_key() -> None:
            with contextlib.suppress(AlreadyExists):
                self._bring({reference: Secret(os.urandom(KEY_BYTES))})

        found = self._persons[region] = PersonSecrets(
            self._folder / "persons" / region,
            bound=f"{self._environment}\0{region}".encode(),
            cipher=partial(self._usable, reference),
            make_key=make_key,
        )
        return found

    @property
    def is_protected(self) -> bool:
        """Whether the root key's file is under a passphrase."""
        return self._root.is_protected

    @property
    def newest_root(self) -> int:
        """The version of the root key that wraps now."""
        return self._root.root.newest

    @property
    def root_versions(self) -> tuple[int, ...]:
        """The versions of the root key that open, in order."""
        return tuple(sorted(self._root.root.ciphers))

    def references(self) -> list[str]:
        """The kept keys, those that are destroyed left out, in order."""
        found = (path.name.removesuffix(_SUFFIX) for path in self._kept_folder.glob(f"[!.]*{_SUFFIX}"))
        return sorted(reference for reference in found if not self._tombstone(reference).exists())

    def _usable(self, reference: str) -> AESGCM:
        """The cipher of a kept key that is enabled."""
        found = self._find(reference)
        if found is None:
            raise KeyUnavailable(NAME, Reason.GONE)
        if found.file.state is not HeldState.ENABLED:
            raise KeyUnavailable(NAME, Reason.DISABLED)
        return found.cipher

    def _find(self, reference: str) -> _Loaded | None:
        """A kept key as its file has it now; None when it was destroyed, or never was."""
        loaded = self._loaded.pop(reference, None)
        if loaded is not None and _files.stamp(loaded.path) == loaded.stamp and not _files.stamp(loaded.tombstone):
            self._loaded[reference] = loaded
            return loaded
        path = self._path(reference)
        found = _files.stamp(path)
        if _files.stamp(self._tombstone(reference)):
            return None
        if found is None:
            if not self._kept_folder.is_dir():
                raise KeyUnavailable(NAME, Reason.AWAY, "the folder of the keys isn't there")
            return None
        try:
            content, found = _files.read(path)
            loaded = self._load(path, reference, content, found)
        except (FileNotFoundError, Broken):
            if _files.stamp(self._tombstone(reference)):
                return None  # it was being destroyed just now
            raise
        if len(self._loaded) >= MAX_LOADED:
            self._loaded.clear()
        self._loaded[reference] = loaded
        return loaded

    def _load(self, path: Path, reference: str, content: bytes, found: _files.Stamp) -> _Loaded:
        try:
            file = msgspec.json.decode(content, type=_Kept)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise _files.broken(path, "it can't be read") from None
        cipher = self._root.cipher(file.root)
        if cipher is None:
            raise _files.broken(path, f"it is under version {file.root} of the root key, which isn't there")
        if (file.reference, file.environment) != (reference, self._environment):
            raise _files.broken(path, "it is another key's file")
        try:
            key = cipher.decrypt(file.nonce, file.sealed, _context(file))
        except (InvalidTag, ValueError):
            raise _files.broken(path, "it was altered, or it is of another installation") from None
        return _Loaded(path=path, tombstone=self._tombstone(reference), stamp=found, file=file, cipher=AESGCM(key))

    def _bring(self, keys: Mapping[str, Secret[bytes]]) -> None:
        paths = {reference: self._path(reference) for reference in keys}
        with _files.locked(self._folder):
            for reference, path in paths.items():
                if self._tombstone(reference).exists():
                    raise _destroyed()
                if path.exists():
                    raise AlreadyExists(Failure("KEY_ALREADY_EXISTS", "There is a key under this reference already."))
            _files.put_many(
                {
                    path: self._written(reference, HeldState.ENABLED, keys[reference])
                    for reference, path in paths.items()
                }
            )

    def _change(self, reference: str, state: HeldState) -> None:
        path = self._path(reference)
        with _files.locked(self._folder):
            file = self._existing(reference)
            if file.state is not state:
                _files.put(path, self._written(reference, state, self._open(file)))

    def _destroy(self, reference: str) -> None:
        path, tombstone = self._path(reference), self._tombstone(reference)
        with _files.locked(self._folder):
            if not tombstone.exists():
                if not path.exists():
                    raise _not_found()
                _files.put(tombstone, f"destroyed {self._clock.now().isoformat()}\n".encode())
            _files.shred(path)
        self._loaded.pop(reference, None)

    def _clear_up(self) -> None:
        """Finish what a process that died left: destructions that had come to their tombstones, and half-written files.

        Whoever writes here holds the lock, so a file under a temporary name is nobody's now.
        """
        with _files.locked(self._folder):
            for tombstone in self._kept_folder.glob("[!.]*.gone"):
                path = tombstone.with_suffix(_SUFFIX)
                if path.exists():
                    _files.shred(path)
            for remains in self._kept_folder.glob(".*"):
                _files.shred(remains)

    def _rotate_root(self) -> int:
        with _files.locked(self._folder):
            behind = len(self._behind())
            if behind:
                raise Conflict(
                    Failure(
                        "ROOT_ROTATION_UNFINISHED",
                        "{count} keys are still wrapped under an older version of the root key. Finish that rotation.",
                        {"count": behind},
                    )
                )
            return self._root.add_version()

    def _rewrap_kept(self, progress: Progress | None) -> int:
        behind = self._behind()
        for first in range(0, len(behind), AT_ONCE):
            with _files.locked(self._folder):
                contents = {}
                for reference in behind[first : first + AT_ONCE]:
                    if not self._tombstone(reference).exists():
                        file = self._existing(reference)
                        contents[self._path(reference)] = self._written(
                            reference, file.state, self._open(file), changed_at=file.changed_at
                        )
                _files.put_many(contents)
            if progress is not None:
                progress(min(first + AT_ONCE, len(behind)), len(behind))
        return len(behind)

    def _end_root_version(self, version: int) -> None:
        with _files.locked(self._folder):
            if any(self._existing(reference).root == version for reference in self.references()):
                raise version_in_use(version)
            self._root.end_version(version)

    def _change_passphrase(self, passphrase: Secret[str] | None) -> None:
        with _files.locked(self._folder):
            self._root.change_passphrase(passphrase)

    def _behind(self) -> list[str]:
        """The kept keys that are under an older version of the root key."""
        newest = self._root.root.newest
        return [reference for reference in self.references() if self._existing(reference).root != newest]

    def _existing(self, reference: str) -> _Kept:
        """A kept key's file, for a change of it. Raises errors.NotFound, errors.Conflict and errors.Broken."""
        if self._tombstone(reference).exists():
            raise _destroyed()
        path = self._path(reference)
        try:
            content, found = _files.read(path)
        except FileNotFoundError:
            raise _not_found() from None
        return self._load(path, reference, content, found).file

    def _open(self, file: _Kept) -> Secret[bytes]:
        cipher = self._root.root.ciphers[file.root]
        return Secret(cipher.decrypt(file.nonce, file.sealed, _context(file)))

    def _written(self, reference: str, state: HeldState, key: Secret[bytes], *, changed_at: str = "") -> bytes:
        """A kept key's file, under the newest root key."""
        root = self._root.root
        file = _Kept(
            environment=self._environment,
            reference=reference,
            state=state,
            changed_at=changed_at or self._clock.now().isoformat(),
            root=root.newest,
        )
        nonce = os.urandom(NONCE_BYTES)
        sealed = root.ciphers[root.newest].encrypt(nonce, key.reveal(), _context(file))
        return msgspec.json.encode(msgspec.structs.replace(file, nonce=nonce, sealed=sealed))

    def _path(self, reference: str) -> Path:
        if not _REFERENCE.fullmatch(reference) or reference == ROOT:
            raise Invalid(
                Failure(
                    "KEY_REFERENCE_INVALID",
                    "A key kept in a file is called by 1 to 120 of a-z 0-9 . _ - and doesn't begin with a sign.",
                )
            )
        return self._kept_folder / (reference + _SUFFIX)

    def _tombstone(self, reference: str) -> Path:
        return self._kept_folder / f"{reference}.gone"

    def _bound(self, reference: str, context: bytes, header: bytes) -> bytes:
        named = f"strongroom wrapped key\0{self._environment}\0{reference}\0".encode()
        return named + header + context


_SUFFIX: Final = ".key"


def root_version(wrapped: bytes) -> int:
    """Under which version of the root key something was wrapped, to find what a rotation has still to do."""
    return 1 if len(wrapped) == _FIRST_WRAPPED_BYTES else int.from_bytes(wrapped[1:_HEADER_BYTES], "big")


def _context(file: _Kept) -> bytes:
    """What a kept key's file says of it, as associated data."""
    return msgspec.json.encode(msgspec.structs.replace(file, nonce=b"", sealed=b""))


def _destroyed() -> Conflict:
    return Conflict(Failure("KEY_DESTROYED", "The key was destroyed; nothing brings it back. Use another reference."))


def _not_found() -> NotFound:
    return NotFound(Failure("KEY_NOT_FOUND", "There is no such key."))
