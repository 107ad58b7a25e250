"""Verifying: every sealed field of a scope is opened where it stands, and what doesn't open is named.

What is opened is looked at by nobody: it is dropped at once. Nothing is changed, and everything else goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from strongroom.access import Permission, require
from strongroom.audit import record
from strongroom.database import Databases, KeysChanged, Operation
from strongroom.database.catalogue import SENSITIVE
from strongroom.database.sealed_tables import SEALED_TABLES
from strongroom.kernel.actors import Actor
from strongroom.kernel.errors import Broken, Unavailable
from strongroom.vault import _walking
from strongroom.vault.envelopes import ScopeCipher, broken
from strongroom.vault.records import Scope
from strongroom.vault.work import BATCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A field that doesn't open. `row` is its primary key: ids and keyed hashes, which tell nothing by themselves."""

    table: str
    column: str
    row: str
    code: str


@dataclass(slots=True, kw_only=True)
class Verified:
    """How the fields of a scope fared so far.

    `away` counts those whose key can't be used now (it may be back), `lost` those under a key that was destroyed.
    """

    opened: int = 0
    away: int = 0
    lost: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def seen(self) -> int:
        """All of them."""
        return self.opened + self.away + self.lost + len(self.findings)


async def verify_scope(
    databases: Databases, actor: Actor, scope: Scope, progress: Callable[[Verified], None] | None = None
) -> Verified:
    """Open every sealed field of a scope.

    Raises errors.Broken (`DATA_KEY_BROKEN`) when the platform's own key doesn't open, so that nothing does, and
    errors.Forbidden, errors.Unavailable (`DATABASE_UNAVAILABLE`).
    """
    total = Verified()
    for table in _walking.TABLES:
        position, is_last = "", False
        while not is_last:
            found, following = await _look_at(databases, actor, scope, table=table, position=position)
            if found.findings or found.lost:
                # Sealed by a key younger than the operation, perhaps, so look again with all that there are now.
                found, following = await _look_at(databases, actor, scope, table=table, position=position)
            total.opened += found.opened
            total.away += found.away
            total.lost += found.lost
            total.findings += found.findings
            if progress is not None:
                progress(total)
            position, is_last = following, not following
    async with databases.operation(actor, account=scope.account, tenant=scope.tenant) as op:
        detail = f"opened={total.opened} away={total.away} lost={total.lost} broken={len(total.findings)}"
        await record(op, "key.verify", "key", scope.id, detail=detail)
    return total


async def _look_at(
    databases: Databases, actor: Actor, scope: Scope, *, table: str, position: str
) -> tuple[Verified, str]:
    found = Verified()
    async with databases.operation(actor, account=scope.account, tenant=scope.tenant) as op:
        require(op, Permission.ENCRYPTION_KEYS_MANAGE)
        rows, following = await _walking.read_batch(op, table, position, BATCH)
        for row in rows:
            for column, envelope in zip(SEALED_TABLES[table].columns, row.envelopes, strict=True):
                if envelope is not None:
                    _open(op, found, row, table=table, column=column, envelope=envelope)
    return found, following


def _open(op: Operation, found: Verified, row: _walking.SealedRow, *, table: str, column: str, envelope: bytes) -> None:
    cipher = op.cipher
    assert isinstance(cipher, ScopeCipher)  # noqa: S101  # a scope with rows has keys
    try:
        cipher.check(table, column, row.row, envelope)
    except (Unavailable, Broken) as error:
        if _is_lost(cipher, row, table=table, column=column, envelope=envelope):
            found.lost += 1
            return
        if isinstance(error, KeysChanged):
            # Its key came meanwhile, then it opens when it is looked at again; or there is no such key.
            error = broken(table, column)
        if isinstance(error, Unavailable):
            found.away += 1
            return
        shown = " ".join(value.hex() if isinstance(value, bytes) else str(value) for value in row.key)
        found.findings.append(Finding(table=table, column=column, row=shown, code=error.code))
    else:
        found.opened += 1


def _is_lost(cipher: ScopeCipher, row: _walking.SealedRow, *, table: str, column: str, envelope: bytes) -> bool:
    try:
        return (table, column) in SENSITIVE and cipher.is_lost(table, column, row.row, envelope)
    except (Unavailable, Broken):
        return False
