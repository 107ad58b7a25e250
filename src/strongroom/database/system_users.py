"""System users that parts of an installation run as when it is started as root: the database, the card vault."""

from __future__ import annotations

import pwd
import subprocess
from pathlib import Path

from strongroom.kernel.errors import Failure, Unavailable


def ensure_system_user(name: str) -> pwd.struct_passwd:
    """The user of this name, made if missing; only root can. Raises errors.Unavailable (`SYSTEM_USER_NOT_MADE`)."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        pass
    try:
        made = subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name],
            check=False,
            capture_output=True,
            text=True,
        )
        return pwd.getpwnam(name)
    except KeyError:
        printed = made.stderr.strip()
    except OSError as error:
        printed = error.strerror or type(error).__name__
    raise Unavailable(
        Failure(
            "SYSTEM_USER_NOT_MADE",
            "A part of this doesn't run as root, and the system user {user} for it could not be made ({printed}). Make "
            "it, or run as an ordinary user.",
            {"user": name, "printed": printed},
        )
    )


def may_reach(user: pwd.struct_passwd, path: Path) -> bool:
    """Whether a user may pass through every folder above `path`."""
    for folder in path.resolve().parents:
        status = folder.stat()
        if status.st_uid == user.pw_uid:
            allowed = status.st_mode & 0o100
        elif status.st_gid == user.pw_gid:
            allowed = status.st_mode & 0o010
        else:
            allowed = status.st_mode & 0o001
        if not allowed:
            return False
    return True
