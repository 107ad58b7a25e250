"""Payments files of one's own: what is wrong with the whole file, and what is wrong with one line of it."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from strongroom.api import bulk
from strongroom.api.bulk import MAX_LINE_BYTES
from strongroom.cli.payment_file import Line, PaymentFile
from strongroom.kernel.errors import Invalid, Refused

HEADER = "orderRef,instructionRef,customerRef,direction,amount,currency,country,settledByDate"
GOOD = "C-1,C-1-1,K-1,CREDIT,12.50,EUR,DE,2026-09-14"
PAIN = """<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.001.001.03"><CstmrCdtTrfInitn>
<GrpHdr><MsgId>CLAIMS/7</MsgId><CreDtTm>2026-09-14T08:00:00</CreDtTm><NbOfTxs>{count}</NbOfTxs>
<InitgPty><Nm>Insurer</Nm></InitgPty></GrpHdr>
<PmtInf><PmtInfId>P1</PmtInfId><PmtMtd>TRF</PmtMtd><ReqdExctnDt>2026-09-14</ReqdExctnDt>
<Dbtr><Nm>Insurer</Nm></Dbtr><DbtrAcct><Id><IBAN>DE02120300000000202051</IBAN></Id></DbtrAcct>
<DbtrAgt><FinInstnId><BIC>BYLADEM1001</BIC></FinInstnId></DbtrAgt>{payments}</PmtInf></CstmrCdtTrfInitn></Document>"""
PAYMENT = """<CdtTrfTxInf><PmtId><EndToEndId>{ref}</EndToEndId></PmtId>
<Amt><InstdAmt Ccy="EUR">120.05</InstdAmt></Amt><Cdtr><Nm>Käthe Müßig</Nm>{address}</Cdtr>
<CdtrAcct><Id><IBAN>DE89370400440532013000</IBAN></Id></CdtrAcct>
<RmtInf><Ustrd>Claim 7</Ustrd></RmtInf></CdtTrfTxInf>"""


def file_of(folder: Path, content: str | bytes, name: str = "claims.csv") -> PaymentFile:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return PaymentFile(path)


def lines_of(folder: Path, *lines: str | bytes, header: str = HEADER) -> list[Line]:
    """What is read of a file with these lines below the header."""
    content = b"\n".join([header.encode(), *(line.encode() if isinstance(line, str) else line for line in lines)])
    return list(file_of(folder, content).lines())


def refused(folder: Path, content: str | bytes) -> str:
    """The error that a file as a whole is refused with: its code and message."""
    with pytest.raises(Refused) as caught:
        file_of(folder, content)
    return f"{caught.value.code}: {caught.value}"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_byte_order_marks_and_line_ends(tmp_path: Path, delimiter: str, mark: bytes, end: str) -> None:
    content = end.join([HEADER, GOOD, ""]).replace(",", delimiter).encode()
    file = file_of(tmp_path, mark + content)
    assert list(file.columns) == HEADER.split(",")
    [line] = file.lines()
    assert (line.number, list(line.values), line.problem) == (2, GOOD.split(","), "")
    assert file.position == file.size == len(mark + content)


def test_a_missing_column_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    said = refused(tmp_path, HEADER.replace("amount,", "").replace("country,", "") + "\n")
    assert "CSV_COLUMN_MISSING" in said
    assert "lacks the columns amount, country" in said
    assert "Nothing was sent" in said


def test_a_delimiter_that_is_not_understood(tmp_path: Path) -> None:
    said = refused(tmp_path, HEADER.replace(",", "#") + "\n")
    assert "CSV_COLUMN_MISSING" in said
    assert "comma, semicolon, tab and bar are understood" in said


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "FILE_EMPTY"),
        ("\n \n", "FILE_EMPTY"),
        (HEADER.replace("country", "amount") + ",country\n", "CSV_COLUMN_TWICE"),
        ("Auftrag;Empfänger\n".encode("latin-1"), "FILE_NOT_UTF8"),
        (HEADER.encode("utf-16"), "FILE_NOT_UTF8"),
        ("<html></html>", "PAYMENT_FILE"),
        (PAIN.format(count=2, payments=PAYMENT.format(ref="A", address="")), "PAYMENT_FILE_COUNT_WRONG"),
    ],
)
def test_files_that_are_refused_as_a_whole(tmp_path: Path, content: str | bytes, code: str) -> None:
    assert code in refused(tmp_path, content)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="There is no file"):
        PaymentFile(tmp_path / "none.csv")


def test_columns_that_nothing_reads_are_named(tmp_path: Path) -> None:
    file = file_of(tmp_path, f"{HEADER},metadata.claim,iban,colour\n")
    assert file.ignored == ["colour"]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (GOOD.rpartition(",")[0], "it has 7 values, the header 8"),
        (GOOD + ",more", "it has 9 values, the header 8"),
        ('"C-1,C-1-1', "a quote is not closed"),
        ('"C-1"x,C-1-1,K-1,CREDIT,12.50,EUR,DE,2026-09-14', "a quote is not closed, or closed in the middle"),
        ("Müller,,,,,,,".encode("latin-1"), "byte 2 is not UTF-8; save the file as UTF-8"),
        (b"\0,,,,,,,", "NUL"),
        ("x" * (MAX_LINE_BYTES + 1), f"more than {MAX_LINE_BYTES} bytes"),
        ('"' + "x" * (3 * MAX_LINE_BYTES), f"more than {MAX_LINE_BYTES} bytes"),
    ],
)
@pytest.mark.parametrize("before", [0, 40])
def test_one_bad_line_concerns_itself_alone(tmp_path: Path, bad: str | bytes, problem: str, before: int) -> None:
    good = [GOOD.replace("C-1-1", f"C-1-{number}") for number in range(before + 40)]
    read = lines_of(tmp_path, *good[:before], bad, *good[before:])
    assert [line.number for line in read] == list(range(2, len(good) + 3))
    faulty = read.pop(before)
    assert problem in faulty.problem
    assert [",".join(line.values) for line in read] == good
    assert not any(line.problem for line in read)


def test_an_open_quote_does_not_swallow_what_is_quoted_further_down(tmp_path: Path) -> None:
    quoted = GOOD.replace("K-1", '"K, 1"')
    read = lines_of(tmp_path, GOOD, '"' + GOOD, quoted, quoted, GOOD)
    assert [bool(line.problem) for line in read] == [False, True, False, False, False]
    assert read[2].values[2] == "K, 1"


def test_open_quotes_on_every_line_are_looked_at_a_few_times_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    is_open = bulk._is_open

    def count(record: bytes, delimiter: bytes) -> bool:
        nonlocal looked
        looked += len(record)
        return is_open(record, delimiter)

    monkeypatch.setattr(bulk, "_is_open", count)
    read = lines_of(tmp_path, *['"' + GOOD] * 1_000)
    assert (len(read), {bool(line.problem) for line in read}) == (1_000, {True})
    assert [line.number for line in read] == list(range(2, 1_002))
    assert looked < 4 * 1_000 * len(GOOD)


def test_a_quote_inside_a_value_is_a_character(tmp_path: Path) -> None:
    [first, second] = lines_of(tmp_path, GOOD.replace("K-1", '5"'), GOOD)
    assert (first.values[2], first.problem, second.problem) == ('5"', "", "")


def test_a_quoted_value_may_go_over_lines_and_hold_quotes_and_delimiters(tmp_path: Path) -> None:
    told = GOOD.replace("K-1", '"one ""two"",\nthree"')
    [first, second] = lines_of(tmp_path, told, GOOD)
    assert first.values[2] == 'one "two",\nthree'
    assert (first.number, second.number) == (2, 4)


def test_blank_lines_say_nothing(tmp_path: Path) -> None:
    assert [line.number for line in lines_of(tmp_path, "", GOOD, "  ", "", GOOD, "")] == [3, 6]


def test_a_truncated_file_loses_its_last_line_only(tmp_path: Path) -> None:
    content = "\n".join([HEADER, *[GOOD] * 20]).encode()
    read = list(file_of(tmp_path, content[:-15]).lines())
    assert len(read) == 20
    assert [line.number for line in read if line.problem] == [21]


def test_pain001_becomes_lines(tmp_path: Path) -> None:
    address = "<PstlAdr><StrtNm>Gänsemarkt</StrtNm><TwnNm>Hamburg</TwnNm><Ctry>DE</Ctry></PstlAdr>"
    refs = ["CL-7", "CL-7", "NOTPROVIDED", "A/B"]
    payments = "".join(PAYMENT.format(ref=ref, address=address if ref == "CL-7" else "") for ref in refs)
    file = file_of(tmp_path, PAIN.format(count=4, payments=payments), "payments.xml")
    rows = [dict(zip(file.columns, line.values, strict=True)) for line in file.lines()]
    assert [row["instructionRef"] for row in rows] == ["CL-7", "CL-7_2", "NOTPROVIDED_3", "A-B_4"]
    assert {row["orderRef"] for row in rows} == {"CLAIMS-7"}
    first = rows[0]
    assert (first["direction"], first["amount"], first["currency"], first["country"]) == (
        "CREDIT",
        "120.05",
        "EUR",
        "DE",
    )
    assert (first["accountHolder"], first["iban"]) == ("Käthe Müßig", "DE89370400440532013000")
    assert (first["street"], first["town"], rows[2]["town"]) == ("Gänsemarkt", "Hamburg", "")
    assert (first["settledByDate"], first["metadata.endToEndId"]) == ("2026-09-14", "CL-7")
    assert (first["metadata.messageId"], first["metadata.remittanceInformation"]) == ("CLAIMS/7", "Claim 7")
    assert file.position == file.size
    assert not file.ignored


def test_a_pain001_with_entities_is_not_read(tmp_path: Path) -> None:
    attack = '<!DOCTYPE d [<!ENTITY a "x">]>' + PAIN.format(count=1, payments=PAYMENT.format(ref="&a;", address=""))
    with pytest.raises(Invalid):
        file_of(tmp_path, attack.replace('<?xml version="1.0" encoding="UTF-8"?>', ""), "payments.xml")


def test_the_example_is_what_its_script_makes() -> None:
    """A thousand lines, and the same ones from the same script; more of them begin with the same."""
    examples = Path(__file__).parents[2] / "examples"
    script = [sys.executable, str(examples / "make_claims.py")]
    example = (examples / "claims.csv").read_bytes()
    assert subprocess.run(script, capture_output=True, check=True).stdout == example
    assert subprocess.run([*script, "--lines", "10"], capture_output=True, check=True).stdout == b"".join(
        example.splitlines(keepends=True)[:11]
    )
    assert len(list(csv.reader(example.decode().splitlines()))) == 1001
