"""Passkeys in Chromium, with its virtual authenticator: what works, and what is refused."""

from __future__ import annotations

import json

from playwright.async_api import Request, expect

from tests.people.browser import new_link, unique_address
from tests.portals.conftest import Served, Window

REFUSED = "This passkey was not taken."


async def come_in(served: Served, window: Window) -> str:
    """Accept an invitation with a passkey; the address."""
    account = await served.platform.new_account()
    address = unique_address()
    page = window.page
    await page.goto(await new_link(served.platform, account, address))
    assert page.url == f"{served.origin}/portal/invitation"
    await page.fill("#passkey-name", "Ada Beispiel")
    await page.click("text=Set up a passkey")
    await page.wait_for_url(f"{served.origin}/portal/account")
    await expect(page.locator("main")).to_contain_text(address)
    return address


async def sign_out(window: Window) -> None:
    await window.page.click("text=Sign out")
    await window.page.wait_for_url("**/portal/sign-in")


async def sign_in(window: Window) -> None:
    await window.page.click("text=Sign in with a passkey")


async def test_a_passkey_is_set_up_and_signs_in(served: Served, window: Window) -> None:
    address = await come_in(served, window)
    credentials = await window.credentials()
    assert [credential["isResidentCredential"] for credential in credentials] == [True]
    await sign_out(window)
    await sign_in(window)
    await window.page.wait_for_url(f"{served.origin}/portal/account")
    await expect(window.page.locator("main")).to_contain_text(address)


async def test_without_the_user_verified_nothing_opens(served: Served, window: Window) -> None:
    await come_in(served, window)
    await sign_out(window)
    told = {"authenticatorId": window.authenticator, "isUserVerified": False}
    await window.devtools.send("WebAuthn.setUserVerified", told)
    await sign_in(window)
    await expect(window.page.locator("[data-passkey] .wrong")).to_contain_text("No passkey was used.")
    assert window.page.url == f"{served.origin}/portal/sign-in"


async def test_an_answer_from_another_origin_is_refused(served: Served, window: Window) -> None:
    await come_in(served, window)
    await sign_out(window)
    await window.page.goto(f"{served.elsewhere}/portal/sign-in")
    await sign_in(window)
    await expect(window.page.locator("[data-passkey] .wrong")).to_contain_text(REFUSED)


async def test_an_answer_counts_once(served: Served, window: Window) -> None:
    await come_in(served, window)
    await sign_out(window)
    answers: list[str] = []

    def keep(request: Request) -> None:
        if request.url.endswith("/portal/passkey/sign-in"):
            answers.append(request.post_data or "")

    window.page.on("request", keep)
    await sign_in(window)
    await window.page.wait_for_url(f"{served.origin}/portal/account")
    await sign_out(window)
    replay = """async (answer) => {
        const form = document.querySelector("[data-passkey]");
        const headers = {"content-type": "application/json", "x-form-token": form.dataset.formToken};
        const got = await fetch(form.action, {method: "POST", headers, body: answer});
        return [got.status, await got.json()];
    }"""
    status, said = await window.page.evaluate(replay, answers[0])
    assert (status, said["message"].startswith(REFUSED)) == (401, True)
    # What is replayed was good: it is the challenge that is spent.
    assert json.loads(answers[0])["credential"]["response"]["signature"]


async def test_a_copy_of_a_passkey_is_refused(served: Served, window: Window) -> None:
    await come_in(served, window)
    copy = (await window.credentials())[0]
    for _ in range(2):
        await sign_out(window)
        await sign_in(window)
        await window.page.wait_for_url(f"{served.origin}/portal/account")
    await sign_out(window)
    at = {"authenticatorId": window.authenticator}
    await window.devtools.send("WebAuthn.clearCredentials", at)
    await window.devtools.send("WebAuthn.addCredential", {**at, "credential": copy})
    await sign_in(window)
    await expect(window.page.locator("[data-passkey] .wrong")).to_contain_text(REFUSED)
    assert window.page.url == f"{served.origin}/portal/sign-in"


async def test_something_dangerous_takes_another_proof(served: Served, window: Window) -> None:
    await come_in(served, window)
    await window.page.click("text=Add a passkey")
    # The authenticator has one for this person already, and makes no second one.
    await expect(window.page.locator("[data-passkey] .wrong")).to_be_visible()
    assert len(await window.credentials()) == 1
