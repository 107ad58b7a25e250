"""Customer credit transfer initiation: payment orders to a bank (ISO 20022 pain.001).

Written is version pain.001.001.09 after the European Payments Council's customer-to-bank guidelines for SEPA credit
transfers (EPC132-08): service level SEPA, charges shared (SLEV), euro only. Addresses are structured; unstructured ones
are forbidden since 2026-11-15. Banks that ask for it get *hybrid* addresses: town and country as elements, street and
building in up to two address lines.

The same values always give the same bytes. Our reference is both instruction id and end-to-end id, so that every
report of the bank leads back to one payment.

Read are versions 03 and 09, for one's own files and for the bank simulator.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import groupby
from typing import Final

from lxml import etree

from strongroom.kernel.errors import Failure, Invalid
from strongroom.kernel.money import COUNTRIES, Money
from strongroom.rails.contract import Address, BankAccount, Direction, Payment
from strongroom.rails.formats import accounts
from strongroom.rails.formats._xml import Element, Kind, Reading, read_document, text
from strongroom.rails.formats.text import is_reference, line, says_something
from strongroom.rails.formats.writing import Writer

MAX_MESSAGE_ID: Final = 32
"""Longest message id; three digits more make the batch ids, which may have 35 characters."""
MAX_BATCHES: Final = 999
"""Most batches in a file that is written."""
MAX_TRANSACTIONS: Final = 100_000
"""Most transactions in a file that is written, whatever a bank allows."""
MAX_AMOUNT: Final = Money(999_999_999_99, "EUR")
"""Most that a SEPA credit transfer can carry (EPC132-08)."""
MAX_NAME: Final = 70
MAX_REMITTANCE: Final = 140
MAX_ADDRESS_LINE: Final = 70

_REFERENCE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_KIND: Final = Kind(
    message="pain.001.001",
    versions=range(3, 10, 6),
    noun="payment file (pain.001)",
    malformed_code="PAYMENT_FILE_MALFORMED",
    version_code="PAYMENT_FILE_VERSION_NOT_SUPPORTED",
    size_code="PAYMENT_FILE_TOO_LARGE",
)
_MAX_FAILURES: Final = 100
"""Most failures listed for one file."""


class AddressStyle(enum.StrEnum):
    """How a bank wants postal addresses."""

    STRUCTURED = "structured"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What one bank wants of its files, where banks differ."""

    address_style: AddressStyle = AddressStyle.STRUCTURED
    batch_booking: bool = True
    """One line on the statement for a whole batch, rather than one for each payment."""
    sepa_characters: bool = True
    """Spell names and texts in the SEPA character set; otherwise they are written as they are, in UTF-8."""
    max_transactions_per_file: int = 10_000
    max_transactions_per_batch: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Payments from one account to be executed on one day."""

    execution_on: date
    payments: tuple[Payment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditTransferFile:
    """One file to a bank. `message_id` must never be used again for this bank; `debtor` is the account that pays."""

    message_id: str
    created_at: datetime
    initiating_party: str
    debtor: BankAccount
    rules: Rules
    batches: tuple[Batch, ...]


def split(payments: Iterable[Payment], rules: Rules, *, not_before: date) -> list[tuple[Batch, ...]]:
    """The batches of as many files as the bank's limits ask for; payments of one day keep their order.

    A payment that was due before `not_before` is to be executed on that day.
    """

    def day(payment: Payment) -> date:
        return max(payment.due_on, not_before)

    files: list[tuple[Batch, ...]] = []
    batches: list[Batch] = []
    room = rules.max_transactions_per_file
    for execution_on, due in groupby(sorted(payments, key=day), key=day):
        waiting = tuple(due)
        while waiting:
            if room == 0 or len(batches) == MAX_BATCHES:
                files.append(tuple(batches))
                batches, room = [], rules.max_transactions_per_file
            size = min(len(waiting), room, rules.max_transactions_per_batch)
            batches.append(Batch(execution_on=execution_on, payments=waiting[:size]))
            waiting = waiting[size:]
            room -= size
    if batches:
        files.append(tuple(batches))
    return files


def check(payment: Payment, *, debtor: BankAccount, rules: Rules) -> list[Failure]:
    """Everything that keeps `payment` from being written; each failure names its reference, and nothing personal."""
    problems = [
        *_check_terms(payment),
        *_check_account(payment.counterparty, rules),
        *_check_address(payment.counterparty.address),
    ]
    if _needs_debtor_address(debtor, payment.counterparty) and not (debtor.address and debtor.address.town):
        problems.append(
            (
                "DEBTOR_ADDRESS_IS_REQUIRED",
                "it touches a country outside the EEA, so the paying account needs an address",
            )
        )
    return [
        Failure(code, f"payment {{reference}} can't be written: {problem}", {"reference": payment.reference[:35]})
        for code, problem in problems
    ]


def write(file: CreditTransferFile) -> bytes:
    """The file's bytes: pain.001.001.09 in UTF-8.

    Raises errors.Invalid with every failure found (at most 100): those of `check` for each payment, a reference that
    appears twice (`REFERENCE_DUPLICATED`), a debtor or message id that can't be written, and files over a limit
    (`PAYMENT_FILE_EMPTY`, `PAYMENT_FILE_TOO_LONG`).
    """
    failures = list(_failures(file))[:_MAX_FAILURES]
    if failures:
        raise Invalid(*failures)
    writer = Writer("pain.001.001.09")
    initiation = writer.nest(writer.root, "CstmrCdtTrfInitn")
    _write_group_header(writer, initiation, file)
    for number, batch in enumerate(file.batches, start=1):
        _write_batch(writer, initiation, file, batch, number)
    return writer.to_bytes()


def batch_id(message_id: str, number: int) -> str:
    """The id of the file's batch `number` (from 1), as the bank's reports name it."""
    return f"{message_id}{number:03}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InitiatedPayment:
    """One order of somebody's pain.001 file, as it stands there.

    `address_lines` are the creditor's unstructured address lines; what stands in elements is in `creditor.address`.
    """

    batch_id: str
    instruction_id: str
    end_to_end_id: str
    debtor: BankAccount
    creditor: BankAccount
    money: Money
    execution_on: date
    remittance: str
    address_lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InitiatedBatch:
    """The orders of one `PmtInf`. `batch_booking` is None when the file leaves it to the bank."""

    id: str
    execution_on: date
    debtor: BankAccount
    batch_booking: bool | None
    payments: tuple[InitiatedPayment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InitiatedFile:
    """Somebody's pain.001 file."""

    message_id: str
    created_at: datetime
    initiating_party: str
    batches: tuple[InitiatedBatch, ...]

    @property
    def payments(self) -> list[InitiatedPayment]:
        """Every order, in the file's order."""
        return [payment for batch in self.batches for payment in batch.payments]


