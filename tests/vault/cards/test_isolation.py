"""The vault's process keeps to itself: no other process of its user sees into it, and root's rights are given up."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strongroom.vault.cards.isolation import SYSTEM_USER
from tests.fixtures.platform import public_folder

PROGRAM = """
import json, os, sys
from pathlib import Path
from strongroom.vault.cards.isolation import close_off, leave_root, lock_memory
folder = Path(sys.argv[1])
close_off()
leave_root(folder, os.getppid(), [])
locked = lock_memory()
(folder / "made").write_text("x")
try:
    Path("/etc/shadow").read_bytes()
    shadow = True
except PermissionError:
    shadow = False
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({"locked": locked, "shadow": shadow, "ids": os.getresuid(), "groups": os.getgroups(), **status}))
sys.stdout.flush()
sys.stdin.read()
"""


class Apart:
    """A process that has closed itself off, and what it told of itself."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        assert process.stdout is not None
        self.pid = process.pid
        self.folder = folder
        self.told: dict[str, Any] = json.loads(process.stdout.readline())

    @property
    def user(self) -> int:
        return int(self.told["ids"][0])


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    with public_folder() as made:
        folder = made / "cards"
        folder.mkdir(mode=0o700)
        (folder / "root.key").touch(mode=0o600)
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield Apart(process, folder)
            finally:
                process.kill()


def test_root_becomes_a_user_of_its_own_with_the_folder_and_nothing_else(apart: Apart) -> None:
    expected = pwd.getpwnam(SYSTEM_USER).pw_uid if os.geteuid() == 0 else os.getuid()
    assert apart.told["ids"] == [expected] * 3
    assert apart.told["shadow"] is False
    assert {path.stat().st_uid for path in (apart.folder, *apart.folder.iterdir())} == {expected}
    # Of root's rights one is left: to lock memory.
    assert {int(apart.told[name], 16) & ~(1 << 14) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    if os.geteuid() == 0:
        assert apart.told["groups"] == []
    assert apart.told["NoNewPrivs"].strip() == "1"


def test_memory_is_locked_where_the_system_allows(apart: Apart) -> None:
    # Root may; without the right, the process says that it couldn't, and nothing is locked.
    assert apart.told["locked"] is (os.geteuid() == 0) or int(apart.told["VmLck"].split()[0]) > 0
    assert (int(apart.told["VmLck"].split()[0]) >= int(apart.told["VmRSS"].split()[0])) is apart.told["locked"]
    limits = Path(f"/proc/{apart.pid}/limits").read_text().splitlines()
    assert next(line for line in limits if line.startswith("Max core file size")).split()[4:6] == ["0", "0"]


@pytest.mark.parametrize("name", ["environ", "maps", "mem", "auxv"])
def test_no_process_of_the_same_user_sees_into_it(apart: Apart, name: str) -> None:
    def opens(pid: int) -> bool:
        program = shutil.which("head")
        assert program is not None
        looked = subprocess.run(
            [program, "-c", "1", f"/proc/{pid}/{name}"], user=apart.user, capture_output=True, text=True, check=False
        )
        return "Permission denied" not in looked.stderr

    assert not opens(apart.pid)
    with subprocess.Popen(["sleep", "60"], user=apart.user) as other:
        try:
            assert opens(other.pid) or name in {"mem", "maps"}
        finally:
            other.kill()


def test_it_is_not_to_be_traced_by_the_same_user(apart: Apart) -> None:
    # 16 is PTRACE_ATTACH of ptrace(2).
    program = "import ctypes, os, sys; libc = ctypes.CDLL(None); os.setresuid(*[int(sys.argv[2])] * 3); "
    program += "print(libc.ptrace(16, int(sys.argv[1]), 0, 0))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(apart.pid), str(apart.user)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "-1"
