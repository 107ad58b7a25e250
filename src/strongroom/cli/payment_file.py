"""Reading a payments file of one's own: CSV as an export has it, or pain.001, line by line.

Whatever is wrong with the file as a whole is said before anything is sent; whatever is wrong with one line concerns
that line alone, also when it isn't CSV at all, and also among a million. Nothing is kept but the line at hand.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

from strongroom.api.bulk import MAX_LINE_BYTES, Records
from strongroom.cli.cells import plain
from strongroom.kernel.errors import Failure, Refused
from strongroom.rails.formats import pain001
from strongroom.rails.formats.pain001 import InitiatedPayment

REQUIRED: Final = (
    "orderRef", "instructionRef", "customerRef", "direction", "amount", "currency", "country", "settledByDate",
)  # fmt: skip
OPTIONAL: Final = (
    "schemeId", "financialInstrumentId", "accountHolder", "iban", "bic", "accountNumber", "bankCode", "street",
    "building", "postCode", "town", "region", "addressCountry",
)  # fmt: skip
_KNOWN: Final = frozenset({*REQUIRED, *OPTIONAL})
METADATA: Final = "metadata."
"""How the names of columns begin whose values become metadata."""
DELIMITERS: Final = ",;\t|"
REASON_COLUMNS: Final = ("line", "errorCodes", "reasons")
"""How the header of a file of refused lines begins: its other cells are written `cells.harmless`."""
_PAIN_COLUMNS: Final = (
    *REQUIRED, "accountHolder", "iban", "bic", "accountNumber", "bankCode", "street", "building", "postCode", "town",
    "region", "addressCountry", "metadata.messageId", "metadata.endToEndId", "metadata.remittanceInformation",
)  # fmt: skip
_NOT_IN_REF = re.compile(r"[^a-zA-Z0-9._-]+")
_MAX_REF: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line: its number as an editor shows it (in pain.001: the payment's), and its values by column.

    `problem` says why it couldn't be read as a line of the file; `values` then holds the text as it stands.
    """

    number: int
    values: Sequence[str]
    problem: str = ""


