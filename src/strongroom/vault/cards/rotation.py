"""Rotating the vault's keys, while cards are taken and sent: tenants' keys, and the root above them.

*A tenant's key* gets a new version in a transaction that no other of the tenant overlaps (`Records.transaction`), so
nothing is written under the old one afterwards. Then all that is under the old one is made again in batches: what is
sealed is sealed under the new version, fingerprints are made of the numbers. Which rows are still to do is read off the
rows themselves, so it goes on wherever it stopped, and any number of times. Once nothing is left under the old version,
its wrapped key is removed: DESTROYED.

Two things can't be made again, because what they are of isn't written anywhere: ids of forwards (keyed hashes of the
callers' references), and providers' answers from before there was rotation. An old version that they need stays
RETIRING until they are forgotten (`KEPT_FOR`), and opens or finds nothing else.

*The root* gets a new version in its file; tenants' keys are wrapped under it one tenant after the other; the old one is
ended when no tenant's key is under it. In which order is the caller's business (`strongroom cards root`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from strongroom.database.operation import Connection
from strongroom.kernel.errors import Conflict, Failure
from strongroom.vault.cards.custody import NUMBER, SHOWN, Custody, decode_card
from strongroom.vault.cards.forwarding import ANSWER, KEPT_FOR
from strongroom.vault.cards.keys import PURPOSES, Purpose, TenantKeys, header_of
from strongroom.vault.cards.records import By, write_event
from strongroom.vault.holders import FileHolder, root_version

BATCH: Final = 500
"""Rows in one transaction of making again."""
CRYPTOPERIOD: Final = timedelta(days=365)
"""How long a key is used for what is written (PCI DSS 4.0.1 requirement 3.7.4; NIST SP 800-57 part 1 rev. 5, section
5.3.6, has at most two years for keys that encrypt data)."""
TENANTS: Final = 1_000
"""Most tenants of one list."""
_CARDS_BEHIND: Final = (
    "from cards where tenant_id = %(tenant)s and status <> 'FORGOTTEN' and (substr(number_sealed, 1, 5) <> %(header)s "
    "or substr(shown_sealed, 1, 5) <> %(header)s or fingerprint_version <> %(fingerprint)s)"
)
_ANSWERS_BEHIND: Final = (
    "from forwards where tenant_id = %(tenant)s and answer_sealed <> '' and answer_by = 'id' "
    "and substr(answer_sealed, 1, 5) <> %(header)s"
)
_UNDER: Final[dict[Purpose, bytes]] = {
    "seal": b"select exists (select from cards where tenant_id = %(tenant)s and status <> 'FORGOTTEN' "
    b"and (substr(number_sealed, 1, 5) = %(header)s or substr(shown_sealed, 1, 5) = %(header)s)) "
    b"or exists (select from forwards where tenant_id = %(tenant)s and substr(answer_sealed, 1, 5) = %(header)s)",
    "fingerprint": b"select exists (select from cards where tenant_id = %(tenant)s and status <> 'FORGOTTEN' "
    b"and fingerprint_version = %(version)s) "
    b"or exists (select from forwards where tenant_id = %(tenant)s and hash_version = %(version)s)",
}
"""Whether anything is still under a version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardKey:
    """A version of a tenant's key. `root` is the version of the root that it is wrapped under; 0 when destroyed."""

    purpose: Purpose
    version: int
    state: str
    root: int
    created_at: datetime
    retired_at: datetime | None
    destroyed_at: datetime | None

    @property
    def due_at(self) -> datetime:
        """When it has been in use for its cryptoperiod."""
        return self.created_at + CRYPTOPERIOD


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A tenant's keys, and how many rows aren't under the newest ones."""

    keys: Sequence[CardKey]
    behind: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a batch did: how many rows, 0 when none is left; and where the next one begins, which saves looking again at
    what is done."""

    done: int
    after: str


