"""Cells that a spreadsheet would take for formulas."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strongroom.cli.cells import harmless, plain


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t'=1"),
        ("\r=1", "'\r'=1"),
        ("a;=1", "a;'=1"),
        ('a",=1', "a\",'=1"),
        ("'=1", "''=1"),
    ],
)
def test_what_begins_like_a_formula_is_written_as_text(cell: str, written: str) -> None:
    assert harmless(cell) == written


@pytest.mark.parametrize(
    "cell",
    ["-12.50", "+3", "-1,000.00", "-1,5", "DE89370400440532013000", "2026-09-14", "O'Neil", "'quoted'", "a=b", ""],
)
def test_plain_values_stay_as_they_are(cell: str) -> None:
    assert harmless(cell) == cell


@given(st.text(st.sampled_from("'=+-@\t\r\n,;|\"a1.") | st.characters(), max_size=12))
@example("\t\t=")
@example("'''-1")
def test_nothing_is_lost_and_nothing_begins_like_a_formula(cell: str) -> None:
    written = harmless(cell)
    assert plain(written) == cell
    assert written == cell or written[0] not in "=+-@\t\r\n"
