"""Financial instruments: what a customer pays from or is paid to. Bank accounts, by IBAN or domestic number, and cards,
by the card vault's token and nothing more.

Nothing told is dropped: the same account told again with the same holder, bank and address is the same instrument, with
any difference it is another one. An instrument isn't edited; it ends (INACTIVE) when its customer is forgotten.
Details are sealed under the customer's own key and leave only to the rail that carries a payment out. What listings
show is masked, and kept apart, so that it can be shown while that key is away.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import msgspec

from strongroom.access import Permission, require
from strongroom.audit import Entry, record_many
from strongroom.database import Operation, pack_bytes, pack_texts, pack_uuids
from strongroom.database.operation import Row
from strongroom.kernel.errors import Failure, Invalid, NotFound
from strongroom.kernel.ids import FinancialInstrumentId, new_uuid_bytes, parse_uuid
from strongroom.kernel.money import COUNTRIES
from strongroom.payments.customers import customer_id_of, persons_of
from strongroom.rails.contract import Address, BankAccount
from strongroom.rails.formats.accounts import find_bic, find_iban

BANK_ACCOUNT: Final = "BANK_ACCOUNT"
CARD: Final = "CARD"
MAX_HOLDER: Final = 140
MAX_ADDRESS_TEXT: Final = 70
MAX_POST_CODE: Final = 16
MAX_TOWN: Final = 35
MAX_REGION: Final = 35
MAX_BUILDING: Final = 16
"""Sizes of ISO 20022's Max…Text fields for names and postal addresses (pain.001.001.09, PostalAddress24)."""

_CAPABILITIES: Final[Mapping[str, tuple[bool, bool]]] = MappingProxyType(
    {BANK_ACCOUNT: (True, True), CARD: (False, False)}
)
"""Type → whether it can be credited, debited. No rail takes cards yet, so that an instruction with one is refused."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BLANKS: Final = re.compile(r"[\s-]+")
_NUMBER: Final = re.compile(r"[0-9A-Z]{1,34}", re.ASCII)
_BANK_CODE: Final = re.compile(r"[0-9A-Z]{1,35}", re.ASCII)
_MASK: Final = "****"
_Key = tuple[bytes, bytes]
"""A customer's id and an instrument's fingerprint, 16 bytes each."""
NO_COUNTRY: Final = ""
"""A card's country is its issuer's, which isn't known here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBankAccount:
    """A bank account that `check_bank_account` found good. `country` is where it is kept."""

    account: BankAccount
    country: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """A financial instrument as it may be shown: masked."""

    financial_instrument_id: FinancialInstrumentId
    type: str
    status: str
    created_at: datetime
    can_credit: bool
    can_debit: bool
    display_name: str
    details: Mapping[str, str]


class InstrumentSummary(msgspec.Struct, frozen=True, gc=False):
    """What an instruction has to know of an instrument."""

    customer_id: bytes
    status: str
    can_credit: bool
    can_debit: bool
    type: str


class AddressContent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A postal address inside `BankAccountContent`."""

    country: str
    street: str
    building: str
    post_code: str
    town: str
    region: str


class Masked(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`financial_instruments.sealed`: what listings show."""

    display_name: str
    details: dict[str, str]


class BankAccountContent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`financial_instruments.sensitive` of a bank account (before there was such a column: `sealed`)."""

    holder: str
    iban: str
    bic: str
    number: str
    bank_code: str
    country: str
    address: AddressContent | None = None

    @classmethod
    def of(cls, new: NewBankAccount) -> BankAccountContent:
        """What is kept of an account."""
        account, address = new.account, new.account.address
        return cls(
            account.holder,
            account.iban,
            account.bic,
            account.number,
            account.bank_code,
            new.country,
            None
            if address is None
            else AddressContent(
                address.country, address.street, address.building, address.post_code, address.town, address.region
            ),
        )

    def to_rail(self) -> BankAccount:
        """The account as rails know it."""
        address = self.address
        return BankAccount(
            holder=self.holder,
            iban=self.iban,
            bic=self.bic,
            number=self.number,
            bank_code=self.bank_code,
            address=None
            if address is None
            else Address(
                country=address.country,
                street=address.street,
                building=address.building,
                post_code=address.post_code,
                town=address.town,
                region=address.region,
            ),
        )


class CardContent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`financial_instruments.sealed` of a card: what the card vault tells of it."""

    token: str
    brand: str
    masked_number: str
    expiry_month: int
    expiry_year: int
    fingerprint: str


