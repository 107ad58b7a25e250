"""Bulk uploads: NDJSON or CSV, streamed, a result for every line (wire contract, section 4).

While one chunk is being written the next is read, so the upload keeps both the processor and the database busy.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from strongroom.access import Permission
from strongroom.api import idempotency
from strongroom.api.order_bodies import InstructionBody, check_instruction, check_ref, decode_body, read_order
from strongroom.api.order_requests import BulkLineRequest
from strongroom.api.routing import Access, Call, Reply, Route, wire_name
from strongroom.database import Operation
from strongroom.kernel.errors import Failure, Invalid, KeyReused, StrongroomError, UnsupportedMedia
from strongroom.kernel.ids import parse_uuid
from strongroom.payments import bulk
from strongroom.payments.instruments import NewBankAccount, check_bank_account

CHUNK_LINES: Final = 500
CHUNK_BYTES: Final = 512 * 1024
"""A chunk is written when it has so many lines or bytes."""
MAX_LINE_BYTES: Final = 512 * 1024
MAX_RECORD_LINES: Final = 100
"""Most lines over which one CSV record goes, by line breaks inside quotes."""
_PATH: Final = "/v1/order-management/bulk"
_NDJSON: Final = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/json", ""})
_REQUIRED: Final = (
    "orderRef", "instructionRef", "customerRef", "direction", "amount", "currency", "country", "settledByDate",
)  # fmt: skip
_ACCOUNT: Final = (
    "accountHolder", "iban", "bic", "accountNumber", "bankCode", "street", "building", "postCode", "town", "region",
    "addressCountry",
)  # fmt: skip
_METADATA: Final = "metadata."


class JobLinks(msgspec.Struct):
    """A job's links."""

    self: dict[str, str]
    results: dict[str, str]


class JobView(msgspec.Struct, rename=wire_name):
    """A bulk job's progress. `linesDone` counts from the upload's first line."""

    links: JobLinks
    job_id: str
    status: str
    lines_done: int
    accepted: int
    refused: int
    created_on: datetime
    last_updated_on: datetime


class BankAccountBody(msgspec.Struct, rename="camel"):
    """A bank account that comes with a line."""

    account_holder: Any = None
    account_holder_name: Any = None
    iban: Any = None
    bic: Any = None
    account_number: Any = None
    bank_code: Any = None
    country: Any = None
    address: Any = None


class LineBody(InstructionBody, rename="camel"):
    """One instruction as a line: its order's reference and, if need be, the account to be put into the vault."""

    order_ref: Any = None
    bank_account: BankAccountBody | None = None


class LineKind(msgspec.Struct, rename="camel"):
    """What tells an instruction from a whole order."""

    instruction_ref: msgspec.Raw | UnsetType = UNSET
    instructions: msgspec.Raw | UnsetType = UNSET


_decode_line = msgspec.json.Decoder(LineBody).decode
_decode_kind = msgspec.json.Decoder(LineKind).decode


async def upload(call: Call) -> Reply:
    """POST a bulk upload; answers 202 with the job once every line has its verdict.

    A client that sends an Idempotency-Key may send the whole upload again after a failure: lines already done are not
    done again.
    """
    media = call.header("content-type").partition(";")[0].strip().lower()
    if media not in _NDJSON and media != "text/csv":
        raise UnsupportedMedia(
            Failure(
                "MEDIA_TYPE_NOT_SUPPORTED",
                "Send application/x-ndjson or text/csv, not {media}.",
                {"media": media[:100]},
            )
        )
    key = idempotency.key_of(call)
    job = await call.run(lambda op: bulk.begin_job(op, key))
    writer = _Writer(call, job)
    try:
        reader = _csv_lines(call) if media == "text/csv" else _ndjson_lines(call)
        async for number, raw, line in reader:
            await writer.add(number, raw, line)
        await writer.finish()
    except BaseException:
        await writer.interrupt()
        raise
    ended = await call.run(lambda op: bulk.end_job(op, job.job_id, "COMPLETED"))
    return Reply(202, _view(ended), ((b"location", f"{_PATH}/{job.job_id}".encode()),))


