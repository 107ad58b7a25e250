"""Leases: a holder that is away, slow or wrong is asked seldom and waited for briefly; no key outlives its lease."""

from __future__ import annotations

import asyncio
import gc
import weakref
from uuid import UUID

import pytest

from strongroom.kernel.errors import Broken, StrongroomError, Unavailable
from strongroom.kernel.secret import Secret
from strongroom.vault import Layer, LayerCipher, leases
from strongroom.vault.holders.contract import KeyUnavailable, Reason, wrapped_key_broken
from strongroom.vault.leases import Lease

CIPHER = LayerCipher(UUID(int=1), Layer.CUSTOMER, {1: Secret(b"k" * 32)})


class Opener:
    """Counts how often it is asked; answers or raises as told, after a while."""

    def __init__(self) -> None:
        self.asked = 0
        self.raises: BaseException | None = None
        self.delay_s = 0.0

    async def __call__(self) -> LayerCipher:
        self.asked += 1
        await asyncio.sleep(self.delay_s)
        if self.raises is not None:
            raise self.raises
        return CIPHER


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything ten times as fast."""
    for name in ("LEASE_S", "RENEW_EVERY_S", "IN_USE_S", "ANSWER_WITHIN_S", "FAILED_FOR_S"):
        monkeypatch.setattr(leases, name, getattr(leases, name) / 10)


def refusal(lease: Lease) -> tuple[type[StrongroomError], str, object]:
    with pytest.raises(StrongroomError) as refused:
        lease.cipher()
    return type(refused.value), refused.value.code, refused.value.failures[0].values.get("reason")


async def test_a_lease_is_kept_while_it_is_used_and_ends_when_it_isn_t() -> None:
    opener = Opener()
    lease = Lease(opener, holder="hsm", newest=1)
    assert lease.use() is False
    await lease.renew()
    for _ in range(10):
        assert lease.use() is True
        assert lease.cipher() is CIPHER
        await asyncio.sleep(0.1)
    assert 5 <= opener.asked <= 8
    await asyncio.sleep(leases.IN_USE_S + leases.LEASE_S + 0.3)
    asked = opener.asked
    assert refusal(lease)[1] == "KEY_UNAVAILABLE"
    assert lease.use() is False
    await asyncio.sleep(0.3)
    assert opener.asked == asked
    await lease.close()


@pytest.mark.parametrize("way", ["renewed", "disabled", "ended"])
async def test_no_cipher_outlives_its_lease_nor_what_is_kept_with_it(way: str) -> None:
    """Nothing else refers to it, so what was derived for persons goes with it; without waiting for the collector."""
    disabled: list[Reason] = []

    async def opener() -> LayerCipher:
        if disabled:
            raise KeyUnavailable("hsm", disabled[0])
        return LayerCipher(UUID(int=1), Layer.CUSTOMER, {1: Secret(b"k" * 32)})

    lease = Lease(opener, holder="hsm", newest=1)
    await lease.renew()
    kept = weakref.ref(lease.cipher())
    gc.disable()
    try:
        assert kept() is not None
        if way == "ended":
            await lease.close()
        else:
            disabled += [Reason.DISABLED] if way == "disabled" else []
            await lease.renew()
        assert kept() is None
    finally:
        gc.enable()
        await lease.close()


async def test_many_at_once_ask_once() -> None:
    opener = Opener()
    opener.delay_s = 0.05
    lease = Lease(opener, holder="hsm", newest=1)
    await asyncio.gather(*(lease.renew() for _ in range(50)))
    assert opener.asked == 1
    assert lease.cipher() is CIPHER
    await lease.close()


@pytest.mark.parametrize(
    ("error", "kind", "code", "reason"),
    [
        (KeyUnavailable("hsm", Reason.AWAY), Unavailable, "KEY_UNAVAILABLE", "AWAY"),
        (KeyUnavailable("hsm", Reason.DISABLED), Unavailable, "KEY_UNAVAILABLE", "DISABLED"),
        (wrapped_key_broken("hsm"), Broken, "DATA_KEY_BROKEN", None),
        (RuntimeError("a bug of the holder's"), Unavailable, "KEY_UNAVAILABLE", "NONSENSE"),
    ],
)
async def test_a_failure_stands_for_a_while_and_then_it_is_asked_again_in_the_background(
    error: Exception, kind: type[StrongroomError], code: str, reason: str | None
) -> None:
    opener = Opener()
    opener.raises = error
    lease = Lease(opener, holder="hsm", newest=1)
    await lease.renew()
    for _ in range(20):
        assert lease.use() is True  # what doesn't need the key goes on
        assert refusal(lease) == (kind, code, reason)
    assert opener.asked == 1
    opener.raises = None
    await asyncio.sleep(leases.FAILED_FOR_S + 0.02)
    assert lease.use() is True
    await asyncio.sleep(0.02)
    assert lease.cipher() is CIPHER
    await lease.close()


async def test_a_slow_holder_is_waited_for_briefly() -> None:
    opener = Opener()
    opener.delay_s = 60
    lease = Lease(opener, holder="hsm", newest=1)
    began = asyncio.get_running_loop().time()
    await lease.renew()
    assert asyncio.get_running_loop().time() - began < leases.ANSWER_WITHIN_S + 0.1
    assert refusal(lease)[2] == "SLOW"
    await lease.close()


@pytest.mark.parametrize(("reason", "within_s"), [(Reason.DISABLED, 0.25), (Reason.AWAY, 0.45)])
async def test_a_key_that_is_taken_away_is_gone_within_the_lease(reason: Reason, within_s: float) -> None:
    opener = Opener()
    lease = Lease(opener, holder="hsm", newest=1)
    await lease.renew()
    opener.raises = KeyUnavailable("hsm", reason)
    taken = asyncio.get_running_loop().time()
    lasted_s = 0.0
    while lasted_s < 1:
        lease.use()
        try:
            lease.cipher()
        except Unavailable:
            break
        await asyncio.sleep(0.01)
        lasted_s = asyncio.get_running_loop().time() - taken
    assert lasted_s < within_s
    await lease.close()


async def test_an_ended_lease_has_nothing_left() -> None:
    lease = Lease(Opener(), holder="hsm", newest=1)
    await lease.renew()
    lease.end()
    assert refusal(lease)[1] == "KEY_UNAVAILABLE"
    await lease.close()
