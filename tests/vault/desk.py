"""A tenant whose keys are led through their life, with a holder elsewhere beside the installation's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from strongroom.assembly import SPLITS, App, Installation
from strongroom.database import Purpose
from strongroom.kernel.actors import Actor, ActorKind
from strongroom.kernel.clock import Clock, SystemClock
from strongroom.kernel.errors import Failure, NotFound
from strongroom.kernel.ids import AccountId, ApiKeyId
from strongroom.payments.instruments import add_many, open_account
from strongroom.vault import KeyDesk, Keys, Scope, Work, list_keys
from strongroom.vault.holders.contract import Holder
from strongroom.vault.holders.file import FileHolder
from strongroom.vault.holders.persons import PersonSecrets
from tests.fixtures.platform import Client, Platform
from tests.payments.world import World, bank_account
from tests.vault.holding import Elsewhere


@dataclass(frozen=True)
class Owner(World):
    """A tenant, and two people who may change its keys."""

    desk: KeyDesk
    elsewhere: Elsewhere
    first: Actor
    second: Actor

    @classmethod
    async def make(cls, app: App, client: Client, elsewhere: Elsewhere) -> Owner:
        world = World.of(app, client)
        first, second = [
            Actor(
                kind=ActorKind.API_KEY,
                name="key",
                key_id=ApiKeyId(UUID(key.public_key)),
                account_id=world.account,
                tenant_id=world.tenant,
                roles=frozenset({"tenant-admin"}),
            )
            for key in (client, await client.new_key("tenant-admin"))
        ]
        return cls(app, world.tenant, world.account, app.key_desk, elsewhere, first, second)

    @property
    def scope(self) -> Scope:
        return Scope(account=self.account, tenant=self.tenant)

    async def keys(self) -> Keys:
        async with self.operation() as op:
            return await list_keys(op)

    async def states(self, layer: str) -> list[tuple[int, str, str]]:
        """Version, state and source of the layer's scope keys."""
        return [
            (key.version, key.state.value, key.source.value)
            for key in (await self.keys()).scope_keys
            if key.layer == layer
        ]

    async def put_account(self, customer: str = "C-1") -> bytes:
        """An account in the vault; its instrument's id."""
        async with self.operation() as op:
            [instrument] = await add_many(op, [(customer, bank_account())])
        return instrument

    async def iban(self, instrument: bytes) -> str:
        """Opened, as a rail would have it."""
        async with self.operation() as op:
            with op.opening(Purpose.EXECUTION):
                return (await open_account(op, instrument)).iban

    async def finish(self) -> Work:
        """Do what was begun."""
        work = await self.desk.tend(self.scope, SPLITS)
        assert work is not None
        assert work.is_done
        return work

    def seen_by(self, app: App) -> Owner:
        """The same seen by another process."""
        return replace(self, app=app, desk=app.key_desk)


class Book:
    """The holders of an installation with one elsewhere, which some accounts may use."""

    def __init__(self, own: FileHolder, elsewhere: Elsewhere, accounts: set[UUID]) -> None:
        self.own = own
        self._elsewhere = elsewhere
        self._accounts = accounts

    def get(self, name: str, account: AccountId) -> Holder:
        if name == self.own.name:
            return self.own
        if name != self._elsewhere.name or account not in self._accounts:
            raise NotFound(Failure("HOLDER_NOT_FOUND", "There is none."))
        return self._elsewhere

    def names(self, account: AccountId) -> list[str]:
        return [self.own.name, *([self._elsewhere.name] if account in self._accounts else [])]

    def persons(self, region: str) -> PersonSecrets:
        return self.own.persons(region)

    async def close(self) -> None:
        """The holder elsewhere outlives its users."""


@asynccontextmanager
async def process(
    installation: Installation, elsewhere: Elsewhere, accounts: set[UUID], clock: Clock | None = None
) -> AsyncIterator[Platform]:
    """A process of the installation whose settings name the holder elsewhere."""
    app = installation.app(clock=clock or SystemClock(), connections=4)
    app.keyring.holders = Book(installation.holder, elsewhere, accounts)
    await app.open()
    platform = Platform(app)
    try:
        async with platform.http:
            yield platform
    finally:
        await app.close()
