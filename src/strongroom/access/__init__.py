"""Who may do what: the vocabulary of permissions, the built-in roles, and `require`."""

from strongroom.access.decision import allows, require
from strongroom.access.roles import ACCOUNT_ROLES, TENANT_ROLES, Permission, permissions_of

__all__ = ["ACCOUNT_ROLES", "TENANT_ROLES", "Permission", "allows", "permissions_of", "require"]
