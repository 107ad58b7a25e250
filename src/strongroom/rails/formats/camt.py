"""Account statements and debit/credit notifications (ISO 20022 camt.053 and camt.054, versions 02 to 14).

A statement must add up: opening balance plus credits minus debits of its booked entries is the closing balance, and the
transactions of a batch-booked entry add up to the entry. One that doesn't is refused as a whole; nothing of it is
believed.

An entry's own debit/credit indicator says which way the money went, for reversals too (`is_reversal` says that it
undoes an earlier entry). What a bank leaves out stays empty or None; nothing is guessed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Final

from strongroom.kernel.errors import Failure, Invalid
from strongroom.kernel.money import Money
from strongroom.rails.contract import BankAccount
from strongroom.rails.formats._xml import Element, Kind, Reading, Take, read_document, text

_STATEMENT: Final = Kind(
    message="camt.053.001",
    versions=range(2, 15),
    noun="account statement (camt.053)",
    malformed_code="STATEMENT_MALFORMED",
    version_code="STATEMENT_VERSION_NOT_SUPPORTED",
    size_code="STATEMENT_TOO_LARGE",
)
_NOTIFICATION: Final = Kind(
    message="camt.054.001",
    versions=range(2, 15),
    noun="debit and credit notification (camt.054)",
    malformed_code="NOTIFICATION_MALFORMED",
    version_code="NOTIFICATION_VERSION_NOT_SUPPORTED",
    size_code="NOTIFICATION_TOO_LARGE",
)
_IS_CREDIT: Final = {"CRDT": True, "DBIT": False}
_REPORTS: Final = frozenset({"Stmt", "Ntfctn"})


class EntryStatus(enum.StrEnum):
    """How far an entry has come. Only booked ones moved money."""

    BOOKED = "BOOK"
    PENDING = "PDNG"
    INFORMATION = "INFO"
    FUTURE = "FUTR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """A balance; `money` is negative when the account is overdrawn. `code` is ISO's, such as `OPBD` or `CLBD`."""

    code: str
    money: Money
    on: date


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryDetail:
    """One transaction inside an entry.

    `money` is positive and goes the way of `is_credit`; None when the bank gives no amount for one of several.
    `counterparty` is the other side of the statement's account: its holder, IBAN (or other number) and BIC as far as
    the bank gives them.
    """

    money: Money | None
    is_credit: bool
    end_to_end_id: str = ""
    message_id: str = ""
    batch_id: str = ""
    instruction_id: str = ""
    bank_reference: str = ""
    return_reason: str = ""
    """ISO code of the reason for a return, such as `AC04`; empty when it is not a return."""
    return_detail: str = ""
    counterparty: BankAccount
    remittance: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedBatch:
    """A batch of a payment file that an entry books as one; ids as the file had them, empty where there is none."""

    message_id: str = ""
    batch_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a statement or notification. `money` is positive and goes the way of `is_credit`."""

    money: Money
    is_credit: bool
    is_reversal: bool
    status: EntryStatus
    booked_on: date | None
    value_on: date | None
    reference: str = ""
    bank_reference: str = ""
    bank_transaction_code: str = ""
    """`DOMAIN/FAMILY/SUBFAMILY` of ISO's external code set (such as `PMNT/ICDT/ESCT`), else the bank's own code."""
    additional_information: str = ""
    details: tuple[EntryDetail, ...] = ()
    batches: tuple[BookedBatch, ...] = ()

    @property
    def signed(self) -> Money:
        """What the entry does to the balance: negative for a debit."""
        return self.money if self.is_credit else Money(-self.money.minor, self.money.currency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One account's statement. `sequence` is its electronic sequence number, None when the bank doesn't number.

    `copy_indicator` is ISO's `CODU`, `COPY` or `DUPL`, empty for an original.
    """

    message_id: str
    id: str
    sequence: int | None
    created_at: datetime | None
    account: BankAccount
    opening: Balance
    closing: Balance
    entries: tuple[Entry, ...]
    copy_indicator: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One account's notification: entries without balances, before or beside a statement."""

    message_id: str
    id: str
    sequence: int | None
    created_at: datetime | None
    account: BankAccount
    entries: tuple[Entry, ...]
    copy_indicator: str = ""


