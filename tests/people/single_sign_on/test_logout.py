"""The provider ends what it began: OpenID Connect Back-Channel and Front-Channel Logout 1.0."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import httpx
import pytest

from strongroom.kernel.actors import operator
from strongroom.kernel.ids import AccountId, new_uuid
from strongroom.people.single_sign_on import flow
from strongroom.people.single_sign_on.oidc import LOGOUT_EVENT
from tests.people.browser import Browser
from tests.people.single_sign_on.made import CLIENT_ID, Scene, new_key, new_scene


@pytest.fixture(scope="module")
async def scene(door: Any, provider: Any, names: Any) -> Scene:
    """One account for all."""
    return await new_scene(door, provider, names)


def logout(scene: Scene, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "iss": scene.provider.issuer,
        "aud": CLIENT_ID,
        "iat": now,
        "exp": now + 120,
        "jti": str(new_uuid()),
        "events": {LOGOUT_EVENT: {}},
        "sid": "s-1",
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


async def send(scene: Scene, token: str) -> httpx.Response:
    return await Browser(platform=scene.platform, agent="a provider").send(
        "POST", f"{scene.start}/back-channel-logout", data={"logout_token": token}
    )


async def signed_in(scene: Scene, session: str | None) -> Browser:
    browser = scene.browser()
    assert (await scene.sign_in(browser, sid=session)).status_code == 303
    assert await browser.is_signed_in()
    return browser


async def test_a_session_is_ended_by_its_name(scene: Scene) -> None:
    first, second = await signed_in(scene, "s-1"), await signed_in(scene, "s-2")
    answer = await send(scene, scene.provider.sign(logout(scene), typ="logout+jwt"))
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert not await first.is_signed_in()
    assert await second.is_signed_in()


async def test_all_sessions_of_a_subject_are_ended(scene: Scene) -> None:
    browsers = [await signed_in(scene, "s-1"), await signed_in(scene, "s-2")]
    assert (await send(scene, scene.provider.sign(logout(scene, sid=None, sub="ada-1")))).status_code == 200
    assert [await browser.is_signed_in() for browser in browsers] == [False, False]


async def test_a_session_whose_name_we_were_not_told_is_ended_by_the_subject(scene: Scene) -> None:
    unnamed, other = await signed_in(scene, None), await signed_in(scene, "s-2")
    assert (await send(scene, scene.provider.sign(logout(scene, sub="somebody-else")))).status_code == 200
    assert await unnamed.is_signed_in()
    assert (await send(scene, scene.provider.sign(logout(scene, sub="ada-1")))).status_code == 200
    assert not await unnamed.is_signed_in()
    assert await other.is_signed_in()


NOW = int(time.time())
BAD: dict[str, dict[str, Any]] = {
    "a nonce": {"nonce": "x"},
    "no event": {"events": None},
    "another event": {"events": {"http://schemas.openid.net/event/other": {}}},
    "an event that is no object": {"events": {LOGOUT_EVENT: True}},
    "nobody": {"sid": None},
    "no id": {"jti": None},
    "another audience": {"aud": "somebody-else"},
    "another issuer": {"iss": "https://127.0.0.1:1"},
    "expired": {"iat": NOW - 500, "exp": NOW - 120},
    "old": {"iat": NOW - 3600},
    "no end": {"exp": None},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD.keys())
async def test_a_logout_token_that_is_none_ends_nothing(scene: Scene, changes: dict[str, Any]) -> None:
    browser = await signed_in(scene, "s-1")
    answer = await send(scene, scene.provider.sign(logout(scene, **changes)))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert await browser.is_signed_in()


async def test_a_logout_token_counts_once_and_from_the_provider(scene: Scene) -> None:
    token = scene.provider.sign(logout(scene))
    assert (await send(scene, token)).status_code == 200
    browser = await signed_in(scene, "s-1")
    assert (await send(scene, token)).status_code == 400
    assert (await send(scene, scene.provider.sign(logout(scene), key=new_key("first")))).status_code == 400
    assert (await send(scene, scene.provider.sign(logout(scene), typ="at+jwt"))).status_code == 400
    assert (await send(scene, "")).status_code == 400
    assert await browser.is_signed_in()


async def test_a_logout_that_ends_nothing_is_not_recorded(scene: Scene) -> None:
    async def told() -> int:
        async with scene.platform.app.operation(operator(), account=AccountId(UUID(scene.account.account_id))) as op:
            rows = await op.rows("select t::text from audit_entries t")
        return sum("session.end-by-provider" in row[0] for row in rows)

    await signed_in(scene, "s-20")
    before = await told()
    frame, path = Browser(platform=scene.platform), f"{scene.start}/front-channel-logout"
    for session in ("s-21", "s-20", "s-20"):
        query = {"iss": scene.provider.issuer, "sid": session}
        assert (await frame.send("GET", path, params=query)).status_code == 200
    assert (await send(scene, scene.provider.sign(logout(scene, sid="s-20")))).status_code == 200
    assert await told() == before + 1


async def test_refused_logout_tokens_are_counted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MAX_REFUSED", 2)
    assert (await send(scene, scene.provider.sign(logout(scene)))).status_code == 200, "counts from nothing again"
    assert [(await send(scene, "none")).status_code for _ in range(3)] == [400, 400, 429]
    monkeypatch.undo()
    assert (await send(scene, scene.provider.sign(logout(scene)))).status_code == 200


async def test_an_id_token_is_no_logout_token_and_the_other_way_round(scene: Scene) -> None:
    browser = scene.browser()
    query = await scene.leave(browser)
    assert (await send(scene, scene.provider.sign(scene.claims(query, sid="s-1")))).status_code == 400
    scene.provider.token = scene.provider.sign({**scene.claims(query), **logout(scene)}, typ="logout+jwt")
    assert (await scene.come_back(browser, query)).status_code == 401


async def test_a_page_of_the_provider_ends_a_session(scene: Scene) -> None:
    browser = await signed_in(scene, "s-9")
    frame = Browser(platform=scene.platform)
    for wrong in ({"iss": "https://127.0.0.1:1", "sid": "s-9"}, {"iss": scene.provider.issuer, "sid": "s-8"}, {}):
        assert (await frame.send("GET", f"{scene.start}/front-channel-logout", params=wrong)).status_code == 200
        assert await browser.is_signed_in()
    right = {"iss": scene.provider.issuer, "sid": "s-9"}
    assert (await frame.send("GET", f"{scene.start}/front-channel-logout", params=right)).status_code == 200
    assert not await browser.is_signed_in()
