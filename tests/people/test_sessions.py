"""Sessions and signing in: what opens, for how long, from where, and what ends it."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from strongroom.kernel.clock import ManualClock
from strongroom.notices import send_due
from strongroom.people.sessions import PROVEN_FOR, SECOND_FACTOR_WITHIN
from tests.fixtures.platform import Client, Platform
from tests.people.browser import PASSWORD, Browser, new_link, new_person, unique_address

SESSION = "__Host-session"
OUT_OF_RANGE = ["SESSION_IDLE_OUT_OF_RANGE", "SESSION_LIFETIME_OUT_OF_RANGE"]


async def user_id(account: Client, address: str) -> str:
    users = (await account.get("/v1/account/users", params={"pageSize": "100"})).json()["results"]
    return next(str(user["userId"]) for user in users if user["emailAddress"] == address)


async def test_a_session_ends_after_15_minutes_unused_and_12_hours_at_all(platform: Platform, account: Client) -> None:
    clock = ManualClock(platform.app.clock.now())
    async with platform.another_process(clock) as later:
        browser = await new_person(later, account, unique_address())
        clock.advance(timedelta(minutes=14, seconds=59))
        assert await browser.is_signed_in()
        clock.advance(timedelta(minutes=15))
        assert not await browser.is_signed_in()

        browser = await new_person(later, account, unique_address())
        for _ in range(47):
            clock.advance(timedelta(minutes=15, seconds=-1))
            assert await browser.is_signed_in()
        clock.advance(timedelta(minutes=14))
        assert await browser.is_signed_in()
        clock.advance(timedelta(minutes=2))
        assert not await browser.is_signed_in()


async def test_an_account_says_how_long(platform: Platform, account: Client) -> None:
    assert (await account.get("/v1/account/session-settings")).json() == {"idleSeconds": 900, "lifetimeSeconds": 43200}
    wanted = {"idleSeconds": 120, "lifetimeSeconds": 600}
    assert (await account.put("/v1/account/session-settings", wanted)).status_code == 204
    assert (await account.get("/v1/account/session-settings")).json() == wanted
    clock = ManualClock(platform.app.clock.now())
    async with platform.another_process(clock) as later:
        browser = await new_person(later, account, unique_address())
        for _ in range(5):
            clock.advance(timedelta(seconds=119))
            assert await browser.is_signed_in()
        clock.advance(timedelta(seconds=6))
        assert not await browser.is_signed_in()


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        ({}, ["SESSION_IDLE_IS_REQUIRED", "SESSION_LIFETIME_IS_REQUIRED"]),
        ({"idleSeconds": 59, "lifetimeSeconds": 299}, ["SESSION_IDLE_OUT_OF_RANGE", "SESSION_LIFETIME_OUT_OF_RANGE"]),
        (
            {"idleSeconds": 86401, "lifetimeSeconds": 604801},
            ["SESSION_IDLE_OUT_OF_RANGE", "SESSION_LIFETIME_OUT_OF_RANGE"],
        ),
        (
            {"idleSeconds": True, "lifetimeSeconds": "600"},
            ["SESSION_IDLE_OUT_OF_RANGE", "SESSION_LIFETIME_OUT_OF_RANGE"],
        ),
    ],
)
async def test_what_is_no_length_for_sessions(account: Client, body: dict[str, object], codes: list[str]) -> None:
    answer = await account.put("/v1/account/session-settings", body)
    assert (answer.status_code, [error["errorCode"] for error in answer.json()["errors"]]) == (400, codes)


async def test_the_password_alone_opens_nothing(platform: Platform, account: Client) -> None:
    address = unique_address()
    clock = ManualClock(platform.app.clock.now())
    async with platform.another_process(clock) as later:
        person = await new_person(later, account, address)
        browser = Browser(platform=later, secret=person.secret, step=person.step)
        await browser.open("/portal/sign-in")
        await browser.submit("/portal/sign-in", address=address, password=PASSWORD)
        assert browser.url == "/portal/sign-in/code"
        waiting = browser.cookies["__Host-waiting"]
        assert not await browser.is_signed_in()
        assert not await Browser(platform=later, cookies={SESSION: waiting}).is_signed_in()
        clock.advance(SECOND_FACTOR_WITHIN)
        answer = await browser.send("GET", "/portal/sign-in/code")
        assert (answer.status_code, answer.headers["location"]) == (303, "/portal/sign-in")


async def test_every_step_has_another_secret(platform: Platform, account: Client) -> None:
    address = unique_address()
    browser = await new_person(platform, account, address)
    first = browser.cookies[SESSION]
    await browser.open("/portal/account")
    await browser.submit("/portal/sign-out")
    await browser.open("/portal/sign-in")
    await browser.submit("/portal/sign-in", address=address, password=PASSWORD)
    waiting = browser.cookies["__Host-waiting"]
    await browser.submit("/portal/sign-in/code", code=browser.code())
    assert "__Host-waiting" not in browser.cookies
    assert len({first, waiting, browser.cookies[SESSION]}) == 3
    for old in (first, waiting):
        assert not await Browser(platform=platform, cookies={SESSION: old}).is_signed_in()
    answer = await Browser(platform=platform, cookies={"__Host-waiting": waiting}).send("GET", "/portal/sign-in/code")
    assert answer.status_code == 303


async def test_a_session_that_is_ended_is_ended_in_every_process(platform: Platform, account: Client) -> None:
    address = unique_address()
    here = await new_person(platform, account, address)
    async with platform.another_process() as other:
        there = Browser(platform=other, agent="Elinks/0.17", secret=here.secret, step=here.step)
        await there.sign_in(address)
        assert await there.is_signed_in()
        await here.open("/portal/account")
        (action,) = [
            found[1]
            for found in re.finditer(r'action="(/portal/sessions/[0-9a-f-]{36}/end)"', here.page)
            if "(this one)" not in here.page[: found.start()].rpartition("<li>")[2]
        ]
        await here.submit(action)
        assert not await there.is_signed_in()
        assert await here.is_signed_in()


async def test_an_admin_ends_the_sessions_of_somebody(platform: Platform, account: Client) -> None:
    address = unique_address()
    browser = await new_person(platform, account, address)
    second = Browser(platform=platform, agent="Elinks/0.17", secret=browser.secret, step=browser.step)
    await second.sign_in(address)
    path = f"/v1/account/users/{await user_id(account, address)}/sessions"
    listed = (await account.get(path)).json()["sessions"]
    assert [one["userAgent"] for one in listed] == ["Elinks/0.17", "Lynx/2.9"]
    assert {one["ipAddress"] for one in listed} == {"192.0.2.7"}
    assert (await account.delete(f"{path}/{listed[0]['sessionId']}")).status_code == 204
    assert (await second.is_signed_in(), await browser.is_signed_in()) == (False, True)
    assert (await account.delete(f"{path}/{listed[0]['sessionId']}")).status_code == 400
    assert (await account.delete(path)).status_code == 204
    assert not await browser.is_signed_in()
    assert (await account.get(path)).json() == {"sessions": []}


async def test_who_is_removed_is_out_at_once_and_can_be_invited_again(platform: Platform, account: Client) -> None:
    address = unique_address()
    browser = await new_person(platform, account, address)
    await new_person(platform, account, unique_address())
    assert (await account.delete(f"/v1/account/users/{await user_id(account, address)}")).status_code == 204
    assert not await browser.is_signed_in()
    answer = await browser.sign_in(address)
    assert (answer.status_code, "not right" in answer.text) == (401, True)
    again = await new_person(platform, account, address)
    assert await again.is_signed_in()


async def test_changed_roles_count_at_once_under_another_secret(platform: Platform, account: Client) -> None:
    address = unique_address()
    browser = await new_person(platform, account, address)
    await new_person(platform, account, unique_address())
    before = browser.cookies[SESSION]
    path = f"/v1/account/users/{await user_id(account, address)}"
    assert (await account.put(path, {"roles": ["account-tenant-read"]})).status_code == 204
    home = await browser.open("/portal/account")
    assert "account-tenant-read" in home.text and "account-admin" not in home.text
    assert browser.cookies[SESSION] != before
    assert not await Browser(platform=platform, cookies={SESSION: before}).is_signed_in()
    await browser.submit("/portal/sign-out")
    assert browser.url == "/portal/sign-in"


async def test_something_dangerous_takes_a_fresh_proof(platform: Platform, account: Client) -> None:
    clock = ManualClock(platform.app.clock.now())
    async with platform.another_process(clock) as later:
        browser = await new_person(later, account, unique_address())
        old_codes, before = browser.codes, browser.cookies[SESSION]
        clock.advance(PROVEN_FOR)
        await browser.open("/portal/account")
        answer = await browser.submit("/portal/recovery-codes")
        assert (browser.url, "Is it still you?" in answer.text) == ("/portal/prove", True)
        answer = await browser.submit("/portal/prove", code="000000")
        assert answer.status_code == 401
        await browser.submit("/portal/prove", code=browser.code())
        assert browser.url == "/portal/account"
        assert browser.cookies[SESSION] != before
        answer = await browser.submit("/portal/recovery-codes")
        new_codes = re.findall(r'<li class="secret">([a-z2-9-]+)</li>', answer.text)
        assert len(new_codes) == 10 and not set(new_codes) & set(old_codes)


async def test_a_code_and_a_recovery_code_count_once(platform: Platform, account: Client) -> None:
    address = unique_address()
    clock = ManualClock(platform.app.clock.now())
    async with platform.another_process(clock) as later:
        browser = await new_person(later, account, address)
        clock.advance(timedelta(minutes=2))
        code = browser.code()
        assert (await browser.sign_in(address, code=code)).status_code == 200
        assert (await browser.sign_in(address, code=code)).status_code == 401
        assert (await browser.sign_in(address, code=browser.codes[0].upper().replace("-", " "))).status_code == 200
        assert (await browser.sign_in(address, code=browser.codes[0])).status_code == 401
        assert (await browser.sign_in(address, code=browser.codes[1])).status_code == 200
        await browser.open("/portal/account")
        assert "8 left" in browser.page


async def test_of_a_new_device_its_person_hears_by_mail(platform: Platform, account: Client, tmp_path: Path) -> None:
    address = unique_address()
    first = await new_person(platform, account, address)
    await first.sign_in(address, code=first.codes[0])
    other = Browser(platform=platform, agent="Strange/1.0", source="198.51.100.9")
    await other.sign_in(address, code=first.codes[1])
    await other.sign_in(address, code=first.codes[2])
    await send_due(platform.app.databases, replace(platform.app.postman, folder=tmp_path))
    letters = [
        letter
        for path in sorted(tmp_path.glob("*.eml"))  # noqa: ASYNC240  a test's own folder
        if (letter := email.message_from_bytes(path.read_bytes(), policy=email.policy.default))["To"] == address
    ]
    assert [letter["Subject"] for letter in letters] == ["A new device has signed in"]
    text = letters[0].get_body(("plain",))
    assert text is not None and "Strange/1.0" in text.get_content() and "198.51.100.9" in text.get_content()


async def test_an_address_of_two_accounts_with_one_password_asks_for_the_link(platform: Platform) -> None:
    address = unique_address()
    accounts = [await platform.new_account(name=name) for name in ("Alpha", "Beta")]
    people = [await new_person(platform, account, address) for account in accounts]
    browser = Browser(platform=platform)
    answer = await browser.sign_in(address)
    assert (answer.status_code, "several accounts" in answer.text) == (401, True)
    for account, person, name in zip(accounts, people, ("Alpha", "Beta"), strict=True):
        await browser.open(f"/portal/sign-in?account={account.account_id}")
        await browser.submit("/portal/sign-in", address=address, password=PASSWORD)
        answer = await browser.submit("/portal/sign-in/code", code=person.codes[0])
        assert f"<h1>{name}</h1>" in answer.text


async def test_the_accounts_ip_list_holds_for_people(platform: Platform, account: Client) -> None:
    address = unique_address()
    inside = await new_person(platform, account, address)
    outside = Browser(platform=platform, source="203.0.113.20", cookies=dict(inside.cookies))
    assert await outside.is_signed_in()
    rules = [{"name": "office", "cidr": "192.0.2.0/24", "interfaces": ["portal"]}]
    done = await account.put("/v1/account/ip-whitelist?force=true", {"enabled": True, "rules": rules})
    assert done.status_code == 204, done.text
    assert await inside.is_signed_in()
    assert (await outside.send("GET", "/portal/account")).status_code == 403
    assert (await outside.sign_in(address, code=inside.codes[0])).status_code == 403
    link = await new_link(platform, account, unique_address())
    newcomer = Browser(platform=platform, source="203.0.113.20")
    assert (await newcomer.accept(link)).status_code == 403
    newcomer.source = "192.0.2.99"
    assert (await newcomer.accept(link)).status_code == 200
