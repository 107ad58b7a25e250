from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from strongroom.kernel.money import Money
from strongroom.rails.bank.simulator import Behaviour, answer_outbox
from strongroom.rails.formats import camt, pain001, pain002
from strongroom.rails.formats.camt import Statement
from tests.rails.formats.samples import NOW, file_of, payment, to


class Exchange:
    """An outbox, an inbox and a bank between them."""

    def __init__(self, root: Path) -> None:
        self.outbox, self.inbox, self.books = root / "outbox", root / "inbox", root / "bank"
        self.outbox.mkdir()

    def send(self, name: str, document: bytes) -> None:
        (self.outbox / name).write_bytes(document)

    def run(self, behaviour: Behaviour | None = None) -> list[str]:
        dropped = answer_outbox(
            self.outbox, self.inbox, books_dir=self.books, at=NOW, behaviour=behaviour or Behaviour()
        )
        assert all(path.parent == self.inbox and path.is_file() for path in dropped)
        return [path.name.split(".", 2)[0] + "." + path.name.split(".", 2)[2] for path in dropped]

    def statements(self) -> list[Statement]:
        found = [read for path in self.inbox.glob("*.camt053.xml") for read in camt.read_statements(path.read_bytes())]
        return sorted(found, key=lambda read: read.sequence or 0)


@pytest.fixture
def exchange(tmp_path: Path) -> Exchange:
    return Exchange(tmp_path)


def test_answers_are_dropped_once(exchange: Exchange) -> None:
    exchange.send("one.xml", pain001.write(file_of(payment(1))))
    everything = Behaviour(notification=True, statement_twice=True)
    assert exchange.run(everything) == [
        "one.pain002.xml",
        "one.camt053.xml",
        "one.camt053-again.xml",
        "one.camt054.xml",
    ]
    assert exchange.run(everything) == []
    assert (exchange.outbox / "one.xml").exists()
    assert not [path for path in exchange.inbox.iterdir() if path.name.startswith(".")]


def test_books_carry_on_from_run_to_run(exchange: Exchange) -> None:
    exchange.send("one.xml", pain001.write(file_of(payment(1), message_id="M1")))
    exchange.run()
    exchange.send("two.xml", pain001.write(file_of(payment(2), message_id="M2")))
    exchange.run()
    first, second = exchange.statements()
    assert (first.sequence, second.sequence) == (1, 2)
    assert first.closing.money == second.opening.money


def test_a_file_that_is_delivered_again_is_booked_once(exchange: Exchange) -> None:
    document = pain001.write(file_of(payment(1)))
    exchange.send("one.xml", document)
    exchange.run()
    os.utime(exchange.outbox / "one.xml", (1, 1))
    assert exchange.run() == []
    exchange.send("copy.xml", document)
    assert exchange.run() == ["copy.pain002.xml"]
    (path,) = exchange.inbox.glob("copy.*.pain002.xml")
    assert pain002.read(path.read_bytes()).reasons[0].code == "DUPL"
    assert len(exchange.statements()) == 1


def test_another_file_under_a_known_name_is_answered(exchange: Exchange) -> None:
    exchange.send("one.xml", pain001.write(file_of(payment(1), message_id="M1")))
    exchange.run()
    exchange.send("one.xml", pain001.write(file_of(payment(2), message_id="M2")))
    assert exchange.run() == ["one.pain002.xml", "one.camt053.xml"]
    assert len(exchange.statements()) == 2


def test_files_still_being_written_are_left_alone(exchange: Exchange) -> None:
    exchange.send(".one.xml", b"<Docu")
    exchange.send("one.xml.tmp", b"<Docu")
    assert exchange.run() == []


def test_a_file_that_is_no_payment_file_is_answered(exchange: Exchange) -> None:
    exchange.send("one.xml", b"hello")
    assert exchange.run() == ["one.pain002.xml"]
    (path,) = exchange.inbox.iterdir()
    report = pain002.read(path.read_bytes())
    assert (report.original_message_id, report.reasons[0].code) == ("NOTPROVIDED", "FF01")


def test_answers_that_could_not_be_dropped_are_dropped_later(exchange: Exchange) -> None:
    document = pain001.write(file_of(payment(1)))
    exchange.send("one.xml", document)
    in_the_way = exchange.inbox / f"one.{hashlib.sha256(document).hexdigest()[:8]}.camt053.xml"
    in_the_way.mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        exchange.run()
    in_the_way.rmdir()
    exchange.send("two.xml", pain001.write(file_of(payment(2), message_id="M2")))
    assert exchange.run() == ["one.camt053.xml", "two.pain002.xml", "two.camt053.xml"]
    assert [read.sequence for read in exchange.statements()] == [1, 2]


def test_a_run_that_fails_leaves_nothing_half_done(exchange: Exchange) -> None:
    exchange.send("one.xml", pain001.write(file_of(payment(1))))
    beyond_the_books = Behaviour(opening_balance=Money(2**64, "EUR"))
    with pytest.raises(OverflowError):
        exchange.run(beyond_the_books)
    assert list(exchange.inbox.iterdir()) == []
    assert exchange.run() == ["one.pain002.xml", "one.camt053.xml"]
    assert exchange.statements()[0].entries[0].money == payment(1).money


RUN = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from strongroom.rails.bank.simulator import Behaviour, answer_outbox
root = Path(sys.argv[1])
print("ready", flush=True)
at = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
answer_outbox(root / "outbox", root / "inbox", books_dir=root / "bank", at=at, behaviour=Behaviour())
"""


def test_a_killed_bank_books_everything_once(exchange: Exchange, tmp_path: Path) -> None:
    for number in range(12):
        orders = (to("Ada", 100 * number + order, cents=1) for order in range(60))
        exchange.send(f"{number:02}.xml", pain001.write(file_of(*orders, message_id=f"M{number}")))
    for pause_s in (0.02, 0.08, 0.16, 0.3):
        with subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE) as bank:
            assert bank.stdout is not None
            assert bank.stdout.readline() == b"ready\n"
            time.sleep(pause_s)
            bank.send_signal(signal.SIGKILL)
    exchange.run()
    read = exchange.statements()
    assert [found.sequence for found in read] == list(range(1, 13))
    assert read[0].opening.money.minor - read[-1].closing.money.minor == 12 * 60
    booked = [detail.end_to_end_id for found in read for entry in found.entries for detail in entry.details]
    assert len(booked) == len(set(booked)) == 12 * 60
    reports = [pain002.read(path.read_bytes()) for path in exchange.inbox.glob("*.pain002.xml")]
    assert {report.status for report in reports} == {"ACCP"}
    assert len(reports) == 12
