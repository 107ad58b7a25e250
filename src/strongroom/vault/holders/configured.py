"""The holders of an installation: its own, `file`, and those that `holders.toml` in the folder of the keys names.

Each section of that file is a holder: its name, its kind, what the kind needs, and the accounts that may use it. The
reference is docs/keys.md. Files that it names are looked for from the folder of the keys.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from strongroom.kernel.errors import Broken, Failure, Invalid, NotFound
from strongroom.kernel.ids import AccountId
from strongroom.vault.holders import _files
from strongroom.vault.holders.contract import Holder
from strongroom.vault.holders.file import NAME, FileHolder
from strongroom.vault.holders.persons import PersonSecrets
from strongroom.vault.holders.pkcs11 import Pkcs11Holder
from strongroom.vault.holders.transit import TransitHolder

DEFAULT_LIMIT_S: Final = 2.0
LIMITS_S: Final = (0.1, 10.0)
"""What may be asked for as a holder's time limit."""
MAX_HOLDERS: Final = 50
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_THIS_MACHINE: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every section has."""

    kind: str
    accounts: list[UUID]
    timeout_s: float = DEFAULT_LIMIT_S


class _Pkcs11(_Section, frozen=True, kw_only=True):
    module: str
    token: str
    pin_file: str

    def build(self, name: str, folder: Path) -> Holder:
        pin_file = folder / self.pin_file
        return Pkcs11Holder(
            name, module=folder / self.module, token=self.token, pin_file=pin_file, limit_s=self.timeout_s
        )

    def mistakes(self, folder: Path) -> list[str]:
        return [*_missing(folder, module=self.module), *_unsafe(folder, pin_file=self.pin_file)]


class _AwsKms(_Section, frozen=True, kw_only=True):
    region: str
    endpoint: str | None = None
    profile: str | None = None
    ca_file: str | None = None

    def build(self, name: str, folder: Path) -> Holder:
        # Imported when somebody has keys there: AWS's SDK is a fifth of what a process takes to start.
        from strongroom.vault.holders.aws_kms import AwsKmsHolder

        return AwsKmsHolder(
            name,
            region=self.region,
            limit_s=self.timeout_s,
            endpoint=self.endpoint,
            profile=self.profile,
            ca_file=None if self.ca_file is None else str(folder / self.ca_file),
        )

    def mistakes(self, folder: Path) -> list[str]:
        found = _missing(folder, ca_file=self.ca_file)
        parts = urlsplit(self.endpoint or "https://")
        if parts.scheme != "https" and parts.hostname not in _THIS_MACHINE:
            found.append("`endpoint` must begin with https://")
        return found


class _Transit(_Section, frozen=True, kw_only=True):
    url: str
    token_file: str
    mount: str = "transit"
    namespace: str | None = None
    ca_file: str | None = None
    private: bool = False

    def build(self, name: str, folder: Path) -> Holder:
        return TransitHolder(
            name,
            url=self.url,
            mount=self.mount,
            token_file=folder / self.token_file,
            limit_s=self.timeout_s,
            ca_file=None if self.ca_file is None else folder / self.ca_file,
            namespace=self.namespace,
            private=self.private,
        )

    def mistakes(self, folder: Path) -> list[str]:
        found = [*_missing(folder, ca_file=self.ca_file), *_unsafe(folder, token_file=self.token_file)]
        parts = urlsplit(self.url)
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query:
            found.append("`url` must be like https://host or https://host:port")
        return found


_KINDS: Final[Mapping[str, type[_Pkcs11 | _AwsKms | _Transit]]] = {
    "pkcs11": _Pkcs11,
    "aws_kms": _AwsKms,
    "transit": _Transit,
}


class Holders:
    """The holders of one process, by name. Belongs to one event loop."""

    def __init__(self, own: FileHolder, others: Mapping[str, Holder], accounts: Mapping[str, frozenset[UUID]]) -> None:
        self.own = own
        """The installation's own, which everybody uses who brought none."""
        self._others = others
        self._accounts = accounts

    def get(self, name: str, account: AccountId) -> Holder:
        """The holder of this name, for an account that may use it.

        Raises errors.NotFound (`HOLDER_NOT_FOUND`) when there is none, and the same when it is others'.
        """
        if name == NAME:
            return self.own
        if account not in self._accounts.get(name, frozenset()):
            raise NotFound(
                Failure(
                    "HOLDER_NOT_FOUND",
                    "There is no holder {name} for this account. Whoever runs this installation adds holders.",
                    {"name": name},
                )
            )
        return self._others[name]

    def names(self, account: AccountId) -> Sequence[str]:
        """The holders that an account may use, the installation's own first."""
        return [NAME, *sorted(name for name, allowed in self._accounts.items() if account in allowed)]

    def persons(self, region: str) -> PersonSecrets:
        """The secrets of the persons of a region, which our own holder has."""
        return self.own.persons(region)

    async def close(self) -> None:
        """Close all of them."""
        for holder in (*self._others.values(), self.own):
            await holder.close()