def read(document: bytes) -> InitiatedFile:
    """Read a pain.001 file of version 03 or 09.

    Raises errors.TooLarge (`PAYMENT_FILE_TOO_LARGE`) and errors.Invalid: `PAYMENT_FILE_MALFORMED`,
    `PAYMENT_FILE_VERSION_NOT_SUPPORTED`, and `PAYMENT_FILE_COUNT_WRONG` or `PAYMENT_FILE_CONTROL_SUM_WRONG` when the
    file or a batch doesn't hold what its own header says.
    """
    reading = _PaymentReading(_KIND)
    root = read_document(document, _KIND, {"CdtTrfTxInf": reading.take_payment, "PmtInf": reading.take_batch})
    initiation = reading.element(root, "CstmrCdtTrfInitn")
    header = reading.element(initiation, "GrpHdr")
    batches: tuple[InitiatedBatch, ...] = tuple(initiation.pieces)
    if not batches:
        raise _KIND.malformed("it holds no payments (PmtInf)", initiation)
    file = InitiatedFile(
        message_id=reading.text(header, "MsgId", limit=35),
        created_at=reading.instant(header, "CreDtTm"),
        initiating_party=text(header, "InitgPty/Nm", "InitgPty/Id/OrgId/Othr/Id"),
        batches=batches,
    )
    reading.text(header, "NbOfTxs")
    _check_control(reading, header, file.payments)
    return file


