"""Who acts.

Every operation has an actor; every audit entry names it. What an actor may do is decided in `strongroom.access`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from strongroom.kernel.custom_roles import CustomRole
from strongroom.kernel.ids import AccountId, ApiKeyId, TenantId
from strongroom.kernel.networks import Address


class ActorKind(enum.StrEnum):
    """The kinds of actor the record knows."""

    API_KEY = "api-key"
    PERSON = "person"
    """Somebody who has signed in, by their id."""
    OPERATOR = "operator"
    """Somebody at the installation's own command line."""
    SYSTEM = "system"
    """One of our own processes (`name` says which)."""
    STRANGER = "stranger"
    """Nobody we could identify; only ever refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Somebody or something that acts, with the roles it holds.

    `account_id` is None for the system and strangers only; `tenant_id` is None above the level of a tenant. `source` is
    the address that a request of theirs came from. `token_id` names the access token that they came with; `scopes` are
    names of permissions: of what the roles allow, these are all it is good for (None: everything). Of `roles`, those
    that the account made itself allow what `custom_roles` says, and nothing without it. `proven_at` is when a person
    last proved who they are.
    """

    kind: ActorKind
    name: str
    account_id: AccountId | None = None
    tenant_id: TenantId | None = None
    key_id: ApiKeyId | None = None
    roles: frozenset[str] = frozenset()
    source: Address | None = None
    token_id: UUID | None = None
    scopes: frozenset[str] | None = None
    custom_roles: tuple[CustomRole, ...] = ()
    proven_at: datetime | None = None

    def __hash__(self) -> int:
        """The name tells nearly all actors apart, and the hash of all fields costs a hundred times as much."""
        return hash(self.name)


def system(name: str) -> Actor:
    """One of our own processes: `worker`, `reconciler`, `prove`…"""
    return Actor(kind=ActorKind.SYSTEM, name=name)


def operator(name: str = "command-line") -> Actor:
    """A person at the installation's own command line, who can read its files anyway."""
    return Actor(kind=ActorKind.OPERATOR, name=name)


UNKNOWN_MAKER: Final = "unknown"
"""Among those who made an API key: it was made before they were written down. Such a key is apart from nobody."""
STRANGER = Actor(kind=ActorKind.STRANGER, name="stranger")
