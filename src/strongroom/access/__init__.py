"""Who may do what: the vocabulary of permissions, roles as Cedar policies, `require`, and why (`explain`)."""

from strongroom.access.custom_roles import check_apart, check_grant, grantable, with_own_roles
from strongroom.access.decision import (
    ACCOUNT_ROLES,
    TENANT_ROLES,
    Explanation,
    Payment,
    Situation,
    allows,
    explain,
    limits,
    may_allow,
    permissions_of,
    require,
    require_held,
    situation_of,
)
from strongroom.access.roles import CUSTOM, Permission

__all__ = [
    "ACCOUNT_ROLES",
    "CUSTOM",
    "TENANT_ROLES",
    "Explanation",
    "Payment",
    "Permission",
    "Situation",
    "allows",
    "check_apart",
    "check_grant",
    "explain",
    "grantable",
    "limits",
    "may_allow",
    "permissions_of",
    "require",
    "require_held",
    "situation_of",
    "with_own_roles",
]