async def read_job(op: Operation, call: Call) -> Reply:
    """GET a job's progress."""
    return Reply(200, _view(await bulk.get_job(op, _job_id(call))))


async def read_results(op: Operation, call: Call) -> Reply:
    """GET a job's results as NDJSON, a page at a time; the `link` header names the next page."""
    job_id = _job_id(call)
    await bulk.get_job(op, job_id)
    cursor = call.query.get("cursor", "0")
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise Invalid(Failure("CURSOR_IS_INVALID", "cursor must be a number that an earlier page gave."))
    content, following = await bulk.read_results(op, job_id, int(cursor))
    headers = []
    if following is not None:
        headers.append((b"link", f'<{_PATH}/{job_id}/results?cursor={following}>; rel="next"'.encode()))
    return Reply(200, content=content, media=b"application/x-ndjson", headers=headers)


class _Writer:
    """Collects lines into chunks; writes one chunk while the next is collected."""

    def __init__(self, call: Call, job: bulk.Job) -> None:
        self._call = call
        self._job = job
        self._digest = hashlib.sha256()
        self._lines: list[tuple[int, bulk.Line | StrongroomError]] = []
        self._bytes = 0
        self._done = 0
        self._writing: asyncio.Task[None] | None = None

    async def add(self, number: int, raw: bytes, line: bulk.Line | StrongroomError | None) -> None:
        """Take the next line; None for one that says nothing (blank, or a CSV's header)."""
        self._digest.update(raw)
        self._digest.update(b"\n")
        self._done = number
        if number > self._job.lines_done and line is not None and self._job.status == "COMPLETED":
            raise KeyReused(
                Failure(
                    "IDEMPOTENCY_KEY_REUSED",
                    "This Idempotency-Key belongs to an upload that ended after line {count}. Use a new key for a new "
                    "upload.",
                    {"count": self._job.lines_done},
                )
            )
        if number <= self._job.lines_done:
            if number == self._job.lines_done and self._digest.digest() != self._job.digest:
                raise KeyReused(
                    Failure(
                        "IDEMPOTENCY_KEY_REUSED",
                        "This Idempotency-Key belongs to another upload: its first {count} lines were different.",
                        {"count": number},
                    )
                )
            return
        if line is not None:
            self._lines.append((number, line))
        self._bytes += len(raw)
        if len(self._lines) >= CHUNK_LINES or self._bytes >= CHUNK_BYTES:
            await self._flush()

    async def finish(self) -> None:
        """Write what is left."""
        if self._done < self._job.lines_done:
            raise KeyReused(
                Failure(
                    "IDEMPOTENCY_KEY_REUSED",
                    "This Idempotency-Key belongs to a longer upload, of which {count} lines are done.",
                    {"count": self._job.lines_done},
                )
            )
        if self._lines:
            await self._flush()
        if self._writing is not None:
            await self._writing

    async def interrupt(self) -> None:
        """Leave the job as far as it is, and say so; a database that is away leaves it to go stale."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        if self._job.status == "COMPLETED":
            return
        try:
            await self._call.run(lambda op: bulk.end_job(op, self._job.job_id, "INTERRUPTED"))
        except StrongroomError:
            return

    async def _flush(self) -> None:
        if self._writing is not None:
            await self._writing
        lines, self._lines, self._bytes = self._lines, [], 0
        self._writing = asyncio.create_task(self._write(lines, self._done, self._digest.digest()))
        await asyncio.sleep(0)

    async def _write(self, lines: Sequence[tuple[int, bulk.Line | StrongroomError]], done: int, digest: bytes) -> None:
        await self._call.run(lambda op: bulk.write_lines(op, self._job.job_id, lines, done, digest))


async def _ndjson_lines(call: Call) -> AsyncIterator[tuple[int, bytes, bulk.Line | StrongroomError | None]]:
    number = 0
    async for raw in _split(call):
        number += 1
        text = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
        yield number, raw, _read_ndjson(text) if text.strip() else None


def _read_ndjson(raw: bytes) -> bulk.Line | StrongroomError:
    try:
        if len(raw) > MAX_LINE_BYTES:
            raise _line_too_long()
        return _check_line(decode_body(_decode_line, raw)) if _is_instruction(raw) else read_order(raw)
    except Invalid as error:
        return error


def _is_instruction(raw: bytes) -> bool:
    if b"\\" not in raw:
        if b'"instructions"' not in raw:
            return b'"instructionRef"' in raw
        if b'"instructionRef"' not in raw:
            return False
    kind = decode_body(_decode_kind, raw)
    return kind.instruction_ref is not UNSET and kind.instructions is UNSET


def _check_line(sent: LineBody) -> bulk.InstructionLine:
    failures: list[Failure] = []
    wrong = check_ref(sent.order_ref, "ORDER_REF", "orderRef")
    if wrong is not None:
        failures.append(wrong)
    instruction = account = None
    try:
        instruction = check_instruction(sent)
    except Invalid as error:
        failures += error.failures
    if sent.bank_account is not None:
        try:
            account = _bank_account(sent.bank_account)
        except Invalid as error:
            failures += error.failures
    if failures or instruction is None:
        raise Invalid(*failures)
    return bulk.InstructionLine(sent.order_ref, instruction, account)


def _bank_account(sent: BankAccountBody) -> NewBankAccount:
    return check_bank_account(msgspec.to_builtins(sent))


async def _csv_lines(call: Call) -> AsyncIterator[tuple[int, bytes, bulk.Line | StrongroomError | None]]:
    lines = _split(call)
    first = await anext(lines, None)
    if first is None:
        raise Invalid(Failure("CSV_HEADER_MISSING", "The CSV is empty; its first line must name the columns."))
    try:
        text = first.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Invalid(Failure("CSV_NOT_UTF_8", "The CSV's first line is not UTF-8; save the file as UTF-8.")) from None
    delimiter = max(",;\t|", key=text.count)
    header = _csv_header(text, delimiter)
    yield 1, first, None
    number = 1
    records = Records(delimiter, len(header))
    async for line in lines:
        for record in records.feed(line):
            number += 1
            yield number, record, _read_csv(header, delimiter, record) if record.strip() else None
    for record in records.finish():
        number += 1
        yield number, record, _read_csv(header, delimiter, record)


def _csv_header(text: str, delimiter: str) -> list[str]:
    try:
        header = [name.strip() for name in next(csv.reader([text], delimiter=delimiter, strict=True), [])]
    except csv.Error as error:
        raise Invalid(
            Failure("CSV_LINE_INVALID", "The first line can't be read: {what}.", {"what": str(error)[:100]})
        ) from None
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        raise Invalid(
            Failure(
                "CSV_COLUMN_MISSING",
                "The CSV's first line lacks the columns {missing}. Columns were separated by {delimiter}; comma, "
                "semicolon, tab and bar are understood.",
                {"missing": ", ".join(missing), "delimiter": {"\t": "tab"}.get(delimiter, delimiter)},
            )
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise Invalid(
            Failure(
                "CSV_COLUMN_TWICE", "The CSV's first line has the columns {names} twice.", {"names": ", ".join(twice)}
            )
        )
    return header


def _read_csv(header: Sequence[str], delimiter: str, raw: bytes) -> bulk.Line | StrongroomError:
    try:
        if len(raw) > MAX_LINE_BYTES:
            raise _line_too_long()
        values = _values(raw, delimiter)
    except (UnicodeDecodeError, csv.Error) as error:
        return Invalid(Failure("CSV_LINE_INVALID", "The line can't be read: {what}.", {"what": str(error)[:100]}))
    except Invalid as error:
        return error
    if len(values) != len(header):
        return Invalid(
            Failure(
                "CSV_LINE_INVALID",
                "The line has {found} values, the header {expected}.",
                {"found": len(values), "expected": len(header)},
            )
        )
    row = dict(zip(header, values, strict=True))
    metadata = {
        name.removeprefix(_METADATA): value for name, value in row.items() if name.startswith(_METADATA) and value
    }
    sent = LineBody(
        order_ref=row["orderRef"],
        instruction_ref=row["instructionRef"],
        customer_ref=row["customerRef"],
        direction=row["direction"],
        financial_instrument_id=row.get("financialInstrumentId") or None,
        amount=msgspec.Raw(msgspec.json.encode(row["amount"])),
        currency=row["currency"],
        country=row["country"],
        settled_by_date=row["settledByDate"],
        scheme_id=row.get("schemeId") or None,
        metadata=metadata or None,
        bank_account=_csv_account(row),
    )
    try:
        return _check_line(sent)
    except Invalid as error:
        return error


def _csv_account(row: Mapping[str, str]) -> BankAccountBody | None:
    if not any(row.get(name) for name in ("iban", "accountNumber", "accountHolder")):
        return None
    given = {name: row.get(name) or None for name in _ACCOUNT}
    address = {
        "streetAddress": given["street"],
        "extendedAddress": given["building"],
        "locality": given["town"],
        "region": given["region"],
        "postCode": given["postCode"],
        "country": given["addressCountry"] or row["country"],
    }
    return BankAccountBody(
        account_holder=given["accountHolder"],
        iban=given["iban"],
        bic=given["bic"],
        account_number=given["accountNumber"],
        bank_code=given["bankCode"],
        country=row["country"],
        address=address if any(given[name] for name in ("street", "town", "postCode")) else None,
    )


async def _split(call: Call) -> AsyncIterator[bytes]:
    """The upload's lines; one that is too long comes cut, one byte longer than MAX_LINE_BYTES."""
    assert call.chunks is not None  # noqa: S101  # the route streams
    most = MAX_LINE_BYTES + 1
    begun: list[bytes] = []
    size = 0
    while (chunk := await call.chunks()) is not None:
        first, *others = chunk.split(b"\n")
        if size < most:
            begun.append(first)
            size += len(first)
        if others:
            yield b"".join(begun)[:most].removesuffix(b"\r")
            *whole, last = others
            for line in whole:
                yield line[:most].removesuffix(b"\r")
            begun, size = [last], len(last)
    if size:
        yield b"".join(begun)[:most].removesuffix(b"\r")


