"""The template language: five placeholders in values, and nothing else."""

from __future__ import annotations

import json
from urllib.parse import parse_qs

import pytest

from strongroom.kernel.errors import Invalid
from strongroom.vault.cards.templates import FORM, JSON, parse

VALUES = {
    "number": "4111111111111111",
    "expiry_month": "03",
    "expiry_year": "2031",
    "holder": 'A "B" & Ö\\',
    "cvv": "123",
}


def test_json_is_filled_and_encoded_for_the_place() -> None:
    body = (
        '{"a":[{"n":"{{number}}","x":"{{expiry_month}}/{{expiry_year}}"},"{{holder}}"],"c":"{{cvv}}",'
        '"m":12.50,"z":null}'
    )
    template = parse("application/json; charset=utf-8", body)
    assert template.places == {"number", "expiry_month", "expiry_year", "holder", "cvv"}
    filled = template.fill(VALUES)
    assert json.loads(filled) == {
        "a": [{"n": "4111111111111111", "x": "03/2031"}, 'A "B" & Ö\\'], "c": "123", "m": 12.5, "z": None,
    }  # fmt: skip
    assert b'"m":12.50' in filled


def test_a_form_is_filled_and_encoded_for_the_place() -> None:
    filled = parse(FORM, "card%5Bnumber%5D=%7B%7Bnumber%7D%7D&holder={{holder}}&amount=12").fill(VALUES)
    assert parse_qs(filled.decode(), strict_parsing=True) == {
        "card[number]": ["4111111111111111"], "holder": ['A "B" & Ö\\'], "amount": ["12"],
    }  # fmt: skip


def test_a_holder_can_t_break_out_or_name_a_placeholder() -> None:
    filled = parse(JSON, '{"h":"{{holder}}"}').fill({**VALUES, "holder": '","n":"{{number}}'})
    assert json.loads(filled) == {"h": '","n":"{{number}}'}
    filled = parse(FORM, "h={{holder}}&n=1").fill({**VALUES, "holder": "a&n={{number}}"})
    assert parse_qs(filled.decode()) == {"h": ["a&n={{number}}"], "n": ["1"]}


@pytest.mark.parametrize(
    ("media", "body", "code"),
    [
        ("text/xml", "<a>{{number}}</a>", "TEMPLATE_TYPE_NOT_SUPPORTED"),
        ("", '{"a":"{{number}}"}', "TEMPLATE_TYPE_NOT_SUPPORTED"),
        (JSON, '{"a":{{number}}}', "TEMPLATE_INVALID"),
        (JSON, "", "TEMPLATE_INVALID"),
        (JSON, '{"a":' * 5000, "TEMPLATE_INVALID"),
        (JSON, '{"a":"{{number}"}', "TEMPLATE_INVALID"),
        (JSON, '{"a":"{{number}} }}"}', "TEMPLATE_INVALID"),
        (JSON, '{"a":"{{ {{number}}"}', "TEMPLATE_INVALID"),
        (JSON, '{"a":"{{{number}}}"}', "TEMPLATE_INVALID"),
        (JSON, '{"a":"{{ number }}"}', "TEMPLATE_PLACEHOLDER_NOT_RECOGNISED"),
        (JSON, '{"a":"{{pan}}"}', "TEMPLATE_PLACEHOLDER_NOT_RECOGNISED"),
        (JSON, '{"a":"{{NUMBER}}"}', "TEMPLATE_PLACEHOLDER_NOT_RECOGNISED"),
        (JSON, '{"a":"{{}}"}', "TEMPLATE_PLACEHOLDER_NOT_RECOGNISED"),
        (JSON, '{"{{number}}":"{{number}}"}', "TEMPLATE_PLACEHOLDER_MISPLACED"),
        (JSON, '{"a":1}', "TEMPLATE_WITHOUT_PLACEHOLDER"),
        (FORM, "a=1", "TEMPLATE_WITHOUT_PLACEHOLDER"),
        (FORM, "{{number}}=1", "TEMPLATE_PLACEHOLDER_MISPLACED"),
        (FORM, "a", "TEMPLATE_INVALID"),
        (FORM, "&".join(["a={{number}}"] * 1001), "TEMPLATE_INVALID"),
    ],
)
def test_anything_else_is_refused(media: str, body: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(media, body)
    assert refused.value.code == code
