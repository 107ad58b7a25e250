"""The account of the key that asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from strongroom.access import Permission
from strongroom.api.addresses import AddressBody, AddressRequest, address_body, read_address
from strongroom.api.reading import Collector, read_object
from strongroom.api.routing import Access, Call, Reply, Route
from strongroom.database import Operation
from strongroom.tenancy import Account, License, count_tenants, get_account, update_account

MAX_NAME: Final = 100
MAX_REF: Final = 50


class LicenseBody(msgspec.Struct, rename="camel"):
    """What the account may use; −1 is unlimited. `tenantUsage` counts tenants that await approval or are approved."""

    license_id: str
    license_name: str
    max_tenants: int
    max_transactions: int
    max_collect_apps: int
    max_payout_apps: int
    license_period_start_date: datetime | None
    license_period_end_date: datetime | None
    tenant_usage: int
    enable_mandates: bool


class AccountBody(msgspec.Struct, rename="camel"):
    """An account."""

    account_id: str
    account_ref: str | None
    company_name: str
    billing_contact_first_name: str | None
    billing_contact_last_name: str | None
    billing_contact_address: AddressBody | None
    tenant_creation_approval_required: bool
    license: LicenseBody


class AccountRequest(msgspec.Struct, rename="camel"):
    """What can be changed of an account. What is left out is emptied; the approval rule stays as it is."""

    company_name: str
    account_ref: str | None = None
    billing_contact_first_name: str | None = None
    billing_contact_last_name: str | None = None
    billing_contact_address: AddressRequest | None = None
    tenant_creation_approval_required: bool | None = None


async def _get(call: Call) -> Reply:
    services = call.services
    account = await call.run(get_account)
    usage = await count_tenants(services.databases, call.actor, account.account_id, services.databases.regions)
    return Reply(200, _body(account, usage))


async def _put(op: Operation, call: Call) -> Reply:
    source, found = read_object(call.body), Collector()
    account = await get_account(op)
    ref = found.text(source, "accountRef", "ACCOUNT_REF", max_length=MAX_REF, required=False)
    company = found.text(source, "companyName", "COMPANY_NAME", max_length=MAX_NAME)
    first = found.text(
        source, "billingContactFirstName", "BILLING_CONTACT_FIRST_NAME", max_length=MAX_NAME, required=False
    )
    last = found.text(
        source, "billingContactLastName", "BILLING_CONTACT_LAST_NAME", max_length=MAX_NAME, required=False
    )
    address = read_address(found, source, "billingContactAddress", "BILLING_CONTACT_ADDRESS")
    approval = found.flag(source, "tenantCreationApprovalRequired", "TENANT_CREATION_APPROVAL_REQUIRED")
    found.check()
    await update_account(
        op,
        dataclasses.replace(
            account,
            account_ref=ref,
            company_name=company,
            billing_contact_first_name=first,
            billing_contact_last_name=last,
            billing_contact_address=address,
            tenant_creation_approval_required=(
                account.tenant_creation_approval_required if approval is None else approval
            ),
        ),
    )
    return Reply(204)


def _body(account: Account, usage: int) -> AccountBody:
    return AccountBody(
        account_id=str(account.account_id),
        account_ref=account.account_ref or None,
        company_name=account.company_name,
        billing_contact_first_name=account.billing_contact_first_name or None,
        billing_contact_last_name=account.billing_contact_last_name or None,
        billing_contact_address=address_body(account.billing_contact_address),
        tenant_creation_approval_required=account.tenant_creation_approval_required,
        license=_license_body(account.license, usage),
    )


def _license_body(license_: License, usage: int) -> LicenseBody:
    return LicenseBody(
        license_id=str(license_.license_id),
        license_name=license_.license_name,
        max_tenants=license_.max_tenants,
        max_transactions=license_.max_transactions,
        max_collect_apps=license_.max_collect_apps,
        max_payout_apps=license_.max_payout_apps,
        license_period_start_date=license_.period_start,
        license_period_end_date=license_.period_end,
        tenant_usage=usage,
        enable_mandates=license_.enable_mandates,
    )


def _routes(version: str) -> Sequence[Route]:
    return (
        Route(
            method="GET",
            path=f"/{version}/account",
            summary="The account",
            tag="Account",
            access=Access.ACCOUNT,
            permission=Permission.ACCOUNT_MANAGE,
            call=_get,
            replies={200: AccountBody},
        ),
        Route(
            method="PUT",
            path=f"/{version}/account",
            summary="Change the account",
            tag="Account",
            access=Access.ACCOUNT,
            permission=Permission.ACCOUNT_MANAGE,
            operation=_put,
            request=AccountRequest,
            replies={204: None},
        ),
    )


ROUTES: Final[Sequence[Route]] = (*_routes("v1"), *_routes("v2"))
