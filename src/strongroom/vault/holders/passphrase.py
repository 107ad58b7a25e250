"""Where a root key is, and where its passphrase comes from: a variable, or a file that a variable names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.kernel.errors import Failure, Refused
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import _files


@dataclass(frozen=True, slots=True, kw_only=True)
class RootPlace:
    """A root key: its file's name in its folder, and the variable that gives its passphrase."""

    file: str
    variable: str

    @property
    def file_variable(self) -> str:
        """The variable that names a file with the passphrase."""
        return f"{self.variable}_FILE"


PLATFORM: Final = RootPlace(file="master.key", variable="STRONGROOM_KEYS_PASSPHRASE")
CARD_VAULT: Final = RootPlace(file="root.key", variable="STRONGROOM_CARDS_PASSPHRASE")
"""The card vault has a root key, and a passphrase, of its own."""
VARIABLE: Final = PLATFORM.variable
FILE_VARIABLE: Final = PLATFORM.file_variable


def find_passphrase(variables: Mapping[str, str], place: RootPlace = PLATFORM) -> Secret[str] | None:
    """The passphrase that the environment gives; None when it gives none. A line break at a file's end doesn't count.

    Raises errors.Refused (`PASSPHRASE_GIVEN_TWICE`, `PASSPHRASE_FILE_UNREADABLE`) and errors.Broken
    (`KEY_FILE_UNSAFE`) when others may read the file.
    """
    given, file = variables.get(place.variable), variables.get(place.file_variable)
    if given and file:
        raise Refused(
            Failure(
                "PASSPHRASE_GIVEN_TWICE",
                "Give {variable} or {file_variable}, not both.",
                {"variable": place.variable, "file_variable": place.file_variable},
            )
        )
    if not file:
        return Secret(given) if given else None
    try:
        content, _ = _files.read(Path(file))
        return Secret(content.decode().removesuffix("\n").removesuffix("\r"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Refused(
            Failure(
                "PASSPHRASE_FILE_UNREADABLE",
                "{file_variable} names {path}, which can't be read: {reason}.",
                {"file_variable": place.file_variable, "path": file, "reason": reason or type(error).__name__},
            )
        ) from None


def passphrase_required(path: Path, place: RootPlace) -> Refused:
    """The error for a root key whose passphrase nobody gave."""
    return Refused(
        Failure(
            "PASSPHRASE_IS_REQUIRED",
            "{path} is protected by a passphrase. Give it in the variable {variable}, or in a file named by "
            "{file_variable}.",
            {"path": str(path), "variable": place.variable, "file_variable": place.file_variable},
        )
    )
