"""What keeps the vault's process to itself, as far as the system's ordinary means go. Linux.

- No core file, and no look into its memory, environment or open files by other processes of its user
  (`PR_SET_DUMPABLE` of prctl(2): all of that belongs to root then).
- No way to more rights than it has (`PR_SET_NO_NEW_PRIVS`).
- Started as root, it becomes a system user of its own, which owns the vault's folder and nothing else.
- Its memory is locked (mlockall(2)): neither keys nor numbers get into swap. That takes the right to (`CAP_IPC_LOCK`,
  kept when root becomes that user) or a limit that is high enough.

Root stays root: it can read everything, always.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from strongroom.database.system_users import ensure_system_user, may_reach
from strongroom.kernel.errors import Failure, Refused
from strongroom.kernel.telemetry import end_with_parent, forbid_core_files, forbid_dumps

log = structlog.get_logger(__name__)

SYSTEM_USER: Final = "strongroom-cards"
_SET_KEEP_CAPABILITIES: Final = 8
_SET_NO_NEW_PRIVILEGES: Final = 38
"""`PR_SET_KEEPCAPS` and `PR_SET_NO_NEW_PRIVS` of prctl(2)."""
_LOCK_NOW_AND_LATER: Final = 1 | 2 | 4
"""`MCL_CURRENT`, `MCL_FUTURE` and, so that only what is touched takes memory, `MCL_ONFAULT` of mlockall(2)."""
_CAPABILITY_VERSION: Final = 0x20080522
_MAY_LOCK: Final = 1 << 14
"""`CAP_IPC_LOCK` of capabilities(7)."""


def close_off() -> None:
    """The first thing that the process does, before it is told any secret."""
    forbid_core_files()
    forbid_dumps()
    if sys.platform == "linux":
        _libc().prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def leave_root(folder: Path, parent: int, code: Sequence[Path]) -> None:
    """Become the system user, if we are root, and give it the vault's folder. `parent`: with whom the process ends.

    Where that user can't reach `code`, of which more may have to be loaded later, we stay root, and say so. Call it
    before there are threads.

    Raises errors.Refused (`CARD_FOLDER_NOT_REACHABLE`), errors.Unavailable (`SYSTEM_USER_NOT_MADE`).
    """
    if os.geteuid() != 0:
        return
    user = ensure_system_user(SYSTEM_USER)
    hidden = next((place for place in code if not may_reach(user, place)), None)
    if hidden is not None:
        log.warning("cards.stays_root", user=SYSTEM_USER, reason=f"{hidden} can't be reached by that user")
        return
    if not may_reach(user, folder):
        raise Refused(
            Failure(
                "CARD_FOLDER_NOT_REACHABLE",
                "The card vault runs as {user}, who can't reach {path}. Give --data-dir a place that every user can "
                "pass through, or run as an ordinary user.",
                {"user": SYSTEM_USER, "path": str(folder)},
            )
        )
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    _become(user)
    # A change of user takes both of these back.
    forbid_dumps()
    end_with_parent(parent)


def places_of_code() -> Sequence[Path]:
    """Where Python finds what it may have to load."""
    return [Path(place, "x") for place in sys.path if place and Path(place).is_dir()]


def lock_memory() -> bool:
    """Keep this process's memory out of swap, from now on; whether the system allows that."""
    if sys.platform != "linux":
        return False
    most = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if most != resource.RLIM_INFINITY and not _has_right_to_lock():
        # With less, the first piece of memory beyond the limit would be refused, in the middle of anything.
        log.warning("cards.memory_not_locked", reason="LimitMEMLOCK (ulimit -l) is not infinity", swap="turn it off")
        return False
    if most == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))
    if _libc().mlockall(_LOCK_NOW_AND_LATER) != 0:
        log.warning("cards.memory_not_locked", reason=os.strerror(ctypes.get_errno()), swap="turn it off")
        return False
    return True


def _become(user: pwd.struct_passwd) -> None:
    keeps = _has_right_to_lock()
    if keeps:
        _libc().prctl(_SET_KEEP_CAPABILITIES, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    if keeps:
        header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
        # Effective, permitted, inheritable: of the first 32 capabilities, then of the others.
        wanted = struct.pack("=6I", _MAY_LOCK, _MAY_LOCK, 0, 0, 0, 0)
        if _libc().capset(header, wanted) != 0:
            raise OSError(ctypes.get_errno(), "the card vault could not give up root's rights")


def _has_right_to_lock() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & _MAY_LOCK)
    return False


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
