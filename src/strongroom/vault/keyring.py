"""Data keys: made per scope (a tenant, or an account), stored wrapped, kept unwrapped in memory while in use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from strongroom.database.operation import Connection, Operation
from strongroom.kernel.cipher import Cipher
from strongroom.kernel.errors import Broken, Failure
from strongroom.kernel.secret import Secret
from strongroom.vault.envelopes import ScopeCipher
from strongroom.vault.master import KEY_BYTES, MasterKey, Purpose

_PURPOSES: tuple[Purpose, Purpose] = ("seal", "index")


class Keyring:
    """Finds a scope's cipher; what it has found it remembers for the life of the process."""

    def __init__(self, master: MasterKey) -> None:
        self.master = master
        self._ciphers: dict[UUID, Cipher] = {}

    def known(self, scope: UUID) -> Cipher | None:
        """The scope's cipher, when this process has made it already."""
        return self._ciphers.get(scope)

    async def cipher_for(self, connection: Connection, scope: UUID) -> Cipher:
        """The scope's cipher, or one that refuses to do anything when the scope has no keys yet.

        `connection` is in a transaction that sees the scope's rows.
        """
        cipher = self._ciphers.get(scope)
        if cipher is None:
            cursor = await connection.execute(
                "select purpose, version, wrapped from data_keys where scope_id = %s", (scope,), binary=True
            )
            rows = await cursor.fetchall()
            if not rows:
                return NoCipher()
            cipher = self._ciphers[scope] = self._unwrap(scope, rows)
        return cipher

    def _unwrap(self, scope: UUID, rows: Sequence[tuple[Any, ...]]) -> ScopeCipher:
        keys: dict[Purpose, dict[int, Secret[bytes]]] = {"seal": {}, "index": {}}
        for purpose, version, wrapped in rows:
            keys[purpose][version] = self.master.unwrap(wrapped, scope=scope, purpose=purpose, version=version)
        return ScopeCipher(scope, keys["seal"], keys["index"][1])


class NoCipher:
    """The cipher of a scope without keys: refuses."""

    def seal(self, table: str, column: str, row: bytes, plaintext: bytes) -> bytes:
        """Raises errors.Broken (`DATA_KEY_MISSING`)."""
        raise self._missing()

    def open(self, table: str, column: str, row: bytes, envelope: bytes) -> bytes:
        """Raises errors.Broken (`DATA_KEY_MISSING`)."""
        raise self._missing()

    def index(self, table: str, column: str, value: str) -> bytes:
        """Raises errors.Broken (`DATA_KEY_MISSING`)."""
        raise self._missing()

    @staticmethod
    def _missing() -> Broken:
        return Broken(Failure("DATA_KEY_MISSING", "There is no data key for this account or tenant."))


async def create_keys(op: Operation, master: MasterKey) -> None:
    """Make the first data keys of the operation's scope, and let the operation seal with them."""
    keys: dict[Purpose, Secret[bytes]] = {}
    for purpose in _PURPOSES:
        keys[purpose] = key = Secret(os.urandom(KEY_BYTES))
        await op.run(
            "insert into data_keys (scope_id, purpose, version, wrapped, created_at) values (%s, %s, 1, %s, %s)",
            op.scope,
            purpose,
            master.wrap(key, scope=op.scope, purpose=purpose, version=1),
            op.now,
        )
    op.cipher = ScopeCipher(op.scope, {1: keys["seal"]}, keys["index"])


async def ensure_keys(op: Operation, master: MasterKey) -> None:
    """Make the first data keys of the operation's scope unless it has some; of several at once, one makes them.

    An operation that began before they were there doesn't get to use them: begin another one to seal.
    """
    await op.run("select pg_advisory_xact_lock(hashtextextended(%s, 0))", op.scope.hex)
    if await op.row("select from data_keys where scope_id = %s limit 1", op.scope) is None:
        await create_keys(op, master)
