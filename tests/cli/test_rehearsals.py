"""`strongroom demo` and `strongroom run`, from a file to the reconciled statement: real processes, TLS, both rails."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest

from strongroom.kernel.money import EXPONENTS
from strongroom.rails.formats import pain001
from tests.fixtures.commands import run_command
from tests.fixtures.platform import public_folder

EXAMPLE = Path(__file__).parents[2] / "examples" / "claims.csv"
SLOW = ("SIM:TIMEOUT", "SIM:SLOW")
REFUSED_BY_PROVIDER = ("SIM:REFUSE", "SIM:PENDING-FAIL")
Row = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What should become of an extract, worked out from its own words."""

    accepted: list[Row]
    refused: int

    def end_of(self, row: Row) -> str:
        """paid, failed or open."""
        by_file = row["direction"] == "CREDIT" and row["currency"] == "EUR"
        last_word = row["accountHolder"].split()[-1]
        if row["settledByDate"] > "2036":
            return "open"
        if by_file:
            return "open" if last_word == "SILENT" else "failed" if last_word.startswith(("RJCT-", "RTRN-")) else "paid"
        words = row["metadata.remittanceInformation"]
        return "failed" if any(word in words for word in REFUSED_BY_PROVIDER) else "paid"

    def money(self) -> dict[tuple[str, str], dict[str, tuple[int, Decimal]]]:
        """Count and sum by direction and currency, and by end."""
        found: dict[tuple[str, str], dict[str, tuple[int, Decimal]]] = {}
        for row in self.accepted:
            cell = found.setdefault((row["direction"], row["currency"]), {})
            for name in ("instructed", self.end_of(row)):
                count, total = cell.get(name, (0, Decimal(0)))
                cell[name] = (count + 1, total + Decimal(row["amount"]))
        return found


def extract(to: Path) -> Expected:
    """Sixty lines of the example: every kind of trouble but the slow ones, wrong lines, and ordinary ones."""
    with EXAMPLE.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    named = [dict(zip(header, row, strict=False)) for row in rows]
    seen: set[tuple[str, str]] = set()
    good: list[Row] = []
    wrong: list[Sequence[str]] = []
    chosen: list[Sequence[str]] = []
    for row, values in zip(named, rows, strict=True):
        is_wrong = _is_wrong(row, values, header, seen)
        seen.add((row["orderRef"], row["instructionRef"]))
        if is_wrong:
            wrong.append(values)
        elif not any(word in row["metadata.remittanceInformation"] for word in SLOW):
            good.append(row)
    special = [row for row in good if Expected(accepted=[], refused=0).end_of(row) != "paid"][:24]
    special += [row for row in good if "SIM:" in row["metadata.remittanceInformation"] and row not in special][:12]
    ordinary = [row for row in good if row not in special][: 60 - 10 - len(special)]
    chosen += [[row[name] for name in header] for row in (*special, *ordinary)]
    picked = [values for values in wrong if len(values) != len(header)] + [v for v in wrong if len(v) == len(header)][
        :8
    ]
    for place, values in enumerate(picked):
        chosen.insert(place * 5, values)
    with to.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *chosen])
    return Expected(accepted=[*special, *ordinary], refused=len(picked))


def _is_wrong(row: Row, values: Sequence[str], header: Sequence[str], seen: set[tuple[str, str]]) -> bool:
    """Whether a line of the example is wrong in a way that can be seen from outside."""
    if len(values) != len(header) or (row["orderRef"], row["instructionRef"]) in seen:
        return True
    amount = row["amount"].partition(".")
    plain = amount[0].isdigit() and (not amount[1] or amount[2].isdigit()) and len(amount[0]) <= 12
    decimals = EXPONENTS.get(row["currency"], -1)
    return not (
        row["orderRef"] and row["instructionRef"] == row["orderRef"] + row["instructionRef"][len(row["orderRef"]) :]
        and len(row["instructionRef"]) <= 50 and row["customerRef"].startswith("K-")
        and row["direction"] in {"CREDIT", "DEBIT"} and decimals >= 0 and len(row["country"]) == 2
        and row["country"] != "ZZ" and plain and len(amount[2]) <= decimals and Decimal(row["amount"]) > 0
        and row["settledByDate"][:2] == "20" and row["settledByDate"] != "2026-02-30" and row["accountHolder"]
        and row["town"] and len(row["metadata.handler"]) <= 500 and not row["bic"]
        and bool(row["iban"]) != bool(row["accountNumber"]) and bool(row["bankCode"]) == bool(row["accountNumber"])
        and (not row["iban"] or _check_digits_are_right(row["iban"]))
    )  # fmt: skip


