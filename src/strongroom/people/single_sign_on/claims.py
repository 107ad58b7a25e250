"""What a provider says of somebody, once it is known that the provider says it and means us."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from strongroom.kernel.errors import Failure, Unauthenticated


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """`subject` is the provider's own name for somebody, which it gives to nobody else; `session` its own session,
    and `session_ends` when that does, if it says so. `proven_at`: when somebody proved to it last who
    they are, if it says so; it may have answered from a session of its own since.

    The other words are as the provider wrote them; empty where it said nothing.
    """

    subject: str
    address: str
    name: str
    groups: tuple[str, ...]
    session: str
    session_ends: datetime | None = None
    proven_at: datetime | None = None


def refused(reason: str) -> Unauthenticated:
    """The refusal of a provider's answer. `reason` is for whoever sets it up: without secrets, and nobody's data."""
    return Unauthenticated(
        Failure(
            "PROVIDER_ANSWER_REFUSED",
            "The provider's answer was not taken: {reason}. Nobody was signed in.",
            {"reason": reason[:300]},
        )
    )


def word(text: str) -> str:
    """A word of the provider's, as it may be shown and recorded."""
    return "".join(letter for letter in text[:60] if letter.isalnum() or letter in "_-. ") or "nothing"
