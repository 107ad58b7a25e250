"""Opening an account: the account, its data keys and the first key of its first admin, all at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from strongroom.database import Databases
from strongroom.identity.api_keys import ApiKey, create_key
from strongroom.kernel.actors import Actor
from strongroom.kernel.errors import Failure, Invalid
from strongroom.kernel.ids import AccountId, new_uuid
from strongroom.kernel.secret import Secret
from strongroom.tenancy import Account, License, create_account, register_account
from strongroom.vault import Keyring, Scope, place_keys

MAX_COMPANY_NAME: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedAccount:
    """A new account with its first key; the private half is in base64."""

    account: Account
    region: str
    key: ApiKey
    private_key: Secret[str]


async def open_account(
    databases: Databases,
    keyring: Keyring,
    actor: Actor,
    *,
    company_name: str,
    region: str = "",
    tenant_creation_approval_required: bool = False,
    account_license: License | None = None,
) -> OpenedAccount:
    """Open an account in a region (the first one when none is named).

    Raises errors.Invalid (`COMPANY_NAME_IS_REQUIRED`, `COMPANY_NAME_LENGTH_OUT_OF_RANGE`, `REGION_NOT_RECOGNISED`).
    """
    home = region or databases.regions[0]
    _check(databases, company_name, home)
    account_id = AccountId(new_uuid())
    drawn = await keyring.draw(Scope(account=account_id))
    async with databases.operation(actor, account=account_id, region=home) as op:
        account = Account(
            account_id=account_id,
            company_name=company_name,
            tenant_creation_approval_required=tenant_creation_approval_required,
            license=dataclasses.replace(account_license or License(), period_start=op.now),
        )
        await place_keys(op, drawn)
        await create_account(op, account)
        await register_account(databases, account_id, home)
        key, private_key = await create_key(op, databases, name="First key", roles=["account-admin"])
    return OpenedAccount(account=account, region=home, key=key, private_key=private_key)


def _check(databases: Databases, company_name: str, region: str) -> None:
    failures = []
    if not company_name.strip():
        failures.append(Failure("COMPANY_NAME_IS_REQUIRED", "The company's name is required."))
    if len(company_name) > MAX_COMPANY_NAME:
        failures.append(
            Failure(
                "COMPANY_NAME_LENGTH_OUT_OF_RANGE",
                "The company's name has at most {maxLength} characters.",
                {"maxLength": MAX_COMPANY_NAME},
            )
        )
    if region not in databases.regions:
        known = ", ".join(databases.regions)
        failures.append(Failure("REGION_NOT_RECOGNISED", "The regions to choose from are {known}.", {"known": known}))
    if failures:
        raise Invalid(*failures)
