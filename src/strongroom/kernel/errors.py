"""What can go wrong, by situation.

One tree. A failure has a stable code that clients may branch on, a message for people and a template with the values
that went into it. HTTP statuses are not known here; `strongroom.api.problems` maps situations to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

_NOTHING: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that is wrong with a request.

    `template` holds `{name}` placeholders, all of them keys of `values`; values never hold personal data or secrets.
    """

    code: str
    template: str
    values: Mapping[str, object] = field(default_factory=lambda: _NOTHING)

    @property
    def message(self) -> str:
        """The template with its values filled in."""
        return self.template.format_map(self.values) if self.values else self.template


class StrongroomError(Exception):
    """The root of everything strongroom raises on purpose; carries one or more failures, in field order."""

    def __init__(self, *failures: Failure) -> None:
        if not failures:
            raise TypeError("an error needs at least one failure")
        super().__init__("; ".join(failure.message for failure in failures))
        self.failures: Sequence[Failure] = failures

    @property
    def code(self) -> str:
        """The first failure's code."""
        return self.failures[0].code


class Refused(StrongroomError):
    """A business refusal: the request is understood and can't be done as it stands."""


class Invalid(Refused):
    """The request's content breaks a rule; lists every failure found."""


class NotFound(Refused):
    """What the request names doesn't exist for this caller."""


class AlreadyExists(Refused):
    """What the request would create is there already."""


class Conflict(Refused):
    """The thing's present state doesn't allow the change."""


class TooLarge(StrongroomError):
    """The request is over a named limit of size."""


class UnsupportedMedia(StrongroomError):
    """The request's content type is not one that is read."""


class KeyReused(StrongroomError):
    """An idempotency key came back with another body."""


class InFlight(StrongroomError):
    """The same idempotency key is being worked on right now."""


class Unauthenticated(StrongroomError):
    """Nobody we know, or a credential that is expired, revoked, forged or replayed."""


class Forbidden(StrongroomError):
    """Known, but not allowed."""


class TooOften(StrongroomError):
    """More requests than a named limit allows in a time; nothing was done."""

    def __init__(self, *failures: Failure, retry_after_s: int = 1) -> None:
        super().__init__(*failures)
        self.retry_after_s = retry_after_s


class Unavailable(StrongroomError):
    """A part we depend on is gone for now; nothing was changed, or the outcome is unknown and says so."""


class Collided(Unavailable):
    """Two changes met, and the database refused this one; nothing was changed."""


class Broken(StrongroomError):
    """Stored data fails its own checks (an envelope that doesn't open, a row in the wrong place). Never ignored."""
