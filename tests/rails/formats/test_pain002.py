from __future__ import annotations

from datetime import UTC, datetime

import pytest

from strongroom.kernel.errors import Invalid
from strongroom.rails.formats import pain002
from strongroom.rails.formats.pain002 import BatchStatus, Level, Reason, TransactionStatus
from tests.rails.formats.published import PAIN002, judge


def reason(code: str, *details: str) -> str:
    return f"<StsRsnInf><Rsn><Cd>{code}</Cd></Rsn>{''.join(f'<AddtlInf>{d}</AddtlInf>' for d in details)}</StsRsnInf>"


def transaction(end_to_end_id: str, status: str = "", more: str = "") -> str:
    said = f"<TxSts>{status}</TxSts>" if status else ""
    return f"<TxInfAndSts><OrgnlEndToEndId>{end_to_end_id}</OrgnlEndToEndId>{said}{more}</TxInfAndSts>"


def batch(identity: str, status: str = "", more: str = "") -> str:
    said = f"<PmtInfSts>{status}</PmtInfSts>" if status else ""
    return f"<OrgnlPmtInfAndSts><OrgnlPmtInfId>{identity}</OrgnlPmtInfId>{said}{more}</OrgnlPmtInfAndSts>"


def report(group: str = "", batches: str = "", *, version: int = 3) -> bytes:
    return f"""<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.002.001.{version:02}"><CstmrPmtStsRpt>
      <GrpHdr><MsgId>R-1</MsgId><CreDtTm>2026-11-22T10:00:00.5Z</CreDtTm></GrpHdr>
      <OrgnlGrpInfAndSts><OrgnlMsgId>MSG-1</OrgnlMsgId><OrgnlMsgNmId>pain.001.001.09</OrgnlMsgNmId>{group}</OrgnlGrpInfAndSts>
      {batches}</CstmrPmtStsRpt></Document>""".encode()


def status(code: str) -> str:
    return f"<GrpSts>{code}</GrpSts>"


@pytest.mark.parametrize("version", range(3, 15))
def test_all_levels_in_every_version(version: int) -> None:
    listed = transaction("E-1", "RJCT", reason("AC04", "closed", "since May")) + transaction("E-2", "ACSC")
    document = report(status("PART"), batch("B-1", "PART", listed), version=version)
    if version in PAIN002:
        judge(document, PAIN002[version])
    read = pain002.read(document)
    assert read.message_id == "R-1"
    assert read.created_at == datetime(2026, 11, 22, 10, 0, 0, 500_000, tzinfo=UTC)
    assert (read.original_message_id, read.original_message_name) == ("MSG-1", "pain.001.001.09")
    assert (read.status, read.reasons) == ("PART", ())
    assert read.batches == (
        BatchStatus(
            id="B-1",
            status="PART",
            transactions=(
                TransactionStatus(
                    end_to_end_id="E-1", status="RJCT", reasons=(Reason(code="AC04", details=("closed", "since May")),)
                ),
                TransactionStatus(end_to_end_id="E-2", status="ACSC"),
            ),
        ),
    )


def test_a_rejected_file_rejects_everything_in_it() -> None:
    read = pain002.read(report(status("RJCT") + reason("FF01", "unreadable")))
    verdicts = read.verdicts([("B-1", "E-1"), ("B-2", "E-2")])
    assert len(verdicts) == 2
    for verdict in verdicts.values():
        assert verdict.is_rejected
        assert (verdict.level, verdict.reason, verdict.detail) == (Level.GROUP, "FF01", "unreadable")


def test_a_rejected_batch_rejects_what_is_in_it_and_nothing_else() -> None:
    inside = transaction("E-1", "", reason("AM04"))
    read = pain002.read(report(status("PART"), batch("B-1", "RJCT", reason("AC02") + inside)))
    verdicts = read.verdicts([("B-1", "E-1"), ("B-1", "E-2"), ("B-2", "E-3")])
    assert verdicts.keys() == {("B-1", "E-1"), ("B-1", "E-2")}
    assert all(verdict.is_rejected and verdict.level is Level.BATCH for verdict in verdicts.values())
    assert [verdict.reason for verdict in verdicts.values()] == ["AM04", "AC02"]


def test_partial_acceptance_says_nothing_about_what_is_not_listed() -> None:
    read = pain002.read(report(status("PART"), batch("B-1", "PART", transaction("E-1", "RJCT"))))
    verdicts = read.verdicts([("B-1", "E-1"), ("B-1", "E-2")])
    assert verdicts.keys() == {("B-1", "E-1")}
    assert (verdicts["B-1", "E-1"].reason, verdicts["B-1", "E-1"].detail) == ("", "")


