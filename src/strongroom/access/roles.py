"""Permissions and the built-in roles that hold them (wire contract, section 2)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final


class Permission(enum.StrEnum):
    """What an operation may require. The value is the name that explanations and the record use."""

    ACCOUNT_MANAGE = "account:manage"
    ACCOUNT_KEYS_MANAGE = "account-keys:manage"
    USERS_READ = "users:read"
    USERS_MANAGE = "users:manage"
    """Invite people, change what they may do, end their sessions, remove them."""
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


P = Permission
_ACCOUNT: Final[Mapping[str, frozenset[Permission]]] = {
    "account-admin": frozenset(
        {
            P.ACCOUNT_MANAGE,
            P.ACCOUNT_KEYS_MANAGE,
            P.USERS_READ,
            P.USERS_MANAGE,
            P.IP_LIST_MANAGE,
            P.TENANTS_READ,
            P.TENANTS_WRITE,
            P.TENANTS_APPROVE,
            P.ALERTS_READ,
            P.ENCRYPTION_KEYS_READ,
            P.ENCRYPTION_KEYS_MANAGE,
        }
    ),
    "account-tenant-read": frozenset({P.TENANTS_READ}),
    "account-tenant-write": frozenset({P.TENANTS_READ, P.TENANTS_WRITE}),
    "account-tenant-approval": frozenset({P.TENANTS_READ, P.TENANTS_APPROVE}),
    "account-encryption-key-read": frozenset({P.ENCRYPTION_KEYS_READ}),
    "account-encryption-key-write": frozenset({P.ENCRYPTION_KEYS_READ, P.ENCRYPTION_KEYS_MANAGE}),
}
_TENANT: Final[Mapping[str, frozenset[Permission]]] = {
    "tenant-admin": frozenset(
        {
            P.TENANT_MANAGE, P.TENANT_KEYS_MANAGE, P.APPS_READ, P.APPS_WRITE, P.COLLECT_SCHEMES_READ,
            P.COLLECT_SCHEMES_WRITE, P.PAYOUT_SCHEMES_READ, P.PAYOUT_SCHEMES_WRITE, P.TRANSACTIONS_READ,
            P.TRANSACTIONS_WRITE, P.CUSTOMERS_FORGET, P.CUSTOMERS_OPEN, P.ALERTS_READ, P.ENCRYPTION_KEYS_READ,
            P.ENCRYPTION_KEYS_MANAGE, P.CARDS_WRITE, P.CARDS_MOVE, P.IP_LIST_MANAGE,
        }
    ),
    "tenant-management": frozenset({P.TENANT_MANAGE, P.IP_LIST_MANAGE, P.ALERTS_READ}),
    "tenant-app-read": frozenset({P.APPS_READ}),
    "tenant-app-write": frozenset({P.APPS_READ, P.APPS_WRITE}),
    "tenant-collect-scheme-read": frozenset({P.COLLECT_SCHEMES_READ}),
    "tenant-collect-scheme-write": frozenset({P.COLLECT_SCHEMES_READ, P.COLLECT_SCHEMES_WRITE}),
    "tenant-payout-scheme-read": frozenset({P.PAYOUT_SCHEMES_READ}),
    "tenant-payout-scheme-write": frozenset({P.PAYOUT_SCHEMES_READ, P.PAYOUT_SCHEMES_WRITE}),
    "tenant-encryption-key-read": frozenset({P.ENCRYPTION_KEYS_READ}),
    "tenant-encryption-key-write": frozenset({P.ENCRYPTION_KEYS_READ, P.ENCRYPTION_KEYS_MANAGE}),
    "tenant-reward-group-read": frozenset(),
    "tenant-reward-group-write": frozenset(),
    "tenant-transaction-read": frozenset({P.TRANSACTIONS_READ}),
    "tenant-transaction-write": frozenset({P.TRANSACTIONS_READ, P.TRANSACTIONS_WRITE}),
    "tenant-vault-open": frozenset({P.TRANSACTIONS_READ, P.CUSTOMERS_OPEN}),
    "tenant-card-write": frozenset({P.CARDS_WRITE}),
    "tenant-card-transfer": frozenset({P.CARDS_MOVE}),
    "tenant-mandate-read": frozenset(),
    "tenant-mandate-write": frozenset(),
    "tenant-bridge-read": frozenset(),
    "tenant-catalog-read": frozenset(),
}  # fmt: skip
ACCOUNT_ROLES: Final = frozenset(_ACCOUNT)
"""Roles that an account's key can hold."""
TENANT_ROLES: Final = frozenset(_TENANT)
"""Roles that a tenant's key can hold. Reward groups, mandates, bridge and catalogue have no routes yet."""


@lru_cache(maxsize=4096)
def permissions_of(roles: frozenset[str]) -> frozenset[Permission]:
    """What the roles allow together; unknown roles allow nothing."""
    return _union(_ACCOUNT.get(role) or _TENANT.get(role) or frozenset() for role in roles)


def _union(sets: Iterable[frozenset[Permission]]) -> frozenset[Permission]:
    return frozenset().union(*sets)
