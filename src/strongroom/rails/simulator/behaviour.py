"""How the simulator behaves: well, unless a payment's remittance text or its operator asks for something else."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

DEFAULT_REFUSAL: Final = "AM04"
"""Insufficient funds (ISO 20022 external code set, ExternalStatusReason1Code)."""

_WORD = re.compile(r"\bSIM:([A-Z0-9-]+)", re.ASCII)
_REFUSE = re.compile(r"REFUSE-([A-Z]{2}[0-9]{2})", re.ASCII)


class Behaviour(enum.StrEnum):
    """What the simulator can do with a payment. The magic word of each is its value in capitals, `_` written `-`."""

    SETTLE = "settle"
    """Execute and say so at once. What happens when nobody asks for anything else."""
    REFUSE = "refuse"
    """Refuse for good, with an ISO reason code (magic word `REFUSE-AM04`)."""
    PENDING_SETTLE = "pending_settle"
    """Accept; execute a moment later and report that by callback."""
    PENDING_FAIL = "pending_fail"
    """Accept; fail a moment later and report that by callback."""
    PENDING_ENQUIRY = "pending_enquiry"
    """Accept; execute when first asked about it, and send no callback."""
    TIMEOUT_AFTER = "timeout_after_accepting"
    """Execute, and never answer."""
    TIMEOUT_BEFORE = "timeout_before_accepting"
    """Forget the request, and never answer."""
    LATE = "late"
    """Leave the request lying for longer than anybody waits, then take it in as if it had just come."""
    ERROR_200 = "error_in_200"
    """Execute, and answer 200 with a body that says that something went wrong."""
    SLOW_DRIP = "slow_drip"
    """Execute, and answer one byte every second."""
    DUPLICATE_CALLBACKS = "duplicate_callbacks"
    """As PENDING_SETTLE, each callback sent three times."""
    OUT_OF_ORDER_CALLBACKS = "out_of_order_callbacks"
    """As PENDING_SETTLE, the callback that says "pending" sent after the one that says "settled"."""
    OUTAGE = "outage"
    """Answer 503 to everything about payments."""


MAGIC_WORDS: Final = {
    "TIMEOUT-AFTER": Behaviour.TIMEOUT_AFTER,
    "TIMEOUT-BEFORE": Behaviour.TIMEOUT_BEFORE,
    "LATE": Behaviour.LATE,
    "PENDING-SETTLE": Behaviour.PENDING_SETTLE,
    "PENDING-FAIL": Behaviour.PENDING_FAIL,
    "PENDING-ENQUIRY": Behaviour.PENDING_ENQUIRY,
    "ERROR-200": Behaviour.ERROR_200,
    "SLOW-DRIP": Behaviour.SLOW_DRIP,
    "DUPLICATE-CALLBACK": Behaviour.DUPLICATE_CALLBACKS,
    "OUT-OF-ORDER": Behaviour.OUT_OF_ORDER_CALLBACKS,
}
"""What may follow `SIM:` in a remittance text, besides `REFUSE-` and a reason code."""


class UnknownMagicWord(ValueError):
    """A remittance text asks for a behaviour that doesn't exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """A behaviour and, for a refusal, its reason."""

    behaviour: Behaviour = Behaviour.SETTLE
    reason: str = DEFAULT_REFUSAL


def manner_of(remittance: str) -> Manner | None:
    """The manner that a remittance text asks for, or None. Raises UnknownMagicWord."""
    word = _WORD.search(remittance)
    if word is None:
        return None
    if refusal := _REFUSE.fullmatch(word[1]):
        return Manner(behaviour=Behaviour.REFUSE, reason=refusal[1])
    if word[1] not in MAGIC_WORDS:
        raise UnknownMagicWord(f"SIM:{word[1]} is not one of REFUSE-<code>, {', '.join(MAGIC_WORDS)}")
    return Manner(behaviour=MAGIC_WORDS[word[1]])


class Mood:
    """What the operator asked for: a manner for every payment, or for the next few. Forgotten with the process."""

    def __init__(self) -> None:
        self._manner: Manner | None = None
        self._remaining: int | None = None

    def set(self, manner: Manner | None, requests: int | None) -> None:
        """Take on `manner` for the next `requests` requests (None: until told otherwise); None clears it."""
        self._manner, self._remaining = manner, requests

    def next(self) -> Manner | None:
        """The manner for the request that has just come, or None."""
        manner = self._manner
        if manner is not None and self._remaining is not None:
            self._remaining -= 1
            if self._remaining <= 0:
                self._manner = None
        return manner

    @property
    def is_outage(self) -> bool:
        """Whether the next request meets an outage."""
        return self._manner is not None and self._manner.behaviour is Behaviour.OUTAGE
