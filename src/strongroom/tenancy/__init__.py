"""Accounts and their tenants: who they are, where they live, and what state they are in."""

from strongroom.tenancy.accounts import (
    Account,
    License,
    count_tenants,
    create_account,
    find_account,
    get_account,
    register_account,
    update_account,
)
from strongroom.tenancy.addresses import Address
from strongroom.tenancy.lifecycle import TenantStatus
from strongroom.tenancy.tenants import (
    StatusDetails,
    Tenant,
    approve_tenant,
    create_tenant,
    delete_tenant,
    find_tenant,
    get_tenant,
    plan_tenant,
    register_tenant,
    reject_tenant,
    update_tenant,
)

__all__ = [
    "Account",
    "Address",
    "License",
    "StatusDetails",
    "Tenant",
    "TenantStatus",
    "approve_tenant",
    "count_tenants",
    "create_account",
    "create_tenant",
    "delete_tenant",
    "find_account",
    "find_tenant",
    "get_account",
    "get_tenant",
    "plan_tenant",
    "register_account",
    "register_tenant",
    "reject_tenant",
    "update_account",
    "update_tenant",
]
