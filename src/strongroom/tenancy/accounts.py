"""Accounts: organisations that use the platform.

An account lives in its home region. Who it is (names, contact, address) is sealed under its own data key; the directory
knows its id and region only. Accounts are opened by the installation's operator and never end by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from strongroom.access import Permission, require
from strongroom.audit import record
from strongroom.database import Databases, Operation
from strongroom.kernel.actors import Actor
from strongroom.kernel.errors import Failure, NotFound
from strongroom.kernel.ids import AccountId, new_uuid
from strongroom.tenancy.addresses import Address

UNLIMITED: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class License:
    """What an account may use. Limits are counts; −1 is unlimited. A period without an end goes on."""

    license_id: UUID = field(default_factory=new_uuid)
    license_name: str = "Open source"
    max_tenants: int = UNLIMITED
    max_transactions: int = UNLIMITED
    max_collect_apps: int = UNLIMITED
    max_payout_apps: int = UNLIMITED
    period_start: datetime | None = None
    period_end: datetime | None = None
    enable_mandates: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account. `account_ref` is the operator's or the account's own reference for it."""

    account_id: AccountId
    company_name: str
    account_ref: str = ""
    billing_contact_first_name: str = ""
    billing_contact_last_name: str = ""
    billing_contact_address: Address | None = None
    tenant_creation_approval_required: bool = False
    license: License


async def create_account(op: Operation, account: Account) -> None:
    """Write the account in its home region; the operation's scope has data keys already."""
    require(op, Permission.ACCOUNT_MANAGE)
    await op.run(
        "insert into accounts (account_id, sealed, created_at, updated_at) values (%s, %s, %s, %s)",
        account.account_id,
        _seal(op, account),
        op.now,
        op.now,
    )
    await record(op, "account.create", "account", account.account_id)


async def register_account(databases: Databases, account_id: AccountId, region: str) -> None:
    """Tell the directory where the account lives, after its row is written there."""
    async with databases.directory() as directory:
        await directory.execute(
            "insert into accounts (account_id, region) values (%s, %s) on conflict do nothing", (account_id, region)
        )


async def get_account(op: Operation) -> Account:
    """The operation's account. Raises errors.NotFound (`ACCOUNT_NOT_FOUND`)."""
    require(op, Permission.ACCOUNT_MANAGE)
    account = await find_account(op)
    if account is None:
        raise NotFound(Failure("ACCOUNT_NOT_FOUND", "There is no such account."))
    return account


async def find_account(op: Operation) -> Account | None:
    """The operation's account for our own decisions, whoever acts; None when it isn't there."""
    row = await op.row("select sealed from accounts where account_id = %s", op.account)
    return None if row is None else _DECODER.decode(op.cipher.open("accounts", "sealed", op.account.bytes, row[0]))


async def update_account(op: Operation, account: Account) -> None:
    """Replace what is known of the account (read in this operation before)."""
    require(op, Permission.ACCOUNT_MANAGE)
    await op.run(
        "update accounts set sealed = %s, updated_at = %s where account_id = %s",
        _seal(op, account),
        op.now,
        account.account_id,
    )
    await record(op, "account.update", "account", account.account_id)


async def count_tenants(databases: Databases, actor: Actor, account: AccountId, regions: Iterable[str]) -> int:
    """How many tenants of the account count against its license: those awaiting approval and those approved."""
    total = 0
    for region in regions:
        async with databases.operation(actor, account=account, region=region) as op:
            row = await op.row("select count(*) from tenants where status in ('AWAITING_APPROVAL', 'APPROVED')")
            total += row[0] if row is not None else 0
    return total


def _seal(op: Operation, account: Account) -> bytes:
    return op.cipher.seal("accounts", "sealed", account.account_id.bytes, msgspec.msgpack.encode(account))


_DECODER: Final = msgspec.msgpack.Decoder(Account)
