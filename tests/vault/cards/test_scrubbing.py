"""No answer of a provider brings a number back, in whatever form."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.vault.cards.scrubbing import Scrubber
from tests.vault.cards.numbers import VISA

MASK = "41111111****1111"
SCRUBBER = Scrubber(VISA, MASK)


@pytest.mark.parametrize(
    "written",
    [
        VISA,
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111\u00a01111\u00a01111\u00a01111",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "4111.1111.1111.1111",
        "4111 - 1111 - 1111 - 1111",
        "x94111111111111111123",
    ],
)
def test_a_number_is_replaced_by_its_mask_however_it_is_written(written: str) -> None:
    for content in (f"declined: {written}!", json.dumps({"message": f"card {written}"}), json.dumps([{written: 1}])):
        scrubbed = SCRUBBER.scrub(content.encode())
        assert not scrubbed.withheld
        assert MASK in scrubbed.content.decode()
        assert VISA not in scrubbed.content.decode().replace(" ", "").replace("-", "")


def test_json_s_own_ways_of_writing_are_seen_through() -> None:
    escaped = "".join(f"\\u{ord(digit):04x}" for digit in VISA)
    for content in (f'{{"a":"{escaped}"}}', f'{{"a":{VISA}}}', f'{{"a":{VISA}.0}}', '{"a":4.111111111111111e15}'):
        scrubbed = SCRUBBER.scrub(content.encode())
        assert json.loads(scrubbed.content) == {"a": MASK}


def test_utf_16_is_seen_through() -> None:
    scrubbed = SCRUBBER.scrub(f"card {VISA}".encode("utf-16-le"))
    assert "\0".join(VISA).encode() not in scrubbed.content


@pytest.mark.parametrize(
    "written",
    [
        base64.b64encode(VISA.encode()).decode(),
        base64.b64encode(f"a{VISA}z".encode()).decode(),
        base64.b64encode(f"ab{VISA}".encode()).decode(),
        VISA.encode().hex(),
        VISA[::-1],
        "".join(f"%{ord(digit):02x}" for digit in VISA),
        quote("4111 1111 1111 1111"),
        "".join(f"&#{ord(digit)};" for digit in VISA),
    ],
)
def test_what_can_t_be_replaced_is_withheld(written: str) -> None:
    scrubbed = SCRUBBER.scrub(f'{{"echo":"{written}"}}'.encode())
    assert scrubbed.withheld
    assert scrubbed.content == b""
    assert SCRUBBER.scrub_text(written) == ""


@pytest.mark.parametrize("name", ["cvv", "CVV2", "cardCvc", "card_cvc2", "securityCode", "cid", "verification-value"])
def test_security_codes_lose_their_value(name: str) -> None:
    assert json.loads(SCRUBBER.scrub(json.dumps({"card": {name: "123"}}).encode()).content) == {"card": {name: "***"}}


def test_what_holds_nothing_goes_back_byte_for_byte() -> None:
    for content in (
        b'{ "amount": 12.50, "id": "4111111111111112", "cvvResult": "M" ,"decided": true }',
        b"<ok/>",
        b"",
        b"\xff\xfe",
    ):
        assert SCRUBBER.scrub(content).content == content


def test_amounts_beside_a_number_keep_their_decimals() -> None:
    scrubbed = SCRUBBER.scrub(f'{{"pan":"{VISA}","amount":12.50}}'.encode())
    assert scrubbed.content == b'{"pan":"41111111****1111","amount":12.50}'


@given(st.text(max_size=50), st.text(max_size=50), st.text(" -.\u00a0\t", max_size=1))
def test_the_number_is_never_left(before: str, after: str, between: str) -> None:
    content = f"{before}{between.join(VISA)}{after}".encode("utf-8", "surrogatepass")
    left = SCRUBBER.scrub(content).content
    assert VISA.encode() not in bytes(byte for byte in left if 0x30 <= byte <= 0x39)