# Checking


def _failures(file: CreditTransferFile) -> Iterator[Failure]:
    if not is_reference(file.message_id, MAX_MESSAGE_ID):
        yield Failure(
            "MESSAGE_ID_IS_INVALID",
            "a message id has 1 to {limit} characters of the SEPA set, with no slash at its ends or two together",
            {"limit": MAX_MESSAGE_ID},
        )
    if file.created_at.tzinfo is None:
        yield Failure("CREATED_AT_IS_INVALID", "the file's instant has no offset")
    if not says_something(line(file.initiating_party, MAX_NAME, sepa=file.rules.sepa_characters)):
        yield Failure(
            "INITIATING_PARTY_IS_REQUIRED", "the initiating party needs a name that the character set can carry"
        )
    for _, problem in (*_check_account(file.debtor, file.rules), *_check_address(file.debtor.address)):
        yield Failure("DEBTOR_IS_INVALID", f"the paying account can't be written: {problem}")
    yield from _size_failures(file)
    references = Counter(payment.reference for batch in file.batches for payment in batch.payments)
    for reference, times in references.items():
        if times > 1:
            yield Failure(
                "REFERENCE_DUPLICATED",
                "payment {reference} is in the file {times} times; it must be paid once",
                {"reference": reference[:35], "times": times},
            )
    for batch in file.batches:
        for payment in batch.payments:
            yield from check(payment, debtor=file.debtor, rules=file.rules)


def _size_failures(file: CreditTransferFile) -> Iterator[Failure]:
    if not file.batches or not all(batch.payments for batch in file.batches):
        yield Failure("PAYMENT_FILE_EMPTY", "a payment file, and each batch in it, needs at least one payment")
    limits = (
        ("batches", len(file.batches), MAX_BATCHES),
        (
            "transactions",
            sum(len(batch.payments) for batch in file.batches),
            min(file.rules.max_transactions_per_file, MAX_TRANSACTIONS),
        ),
        (
            "transactions in a batch",
            max((len(batch.payments) for batch in file.batches), default=0),
            file.rules.max_transactions_per_batch,
        ),
    )
    for what, size, limit in limits:
        if size > limit:
            yield Failure(
                "PAYMENT_FILE_TOO_LONG",
                "the file has {size} {what}; the bank takes at most {limit}: split it",
                {"what": what, "size": size, "limit": limit},
            )


def _check_terms(payment: Payment) -> Iterator[tuple[str, str]]:
    if not _REFERENCE.fullmatch(payment.reference):
        yield "REFERENCE_IS_INVALID", "its reference must be 32 lower-case hexadecimal digits"
    if payment.direction is not Direction.CREDIT:
        yield "DIRECTION_NOT_SUPPORTED", "a credit transfer only pays out (CREDIT)"
    if payment.money.currency != "EUR":
        yield "CURRENCY_NOT_SUPPORTED", "a SEPA payment is in EUR"
    elif not 0 < payment.money.minor <= MAX_AMOUNT.minor:
        yield "AMOUNT_OUT_OF_RANGE", f"the amount must be from 0.01 to {MAX_AMOUNT.decimal}"
    if len(payment.remittance) > MAX_REMITTANCE:
        yield "REMITTANCE_LENGTH_OUT_OF_RANGE", f"the remittance text has more than {MAX_REMITTANCE} characters"