def test_acceptance_holds_below_and_the_particular_wins() -> None:
    read = pain002.read(report(status("ACTC"), batch("B-1", "ACCP", transaction("E-1", "ACSC"))))
    verdicts = read.verdicts([("B-1", "E-1"), ("B-1", "E-2"), ("B-2", "E-3")])
    assert [verdict.status for verdict in verdicts.values()] == ["ACSC", "ACCP", "ACTC"]
    assert not any(verdict.is_rejected for verdict in verdicts.values())


@pytest.mark.parametrize("code", ["DUPL", "AM05", "DU01"])
def test_a_duplicate_says_nothing_about_the_first_one(code: str) -> None:
    read = pain002.read(report(status("RJCT") + reason(code)))
    verdict = read.verdicts([("B-1", "E-1")])["B-1", "E-1"]
    assert verdict.is_duplicate
    assert not verdict.is_rejected


def test_proprietary_reasons() -> None:
    own = "<StsRsnInf><Rsn><Prtry>X9</Prtry></Rsn></StsRsnInf><StsRsnInf><AddtlInf>call us</AddtlInf></StsRsnInf>"
    read = pain002.read(report(status("RJCT") + own))
    assert read.reasons == (Reason(code="X9", is_proprietary=True), Reason(code="", details=("call us",)))


def test_a_batch_may_be_spoken_of_in_several_places() -> None:
    first = batch("B-1", "RJCT", reason("AC04") + transaction("E-1", "RJCT"))
    read = pain002.read(report(status("PART"), first + batch("B-2", "ACCP") + batch("B-1", "", transaction("E-2"))))
    assert [found.id for found in read.batches] == ["B-1", "B-2"]
    verdicts = read.verdicts([("B-1", "E-1"), ("B-1", "E-2"), ("B-1", "E-3"), ("B-2", "E-4")])
    assert [(verdict.status, verdict.reason) for verdict in verdicts.values()] == [
        ("RJCT", "AC04"),
        ("RJCT", "AC04"),
        ("RJCT", "AC04"),
        ("ACCP", ""),
    ]


@pytest.mark.parametrize(
    ("group", "batches"),
    [
        ("RJCT", batch("B-1", "ACCP")),
        ("RJCT", batch("B-1", "", transaction("E-1", "ACSC"))),
        ("PART", batch("B-1", "RJCT", transaction("E-1", "ACSC"))),
        ("PART", batch("B-1", "PART", transaction("E-1", "RJCT") + transaction("E-1", "ACSC"))),
        ("PART", batch("B-1", "", transaction("E-1", "ACSC")) + batch("B-1", "", transaction("E-1", "RJCT"))),
        ("PART", batch("B-1", "", transaction("E-1", "ACSC")) + batch("B-1", "RJCT")),
        ("PART", batch("B-1", "RJCT") + batch("B-1", "ACCP")),
    ],
)
def test_reports_that_contradict_themselves_are_not_believed(group: str, batches: str) -> None:
    with pytest.raises(Invalid) as caught:
        pain002.read(report(status(group), batches))
    assert caught.value.code == "STATUS_REPORT_CONTRADICTORY"


@pytest.mark.parametrize(
    "document",
    [
        report(),
        report(batches=batch("B-1", "", transaction("E-1"))),
        report(status("rejected")),
        report(status("RJCT")).replace(b"<OrgnlMsgId>MSG-1</OrgnlMsgId>", b""),
        report(status("PART"), batch("B-1", "PART", "<TxInfAndSts><TxSts>RJCT</TxSts></TxInfAndSts>")),
        report(status("RJCT") + "<StsRsnInf><Rsn/></StsRsnInf>"),
        report(status("ACCP")).replace(b"2026-11-22T10", b"2026-11-22 10"),
        report(status("ACCP")).replace(b"CstmrPmtStsRpt", b"FIToFIPmtStsRpt"),
        b"",
        b"RJCT",
    ],
)
def test_malformed_reports(document: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        pain002.read(document)
    assert caught.value.code == "STATUS_REPORT_MALFORMED"


def test_other_versions_and_messages() -> None:
    for document in (report(status("ACCP"), version=2), report(status("ACCP")).replace(b"pain.002", b"pacs.002")):
        with pytest.raises(Invalid) as caught:
            pain002.read(document)
        assert caught.value.code == "STATUS_REPORT_VERSION_NOT_SUPPORTED"
        assert "pain.002.001.03 to .14" in str(caught.value)