def read_statements(document: bytes) -> tuple[Statement, ...]:
    """The statements of a camt.053 file, each of them added up.

    Raises errors.TooLarge (`STATEMENT_TOO_LARGE`) and errors.Invalid: `STATEMENT_MALFORMED`,
    `STATEMENT_VERSION_NOT_SUPPORTED`, `STATEMENT_BALANCE_MISSING`, `STATEMENT_BALANCE_BROKEN`,
    `ENTRY_SUM_BROKEN`.
    """
    reading = _EntryReading(_STATEMENT)
    root = read_document(document, _STATEMENT, reading.pieces)
    body = reading.element(root, "BkToCstmrStmt")
    message_id = reading.text(reading.element(body, "GrpHdr"), "MsgId", limit=35)
    statements = tuple(_read_statement(reading, element, message_id) for element in body.iterfind("Stmt"))
    if not statements:
        raise _STATEMENT.malformed("it holds no statement (Stmt)", body)
    return statements


def read_notifications(document: bytes) -> tuple[Notification, ...]:
    """The notifications of a camt.054 file.

    Raises errors.TooLarge (`NOTIFICATION_TOO_LARGE`) and errors.Invalid: `NOTIFICATION_MALFORMED`,
    `NOTIFICATION_VERSION_NOT_SUPPORTED`, `ENTRY_SUM_BROKEN`.
    """
    reading = _EntryReading(_NOTIFICATION)
    root = read_document(document, _NOTIFICATION, reading.pieces)
    body = reading.element(root, "BkToCstmrDbtCdtNtfctn")
    message_id = reading.text(reading.element(body, "GrpHdr"), "MsgId", limit=35)
    notifications = tuple(
        Notification(
            message_id=message_id,
            id=reading.text(element, "Id", limit=35),
            sequence=_read_sequence(reading, element),
            created_at=_read_created_at(reading, element),
            account=_read_own_account(reading, element),
            entries=tuple(element.pieces),
            copy_indicator=text(element, "CpyDplctInd"),
        )
        for element in body.iterfind("Ntfctn")
    )
    if not notifications:
        raise _NOTIFICATION.malformed("it holds no notification (Ntfctn)", body)
    return notifications


def _read_statement(reading: Reading, element: Element, message_id: str) -> Statement:
    identity = reading.text(element, "Id", limit=35)
    balances = [_read_balance(reading, balance) for balance in element.iterfind("Bal")]
    statement = Statement(
        message_id=message_id,
        id=identity,
        sequence=_read_sequence(reading, element),
        created_at=_read_created_at(reading, element),
        account=_read_own_account(reading, element),
        opening=_choose(balances, ("OPBD", "PRCD"), identity, "opening (OPBD or PRCD)", first=True),
        closing=_choose(balances, ("CLBD",), identity, "closing (CLBD)", first=False),
        entries=tuple(element.pieces),
        copy_indicator=text(element, "CpyDplctInd"),
    )
    _check_balance(statement, element)
    return statement


def _choose(balances: list[Balance], codes: tuple[str, ...], statement: str, what: str, *, first: bool) -> Balance:
    """The balance with the first of `codes` there is; on a page of a longer statement, an interim booked one (ITBD)."""
    for code in codes:
        for balance in balances:
            if balance.code == code:
                return balance
    interim = [balance for balance in balances if balance.code == "ITBD"]
    if not interim:
        raise Invalid(
            Failure(
                "STATEMENT_BALANCE_MISSING",
                "statement {statement} has no {balance} balance, so it can't be checked; ask the bank for one that has",
                {"statement": statement, "balance": what},
            )
        )
    return interim[0 if first else -1]


def _check_balance(statement: Statement, element: Element) -> None:
    currency = statement.opening.money.currency
    booked = [entry for entry in statement.entries if entry.status is EntryStatus.BOOKED]
    if any(entry.money.currency != currency for entry in booked) or statement.closing.money.currency != currency:
        raise _STATEMENT.malformed("balances and booked entries are not all in the account's currency", element)
    credits = sum(entry.money.minor for entry in booked if entry.is_credit)
    debits = sum(entry.money.minor for entry in booked if not entry.is_credit)
    opening, closing = statement.opening.money.minor, statement.closing.money.minor
    if opening + credits - debits != closing:
        figures = {"opening": opening, "credits": credits, "debits": debits, "closing": closing}
        figures["difference"] = closing - (opening + credits - debits)
        raise Invalid(
            Failure(
                "STATEMENT_BALANCE_BROKEN",
                "statement {statement} doesn't add up: {opening} + {credits} - {debits} is not {closing} ({difference} "
                "{currency} too much); nothing of it was taken in, ask the bank for a correct one",
                {"statement": statement.id, "currency": currency}
                | {name: str(Money(minor, currency).decimal) for name, minor in figures.items()},
            )
        )


