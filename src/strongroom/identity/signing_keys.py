"""The keys that access tokens are signed with: the present one, and for a token's life the one before.

The present key is the installation's own file (`tokens.key`: 32 bytes, a seed of Ed25519 after RFC 8032 section 5.1.5,
mode 0600). A rotation puts another in its place and leaves the old one beside it (`tokens.former.key`: the seed, and
the second at which it ends), so that what it has signed stays good for as long as it would have been. Every process
looks at the files once a second.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import OKPKey

from strongroom.kernel.errors import Conflict, Failure
from strongroom.kernel.secret import Secret
from strongroom.vault.secret_files import read_or_make_secret, read_secret, replace_secret

LIFETIME: Final = timedelta(minutes=15)
"""How long a token is good for at most."""
LOOKED_AT_EVERY_S: Final = 1.0
NOTICED_WITHIN: Final = timedelta(seconds=5)
"""How much longer a former key stays good: other processes sign with it until they have looked again."""
_SEED_BYTES: Final = 32
_INSTANT_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key; `ends_at` is None for the one that signs."""

    key: OKPKey
    key_id: str
    ends_at: datetime | None = None

    @classmethod
    def of(cls, seed: Secret[bytes], ends_at: datetime | None = None) -> SigningKey:
        """The key of a seed; it is named by its thumbprint (RFC 7638)."""
        key = OKPKey.import_key(Ed25519PrivateKey.from_private_bytes(seed.reveal()))
        return cls(key=key, key_id=key.thumbprint(), ends_at=ends_at)


class SigningKeys:
    """The keys as a process has them. `version` counts the changes that it has seen."""

    def __init__(self, keys: Sequence[SigningKey], path: Path | None = None) -> None:
        """Keys, the one that signs first. With the path of its file they are looked at again."""
        self._keys = tuple(keys)
        self._path = path
        self._state = _state_of(path) if path is not None else ()
        self._next_look_s = time.monotonic() + LOOKED_AT_EVERY_S
        self.version = 0

    @classmethod
    def fixed(cls, seed: Secret[bytes]) -> SigningKeys:
        """One key, which is in no file."""
        return cls([SigningKey.of(seed)])

    @classmethod
    def in_file(cls, path: Path) -> SigningKeys:
        """The keys in a file, made when there is none.

        Raises errors.Broken when others may read the file or its size is wrong.
        """
        read_or_make_secret(path, _SEED_BYTES)
        return cls(_read(path), path)

    @property
    def signing(self) -> SigningKey:
        """The key that signs."""
        return self._keys[0]

    def valid_at(self, now: datetime) -> Sequence[SigningKey]:
        """The keys whose signatures count."""
        return [key for key in self._keys if key.ends_at is None or now < key.ends_at]

    def look(self, *, at_once: bool = False) -> None:
        """Take over what was changed in the files, if a second has passed since they were last looked at."""
        now_s = time.monotonic()
        if self._path is None or (now_s < self._next_look_s and not at_once):
            return
        self._next_look_s = now_s + LOOKED_AT_EVERY_S
        state = _state_of(self._path)
        if state != self._state:
            self._keys = _read(self._path)
            self._state = state
            self.version += 1


def rotate_signing_key(path: Path, now: datetime, *, at_once: bool = False) -> str:
    """Put another key in place of the one that signs; returns the new one's id.

    `at_once`: what the old one signed is refused from now on (it may be in the wrong hands), instead of staying good
    until it ends.

    Raises errors.Conflict (`TOKEN_KEY_ROTATED_LATELY`) while a former key is still good: it would end too early.
    """
    former = _former(path)
    with _alone(path):
        seed = read_or_make_secret(path, _SEED_BYTES)
        if at_once:
            former.unlink(missing_ok=True)
        else:
            found = _read_former(path)
            if found is not None and found.ends_at is not None and now < found.ends_at:
                raise Conflict(
                    Failure(
                        "TOKEN_KEY_ROTATED_LATELY",
                        "The key was rotated a short while ago, and tokens of the one before are still good until "
                        "{end}. Wait until then; or, if they are not to be trusted, rotate at once.",
                        {"end": f"{found.ends_at:%H:%M:%S} UTC"},
                    )
                )
            end = int((now + LIFETIME + NOTICED_WITHIN).timestamp())
            replace_secret(former, seed + end.to_bytes(_INSTANT_BYTES, "big"))
        fresh = os.urandom(_SEED_BYTES)
        replace_secret(path, fresh)
    return SigningKey.of(Secret(fresh)).key_id


def _read(path: Path) -> tuple[SigningKey, ...]:
    signing = SigningKey.of(Secret(read_secret(path, _SEED_BYTES)))
    former = _read_former(path)
    return (signing,) if former is None or former.key_id == signing.key_id else (signing, former)


def _read_former(path: Path) -> SigningKey | None:
    former = _former(path)
    if not former.exists():
        return None
    content = read_secret(former, _SEED_BYTES + _INSTANT_BYTES)
    end = datetime.fromtimestamp(int.from_bytes(content[_SEED_BYTES:], "big"), UTC)
    return SigningKey.of(Secret(content[:_SEED_BYTES]), end)


def _former(path: Path) -> Path:
    return path.with_name(f"{path.stem}.former{path.suffix}")


def _state_of(path: Path) -> tuple[object, ...]:
    """What changes when one of the files is replaced."""
    found: list[object] = []
    for file in (path, _former(path)):
        try:
            status = file.stat()
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_mtime_ns))
    return tuple(found)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One rotation at a time."""
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
