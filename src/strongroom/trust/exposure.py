"""What could carry the memory of a process that holds keys or card numbers to a disk: a core file, or swap. Linux.

The kernel tells it of every process, in `/proc/PID` (proc_pid_status(5), proc_pid_limits(5)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SWAPS: Final = Path("/proc/swaps")
_PROCESSES: Final = Path("/proc")
_CORE_FILE: Final = "Max core file size"
_ANY: Final = "unlimited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """How exposed one process is. Sizes are in KiB."""

    core_file: int
    """The largest core file that may be written of it, in bytes; -1: any."""
    dumping: bool
    """Whether one is being written at this moment."""
    swapped: int
    locked: int
    closed: bool | None
    """Whether others of its user can't look in (`PR_SET_DUMPABLE` 0: its entries in /proc are root's). None: its user
    is root."""


def read_exposure(process: int) -> Exposure:
    """Ask the kernel. Raises FileNotFoundError for a process that has ended."""
    folder = _PROCESSES / str(process)
    told = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
    user = int(told["Uid"].split()[1])
    [core_file] = (
        line.removeprefix(_CORE_FILE).split(maxsplit=1)[0]
        for line in (folder / "limits").read_text().splitlines()
        if line.startswith(_CORE_FILE)
    )
    return Exposure(
        core_file=-1 if core_file == _ANY else int(core_file),
        dumping=told["CoreDumping"].strip() != "0",
        swapped=_kib(told["VmSwap"]),
        locked=_kib(told["VmLck"]),
        closed=None if user == 0 else (folder / "environ").stat().st_uid == 0,
    )


def find_swap(swaps: Path = SWAPS) -> Sequence[str]:
    """The areas to which memory may be swapped out (`/proc/swaps` of proc(5)). Encrypted ones can't be told apart."""
    return [line.split()[0] for line in swaps.read_text().splitlines()[1:]]


def judge(name: str, found: Exposure, swap: Sequence[str], *, is_apart: bool) -> list[str]:
    """What is wrong with a process. One that stands apart has its memory locked, if there is swap, and is closed."""
    wrong = []
    if found.core_file != 0 or found.dumping:
        wrong.append(f"{name} may leave a core file: its RLIMIT_CORE is not 0")
    if found.swapped:
        wrong.append(f"{found.swapped} KiB of {name} are in swap")
    if is_apart and swap and not found.locked:
        wrong.append(f"{name} may be swapped out to {', '.join(swap)}: lock its memory, or turn swap off")
    if is_apart and found.closed is False:
        wrong.append(f"{name} can be looked into by others of its user")
    return wrong


def _kib(told: str) -> int:
    """`1234 kB`, where the kernel's kB is 1,024 bytes."""
    return int(told.split(maxsplit=1)[0])
