"""A bank that reads payment files and answers as a bank would.

It takes pain.001 files (versions 03 and 09) and answers each with a status report (pain.002.001.10), an end-of-day
statement of every account that the file pays from (camt.053.001.08), and on demand a notification (camt.054.001.08).
Its day ends with each file, and it doesn't wait for a later execution date: the booking date is the day it answers, the
value date the later of that day and the requested one. It keeps books: a balance and a statement number for each
account, opened with `Behaviour.opening_balance` when it is first seen.

What becomes of a payment is chosen by the last word of the creditor's name:

| Last word | What happens |
|---|---|
| `RJCT-` and a reason, such as `RJCT-AC04` | rejected with that reason in the status report, never booked |
| `RTRN-` and a reason, such as `RTRN-AC06` | accepted and booked, then returned: a separate credit with that reason |
| `SILENT` | accepted in the status report, never booked |
| anything else | accepted and booked |

Like any bank it also rejects, with ISO reason codes: a message id it has seen (`DUPL`, the whole file), an end-to-end
id it has seen (`DUPL`), a file it can't read (`FF01`), wrong counts (`AM18`) and control sums (`AM10`), a debtor
account that can't be (`AC02`, the batch), a creditor account that can't be (`AC01`) or is outside SEPA (`AG01`),
another currency than euro (`AM03`), an address without town and country (`BE04`) and what the balance doesn't cover
(`AM04`).

`answer` is a pure function. `answer_outbox` stands around it with books on disk, for a directory of files: each
end-to-end id is booked once however often it is delivered, and an interrupted run is taken up where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from strongroom.kernel.errors import StrongroomError
from strongroom.kernel.money import Money
from strongroom.rails.bank._messages import (
    AccountReport,
    BatchReport,
    Booking,
    FileReport,
    OrderReport,
    Rejection,
    write_notification,
    write_statement,
    write_status_report,
)
from strongroom.rails.contract import BankAccount
from strongroom.rails.formats import accounts, pain001
from strongroom.rails.formats.pain001 import InitiatedBatch, InitiatedFile, InitiatedPayment

_MARKER = re.compile(
    r"(?:.*\s)?(?:(?P<what>RJCT|RTRN)-(?P<reason>[A-Z0-9]{4})|(?P<silent>SILENT))", re.ASCII | re.DOTALL
)
_MESSAGE_ID = re.compile(rb"<(?:[A-Za-z0-9]+:)?MsgId>\s*([A-Za-z0-9/?:().,'+ -]{1,35}?)\s*</")
_UNREADABLE: Final = {"PAYMENT_FILE_COUNT_WRONG": "AM18", "PAYMENT_FILE_CONTROL_SUM_WRONG": "AM10"}
_NOT_PROVIDED: Final = "NOTPROVIDED"
_STRANGER: Final = BankAccount(holder="Erika Beispiel", iban="DE02120300000000202051", bic="BYLADEM1001")
_OPENING: Final = Money(10_000_000_00, "EUR")
_INCOMING: Final = Money(123_45, "EUR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How the bank is to behave with a file."""

    batch_booked: bool | None = None
    """One entry for each batch, or one for each payment; None: as the file asks (one entry when it doesn't say)."""
    statement_twice: bool = False
    """Send the statement a second time, byte for byte."""
    unrelated_incoming: bool = False
    """Book a payment of 123.45 EUR from a stranger on the first account: a break, for whoever reconciles."""
    broken_balance: bool = False
    """Say one cent too much for the closing balance; the books stay right."""
    notification: bool = False
    """Send a camt.054 with the same entries as the statement."""
    lists_accepted: bool = True
    """Name accepted payments in the status report, and not only the rejected ones."""
    opening_balance: Money = _OPENING
    """What an account holds when it is first seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountBooks:
    """One account: what it holds (negative: overdrawn) and the number of its last statement."""

    balance: Money
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """All that the bank remembers: accounts by IBAN, and the message and end-to-end ids it has accepted."""

    accounts: Mapping[str, AccountBooks] = field(default_factory=lambda: MappingProxyType({}))
    messages: frozenset[str] = frozenset()
    orders: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class BankAnswer:
    """What the bank sends, and its books afterwards. No statement for a file that was rejected as a whole."""

    pain002: bytes
    camt053: tuple[bytes, ...]
    camt054: bytes | None
    books: Books


def answer(document: bytes, books: Books, at: datetime, behaviour: Behaviour) -> BankAnswer:
    """Read a pain.001 file and answer it at the instant `at` (aware). Never raises for what the file holds."""
    return _answer(document, _read(document), books, at, behaviour)


def answer_outbox(outbox: Path, inbox: Path, *, books_dir: Path, at: datetime, behaviour: Behaviour) -> list[Path]:
    """Answer every payment file (`*.xml`) in `outbox` that was not answered yet; the answers' paths, all in `inbox`.

    A file is known by its name and content together. Answers appear whole or not at all (written beside, then renamed):
    `NAME.DIGEST.pain002.xml`, `.camt053.xml`, `.camt053-again.xml`, `.camt054.xml`. Bookings and answers are committed
    together before anything is dropped, so that a run that dies is taken up by the next without booking twice. The
    outbox is only read.
    """
    dropped: list[Path] = []
    inbox.mkdir(parents=True, exist_ok=True)
    with _open_books(books_dir) as connection:
        for path in sorted(outbox.glob("*.xml")):
            if not path.name.startswith("."):
                _book(connection, path, at=at, behaviour=behaviour)
        waiting = connection.execute("select id, name, content from answers order by id").fetchall()
        for identity, name, content in waiting:
            _drop(inbox / name, content)
            connection.execute("delete from answers where id = ?", (identity,))
            dropped.append(inbox / name)
    return dropped


# The bank's decisions


def _read(document: bytes) -> InitiatedFile | StrongroomError:
    try:
        return pain001.read(document)
    except StrongroomError as error:
        return error


def _answer(
    document: bytes, file: InitiatedFile | StrongroomError, books: Books, at: datetime, behaviour: Behaviour
) -> BankAnswer:
    report_id = f"STS{hashlib.sha256(document + at.isoformat().encode()).hexdigest()[:29]}"
    if isinstance(file, StrongroomError):
        found = _MESSAGE_ID.search(document)
        rejection = Rejection(code=_UNREADABLE.get(file.code, "FF01"), detail=str(file))
        report = FileReport(
            message_id=found[1].decode() if found else _NOT_PROVIDED, count=0, rejection=rejection, batches=()
        )
    elif file.message_id in books.messages:
        rejection = Rejection(code="DUPL", detail="DuplicateMessage: this message id was received before")
        batches = tuple(_reject_batch(batch, rejection) for batch in file.batches)
        report = FileReport(message_id=file.message_id, count=len(file.payments), rejection=rejection, batches=batches)
    else:
        return _execute(file, report_id, books, at, behaviour)
    pain002 = write_status_report(report, report_id=report_id, at=at, lists_accepted=behaviour.lists_accepted)
    return BankAnswer(pain002=pain002, camt053=(), camt054=None, books=books)


def _reject_batch(batch: InitiatedBatch, rejection: Rejection) -> BatchReport:
    return BatchReport(
        id=batch.id,
        orders=tuple(OrderReport(payment=payment, rejection=rejection) for payment in batch.payments),
    )


def _execute(file: InitiatedFile, report_id: str, books: Books, at: datetime, behaviour: Behaviour) -> BankAnswer:
    ledgers: dict[str, _Ledger] = {}
    orders = set(books.orders)
    batches: list[BatchReport] = []
    for batch in file.batches:
        iban = accounts.find_iban(batch.debtor.iban)
        if iban is None:
            rejection = Rejection(code="AC02", detail="the debtor's account number can't be right")
            batches.append(_reject_batch(batch, rejection))
            continue
        if iban not in ledgers:
            account = books.accounts.get(iban, AccountBooks(balance=behaviour.opening_balance))
            ledgers[iban] = _Ledger(holder=replace(batch.debtor, iban=iban), opening=account)
        batches.append(ledgers[iban].take(file, batch, orders, at, behaviour))
    if behaviour.unrelated_incoming and ledgers:
        next(iter(ledgers.values())).receive(at)
    report = FileReport(message_id=file.message_id, count=len(file.payments), rejection=None, batches=tuple(batches))
    reports = [ledger.close() for ledger in ledgers.values()]
    statement = (
        write_statement(reports, report_id=report_id, at=at, broken=behaviour.broken_balance) if reports else None
    )
    closed = {
        ledger.holder.iban: AccountBooks(balance=ledger.balance, sequence=ledger.opening.sequence + 1)
        for ledger in ledgers.values()
    }
    return BankAnswer(
        pain002=write_status_report(report, report_id=report_id, at=at, lists_accepted=behaviour.lists_accepted),
        camt053=() if statement is None else (statement, statement) if behaviour.statement_twice else (statement,),
        camt054=write_notification(reports, report_id=report_id, at=at) if behaviour.notification and reports else None,
        books=Books(
            accounts=MappingProxyType({**books.accounts, **closed}),
            messages=books.messages | {file.message_id},
            orders=frozenset(orders),
        ),
    )


class _Ledger:
    """One account's day."""

    __slots__ = ("balance", "bookings", "holder", "opening")

    def __init__(self, *, holder: BankAccount, opening: AccountBooks) -> None:
        self.holder = holder
        self.opening = opening
        self.balance = opening.balance
        self.bookings: list[Booking] = []

    def take(
        self, file: InitiatedFile, batch: InitiatedBatch, orders: set[str], at: datetime, behaviour: Behaviour
    ) -> BatchReport:
        """Decide about every order of a batch and book what is accepted."""
        reports: list[OrderReport] = []
        booked: list[InitiatedPayment] = []
        returned: list[tuple[InitiatedPayment, str]] = []
        value_on = max(at.date(), batch.execution_on)
        for payment in batch.payments:
            what, reason = _marker(payment.creditor.holder)
            rejection = Rejection(code=reason) if what == "RJCT" else self._find_fault(payment, orders)
            reports.append(OrderReport(payment=payment, rejection=rejection))
            if rejection is not None:
                continue
            if payment.end_to_end_id != _NOT_PROVIDED:
                orders.add(payment.end_to_end_id)
            if what == "SILENT":
                continue
            self.balance -= payment.money
            booked.append(payment)
            if what == "RTRN":
                returned.append((payment, reason))
        together = batch.batch_booking is not False if behaviour.batch_booked is None else behaviour.batch_booked
        for group in [booked] if together else [[payment] for payment in booked]:
            if group:
                self._add(file.message_id, group, value_on, at)
        for payment, reason in returned:
            self.balance += payment.money
            self._add(file.message_id, [payment], value_on, at, return_reason=reason)
        return BatchReport(id=batch.id, orders=tuple(reports))

    def receive(self, at: datetime) -> None:
        """Book a payment that nobody here ordered."""
        self.balance += _INCOMING
        payment = InitiatedPayment(
            batch_id="",
            instruction_id="",
            end_to_end_id=_NOT_PROVIDED,
            debtor=_STRANGER,
            creditor=self.holder,
            money=_INCOMING,
            execution_on=at.date(),
            remittance="Rent, November",
        )
        self.bookings.append(
            Booking(is_credit=True, booked_on=at.date(), value_on=at.date(), payments=(payment,), message_id="")
        )

    def close(self) -> AccountReport:
        """The day as the statement tells it."""
        return AccountReport(
            account=self.holder,
            sequence=self.opening.sequence + 1,
            opening=self.opening.balance,
            closing=self.balance,
            bookings=tuple(self.bookings),
        )

    def _add(
        self,
        message_id: str,
        payments: Iterable[InitiatedPayment],
        value_on: date,
        at: datetime,
        return_reason: str = "",
    ) -> None:
        self.bookings.append(
            Booking(
                is_credit=bool(return_reason),
                booked_on=at.date(),
                value_on=value_on,
                payments=tuple(payments),
                message_id=message_id,
                return_reason=return_reason,
            )
        )

    def _find_fault(self, payment: InitiatedPayment, orders: set[str]) -> Rejection | None:
        """Why a bank would reject the payment, or None."""
        creditor = payment.creditor
        iban = accounts.find_iban(creditor.iban)
        if payment.money.currency != self.balance.currency:
            return Rejection(code="AM03", detail="only euro")
        if iban is None:
            return Rejection(code="AC01", detail="the creditor's account number can't be right")
        if iban[:2] not in accounts.SEPA:
            return Rejection(code="AG01", detail="the creditor's account is outside SEPA")
        if payment.address_lines and not (creditor.address and creditor.address.town and creditor.address.country):
            return Rejection(
                code="BE04", detail="unstructured addresses are not taken; give town and country as elements"
            )
        if payment.end_to_end_id in orders:
            return Rejection(code="DUPL", detail="this end-to-end id was accepted before")
        if payment.money.minor > self.balance.minor:
            return Rejection(code="AM04", detail="the balance doesn't cover it")
        return None


