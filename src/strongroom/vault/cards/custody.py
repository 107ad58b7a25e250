"""Keeping cards: sessions for forms, taking, showing, claiming for a customer, forgetting.

Every taking makes a token of its own, also for a number that is there already: a token is what gets forgotten, and two
customers who share a card must not lose it together. That two tokens are of one card shows in the fingerprint.

A token is 130 random bits in letters that hold no digit, so that no search for card numbers can take it for one, and is
worth nothing outside its tenant.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from strongroom.database.operation import Connection
from strongroom.kernel.card_numbers import SHOWN_AT_END, Brand, mask, shown_at_start
from strongroom.kernel.clock import Clock, today
from strongroom.kernel.errors import Failure, Invalid, NotFound, Refused, Unauthenticated
from strongroom.kernel.secret import Secret
from strongroom.vault.cards.codes import SecurityCodes
from strongroom.vault.cards.intake import Expiry, NewCard, check_card
from strongroom.vault.cards.keys import CardKeys, TenantKeys
from strongroom.vault.cards.records import By, Records, write_event

SESSION_LIFETIME: Final = timedelta(minutes=15)
MAX_ATTEMPTS: Final = 5
"""How often a form may be sent with one session: mistyping is human, trying out numbers is not."""
TOKEN_PREFIX: Final = "card_"  # noqa: S105  a name, no secret
_LETTERS: Final = "bcdfghjkmnpqrstvwxyz"
_TOKEN_LENGTH: Final = 30
_SESSION_BYTES: Final = 32
PAGE: Final = 500
"""Most cards of one list."""
NUMBER: Final = "number"
SHOWN: Final = "shown"
"""The fields of a card that are sealed."""


class CardContent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`cards.number_sealed`."""

    number: str
    month: int
    year: int
    holder: str

    def __repr__(self) -> str:
        return "CardContent(…)"


class ShownContent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`cards.shown_sealed`: what may be shown."""

    masked: str
    first: str
    last: str
    month: int
    year: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card as the rest of the platform knows it."""

    token: str
    status: str
    brand: Brand
    masked: str
    first: str
    """The issuer's digits, six or eight."""
    last: str
    expiry: Expiry
    fingerprint: str
    """40 hexadecimal digits, equal for equal numbers of one tenant."""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A card's secret parts, for one request. They don't print."""

    number: str = field(repr=False)
    masked: str
    expiry: Expiry
    holder: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a form shows instead of an access token; `secret` is told once."""

    secret: Secret[str]
    expires_at: datetime


_encode = msgspec.msgpack.Encoder().encode
decode_card = msgspec.msgpack.Decoder(CardContent).decode
_decode_shown = msgspec.msgpack.Decoder(ShownContent).decode
_SELECT: Final = "select token, status, brand, fingerprint, shown_sealed, created_at from cards"
_FORGET: Final = (
    "update cards set status = 'FORGOTTEN', customer = '', number_sealed = '', shown_sealed = '', fingerprint = ''"
)


