"""The passphrase is asked for on a terminal, when there is need and nobody gave it."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from strongroom.kernel.config import Environment
from strongroom.kernel.secret import Secret
from strongroom.vault.holders.root import RootFile

PASSPHRASE = "correct horse battery staple"
PROGRAM = """
import os, sys
from pathlib import Path
from strongroom.cli.passphrase import ask_passphrase
ask_passphrase(Path(sys.argv[1]))
print(os.environ.get("STRONGROOM_KEYS_PASSPHRASE"))
"""


@pytest.fixture
def keys_dir(tmp_path: Path) -> Path:
    RootFile(tmp_path / "master.key", Environment.SANDBOX, Secret(PASSPHRASE))
    return tmp_path


def ask(keys_dir: Path, *, typed: str = "", **variables: str) -> tuple[str, str]:
    """What the program prints, and what its terminal shows."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(keys_dir)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, **variables},
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    if typed:
        while b": " not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, f"{typed}\n".encode())
    printed = process.communicate(timeout=30)[0].decode().strip()
    assert process.returncode == 0
    with contextlib.suppress(OSError):  # the terminal may have gone with the process
        shown += os.read(ours, 1000)
    os.close(ours)
    return printed, shown.decode()


def test_it_is_asked_for_and_not_shown(keys_dir: Path) -> None:
    printed, shown = ask(keys_dir, typed=PASSPHRASE)
    assert printed == PASSPHRASE
    assert "Passphrase of the root key" in shown
    assert PASSPHRASE not in shown


def test_it_is_not_asked_for_when_it_is_given(keys_dir: Path) -> None:
    assert ask(keys_dir, STRONGROOM_KEYS_PASSPHRASE="given")[0] == "given"


def test_it_is_not_asked_for_when_there_is_none(tmp_path: Path) -> None:
    RootFile(tmp_path / "master.key", Environment.SANDBOX)
    assert ask(tmp_path)[0] == "None"


def test_without_a_terminal_nobody_is_asked(keys_dir: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(keys_dir)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "None"
