"""Orders in bulk: NDJSON streamed to the bulk route over one TLS connection, until the last line has its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What came of it, and the CPU microseconds that each instruction cost, by part of the system."""

    instructions: int
    seconds: float
    cpu_us: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Instructions a second, end to end."""
        return self.instructions / self.seconds
