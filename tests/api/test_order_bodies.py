"""Orders are read strictly first; what passes that way is what the full rules make of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.api import order_bodies
from strongroom.kernel.errors import Invalid
from strongroom.payments.contents import NewOrder

REFS = st.sampled_from(["o-1", "i.2", "C_3", "x" * 50, "x" * 51, "", " o", "o\n", "ö", "a/b", None, 7])
METADATA = st.none() | st.dictionaries(
    st.sampled_from(["branch", "Ort", "k" * 40, "k" * 41, ""]),
    st.sampled_from(["Hamburg", "Köln", "v" * 500, "v" * 501, "", "\0", "\U0001f642", None, 5]),
)
INSTRUCTION: dict[str, st.SearchStrategy[Any]] = {
    "instructionRef": REFS,
    "customerRef": REFS,
    "direction": st.sampled_from(["CREDIT", "DEBIT", "credit", "", None]),
    "amount": st.sampled_from(
        ["200.00", "1", "0.01", "0", "0.00", "-1", "1e3", "1.005", "1.0000", "0200.5", "1" * 12, "1" * 13, "", " 1",
         "1.", ".5", "٣", 200, 20.5, None]
    ),
    "currency": st.sampled_from(["EUR", "JPY", "BHD", "eur", "XXX", "EURO", "", None, 978]),
    "country": st.sampled_from(["DE", "CH", "de", "ZZ", "", None]),
    "settledByDate": st.sampled_from(["2030-01-31", "2030-02-30", "1899-12-31", "2030-1-1", "", None, 20300131]),
    "financialInstrumentId": st.sampled_from([None, "", "01a20324-2a65-7c27-83b7-de0fb39deea5", "nothing", 5]),
    "schemeId": st.sampled_from([None, "", "0" * 32, "g" * 32, 5]),
    "metadata": METADATA,
    "unknown": st.just({"nested": [1, "ü"]}),
}  # fmt: skip
GOOD = {
    "instructionRef": "i-1",
    "customerRef": "c-1",
    "direction": "CREDIT",
    "amount": "200.00",
    "currency": "EUR",
    "country": "DE",
    "settledByDate": "2030-01-31",
}
INSTRUCTIONS = st.fixed_dictionaries({}, optional=INSTRUCTION).map(lambda changed: {**GOOD, **changed})
ORDERS = st.fixed_dictionaries(
    {"orderRef": REFS | st.just("o-1")},
    optional={
        "instructions": st.none() | st.lists(INSTRUCTIONS | st.just(GOOD), max_size=3),
        "metadata": METADATA,
        "customerDefaults": st.sampled_from([None, {}, {"c-1": {"metadata": {"a": "b"}}}, {"c-1": 5}]),
    },
)


def full(body: bytes) -> NewOrder | None:
    try:
        return order_bodies._read_any_order(body)
    except Invalid:
        return None


@given(ORDERS, st.booleans())
@settings(max_examples=600)
def test_strict_reading_takes_nothing_else(order: dict[str, Any], ascii_only: bool) -> None:
    body = json.dumps(order, ensure_ascii=ascii_only).encode()
    plain = order_bodies._read_plain_order(body)
    assert plain is None or plain == full(body)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"amount": "1"},
        {"amount": "500", "currency": "JPY"},
        {"amount": "1.005", "currency": "BHD"},
        {"metadata": {"Ort": "Köln"}},
        {"schemeId": "0" * 32, "financialInstrumentId": "01a20324-2a65-7c27-83b7-de0fb39deea5"},
    ],
)
def test_what_is_usual_passes_it(change: dict[str, Any]) -> None:
    instructions = [{**GOOD, **change}, {**GOOD, "instructionRef": "i-2"}]
    order = {"orderRef": "o-1", "instructions": instructions, "metadata": {"a": "ü"}, "unknown": 5}
    body = json.dumps(order, ensure_ascii=False).encode()
    plain = order_bodies._read_plain_order(body)
    assert plain is not None
    assert plain == full(body)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"orderRef": "o-1", "x": "\xff"}', b'{"orderRef":"o-1","m":"\\u0000"}']
)
def test_what_cannot_be_read_is_left_to_the_full_rules(body: bytes) -> None:
    assert order_bodies._read_plain_order(body) is None
    with pytest.raises(Invalid):
        order_bodies.read_order(body)
