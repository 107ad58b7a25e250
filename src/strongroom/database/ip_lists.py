"""IP lists as operations enforce them (promise ACC-3): whoever acts from an address that isn't listed is refused.

A tenant's list is in its region (`strongroom.database.gates`). An account's operations reach into every region, so its
list is asked for in the directory, in the same query as its key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from strongroom.kernel.actors import Actor, ActorKind
from strongroom.kernel.errors import Failure, Forbidden
from strongroom.kernel.networks import Networks


@dataclass(frozen=True, slots=True)
class IpList:
    """From where API keys, and from where people in the portals, may come. None: from anywhere."""

    api: Networks | None = None
    portal: Networks | None = None

    @classmethod
    def of(cls, api: Sequence[str] | None, portal: Sequence[str] | None) -> IpList:
        """The list that a row says: ranges as texts."""
        return cls(*(None if ranges is None else Networks.parse(ranges) for ranges in (api, portal)))

    def allows(self, actor: Actor) -> bool:
        """Whether the actor may come from where it comes from. Our own processes come from nowhere."""
        networks = self.api if actor.kind is ActorKind.API_KEY else self.portal
        return networks is None or actor.source is None or actor.source in networks

    def check(self, actor: Actor) -> None:
        """Raises errors.Forbidden (`ADDRESS_NOT_ALLOWED`) unless the actor may come from where it comes from."""
        if not self.allows(actor):
            raise Forbidden(
                Failure(
                    "ADDRESS_NOT_ALLOWED",
                    "Requests from {address} are not allowed. Somebody who may change the IP list can add the address.",
                    {"address": str(actor.source)},
                )
            )


ANYWHERE: Final = IpList()