_encode = msgspec.msgpack.Encoder().encode
_decode_card = msgspec.msgpack.Decoder(CardContent).decode
_decode = msgspec.msgpack.Decoder(BankAccountContent).decode
_decode_masked = msgspec.msgpack.Decoder(Masked).decode


def check_bank_account(sent: Mapping[str, Any]) -> NewBankAccount:
    """A bank account as it was sent (untyped JSON), checked.

    `accountHolderName` (in bulk lines also `accountHolder`), `iban` or else `accountNumber`, `bankCode` and `country`,
    `bic`, `address` with `streetAddress`, `extendedAddress`, `locality`, `region`, `postCode`, `country`.

    Raises errors.Invalid with every failure, in field order: `ACCOUNT_HOLDER_NAME_…`, `IBAN_…`, `ACCOUNT_NUMBER_…`,
    `BANK_CODE_…`, `COUNTRY_…`, `BIC_IS_INVALID`, `ADDRESS_…`.
    """
    failures: list[Failure] = []
    name = sent.get("accountHolderName")
    holder = _line(failures, sent.get("accountHolder") if name is None else name, "accountHolderName", MAX_HOLDER)
    if holder == "" and not failures:
        failures.append(Failure("ACCOUNT_HOLDER_NAME_IS_REQUIRED", "accountHolderName is required."))
    iban, number, bank_code, country = _check_number(failures, sent)
    bic = ""
    if given := sent.get("bic"):
        bic = (find_bic(given) if isinstance(given, str) else None) or ""
        if not bic:
            failures.append(
                Failure("BIC_IS_INVALID", "bic is not a BIC (ISO 9362): its structure or its country is wrong.")
            )
    address = None if sent.get("address") is None else _check_address(failures, sent["address"])
    if failures:
        raise Invalid(*failures)
    return NewBankAccount(
        account=BankAccount(holder=holder, iban=iban, bic=bic, number=number, bank_code=bank_code, address=address),
        country=country,
    )


async def add_bank_account(op: Operation, customer_ref: str, new: NewBankAccount) -> tuple[Instrument, bool]:
    """Put an account into a customer's vault, and say whether it is new there. The customer is made when unknown."""
    [(instrument_id, is_new)] = await _add(op, [(customer_ref, new)])
    return await get_instrument(op, customer_ref, str(UUID(bytes=instrument_id))), is_new


async def add_card(op: Operation, customer_ref: str, card: CardContent) -> tuple[Instrument, bool]:
    """Put a card into a customer's vault, and say whether it is new there. The customer is made when unknown.

    The same token told again is the same instrument. The same number taken again has a token of its own, for which
    alone its security code is good, and is another instrument; the card's fingerprint, in the details, says so.
    """
    require(op, Permission.TRANSACTIONS_WRITE)
    fingerprint = op.cipher.index("financial_instruments", "fingerprint", f"{CARD}\n{card.token}")
    key = (customer_id_of(op, customer_ref), fingerprint)
    instrument_id = new_uuid_bytes()
    sealed = op.cipher.seal("financial_instruments", "sealed", instrument_id, _encode(card))
    persons = await persons_of(op, {key[0]: customer_ref})
    # What is sensitive of a card is in the card vault.
    cipher = op.cipher.for_person(persons[key[0]])
    sensitive = cipher.seal("financial_instruments", "sensitive", instrument_id, b"")
    ids, made = await _insert(op, CARD, {key: _NewRow(instrument_id, NO_COUNTRY, sealed, sensitive)})
    found = str(UUID(bytes=ids[key]))
    return await get_instrument(op, customer_ref, found), ids[key] in made


async def add_many(op: Operation, accounts: Sequence[tuple[str, NewBankAccount]]) -> list[bytes]:
    """Put accounts into the vaults of customers (by reference); returns their instruments' 16-byte ids, in order.

    Two statements when all of them are new, three otherwise.
    """
    return [instrument_id for instrument_id, _ in await _add(op, accounts)]


