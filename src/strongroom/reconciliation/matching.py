"""Matching: what the lines of a bank's report say about our transactions. Pure.

A line is one payment in an entry; an entry without details is one line, or one for each payment when it books a batch
of ours as a whole. The lines of an entry always add up to the entry. A line is matched by our own reference alone (ISO
20022 `EndToEndId`, which is the transaction's id), or by the batch or message id of a file of ours; never because an
amount, a day or a name happens to fit.

What a line with our reference, in the transaction's currency and amount, does:

| Line | Transaction so far | Verdict |
|---|---|---|
| debit | open (INTENDED, PROCESSING, UNCONFIRMED) | EXECUTION: it is settled |
| debit | SUCCESS, or FAILED because it was returned | EXECUTION: told before, nothing changes |
| debit | FAILED otherwise | break `BOOKED_THOUGH_REFUSED` |
| credit that says it is a return | open, or SUCCESS | RETURN: the money came back, the transaction fails |
| credit that says it is a return | FAILED because it was returned | RETURN: told before, nothing changes |
| credit that says it is a return | FAILED otherwise | break `BOOKED_THOUGH_REFUSED` |
| either, a second time | any | break `ALREADY_MATCHED` |

*Told before*: by a notification (camt.054), or because statements came in another order than they were written.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from uuid import UUID

from strongroom.kernel.money import Money
from strongroom.payments.transactions import RETURNED
from strongroom.rails.contract import Outcome, OutcomeKind
from strongroom.rails.formats.camt import Entry, EntryDetail, EntryStatus

_REFERENCE: Final = re.compile(r"[0-9a-fA-F]{32}", re.ASCII)
_BATCH: Final = re.compile(r"[0-9a-fA-F]{32}[0-9]{3}", re.ASCII)
_REASON_CODE: Final = re.compile(r"[A-Z0-9]{4}", re.ASCII)
_RETURN_CODES: Final = frozenset({"RRTN", "RPCR"})
"""Sub-families of ISO's bank transaction codes: reversal due to a payment's return, or to its recall."""


class Role(enum.StrEnum):
    """What a line is for its transaction."""

    EXECUTION = "EXECUTION"
    RETURN = "RETURN"
    OTHER = "OTHER"
    """Neither: a break."""


class Reason(enum.StrEnum):
    """Why a line is a break. Stable."""

    UNKNOWN_REFERENCE = "UNKNOWN_REFERENCE"
    """It names no payment of ours that went to this bank by file."""
    REFERENCES_DIFFER = "REFERENCES_DIFFER"
    """It names two different payments."""
    WRONG_DIRECTION = "WRONG_DIRECTION"
    """Our payment, the other way, and not called a return (or a return that takes money)."""
    REVERSED = "REVERSED"
    """The bank undoes its own booking; whether it will book again is for it to say."""
    CURRENCY_DIFFERS = "CURRENCY_DIFFERS"
    AMOUNT_DIFFERS = "AMOUNT_DIFFERS"
    ALREADY_MATCHED = "ALREADY_MATCHED"
    """The payment was booked (or returned) before: it may have been paid twice."""
    BOOKED_THOUGH_REFUSED = "BOOKED_THOUGH_REFUSED"
    """The bank refused the payment and booked it all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What we know of a transaction. `seen`: what earlier statements matched it as."""

    transaction_id: UUID
    money: Money
    status: str
    reason: str
    seen: frozenset[Role] = frozenset()

    @property
    def is_refused(self) -> bool:
        """Whether the bank said that it won't move the money (which a return isn't: there it did)."""
        return self.status == "FAILED" and not self.reason.startswith(RETURNED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What we know of everything a report names: transactions by reference, and which of them (all of them known) a
    batch id or message id of ours stands for."""

    transactions: Mapping[str, Known] = field(default_factory=lambda: MappingProxyType({}))
    batches: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a report names that may be ours: references, and ids of files and their batches; all lower case."""

    references: frozenset[str]
    batches: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One payment of a booked entry, judged.

    `position` counts the report's entries from 1. `money` is what it does to the account (negative: a debit). Matched
    when `transaction_id` is set; else a break with a `reason`, `about` a transaction if it names one. `outcome` is what
    it newly says of its transaction.
    """

    position: int
    entry: Entry
    detail: EntryDetail | None
    money: Money
    role: Role
    reference: str = ""
    transaction_id: UUID | None = None
    about: UUID | None = None
    reason: Reason | None = None
    outcome: Outcome | None = None


