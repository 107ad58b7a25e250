"""What could carry a process's memory to a disk is read from the kernel, and every way of it is called wrong."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.database.system_users import ensure_system_user
from strongroom.trust.exposure import Exposure, find_swap, judge, read_exposure
from strongroom.vault.cards.isolation import SYSTEM_USER

SAFE = Exposure(core_file=0, dumping=False, swapped=0, locked=100, closed=True)
SWAP = ["/dev/sda2"]


@contextmanager
def started(code: str) -> Iterator[int]:
    """A process that has run this, and waits; its id."""
    command = [sys.executable, "-I", "-S", "-c", f"{code}\nprint('ready', flush=True)\ninput()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.stdin.close()


def test_what_is_safe_is_called_safe() -> None:
    assert judge("x", SAFE, SWAP, is_apart=True) == []
    assert judge("x", replace(SAFE, locked=0), [], is_apart=True) == []
    assert judge("x", replace(SAFE, locked=0, closed=False), SWAP, is_apart=False) == []
    assert judge("x", replace(SAFE, closed=None), SWAP, is_apart=True) == []


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (replace(SAFE, core_file=-1), "x may leave a core file: its RLIMIT_CORE is not 0"),
        (replace(SAFE, dumping=True), "x may leave a core file: its RLIMIT_CORE is not 0"),
        (replace(SAFE, swapped=12), "12 KiB of x are in swap"),
        (replace(SAFE, locked=0), "x may be swapped out to /dev/sda2: lock its memory, or turn swap off"),
        (replace(SAFE, closed=False), "x can be looked into by others of its user"),
    ],
)
def test_each_way_to_a_disk_is_called_wrong(found: Exposure, wrong: str) -> None:
    assert judge("x", found, SWAP, is_apart=True) == [wrong]


def test_swap_is_read_as_the_kernel_tells_it(tmp_path: Path) -> None:
    told = tmp_path / "swaps"
    told.write_text("Filename\t\t\tType\t\tSize\tUsed\tPriority\n")
    assert find_swap(told) == []
    told.write_text(told.read_text() + "/dev/sda2  partition\t8388604\t0\t-2\n/dev/zram0  partition\t1\t0\t100\n")
    assert find_swap(told) == ["/dev/sda2", "/dev/zram0"]
    areas = [line for line in Path("/proc/swaps").read_text().splitlines() if line.startswith("/")]
    assert len(find_swap()) == len(areas)


def test_core_files_and_locked_memory_are_read_of_other_processes() -> None:
    with started("import resource; resource.setrlimit(resource.RLIMIT_CORE, (1, 1))") as process:
        found = read_exposure(process)
    assert (found.core_file, found.dumping, found.swapped, found.locked) == (1, False, 0, 0)
    few = min(64 << 10, resource.getrlimit(resource.RLIMIT_MEMLOCK)[1])
    lock = f"import ctypes; kept = bytes({few}); ctypes.CDLL(None).mlock(kept, {few // 2})"
    with started(f"import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); {lock}") as process:
        found = read_exposure(process)
    assert found.core_file == 0
    assert found.locked > 0


@pytest.mark.parametrize("dumpable", [True, False])
def test_who_may_look_in_is_told_by_who_owns_its_entries(dumpable: bool) -> None:
    become = f"os.setuid({ensure_system_user(SYSTEM_USER).pw_uid})" if os.geteuid() == 0 else "pass"
    with started(f"import ctypes, os; {become}; ctypes.CDLL(None).prctl(4, {int(dumpable)})") as process:
        assert read_exposure(process).closed is not dumpable
