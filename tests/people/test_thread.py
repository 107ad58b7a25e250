"""From an invitation's link to the account's first page, in a browser without scripts."""

from __future__ import annotations

import re
from uuid import UUID

from strongroom.kernel.actors import operator
from strongroom.kernel.ids import AccountId
from tests.fixtures.platform import Client, Platform
from tests.people.browser import PASSWORD, Browser, new_link, new_person, unique_address


async def test_from_the_link_to_the_first_page(platform: Platform, account: Client) -> None:
    address = unique_address()
    link = await new_link(platform, account, address)
    browser = Browser(platform=platform)
    shown = await browser.open(link)
    assert browser.url == "/portal/invitation"
    assert "Welcome to Alpine Mutual" in shown.text and address in shown.text and "account-admin" in shown.text
    accepted = await browser.accept(link)
    assert accepted.status_code == 200
    assert len(set(browser.codes)) == 10

    home = await browser.open("/portal/account")
    assert home.status_code == 200
    for fact in ("Ada Beispiel", address, "account-admin", account.account_id, "(this one)", "10 left"):
        assert fact in home.text
    await browser.submit("/portal/sign-out")
    assert browser.url == "/portal/sign-in"
    assert not await browser.is_signed_in()

    answer = await browser.sign_in(address)
    assert (answer.status_code, browser.url) == (200, "/portal/account")
    assert len(re.findall(r"\(this one\)", browser.page)) == 1


async def test_nothing_of_a_person_is_in_clear(platform: Platform, account: Client) -> None:
    """What is shown to its person is nowhere to be read in the databases, nor is any secret that they were given."""
    address = unique_address("geheimnis")
    browser = await new_person(platform, account, address)
    secrets = [address, "geheimnis", "Ada Beispiel", PASSWORD, "Lynx", "192.0.2.7", *browser.codes]
    secrets += [value for name, value in browser.cookies.items() if name != "__Host-device"]
    rows = []
    for table in ("persons", "invitations", "credentials", "sessions", "devices", "grants", "recovery_codes", "mails"):
        async with platform.app.operation(operator(), account=AccountId(UUID(account.account_id))) as op:
            rows += [row[0] for row in await op.rows(f"select t::text from {table} t")]  # noqa: S608  names of ours
    assert len(rows) > 15
    for secret in secrets:
        for form in (secret, secret.encode().hex()):
            assert not any(form in row for row in rows), secret