class Rotation:
    """Looks after the keys of all tenants."""

    def __init__(self, custody: Custody, holder: FileHolder) -> None:
        self._custody = custody
        self._holder = holder

    async def tenants(self, after: UUID, take: int = TENANTS) -> Sequence[UUID]:
        """Who has keys here, those after one, in order."""
        async with self._custody.records.transaction(None) as connection:
            cursor = await connection.execute(
                "select tenant_id from card_tenants where tenant_id > %s order by tenant_id limit %s",
                (after, min(take, TENANTS)),
                binary=True,
            )
            return [row[0] for row in await cursor.fetchall()]

    async def find(self, tenant: UUID) -> Keys:
        """A tenant's keys; none when it never had a card."""
        async with self._custody.records.transaction(tenant) as connection:
            keys = await self._list(connection, tenant)
            if not keys:
                return Keys(keys=(), behind=0)
            return Keys(keys=keys, behind=await self._count_behind(connection, tenant))

    async def begin(self, tenant: UUID, purpose: Purpose, by: By) -> int:
        """Make a new version of a tenant's key, used for all that is written from now on; its number.

        Raises errors.Conflict (`CARD_KEY_ROTATION_UNFINISHED`) while rows aren't under the newest keys: one rotation at
        a time, so that there is one end to wait for.
        """
        records, keys = self._custody.records, self._custody.keys
        async with records.transaction(tenant, alone=True) as connection:
            held = await keys.of(connection, tenant)
            behind = await self._count_behind(connection, tenant)
            if behind:
                raise Conflict(
                    Failure(
                        "CARD_KEY_ROTATION_UNFINISHED",
                        "{count} cards or answers are not under the newest keys yet. Finish that rotation first.",
                        {"count": behind},
                    )
                )
            version = held.active[purpose] + 1
            await connection.execute(
                "update card_keys set state = 'RETIRING', retired_at = now() "
                "where tenant_id = %s and purpose = %s and state = 'ACTIVE'",
                (tenant, purpose),
            )
            await keys.add(connection, tenant, purpose, version)
            await write_event(connection, tenant, by, "key.rotate", detail=f"{purpose} {version}")
        return version

    async def work(self, tenant: UUID, after: str = "") -> Step:
        """Make one batch again under the newest keys: cards after a token, and when there are none, answers."""
        async with self._custody.records.transaction(tenant) as connection:
            keys = await self._custody.keys.of(connection, tenant)
            tokens = await self._renew_cards(connection, tenant, keys, after)
            if tokens:
                return Step(done=len(tokens), after=tokens[-1])
            return Step(done=await self._renew_answers(connection, tenant, keys), after=after)

    async def finish(self, tenant: UUID, by: By) -> Sequence[tuple[Purpose, int]]:
        """Destroy the old versions under which nothing is any more; which. The others stay RETIRING."""
        records = self._custody.records
        async with records.transaction(tenant) as connection:
            await connection.execute(
                "delete from forwards where tenant_id = %s and created_at < %s",
                (tenant, self._custody.clock.now() - KEPT_FOR),
            )
            retiring = [key for key in await self._list(connection, tenant) if key.state == "RETIRING"]
            # Nothing is ever written under a version that is RETIRING, so what is free of it now stays free.
            free = [key for key in retiring if not await _is_used(connection, tenant, key)]
        if not free:
            return ()
        destroyed: list[tuple[Purpose, int]] = []
        # Alone, so that nobody is still reading what was sealed under them a moment ago.
        async with records.transaction(tenant, alone=True) as connection:
            for key in free:
                cursor = await connection.execute(
                    "update card_keys set state = 'DESTROYED', wrapped = '', destroyed_at = now() "
                    "where tenant_id = %s and purpose = %s and version = %s and state = 'RETIRING'",
                    (tenant, key.purpose, key.version),
                )
                if cursor.rowcount:
                    destroyed.append((key.purpose, key.version))
                    await write_event(connection, tenant, by, "key.destroy", detail=f"{key.purpose} {key.version}")
        self._custody.keys.forget(tenant)
        return destroyed

    async def rewrap(self, tenant: UUID, by: By) -> int:
        """Wrap a tenant's keys under the newest root; how many weren't. Raises errors.Broken (`CARD_KEY_BROKEN`)."""
        done = 0
        async with self._custody.records.transaction(tenant) as connection:
            cursor = await connection.execute(
                "select purpose, version, wrapped from card_keys where tenant_id = %s and state <> 'DESTROYED' "
                "for update",
                (tenant,),
                binary=True,
            )
            for purpose, version, wrapped in await cursor.fetchall():
                if root_version(wrapped) == self._holder.newest_root:
                    continue
                fresh = await self._custody.keys.rewrap(tenant, purpose, version, wrapped)
                await connection.execute(
                    "update card_keys set wrapped = %s where tenant_id = %s and purpose = %s and version = %s",
                    (fresh, tenant, purpose, version),
                )
                done += 1
            if done:
                await write_event(connection, tenant, by, "key.rewrap", detail=f"root {self._holder.newest_root}")
        return done

    async def count_under_root(self) -> dict[int, int]:
        """How many keys of all tenants are under each version of the root that is there."""
        counts = dict.fromkeys(self._holder.root_versions, 0)
        after = UUID(int=0)
        while found := await self.tenants(after):
            for tenant in found:
                async with self._custody.records.transaction(tenant) as connection:
                    for key in await self._list(connection, tenant):
                        if key.root:
                            counts[key.root] = counts.get(key.root, 0) + 1
            after = found[-1]
        return counts

    async def end_root(self, version: int) -> None:
        """End an old version of the root, for good.

        Raises errors.Conflict (`ROOT_VERSION_IN_USE`) while a tenant's key, or a kept key, is under it.
        """
        under = (await self.count_under_root()).get(version, 0)
        if under:
            raise Conflict(
                Failure(
                    "ROOT_VERSION_IN_USE",
                    "{count} keys of tenants are under version {version} of the root key. Rotate it first.",
                    {"count": under, "version": version},
                )
            )
        await self._holder.end_root_version(version)

    async def _list(self, connection: Connection, tenant: UUID) -> Sequence[CardKey]:
        cursor = await connection.execute(
            "select purpose, version, state, wrapped, created_at, retired_at, destroyed_at from card_keys "
            "where tenant_id = %s order by purpose desc, version",
            (tenant,),
            binary=True,
        )
        return [
            CardKey(
                purpose=row[0],
                version=row[1],
                state=row[2],
                root=root_version(row[3]) if row[3] else 0,
                created_at=row[4],
                retired_at=row[5],
                destroyed_at=row[6],
            )
            for row in await cursor.fetchall()
        ]

    async def _count_behind(self, connection: Connection, tenant: UUID) -> int:
        keys = await self._custody.keys.of(connection, tenant)
        cursor = await connection.execute(
            f"select (select count(*) {_CARDS_BEHIND}) + (select count(*) {_ANSWERS_BEHIND})",
            _newest(tenant, keys),
            binary=True,
        )
        row = await cursor.fetchone()
        return 0 if row is None else int(row[0])

    async def _renew_cards(self, connection: Connection, tenant: UUID, keys: TenantKeys, after: str) -> Sequence[str]:
        cursor = await connection.execute(
            f"select token, number_sealed, shown_sealed {_CARDS_BEHIND} and token > %(after)s "
            "order by token limit %(batch)s for update",
            {**_newest(tenant, keys), "after": after},
            binary=True,
        )
        rows = await cursor.fetchall()
        fresh: list[tuple[str, bytes, bytes, bytes]] = []
        for token, number, shown in rows:
            content = keys.open(token, NUMBER, number)
            fresh.append(
                (
                    token,
                    keys.seal(token, NUMBER, content),
                    keys.seal(token, SHOWN, keys.open(token, SHOWN, shown)),
                    keys.fingerprint(decode_card(content).number.encode()),
                )
            )
        await connection.execute(
            "update cards c set number_sealed = f.number, shown_sealed = f.shown, fingerprint = f.fingerprint, "
            "fingerprint_version = %s from unnest(%s::text[], %s::bytea[], %s::bytea[], %s::bytea[]) "
            "as f (token, number, shown, fingerprint) where c.tenant_id = %s and c.token = f.token",
            (keys.fingerprint_version, *_columns(fresh, 4), tenant),
        )
        return [row[0] for row in fresh]

    async def _renew_answers(self, connection: Connection, tenant: UUID, keys: TenantKeys) -> int:
        cursor = await connection.execute(
            f"select forward_id, answer_sealed {_ANSWERS_BEHIND} order by forward_id limit %(batch)s for update",
            _newest(tenant, keys),
            binary=True,
        )
        rows = await cursor.fetchall()
        fresh = [
            (forward_id, keys.seal(forward_id.hex(), ANSWER, keys.open(forward_id.hex(), ANSWER, sealed)))
            for forward_id, sealed in rows
        ]
        await connection.execute(
            "update forwards w set answer_sealed = f.sealed from unnest(%s::bytea[], %s::bytea[]) as f (id, sealed) "
            "where w.tenant_id = %s and w.forward_id = f.id",
            (*_columns(fresh, 2), tenant),
        )
        return len(rows)


def parse_purpose(text: object) -> Purpose | None:
    """The purpose of this name, or None."""
    return next((purpose for purpose in PURPOSES if purpose == text), None)


async def _is_used(connection: Connection, tenant: UUID, key: CardKey) -> bool:
    cursor = await connection.execute(
        _UNDER[key.purpose],
        {"tenant": tenant, "header": header_of(key.version), "version": key.version},
    )
    return await cursor.fetchone() != (False,)


def _newest(tenant: UUID, keys: TenantKeys) -> dict[str, Any]:
    return {"tenant": tenant, "header": keys.header, "fingerprint": keys.fingerprint_version, "batch": BATCH}


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    """Rows as columns, so many even when there is no row."""
    return [[row[at] for row in rows] for at in range(count)]
