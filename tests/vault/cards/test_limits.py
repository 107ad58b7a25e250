"""How often is often enough, and whose address counts as whose."""

from __future__ import annotations

import pytest

from strongroom.kernel.errors import TooOften
from strongroom.vault.cards import limits
from strongroom.vault.cards.limits import Bucket, network_of


class Seconds:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_a_rate() -> None:
    seconds = Seconds()
    bucket = Bucket("TOO_MANY_REQUESTS", rate=2.0, burst=3.0, clock=seconds)
    for _ in range(3):
        bucket.spend("a")
    with pytest.raises(TooOften) as refused:
        bucket.spend("a")
    assert refused.value.code == "TOO_MANY_REQUESTS"
    bucket.spend("b")
    seconds.now += 0.5
    bucket.spend("a")
    with pytest.raises(TooOften):
        bucket.spend("a")
    seconds.now += 1000
    for _ in range(3):
        bucket.spend("a")
    with pytest.raises(TooOften):
        bucket.spend("a")


def test_asking_whether_there_is_any_left_uses_nothing() -> None:
    bucket = Bucket("TOO_MANY_INVALID_CARDS", rate=0.01, burst=2.0, clock=Seconds())
    for _ in range(10):
        bucket.require("a")
    bucket.spend("a")
    bucket.spend("a")
    with pytest.raises(TooOften):
        bucket.require("a")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_KNOWN", 2)
    bucket = Bucket("TOO_MANY_REQUESTS", rate=0.0, burst=1.0, clock=Seconds())
    for key in "abc":
        bucket.spend(key)
    bucket.spend("a")
    with pytest.raises(TooOften):
        bucket.spend("c")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_household_is_one_address(address: str, network: str) -> None:
    assert network_of(address) == network