def open_holders(own: FileHolder, folder: Path) -> tuple[Holders, Sequence[Failure]]:
    """The holders that `holders.toml` in the folder of the keys names, beside our own, and every mistake in the file.

    A section with a mistake is left out, since one account's must not stop the others: to whoever uses that holder, it
    is one that isn't configured. A file that is no TOML, or that others may read, leaves all of them out. None is asked
    anything yet. The mistakes are `HOLDERS_FILE_INVALID` and, for the file itself, `KEY_FILE_UNSAFE`.
    """
    try:
        found, mistakes = _read(folder)
    except (Invalid, Broken) as error:
        found, mistakes = {}, [("", failure) for failure in error.failures]
    wrong = {name for name, _ in mistakes}
    sound = {name: section for name, section in found.items() if name not in wrong}
    holders = Holders(
        own,
        {name: section.build(name, folder) for name, section in sound.items()},
        {name: frozenset(section.accounts) for name, section in sound.items()},
    )
    return holders, [failure for _, failure in mistakes]


def _read(folder: Path) -> tuple[Mapping[str, _Pkcs11 | _AwsKms | _Transit], Sequence[tuple[str, Failure]]]:
    """The sections that can be read, and every mistake with the name of its section."""
    found: dict[str, _Pkcs11 | _AwsKms | _Transit] = {}
    mistakes: list[tuple[str, Failure]] = []
    for name, content in _sections(folder / "holders.toml").items():
        try:
            found[name] = section = _section(name, content)
        except ValueError as error:
            mistakes.append((name, _mistake(name, str(error))))
        else:
            mistakes += [(name, _mistake(name, why)) for why in _of_section(section, folder)]
    return found, [*mistakes, *_tokens_twice(found, folder)]


def _sections(path: Path) -> Mapping[str, Any]:
    try:
        content, _ = _files.read(path)
    except FileNotFoundError:
        return {}
    try:
        sections = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(_mistake("", f"it is not TOML: {error}")) from None
    if len(sections) > MAX_HOLDERS:
        raise Invalid(_mistake("", f"it names more than {MAX_HOLDERS} holders"))
    return sections


def _section(name: str, content: Any) -> _Pkcs11 | _AwsKms | _Transit:
    """A section as its kind has it. Raises ValueError with what is wrong, for people."""
    if not isinstance(content, dict):
        raise ValueError(f"`{name}` stands outside a section")  # noqa: TRY004  the file's mistake, not a caller's
    if not _NAME.fullmatch(name) or name == NAME:
        raise ValueError("a name is 1 to 32 of a-z 0-9 -, begins with a letter, and isn't `file`")
    kind = _KINDS.get(str(content.get("kind")))
    if kind is None:
        raise ValueError(f"`kind` must be one of {', '.join(sorted(_KINDS))}")
    try:
        return msgspec.convert(content, type=kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _of_section(section: _Pkcs11 | _AwsKms | _Transit, folder: Path) -> list[str]:
    least, most = LIMITS_S
    found = section.mistakes(folder)
    if not section.accounts:
        found.append("`accounts` is empty: nobody could use it")
    if not least <= section.timeout_s <= most:
        found.append(f"`timeout_s` must be from {least} to {most}")
    return found


def _tokens_twice(found: Mapping[str, _Section], folder: Path) -> list[tuple[str, Failure]]:
    """Two holders over one token would let two accounts use one another's keys."""
    seen: dict[tuple[Path, str], str] = {}
    mistakes = []
    for name, section in found.items():
        if isinstance(section, _Pkcs11):
            first = seen.setdefault(((folder / section.module).resolve(), section.token), name)
            if first != name:
                why = f"it is the same token as [{first}]; list the accounts there"
                mistakes.append((name, _mistake(name, why)))
    return mistakes


def _missing(folder: Path, **files: str | None) -> list[str]:
    return [
        f"`{field}`: there is no file {folder / name}"
        for field, name in files.items()
        if name is not None and not (folder / name).is_file()
    ]


def _unsafe(folder: Path, **files: str) -> list[str]:
    found = []
    for field, name in files.items():
        try:
            _files.read(folder / name)
        except OSError as error:
            found.append(f"`{field}`: {folder / name} can't be read: {error.strerror}")
        except Broken as error:
            found.append(f"`{field}`: {error.failures[0].message}")
    return found


def _mistake(name: str, why: str) -> Failure:
    where = f"holders.toml, [{name}]" if name else "holders.toml"
    return Failure("HOLDERS_FILE_INVALID", "{where}: {why}.", {"where": where, "why": why})
