"""The messages that the bank simulator sends: pain.002.001.10, camt.053.001.08, camt.054.001.08."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from lxml import etree

from strongroom.kernel.money import Money
from strongroom.rails.contract import BankAccount
from strongroom.rails.formats import accounts
from strongroom.rails.formats.pain001 import InitiatedPayment
from strongroom.rails.formats.text import line
from strongroom.rails.formats.writing import Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why something is rejected: an ISO reason code, and words."""

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReport:
    """What becomes of one order; None: accepted."""

    payment: InitiatedPayment
    rejection: Rejection | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """What becomes of a batch."""

    id: str
    orders: tuple[OrderReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What becomes of a file. `rejection` is the whole file's."""

    message_id: str
    count: int
    rejection: Rejection | None
    batches: tuple[BatchReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """One entry: `payments` booked together. `return_reason` makes it the return of an earlier debit."""

    is_credit: bool
    booked_on: date
    value_on: date
    payments: tuple[InitiatedPayment, ...]
    message_id: str
    return_reason: str = ""

    @property
    def money(self) -> Money:
        """What the entry comes to."""
        return Money(sum(payment.money.minor for payment in self.payments), self.payments[0].money.currency)

    @property
    def code(self) -> tuple[str, str]:
        """Family and sub-family of ISO's bank transaction codes, in the domain of payments."""
        if self.return_reason:
            return "ICDT", "RRTN"
        return ("RCDT", "ESCT") if self.is_credit else ("ICDT", "ESCT")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountReport:
    """An account's day: `closing` is `opening` and all bookings."""

    account: BankAccount
    sequence: int
    opening: Money
    closing: Money
    bookings: tuple[Booking, ...]

    @property
    def statement_id(self) -> str:
        """Unique for the account and statement."""
        return f"{self.account.iban[-12:]}-{self.sequence:06}"


def write_status_report(report: FileReport, *, report_id: str, at: datetime, lists_accepted: bool) -> bytes:
    """A pain.002.001.10 on three levels."""
    writer = Writer("pain.002.001.10")
    body = writer.nest(writer.root, "CstmrPmtStsRpt")
    _write_header(writer, body, report_id, at)
    group = writer.nest(body, "OrgnlGrpInfAndSts")
    writer.put(group, "OrgnlMsgId", report.message_id)
    writer.put(group, "OrgnlMsgNmId", "pain.001")
    writer.put(group, "OrgnlNbOfTxs", str(report.count) if report.count else "")
    orders = [order for batch in report.batches for order in batch.orders]
    writer.put(group, "GrpSts", "RJCT" if report.rejection else _status(orders))
    _write_reason(writer, group, report.rejection)
    for batch in report.batches:
        information = writer.nest(body, "OrgnlPmtInfAndSts")
        writer.put(information, "OrgnlPmtInfId", batch.id)
        writer.put(information, "PmtInfSts", _status(batch.orders))
        for order in batch.orders:
            if order.rejection or lists_accepted:
                _write_order(writer, information, order)
    return writer.to_bytes()


def write_statement(reports: Sequence[AccountReport], *, report_id: str, at: datetime, broken: bool) -> bytes:
    """A camt.053.001.08 with a statement for each account; `broken` adds a cent to every closing balance."""
    writer = Writer("camt.053.001.08")
    body = writer.nest(writer.root, "BkToCstmrStmt")
    _write_header(writer, body, f"STM{report_id[3:]}", at)
    for report in reports:
        statement = writer.nest(body, "Stmt")
        _write_account(writer, statement, report, at)
        closing = Money(report.closing.minor + 1, report.closing.currency) if broken else report.closing
        for code, money in (("OPBD", report.opening), ("CLBD", closing)):
            balance = writer.nest(statement, "Bal")
            writer.put(balance, "Tp/CdOrPrtry/Cd", code)
            writer.put_amount(balance, "Amt", money)
            writer.put(balance, "CdtDbtInd", "CRDT" if money.minor >= 0 else "DBIT")
            writer.put(balance, "Dt/Dt", at.date().isoformat())
        _write_entries(writer, statement, report)
    return writer.to_bytes()


def write_notification(reports: Sequence[AccountReport], *, report_id: str, at: datetime) -> bytes:
    """A camt.054.001.08 with the same entries."""
    writer = Writer("camt.054.001.08")
    body = writer.nest(writer.root, "BkToCstmrDbtCdtNtfctn")
    _write_header(writer, body, f"NTF{report_id[3:]}", at)
    for report in reports:
        notification = writer.nest(body, "Ntfctn")
        _write_account(writer, notification, report, at)
        _write_entries(writer, notification, report)
    return writer.to_bytes()


def _write_header(writer: Writer, parent: etree._Element, message_id: str, at: datetime) -> None:
    header = writer.nest(parent, "GrpHdr")
    writer.put(header, "MsgId", message_id)
    writer.put(header, "CreDtTm", _instant(at))


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _status(orders: Sequence[OrderReport]) -> str:
    rejected = sum(order.rejection is not None for order in orders)
    return "ACCP" if not rejected else "RJCT" if rejected == len(orders) else "PART"


def _write_reason(writer: Writer, parent: etree._Element, rejection: Rejection | None) -> None:
    if rejection is None:
        return
    information = writer.nest(parent, "StsRsnInf")
    writer.put(information, "Rsn/Cd", rejection.code)
    writer.put(information, "AddtlInf", line(rejection.detail, 105))


def _write_order(writer: Writer, parent: etree._Element, order: OrderReport) -> None:
    transaction = writer.nest(parent, "TxInfAndSts")
    writer.put(transaction, "OrgnlInstrId", order.payment.instruction_id)
    writer.put(transaction, "OrgnlEndToEndId", order.payment.end_to_end_id)
    writer.put(transaction, "TxSts", "RJCT" if order.rejection else "ACCP")
    _write_reason(writer, transaction, order.rejection)


def _write_account(writer: Writer, parent: etree._Element, report: AccountReport, at: datetime) -> None:
    writer.put(parent, "Id", report.statement_id)
    writer.put(parent, "ElctrncSeqNb", str(report.sequence))
    writer.put(parent, "CreDtTm", _instant(at))
    account = writer.nest(parent, "Acct")
    writer.put(account, "Id/IBAN", report.account.iban)
    writer.put(account, "Ccy", report.opening.currency)
    writer.put(account, "Ownr/Nm", line(report.account.holder, 140, sepa=False))
    writer.put(account, "Svcr/FinInstnId/BICFI", accounts.find_bic(report.account.bic) or "")


def _write_entries(writer: Writer, parent: etree._Element, report: AccountReport) -> None:
    for number, booking in enumerate(report.bookings, start=1):
        entry = writer.nest(parent, "Ntry")
        reference = f"{report.statement_id}-{number:06}"
        writer.put_amount(entry, "Amt", booking.money)
        writer.put(entry, "CdtDbtInd", _indicator(booking))
        writer.put(entry, "Sts/Cd", "BOOK")
        writer.put(entry, "BookgDt/Dt", booking.booked_on.isoformat())
        writer.put(entry, "ValDt/Dt", booking.value_on.isoformat())
        writer.put(entry, "AcctSvcrRef", reference)
        domain = writer.nest(entry, "BkTxCd/Domn")
        writer.put(domain, "Cd", "PMNT")
        family = writer.nest(domain, "Fmly")
        writer.put(family, "Cd", booking.code[0])
        writer.put(family, "SubFmlyCd", booking.code[1])
        details = writer.nest(entry, "NtryDtls")
        if len(booking.payments) > 1:
            batch = writer.nest(details, "Btch")
            writer.put(batch, "MsgId", booking.message_id)
            writer.put(batch, "PmtInfId", booking.payments[0].batch_id)
            writer.put(batch, "NbOfTxs", str(len(booking.payments)))
            writer.put_amount(batch, "TtlAmt", booking.money)
            writer.put(batch, "CdtDbtInd", _indicator(booking))
        for payment in booking.payments:
            _write_detail(writer, details, booking, payment)


def _write_detail(writer: Writer, parent: etree._Element, booking: Booking, payment: InitiatedPayment) -> None:
    transaction = writer.nest(parent, "TxDtls")
    references = writer.nest(transaction, "Refs")
    writer.put(references, "MsgId", booking.message_id)
    writer.put(references, "PmtInfId", payment.batch_id)
    writer.put(references, "InstrId", payment.instruction_id)
    writer.put(references, "EndToEndId", payment.end_to_end_id)
    writer.put_amount(transaction, "Amt", payment.money)
    writer.put(transaction, "CdtDbtInd", _indicator(booking))
    parties = writer.nest(transaction, "RltdPties")
    for role, account in (("Dbtr", payment.debtor), ("Cdtr", payment.creditor)):
        writer.put(parties, f"{role}/Pty/Nm", line(account.holder, 140, sepa=False))
        writer.put(parties, f"{role}Acct/Id/IBAN", accounts.find_iban(account.iban) or "")
    if bic := accounts.find_bic(payment.creditor.bic):
        writer.put(transaction, "RltdAgts/CdtrAgt/FinInstnId/BICFI", bic)
    writer.put(transaction, "RmtInf/Ustrd", line(payment.remittance, 140, sepa=False))
    if booking.return_reason:
        writer.put(transaction, "RtrInf/Rsn/Cd", booking.return_reason)


def _indicator(booking: Booking) -> str:
    return "CRDT" if booking.is_credit else "DBIT"
