"""Lock-out: guessing ends soon, and nobody locks somebody else out."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from strongroom.kernel.clock import ManualClock
from strongroom.people.lockout import LOCKED_FOR, place_of
from tests.fixtures.platform import Client, Platform
from tests.people.browser import PASSWORD, Browser, new_person, unique_address


async def guess(browser: Browser, address: str, password: str | None = None) -> int:
    """The status of one attempt's first step: 401 refused, 429 locked, 200 on to the code."""
    if browser.url != "/portal/sign-in":
        await browser.open("/portal/sign-in")
    answer = await browser.submit("/portal/sign-in", address=address, password=password or "falsch geraten")
    return answer.status_code


async def test_after_ten_failures_it_is_locked_for_half_an_hour(platform: Platform, account: Client) -> None:
    address = unique_address()
    clock = ManualClock(platform.app.clock.now())
    async with platform.another_process(clock) as later:
        await new_person(later, account, address)
        stranger = Browser(platform=later, source="203.0.113.5")
        assert [await guess(stranger, address) for _ in range(10)] == [401] * 10
        assert await guess(stranger, address, PASSWORD) == 429
        clock.advance(LOCKED_FOR - timedelta(seconds=1))
        assert await guess(stranger, address, PASSWORD) == 429
        clock.advance(timedelta(seconds=1))
        assert await guess(stranger, address, PASSWORD) == 200
    assert timedelta(minutes=30) == LOCKED_FOR


async def test_a_known_device_goes_on_whatever_strangers_do(platform: Platform, account: Client) -> None:
    address = unique_address()
    own = await new_person(platform, account, address)
    stranger = Browser(platform=platform, source=own.source)  # from the very same network address
    assert [await guess(stranger, address) for _ in range(11)] == [401] * 10 + [429]
    assert (await own.sign_in(address, code=own.codes[0])).status_code == 200
    elsewhere = Browser(platform=platform, source="203.0.113.77")
    assert await guess(elsewhere, address, PASSWORD) == 200


async def test_a_device_cookie_is_good_for_its_person_alone(platform: Platform, account: Client) -> None:
    victim, own = unique_address("victim"), unique_address("own")
    await new_person(platform, account, victim)
    attacker = await new_person(platform, account, own, source="203.0.113.8")
    assert [await guess(attacker, victim) for _ in range(11)] == [401] * 10 + [429]
    assert await guess(attacker, own, PASSWORD) == 200


async def test_many_places_together_may_fail_no_more_than_a_hundred_times(
    platform: Platform, account: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.people.lockout.MAX_STRANGE_FAILURES", 15)
    address = unique_address()
    own = await new_person(platform, account, address)
    statuses = [await guess(Browser(platform=platform, source=f"203.0.113.{n}"), address) for n in range(17)]
    assert statuses == [401] * 15 + [429] * 2
    assert (await own.sign_in(address, code=own.codes[0])).status_code == 200


async def test_wrong_codes_count_as_well(platform: Platform, account: Client) -> None:
    address = unique_address()
    await new_person(platform, account, address)
    thief = Browser(platform=platform, source="203.0.113.9")
    assert await guess(thief, address, PASSWORD) == 200
    codes = [(await thief.submit("/portal/sign-in/code", code="000000")).status_code for _ in range(10)]
    assert codes == [401] * 9 + [429]


async def test_attempts_at_once_are_no_more_than_one_after_the_other(platform: Platform, account: Client) -> None:
    address = unique_address()
    await new_person(platform, account, address)
    browsers = [Browser(platform=platform, source="203.0.113.10") for _ in range(14)]
    statuses = await asyncio.gather(*(guess(browser, address) for browser in browsers))
    assert sorted(statuses) == [401] * 10 + [429] * 4


async def test_an_address_that_nobody_has_is_answered_just_the_same(platform: Platform, account: Client) -> None:
    address = unique_address()
    await new_person(platform, account, address)
    answers = []
    for tried in (address, unique_address("nobody")):
        browser = Browser(platform=platform, source="203.0.113.11")
        for _ in range(11):
            await browser.open("/portal/sign-in")
            answer = await browser.submit("/portal/sign-in", address=tried, password="falsch geraten")
            said = answer.text.replace(tried, "…").replace(browser.hidden("/portal/sign-in")["form"], "…")
            answers.append((answer.status_code, said))
    assert answers[:11] == answers[11:]


def test_places() -> None:
    assert place_of("192.0.2.1") != place_of("192.0.2.2")
    assert place_of("2001:db8:0:1::1") == place_of("2001:db8:0:1:ffff::2") != place_of("2001:db8:0:2::1")
    assert place_of("::ffff:192.0.2.1") == place_of("192.0.2.1")
    assert place_of("fe80::1%eth0") == place_of("fe80::2")
    assert place_of("") == place_of("nonsense") == "unknown"
