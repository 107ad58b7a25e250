"""Permissions, and the built-in roles that hold them (wire contract, section 2).

What a role allows is policy text, in `policies/`; this module only says which roles and permissions there are.
"""

from __future__ import annotations

import enum
from typing import Final


class Permission(enum.StrEnum):
    """What an operation may require. The value is the name that policies, explanations and the record use."""

    ACCOUNT_MANAGE = "account:manage"
    ACCOUNT_KEYS_MANAGE = "account-keys:manage"
    USERS_READ = "users:read"
    USERS_MANAGE = "users:manage"
    """Invite people, change what they may do, end their sessions, remove them."""
    ROLES_READ = "roles:read"
    ROLES_MANAGE = "roles:manage"
    """Make the account's own roles, and say which permissions nobody may hold together."""
    TENANTS_READ = "tenants:read"
    TENANTS_WRITE = "tenants:write"
    TENANTS_APPROVE = "tenants:approve"
    TENANT_MANAGE = "tenant:manage"
    TENANT_KEYS_MANAGE = "tenant-keys:manage"
    APPS_READ = "apps:read"
    APPS_WRITE = "apps:write"
    COLLECT_SCHEMES_READ = "collect-schemes:read"
    COLLECT_SCHEMES_WRITE = "collect-schemes:write"
    PAYOUT_SCHEMES_READ = "payout-schemes:read"
    PAYOUT_SCHEMES_WRITE = "payout-schemes:write"
    TRANSACTIONS_READ = "transactions:read"
    TRANSACTIONS_WRITE = "transactions:write"
    PAYMENTS_APPROVE = "payments:approve"
    """Let payments that somebody else made go out, or stop them."""
    APPROVAL_RULES_MANAGE = "approval-rules:manage"
    """Say which payments need whose approval."""
    CUSTOMERS_FORGET = "customers:forget"
    CUSTOMERS_OPEN = "customers:open"
    """See in clear what customers' vaults show through masks, for a purpose."""
    IP_LIST_MANAGE = "ip-list:manage"
    """Say from which addresses the account, or the tenant, may be reached."""
    ALERTS_READ = "alerts:read"
    ENCRYPTION_KEYS_READ = "encryption-keys:read"
    ENCRYPTION_KEYS_MANAGE = "encryption-keys:manage"
    CARDS_WRITE = "cards:write"
    """Give card numbers to the card vault, or let a form do it."""
    CARDS_MOVE = "cards:move"
    """Move cards to another vault, or in from one; takes two."""


CUSTOM: Final = "custom:"
"""What the names of accounts' own roles begin with, so that no built-in role ever takes one."""
WITHOUT_ROUTES: Final = frozenset(
    {
        "tenant-reward-group-read", "tenant-reward-group-write", "tenant-mandate-read", "tenant-mandate-write",
        "tenant-bridge-read", "tenant-catalog-read",
    }
)  # fmt: skip
"""Roles of the wire contract that allow nothing yet, as what they are for isn't there; policies name the others."""