async def get_instrument(op: Operation, customer_ref: str, instrument_id: str) -> Instrument:
    """One instrument of a customer. Raises errors.NotFound (`FINANCIAL_INSTRUMENT_NOT_FOUND`)."""
    require(op, Permission.TRANSACTIONS_READ)
    wanted = parse_uuid(instrument_id)
    row = None
    if wanted is not None:
        row = await op.row(
            "select financial_instrument_id, type, status, sealed, sensitive is null, created_at "
            "from financial_instruments "
            "where tenant_id = %s and customer_id = %s and financial_instrument_id = %s",
            op.tenant,
            UUID(bytes=customer_id_of(op, customer_ref)),
            wanted,
        )
    if row is None:
        raise _not_found()
    return _read(op, row)


async def list_instruments(op: Operation, customer_ref: str) -> Sequence[Instrument]:
    """A customer's instruments, oldest first."""
    require(op, Permission.TRANSACTIONS_READ)
    rows = await op.rows(
        "select financial_instrument_id, type, status, sealed, sensitive is null, created_at "
        "from financial_instruments "
        "where tenant_id = %s and customer_id = %s order by financial_instrument_id",
        op.tenant,
        UUID(bytes=customer_id_of(op, customer_ref)),
    )
    return [_read(op, row) for row in rows]


async def has_cards(op: Operation, customer_ref: str) -> bool:
    """Whether a card was ever put into a customer's vault, also when they are forgotten since."""
    require(op, Permission.CUSTOMERS_FORGET)
    row = await op.row(
        "select from financial_instruments where tenant_id = %s and customer_id = %s and type = %s limit 1",
        op.tenant,
        UUID(bytes=customer_id_of(op, customer_ref)),
        CARD,
    )
    return row is not None


async def find_for_use(op: Operation, ids: Collection[bytes]) -> Mapping[bytes, InstrumentSummary]:
    """Those of these instruments (16-byte ids) that exist. One query, nothing is unsealed; for the path of orders."""
    rows = await op.rows(
        "select uuid_send(financial_instrument_id), uuid_send(customer_id), status, type from financial_instruments "
        "where tenant_id = %s and financial_instrument_id = any(%s)",
        op.tenant,
        pack_uuids(list(ids)),
    )
    return {row[0]: InstrumentSummary(row[1], row[2], *_CAPABILITIES[row[3]], row[3]) for row in rows}


async def open_account(op: Operation, instrument_id: bytes) -> BankAccount:
    """The account in clear, for the rail that carries a payment out; within `op.opening`.

    Raises errors.NotFound (`FINANCIAL_INSTRUMENT_NOT_FOUND`) unless it is there and ACTIVE.
    """
    account = (await open_accounts(op, [instrument_id])).get(instrument_id)
    if account is None:
        raise _not_found()
    return account


async def open_accounts(op: Operation, ids: Collection[bytes]) -> Mapping[bytes, BankAccount]:
    """The same for many at once, in one query; those that are not there or not ACTIVE are left out."""
    require(op, Permission.TRANSACTIONS_WRITE)
    rows = await op.rows(
        "select uuid_send(financial_instrument_id), sealed, sensitive from financial_instruments "
        "where tenant_id = %s and financial_instrument_id = any(%s) and status = 'ACTIVE' and type = %s",
        op.tenant,
        pack_uuids(list(ids)),
        BANK_ACCOUNT,
    )
    return {found: _open(op, found, sealed, sensitive).to_rail() for found, sealed, sensitive in rows}


async def open_contents(op: Operation, customer_id: UUID) -> Mapping[UUID, BankAccount]:
    """A customer's active accounts in clear, oldest first; within `op.opening`, for `payments.openings` alone."""
    rows = await op.rows(
        "select financial_instrument_id, sealed, sensitive from financial_instruments "
        "where tenant_id = %s and customer_id = %s and status = 'ACTIVE' and type = %s "
        "order by financial_instrument_id",
        op.tenant,
        customer_id,
        BANK_ACCOUNT,
    )
    return {found: _open(op, found.bytes, sealed, sensitive).to_rail() for found, sealed, sensitive in rows}


def split_content(content: bytes) -> tuple[bytes, bytes] | None:
    """What `sealed` held before there was `sensitive`, as both; None when there is nothing to part."""
    if not content:
        return None
    return _encode(_masked(_decode(content))), content


