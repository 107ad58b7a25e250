"""The card vault as whoever runs the installation sees it: keys, masks, forgetting; never a number.

Asked at the inner door by the process `operator`. What takes long is asked for step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar
from uuid import UUID

import msgspec

from strongroom.kernel.secret import Secret
from strongroom.vault.card_client import CardDescription, CardVault

Purpose = Literal["seal", "fingerprint"]
T = TypeVar("T")
Progress = Callable[[int], None]
"""Told how many are done."""


class CardRoot(msgspec.Struct, rename="camel", frozen=True):
    """The vault's root key: its newest version, how many tenants' keys are under each, whether its file is under a
    passphrase; and whether the vault's memory is kept out of swap."""

    newest: int
    keys: Mapping[str, int]
    protected: bool
    memory_locked: bool


class CardKey(msgspec.Struct, rename="camel", frozen=True):
    """A version of a tenant's key. Timestamps: epoch milliseconds; `due_timestamp`: the end of its cryptoperiod."""

    purpose: Purpose
    version: int
    state: str
    root_version: int
    created_timestamp: int
    due_timestamp: int | None
    retired_timestamp: int | None
    destroyed_timestamp: int | None


class CardKeys(msgspec.Struct, frozen=True):
    """A tenant's keys, and how many rows aren't under the newest ones yet."""

    keys: Sequence[CardKey]
    behind: int


class Destroyed(msgspec.Struct, frozen=True):
    """A version of a key that is no more."""

    purpose: Purpose
    version: int


class _Tenants(msgspec.Struct):
    tenants: list[UUID]


class _Cards(msgspec.Struct):
    cards: list[CardDescription]


class _Step(msgspec.Struct):
    done: int
    after: str


class _Version(msgspec.Struct):
    version: int


class _Newest(msgspec.Struct):
    newest: int


class _Finished(msgspec.Struct):
    destroyed: list[Destroyed]


class _Done(msgspec.Struct):
    done: int


class CardOperator:
    """What an operator, called `by`, may have the vault do. Everything raises as `CardVault`, and as the vault says."""

    def __init__(self, vault: CardVault, by: str) -> None:
        self._vault = vault
        self._by = by

    async def tenants(self) -> Sequence[UUID]:
        """All tenants who have keys in the vault."""
        found: list[UUID] = []
        while page := (await self._post("/v1/tenants", _Tenants, after=_after(found))).tenants:
            found += page
        return found

    async def root(self) -> CardRoot:
        """The root key."""
        return await self._vault.ask("GET", "/v1/root", None, CardRoot)

    async def rotate_root(self) -> int:
        """A new version of the root, unless tenants' keys still have to come under the newest one; its number."""
        return (await self._post("/v1/root/rotate", _Newest)).newest

    async def end_root(self, version: int) -> None:
        """Forget an old version of the root (`ROOT_VERSION_IN_USE`)."""
        await self._post("/v1/root/end", dict[str, Any], version=version)

    async def change_passphrase(self, passphrase: Secret[str] | None) -> None:
        """Put the root's file under another passphrase, or under none."""
        given = None if passphrase is None else passphrase.reveal()
        await self._post("/v1/root/passphrase", dict[str, Any], passphrase=given)

    async def keys(self, tenant: UUID) -> CardKeys:
        """A tenant's keys."""
        return await self._vault.ask("GET", f"/v1/tenants/{tenant}/keys", None, CardKeys)

    async def rewrap(self, tenant: UUID) -> int:
        """Wrap a tenant's keys under the newest root; how many weren't."""
        return (await self._post(f"/v1/tenants/{tenant}/keys/rewrap", _Done)).done

    async def begin(self, tenant: UUID, purpose: Purpose) -> int:
        """A new version of a tenant's key; its number (`CARD_KEY_ROTATION_UNFINISHED`)."""
        return (await self._post(f"/v1/tenants/{tenant}/keys/rotate", _Version, purpose=purpose)).version

    async def renew(self, tenant: UUID, progress: Progress) -> int:
        """Bring all rows of a tenant under its newest keys; how many weren't. May break off, and be asked for again."""
        done, after = 0, ""
        while (step := await self._post(f"/v1/tenants/{tenant}/keys/work", _Step, after=after)).done:
            done, after = done + step.done, step.after
            progress(done)
        return done

    async def finish(self, tenant: UUID) -> Sequence[Destroyed]:
        """Destroy the old versions that nothing is under; which."""
        return (await self._post(f"/v1/tenants/{tenant}/keys/finish", _Finished)).destroyed

    async def cards(self, tenant: UUID, after: str = "") -> Sequence[CardDescription]:
        """A tenant's cards, masked: a page of those after a token, empty at the end."""
        return (await self._post(f"/v1/tenants/{tenant}/cards", _Cards, after=after)).cards

    async def forget(self, tenant: UUID, token: str) -> None:
        """Forget a card, for good (`CARD_NOT_FOUND`)."""
        await self._post(f"/v1/tenants/{tenant}/cards/{token}/forget", dict[str, Any])

    async def _post(self, path: str, kind: type[T], **body: object) -> T:
        return await self._vault.ask("POST", path, {"by": self._by, **body}, kind)


def _after(tenants: Sequence[UUID]) -> str:
    return str(tenants[-1] if tenants else UUID(int=0))
