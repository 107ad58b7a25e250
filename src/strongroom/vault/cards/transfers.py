"""Moving a tenant's cards to another vault, or in from one.

What goes over is a row of parts, each a JWE in compact form (RFC 7516; RSA-OAEP-256 and A256GCM, RFC 7518) that the
receiver alone can open, the last one marked as such. Both sides count the cards and hash the parts as they stand, in a
chain: `digest(n) = SHA-256(digest(n-1) + SHA-256(part n))`, beginning with nothing. The receiver is told count and
digest by a person, not by the file, so that a whole file of somebody else's making isn't taken either.

Nothing moves before two people asked for it. Both directions go on where they stopped: a part asked for again is the
same bytes, a part sent again changes nothing. Imported cards keep their tokens, and can be used only once all of them
are there; when count or digest is another than was said, none of them stays.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from strongroom.database.operation import Connection
from strongroom.kernel.card_numbers import find_brand, is_card_number
from strongroom.kernel.errors import Broken, Conflict, Failure, Forbidden, Invalid, NotFound
from strongroom.kernel.ids import new_uuid
from strongroom.kernel.secret import Secret
from strongroom.vault.cards.custody import NUMBER, TOKEN_PREFIX, Custody, decode_card, insert_card
from strongroom.vault.cards.intake import Expiry, NewCard, is_holder
from strongroom.vault.cards.keys import KEY_BYTES, NONCE_BYTES, TenantKeys
from strongroom.vault.cards.records import By, write_event
from strongroom.vault.holders import FileHolder

PART_CARDS: Final = 100
MAX_PART: Final = 256 << 10
"""Most characters of a part."""
MIN_KEY_BITS: Final = 2_048
OWN_KEY_BITS: Final = 3_072
KEY_ALGORITHM: Final = "RSA-OAEP-256"
CONTENT_ALGORITHM: Final = "A256GCM"
_ALGORITHMS: Final = [KEY_ALGORITHM, CONTENT_ALGORITHM]
_MAX_TOKEN: Final = 100
HELD: Final = "transfers"
"""The holder's key that our own is sealed under."""
_KEY_CONTEXT: Final = b"strongroom transfer key"
_PEM: Final = b"-----BEGIN"
Kind = Literal["EXPORT", "IMPORT"]


class _KeyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Our own key on disk: its PEM under a key that is wrapped by the holder's."""

    format: Literal["strongroom transfer key 1"] = "strongroom transfer key 1"
    wrapped: bytes
    nonce: bytes
    sealed: bytes


