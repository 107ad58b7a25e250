"""What route handlers may use; put together in `strongroom.assembly`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strongroom.database import Databases
from strongroom.identity import Admission
from strongroom.kernel.clock import Clock
from strongroom.kernel.config import Config


@dataclass(slots=True, kw_only=True)
class Services:
    """What handlers may use; put together in `strongroom.assembly`."""

    config: Config
    clock: Clock
    databases: Databases
    admission: Admission
    parts: Mapping[type, Any]
    """Further parts by their type; see `part`."""

    def part(self, kind: type[Any]) -> Any:
        """The part of that type."""
        return self.parts[kind]