class _CsvLine:
    """A line of a CSV. Both questions are answered once, however often the line is looked at anew."""

    def __init__(self, text: bytes, delimiter: bytes) -> None:
        self.text = text
        self._delimiter = delimiter

    @cached_property
    def opens(self) -> bool:
        """Whether a quoted value goes on at its end, when none does at its beginning."""
        return b'"' in self.text and _is_open(self.text, self._delimiter)

    @cached_property
    def stays_open(self) -> bool:
        """Whether one goes on at its end, when one does at its beginning."""
        return b'"' not in self.text or _is_open(b'"' + self.text, self._delimiter)


class Records:
    """Puts CSV records together from lines: a quoted value may go on over several.

    A quote that is opened by mistake would swallow what follows. So when a record doesn't end within
    MAX_RECORD_LINES, or can't be read when it ends, its first line stands alone (and is refused), and the lines after
    it are looked at anew.
    """

    def __init__(self, delimiter: str, columns: int) -> None:
        self._delimiter = delimiter
        self._columns = columns
        self._lines: list[_CsvLine] = []
        self._size = 0

    def feed(self, line: bytes) -> list[bytes]:
        """The records that end with this line."""
        if not self._lines and b'"' not in line:
            return [line]
        return self._feed(_CsvLine(line, self._delimiter.encode()))

    def _feed(self, line: _CsvLine) -> list[bytes]:
        if not self._lines:
            if not line.opens:
                return [line.text]
            self._lines, self._size = [line], len(line.text)
            return [] if self._size <= MAX_LINE_BYTES else self._give_up()
        self._lines.append(line)
        self._size += 1 + len(line.text)
        if line.stays_open:
            if len(self._lines) < MAX_RECORD_LINES and self._size <= MAX_LINE_BYTES:
                return []
        elif self._is_good(record := b"\n".join([part.text for part in self._lines])):
            self._lines = []
            return [record]
        return self._give_up()

    def finish(self) -> list[bytes]:
        """The records that are left at the end."""
        found: list[bytes] = []
        while self._lines:
            found += self._give_up()
        return found

    def _give_up(self) -> list[bytes]:
        first, *others = self._lines
        self._lines = []
        found = [first.text]
        for other in others:
            found += self._feed(other)
        return found

    def _is_good(self, record: bytes) -> bool:
        try:
            return len(_values(record, self._delimiter)) == self._columns
        except (UnicodeDecodeError, csv.Error):
            return False