_ADD: Final = """
insert into financial_instruments
    (tenant_id, financial_instrument_id, customer_id, type, status, country, fingerprint, sealed, sensitive, iban_index,
     created_at)
select %(tenant)s, id, customer_id, %(type)s, 'ACTIVE', country, fingerprint, sealed, sensitive, nullif(iban_index, ''),
    %(now)s
from unnest(%(id)s, %(customer)s, %(country)s, %(fingerprint)s, %(sealed)s, %(sensitive)s, %(iban_index)s)
    as t(id, customer_id, country, fingerprint, sealed, sensitive, iban_index)
order by customer_id, fingerprint
on conflict (tenant_id, customer_id, fingerprint) do nothing
returning uuid_send(financial_instrument_id)
"""
# Rows are written in the order of their keys, so that two such statements never wait for each other in a ring.


class _NewRow(msgspec.Struct, frozen=True, gc=False):
    instrument_id: bytes
    country: str
    sealed: bytes
    sensitive: bytes
    iban_index: bytes = b""
    """Empty: there is no IBAN to be found by."""


async def _add(op: Operation, accounts: Sequence[tuple[str, NewBankAccount]]) -> list[tuple[bytes, bool]]:
    require(op, Permission.TRANSACTIONS_WRITE)
    wanted: list[_Key] = []
    rows: dict[_Key, _NewRow] = {}
    customers = {customer_id_of(op, customer_ref): customer_ref for customer_ref, _ in accounts}
    persons = await persons_of(op, customers)
    for customer_ref, new in accounts:
        customer_id = customer_id_of(op, customer_ref)
        content = BankAccountContent.of(new)
        key = (customer_id, _fingerprint(op, content))
        wanted.append(key)
        if key not in rows:
            instrument_id = new_uuid_bytes()
            rows[key] = _NewRow(
                instrument_id,
                new.country,
                op.cipher.seal("financial_instruments", "sealed", instrument_id, _encode(_masked(content))),
                op.cipher.for_person(persons[customer_id]).seal(
                    "financial_instruments", "sensitive", instrument_id, _encode(content)
                ),
                op.cipher.blind("financial_instruments", "iban_index", content.iban) if content.iban else b"",
            )
    ids, made = await _insert(op, BANK_ACCOUNT, rows)
    return [(ids[key], ids[key] in made) for key in wanted]


async def _insert(op: Operation, kind: str, new: Mapping[_Key, _NewRow]) -> tuple[dict[_Key, bytes], set[bytes]]:
    """Instruments' ids by customer and fingerprint, and which of them were made now."""
    ids = {key: row.instrument_id for key, row in new.items()}
    rows = await op.rows_named(
        _ADD,
        {
            "tenant": op.tenant,
            "now": op.now,
            "type": kind,
            "id": pack_uuids(list(ids.values())),
            "customer": pack_uuids([customer_id for customer_id, _ in ids]),
            "country": pack_texts([row.country for row in new.values()]),
            "fingerprint": pack_bytes([fingerprint for _, fingerprint in ids]),
            "sealed": pack_bytes([row.sealed for row in new.values()]),
            "sensitive": pack_bytes([row.sensitive for row in new.values()]),
            "iban_index": pack_bytes([row.iban_index for row in new.values()]),
        },
    )
    made = {row[0] for row in rows}
    if len(made) < len(ids):
        ids |= await _find_by_fingerprint(op, [key for key, instrument_id in ids.items() if instrument_id not in made])
    await record_many(
        op,
        [
            Entry(
                "financial-instrument.create",
                "financial-instrument",
                str(UUID(bytes=instrument_id)),
                correlation_id=op.correlation_id,
            )
            for instrument_id in ids.values()
            if instrument_id in made
        ],
    )
    return ids, made


async def _find_by_fingerprint(op: Operation, keys: Sequence[_Key]) -> dict[_Key, bytes]:
    rows = await op.rows(
        "select uuid_send(f.customer_id), f.fingerprint, uuid_send(f.financial_instrument_id) "
        "from unnest(%s, %s) as t(customer_id, fingerprint) join financial_instruments f "
        "on f.tenant_id = %s and f.customer_id = t.customer_id and f.fingerprint = t.fingerprint",
        pack_uuids([customer_id for customer_id, _ in keys]),
        pack_bytes([fingerprint for _, fingerprint in keys]),
        op.tenant,
    )
    return {(customer_id, fingerprint): instrument_id for customer_id, fingerprint, instrument_id in rows}


