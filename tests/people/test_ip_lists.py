"""People come from where their account's IP list lets them (promise ACC-3)."""

from __future__ import annotations

import dataclasses

from tests.api.test_ip_lists import HERE, OFFICE, PATHS, coming_from, listed
from tests.fixtures.platform import Client, Platform
from tests.people.browser import Browser, new_person, unique_address


async def test_whoever_is_elsewhere_has_no_page_and_no_session(platform: Platform, account: Client) -> None:
    address = unique_address()
    person = await new_person(platform, account, address)
    inside = dataclasses.replace(person, source=HERE)
    assert (await inside.open("/portal/account")).status_code == 200

    assert (await account.sign_in()).status_code == 201
    assert (await coming_from(account, platform, HERE).put(PATHS["account"], listed(OFFICE))).status_code == 204

    answer = await person.open("/portal/account")
    assert answer.status_code == 403
    assert person.source in answer.text
    assert "Ada Beispiel" not in answer.text
    assert (await inside.open("/portal/account")).status_code == 200, "the session lives, where it may be used"

    stranger = Browser(platform=platform, source=person.source, secret=person.secret, step=person.step)
    assert (await stranger.sign_in(address)).status_code == 403
    assert not any("session" in name for name in stranger.cookies)


async def test_rules_for_keys_say_nothing_about_people(platform: Platform, account: Client) -> None:
    person = await new_person(platform, account, unique_address())
    assert (await account.sign_in()).status_code == 201
    everywhere = {"name": "Everywhere", "cidr": "0.0.0.0/0", "interfaces": ["api"]}
    inside = {**OFFICE, "interfaces": ["portal"]}
    assert (
        await coming_from(account, platform, HERE).put(PATHS["account"], listed(inside, everywhere))
    ).status_code == 204
    assert (await account.get(PATHS["account"])).status_code == 200
    assert (await person.open("/portal/account")).status_code == 403
