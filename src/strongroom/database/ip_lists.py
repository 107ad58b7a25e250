"""IP lists as operations enforce them (promise ACC-3): whoever acts from an address that isn't listed is refused.

A tenant's list is in its region, and every process remembers it for as long as the scope's epoch stays. An account's
operations reach into every region, so its list is asked for in the directory, in the same query as its key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from strongroom.database.operation import Session
from strongroom.kernel.actors import Actor, ActorKind
from strongroom.kernel.errors import Failure, Forbidden
from strongroom.kernel.networks import Networks

MAX_REMEMBERED: Final = 50_000
"""Most lists that a process remembers; with more, it begins anew."""


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


class IpLists:
    """The lists of scopes, as of the epochs at which they were read."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, UUID], tuple[int, IpList]] = {}

    def known(self, region: str, scope: UUID, epoch: int) -> IpList | None:
        """The scope's list as of this epoch; None when it has to be read first."""
        found = self._known.get((region, scope))
        return found[1] if found is not None and found[0] == epoch else None

    async def read(self, session: Session, region: str, scope: UUID) -> IpList:
        """The scope's list, as the session's transaction sees it."""
        epoch = session.epoch or 0
        found = self.known(region, scope, epoch)
        if found is None:
            cursor = await session.connection.execute("select api, portal from ip_lists where scope_id = %s", (scope,))
            row = await cursor.fetchone()
            found = ANYWHERE if row is None else IpList.of(*row)
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[region, scope] = (epoch, found)
        return found