def named(entries: Iterable[Entry]) -> Named:
    """What has to be known to match these entries. Batches count only where no payment is named."""
    references: set[str] = set()
    batches: set[str] = set()
    for entry in entries:
        for claim in _claims(entry):
            references.update(claim.references)
            batches.update(claim.batches)
    return Named(references=frozenset(references), batches=frozenset(batches))


def match(entries: Iterable[Entry], knowledge: Knowledge) -> list[Line]:
    """Judge every booked entry, in order; nothing is matched twice. Entries that aren't booked moved no money: none."""
    matcher = _Matcher(knowledge)
    return [
        line
        for position, entry in enumerate(entries, start=1)
        for claim in _claims(entry)
        for line in matcher.judge(position, claim)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """What an entry, or a detail of it, says was moved. Several `references`: together they come to `money`."""

    entry: Entry
    detail: EntryDetail | None
    money: Money
    is_credit: bool
    references: tuple[str, ...] = ()
    stated: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Of several references: the amounts, in minor units, that the bank does give."""
    batches: tuple[str, ...] = ()
    return_code: str | None = None
    """None: not a return; empty: a return without a reason."""
    fault: Reason | None = None
    """A break whatever is known."""

    @property
    def signed(self) -> Money:
        return self.money if self.is_credit else Money(-self.money.minor, self.money.currency)


def _claims(entry: Entry) -> Iterator[_Claim]:
    if entry.status is not EntryStatus.BOOKED:
        return
    if not entry.details:
        batches = _ours(_BATCH, *(batch.batch_id for batch in entry.batches)) or _ours(
            _REFERENCE, *(batch.message_id for batch in entry.batches)
        )
        yield _Claim(entry=entry, detail=None, money=entry.money, is_credit=entry.is_credit, batches=batches)
    elif _adds_up(entry):
        for detail in entry.details:
            if detail.money is not None:
                yield _claim(entry, detail, detail.money)
    else:
        yield _as_a_whole(entry)


def _adds_up(entry: Entry) -> bool:
    """Whether the details, taken one by one, are the entry."""
    total = 0
    for detail in entry.details:
        if detail.money is None or detail.money.currency != entry.money.currency:
            return False
        total += detail.money.minor if detail.is_credit else -detail.money.minor
    return total == entry.signed.minor


def _claim(entry: Entry, detail: EntryDetail, money: Money) -> _Claim:
    references = _ours(_REFERENCE, detail.end_to_end_id, detail.instruction_id)
    return _Claim(
        entry=entry,
        detail=detail,
        money=money,
        is_credit=detail.is_credit,
        references=references,
        batches=() if references or _names_a_payment(detail) else _batches(detail),
        return_code=_return_code(entry, detail),
        fault=Reason.REFERENCES_DIFFER if len(references) > 1 else None,
    )


def _as_a_whole(entry: Entry) -> _Claim:
    """An entry whose details don't add up to it: matched only if amounts were left out and ours come to the entry."""
    references = [_ours(_REFERENCE, detail.end_to_end_id, detail.instruction_id) for detail in entry.details]
    fault = None
    if any(detail.money and detail.money.currency != entry.money.currency for detail in entry.details):
        fault = Reason.CURRENCY_DIFFERS
    elif all(detail.money for detail in entry.details) or any(detail.is_credit for detail in entry.details):
        fault = Reason.AMOUNT_DIFFERS
    elif not all(len(found) == 1 for found in references):
        fault = Reason.UNKNOWN_REFERENCE
    return _Claim(
        entry=entry,
        detail=entry.details[0] if len(entry.details) == 1 else None,
        money=entry.money,
        is_credit=entry.is_credit,
        references=tuple(dict.fromkeys(reference for found in references for reference in found)),
        stated={
            reference: detail.money.minor
            for detail, found in zip(entry.details, references, strict=True)
            for reference in found
            if detail.money
        },
        fault=fault,
    )


def _ours(form: re.Pattern[str], *texts: str) -> tuple[str, ...]:
    """Those of the texts that have the form of an id of ours, each once, in lower case."""
    return tuple(dict.fromkeys(text.lower() for text in texts if form.fullmatch(text)))


def _names_a_payment(detail: EntryDetail) -> bool:
    return detail.end_to_end_id not in {"", "NOTPROVIDED"}


def _batches(detail: EntryDetail) -> tuple[str, ...]:
    return _ours(_BATCH, detail.batch_id) or _ours(_REFERENCE, detail.message_id)


def _return_code(entry: Entry, detail: EntryDetail) -> str | None:
    if detail.return_reason:
        return detail.return_reason if _REASON_CODE.fullmatch(detail.return_reason) else ""
    return "" if entry.bank_transaction_code.rpartition("/")[2] in _RETURN_CODES else None


class _Matcher:
    """Judges claims one after another and remembers what it has matched."""

    __slots__ = ("_knowledge", "_taken")

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge
        self._taken: set[tuple[UUID, Role]] = set()

    def judge(self, position: int, claim: _Claim) -> list[Line]:
        """The claim's lines: one for each transaction when it is matched, one when it is a break."""
        known = self._find(claim)
        reason = claim.fault or self._fault(claim, known)
        if reason is not None:
            about = known[0].transaction_id if len(known) == 1 else None
            return [
                Line(
                    position=position,
                    entry=claim.entry,
                    detail=claim.detail,
                    money=claim.signed,
                    role=Role.OTHER,
                    reference=claim.references[0] if len(claim.references) == 1 else "",
                    about=about,
                    reason=reason,
                )
            ]
        return [self._take(position, claim, transaction) for transaction in known]

    def _find(self, claim: _Claim) -> list[Known]:
        """The transactions that the claim names; none when one of them isn't known."""
        transactions = self._knowledge.transactions
        if claim.references:
            found = [transactions[reference] for reference in claim.references if reference in transactions]
            return found if len(found) == len(claim.references) else []
        members = [
            transactions[reference] for name in claim.batches for reference in self._knowledge.batches.get(name, ())
        ]
        return [transaction for transaction in members if not transaction.is_refused]

    def _fault(self, claim: _Claim, known: Sequence[Known]) -> Reason | None:
        role = Role.RETURN if claim.is_credit else Role.EXECUTION
        if not known:
            is_ours = any(self._knowledge.batches.get(name) for name in claim.batches)
            return Reason.BOOKED_THOUGH_REFUSED if is_ours else Reason.UNKNOWN_REFERENCE
        if claim.entry.is_reversal and claim.return_code is None:
            return Reason.REVERSED
        if claim.is_credit != (claim.return_code is not None):
            return Reason.WRONG_DIRECTION
        if any(transaction.money.currency != claim.money.currency for transaction in known):
            return Reason.CURRENCY_DIFFERS
        amounts = {transaction.transaction_id.hex: transaction.money.minor for transaction in known}
        if sum(amounts.values()) != claim.money.minor or not claim.stated.items() <= amounts.items():
            return Reason.AMOUNT_DIFFERS
        if any(role in transaction.seen or (transaction.transaction_id, role) in self._taken for transaction in known):
            return Reason.ALREADY_MATCHED
        if any(transaction.is_refused for transaction in known):
            return Reason.BOOKED_THOUGH_REFUSED
        return None

    def _take(self, position: int, claim: _Claim, known: Known) -> Line:
        role = Role.RETURN if claim.is_credit else Role.EXECUTION
        self._taken.add((known.transaction_id, role))
        reference = known.transaction_id.hex
        kind: OutcomeKind | None = None
        reason = ""
        if role is Role.EXECUTION and known.status not in {"SUCCESS", "FAILED"}:
            kind = OutcomeKind.SETTLED
        elif role is Role.RETURN and known.status != "FAILED":
            kind, reason = OutcomeKind.RETURNED, f"{RETURNED}-{claim.return_code}" if claim.return_code else RETURNED
        detail = claim.detail
        return Line(
            position=position,
            entry=claim.entry,
            detail=detail,
            money=known.money if claim.is_credit else Money(-known.money.minor, known.money.currency),
            role=role,
            reference=reference,
            transaction_id=known.transaction_id,
            outcome=None
            if kind is None
            else Outcome(
                kind=kind,
                reference=reference,
                provider_reference=(detail.bank_reference if detail else "") or claim.entry.bank_reference,
                reason=reason,
                detail=detail.return_detail if detail else "",
            ),
        )
