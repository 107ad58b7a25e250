"""The passphrases of the root keys, asked on the terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from strongroom.kernel.secret import Secret
from strongroom.vault.holders import CARD_VAULT, find_passphrase, is_protected
from strongroom.vault.holders.passphrase import VARIABLE, passphrase_required


def ask_passphrase(keys_dir: Path) -> None:
    """Ask for the passphrase if the root key has one, nothing gives it and somebody is there; children inherit it.

    Where nobody is there, opening the key says what is missing. Raises as `find_passphrase`.
    """
    if find_passphrase(os.environ) is None and is_protected(keys_dir / "master.key") and sys.stdin.isatty():
        os.environ[VARIABLE] = typer.prompt("Passphrase of the root key", hide_input=True, err=True)


def take_cards_passphrase(cards_dir: Path) -> Secret[str] | None:
    """The passphrase of the card vault's root key, asked for in the same way; no child inherits it: the variables that
    give it are taken out of the environment.

    Raises as `find_passphrase`, and errors.Refused (`PASSPHRASE_IS_REQUIRED`) where it is missing and nobody is there.
    """
    found = find_passphrase(os.environ, CARD_VAULT)
    for name in (CARD_VAULT.variable, CARD_VAULT.file_variable):
        os.environ.pop(name, None)
    path = cards_dir / CARD_VAULT.file
    if found is None and is_protected(path):
        if not sys.stdin.isatty():
            raise passphrase_required(path, CARD_VAULT)
        found = Secret(typer.prompt("Passphrase of the card vault's root key", hide_input=True, err=True))
    return found
