"""The installation's root key: a file that only its owner may read, under a passphrase if one is given.

The file is `master.key`. Its first form, still read, is 32 bytes as they are: version 1 of the root key, in clear.
Every change writes the second form, JSON: the environment, how it is protected, and all versions. The newest version
wraps; the others open what they have wrapped until they are ended.

With a passphrase the versions are encrypted (AES-256-GCM, NIST SP 800-38D) under a key that scrypt (RFC 7914) makes of
it with N = 2^17, r = 8, p = 1: 128 MiB and about half a second for each guess. The parameters stand in the file. A
digest over the whole tells a damaged file from a wrong passphrase.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Broken, Conflict, Failure, Invalid, Refused
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import _files
from strongroom.vault.holders.contract import KEY_BYTES, KeyUnavailable, Reason
from strongroom.vault.holders.passphrase import CARD_VAULT, PLATFORM, passphrase_required

NONCE_BYTES: Final = 12
MIN_PASSPHRASE: Final = 12
"""Characters. A passphrase guards against whoever finds the file, who may guess for as long as they like."""
MAX_VERSIONS: Final = 100
_SALT_BYTES: Final = 16
LOG2_N: Final = 17
_R, _P = 8, 1
LOG2_N_RANGE: Final = range(14, 21)
"""What is accepted from a file: at least what 2009 thought right, at most 1 GiB (with r = 8)."""


class _Scrypt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    log2_n: int
    r: int
    p: int
    salt: bytes


class _Version(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    key: bytes


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The second form. `body` is the list of versions, encrypted when there is a `scrypt`."""

    format: Literal["strongroom root key 1"]
    environment: str
    scrypt: _Scrypt | None
    nonce: bytes
    body: bytes
    digest: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The root key in memory: a cipher for every version."""

    ciphers: Mapping[int, AESGCM]
    newest: int


class RootFile:
    """One installation's root key on disk. Belongs to one process; any number of them share the file."""

    def __init__(self, path: Path, environment: Environment, passphrase: Secret[str] | None = None) -> None:
        """Read the key; make it when there is none. With a passphrase, a file that had none has it from now on.

        Raises errors.Refused (`PASSPHRASE_IS_REQUIRED`, `PASSPHRASE_WRONG`, `OTHER_ENVIRONMENT`), errors.Invalid
        (`PASSPHRASE_TOO_SHORT`) and errors.Broken (`KEY_FILE_UNSAFE`, `KEY_FILE_BROKEN`).
        """
        self._path = path
        self._environment = environment
        self._protection: tuple[_Scrypt, Secret[bytes]] | None = None
        """The parameters and the key that came of them, so that the passphrase itself needn't be kept."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _files.locked(path.parent):
            if not path.exists():
                self._protection = _protect(passphrase)
                self._write({1: Secret(os.urandom(KEY_BYTES))})
            self._versions, self._stamp = self._read(passphrase)
            if passphrase is not None and self._protection is None:
                self._protection = _protect(passphrase)
                self._write(self._versions)
                self._versions, self._stamp = self._read()
        self._root = _in_memory(self._versions)
        self._is_outdated = False

    @property
    def root(self) -> Root:
        """The key as the file has it now: another process may have added a version.

        When the file can't be read any more (it is gone, or its passphrase was changed), the key as it was.
        """
        found = _files.stamp(self._path)
        if found is not None and found != self._stamp:
            try:
                self._versions, self._stamp = self._read()
            except (FileNotFoundError, Refused, Broken):
                self._stamp, self._is_outdated = found, True
            else:
                self._root, self._is_outdated = _in_memory(self._versions), False
        return self._root

    def cipher(self, version: int) -> AESGCM | None:
        """The cipher of a version; None when there is none.

        Raises KeyUnavailable when there may be one in the file, which this process can't read any more.
        """
        found = self.root.ciphers.get(version)
        if found is None and self._is_outdated:
            raise KeyUnavailable("file", Reason.AWAY, "the passphrase of the root key was changed; start this again")
        return found

    @property
    def is_protected(self) -> bool:
        """Whether the file is under a passphrase."""
        return self._protection is not None

    def add_version(self) -> int:
        """Make a new version, which wraps from now on. Call it under the folder's lock.

        Raises errors.Conflict (`TOO_MANY_ROOT_VERSIONS`), and errors.Refused (`PASSPHRASE_IS_REQUIRED`) when another
        process has changed the passphrase.
        """
        versions, _ = self._read()
        if len(versions) >= MAX_VERSIONS:
            raise Conflict(
                Failure(
                    "TOO_MANY_ROOT_VERSIONS",
                    "The root key has {count} versions. End those that wrap nothing any more.",
                    {"count": len(versions)},
                )
            )
        added = max(versions) + 1
        self._replace({**versions, added: Secret(os.urandom(KEY_BYTES))})
        return added

    def end_version(self, version: int) -> None:
        """Forget an old version: what only it has wrapped never opens again. Call it under the folder's lock.

        Raises errors.Conflict (`ROOT_VERSION_IN_USE`) for the newest; one that isn't there is ended already.
        """
        versions, _ = self._read()
        if version == max(versions):
            raise version_in_use(version)
        self._replace({number: key for number, key in versions.items() if number != version})

    def change_passphrase(self, passphrase: Secret[str] | None) -> None:
        """Protect the file by another passphrase, or by none. Call it under the folder's lock.

        Processes that run keep the key they have; they need the new passphrase when they start again.
        """
        versions, _ = self._read()
        protection = _protect(passphrase)
        self._protection = protection
        self._replace(versions)

    def _replace(self, versions: Mapping[int, Secret[bytes]]) -> None:
        self._write(versions)
        self._versions, self._stamp = self._read()
        self._root = _in_memory(self._versions)

    def _write(self, versions: Mapping[int, Secret[bytes]]) -> None:
        body = msgspec.json.encode([_Version(number, key.reveal()) for number, key in sorted(versions.items())])
        scrypt, nonce = None, b""
        if self._protection is not None:
            scrypt, key = self._protection
            nonce = os.urandom(NONCE_BYTES)
            body = AESGCM(key.reveal()).encrypt(nonce, body, self._context(scrypt))
        file = _File("strongroom root key 1", self._environment, scrypt, nonce, body)
        _files.put(self._path, msgspec.json.encode(msgspec.structs.replace(file, digest=_digest(file))), shred_old=True)

    def _read(self, passphrase: Secret[str] | None = None) -> tuple[Mapping[int, Secret[bytes]], _files.Stamp]:
        content, found = _files.read(self._path)
        if len(content) == KEY_BYTES:
            return {1: Secret(content)}, found
        file = self._decode(content)
        body = file.body
        if file.scrypt is not None:
            key = self._key_for(file.scrypt, passphrase)
            try:
                body = AESGCM(key.reveal()).decrypt(file.nonce, body, self._context(file.scrypt))
            except (InvalidTag, ValueError):
                raise Refused(
                    Failure(
                        "PASSPHRASE_WRONG",
                        "The passphrase does not open {path}.",
                        {"path": str(self._path)},
                    )
                ) from None
            self._protection = (file.scrypt, key)
        else:
            self._protection = None
        return self._versions_of(body), found

    def _decode(self, content: bytes) -> _File:
        try:
            file = msgspec.json.decode(content, type=_File)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise _files.broken(self._path, "it is neither 32 bytes nor what was written") from None
        if not hmac.compare_digest(file.digest, _digest(file)):
            raise _files.broken(self._path, "its content and its digest differ")
        if file.environment != self._environment:
            raise Refused(
                Failure(
                    "OTHER_ENVIRONMENT",
                    "{path} is of a {found} installation and can't be used in a {wanted} one.",
                    {"path": str(self._path), "found": file.environment, "wanted": self._environment.value},
                )
            )
        return file

    def _key_for(self, scrypt: _Scrypt, passphrase: Secret[str] | None) -> Secret[bytes]:
        if passphrase is not None:
            return _derive(scrypt, passphrase, self._path)
        if self._protection is not None and self._protection[0] == scrypt:
            return self._protection[1]
        raise passphrase_required(self._path, CARD_VAULT if self._path.name == CARD_VAULT.file else PLATFORM)

    def _versions_of(self, body: bytes) -> Mapping[int, Secret[bytes]]:
        try:
            listed = msgspec.json.decode(body, type=list[_Version])
        except msgspec.MsgspecError:
            raise _files.broken(self._path, "its list of versions can't be read") from None
        if not listed or any(len(each.key) != KEY_BYTES for each in listed):
            raise _files.broken(self._path, f"a version of the key doesn't have {KEY_BYTES} bytes")
        return {each.version: Secret(each.key) for each in listed}

    def _context(self, scrypt: _Scrypt) -> bytes:
        return b"strongroom root key\0" + self._environment.encode() + b"\0" + msgspec.json.encode(scrypt)


def is_protected(path: Path) -> bool:
    """Whether the root key in a file is under a passphrase. False when there is no file, or it can't be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File).scrypt is not None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return False