def _check_account(account: BankAccount, rules: Rules) -> Iterator[tuple[str, str]]:
    if not account.holder.strip():
        yield "HOLDER_IS_REQUIRED", "the account holder's name is missing"
    elif not says_something(line(account.holder, MAX_NAME, sepa=rules.sepa_characters)):
        yield "HOLDER_CONTAINS_INVALID_CHARACTERS", "the account holder's name has no Latin spelling; give one"
    if not account.iban:
        yield "IBAN_IS_REQUIRED", "a SEPA payment needs an IBAN"
    elif (iban := accounts.find_iban(account.iban)) is None:
        yield "IBAN_IS_INVALID", "the IBAN's country, length, structure or check digits are wrong"
    elif iban[:2] not in accounts.SEPA:
        yield "IBAN_COUNTRY_NOT_SUPPORTED", "the IBAN's country is not in the SEPA schemes"
    if account.bic and accounts.find_bic(account.bic) is None:
        yield "BIC_IS_INVALID", "the BIC's structure or country is wrong; leave it out when in doubt"


def _check_address(address: Address | None) -> Iterator[tuple[str, str]]:
    if address is None:
        return
    if address.country and address.country not in COUNTRIES:
        yield "COUNTRY_NOT_SUPPORTED", "the address's country is not a code of ISO 3166-1"
    if not _says_more_than_country(address):
        return
    if not says_something(line(address.town, 35)):
        yield "ADDRESS_TOWN_IS_REQUIRED", "an address needs a town (it must not be unstructured)"
    if not address.country:
        yield "ADDRESS_COUNTRY_IS_REQUIRED", "an address needs a country (it must not be unstructured)"


def _says_more_than_country(address: Address) -> bool:
    return any((address.street, address.building, address.post_code, address.town, address.region))


def _needs_debtor_address(debtor: BankAccount, creditor: BankAccount) -> bool:
    """SEPA credit transfer rulebook (EPC125-05): the payer's address is mandatory when one of the two banks is in a
    country of the schemes outside the EEA."""
    return any(account.iban.lstrip()[:2].upper() in accounts.NON_EEA for account in (debtor, creditor))


# Writing


