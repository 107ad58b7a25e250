"""SAML through the pages: there, back by a form of another site, and in."""

from __future__ import annotations

import base64
import zlib
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx
import pytest
from lxml import etree

from strongroom.kernel.actors import operator
from strongroom.kernel.ids import AccountId, new_uuid
from strongroom.people.single_sign_on import flow
from tests.people.browser import Browser
from tests.people.single_sign_on.identity_provider import ENTITY, SIGN_IN, IdentityProvider, Said, encoded, request_name
from tests.people.single_sign_on.made import PATH, MadeProvider, NameServer, Scene, new_scene

THEM = IdentityProvider()
CROSS_SITE = {"sec-fetch-site": "cross-site", "origin": "https://idp.example"}


@pytest.fixture(scope="module")
async def scene(door: Any, provider: MadeProvider, names: NameServer) -> Scene:
    """An account with a SAML provider."""
    made = await new_scene(door, provider, names)
    answer = await made.put(kind="SAML", oidc=None, saml={"metadata": THEM.metadata, "groupsAttribute": "groups"})
    assert answer.status_code == 200, answer.text
    shown = answer.json()["saml"]
    assert (shown["entityId"], shown["signInUrl"]) == (ENTITY, SIGN_IN)
    return made


async def said(scene: Scene, request: str | None, **changes: Any) -> Said:
    where = (await scene.account.get(PATH)).json()["addresses"]
    plain = {"audience": where["metadata"], "recipient": where["answer"], "destination": where["answer"]}
    return Said(**{**plain, "in_response_to": request, "name_id": scene.address(), **changes})


async def leave(scene: Scene, browser: Browser) -> str:
    answer = await browser.send("GET", scene.start)
    packed = parse_qs(urlsplit(answer.headers["location"]).query)["SAMLRequest"][0]
    return str(etree.fromstring(zlib.decompress(base64.b64decode(packed), -15)).get("ID"))


async def post(scene: Scene, response: etree._Element) -> httpx.Response:
    """As browsers do from another site: without cookies."""
    form = {"SAMLResponse": encoded(response), "RelayState": ""}
    return await Browser(platform=scene.platform).send("POST", f"{scene.start}/answer", data=form, headers=CROSS_SITE)


async def test_there_and_back(scene: Scene) -> None:
    browser = scene.browser()
    request = await leave(scene, browser)
    posted = await post(scene, THEM.signed(await said(scene, request)))
    assert posted.status_code == 303, posted.text
    stranger = await Browser(platform=scene.platform).send("GET", posted.headers["location"])
    assert stranger.status_code == 401, "the answer is for the browser that asked"
    answer = await browser.open(posted.headers["location"])
    assert (answer.status_code, browser.url) == (200, "/portal/account"), answer.text
    assert "single sign-on (SAML)" in answer.text
    assert (await browser.send("GET", posted.headers["location"])).status_code == 401, "it counts once"


async def test_a_session_lasts_no_longer_than_the_providers(scene: Scene) -> None:
    browser, name = scene.browser(), scene.address("short")
    asked = await said(scene, await leave(scene, browser), name_id=name, session_ends=timedelta(minutes=7))
    response = THEM.signed(asked)
    ends = next(one for one in response.iter() if "SessionNotOnOrAfter" in one.attrib).get("SessionNotOnOrAfter")
    await browser.open((await post(scene, response)).headers["location"])
    assert await browser.is_signed_in()
    account = AccountId(UUID(scene.account.account_id))
    async with scene.platform.app.operation(operator(), account=account) as op:
        rows = await op.rows("select expires_at from sessions where expires_at < %s", op.now + timedelta(minutes=8))
    assert ends and [row[0] for row in rows] == [datetime.fromisoformat(ends)]


async def test_a_step_up_asks_for_a_new_proof(scene: Scene) -> None:
    async def asked(query: str) -> str | None:
        answer = await scene.browser().send("GET", scene.start + query)
        packed = parse_qs(urlsplit(answer.headers["location"]).query)["SAMLRequest"][0]
        return etree.fromstring(zlib.decompress(base64.b64decode(packed), -15)).get("ForceAuthn")

    assert [await asked("?afresh=yes"), await asked("")] == ["true", None]


