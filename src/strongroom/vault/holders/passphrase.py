"""Where the passphrase of the root key comes from: a variable, or a file that a variable names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from strongroom.kernel.errors import Failure, Refused
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import _files

VARIABLE: Final = "STRONGROOM_KEYS_PASSPHRASE"
FILE_VARIABLE: Final = "STRONGROOM_KEYS_PASSPHRASE_FILE"


def find_passphrase(variables: Mapping[str, str]) -> Secret[str] | None:
    """The passphrase that the environment gives; None when it gives none. A line break at a file's end doesn't count.

    Raises errors.Refused (`PASSPHRASE_GIVEN_TWICE`, `PASSPHRASE_FILE_UNREADABLE`) and errors.Broken
    (`KEY_FILE_UNSAFE`) when others may read the file.
    """
    given, file = variables.get(VARIABLE), variables.get(FILE_VARIABLE)
    if given and file:
        raise Refused(
            Failure(
                "PASSPHRASE_GIVEN_TWICE",
                "Give {variable} or {file_variable}, not both.",
                {"variable": VARIABLE, "file_variable": FILE_VARIABLE},
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
                {"file_variable": FILE_VARIABLE, "path": file, "reason": reason or type(error).__name__},
            )
        ) from None
