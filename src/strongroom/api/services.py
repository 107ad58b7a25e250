"""What route handlers may use; put together in `strongroom.assembly`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from strongroom.database import Databases
from strongroom.kernel.actors import Actor
from strongroom.kernel.clock import Clock
from strongroom.kernel.config import Config
from strongroom.kernel.networks import Address


class TokenReader(Protocol):
    """Tells who a bearer token is (`strongroom.identity`)."""

    def read(self, token: str, source: Address | None) -> Actor:
        """The actor, who comes from `source`.

        Raises errors.Unauthenticated when the token is forged, expired or of another environment.
        """
        ...


@dataclass(slots=True, kw_only=True)
class Services:
    """What handlers may use; put together in `strongroom.assembly`."""

    config: Config
    clock: Clock
    databases: Databases
    tokens: TokenReader
    parts: Mapping[type, Any]
    """Further parts by their type; see `part`."""

    def part(self, kind: type[Any]) -> Any:
        """The part of that type."""
        return self.parts[kind]
