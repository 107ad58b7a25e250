"""The passphrase of the root key, asked on the terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from strongroom.vault.holders import find_passphrase, is_protected
from strongroom.vault.holders.passphrase import VARIABLE


def ask_passphrase(keys_dir: Path) -> None:
    """Ask for the passphrase if the root key has one, nothing gives it and somebody is there; children inherit it.

    Where nobody is there, opening the key says what is missing. Raises as `find_passphrase`.
    """
    if find_passphrase(os.environ) is None and is_protected(keys_dir / "master.key") and sys.stdin.isatty():
        os.environ[VARIABLE] = typer.prompt("Passphrase of the root key", hide_input=True, err=True)