def _fingerprint(op: Operation, content: BankAccountContent) -> bytes:
    """The keyed hash of all that was told of an account, but for case and blanks in texts."""
    texts = [content.country, content.iban, content.number, content.bank_code, content.bic, content.holder]
    if content.address is not None:
        texts += msgspec.structs.astuple(content.address)
    normal = "\n".join([" ".join(text.split()).casefold() for text in texts])
    return op.cipher.index("financial_instruments", "fingerprint", normal)


def _open(op: Operation, instrument_id: bytes, sealed: bytes, sensitive: bytes | None) -> BankAccountContent:
    if sensitive is None:
        return _decode(op.cipher.open("financial_instruments", "sealed", instrument_id, sealed))
    return _decode(op.cipher.open("financial_instruments", "sensitive", instrument_id, sensitive))


def _read(op: Operation, row: Row) -> Instrument:
    instrument_id, kind, status, sealed, is_whole, created_at = row
    content = op.cipher.open("financial_instruments", "sealed", instrument_id.bytes, sealed)
    masked: Masked | None = None
    if not content:
        pass  # Nothing is left of what was forgotten.
    elif kind == CARD:
        card = _decode_card(content)
        masked = Masked(f"{card.brand} {card.masked_number}", _card_details(card))
    elif is_whole:
        masked = _masked(_decode(content))  # It was written before there was `sensitive`.
    else:
        masked = _decode_masked(content)
    can_credit, can_debit = _CAPABILITIES[kind]
    return Instrument(
        financial_instrument_id=FinancialInstrumentId(instrument_id),
        type=kind,
        status=status,
        created_at=created_at,
        can_credit=can_credit and masked is not None,
        can_debit=can_debit and masked is not None,
        display_name="" if masked is None else masked.display_name,
        details={} if masked is None else masked.details,
    )


def _masked(account: BankAccountContent) -> Masked:
    return Masked(_masked_number(account), _masked_details(account))


def _card_details(card: CardContent) -> dict[str, str]:
    return {
        "token": card.token,
        "brand": card.brand,
        "maskedNumber": card.masked_number,
        "expiry": f"{card.expiry_year}-{card.expiry_month:02}",
        "fingerprint": card.fingerprint,
    }


def _masked_number(account: BankAccountContent) -> str:
    if account.iban:
        return f"{account.country}** {_MASK} {_MASK} {account.iban[-4:]}"
    shown = account.number[-4:] if len(account.number) >= 8 else account.number[-2:]
    return f"{account.country} {_MASK} {shown if len(account.number) > 4 else _MASK}"


def _masked_details(account: BankAccountContent) -> dict[str, str]:
    details = {"accountHolderName": " ".join(f"{word[0]}***" for word in account.holder.split())}
    details["iban" if account.iban else "accountNumber"] = _masked_number(account)
    if account.bank_code:
        details["bankCode"] = f"{_MASK}{account.bank_code[-2:]}" if len(account.bank_code) >= 6 else _MASK
    if account.bic:
        # The first four characters are the institution's; the rest tells the branch.
        details["bic"] = f"{account.bic[:4]}{_MASK}"
    details["country"] = account.country
    return details