class PaymentFile:
    """A file that is going to be sent. `size` is in bytes, `position` how many of them were read."""

    def __init__(self, path: Path) -> None:
        """Look at the file's beginning.

        Raises errors.Refused: `FILE_NOT_FOUND`, `FILE_EMPTY`, `FILE_NOT_UTF8`, `CSV_COLUMN_MISSING`,
        `CSV_COLUMN_TWICE`, and for pain.001 whatever `pain001.read` finds.
        """
        if not path.is_file():
            raise Refused(Failure("FILE_NOT_FOUND", "There is no file {path}.", {"path": str(path)}))
        self.path = path
        self.size = path.stat().st_size
        self.position = 0
        with path.open("rb") as file:
            beginning = file.read(MAX_LINE_BYTES)
        if not beginning.strip():
            raise Refused(Failure("FILE_EMPTY", "{path} is empty.", {"path": str(path)}))
        self._is_xml = beginning.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")
        self._payments: Sequence[InitiatedPayment] = ()
        if self._is_xml:
            initiated = pain001.read(path.read_bytes())
            self._payments, self._message_id = initiated.payments, initiated.message_id
            self.columns: Sequence[str] = _PAIN_COLUMNS
        else:
            self._delimiter, self.columns = _read_header(path, beginning)
        self._is_refused = tuple(self.columns[: len(REASON_COLUMNS)]) == REASON_COLUMNS

    @property
    def ignored(self) -> list[str]:
        """Columns that nothing reads, but for the reasons in a file of refused lines."""
        return [name for name in self.columns if not (is_read(name) or (self._is_refused and name in REASON_COLUMNS))]

    def lines(self) -> Iterator[Line]:
        """Every line that says something."""
        if self._is_xml:
            return self._payment_lines()
        return self._csv_lines()

    def _payment_lines(self) -> Iterator[Line]:
        refs: set[str] = set()
        order_ref = _ref(self._message_id) or "pain001"
        for number, payment in enumerate(self._payments, start=1):
            ref = _ref(payment.end_to_end_id)
            if ref != payment.end_to_end_id or ref == "NOTPROVIDED" or ref in refs:
                ref = f"{ref[: _MAX_REF - 12]}_{number}"
            refs.add(ref)
            values = _payment_values(payment, order_ref, ref, number) | {"metadata.messageId": self._message_id}
            yield Line(number=number, values=[values[name] for name in _PAIN_COLUMNS])
            self.position = self.size * number // len(self._payments)

    def _csv_lines(self) -> Iterator[Line]:
        with self.path.open("rb") as file:
            physical = self._physical(file)
            next(physical)
            records = Records(self._delimiter, len(self.columns))
            number = 2
            for found in chain((records.feed(line) for line in physical), _once(records.finish)):
                for record in found:
                    if record.strip():
                        yield self._read(number, record)
                    number += 1 + record.count(b"\n")

    def _physical(self, file: BinaryIO) -> Iterator[bytes]:
        """Lines; one that is too long comes cut, its rest dropped."""
        while text := file.readline(MAX_LINE_BYTES + 2):
            self.position += len(text)
            rest = text
            while not rest.endswith(b"\n") and len(rest) > MAX_LINE_BYTES:
                rest = file.readline(MAX_LINE_BYTES + 2)
                self.position += len(rest)
            yield text.rstrip(b"\r\n")

    def _read(self, number: int, record: bytes) -> Line:
        if len(record) > MAX_LINE_BYTES:
            return _unreadable(number, record[:200], f"it has more than {MAX_LINE_BYTES} bytes")
        try:
            text = record.decode()
        except UnicodeDecodeError as error:
            return _unreadable(number, record, f"byte {error.start + 1} is not UTF-8; save the file as UTF-8")
        if "\0" in text:
            return _unreadable(number, record, "it holds a NUL character")
        try:
            values = next(csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            return _unreadable(number, record, f"a quote is not closed, or closed in the middle ({error})")
        if len(values) != len(self.columns):
            return _unreadable(number, record, f"it has {len(values)} values, the header {len(self.columns)}")
        return Line(number=number, values=[plain(value) for value in values] if self._is_refused else values)


def is_read(column: str) -> bool:
    """Whether a column of that name means something."""
    return column in _KNOWN or column.startswith(METADATA)


def _read_header(path: Path, beginning: bytes) -> tuple[str, list[str]]:
    first = beginning.splitlines()[0]
    try:
        text = first.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refused(
            Failure("FILE_NOT_UTF8", "{path} is neither UTF-8 nor XML. Save it as UTF-8.", {"path": str(path)})
        ) from None
    delimiter = max(DELIMITERS, key=text.count)
    header = [name.strip() for name in next(csv.reader([text], delimiter=delimiter), [])]
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise Refused(
            Failure(
                "CSV_COLUMN_MISSING",
                "The first line of {path} lacks the columns {missing}. It was split at {delimiter}; comma, semicolon, "
                "tab and bar are understood. Nothing was sent.",
                {
                    "path": str(path),
                    "missing": ", ".join(missing),
                    "delimiter": {"\t": "tabs"}.get(delimiter, f"“{delimiter}”"),
                },
            )
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise Refused(
            Failure(
                "CSV_COLUMN_TWICE",
                "The first line of {path} names the columns {names} twice. Nothing was sent.",
                {"path": str(path), "names": ", ".join(twice)},
            )
        )
    return delimiter, header


def _once(act: Callable[[], list[bytes]]) -> Iterator[list[bytes]]:
    """What `act` gives, when it is its turn."""
    yield act()


def _unreadable(number: int, record: bytes, problem: str) -> Line:
    return Line(number=number, values=[record.decode(errors="replace")], problem=problem)


def _ref(text: str) -> str:
    """`text` as a reference: what can't stand in one becomes a hyphen."""
    return _NOT_IN_REF.sub("-", text)[:_MAX_REF]


def _payment_values(payment: InitiatedPayment, order_ref: str, ref: str, number: int) -> dict[str, str]:
    creditor = payment.creditor
    address = creditor.address if creditor.address is not None and creditor.address.town else None
    country = creditor.address.country if creditor.address is not None else ""
    values = dict.fromkeys(_PAIN_COLUMNS, "") | {
        "orderRef": order_ref,
        "instructionRef": ref,
        "customerRef": f"{order_ref[: _MAX_REF - 12]}_{number}",
        "direction": "CREDIT",
        "amount": str(payment.money.decimal),
        "currency": payment.money.currency,
        "country": country or creditor.iban[:2],
        "settledByDate": payment.execution_on.isoformat(),
        "accountHolder": creditor.holder,
        "iban": creditor.iban,
        "bic": creditor.bic,
        "accountNumber": creditor.number if not creditor.iban else "",
        "bankCode": creditor.bank_code if not creditor.iban else "",
        "metadata.endToEndId": payment.end_to_end_id,
        "metadata.remittanceInformation": payment.remittance[:500],
    }
    if address is not None:
        values |= {
            "street": address.street,
            "building": address.building,
            "postCode": address.post_code,
            "town": address.town,
            "region": address.region,
            "addressCountry": address.country,
        }
    return values