def _check_digits_are_right(iban: str) -> bool:
    digits = "".join(str(int(character, 36)) for character in iban[4:] + iban[:4])
    return int(digits) % 97 == 1 and len(iban) in {15, 16, 18, 20, 21, 22, 24, 25, 27}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with public_folder() as made:
        yield made


@dataclass(frozen=True, kw_only=True)
class Done:
    """A rehearsal that came to its end."""

    figures: dict[str, Any]
    data_dir: Path
    expected: Expected


@pytest.fixture(scope="module")
def demo(folder: Path) -> Done:
    """The demo on an extract."""
    expected = extract(folder / "extract.csv")
    data_dir = folder / "demo"
    return Done(
        figures=_figures("demo", "--no-prove", "--file", folder / "extract.csv", data_dir),
        data_dir=data_dir,
        expected=expected,
    )


def _figures(command: str, *arguments: str | Path) -> dict[str, Any]:
    *options, data_dir = arguments
    done = run_command(command, *map(str, options), "--data-dir", str(data_dir), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _rows(figures: dict[str, Any], end: str) -> dict[tuple[str, str], tuple[int, Decimal]]:
    return {
        (row["direction"], row["currency"]): (row[end]["count"], Decimal(row[end]["amount"]))
        for row in figures["money"]
        if row[end]["count"]
    }


def test_every_line_is_accounted_for(demo: Done) -> None:
    figures, expected = demo.figures, demo.expected
    assert figures["lines"] == 60
    assert (figures["accepted"], figures["refused"]) == (len(expected.accepted), expected.refused)
    assert sum(figures["refusals"].values()) == expected.refused >= 8
    assert figures["differences"] == []


@pytest.mark.parametrize("end", ["instructed", "paid", "failed", "open"])
def test_sums_are_those_of_the_file_to_the_cent(demo: Done, end: str) -> None:
    wanted = {key: cell[end] for key, cell in demo.expected.money().items() if end in cell}
    assert _rows(demo.figures, end) == wanted
    assert wanted


def test_nothing_stays_unconfirmed_and_no_one_is_paid_without_the_statement_saying_so(demo: Done) -> None:
    assert _rows(demo.figures, "unconfirmed") == {}
    assert _rows(demo.figures, "matched") == {
        key: value for key, value in _rows(demo.figures, "paid").items() if key == ("CREDIT", "EUR")
    }


def test_the_bank_s_stranger_is_a_break(demo: Done) -> None:
    [found] = demo.figures["breaks"]
    assert (found["amount"], found["currency"], found["reason"]) == ("123.45", "EUR", "UNKNOWN_REFERENCE")


def test_reasons_are_the_rails_own(demo: Done) -> None:
    reasons = {row["reason"] for row in demo.figures["failures"]}
    asked = {row["accountHolder"].split()[-1] for row in demo.expected.accepted}
    assert {word.removeprefix("RJCT-") for word in asked if word.startswith("RJCT-")} <= reasons
    assert {word.replace("RTRN-", "RETURNED-") for word in asked if word.startswith("RTRN-")} <= reasons


def test_files_are_where_it_says(demo: Done) -> None:
    places = demo.figures["places"]
    files = list(Path(places["Payment files (pain.001)"]).glob("*.xml"))
    paid = [payment for file in files for payment in pain001.read(file.read_bytes()).payments]
    by_file = [row for row in demo.expected.accepted if row["direction"] == "CREDIT" and row["currency"] == "EUR"]
    due = [row for row in by_file if row["settledByDate"] < "2036"]
    assert sorted(str(payment.money.decimal) for payment in paid) == sorted(row["amount"] for row in due)
    answers = list(Path(places["The bank's answers (pain.002, camt.053)"]).glob("*.xml"))
    assert len(answers) == 2 * len(files)
    refused = Path(places["Refused lines, with reasons"])
    assert refused.stat().st_mode & 0o777 == 0o600
    with refused.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == demo.expected.refused
    assert Path(places["CA file"]).is_file()
    assert Path(places["A key to sign in with (0600)"]).stat().st_mode & 0o777 == 0o600


def test_nothing_is_left_running(demo: Done) -> None:
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if any(str(demo.data_dir) in part for part in process.info["cmdline"] or ())
    ]
    assert left == []