def _read_own_account(reading: Reading, element: Element) -> BankAccount:
    account = reading.element(element, "Acct")
    iban = text(account, "Id/IBAN")
    return BankAccount(
        holder=text(account, "Ownr/Nm", "Nm"),
        iban=iban,
        number="" if iban else reading.text(account, "Id/IBAN", "Id/Othr/Id", limit=34),
        bic=text(account, "Svcr/FinInstnId/BICFI", "Svcr/FinInstnId/BIC"),
        bank_code=text(account, "Svcr/FinInstnId/ClrSysMmbId/MmbId"),
    )


def _read_sequence(reading: Reading, element: Element) -> int | None:
    return reading.count(element, "ElctrncSeqNb") if text(element, "ElctrncSeqNb") else None


def _read_created_at(reading: Reading, element: Element) -> datetime | None:
    return reading.instant(element, "CreDtTm") if text(element, "CreDtTm") else None


def _read_balance(reading: Reading, element: Element) -> Balance:
    money = reading.money(element, "Amt")
    is_credit = reading.one_of(element, _IS_CREDIT, "CdtDbtInd")
    return Balance(
        code=reading.text(element, "Tp/CdOrPrtry/Cd", "Tp/CdOrPrtry/Prtry", limit=35),
        money=money if is_credit else Money(-money.minor, money.currency),
        on=reading.day(element, "Dt/Dt", "Dt/DtTm"),
    )


class _EntryReading(Reading):
    """Reads entries and their transactions as they come: the standard puts what concerns all of them before them."""

    __slots__ = ("_account", "_report")

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self._report: Element | None = None
        self._account = BankAccount(holder="")

    @property
    def pieces(self) -> Mapping[str, Take]:
        """What is read as it comes."""
        return {"Ntry": self._take_entry, "TxDtls": self._take_detail}

    def _take_entry(self, element: Element) -> Entry | None:
        if element.parent is None or element.parent.tag not in _REPORTS:
            return None
        return _read_entry(self, element)

    def _take_detail(self, element: Element) -> EntryDetail | None:
        entry = element.parent and element.parent.parent
        if entry is None or entry.tag != "Ntry" or entry.parent is None or entry.parent.tag not in _REPORTS:
            return None
        if entry.parent is not self._report:
            self._report, self._account = entry.parent, _read_own_account(self, entry.parent)
        is_credit = self.one_of(entry, _IS_CREDIT, "CdtDbtInd")
        is_reversal = self.flag(entry, "RvslInd") or False
        return _read_detail(self, element, self._account, is_credit=is_credit, is_reversal=is_reversal)


def _read_entry(reading: Reading, element: Element) -> Entry:
    status = reading.text(element, "Sts/Cd", "Sts")
    if status not in set(EntryStatus):
        raise reading.kind.malformed(f"the status of an entry must be one of {', '.join(EntryStatus)}", element)
    money = reading.money(element, "Amt")
    details: tuple[EntryDetail, ...] = tuple(found for part in element.iterfind("NtryDtls") for found in part.pieces)
    if len(details) == 1 and details[0].money is None:
        details = (replace(details[0], money=money),)
    entry = Entry(
        money=money,
        is_credit=reading.one_of(element, _IS_CREDIT, "CdtDbtInd"),
        is_reversal=reading.flag(element, "RvslInd") or False,
        status=EntryStatus(status),
        booked_on=reading.day(element, "BookgDt/Dt", "BookgDt/DtTm") if element.find("BookgDt") is not None else None,
        value_on=reading.day(element, "ValDt/Dt", "ValDt/DtTm") if element.find("ValDt") is not None else None,
        reference=text(element, "NtryRef"),
        bank_reference=text(element, "AcctSvcrRef"),
        bank_transaction_code=_read_code(element),
        additional_information=text(element, "AddtlNtryInf"),
        details=details,
        batches=tuple(
            BookedBatch(message_id=text(batch, "MsgId"), batch_id=text(batch, "PmtInfId"))
            for batch in element.iterfind("NtryDtls/Btch")
        ),
    )
    _check_details(entry)
    return entry


