"""The table at the end: its arithmetic, and that it notices when something doesn't add up."""

from __future__ import annotations

import io
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from strongroom.cli.report import Break, Report, Sum, amount, as_data, show
from strongroom.cli.sending import Sent
from strongroom.kernel.money import Money
from strongroom.payments.standing import Standing

TODAY = date(2026, 9, 14)


def standing(status: str, minor: int, currency: str = "EUR", direction: str = "CREDIT", **more: Any) -> Standing:
    said = {
        "order_ref": "C-1",
        "ref": "1",
        "settled_by": TODAY,
        "app_id": "simulator",
        "reason": "",
        "is_matched": False,
    }
    return Standing(direction=direction, money=Money(minor, currency), status=status, **{**said, **more})


def report_on(*standings: Standing, refused: int = 2) -> Report:
    """A report on these instructions, all of them from a file that says the same."""
    sent = Sent(refused_file=Path("none"), lines=len(standings) + refused, accepted=len(standings), refused=refused)
    sent.refusals["IBAN_IS_INVALID"] = refused
    report = Report(sent=sent)
    for found in standings:
        sent.sums[found.direction, found.money.currency] += found.money.minor
        report.enter(found, due_until=TODAY)
    return report


def printed(report: Report) -> str:
    output = io.StringIO()
    show(report, Console(file=output, width=120))
    return output.getvalue()


MIXED = (
    standing("COMPLETED", 100_01, is_matched=True),
    standing("COMPLETED", 100_02),
    standing("FAILED", 30_00, reason="AC04"),
    standing("FAILED", 40_00, reason="RETURNED-AC06", is_matched=True),
    standing("UNCONFIRMED", 7_00),
    standing("PROCESSING", 5_00),
    standing("READY", 3_00, settled_by=date(2036, 1, 1)),
    standing("READY", 2_00),
    standing("INCOMPLETE", 1_00, reason="NO_ROUTE"),
    standing("CANCELLED", 9_00),
    standing("COMPLETED", 1_000, "JPY"),
    standing("COMPLETED", 12_345_67, "EUR", "DEBIT"),
)


def test_every_end_has_its_column() -> None:
    report = report_on(*MIXED)
    row = report.rows["CREDIT", "EUR"]
    assert row.instructed == Sum(10, 297_03)
    assert row.paid == Sum(2, 200_03)
    assert row.matched == Sum(1, 100_01)
    assert row.failed == Sum(2, 70_00)
    assert row.unconfirmed == Sum(1, 7_00)
    assert row.open == Sum(4, 11_00)
    assert row.cancelled == Sum(1, 9_00)
    assert row.accounted == row.instructed
    assert report.rows["CREDIT", "JPY"].paid == Sum(1, 1_000)
    assert report.rows["DEBIT", "EUR"].paid == Sum(1, 12_345_67)
    assert report.failures["AC04", "CREDIT", "EUR"] == Sum(1, 30_00)
    assert {reason for reason, _, _ in report.waiting} == {
        "the provider's answer is not known; it is being asked",
        "sent; the rail hasn't said the end",
        "not due yet",
        "due, not sent yet",
        "can't be sent as it is (NO_ROUTE)",
    }
    assert report.differences() == []


def test_amounts_are_exact() -> None:
    """Sums that binary fractions would get wrong."""
    report = report_on(*[standing("COMPLETED", 10)] * 3, standing("COMPLETED", 999_999_999_999_99))
    [row] = as_data(report)["money"]
    assert row["paid"] == {"count": 4, "amount": "1000000000000.29"}
    assert amount(999_999_999_999_99, "EUR") == "999,999,999,999.99"
    assert amount(-123_45, "EUR") == "-123.45"
    assert amount(1_000, "JPY") == "1,000"
    assert amount(1_500, "KWD") == "1.500"


def test_what_is_printed() -> None:
    report = report_on(*MIXED)
    report.breaks = [Break(minor=123_45, currency="EUR", booked_on=TODAY, reason="UNKNOWN_REFERENCE")]
    said = printed(report)
    assert "14 lines in: 12 accepted, 2 refused · 4 paid, 2 failed, 1 cancelled, 1 unconfirmed, 4 open" in said
    for text in (
        "297.03",
        "12,345.67",
        "IBAN_IS_INVALID",
        "AC04 (the account is closed)",
        "UNKNOWN_REFERENCE",
        "123.45",
    ):
        assert text in said
    assert "RETURNED-AC06 (the account is blocked)" in said
    assert "It adds up" in said
    assert "DOES NOT ADD UP" not in said


@pytest.mark.parametrize(
    ("spoil", "difference"),
    [
        (lambda report: setattr(report.sent, "lines", 15), "lines in the file: 15, accepted and refused: 14"),
        (lambda report: setattr(report.sent, "accepted", 13), "accepted lines: 13, instructions stored: 12"),
        (lambda report: report.sent.refusals.clear(), "refused lines: 2, their reasons: 0"),
        (
            lambda report: report.sent.sums.update({("CREDIT", "EUR"): 1}),
            "CREDIT EUR accepted in the file: 29,704, stored: 29,703",
        ),
        (
            lambda report: report.sent.sums.update({("DEBIT", "CHF"): 5}),
            "DEBIT CHF was accepted, and nothing is stored",
        ),
        (
            lambda report: setattr(report.rows["CREDIT", "JPY"], "paid", Sum(1, 999)),
            "CREDIT JPY stored: 1,000, what became of it: 999",
        ),
        (
            lambda report: setattr(report.rows["CREDIT", "JPY"], "paid", Sum(0, 1_000)),
            "CREDIT JPY stored: 1, what became of them: 0",
        ),
    ],
)
def test_whatever_does_not_add_up_is_said(spoil: Any, difference: str) -> None:
    report = report_on(*MIXED)
    spoil(report)
    assert difference in report.differences()
    assert f"DOES NOT ADD UP: {difference}" in printed(report)
    assert "It adds up" not in printed(report)