def _marker(holder: str) -> tuple[str, str]:
    """What the creditor's name asks for: `RJCT`, `RTRN` (with a reason), `SILENT` or nothing."""
    found = _MARKER.fullmatch(holder.strip())
    if found is None:
        return "", ""
    return (found["silent"], "") if found["silent"] else (found["what"], found["reason"])


# Books on disk

_SCHEMA: Final = """
create table if not exists accounts (iban text primary key, balance integer not null, sequence integer not null) strict;
create table if not exists messages (id text primary key) strict, without rowid;
create table if not exists orders (id text primary key) strict, without rowid;
create table if not exists deliveries (
    name text, digest text, size integer not null, modified_ns integer not null, primary key (name, digest)
) strict, without rowid;
create table if not exists answers (id integer primary key, name text not null, content blob not null) strict;
"""


@contextmanager
def _open_books(directory: Path) -> Iterator[sqlite3.Connection]:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with closing(sqlite3.connect(directory / "bank.sqlite3", isolation_level=None, timeout=30)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.executescript(_SCHEMA)
        yield connection


def _book(connection: sqlite3.Connection, path: Path, *, at: datetime, behaviour: Behaviour) -> None:
    """Answer one file and keep books and answers together, unless it was done before."""
    status = path.stat()
    known = "select 1 from deliveries where name = ? and size = ? and modified_ns = ?"
    if connection.execute(known, (path.name, status.st_size, status.st_mtime_ns)).fetchone():
        return
    document = path.read_bytes()
    digest = hashlib.sha256(document).hexdigest()
    file = _read(document)
    connection.execute("begin immediate")
    try:
        delivery = connection.execute(
            "insert into deliveries (name, digest, size, modified_ns) values (?, ?, ?, ?) on conflict do nothing",
            (path.name, digest, status.st_size, status.st_mtime_ns),
        )
        if delivery.rowcount:
            before = _load(connection, file)
            result = _answer(document, file, before, at, behaviour)
            _save(connection, before, result.books)
            stem = f"{path.stem}.{digest[:8]}"
            connection.executemany(
                "insert into answers (name, content) values (?, ?)",
                [(f"{stem}.{kind}.xml", content) for kind, content in _outgoing(result)],
            )
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise


def _outgoing(result: BankAnswer) -> Iterator[tuple[str, bytes]]:
    yield "pain002", result.pain002
    yield from zip(("camt053", "camt053-again"), result.camt053, strict=False)
    if result.camt054 is not None:
        yield "camt054", result.camt054


def _load(connection: sqlite3.Connection, file: InitiatedFile | StrongroomError) -> Books:
    """The accounts, and of the ids seen those that `file` names."""
    if isinstance(file, StrongroomError):
        return Books()
    ids = json.dumps([payment.end_to_end_id for payment in file.payments])
    seen = connection.execute("select id from orders where id in (select value from json_each(?))", (ids,))
    messages = connection.execute("select id from messages where id = ?", (file.message_id,))
    return Books(
        accounts=MappingProxyType(
            {
                iban: AccountBooks(balance=Money(balance, "EUR"), sequence=sequence)
                for iban, balance, sequence in connection.execute("select iban, balance, sequence from accounts")
            }
        ),
        messages=frozenset(identity for (identity,) in messages),
        orders=frozenset(identity for (identity,) in seen),
    )


def _save(connection: sqlite3.Connection, before: Books, after: Books) -> None:
    connection.executemany(
        "insert or replace into accounts (iban, balance, sequence) values (?, ?, ?)",
        [(iban, account.balance.minor, account.sequence) for iban, account in after.accounts.items()],
    )
    connection.executemany("insert into messages (id) values (?)", [(i,) for i in after.messages - before.messages])
    connection.executemany("insert into orders (id) values (?)", [(i,) for i in after.orders - before.orders])


def _drop(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
