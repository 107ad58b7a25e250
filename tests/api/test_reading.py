"""Reading bodies: what is JSON for us, and how everything that is wrong is listed."""

from __future__ import annotations

import re
from typing import Any

import pytest

from strongroom.api.reading import Collector, Number, read_object
from strongroom.kernel.errors import Invalid


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (b' { "a" : [1, true, null, "x"] } ', {"a": [1, True, None, "x"]}),
        (b'{"a": 1, "a": 2, "a": 3}', {"a": 3}),
        (b'{"a": 200.00, "b": 1e2, "c": -0.5}', {"a": Number("200.00"), "b": Number("1e2"), "c": Number("-0.5")}),
        (b'{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        ('{"ä": "日本 😀"}'.encode(), {"ä": "日本 😀"}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        (b'{"a": "\\\\u0000"}', {"a": "\\u0000"}),
    ],
)
def test_objects_are_read(body: bytes, value: dict[str, Any]) -> None:
    assert read_object(body) == value


def test_no_body_is_a_failure_of_its_own() -> None:
    with pytest.raises(Invalid) as refused:
        read_object(b"")
    assert refused.value.code == "REQUEST_BODY_IS_REQUIRED"


@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b"null",
        b"[]",
        b'"text"',
        b"1",
        b"{",
        b'{"a"',
        b'{"a": 1',
        b'{"a": "x',
        b'{"a": 1,}',
        b"{'a': 1}",
        b"{a: 1}",
        b'{"a": 1} {"b": 2}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 01}',
        b'{"a": .5}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"\xc3": 1}',
        "{}".encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"a": "line\nbreak"}',
        b'{"a": "x\x00y"}',
        b'{"a": "x\\u0000y"}',
        b'{"a": ["b", {"c": "\\u0000"}]}',
        b'{"\\u0000": 1}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\ud800x"}',
        b'{"a": "\\udc00"}',
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"a": ' + b"9" * 100_000 + b"}",
    ],
)
def test_what_can_not_be_used_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        read_object(body)
    assert refused.value.code == "REQUEST_BODY_INVALID"


def test_a_refusal_quotes_nothing_of_the_body() -> None:
    with pytest.raises(Invalid) as refused:
        read_object(b'{"iban": "DE89370400440532013000", "a": tru')
    assert "DE89" not in str(refused.value)


def test_everything_wrong_is_listed_in_the_order_of_reading() -> None:
    found = Collector()
    source = {"name": "x" * 11, "roles": ["king"], "id": "1", "flag": "yes", "address": []}
    found.text(source, "name", "NAME", max_length=10)
    found.text(source, "ref", "REF", max_length=10)
    found.choices(source, "roles", "ROLES", {"a", "b"})
    found.choice(source, "region", "REGION", {"eu"})
    found.uuid(source, "id", "ID")
    found.flag(source, "flag", "FLAG")
    found.object(source, "address", "ADDRESS", dict)
    found.country(source)
    with pytest.raises(Invalid) as refused:
        found.check()
    assert [failure.code for failure in refused.value.failures] == [
        "NAME_LENGTH_OUT_OF_RANGE",
        "REF_IS_REQUIRED",
        "ROLES_NOT_RECOGNISED",
        "REGION_IS_REQUIRED",
        "ID_IS_INVALID",
        "FLAG_IS_INVALID",
        "ADDRESS_IS_INVALID",
        "COUNTRY_IS_REQUIRED",
    ]
    assert refused.value.failures[0].message == "name has at most 10 characters."


def test_nothing_wrong_goes_on() -> None:
    found = Collector()
    found.text({"name": "x"}, "name", "NAME", max_length=1)
    found.check()


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "NAME_IS_REQUIRED"),
        ("", "NAME_IS_REQUIRED"),
        (" \u3000", "NAME_IS_REQUIRED"),
        (5, "NAME_IS_INVALID"),
        (["x"], "NAME_IS_INVALID"),
        ("abcdef", "NAME_LENGTH_OUT_OF_RANGE"),
        ("ab\n", "NAME_CONTAINS_INVALID_CHARACTERS"),
        ("a\u2028b", "NAME_CONTAINS_INVALID_CHARACTERS"),
        ("a b", "NAME_CONTAINS_INVALID_CHARACTERS"),
    ],
)
def test_texts(value: object, code: str) -> None:
    found = Collector()
    assert found.text({"name": value}, "name", "NAME", max_length=5, pattern=re.compile("[a-z]*")) == ""
    assert [failure.code for failure in found.failures] == [code]


@pytest.mark.parametrize("value", [None, "", "  "])
def test_an_optional_text_may_be_empty(value: object) -> None:
    found = Collector()
    assert found.text({"name": value}, "name", "NAME", max_length=5, required=False) == ""
    assert found.failures == []


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "COUNTRY_IS_REQUIRED"),
        ("", "COUNTRY_IS_REQUIRED"),
        ("D", "COUNTRY_LENGTH_OUT_OF_RANGE"),
        ("DEU", "COUNTRY_LENGTH_OUT_OF_RANGE"),
        (49, "COUNTRY_LENGTH_OUT_OF_RANGE"),
        ("XX", "COUNTRY_NOT_SUPPORTED"),
        ("de", "COUNTRY_NOT_SUPPORTED"),
    ],
)
def test_countries(value: object, code: str) -> None:
    found = Collector()
    assert found.country({"country": value}) == ""
    assert [failure.code for failure in found.failures] == [code]


@pytest.mark.parametrize("value", [{}, [], ["a", 5], ["A"], "a", [None], [["a"]]])
def test_choices_take_only_known_words(value: object) -> None:
    found = Collector()
    assert found.choices({"roles": value}, "roles", "ROLES", {"a"}) == ()
    assert len(found.failures) == 1


def test_choices_keep_each_word_once() -> None:
    assert Collector().choices({"roles": ["b", "a", "b"]}, "roles", "ROLES", {"a", "b"}) == ("b", "a")
