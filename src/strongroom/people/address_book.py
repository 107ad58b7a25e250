"""The address book: which accounts a sign-in address may belong to.

It stands in the directory, which is asked before a region is known, and holds keyed hashes only. Who the person is, and
whether there still is one, is known in the account's home region alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from strongroom.database import Databases
from strongroom.kernel.ids import AccountId
from strongroom.people.keys import DoorKeys

MAX_ACCOUNTS: Final = 8
"""Most accounts that one address is asked for when it signs in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressBook:
    """Finds accounts by addresses in their comparable form (`kernel.mail_addresses.find_address`)."""

    databases: Databases
    keys: DoorKeys

    async def accounts_of(self, address: str) -> Sequence[AccountId]:
        """The accounts that have somebody of this address, the oldest first."""
        async with self.databases.directory() as connection:
            cursor = await connection.execute(
                "select account_id from sign_in_addresses where address_hash = %s order by account_id limit %s",
                (self._hash(address), MAX_ACCOUNTS),
                binary=True,
            )
            return [AccountId(row[0]) for row in await cursor.fetchall()]

    async def add(self, address: str, account: AccountId) -> None:
        """Enter an address of an account; done before the person counts, so that nobody is there by half."""
        async with self.databases.directory() as connection:
            await connection.execute(
                "insert into sign_in_addresses (address_hash, account_id) values (%s, %s) on conflict do nothing",
                (self._hash(address), account),
            )

    async def remove(self, address: str, account: AccountId) -> None:
        """Take an address of an account out."""
        async with self.databases.directory() as connection:
            await connection.execute(
                "delete from sign_in_addresses where address_hash = %s and account_id = %s",
                (self._hash(address), account),
            )

    def _hash(self, address: str) -> bytes:
        return self.keys.hash("address", address.encode())