def _check_number(failures: list[Failure], sent: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """IBAN, number, bank code and country, of which either the first or the second and third are empty."""
    iban, number = sent.get("iban"), sent.get("accountNumber")
    if iban and number:
        failures.append(
            Failure("IBAN_AND_ACCOUNT_NUMBER_GIVEN", "Give iban, or accountNumber with bankCode and country, not both.")
        )
        return "", "", "", ""
    if iban or not number:
        found = find_iban(iban) if isinstance(iban, str) else None
        if found is None:
            failures.append(
                Failure(
                    "IBAN_IS_INVALID",
                    "iban is not an IBAN (ISO 13616): its country, length, structure or check digits are wrong.",
                )
                if iban
                else Failure("IBAN_IS_REQUIRED", "Give iban, or else accountNumber with bankCode and country.")
            )
            return "", "", "", ""
        return found, "", "", found[:2]
    plain = _BLANKS.sub("", number).upper() if isinstance(number, str) else ""
    if not _NUMBER.fullmatch(plain):
        failures.append(Failure("ACCOUNT_NUMBER_IS_INVALID", "accountNumber is text of 1 to 34 letters and digits."))
    bank_code = sent.get("bankCode")
    plain_code = _BLANKS.sub("", bank_code).upper() if isinstance(bank_code, str) else ""
    if bank_code is None or bank_code == "":
        failures.append(Failure("BANK_CODE_IS_REQUIRED", "bankCode is required with accountNumber."))
    elif not _BANK_CODE.fullmatch(plain_code):
        failures.append(Failure("BANK_CODE_IS_INVALID", "bankCode is text of 1 to 35 letters and digits."))
    return "", plain, plain_code, _country(failures, sent.get("country"), "country")


def _check_address(failures: list[Failure], sent: object) -> Address | None:
    if not isinstance(sent, Mapping):
        failures.append(Failure("ADDRESS_IS_INVALID", "address is an object.", {"field": "address"}))
        return None
    before = len(failures)
    street = _line(failures, sent.get("streetAddress"), "address.streetAddress", MAX_ADDRESS_TEXT)
    extended = _line(failures, sent.get("extendedAddress"), "address.extendedAddress", MAX_ADDRESS_TEXT)
    town = _line(failures, sent.get("locality"), "address.locality", MAX_TOWN)
    region = _line(failures, sent.get("region"), "address.region", MAX_REGION)
    post_code = _line(failures, sent.get("postCode"), "address.postCode", MAX_POST_CODE)
    country = _country(failures, sent.get("country"), "address.country")
    # A building number has a field of its own with banks; anything longer is part of the street.
    fits = len(extended) <= MAX_BUILDING
    if not fits and len(street) + len(extended) + 2 > MAX_ADDRESS_TEXT:
        failures.append(
            Failure(
                "ADDRESS_LENGTH_OUT_OF_RANGE",
                "{field} and address.extendedAddress have at most {maxLength} characters together.",
                {"field": "address.streetAddress", "maxLength": MAX_ADDRESS_TEXT - 2},
            )
        )
    if not town:
        failures.append(
            Failure(
                "ADDRESS_LOCALITY_IS_REQUIRED",
                "{field} is required in an address: banks take none without town and country.",
                {"field": "address.locality"},
            )
        )
    if len(failures) > before:
        return None
    return Address(
        country=country,
        street=street if fits else ", ".join(text for text in (street, extended) if text),
        building=extended if fits else "",
        post_code=post_code,
        town=town,
        region=region,
    )


def _line(failures: list[Failure], value: object, field: str, longest: int) -> str:
    """One line of text, without blanks around it; nothing when there is none."""
    if value is None:
        return ""
    code = "ADDRESS" if field.startswith("address.") else "ACCOUNT_HOLDER_NAME"
    if not isinstance(value, str) or _CONTROL.search(text := value.strip()):
        failures.append(
            Failure(f"{code}_CONTAINS_INVALID_CHARACTERS", "{field} is one line of text.", {"field": field})
        )
        return ""
    if len(text) > longest:
        failures.append(
            Failure(
                f"{code}_LENGTH_OUT_OF_RANGE",
                "{field} has at most {maxLength} characters.",
                {"field": field, "maxLength": longest},
            )
        )
        return ""
    return text


def _country(failures: list[Failure], value: object, field: str) -> str:
    if isinstance(value, str) and value in COUNTRIES:
        return value
    if value is None or value == "":
        code, template = "COUNTRY_IS_REQUIRED", "{field} is required."
    elif not isinstance(value, str) or len(value) != 2:
        code, template = "COUNTRY_LENGTH_OUT_OF_RANGE", "{field} is a code of two letters."
    else:
        code, template = "COUNTRY_NOT_SUPPORTED", "{field} is not a country of ISO 3166-1."
    failures.append(Failure(code, template, {"field": field}))
    return ""


def _not_found() -> NotFound:
    return NotFound(
        Failure("FINANCIAL_INSTRUMENT_NOT_FOUND", "The customer has no active financial instrument of this id.")
    )
