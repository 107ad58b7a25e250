"""Sending a payments file through `bulk`: part by part, each line with its verdict.

A part is sent under a key made from its content, so that a file that is sent again (after a crash, or by mistake) is
answered with the verdicts of the first time, and nothing is made twice. Refused lines go into a file of their own, as
they stood (but for what a spreadsheet would take for formulas, see `cells`), with the reasons beside them. Mended, that
file can be sent like any other.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from strongroom.cli.cells import harmless
from strongroom.cli.client import Client
from strongroom.cli.payment_file import REASON_COLUMNS, Line, PaymentFile, is_read
from strongroom.kernel.errors import Broken, Failure
from strongroom.kernel.money import Money

PART_LINES: Final = 2_000
PART_BYTES: Final = 1024 * 1024
"""A part is sent when it has so many lines or bytes."""
UNREADABLE: Final = "CSV_LINE_INVALID"
"""The code of lines that can't be read, which are therefore not sent."""
SCHEME: Final = "schemeId"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schemes:
    """Which scheme carries each direction, for files that don't say so."""

    collect: str
    payout: str

    def of(self, direction: str) -> str:
        """The direction's scheme; none for what is no direction, which the API will say."""
        return {"DEBIT": self.collect, "CREDIT": self.payout}.get(direction, "")


@dataclass(slots=True, kw_only=True)
class Sent:
    """What was sent, and what the API said about it. `refusals` counts lines by the first reason given.

    `sums` are minor units by direction and currency of the lines that were accepted, as the file has them.
    """

    refused_file: Path
    lines: int = 0
    accepted: int = 0
    refused: int = 0
    jobs: list[str] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    sums: Counter[tuple[str, str]] = field(default_factory=Counter)


async def send(
    client: Client,
    file: PaymentFile,
    schemes: Schemes,
    refused_file: Path,
    progress: Callable[[Sent], None] = lambda _: None,
) -> Sent:
    """Send every line; a file without a `schemeId` column gets one by direction.

    Raises as `Client.upload` does, and errors.Broken (`BULK_INCOMPLETE`) when the API answers other lines than were
    sent.
    """
    sent = Sent(refused_file=refused_file)
    with refused_file.open("w", encoding="utf-8", newline="") as output:
        book = _Book(sent, file.columns, output)
        for lines in _parts(file.lines()):
            readable = [line for line in lines if not line.problem]
            verdicts = (
                await _ask(client, _csv(file.columns, schemes, readable), len(readable), sent) if readable else []
            )
            book.enter(lines, verdicts)
            progress(sent)
    return sent


def _parts(lines: Iterator[Line]) -> Iterator[Sequence[Line]]:
    part: list[Line] = []
    size = 0
    for line in lines:
        part.append(line)
        size += sum(map(len, line.values))
        if len(part) == PART_LINES or size >= PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


async def _ask(client: Client, content: bytes, count: int, sent: Sent) -> Sequence[Mapping[str, Any]]:
    """The API's verdicts on a part of `count` lines, in their order."""
    job = await client.upload(content, media="text/csv", idempotency_key=hashlib.sha256(content).hexdigest())
    verdicts = [verdict async for verdict in client.results(job.job_id)]
    if [verdict["line"] for verdict in verdicts] != list(range(2, count + 2)):
        raise Broken(
            Failure(
                "BULK_INCOMPLETE",
                "{sent} lines were sent as job {jobId}, and {answered} answered.",
                {"sent": count, "jobId": job.job_id, "answered": len(verdicts)},
            )
        )
    sent.jobs.append(job.job_id)
    sent.accepted += job.accepted
    sent.refused += job.refused
    return verdicts


class _Book:
    """Keeps count of the verdicts, and writes refused lines down."""

    def __init__(self, sent: Sent, columns: Sequence[str], output: IO[str]) -> None:
        self._sent = sent
        self._columns = columns
        self._refused = csv.writer(output, lineterminator="\n")
        # Not the reasons of an earlier try.
        self._kept = [place for place, name in enumerate(columns) if name not in REASON_COLUMNS]
        self._refused.writerow([*REASON_COLUMNS, *(harmless(columns[place]) for place in self._kept)])

    def enter(self, lines: Sequence[Line], verdicts: Sequence[Mapping[str, Any]]) -> None:
        """Enter a part: all its lines, and the verdicts on those that could be read."""
        answers = iter(verdicts)
        self._sent.lines += len(lines)
        for line in lines:
            if line.problem:
                self._sent.refused += 1
                self._refuse(line, [UNREADABLE], [line.problem])
                continue
            verdict = next(answers)
            if verdict["status"] == "ACCEPTED":
                values = dict(zip(self._columns, line.values, strict=True))
                money = Money.parse(values["amount"], values["currency"])
                self._sent.sums[values["direction"], money.currency] += money.minor
            else:
                errors = verdict["errors"]
                codes = [error["errorCode"] for error in errors]
                self._refuse(line, codes, [error["message"] for error in errors])

    def _refuse(self, line: Line, codes: Sequence[str], reasons: Sequence[str]) -> None:
        self._sent.refusals[codes[0]] += 1
        values = line.values if line.problem else [line.values[place] for place in self._kept]
        told = [str(line.number), " ".join(dict.fromkeys(codes)), " ".join(reasons), *values]
        self._refused.writerow([harmless(cell) for cell in told])


def _csv(columns: Sequence[str], schemes: Schemes, lines: Sequence[Line]) -> bytes:
    """The part as CSV, with the header: what is read of each line, and a scheme unless the file names its own."""
    places = [place for place, name in enumerate(columns) if is_read(name)]
    header = [columns[place] for place in places]
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    if SCHEME in columns:
        rows.writerow(header)
        rows.writerows([line.values[place] for place in places] for line in lines)
    else:
        direction = columns.index("direction")
        rows.writerow([*header, SCHEME])
        rows.writerows(
            [*(line.values[place] for place in places), schemes.of(line.values[direction])] for line in lines
        )
    return text.getvalue().encode()