def _write_group_header(writer: Writer, parent: etree._Element, file: CreditTransferFile) -> None:
    header = writer.nest(parent, "GrpHdr")
    writer.put(header, "MsgId", file.message_id)
    writer.put(header, "CreDtTm", file.created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    _write_control(writer, header, [payment for batch in file.batches for payment in batch.payments])
    writer.put(header, "InitgPty/Nm", line(file.initiating_party, MAX_NAME, sepa=file.rules.sepa_characters))


def _write_control(writer: Writer, parent: etree._Element, payments: Sequence[Payment]) -> None:
    writer.put(parent, "NbOfTxs", str(len(payments)))
    writer.put(parent, "CtrlSum", str(Money(sum(payment.money.minor for payment in payments), "EUR").decimal))


def _write_batch(writer: Writer, parent: etree._Element, file: CreditTransferFile, batch: Batch, number: int) -> None:
    information = writer.nest(parent, "PmtInf")
    writer.put(information, "PmtInfId", batch_id(file.message_id, number))
    writer.put(information, "PmtMtd", "TRF")
    writer.put(information, "BtchBookg", "true" if file.rules.batch_booking else "false")
    _write_control(writer, information, batch.payments)
    writer.put(information, "PmtTpInf/SvcLvl/Cd", "SEPA")
    writer.put(information, "ReqdExctnDt/Dt", batch.execution_on.isoformat())
    _write_party(writer, information, "Dbtr", file.debtor, file.rules)
    writer.put(information, "DbtrAcct/Id/IBAN", accounts.find_iban(file.debtor.iban) or "")
    if file.debtor.bic:
        writer.put(information, "DbtrAgt/FinInstnId/BICFI", accounts.find_bic(file.debtor.bic) or "")
    else:
        writer.put(information, "DbtrAgt/FinInstnId/Othr/Id", "NOTPROVIDED")
    writer.put(information, "ChrgBr", "SLEV")
    for payment in batch.payments:
        _write_payment(writer, information, payment, file.rules)


def _write_payment(writer: Writer, parent: etree._Element, payment: Payment, rules: Rules) -> None:
    creditor = payment.counterparty
    transfer = writer.nest(parent, "CdtTrfTxInf")
    ids = writer.nest(transfer, "PmtId")
    writer.put(ids, "InstrId", payment.reference)
    writer.put(ids, "EndToEndId", payment.reference)
    writer.put_amount(transfer, "Amt/InstdAmt", payment.money)
    if creditor.bic:
        writer.put(transfer, "CdtrAgt/FinInstnId/BICFI", accounts.find_bic(creditor.bic) or "")
    _write_party(writer, transfer, "Cdtr", creditor, rules)
    writer.put(transfer, "CdtrAcct/Id/IBAN", accounts.find_iban(creditor.iban) or "")
    writer.put(transfer, "RmtInf/Ustrd", line(payment.remittance, MAX_REMITTANCE, sepa=rules.sepa_characters))


def _write_party(writer: Writer, parent: etree._Element, tag: str, account: BankAccount, rules: Rules) -> None:
    party = writer.nest(parent, tag)
    writer.put(party, "Nm", line(account.holder, MAX_NAME, sepa=rules.sepa_characters))
    if account.address is not None and _says_more_than_country(account.address):
        _write_address(writer, writer.nest(party, "PstlAdr"), account.address, rules)


def _write_address(writer: Writer, parent: etree._Element, address: Address, rules: Rules) -> None:
    """EPC132-08, "structured address" and "hybrid address": town and country always; nothing is said twice."""
    hybrid = rules.address_style is AddressStyle.HYBRID
    fields = (
        ("StrtNm", "" if hybrid else address.street, 70),
        ("BldgNb", "" if hybrid else address.building, 16),
        ("PstCd", address.post_code, 16),
        ("TwnNm", address.town, 35),
        ("CtrySubDvsn", address.region, 35),
        ("Ctry", address.country, 2),
    )
    for tag, value, limit in fields:
        writer.put(parent, tag, line(value, limit, sepa=rules.sepa_characters))
    if hybrid:
        rest = line(f"{address.street} {address.building}", 2 * MAX_ADDRESS_LINE, sepa=rules.sepa_characters)
        for part in _two_lines(rest):
            writer.put(parent, "AdrLine", part)


def _two_lines(rest: str) -> tuple[str, str]:
    """At most two lines of what is left of an address, parted between words when both halves fit."""
    if len(rest) <= MAX_ADDRESS_LINE:
        return rest, ""
    gap = rest.rfind(" ", 0, MAX_ADDRESS_LINE + 1)
    cut = gap if len(rest) - gap - 1 <= MAX_ADDRESS_LINE else MAX_ADDRESS_LINE
    return rest[:cut].strip(), rest[cut:].strip()


# Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class _BatchHead:
    """What holds for all payments of a batch."""

    id: str
    execution_on: date
    debtor: BankAccount


class _PaymentReading(Reading):
    """Reads payments as they come: the standard puts what concerns a whole batch before them."""

    __slots__ = ("_batch", "_head")

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self._batch: Element | None = None
        self._head: _BatchHead | None = None

    def take_payment(self, element: Element) -> InitiatedPayment | None:
        """The payment, if it stands in a batch."""
        if element.parent is None or element.parent.tag != "PmtInf":
            return None
        if self._head is None or element.parent is not self._batch:
            self._batch, self._head = element.parent, _read_head(self, element.parent)
        return _read_payment(self, element, self._head)

    def take_batch(self, element: Element) -> InitiatedBatch | None:
        """The batch with its payments, if it stands where batches do."""
        if element.parent is None or element.parent.tag != "CstmrCdtTrfInitn":
            return None
        return _read_batch(self, element)


def _read_head(reading: Reading, element: Element) -> _BatchHead:
    if reading.text(element, "PmtMtd") != "TRF":
        raise _KIND.malformed("only credit transfers are read (PmtMtd must be TRF)", element)
    debtor, _ = _read_account(reading, element, "Dbtr")
    return _BatchHead(
        id=reading.text(element, "PmtInfId", limit=35),
        execution_on=reading.day(element, "ReqdExctnDt/Dt", "ReqdExctnDt/DtTm", "ReqdExctnDt"),
        debtor=debtor,
    )


def _read_batch(reading: Reading, element: Element) -> InitiatedBatch:
    head = _read_head(reading, element)
    payments: tuple[InitiatedPayment, ...] = tuple(element.pieces)
    if not payments:
        raise _KIND.malformed("a batch holds no payments (CdtTrfTxInf)", element)
    _check_control(reading, element, payments)
    return InitiatedBatch(
        id=head.id,
        execution_on=head.execution_on,
        debtor=head.debtor,
        batch_booking=reading.flag(element, "BtchBookg"),
        payments=payments,
    )


def _read_payment(reading: Reading, element: Element, batch: _BatchHead) -> InitiatedPayment:
    if element.find("Amt/InstdAmt") is None and element.find("Amt/EqvtAmt") is not None:
        raise _KIND.malformed("amounts in another account's currency (EqvtAmt) are not read", element)
    money = reading.money(element, "Amt/InstdAmt")
    if money.minor == 0:
        raise _KIND.malformed("an instructed amount is zero", element)
    creditor, address_lines = _read_account(reading, element, "Cdtr")
    unstructured = [found for part in element.iterfind("RmtInf/Ustrd") if (found := part.text.strip())]
    return InitiatedPayment(
        batch_id=batch.id,
        instruction_id=reading.optional(element, "PmtId/InstrId", limit=35),
        end_to_end_id=reading.text(element, "PmtId/EndToEndId", limit=35),
        debtor=batch.debtor,
        creditor=creditor,
        money=money,
        execution_on=batch.execution_on,
        remittance=" ".join(unstructured) or text(element, "RmtInf/Strd/CdtrRefInf/Ref"),
        address_lines=address_lines,
    )


def _read_account(reading: Reading, element: Element, party: str) -> tuple[BankAccount, tuple[str, ...]]:
    account = BankAccount(
        holder=reading.text(element, f"{party}/Nm", limit=140),
        iban=text(element, f"{party}Acct/Id/IBAN"),
        bic=text(element, f"{party}Agt/FinInstnId/BICFI", f"{party}Agt/FinInstnId/BIC"),
        number=text(element, f"{party}Acct/Id/Othr/Id"),
        bank_code=text(element, f"{party}Agt/FinInstnId/ClrSysMmbId/MmbId"),
        address=_read_address(element, f"{party}/PstlAdr/"),
    )
    if not account.iban and not account.number:
        raise _KIND.malformed(f"{party}Acct has neither an IBAN nor another account number", element)
    lines = tuple(found for part in element.iterfind(f"{party}/PstlAdr/AdrLine") if (found := part.text.strip()))
    return account, lines


def _read_address(element: Element, path: str) -> Address | None:
    address = Address(
        country=text(element, f"{path}Ctry"),
        street=text(element, f"{path}StrtNm"),
        building=text(element, f"{path}BldgNb"),
        post_code=text(element, f"{path}PstCd"),
        town=text(element, f"{path}TwnNm"),
        region=text(element, f"{path}CtrySubDvsn"),
    )
    return address if address.country or _says_more_than_country(address) else None


def _check_control(reading: Reading, element: Element, payments: Sequence[InitiatedPayment]) -> None:
    """Compare `NbOfTxs` and `CtrlSum`, where they are given, with what there is."""
    if text(element, "NbOfTxs") and (said := reading.count(element, "NbOfTxs")) != len(payments):
        raise Invalid(
            Failure(
                "PAYMENT_FILE_COUNT_WRONG",
                "the payment file says that {element} holds {said} payments, but it holds {found}",
                {"element": element.tag, "said": said, "found": len(payments)},
            )
        )
    if written := text(element, "CtrlSum"):
        said_sum = Decimal(reading.minor_units(element, written, 17)).scaleb(-17)
        found_sum = sum((payment.money.decimal for payment in payments), Decimal(0))
        if said_sum != found_sum:
            raise Invalid(
                Failure(
                    "PAYMENT_FILE_CONTROL_SUM_WRONG",
                    "the payment file says that the amounts of {element} add up to {said}, but they come to {found}",
                    {"element": element.tag, "said": written, "found": str(found_sum)},
                )
            )
