"""Pages from outside: who gets to them, and what a form has to bring."""

from __future__ import annotations

import re

import pytest

from strongroom.portals import PAGES, Entrance, Page
from tests.fixtures.platform import Client, Platform
from tests.people.browser import Browser, new_link, new_person, unique_address

GUARDED = [page for page in PAGES if page.entrance is not Entrance.EVERYBODY]
FROM_ELSEWHERE = {f"POST /portal/single-sign-on/{{accountId}}/{name}" for name in ("answer", "back-channel-logout")}
"""What single sign-on's providers send, or have browsers send: it proves itself by their signatures."""
SUBMITTED = [page for page in PAGES if page.method == "POST" and f"POST {page.path}" not in FROM_ELSEWHERE]
OPEN = {
    "GET /portal/invitation/{token}", "GET /portal/invitation", "POST /portal/invitation",
    "GET /portal/sign-in", "POST /portal/sign-in",
    "POST /portal/passkey/accept/options", "POST /portal/passkey/accept",
    "POST /portal/passkey/sign-in/options", "POST /portal/passkey/sign-in",
    "GET /portal/assets/portal.css", "GET /portal/assets/passkeys.js",
    "POST /portal/single-sign-on", "GET /portal/single-sign-on/{accountId}",
    "GET /portal/single-sign-on/{accountId}/callback",
    "GET /portal/single-sign-on/{accountId}/arrival", "POST /portal/single-sign-on/{accountId}/arrival",
    "GET /portal/single-sign-on/{accountId}/metadata", "GET /portal/single-sign-on/{accountId}/keys",
    "GET /portal/single-sign-on/{accountId}/front-channel-logout", *FROM_ELSEWHERE,
}  # fmt: skip
"""Pages for everybody: the ways in, and what pages are made up with."""


def path_of(page: Page) -> str:
    return re.sub(r"\{\w+\}", "00000000-0000-7000-8000-000000000000", page.path)


def named(pages: list[Page]) -> list[object]:
    return [pytest.param(page, id=f"{page.method} {page.path}") for page in pages]


@pytest.fixture(scope="module")
async def person(platform: Platform) -> Browser:
    """Somebody who is signed in."""
    return await new_person(platform, await platform.new_account(), unique_address())


def test_pages_for_everybody_are_those_that_are_listed() -> None:
    assert {f"{page.method} {page.path}" for page in PAGES if page.entrance is Entrance.EVERYBODY} == OPEN
    assert all(page.permission is None and not page.proven for page in PAGES if page.entrance is Entrance.EVERYBODY)


def test_forms_from_elsewhere_are_those_that_are_listed() -> None:
    assert {f"{page.method} {page.path}" for page in PAGES if page.from_elsewhere} == FROM_ELSEWHERE


def test_no_two_pages_answer_the_same() -> None:
    assert len({(page.method, re.sub(r"\{\w+\}", "{}", page.path)) for page in PAGES}) == len(PAGES)


@pytest.mark.parametrize("page", named(GUARDED))
async def test_without_a_session_nothing_opens(platform: Platform, page: Page) -> None:
    for cookies in ({}, {"__Host-session": "x", "__Host-waiting": "x"}, {"__Host-session": "A" * 64}):
        browser = Browser(platform=platform, cookies=dict(cookies))
        answer = await browser.send(page.method, path_of(page), headers={"sec-fetch-site": "same-origin"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/portal/sign-in")
        assert answer.content == b""


@pytest.mark.parametrize("page", named(SUBMITTED))
async def test_a_form_from_elsewhere_or_without_its_token_does_nothing(person: Browser, page: Page) -> None:
    browser = Browser(
        platform=person.platform, cookies={**person.cookies, "__Host-waiting": person.cookies["__Host-session"]}
    )
    await browser.open("/portal/sign-in")
    await browser.open("/portal/account")
    token = browser.hidden("/portal/sign-out")["form"]
    for headers in (
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://elsewhere.test"},
        {"origin": "null"},
        {"origin": "https://strongroom.test", "sec-fetch-site": "cross-site"},
    ):
        answer = await browser.send(page.method, path_of(page), data={"form": token}, headers=headers)
        assert (answer.status_code, "not sent from a page of ours" in answer.text) == (403, True), headers
    if page.entrance is Entrance.WAITING:
        return  # such a session is asked for first
    for form in ({}, {"form": ""}, {"form": token[:-2]}, {"form": "x" * 43}):
        answer = await browser.post(path_of(page), **form)
        assert (answer.status_code, "not valid any more" in answer.text) == (403, True), form
    assert await browser.is_signed_in()


async def test_the_token_of_another_session_is_none(person: Browser, platform: Platform) -> None:
    other = await new_person(platform, await platform.new_account(), unique_address())
    await other.open("/portal/account")
    stolen = other.hidden("/portal/sign-out")["form"]
    assert (await person.post("/portal/sign-out", form=stolen)).status_code == 403
    assert await person.is_signed_in()


async def test_an_older_browser_says_where_a_form_is_from(person: Browser) -> None:
    await person.open("/portal/account")
    form = person.hidden("/portal/sessions/end-others")["form"]
    headers = {"origin": "https://strongroom.test"}
    answer = await person.send("POST", "/portal/sessions/end-others", data={"form": form}, headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (303, "/portal/account")


async def test_somebody_elses_session_can_not_be_ended(person: Browser, platform: Platform) -> None:
    account = await platform.new_account()
    address = unique_address()
    other = await new_person(platform, account, address)
    (user,) = (await account.get("/v1/account/users")).json()["results"]
    (session,) = (await account.get(f"/v1/account/users/{user['userId']}/sessions")).json()["sessions"]
    await person.open("/portal/account")
    form = person.hidden("/portal/sign-out")["form"]
    answer = await person.post(f"/portal/sessions/{session['sessionId']}/end", form=form)
    assert (answer.status_code, "no such session" in answer.text) == (400, True)
    assert await other.is_signed_in()


@pytest.mark.parametrize("page", named([page for page in PAGES if page.method == "GET"]))
async def test_every_page_says_what_it_may_load(person: Browser, page: Page) -> None:
    answer = await person.send("GET", path_of(page))
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    assert (answer.headers["x-content-type-options"], answer.headers["referrer-policy"]) == ("nosniff", "no-referrer")
    if answer.headers["content-type"].startswith("text/html"):
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bon\w+=|\bstyle=", answer.text)


async def test_what_is_too_large_or_nowhere_is_said(person: Browser) -> None:
    answer = await person.post("/portal/sign-out", form="x" * 70_000)
    assert answer.status_code == 413
    assert (await person.send("GET", "/portal/nowhere")).status_code == 404
    assert (await person.send("DELETE", "/portal/account")).status_code == 404


async def test_names_are_escaped_where_they_are_shown(platform: Platform, account: Client) -> None:
    browser = Browser(platform=platform, agent='<script>alert("x")</script>')
    await browser.accept(await new_link(platform, account, unique_address()), name="<b>Ada</b> & Söhne")
    home = await browser.open("/portal/account")
    assert "&lt;b&gt;Ada&lt;/b&gt; &amp; Söhne" in home.text and "&lt;script&gt;" in home.text
    assert "<b>Ada" not in home.text and "<script>alert" not in home.text
