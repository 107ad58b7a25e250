"""Controls: how each promise is checked. A promise without a check is unbuilt, and says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from strongroom.trust.checks.addresses import check_addresses
from strongroom.trust.checks.at_rest import check_at_rest
from strongroom.trust.checks.cards import check_cards
from strongroom.trust.checks.customer_keys import check_customer_keys
from strongroom.trust.checks.invitations import check_invitations
from strongroom.trust.checks.limits import check_limits
from strongroom.trust.checks.once import check_once
from strongroom.trust.checks.privileges import check_privileges
from strongroom.trust.checks.segregation import check_segregation
from strongroom.trust.checks.single_sign_on import check_single_sign_on
from strongroom.trust.checks.tokens import check_tokens
from strongroom.trust.checks.transport import check_transport
from strongroom.trust.checks.worlds import check_worlds
from strongroom.trust.verdicts import Figure
from strongroom.trust.workbench import Workbench

Check = Callable[[Workbench], Awaitable[Figure]]
"""Exercises the running system. What it raises counts as broken, except verdicts.CannotTell, which claims nothing."""

CHECKS: Final[Mapping[str, Check]] = {
    "ACC-1": check_invitations,
    "ACC-2": check_single_sign_on,
    "ACC-3": check_addresses,
    "ACC-4": check_privileges,
    "ACC-5": check_limits,
    "ACC-6": check_tokens,
    "ENC-1": check_transport,
    "ENC-2": check_at_rest,
    "ENC-3": check_customer_keys,
    "ENC-4": check_cards,
    "ENC-5": check_segregation,
    "PAY-2": check_once,
    "PAY-3": check_worlds,
}
"""Promise id → its check."""