class Custody:
    """Keeps the cards of all tenants."""

    def __init__(self, records: Records, keys: CardKeys, codes: SecurityCodes, clock: Clock) -> None:
        self.records = records
        self.keys = keys
        self.codes = codes
        self.clock = clock

    async def open_session(self, tenant: UUID, customer: str, by: By) -> Session:
        """Let one card of a customer (by the platform's keyed hash) be taken within 15 minutes."""
        secret = "cs_" + secrets.token_urlsafe(_SESSION_BYTES)
        expires_at = self.clock.now() + SESSION_LIFETIME
        async with self.records.transaction(tenant) as connection:
            await connection.execute(
                "insert into card_sessions (session_hash, tenant_id, customer, expires_at) values (%s, %s, %s, %s)",
                (_session_hash(secret), tenant, customer, expires_at),
            )
            await write_event(connection, tenant, by, "session.open")
        return Session(secret=Secret(secret), expires_at=expires_at)

    async def take_with_session(self, secret: str, sent: Mapping[str, Any], correlation_id: str = "") -> Card:
        """Take a card from a form. The session is used up by a card that is taken, or by five that aren't.

        Raises errors.Unauthenticated (`CARD_SESSION_INVALID`) and what `check_card` raises.
        """
        key = _session_hash(secret)
        async with self.records.transaction(None) as connection:
            cursor = await connection.execute(
                "update card_sessions set attempts = attempts + 1 "
                "where session_hash = %s and used_at is null and expires_at > %s and attempts < %s "
                "returning tenant_id, customer",
                (key, self.clock.now(), MAX_ATTEMPTS),
                binary=True,
            )
            row = await cursor.fetchone()
        if row is None:
            raise _session_invalid()
        tenant, customer = row
        by = By("session", correlation_id)
        new = await self._check(tenant, sent, by)
        async with self.records.transaction(tenant) as connection:
            cursor = await connection.execute(
                "update card_sessions set used_at = %s where session_hash = %s and used_at is null",
                (self.clock.now(), key),
            )
            if cursor.rowcount == 0:
                raise _session_invalid()
            card = await self._keep(connection, tenant, new, customer, by)
        return self._kept(tenant, card, new)

    async def take(self, tenant: UUID, sent: Mapping[str, Any], by: By) -> Card:
        """Take a card from somebody who has the right. Raises what `check_card` raises."""
        new = await self._check(tenant, sent, by)
        async with self.records.transaction(tenant) as connection:
            card = await self._keep(connection, tenant, new, "", by)
        return self._kept(tenant, card, new)

    async def describe(self, tenant: UUID, token: str) -> Card:
        """A card as it may be shown. Raises errors.NotFound (`CARD_NOT_FOUND`)."""
        async with self.records.transaction(tenant) as connection:
            return await self._find(connection, tenant, token)

    async def claim(self, tenant: UUID, token: str, customer: str, by: By) -> Card:
        """Make a card a customer's, and describe it. Claiming again for the same customer changes nothing.

        Raises errors.NotFound (`CARD_NOT_FOUND`) and errors.Refused (`CARD_OF_OTHER_CUSTOMER`).
        """
        async with self.records.transaction(tenant) as connection:
            card = await self._find(connection, tenant, token)
            cursor = await connection.execute(
                "update cards set customer = %s where tenant_id = %s and token = %s and customer in ('', %s)",
                (customer, tenant, token, customer),
            )
            if cursor.rowcount == 0:
                raise Refused(
                    Failure("CARD_OF_OTHER_CUSTOMER", "This card was taken for another customer. Take it again.")
                )
            await write_event(connection, tenant, by, "card.claim", token=token)
        return card

    async def forget_customer(self, tenant: UUID, customer: str, by: By) -> int:
        """Forget all cards of a customer, for good; how many. Doing it again does nothing."""
        async with self.records.transaction(tenant) as connection:
            cursor = await connection.execute(
                f"{_FORGET} where tenant_id = %s and customer = %s and customer <> '' returning token",
                (tenant, customer),
            )
            tokens = [row[0] for row in await cursor.fetchall()]
            for token in tokens:
                await write_event(connection, tenant, by, "card.forget", token=token)
        for token in tokens:
            self.codes.drop(tenant, token)
        return len(tokens)

    async def forget_card(self, tenant: UUID, token: str, by: By) -> None:
        """Forget one card, for good. Raises errors.NotFound (`CARD_NOT_FOUND`)."""
        async with self.records.transaction(tenant) as connection:
            cursor = await connection.execute(
                f"{_FORGET} where tenant_id = %s and token = %s and status = 'ACTIVE'", (tenant, token)
            )
            if cursor.rowcount == 0:
                raise _not_found()
            await write_event(connection, tenant, by, "card.forget", token=token)
        self.codes.drop(tenant, token)

    async def list_cards(self, tenant: UUID, after: str = "", take: int = PAGE) -> list[Card]:
        """A tenant's cards as they may be shown, by token, those after one."""
        async with self.records.transaction(tenant) as connection:
            cursor = await connection.execute(
                f"{_SELECT} where tenant_id = %s and status = 'ACTIVE' and token > %s order by token limit %s",
                (tenant, after, min(take, PAGE)),
                binary=True,
            )
            keys = await self.keys.of(connection, tenant)
            return [_described(keys, row) for row in await cursor.fetchall()]

    async def open(self, connection: Connection, tenant: UUID, token: str) -> Opened:
        """A card's secret parts. Whoever opens one writes down why, in the same transaction.

        Raises errors.NotFound (`CARD_NOT_FOUND`).
        """
        cursor = await connection.execute(
            "select brand, number_sealed from cards where tenant_id = %s and token = %s and status = 'ACTIVE'",
            (tenant, token),
            binary=True,
        )
        row = await cursor.fetchone()
        if row is None:
            raise _not_found()
        keys = await self.keys.of(connection, tenant)
        content = decode_card(keys.open(token, NUMBER, row[1]))
        return Opened(
            number=content.number,
            masked=mask(content.number, Brand(row[0])),
            expiry=Expiry(month=content.month, year=content.year),
            holder=content.holder,
        )

    async def _check(self, tenant: UUID, sent: Mapping[str, Any], by: By) -> NewCard:
        try:
            return check_card(sent, today(self.clock))
        except Invalid as error:
            codes = " ".join(failure.code for failure in error.failures)
            async with self.records.transaction(tenant) as connection:
                await write_event(connection, tenant, by, "card.take", outcome="refused", detail=codes)
            raise

    async def _keep(self, connection: Connection, tenant: UUID, new: NewCard, customer: str, by: By) -> Card:
        keys = await self.keys.of(connection, tenant)
        token = new_token()
        await insert_card(connection, keys, tenant, token, new, customer=customer)
        await write_event(connection, tenant, by, "card.take", token=token)
        return await self._find(connection, tenant, token)

    def _kept(self, tenant: UUID, card: Card, new: NewCard) -> Card:
        """Afterwards, once it is committed: the security code is good for the token that was told."""
        if new.cvv:
            self.codes.put(tenant, card.token, new.cvv)
        return card

    async def _find(self, connection: Connection, tenant: UUID, token: str) -> Card:
        cursor = await connection.execute(
            f"{_SELECT} where tenant_id = %s and token = %s and status = 'ACTIVE'", (tenant, token), binary=True
        )
        row = await cursor.fetchone()
        if row is None:
            raise _not_found()
        return _described(await self.keys.of(connection, tenant), row)


