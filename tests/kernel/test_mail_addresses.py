"""Mail addresses: which are taken, which are the same, what is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.kernel.mail_addresses import find_address, mask_address


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada.Example@EXAMPLE.com ", "ada.example@example.com"),
        ("ada+claims@example.com", "ada+claims@example.com"),
        ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
        ("ada@straße.example", "ada@xn--strae-oqa.example"),
        ("ada@example。com", "ada@example.com"),
        ("ada@example.com.", "ada@example.com"),
        ("JÖRG@example.com", "jörg@example.com"),
        ("jo\u0308rg@example.com", "jörg@example.com"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
    ],
)
def test_what_is_the_same_has_one_form(text: str, found: str) -> None:
    assert find_address(text) == found
    assert find_address(found) == found


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "ada", "ada@", "@example.com", "ada@localhost", "ada example@example.com", "ada@exa mple.com",
        '"ada"@example.com', "ada@[192.0.2.1]", ".ada@example.com", "ada.@example.com", "a..b@example.com",
        "ada@example..com", "ada@-example.com", "ada@exam_ple.com", "ada\0@example.com", "ada\n@example.com",
        "ada\u200b@example.com", "a@b@example.com", "a" * 65 + "@example.com",
        "a@" + ".".join(["b" * 63] * 4) + ".com", "ada@" + "b" * 64 + ".com", "ada@\ud800.com", "\ud800@example.com",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    assert find_address(text) is None


@given(st.text(max_size=80))
def test_any_text_has_an_answer_and_what_is_found_stays(text: str) -> None:
    for candidate in (text, f"{text}@example.com", f"ada@{text}.com"):
        found = find_address(candidate)
        assert found is None or find_address(found) == found


def test_a_mask_shows_one_character_and_the_domain() -> None:
    assert mask_address("erika.mustermann@example.com") == "e***@example.com"
