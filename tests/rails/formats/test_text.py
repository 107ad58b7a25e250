from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.rails.formats.text import (
    SEPA_CHARACTERS,
    is_reference,
    is_sepa,
    line,
    reference,
    says_something,
    to_sepa,
    to_xml,
)


def test_the_set_has_the_75_characters_of_the_guidelines() -> None:
    assert len(SEPA_CHARACTERS) == 26 + 26 + 10 + len("/-?:().,'+ ")


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("Jürgen Groß", "Juergen Gross"),
        ("ÄÖÜ ẞ", "AeOeUe SS"),
        ("Zoë Łęcka", "Zoe Lecka"),
        ("Œuvre d’été", "Oeuvre d'ete"),
        ("Bjørn Ærø Åse", "Bjoern Aeroe Aase"),
        ("Þór Guðmundsson", "Thor Gudmundsson"),
        ("İlker Işık", "Ilker Isik"),
        ("Đorđe Čupić", "Dorde Cupic"),
        ("Παπαδόπουλος Χρήστος", "Papadopoylos Christos"),
        ("Ψυχή", "Psychi"),
        ("Щерьо Йовчев", "Shteryo Yovchev"),
        ("Ђорђе Његош", "Djordje Njegosh"),
        ("ﬁne №5 ½", "fine No5 1/2"),
        ('A&B_c; "d" [e]', "A+B-c, 'd' (e)"),
        ("5 € – 3…", "5 EUR - 3..."),
        ("王小明", "..."),
        ("a\tb\r\nc\u2003d", "a b c d"),
        ("  a   b  ", "a b"),
        ("zero\u200bwidth", "zerowidth"),
        ("e\u0301", "e"),
        ("\ud800", "."),
    ],
)
def test_spelling(text: str, spelt: str) -> None:
    assert to_sepa(text) == spelt


def test_lengths_are_counted_after_spelling_out() -> None:
    assert line("ß" * 5, 8) == "ssssssss"
    assert line("abc def", 4) == "abc"
    assert line("ß" * 5, 8, sepa=False) == "ßßßßß"


def test_text_that_is_left_alone_still_fits_xml() -> None:
    assert to_xml("Łęcka\x00\x1b 王\ud800\uffff") == "Łęcka 王.."


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("A-1/2", True),
        ("/A", False),
        ("A/", False),
        ("A//B", False),
        ("", False),
        (" A", False),
        ("Ä", False),
        ("A" * 36, False),
    ],
)
def test_references(text: str, fits: bool) -> None:
    assert is_reference(text, 35) is fits


def test_a_reference_is_bent_into_shape() -> None:
    assert reference("//Schäden//2026/ /1/", 35) == "Schaeden/2026/1"
    assert reference("AB/CD", 3) == "AB"
    assert reference("///", 35) == ""


def test_punctuation_says_nothing() -> None:
    assert not says_something("... - ?")
    assert says_something("3M")


@given(st.text(max_size=200))
def test_whatever_is_typed_comes_out_in_the_set(text: str) -> None:
    spelt = to_sepa(text)
    assert is_sepa(spelt)
    assert spelt == spelt.strip()
    assert "  " not in spelt
    assert to_sepa(spelt) == spelt


@given(st.text(max_size=200), st.integers(1, 40))
def test_bent_references_are_references(text: str, limit: int) -> None:
    bent = reference(text, limit)
    assert bent == "" or is_reference(bent, limit)