async def test_an_assertion_counts_once(scene: Scene) -> None:
    browser = scene.browser()
    request = await leave(scene, browser)
    response = THEM.signed(await said(scene, request))
    assert (await post(scene, response)).status_code == 303
    answer = await post(scene, response)
    assert answer.status_code == 401 and "used before" in answer.text


async def test_a_request_is_answered_once_and_only_if_it_was_made(scene: Scene) -> None:
    request = await leave(scene, scene.browser())
    assert (await post(scene, THEM.signed(await said(scene, request)))).status_code == 303
    assert (await post(scene, THEM.signed(await said(scene, request)))).status_code == 401
    assert (await post(scene, THEM.signed(await said(scene, request_name(new_uuid()))))).status_code == 401


async def test_sessions_end_with_a_certificate_that_is_taken_away(scene: Scene) -> None:
    def saml(*them: IdentityProvider) -> dict[str, Any]:
        certificates = [one.own.certificate_pem for one in them]
        return {"entityId": ENTITY, "signInUrl": SIGN_IN, "certificates": certificates, "groupsAttribute": "groups"}

    browser, other = scene.browser(), IdentityProvider()
    posted = await post(scene, THEM.signed(await said(scene, await leave(scene, browser))))
    await browser.open(posted.headers["location"])
    assert (await scene.put(saml=saml(THEM, other))).status_code == 200
    assert await browser.is_signed_in()
    assert (await scene.put(saml=saml(other))).status_code == 200
    assert not await browser.is_signed_in()
    assert (await scene.put(saml=saml(THEM))).status_code == 200


async def test_what_the_provider_begins_needs_a_yes(scene: Scene) -> None:
    unasked = await said(scene, None)
    assert (await post(scene, THEM.signed(unasked))).status_code == 401
    saml = {**scene.settings["saml"], "allowsIdpInitiated": True}
    assert (await scene.put(saml=saml)).status_code == 200
    posted = await post(scene, THEM.signed(unasked))
    assert posted.status_code == 303, posted.text
    browser = scene.browser()
    page = await browser.open(posted.headers["location"])
    assert page.status_code == 200 and scene.address() in page.text and not await browser.is_signed_in()
    answer = await browser.submit(f"{scene.start}/arrival")
    assert (answer.status_code, browser.url) == (200, "/portal/account")


async def test_our_metadata_is_published(scene: Scene) -> None:
    answer = await scene.browser().send("GET", f"{scene.start}/metadata")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/samlmetadata+xml")
    where = (await scene.account.get(PATH)).json()["addresses"]
    assert etree.fromstring(answer.content).get("entityID") == where["metadata"]
    assert (await scene.browser().send("GET", f"{scene.start}/keys")).status_code == 400


async def test_refusals_are_told_in_words_of_letters_and_counted_by_place(
    door: Any, provider: MadeProvider, names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "MAX_REFUSED", 3)
    made = await new_scene(door, provider, names)
    assert (await made.put(kind="SAML", oidc=None, saml={"metadata": THEM.metadata})).status_code == 200
    good = THEM.signed(await said(made, await leave(made, made.browser())))
    bad = THEM.response(await said(made, None, status="urn:<b>Eve</b>\n\u202eadmin"))

    async def tell(response: etree._Element, source: str) -> httpx.Response:
        form = {"SAMLResponse": encoded(response)}
        browser = Browser(platform=made.platform, source=source)
        return await browser.send("POST", f"{made.start}/answer", data=form, headers=CROSS_SITE)

    async def refusals() -> list[str]:
        async with made.platform.app.operation(operator(), account=AccountId(UUID(made.account.account_id))) as op:
            rows = await op.rows("select t::text from audit_entries t")
        return [row[0] for row in rows if "the provider says" in row[0]]

    answers = [await tell(bad, "192.0.2.66") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    told = await refusals()
    assert len(told) == 3, "nobody can fill the record"
    assert all("the provider says bEvebadmin." in one for one in told), told
    assert (await tell(good, "192.0.2.66")).status_code == 429
    assert (await tell(good, "192.0.2.67")).status_code == 303
