"""The passphrases of the root keys, asked on the terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from strongroom.kernel.errors import Failure, Invalid
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import CARD_VAULT, find_passphrase, is_protected
from strongroom.vault.holders.passphrase import PLATFORM, VARIABLE, RootPlace, passphrase_required

_CALLED = {PLATFORM: "the root key", CARD_VAULT: "the card vault's root key"}


def ask_passphrase(keys_dir: Path) -> None:
    """Ask for the passphrase if the root key has one, nothing gives it and somebody is there; children inherit it.

    Where nobody is there, opening the key says what is missing. Raises as `find_passphrase`.
    """
    if find_passphrase(os.environ) is None and is_protected(keys_dir / "master.key") and sys.stdin.isatty():
        os.environ[VARIABLE] = typer.prompt(f"Passphrase of {_CALLED[PLATFORM]}", hide_input=True, err=True)


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
        found = Secret(typer.prompt(f"Passphrase of {_CALLED[CARD_VAULT]}", hide_input=True, err=True))
    return found


def refuse_both(file: Path | None, *, remove: bool) -> None:
    """Raises errors.Invalid (`PASSPHRASE_NOT_CLEAR`) when a passphrase is given and taken away at once."""
    if remove and file is not None:
        raise Invalid(Failure("PASSPHRASE_NOT_CLEAR", "Give --file or --remove, not both."))


def new_passphrase(file: Path | None, place: RootPlace = PLATFORM, *, remove: bool) -> Secret[str] | None:
    """The passphrase that a root key is to have, from a file or asked for twice; None: none. Raises as
    `find_passphrase`."""
    if file is not None:
        return find_passphrase({place.file_variable: str(file)}, place)
    if remove:
        return None
    asked = f"New passphrase of {_CALLED[place]}"
    return Secret(typer.prompt(asked, hide_input=True, confirmation_prompt=True, err=True))