def _described(keys: TenantKeys, row: Sequence[Any]) -> Card:
    shown = _decode_shown(keys.open(row[0], SHOWN, row[4]))
    return Card(
        token=row[0],
        status=row[1],
        brand=Brand(row[2]),
        masked=shown.masked,
        first=shown.first,
        last=shown.last,
        expiry=Expiry(month=shown.month, year=shown.year),
        fingerprint=row[3].hex(),
        created_at=row[5],
    )


async def insert_card(
    connection: Connection,
    keys: TenantKeys,
    tenant: UUID,
    token: str,
    new: NewCard,
    *,
    customer: str = "",
    transfer: UUID | None = None,
) -> None:
    """Write a card down under a token. One that comes by a transfer can't be used before that is complete."""
    content = CardContent(new.number, new.expiry.month, new.expiry.year, new.holder)
    shown = ShownContent(
        mask(new.number, new.brand),
        new.number[: shown_at_start(new.number, new.brand)],
        new.number[-SHOWN_AT_END:],
        new.expiry.month,
        new.expiry.year,
    )
    await connection.execute(
        "insert into cards (tenant_id, token, status, brand, customer, fingerprint, fingerprint_version, "
        "number_sealed, shown_sealed, transfer_id, created_at) "
        "values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, now())",
        (
            tenant,
            token,
            "ACTIVE" if transfer is None else "IMPORTING",
            new.brand.value,
            customer,
            keys.fingerprint(new.number.encode()),
            keys.fingerprint_version,
            keys.seal(token, NUMBER, _encode(content)),
            keys.seal(token, SHOWN, _encode(shown)),
            transfer,
        ),
    )


def new_token() -> str:
    """A token that nobody can guess and nobody can take for a number."""
    return TOKEN_PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(_TOKEN_LENGTH))


def _session_hash(secret: str) -> bytes:
    """A plain hash is right here: the secret has 256 random bits."""
    return hashlib.sha256(secret.encode()).digest()


def _session_invalid() -> Unauthenticated:
    return Unauthenticated(
        Failure(
            "CARD_SESSION_INVALID",
            "This card session is unknown, used, over its time, or was tried too often. Ask for a new one.",
        )
    )


def _not_found() -> NotFound:
    return NotFound(Failure("CARD_NOT_FOUND", "There is no card of this token."))