def test_going_on_with_the_same_file_pays_nothing_again(demo: Done, folder: Path) -> None:
    again = _figures("demo", "--no-prove", "--keep", "--file", folder / "extract.csv", demo.data_dir)
    for end in ("instructed", "paid", "failed", "open", "matched"):
        assert _rows(again, end) == _rows(demo.figures, end)
    files = Path(demo.figures["places"]["Payment files (pain.001)"])
    assert again["places"]["Payment files (pain.001)"] == str(files)
    due = [p for file in files.glob("*.xml") for p in pain001.read(file.read_bytes()).payments]
    assert len(due) == len({payment.end_to_end_id for payment in due})


def test_a_folder_that_no_demo_made_is_left_alone(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "precious").write_text("mine")
    done = run_command("demo", "--data-dir", str(other))
    assert done.returncode == 1
    assert "NOT_A_DEMO" in done.stderr
    assert (other / "precious").read_text() == "mine"


def test_running_one_s_own_pain001(demo: Done, folder: Path) -> None:
    """A payment file of another system: here, one that the demo has written."""
    [first, *_] = sorted(Path(demo.figures["places"]["Payment files (pain.001)"]).glob("*.xml"))
    own = folder / "own.xml"
    shutil.copy(first, own)
    wanted = pain001.read(own.read_bytes()).payments
    figures = _figures("run", own, folder / "run")
    assert (figures["lines"], figures["accepted"], figures["refused"]) == (len(wanted), len(wanted), 0)
    total = sum((payment.money.decimal for payment in wanted), Decimal(0))
    assert _rows(figures, "instructed") == {("CREDIT", "EUR"): (len(wanted), total)}
    assert figures["breaks"] == []
    assert not own.with_name("own-refused.csv").exists()


def test_a_file_that_is_wrong_as_a_whole_starts_nothing(folder: Path) -> None:
    path = folder / "wrong.csv"
    path.write_text("orderRef;amount\nC-1;10.00\n")
    done = run_command("run", str(path), "--data-dir", str(folder / "never"))
    assert done.returncode == 1
    assert "CSV_COLUMN_MISSING" in done.stderr
    assert not (folder / "never").exists()


@pytest.mark.soak
def test_the_whole_demo_as_a_newcomer_runs_it(folder: Path) -> None:
    figures = _figures("demo", folder / "whole")
    assert (figures["lines"], figures["accepted"], figures["refused"]) == (1000, 957, 43)
    assert _rows(figures, "unconfirmed") == {}
    verdicts = [promise["verdict"] for promise in figures["promises"]]
    assert len(verdicts) == 50
    assert "red" not in verdicts
    assert "green" in verdicts


def test_refused_lines_never_take_the_place_of_the_file(folder: Path) -> None:
    path = folder / "claims.csv"
    shutil.copy(EXAMPLE, path)
    done = run_command("run", str(path), "--refused", str(path), "--data-dir", str(folder / "never"))
    assert done.returncode == 1
    assert "FILE_NOT_WRITABLE" in done.stderr
    assert path.read_bytes() == EXAMPLE.read_bytes()
    done = run_command("run", str(path), "--refused", str(folder / "no" / "r.csv"), "--data-dir", str(folder / "never"))
    assert "FILE_NOT_WRITABLE: Refused lines can't be written" in done.stderr
    assert not (folder / "never").exists()
