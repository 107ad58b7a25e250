"""Credentials: what a person proves themselves with.

A password with a time-based code, or a passkey. Every secret is inside an envelope of the account; of a password only
its Argon2id hash, of recovery codes (shown once, each good once in place of a time-based code) only hashes.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from strongroom.audit import record
from strongroom.database import Operation
from strongroom.kernel.ids import PersonId, new_uuid
from strongroom.kernel.secret import Secret
from strongroom.people.totp import find_step

RECOVERY_CODES: Final = 10
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"
"""Nothing that is taken for something else when it is written down by hand."""
_CODE_GROUPS: Final = 4
_GROUP: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialView:
    """What may be known of a credential at any time. `kind` is PASSWORD, TOTP or PASSKEY."""

    credential_id: UUID
    kind: str
    created_at: datetime
    used_at: datetime | None


async def add_credential(
    op: Operation, person: PersonId, kind: str, content: bytes, *, lookup: bytes | None = None, counter: int = 0
) -> UUID:
    """Keep a credential of a person, in place of the one of its kind if only one is kept."""
    if kind != "PASSKEY":
        await op.run("delete from credentials where person_id = %s and kind = %s", person, kind)
    credential_id = new_uuid()
    await op.run(
        "insert into credentials (account_id, credential_id, person_id, kind, lookup, counter, sealed, created_at) "
        "values (%s, %s, %s, %s, %s, %s, %s, %s)",
        op.account,
        credential_id,
        person,
        kind,
        lookup,
        counter,
        op.cipher.seal("credentials", "sealed", credential_id.bytes, content),
        op.now,
    )
    await record(op, "credential.add", "person", person, detail=f"{kind} {credential_id}")
    return credential_id


async def list_credentials(op: Operation, person: PersonId) -> Sequence[CredentialView]:
    """A person's credentials, oldest first."""
    rows = await op.rows(
        "select credential_id, kind, created_at, used_at from credentials where person_id = %s order by credential_id",
        person,
    )
    return [CredentialView(credential_id=row[0], kind=row[1], created_at=row[2], used_at=row[3]) for row in rows]


async def find_password(op: Operation, person: PersonId) -> str | None:
    """The hash that is kept of a person's password, if they have one."""
    row = await op.row(
        "select credential_id, sealed from credentials where person_id = %s and kind = 'PASSWORD'", person
    )
    return None if row is None else op.cipher.open("credentials", "sealed", row[0].bytes, row[1]).decode()


async def take_totp(op: Operation, person: PersonId, code: str) -> bool:
    """Whether a time-based code is right, now and for the first time; of two at once, one is."""
    row = await op.row(
        "select credential_id, sealed, counter from credentials where person_id = %s and kind = 'TOTP' for update",
        person,
    )
    if row is None:
        return False
    secret = Secret(op.cipher.open("credentials", "sealed", row[0].bytes, row[1]))
    step = find_step(secret, code, op.now, after=row[2])
    if step is None:
        return False
    await op.run("update credentials set counter = %s, used_at = %s where credential_id = %s", step, op.now, row[0])
    return True


async def replace_recovery_codes(op: Operation, person: PersonId) -> Sequence[Secret[str]]:
    """New recovery codes in place of all before; shown once."""
    codes = [_new_code() for _ in range(RECOVERY_CODES)]
    await op.run("delete from recovery_codes where person_id = %s", person)
    for code in codes:
        await op.run(
            "insert into recovery_codes (account_id, person_id, code_hash) values (%s, %s, %s)",
            op.account,
            person,
            _hash(code.reveal()),
        )
    await record(op, "recovery-codes.replace", "person", person)
    return codes


async def take_recovery_code(op: Operation, person: PersonId, code: str) -> bool:
    """Whether it is a recovery code that wasn't used before; it is used now."""
    used = await op.run(
        "update recovery_codes set used_at = %s where person_id = %s and code_hash = %s and used_at is null",
        op.now,
        person,
        _hash(code),
    )
    if used:
        await record(op, "recovery-code.use", "person", person)
    return bool(used)


async def count_recovery_codes(op: Operation, person: PersonId) -> int:
    """How many recovery codes are left."""
    row = await op.row("select count(*) from recovery_codes where person_id = %s and used_at is null", person)
    return 0 if row is None else int(row[0])


def _new_code() -> Secret[str]:
    """Sixteen characters out of 31: 79 bits, too many to try, so that a plain hash of it is safe to keep."""
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_CODE_GROUPS))
    return Secret("-".join(groups))


def _hash(code: str) -> bytes:
    plain = "".join(code.split()).replace("-", "").lower()
    return hashlib.sha256(b"recovery code " + plain.encode()).digest()
