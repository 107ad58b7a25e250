"""Customer payment status report: a bank's answer to a payment file (ISO 20022 pain.002, versions 03 to 14).

The answer stands on three levels: the file (*group*), its batches and its transactions. A status applies to everything
below it that has none of its own; *partially accepted* says nothing about what is not listed. A report that rejects a
level and accepts something below it contradicts itself and is refused as a whole. `StatusReport.verdicts` puts the
levels together.

Status and reason codes are those of ISO 20022's external code sets, which grow; codes are kept as they come, and only
those that are known to be final count as a rejection.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from strongroom.kernel.errors import Failure, Invalid
from strongroom.rails.formats._xml import Element, Kind, Reading, Take, read_document, text

REJECTED: Final = frozenset({"RJCT", "CANC"})
"""Statuses after which no money moves: rejected, and cancelled before execution."""
DUPLICATE: Final = frozenset({"AM05", "DUPL", "DU01", "DU02", "DU03", "DU04", "DU05"})
"""Reasons that reject a message or payment only because the bank has it already."""

_KIND: Final = Kind(
    message="pain.002.001",
    versions=range(3, 15),
    noun="payment status report (pain.002)",
    malformed_code="STATUS_REPORT_MALFORMED",
    version_code="STATUS_REPORT_VERSION_NOT_SUPPORTED",
    size_code="STATUS_REPORT_TOO_LARGE",
)
_PARTIAL: Final = frozenset({"PART", "PATC"})
_STATUS = re.compile(r"[A-Z]{4}", re.ASCII)


class Level(enum.StrEnum):
    """Where a status stands."""

    GROUP = "group"
    BATCH = "batch"
    TRANSACTION = "transaction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why: a code such as `AC04` (or the bank's own, `is_proprietary`), and what the bank added in words."""

    code: str
    is_proprietary: bool = False
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionStatus:
    """The bank's word on one transaction. `status` is empty when only its batch or the file has one."""

    end_to_end_id: str
    instruction_id: str = ""
    status: str = ""
    reasons: tuple[Reason, ...] = ()
    bank_reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """The bank's word on one batch (`id` as the file had it), and on those of its transactions that it lists."""

    id: str
    status: str = ""
    reasons: tuple[Reason, ...] = ()
    transactions: tuple[TransactionStatus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the report says about one payment: the status that holds for it and where it comes from."""

    status: str
    reasons: tuple[Reason, ...]
    level: Level

    @property
    def is_duplicate(self) -> bool:
        """Rejected because the bank has it already: what became of the first one still holds, and is told elsewhere."""
        return self.status in REJECTED and any(reason.code in DUPLICATE for reason in self.reasons)

    @property
    def is_rejected(self) -> bool:
        """No money moves, for good. Never true of a duplicate, whose first delivery may well have been paid."""
        return self.status in REJECTED and not self.is_duplicate

    @property
    def reason(self) -> str:
        """The first reason's code; empty when the bank gave none."""
        return self.reasons[0].code if self.reasons else ""

    @property
    def detail(self) -> str:
        """What the bank added in words, over all reasons."""
        return " ".join(detail for reason in self.reasons for detail in reason.details)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """One pain.002. `original_message_id` is the message id of the file that it answers."""

    message_id: str
    created_at: datetime
    original_message_id: str
    original_message_name: str
    status: str
    reasons: tuple[Reason, ...]
    batches: tuple[BatchStatus, ...]

    def verdicts(self, orders: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Verdict]:
        """What holds for each of `orders`, given as (batch id, end-to-end id) like in the original file.

        An order that the report says nothing about is left out. The reasons are the most particular ones given.
        """
        batches = {batch.id: batch for batch in self.batches}
        transactions = {
            (batch.id, found.end_to_end_id): found for batch in self.batches for found in batch.transactions
        }
        group = Verdict(status=self.status, reasons=self.reasons, level=Level.GROUP)
        verdicts: dict[tuple[str, str], Verdict] = {}
        for order in orders:
            levels = [group]
            if batch := batches.get(order[0]):
                levels.insert(0, Verdict(status=batch.status, reasons=batch.reasons, level=Level.BATCH))
            if found := transactions.get(order):
                levels.insert(0, Verdict(status=found.status, reasons=found.reasons, level=Level.TRANSACTION))
            deciding = next((level for level in levels if level.status and level.status not in _PARTIAL), None)
            if deciding is not None:
                reasons = next((level.reasons for level in levels if level.reasons), ())
                verdicts[order] = replace(deciding, reasons=reasons)
        return verdicts


def read(document: bytes) -> StatusReport:
    """Read a pain.002 of version 03 to 14.

    Raises errors.TooLarge (`STATUS_REPORT_TOO_LARGE`) and errors.Invalid: `STATUS_REPORT_MALFORMED`,
    `STATUS_REPORT_VERSION_NOT_SUPPORTED`, `STATUS_REPORT_CONTRADICTORY`.
    """
    reading = Reading(_KIND)
    pieces: dict[str, Take] = {
        "TxInfAndSts": partial(_take_transaction, reading),
        "OrgnlPmtInfAndSts": partial(_take_batch, reading),
    }
    root = read_document(document, _KIND, pieces)
    body = reading.element(root, "CstmrPmtStsRpt")
    header = reading.element(body, "GrpHdr")
    original = reading.element(body, "OrgnlGrpInfAndSts")
    report = StatusReport(
        message_id=reading.text(header, "MsgId", limit=35),
        created_at=reading.instant(header, "CreDtTm"),
        original_message_id=reading.text(original, "OrgnlMsgId", limit=35),
        original_message_name=text(original, "OrgnlMsgNmId"),
        status=_read_status(original, "GrpSts"),
        reasons=_read_reasons(reading, original),
        batches=_merged(body.pieces),
    )
    if not any(_statuses(report)):
        raise _KIND.malformed("it gives no status on any level", body)
    _refuse_contradictions(report)
    return report


def _take_batch(reading: Reading, element: Element) -> BatchStatus | None:
    if element.parent is None or element.parent.tag != "CstmrPmtStsRpt":
        return None
    return BatchStatus(
        id=reading.text(element, "OrgnlPmtInfId", limit=35),
        status=_read_status(element, "PmtInfSts"),
        reasons=_read_reasons(reading, element),
        transactions=tuple(element.pieces),
    )


def _take_transaction(reading: Reading, element: Element) -> TransactionStatus | None:
    if element.parent is None or element.parent.tag != "OrgnlPmtInfAndSts":
        return None
    return TransactionStatus(
        end_to_end_id=reading.text(element, "OrgnlEndToEndId", limit=35),
        instruction_id=text(element, "OrgnlInstrId"),
        status=_read_status(element, "TxSts"),
        reasons=_read_reasons(reading, element),
        bank_reference=text(element, "AcctSvcrRef"),
    )


def _merged(parts: Iterable[BatchStatus]) -> tuple[BatchStatus, ...]:
    """Batches in which each id is there once: a bank may speak of one batch in several places."""
    batches: dict[str, list[BatchStatus]] = {}
    for part in parts:
        batches.setdefault(part.id, []).append(part)
    return tuple(same[0] if len(same) == 1 else _merge(same) for same in batches.values())


def _merge(parts: Sequence[BatchStatus]) -> BatchStatus:
    """One batch of what is said about it in several places."""
    statuses = list(dict.fromkeys(part.status for part in parts if part.status))
    if len(statuses) > 1:
        raise _contradiction("it gives two different statuses for one batch")
    return BatchStatus(
        id=parts[0].id,
        status=statuses[0] if statuses else "",
        reasons=next((part.reasons for part in parts if part.reasons), ()),
        transactions=tuple(transaction for part in parts for transaction in part.transactions),
    )


def _read_status(element: Element, path: str) -> str:
    status = text(element, path)
    if status and not _STATUS.fullmatch(status):
        raise _KIND.malformed(f"{path} is not a status code of four capital letters", element)
    return status


def _read_reasons(reading: Reading, element: Element) -> tuple[Reason, ...]:
    return tuple(
        Reason(
            code=reading.text(information, "Rsn/Cd", "Rsn/Prtry", limit=35)
            if information.find("Rsn") is not None
            else "",
            is_proprietary=bool(text(information, "Rsn/Prtry")),
            details=tuple(found for part in information.iterfind("AddtlInf") if (found := part.text.strip())),
        )
        for information in element.iterfind("StsRsnInf")
    )


def _statuses(report: StatusReport) -> Iterator[str]:
    yield report.status
    for batch in report.batches:
        yield batch.status
        for transaction in batch.transactions:
            yield transaction.status


def _refuse_contradictions(report: StatusReport) -> None:
    for batch in report.batches:
        above = {report.status, batch.status} & REJECTED
        below = {transaction.status for transaction in batch.transactions} - {""}
        if (above and below - REJECTED) or (report.status in REJECTED and batch.status not in REJECTED | {""}):
            raise _contradiction("it rejects a level and accepts something below it")
        statuses: dict[str, str] = {}
        for transaction in batch.transactions:
            if statuses.setdefault(transaction.end_to_end_id, transaction.status) != transaction.status:
                raise _contradiction("it gives two different statuses for one transaction")


def _contradiction(problem: str) -> Invalid:
    return Invalid(
        Failure(
            "STATUS_REPORT_CONTRADICTORY",
            "the payment status report contradicts itself: {problem}; nothing in it is believed, ask the bank",
            {"problem": problem},
        )
    )
