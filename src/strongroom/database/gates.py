"""What a tenant's operations check before they begin, beyond the key: its IP list, and which tokens were revoked.

Both are in the tenant's region. Every process remembers them for as long as the scope's epoch stays, which it is told
with each operation's first exchange; so they cost nothing, and a change holds at once everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from strongroom.database.ip_lists import ANYWHERE, IpList
from strongroom.database.operation import Session, token_revoked
from strongroom.kernel.actors import Actor

MAX_REMEMBERED: Final = 50_000
"""Most gates that a process remembers; with more, it begins anew."""


@dataclass(frozen=True, slots=True)
class Gate:
    """From where a tenant may be reached, and the ids of tokens that aren't good any more."""

    ip_list: IpList = ANYWHERE
    revoked: frozenset[UUID] = frozenset()

    def check(self, actor: Actor) -> None:
        """Raises errors.Forbidden (`ADDRESS_NOT_ALLOWED`) and errors.Unauthenticated (`TOKEN_REVOKED`)."""
        self.ip_list.check(actor)
        if actor.token_id is not None and actor.token_id in self.revoked:
            raise token_revoked()


OPEN: Final = Gate()


class Gates:
    """The gates of scopes, as of the epochs at which they were read."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, UUID], tuple[int, Gate]] = {}

    def known(self, region: str, scope: UUID, epoch: int) -> Gate | None:
        """The scope's gate as of this epoch; None when it has to be read first."""
        found = self._known.get((region, scope))
        return found[1] if found is not None and found[0] == epoch else None

    async def read(self, session: Session, region: str, scope: UUID) -> Gate:
        """The scope's gate, as the session's transaction sees it."""
        epoch = session.epoch or 0
        found = self.known(region, scope, epoch)
        if found is None:
            cursor = await session.connection.execute(
                "select api, portal, array(select token_id from revoked_tokens where scope_id = %(scope)s) "
                "from (values (%(scope)s::uuid)) as asked (scope_id) left join ip_lists using (scope_id)",
                {"scope": scope},
            )
            row = await cursor.fetchone()
            found = OPEN if row is None else Gate(IpList.of(row[0], row[1]), frozenset(row[2]))
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[region, scope] = (epoch, found)
        return found