def version_in_use(version: int) -> Conflict:
    """The error for ending a version of the root key that is still needed."""
    return Conflict(
        Failure(
            "ROOT_VERSION_IN_USE",
            "Version {version} of the root key is still in use. Rotate it, and have everything wrapped again, first.",
            {"version": version},
        )
    )


def _in_memory(versions: Mapping[int, Secret[bytes]]) -> Root:
    return Root(ciphers={number: AESGCM(key.reveal()) for number, key in versions.items()}, newest=max(versions))


def _protect(passphrase: Secret[str] | None) -> tuple[_Scrypt, Secret[bytes]] | None:
    if passphrase is None:
        return None
    if len(passphrase.reveal()) < MIN_PASSPHRASE:
        raise Invalid(
            Failure(
                "PASSPHRASE_TOO_SHORT",
                "A passphrase has at least {least} characters. Four words drawn by lot are a good one.",
                {"least": MIN_PASSPHRASE},
            )
        )
    scrypt = _Scrypt(LOG2_N, _R, _P, os.urandom(_SALT_BYTES))
    return scrypt, _scrypt(scrypt, passphrase)


def _derive(scrypt: _Scrypt, passphrase: Secret[str], path: Path) -> Secret[bytes]:
    if scrypt.log2_n not in LOG2_N_RANGE or scrypt.r != _R or scrypt.p != _P:
        raise _files.broken(path, "it asks for scrypt parameters that are not used here")
    return _scrypt(scrypt, passphrase)


def _scrypt(scrypt: _Scrypt, passphrase: Secret[str]) -> Secret[bytes]:
    """The key of a passphrase; written with accents composed or not, it is the same (Unicode NFC)."""
    text = unicodedata.normalize("NFC", passphrase.reveal())
    function = Scrypt(salt=scrypt.salt, length=KEY_BYTES, n=1 << scrypt.log2_n, r=scrypt.r, p=scrypt.p)
    return Secret(function.derive(text.encode()))


def _digest(file: _File) -> bytes:
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(file, digest=b""))).digest()