class PartCard(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """One card in a part."""

    token: str
    number: str
    expiry_month: int
    expiry_year: int
    holder: str

    def __repr__(self) -> str:
        return "PartCard(…)"


class PartContent(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What is inside a part's JWE, as JSON."""

    transfer: str
    part: int
    is_last: bool
    cards: list[PartCard]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How a transfer stands. `digest` and `cards` are of the parts that went over so far."""

    transfer_id: UUID
    kind: Kind
    state: str
    requested_by: str
    approved_by: str
    parts: int
    cards: int
    digest: str
    failure: str


_SELECT: Final = """
    select transfer_id, kind, state, requested_by, approved_by, receiver_key, expected_chain, expected_count, chain,
           parts, cards, last_token, failure, approved_at
    from transfers where tenant_id = %s and transfer_id = %s for update
"""


class _Row(msgspec.Struct):
    """A row of `transfers`."""

    transfer_id: UUID
    kind: Kind
    state: str
    requested_by: str
    approved_by: str
    receiver_key: str
    expected_chain: bytes
    expected_count: int
    chain: bytes
    parts: int
    cards: int
    last_token: str
    failure: str
    approved_at: Any

    def told(self) -> Transfer:
        return Transfer(
            transfer_id=self.transfer_id,
            kind=self.kind,
            state=self.state,
            requested_by=self.requested_by,
            approved_by=self.approved_by,
            parts=self.parts,
            cards=self.cards,
            digest=self.chain.hex(),
            failure=self.failure,
        )


class Transfers:
    """Exports and imports of all tenants. `key` is what others encrypt to, to hand us their cards."""

    def __init__(self, custody: Custody, key: RSAKey) -> None:
        self._custody = custody
        self._key = key

    @property
    def receiver_key(self) -> Mapping[str, Any]:
        """The public half of our own key, as a JSON Web Key (RFC 7517)."""
        return self._key.as_dict(private=False)

    async def request_export(self, tenant: UUID, receiver_key: object, by: By) -> Transfer:
        """Ask for all of a tenant's cards, for the holder of a key. Raises errors.Invalid (`RECEIVER_KEY_INVALID`)."""
        _read_receiver_key(receiver_key)
        return await self._request(tenant, "EXPORT", by, receiver_key=msgspec.json.encode(receiver_key).decode())

    async def request_import(self, tenant: UUID, digest: object, count: object, by: By) -> Transfer:
        """Ask to take in cards whose digest and count the sender told.

        Raises errors.Invalid (`TRANSFER_DIGEST_INVALID`, `TRANSFER_COUNT_INVALID`).
        """
        failures = []
        try:
            chain = bytes.fromhex(digest) if isinstance(digest, str) else b""
        except ValueError:
            chain = b""
        if len(chain) != hashlib.sha256().digest_size:
            failures.append(
                Failure("TRANSFER_DIGEST_INVALID", "digest is the 64 hexadecimal digits that the sender was told.")
            )
        if type(count) is not int or not 0 <= count < 1 << 31:
            failures.append(Failure("TRANSFER_COUNT_INVALID", "count is how many cards the sender was told."))
            count = 0
        if failures:
            raise Invalid(*failures)
        return await self._request(tenant, "IMPORT", by, expected_chain=chain, expected_count=count)

    async def approve(self, tenant: UUID, transfer_id: UUID, by: By) -> Transfer:
        """The second person's word.

        Raises errors.Forbidden (`TRANSFER_NEEDS_ANOTHER_PERSON`), errors.Conflict (`TRANSFER_STATE_CONFLICT`) and
        errors.NotFound (`TRANSFER_NOT_FOUND`).
        """
        async with self._custody.records.transaction(tenant) as connection:
            row = await _lock(connection, tenant, transfer_id)
            _require_state(row, "REQUESTED")
            if row.requested_by == by.actor:
                raise Forbidden(
                    Failure(
                        "TRANSFER_NEEDS_ANOTHER_PERSON",
                        "Whoever asked for a transfer can't approve it. Somebody else has to, with another key.",
                    )
                )
            await connection.execute(
                "update transfers set state = 'APPROVED', approved_by = %s, approved_at = now(), updated_at = now() "
                "where tenant_id = %s and transfer_id = %s",
                (by.actor, tenant, transfer_id),
            )
            await _event(connection, tenant, row, by, "approve")
            return (await _lock(connection, tenant, transfer_id)).told()

    async def cancel(self, tenant: UUID, transfer_id: UUID, by: By) -> Transfer:
        """Call it off; what an import brought so far is removed. Raises as `approve`, without Forbidden."""
        async with self._custody.records.transaction(tenant) as connection:
            row = await _lock(connection, tenant, transfer_id)
            _require_state(row, "REQUESTED", "APPROVED")
            await _end(connection, tenant, row, "CANCELLED")
            await _event(connection, tenant, row, by, "cancel")
            return (await _lock(connection, tenant, transfer_id)).told()

    async def find(self, tenant: UUID, transfer_id: UUID) -> Transfer:
        """How it stands. Raises errors.NotFound (`TRANSFER_NOT_FOUND`)."""
        async with self._custody.records.transaction(tenant) as connection:
            return (await _lock(connection, tenant, transfer_id)).told()

    async def export_part(self, tenant: UUID, transfer_id: UUID, number: int, by: By) -> tuple[str, Transfer]:
        """A part of an export, the next one or an earlier one again; the transfer is COMPLETED after the last.

        Raises errors.Conflict (`TRANSFER_STATE_CONFLICT`), errors.NotFound (`TRANSFER_NOT_FOUND`,
        `TRANSFER_PART_NOT_FOUND`).
        """
        async with self._custody.records.transaction(tenant) as connection:
            row = await _lock(connection, tenant, transfer_id, kind="EXPORT")
            if 1 <= number <= row.parts:
                cursor = await connection.execute(
                    "select content_sealed from transfer_parts "
                    "where tenant_id = %s and transfer_id = %s and part_no = %s",
                    (tenant, transfer_id, number),
                    binary=True,
                )
                kept = await cursor.fetchone()
                if kept is None:
                    raise _no_part()
                return kept[0].decode(), row.told()
            if number != row.parts + 1 or row.state == "COMPLETED":
                raise _no_part()
            _require_state(row, "APPROVED")
            return await self._make_part(connection, tenant, row, by)

    async def import_part(self, tenant: UUID, transfer_id: UUID, number: int, content: str, by: By) -> Transfer:
        """Take in the next part of an import; one that is here already changes nothing.

        Raises errors.Invalid (`TRANSFER_PART_UNREADABLE`, `TRANSFER_PART_DIFFERS`, `TRANSFER_PART_OUT_OF_ORDER`,
        `TRANSFER_CARD_INVALID`, `TRANSFER_TOKEN_TAKEN`), errors.Conflict (`TRANSFER_STATE_CONFLICT`,
        `TRANSFER_OVERLAPS`, `TRANSFER_DIFFERS`: all of the import is gone then) and errors.NotFound
        (`TRANSFER_NOT_FOUND`).
        """
        digest = hashlib.sha256(content.encode()).digest()
        async with self._custody.records.transaction(tenant) as connection:
            row = await _lock(connection, tenant, transfer_id, kind="IMPORT")
            if 1 <= number <= row.parts:
                await _require_same(connection, tenant, transfer_id, number, digest)
                return row.told()
            _require_state(row, "APPROVED")
            if number != row.parts + 1:
                raise Invalid(Failure("TRANSFER_PART_OUT_OF_ORDER", "Send part {next} next.", {"next": row.parts + 1}))
            part = self._open_part(content, number)
            keys = await self._custody.keys.of(connection, tenant)
            for sent in part.cards:
                await _import_card(connection, keys, tenant, transfer_id, sent)
            row.chain, row.parts, row.cards = _link(row.chain, digest), number, row.cards + len(part.cards)
            differs = part.is_last and (row.chain, row.cards) != (row.expected_chain, row.expected_count)
            await _keep_part(connection, tenant, row, digest, b"")
            if differs:
                row.failure = "TRANSFER_DIFFERS"
                await _end(connection, tenant, row, "FAILED")
            elif part.is_last:
                await connection.execute(
                    "update cards set status = 'ACTIVE' where tenant_id = %s and transfer_id = %s",
                    (tenant, transfer_id),
                )
                await _end(connection, tenant, row, "COMPLETED")
            await _event(connection, tenant, row, by, f"part {number}, {len(part.cards)} cards")
            told = (await _lock(connection, tenant, transfer_id)).told()
        if differs:
            raise Conflict(
                Failure(
                    "TRANSFER_DIFFERS",
                    "What came is not what was announced: {cards} cards with the digest {digest}. None of them was "
                    "kept. Compare both with the sender.",
                    {"cards": told.cards, "digest": told.digest},
                )
            )
        return told

    async def _request(self, tenant: UUID, kind: Kind, by: By, **columns: object) -> Transfer:
        transfer_id = new_uuid()
        async with self._custody.records.transaction(tenant) as connection:
            await connection.execute(
                "insert into transfers (tenant_id, transfer_id, kind, state, requested_by, receiver_key, "
                "expected_chain, expected_count, created_at, updated_at) "
                "values (%s, %s, %s, 'REQUESTED', %s, %s, %s, %s, now(), now())",
                (
                    tenant, transfer_id, kind, by.actor, columns.get("receiver_key", ""),
                    columns.get("expected_chain", b""), columns.get("expected_count", 0),
                ),
            )  # fmt: skip
            row = await _lock(connection, tenant, transfer_id)
            await _event(connection, tenant, row, by, "request")
            return row.told()

    async def _make_part(self, connection: Connection, tenant: UUID, row: _Row, by: By) -> tuple[str, Transfer]:
        cursor = await connection.execute(
            "select token, number_sealed from cards where tenant_id = %s and status = 'ACTIVE' and token > %s "
            "and created_at <= %s order by token limit %s",
            (tenant, row.last_token, row.approved_at, PART_CARDS),
            binary=True,
        )
        rows = await cursor.fetchall()
        keys = await self._custody.keys.of(connection, tenant)
        is_last = len(rows) < PART_CARDS
        part = PartContent(str(row.transfer_id), row.parts + 1, is_last, [_read_card(keys, *found) for found in rows])
        sealed = jwe.encrypt_compact(
            {"alg": KEY_ALGORITHM, "enc": CONTENT_ALGORITHM},
            msgspec.json.encode(part),
            _read_receiver_key(msgspec.json.decode(row.receiver_key)),
            algorithms=_ALGORITHMS,
        )
        digest = hashlib.sha256(sealed.encode()).digest()
        row.chain, row.parts, row.cards = _link(row.chain, digest), row.parts + 1, row.cards + len(rows)
        row.last_token = rows[-1][0] if rows else row.last_token
        await _keep_part(connection, tenant, row, digest, sealed.encode())
        if is_last:
            await _end(connection, tenant, row, "COMPLETED")
        await _event(connection, tenant, row, by, f"part {row.parts}, {len(rows)} cards")
        return sealed, (await _lock(connection, tenant, row.transfer_id)).told()

    def _open_part(self, content: str, number: int) -> PartContent:
        if len(content) > MAX_PART:
            raise _unreadable()
        try:
            opened = jwe.decrypt_compact(content, self._key, algorithms=_ALGORITHMS)
            part = msgspec.json.decode(opened.plaintext or b"", type=PartContent)
        except (JoseError, ValueError, TypeError, msgspec.DecodeError):
            raise _unreadable() from None
        if part.part != number:
            raise Invalid(
                Failure("TRANSFER_PART_OUT_OF_ORDER", "This is part {found} of its file.", {"found": part.part})
            )
        return part


async def load_or_make_key(path: Path, holder: FileHolder) -> RSAKey:
    """Our own key (RSA, 3,072 bits), made on first use, in a file of mode 0600, sealed under a key of the holder's.

    A file in clear (PEM, as the first ones were) is sealed, and what it held overwritten.

    Raises errors.Broken (`TRANSFER_KEY_BROKEN`).
    """
    if HELD not in holder.references():
        await holder.create(HELD)
    content = _read_file(path)
    try:
        if content is None:
            content = await _sealed_key(holder, RSAKey.generate_key(OWN_KEY_BITS))
            _replace_file(path, content)
        elif content.startswith(_PEM):
            content = await _sealed_key(holder, RSAKey.import_key(content))
            _replace_file(path, content)
        file = msgspec.json.decode(content, type=_KeyFile)
        key = await holder.unwrap(HELD, file.wrapped, _KEY_CONTEXT)
        return RSAKey.import_key(AESGCM(key.reveal()).decrypt(file.nonce, file.sealed, _KEY_CONTEXT))
    except (JoseError, ValueError, TypeError, msgspec.DecodeError, InvalidTag, Broken) as error:
        raise Broken(
            Failure(
                "TRANSFER_KEY_BROKEN",
                "{path} can't be read. Restore it from your backup of the keys, or remove it to have a new one made.",
                {"path": str(path)},
            )
        ) from error


async def _sealed_key(holder: FileHolder, key: RSAKey) -> bytes:
    """A file's content: a key, sealed under a key of its own that the holder wraps."""
    own, nonce = Secret(os.urandom(KEY_BYTES)), os.urandom(NONCE_BYTES)
    sealed = AESGCM(own.reveal()).encrypt(nonce, key.as_pem(private=True), _KEY_CONTEXT)
    file = _KeyFile(wrapped=await holder.wrap(HELD, own, _KEY_CONTEXT), nonce=nonce, sealed=sealed)
    return msgspec.json.encode(file)


def _read_file(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _replace_file(path: Path, content: bytes) -> None:
    """The file as it shall be, whole; what it held is overwritten."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
        output.write(content)
        output.flush()
        os.fsync(output.fileno())
    old = path.open("r+b", buffering=0) if path.exists() else None
    fresh.replace(path)
    if old is not None:
        with old:
            old.write(bytes(os.fstat(old.fileno()).st_size))
            os.fsync(old.fileno())


def _read_receiver_key(sent: object) -> RSAKey:
    """A public RSA key in JWK form, large enough."""
    try:
        if not isinstance(sent, dict) or "d" in sent:
            raise ValueError
        key = RSAKey.import_key({name: value for name, value in sent.items() if isinstance(value, str)})
        bits = key.raw_value.key_size
    except (JoseError, ValueError, TypeError, KeyError):
        bits = 0
    if bits < MIN_KEY_BITS:
        raise Invalid(
            Failure(
                "RECEIVER_KEY_INVALID",
                "receiverKey is the receiver's public RSA key as a JSON Web Key, of at least {bits} bits.",
                {"bits": MIN_KEY_BITS},
            )
        )
    return key


def _read_card(keys: TenantKeys, token: str, sealed: bytes) -> PartCard:
    content = decode_card(keys.open(token, NUMBER, sealed))
    return PartCard(token, content.number, content.month, content.year, content.holder)


async def _import_card(
    connection: Connection, keys: TenantKeys, tenant: UUID, transfer_id: UUID, sent: PartCard
) -> None:
    brand = find_brand(sent.number) if is_card_number(sent.number) else None
    good_token = sent.token.startswith(TOKEN_PREFIX) and sent.token.isascii() and len(sent.token) <= _MAX_TOKEN
    good_expiry = 1 <= sent.expiry_month <= 12 and 2000 <= sent.expiry_year <= 2999
    if brand is None or not good_token or not good_expiry or not is_holder(sent.holder):
        raise Invalid(
            Failure("TRANSFER_CARD_INVALID", "A part holds a card whose number, expiry, token or holder is none.")
        )
    cursor = await connection.execute(
        "select fingerprint, fingerprint_version, status, transfer_id from cards where tenant_id = %s and token = %s",
        (tenant, sent.token),
        binary=True,
    )
    known = await cursor.fetchone()
    if known is None:
        expiry = Expiry(month=sent.expiry_month, year=sent.expiry_year)
        new = NewCard(number=sent.number, brand=brand, expiry=expiry, holder=sent.holder, cvv="")
        await insert_card(connection, keys, tenant, sent.token, new, transfer=transfer_id)
    elif not _is_of(keys, known[0], known[1], sent.number):
        raise Invalid(Failure("TRANSFER_TOKEN_TAKEN", "A part holds a token that is another card's here."))
    elif known[2] == "IMPORTING" and known[3] != transfer_id:
        # That one may still fail, and would take the card with it.
        raise Conflict(
            Failure(
                "TRANSFER_OVERLAPS",
                "A card of this part belongs to another import, {other}, that isn't complete. Finish or cancel that "
                "one first.",
                {"other": str(known[3])},
            )
        )


def _is_of(keys: TenantKeys, fingerprint: bytes, version: int, number: str) -> bool:
    """Whether a card that is here has this number. One that was forgotten has none."""
    return fingerprint != b"" and hmac.compare_digest(fingerprint, keys.fingerprint(number.encode(), version))


async def _keep_part(connection: Connection, tenant: UUID, row: _Row, digest: bytes, content: bytes) -> None:
    await connection.execute(
        "insert into transfer_parts (tenant_id, transfer_id, part_no, digest, content_sealed) "
        "values (%s, %s, %s, %s, %s)",
        (tenant, row.transfer_id, row.parts, digest, content),
    )
    await connection.execute(
        "update transfers set chain = %s, parts = %s, cards = %s, last_token = %s, updated_at = now() "
        "where tenant_id = %s and transfer_id = %s",
        (row.chain, row.parts, row.cards, row.last_token, tenant, row.transfer_id),
    )


async def _end(connection: Connection, tenant: UUID, row: _Row, state: str) -> None:
    if row.kind == "IMPORT" and state != "COMPLETED":
        await connection.execute(
            "delete from cards where tenant_id = %s and transfer_id = %s and status = 'IMPORTING'",
            (tenant, row.transfer_id),
        )
    await connection.execute(
        "update transfers set state = %s, failure = %s, updated_at = now() where tenant_id = %s and transfer_id = %s",
        (state, row.failure, tenant, row.transfer_id),
    )


async def _lock(connection: Connection, tenant: UUID, transfer_id: UUID, kind: Kind | None = None) -> _Row:
    cursor = await connection.execute(
        _SELECT,
        (tenant, transfer_id),
        binary=True,
    )
    found = await cursor.fetchone()
    row = None if found is None else _Row(*found)
    if row is None or kind not in {None, row.kind}:
        raise NotFound(Failure("TRANSFER_NOT_FOUND", "There is no such transfer."))
    return row


async def _require_same(connection: Connection, tenant: UUID, transfer_id: UUID, number: int, digest: bytes) -> None:
    cursor = await connection.execute(
        "select digest from transfer_parts where tenant_id = %s and transfer_id = %s and part_no = %s",
        (tenant, transfer_id, number),
        binary=True,
    )
    if await cursor.fetchone() != (digest,):
        raise Invalid(
            Failure("TRANSFER_PART_DIFFERS", "Part {part} is here already, and was another.", {"part": number})
        )


def _require_state(row: _Row, *states: str) -> None:
    if row.state not in states:
        raise Conflict(
            Failure(
                "TRANSFER_STATE_CONFLICT",
                "This transfer is {state}; for that it has to be {wanted}.",
                {"state": row.state, "wanted": " or ".join(states)},
            )
        )


async def _event(connection: Connection, tenant: UUID, row: _Row, by: By, what: str) -> None:
    await write_event(
        connection, tenant, by, f"cards.{row.kind.lower()}", detail=f"{row.transfer_id} {what}",
        outcome="refused" if row.failure else "done",
    )  # fmt: skip


def _link(chain: bytes, digest: bytes) -> bytes:
    return hashlib.sha256(chain + digest).digest()


def _no_part() -> NotFound:
    return NotFound(Failure("TRANSFER_PART_NOT_FOUND", "There is no such part (yet). Ask for parts in order."))


def _unreadable() -> Invalid:
    return Invalid(
        Failure(
            "TRANSFER_PART_UNREADABLE",
            "This part can't be opened: it was encrypted to another key, altered, or cut short. Get it again from the "
            "sender, who encrypts to this vault's receiver key.",
        )
    )
