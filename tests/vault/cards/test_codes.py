"""Security codes: for one use, for minutes, and overwritten afterwards."""

from __future__ import annotations

from uuid import UUID

import pytest

from strongroom.vault.cards import codes
from strongroom.vault.cards.codes import LIFETIME_S, SecurityCodes

TENANT, OTHER = UUID(int=1), UUID(int=2)


class Seconds:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def wiped(monkeypatch: pytest.MonkeyPatch) -> list[bytearray]:
    """Every code's bytes, once they were overwritten."""
    seen: list[bytearray] = []
    real = codes._wipe

    def watch(code: bytearray) -> None:
        real(code)
        seen.append(code)

    monkeypatch.setattr(codes, "_wipe", watch)
    return seen


def test_a_code_is_good_once(seconds: Seconds, wiped: list[bytearray]) -> None:
    kept = SecurityCodes(seconds)
    kept.put(TENANT, "card_a", "123")
    assert kept.has(TENANT, "card_a")
    assert not kept.has(OTHER, "card_a")
    assert kept.take(OTHER, "card_a") is None
    assert kept.take(TENANT, "card_a") == "123"
    assert kept.take(TENANT, "card_a") is None
    assert wiped == [bytearray(3)]


def test_a_code_s_time_ends(seconds: Seconds, wiped: list[bytearray]) -> None:
    assert LIFETIME_S <= 15 * 60
    kept = SecurityCodes(seconds)
    kept.put(TENANT, "card_a", "123")
    seconds.now = LIFETIME_S - 1
    kept.put(TENANT, "card_b", "4567")
    seconds.now = LIFETIME_S
    assert not kept.has(TENANT, "card_a")
    assert kept.drop_expired() == 1
    assert wiped == [bytearray(3)]
    assert kept.take(TENANT, "card_b") == "4567"


def test_an_expired_code_isn_t_given_out_even_before_it_is_wiped(seconds: Seconds) -> None:
    kept = SecurityCodes(seconds)
    kept.put(TENANT, "card_a", "123")
    seconds.now = LIFETIME_S
    assert kept.take(TENANT, "card_a") is None
    assert len(kept) == 0


def test_superseded_surplus_and_left_over_codes_are_wiped(
    seconds: Seconds, wiped: list[bytearray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "MAX_KEPT", 2)
    kept = SecurityCodes(seconds)
    for token, code in (("a", "111"), ("a", "222"), ("b", "333"), ("c", "444")):
        kept.put(TENANT, token, code)
    assert len(kept) == 2
    assert not kept.has(TENANT, "a")
    assert len(wiped) == 2
    kept.clear()
    assert wiped == [bytearray(3)] * 4
