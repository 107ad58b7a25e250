"""Importing a customer's own key, in two steps: a public key is asked for, then what was wrapped under it is sent."""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.access import Permission, require
from strongroom.audit import record
from strongroom.kernel.actors import Actor
from strongroom.vault.holders.imports import Imports, KeyImport, WrappingAlgorithm
from strongroom.vault.keys import KeyDesk
from strongroom.vault.records import Scope
from strongroom.vault.work import Work


@dataclass(frozen=True, kw_only=True)
class ImportDesk:
    """Where keys are imported. Both steps look first whether the customer's key may be replaced now."""

    desk: KeyDesk
    imports: Imports

    async def begin(self, actor: Actor, scope: Scope) -> KeyImport:
        """A public key for one import.

        Raises errors.Conflict (`TOO_MANY_IMPORTS`) and as `KeyDesk.refuse_unless_replaceable`.
        """
        await self.desk.refuse_unless_replaceable(actor, scope)
        begun = await self.imports.begin(scope.id)
        async with self.desk.databases.operation(actor, account=scope.account, tenant=scope.tenant) as op:
            require(op, Permission.ENCRYPTION_KEYS_MANAGE)
            await record(op, "key.begin-import", "key", scope.id)
        return begun

    async def finish(
        self, actor: Actor, scope: Scope, token: str, *, algorithm: WrappingAlgorithm, wrapped: bytes
    ) -> Work:
        """Put the key that was sent in the place of the customer's.

        A refusal because of the key that it is to replace costs no attempt.

        Raises as `Imports.finish` and as `KeyDesk.bring`.
        """
        await self.desk.refuse_unless_replaceable(actor, scope)
        key = await self.imports.finish(scope.id, token, algorithm, wrapped)
        return await self.desk.bring(actor, scope, key)
