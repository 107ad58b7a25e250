"""What whoever runs the installation may ask at the inner door: keys, lists of masks, forgetting; never a number.

For the process `operator` alone (`strongroom cards`). Who sits in front of it is told in `by`, and recorded. Long work
is done in steps that the caller asks for one by one, so that progress shows, and whoever stops asking stops it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from strongroom.kernel.clock import epoch_ms
from strongroom.kernel.errors import Failure, Invalid
from strongroom.kernel.ids import parse_uuid
from strongroom.kernel.secret import Secret
from strongroom.vault.cards.custody import Custody
from strongroom.vault.cards.doors import Answer, Call, Handler, card_body, only, text_of
from strongroom.vault.cards.records import By
from strongroom.vault.cards.rotation import CardKey, Rotation, parse_purpose
from strongroom.vault.holders import FileHolder

OPERATOR: Final = "operator"
_NAME: Final = re.compile(r"[A-Za-z0-9@._-]{1,100}", re.ASCII)


class Operating:
    """The operator's routes."""

    def __init__(self, custody: Custody, rotation: Rotation, holder: FileHolder, *, is_locked: bool) -> None:
        """`is_locked`: whether this process's memory stays out of swap."""
        self._custody = custody
        self._rotation = rotation
        self._holder = holder
        self._is_locked = is_locked
        self._root_changing = asyncio.Lock()

    @property
    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """Method and path to handler."""
        tenant = "/v1/tenants/{tenant}"
        routes: Mapping[tuple[str, str], Handler] = {
            ("POST", "/v1/tenants"): self._tenants,
            ("GET", "/v1/root"): self._root,
            ("POST", "/v1/root/rotate"): self._rotate_root,
            ("POST", "/v1/root/end"): self._end_root,
            ("POST", "/v1/root/passphrase"): self._passphrase,
            ("GET", tenant + "/keys"): self._keys,
            ("POST", tenant + "/keys/rotate"): self._rotate,
            ("POST", tenant + "/keys/work"): self._work,
            ("POST", tenant + "/keys/finish"): self._finish,
            ("POST", tenant + "/keys/rewrap"): self._rewrap,
            ("POST", tenant + "/cards"): self._cards,
            ("POST", tenant + "/cards/{token}/forget"): self._forget,
        }
        return {place: only(handler, OPERATOR) for place, handler in routes.items()}

    async def _tenants(self, call: Call) -> Answer:
        after = parse_uuid(text_of(call.body(), "after")) or UUID(int=0)
        return 200, {"tenants": [str(tenant) for tenant in await self._rotation.tenants(after)]}

    async def _root(self, call: Call) -> Answer:
        del call
        counts = await self._rotation.count_under_root()
        return 200, {
            "newest": self._holder.newest_root,
            "keys": {str(version): count for version, count in sorted(counts.items())},
            "protected": self._holder.is_protected,
            "memoryLocked": self._is_locked,
        }

    async def _rotate_root(self, call: Call) -> Answer:
        """Begin a rotation, unless one is unfinished: then its version stays the newest."""
        _by(call)
        async with self._root_changing:
            newest, counts = self._holder.newest_root, await self._rotation.count_under_root()
            if not any(count for version, count in counts.items() if version != newest):
                newest = await self._holder.rotate_root()
            await self._holder.rewrap_kept()
        return 200, {"newest": newest}

    async def _end_root(self, call: Call) -> Answer:
        _by(call)
        version = call.body().get("version")
        if type(version) is not int:
            raise Invalid(Failure("FIELD_IS_INVALID", "{field} must be a whole number.", {"field": "version"}))
        async with self._root_changing:
            await self._rotation.end_root(version)
        return 200, {"versions": list(self._holder.root_versions)}

    async def _passphrase(self, call: Call) -> Answer:
        _by(call)
        given = call.body().get("passphrase")
        if given is not None and not isinstance(given, str):
            raise Invalid(Failure("FIELD_IS_INVALID", "{field} must be a text.", {"field": "passphrase"}))
        async with self._root_changing:
            await self._holder.change_passphrase(None if given is None else Secret(given))
        return 200, {"protected": self._holder.is_protected}

    async def _keys(self, call: Call) -> Answer:
        found = await self._rotation.find(call.uuid(0))
        return 200, {"keys": [_key_body(key) for key in found.keys], "behind": found.behind}

    async def _rotate(self, call: Call) -> Answer:
        purpose = parse_purpose(call.body().get("purpose"))
        if purpose is None:
            raise Invalid(Failure("CARD_KEY_PURPOSE_INVALID", "purpose is seal or fingerprint."))
        return 200, {"version": await self._rotation.begin(call.uuid(0), purpose, _by(call))}

    async def _work(self, call: Call) -> Answer:
        _by(call)
        step = await self._rotation.work(call.uuid(0), text_of(call.body(), "after"))
        return 200, {"done": step.done, "after": step.after}

    async def _finish(self, call: Call) -> Answer:
        destroyed = await self._rotation.finish(call.uuid(0), _by(call))
        return 200, {"destroyed": [{"purpose": purpose, "version": version} for purpose, version in destroyed]}

    async def _rewrap(self, call: Call) -> Answer:
        return 200, {"done": await self._rotation.rewrap(call.uuid(0), _by(call))}

    async def _cards(self, call: Call) -> Answer:
        found = await self._custody.list_cards(call.uuid(0), text_of(call.body(), "after"))
        return 200, {"cards": [card_body(card) for card in found]}

    async def _forget(self, call: Call) -> Answer:
        await self._custody.forget_card(call.uuid(0), call.path[1], _by(call))
        return 200, {}


def _by(call: Call) -> By:
    """Who asks. Raises errors.Invalid (`FIELD_IS_INVALID`)."""
    name = text_of(call.body(), "by")
    if not _NAME.fullmatch(name):
        raise Invalid(Failure("FIELD_IS_INVALID", "{field} must be a name.", {"field": "by"}))
    return By(f"{OPERATOR}:{name}", call.correlation_id)


def _key_body(key: CardKey) -> dict[str, Any]:
    return {
        "purpose": key.purpose,
        "version": key.version,
        "state": key.state,
        "rootVersion": key.root,
        "createdTimestamp": epoch_ms(key.created_at),
        "dueTimestamp": epoch_ms(key.due_at) if key.state == "ACTIVE" else None,
        "retiredTimestamp": None if key.retired_at is None else epoch_ms(key.retired_at),
        "destroyedTimestamp": None if key.destroyed_at is None else epoch_ms(key.destroyed_at),
    }