def _check_details(entry: Entry) -> None:
    """Transactions of a batch add up to their entry, as far as all have amounts in the entry's currency."""
    amounts = [
        detail.money for detail in entry.details if detail.money and detail.money.currency == entry.money.currency
    ]
    if len(entry.details) < 2 or len(amounts) < len(entry.details):
        return
    total = sum(
        money.minor if detail.is_credit else -money.minor for money, detail in zip(amounts, entry.details, strict=True)
    )
    if total != entry.signed.minor:
        raise Invalid(
            Failure(
                "ENTRY_SUM_BROKEN",
                "an entry of {entry} holds {count} transactions that come to {total} {currency}; nothing of the file "
                "was taken in, ask the bank for a correct one",
                {
                    "entry": str(entry.signed.decimal),
                    "count": len(amounts),
                    "total": str(Money(total, entry.money.currency).decimal),
                    "currency": entry.money.currency,
                },
            )
        )


def _read_detail(
    reading: Reading,
    element: Element,
    account: BankAccount,
    *,
    is_credit: bool,
    is_reversal: bool,
) -> EntryDetail:
    own = reading.one_of(element, _IS_CREDIT, "CdtDbtInd") if text(element, "CdtDbtInd") else is_credit
    unstructured = [found for part in element.iterfind("RmtInf/Ustrd") if (found := part.text.strip())]
    is_return = element.find("RtrInf") is not None
    return EntryDetail(
        money=_read_detail_money(reading, element),
        is_credit=own,
        end_to_end_id=text(element, "Refs/EndToEndId"),
        message_id=text(element, "Refs/MsgId"),
        batch_id=text(element, "Refs/PmtInfId"),
        instruction_id=text(element, "Refs/InstrId"),
        bank_reference=text(element, "Refs/AcctSvcrRef"),
        return_reason=text(element, "RtrInf/Rsn/Cd", "RtrInf/Rsn/Prtry"),
        return_detail=text(element, "RtrInf/AddtlInf"),
        counterparty=_read_counterparty(element, account, is_creditor=own == (is_return or is_reversal)),
        remittance=" ".join(unstructured) or text(element, "RmtInf/Strd/CdtrRefInf/Ref"),
    )


def _read_detail_money(reading: Reading, element: Element) -> Money | None:
    for path in ("Amt", "AmtDtls/TxAmt/Amt", "AmtDtls/InstdAmt/Amt"):
        if element.find(path) is not None:
            return reading.money(element, path)
    return None


def _read_counterparty(element: Element, account: BankAccount, *, is_creditor: bool) -> BankAccount:
    """The other side. Parties keep their roles when a payment comes back, so our own account decides if it is named."""
    parties = [_read_party(element, "Dbtr"), _read_party(element, "Cdtr")]
    if account.iban:
        for us, them in ((0, 1), (1, 0)):
            if parties[us].iban == account.iban and parties[them].iban != account.iban:
                return parties[them]
    return parties[1 if is_creditor else 0]


def _read_party(element: Element, role: str) -> BankAccount:
    party, agent = f"RltdPties/{role}", f"RltdAgts/{role}Agt/FinInstnId"
    return BankAccount(
        holder=text(element, f"{party}/Pty/Nm", f"{party}/Nm", f"{party}/Agt/FinInstnId/Nm"),
        iban=text(element, f"{party}Acct/Id/IBAN"),
        number=text(element, f"{party}Acct/Id/Othr/Id"),
        bic=text(element, f"{agent}/BICFI", f"{agent}/BIC"),
        bank_code=text(element, f"{agent}/ClrSysMmbId/MmbId"),
    )


def _read_code(element: Element) -> str:
    parts: Iterator[str] = (text(element, f"BkTxCd/Domn/{path}") for path in ("Cd", "Fmly/Cd", "Fmly/SubFmlyCd"))
    return "/".join(part for part in parts if part) or text(element, "BkTxCd/Prtry/Cd")