def _is_open(record: bytes, delimiter: bytes) -> bool:
    """Whether a quoted value goes on at the end (RFC 4180: only a quote at a value's beginning opens one)."""
    at = 0
    while True:
        if record[at : at + 1] == b'"':
            at = record.find(b'"', at + 1)
            while at >= 0 and record[at + 1 : at + 2] == b'"':
                at = record.find(b'"', at + 2)
            if at < 0:
                return True
        at = record.find(delimiter, at)
        if at < 0:
            return False
        at += 1


def _values(record: bytes, delimiter: str) -> list[str]:
    """A record's values. Raises UnicodeDecodeError, csv.Error."""
    if b"\0" in record:
        raise csv.Error("it holds a NUL character")
    return next(csv.reader(io.StringIO(record.decode(), newline=""), delimiter=delimiter, strict=True))


def _line_too_long() -> Invalid:
    return Invalid(Failure("LINE_TOO_LONG", "A line has at most {limit} bytes.", {"limit": MAX_LINE_BYTES}))


def _job_id(call: Call) -> UUID:
    job_id = parse_uuid(call.path["jobId"])
    if job_id is None:
        raise bulk.job_not_found()
    return job_id


def _view(job: bulk.Job) -> JobView:
    href = f"{_PATH}/{job.job_id}"
    return JobView(
        links=JobLinks({"href": href}, {"href": f"{href}/results"}),
        job_id=str(job.job_id),
        status=job.status,
        lines_done=job.lines_done,
        accepted=job.accepted,
        refused=job.refused,
        created_on=job.created_at,
        last_updated_on=job.updated_at,
    )


ROUTES: Sequence[Route] = (
    Route(
        method="POST", path=_PATH, summary="Send many orders and instructions", tag="Orders", access=Access.TENANT,
        permission=Permission.TRANSACTIONS_WRITE, call=upload, streams=True, request=BulkLineRequest,
        request_media=("application/x-ndjson", "text/csv"), replies={202: JobView},
    ),
    Route(
        method="GET", path=_PATH + "/{jobId}", summary="Follow a bulk job", tag="Orders", access=Access.TENANT,
        permission=Permission.TRANSACTIONS_READ, operation=read_job, replies={200: JobView},
    ),
    Route(
        method="GET", path=_PATH + "/{jobId}/results", summary="Read a bulk job's results", tag="Orders",
        access=Access.TENANT, permission=Permission.TRANSACTIONS_READ, operation=read_results, replies={200: bytes},
        reply_media="application/x-ndjson", query={"cursor": "Go on after this line, as an earlier page's link says."},
    ),
)  # fmt: skip
