"""OpenID Connect, with a provider that says whatever it is told to."""

from __future__ import annotations

import base64
import hmac
import time
from typing import Any
from urllib.parse import quote_plus
from uuid import UUID

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from strongroom.kernel.actors import operator
from strongroom.kernel.ids import AccountId
from strongroom.people.keys import encode
from strongroom.people.single_sign_on import oidc
from tests.people.browser import new_link
from tests.people.single_sign_on.made import CLIENT_ID, CLIENT_SECRET, PATH, Scene, new_key, new_scene, one_each


async def test_somebody_invited_comes_in_without_a_password(scene: Scene) -> None:
    assert (await scene.put(createsUsers=False)).status_code == 200
    await new_link(scene.platform, scene.account, scene.address(), "account-admin")
    browser = scene.browser()
    answer = await scene.sign_in(browser)
    assert (answer.status_code, answer.headers["location"]) == (303, "/portal/account"), answer.text
    home = await browser.open("/portal/account")
    assert "Ada Beispiel" in home.text and "account-admin" in home.text and "single sign-on (OIDC)" in home.text
    users = (await scene.account.get("/v1/account/users")).json()["results"]
    assert [(user["emailAddress"], user["invitationStatus"], user["isSsoUser"]) for user in users] == [
        (scene.address(), "ACCEPTED", True)
    ]


async def test_what_the_provider_is_asked(scene: Scene) -> None:
    query = await scene.leave(scene.browser())
    assert {name: query[name] for name in ("response_type", "client_id", "code_challenge_method", "scope")} == {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "code_challenge_method": "S256",
        "scope": "openid email profile",
    }
    assert query["redirect_uri"].endswith(f"{scene.start}/callback")
    assert len(query["code_challenge"]) == 43 and len(query["nonce"]) == 43
    again = await scene.leave(scene.browser())
    assert not {again[name] for name in ("state", "nonce", "code_challenge")} & set(query.values())


async def test_the_client_proves_itself_with_its_secret(scene: Scene) -> None:
    assert (await scene.sign_in(scene.browser())).status_code == 303
    at = len(scene.provider.asked) - 1 - scene.provider.asked[::-1].index("/token")
    pair = f"{CLIENT_ID}:{quote_plus(CLIENT_SECRET)}"
    assert scene.provider.authorizations[at] == "Basic " + base64.b64encode(pair.encode()).decode()
    assert CLIENT_SECRET not in str(scene.provider.forms[at])
    assert len(scene.provider.forms[at]["code_verifier"]) == 43


async def test_the_client_proves_itself_with_a_key(scene: Scene) -> None:
    settings = {**scene.settings["oidc"], "clientAuthentication": "private_key_jwt", "clientSecret": None}
    assert (await scene.put(oidc=settings)).status_code == 200
    assert (await scene.sign_in(scene.browser())).status_code == 303
    at = len(scene.provider.asked) - 1 - scene.provider.asked[::-1].index("/token")
    assert scene.provider.authorizations[at] == ""
    published = (await scene.browser().send("GET", f"{scene.start}/keys")).json()["keys"]
    assert [set(key) & {"d"} for key in published] == [set()]
    token = scene.provider.forms[at]["client_assertion"]
    claims = jwt.decode(token, ECKey.import_key(published[0]), algorithms=["ES256"]).claims
    assert (claims["iss"], claims["sub"], claims["aud"]) == (CLIENT_ID, CLIENT_ID, scene.provider.issuer)
    assert 0 < claims["exp"] - time.time() <= 60


async def test_an_address_is_verified_by_a_word_or_if_nothing_is_said(scene: Scene) -> None:
    for said in ("true", None):
        assert (await scene.sign_in(scene.browser(), email_verified=said)).status_code == 303, said


async def test_a_step_up_takes_a_new_proof_at_the_provider(scene: Scene) -> None:
    now = int(time.time())
    browser = scene.browser()
    for said, fresh in ((now - 3600, False), (None, False), ("now", False), (now, True), (1 << 39, True)):
        assert (await scene.sign_in(browser, auth_time=said)).status_code == 303
        await browser.open("/portal/account")
        answer = await browser.post("/portal/recovery-codes", **browser.hidden("/portal/sign-out"))
        assert (answer.headers.get("location") == "/portal/prove") is not fresh, said
        assert (answer.status_code == 200) is fresh, answer.text
    async with scene.platform.app.operation(operator(), account=AccountId(UUID(scene.account.account_id))) as op:
        assert not await op.rows("select 1 from sessions where proven_at > created_at")
    page = await browser.open("/portal/prove")
    link = f"{scene.start}?afresh=yes"
    assert f'href="{link}"' in page.text
    query = one_each((await browser.send("GET", link)).headers["location"])
    assert (query["prompt"], query["max_age"]) == ("login", "0")
    assert not {"prompt", "max_age"} & set(await scene.leave(scene.browser()))


NOW = int(time.time())
BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://127.0.0.1:1"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "somebody-else"},
    "no audience": {"aud": None},
    "two audiences without azp": {"aud": [CLIENT_ID, "somebody-else"]},
    "given to another": {"azp": "somebody-else"},
    "expired": {"iat": NOW - 500, "exp": NOW - 61},
    "no end": {"exp": None},
    "an end that is no number": {"exp": "tomorrow"},
    "from the future": {"iat": NOW + 3600, "exp": NOW + 7200},
    "old": {"iat": NOW - 3600},
    "no beginning": {"iat": None},
    "not yet": {"nbf": NOW + 3600},
    "another nonce": {"nonce": encode(bytes(32))},
    "no nonce": {"nonce": None},
    "no subject": {"sub": None},
    "another access token": {"at_hash": encode(bytes(16))},
    "an address that isn't verified": {"email_verified": False},
    "an address that isn't verified, in a word": {"email_verified": "false"},
    "an address that is verified in another word": {"email_verified": "unknown"},
    "an address that is verified by a number": {"email_verified": 1},
}


@pytest.mark.parametrize("changes", BAD_CLAIMS.values(), ids=BAD_CLAIMS.keys())
async def test_a_token_that_says_something_wrong_is_refused(bad: Scene, changes: dict[str, Any]) -> None:
    browser = bad.browser()
    answer = await bad.sign_in(browser, **changes)
    assert answer.status_code == 401, answer.text
    assert "__Host-session" not in browser.cookies
    assert "The provider" in answer.text and "Nobody was signed in" in answer.text


@pytest.fixture(scope="module")
async def bad(door: Any, provider: Any, names: Any) -> Scene:
    """One account for all that is refused."""
    return await new_scene(door, provider, names)


def _unsigned(scene: Scene, claims: dict[str, Any]) -> str:
    header = encode(msgspec.json.encode({"alg": "none", "kid": "first"}))
    return f"{header}.{encode(msgspec.json.encode(claims))}."


def _shared_secret(scene: Scene, claims: dict[str, Any]) -> str:
    return scene.provider.sign(claims, key=OctKey.import_key(CLIENT_SECRET, {"kid": "first"}), algorithm="HS256")


def _public_key_as_secret(scene: Scene, claims: dict[str, Any]) -> str:
    """By hand, since libraries refuse to."""
    parts = ({"alg": "HS256", "kid": "first"}, claims)
    signed = ".".join(encode(msgspec.json.encode(part)) for part in parts)
    public = scene.provider.key.as_pem(private=False)
    return f"{signed}.{encode(hmac.digest(public, signed.encode(), 'sha256'))}"


def _altered(scene: Scene, claims: dict[str, Any]) -> str:
    header, _, signature = scene.provider.sign(claims).split(".")
    return f"{header}.{encode(msgspec.json.encode({**claims, 'email': 'eve@' + scene.domain}))}.{signature}"


BAD_TOKENS = {
    "unsigned": _unsigned,
    "signed with the client's secret": _shared_secret,
    "signed with the public key as a secret": _public_key_as_secret,
    "altered": _altered,
    "signed by somebody else": lambda scene, claims: scene.provider.sign(claims, key=new_key("first")),
    "signed by a key that isn't published": lambda scene, claims: scene.provider.sign(claims, key=new_key("other")),
    "its own key in the header": lambda scene, claims: scene.provider.sign(
        claims, key=(key := new_key("other")), jwk=key.as_dict(private=False)
    ),
    "of another type": lambda scene, claims: scene.provider.sign(claims, typ="at+jwt"),
    "no token": lambda scene, claims: "nothing",
    "empty": lambda scene, claims: "",
}


@pytest.mark.parametrize("make", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
async def test_a_token_that_the_provider_did_not_sign_is_refused(bad: Scene, make: Any) -> None:
    browser = bad.browser()
    query = await bad.leave(browser)
    bad.provider.token = make(bad, bad.claims(query))
    answer = await bad.come_back(browser, query)
    assert answer.status_code == 401, answer.text
    assert "__Host-session" not in browser.cookies


BAD_ANSWERS: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://127.0.0.1:1"},
    "no issuer": {"iss": None},
    "no code": {"code": None},
    "an error": {"error": "access_denied"},
    "no state": {"state": None},
    "an invented state": {"state": encode(bytes(60))},
}


@pytest.mark.parametrize("changes", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
async def test_an_answer_that_is_not_to_our_question_is_refused(bad: Scene, changes: dict[str, Any]) -> None:
    browser = bad.browser()
    query = await bad.leave(browser)
    bad.provider.token = bad.provider.sign(bad.claims(query))
    answer = await bad.come_back(browser, query, **changes)
    assert answer.status_code == 401, answer.text
    assert "__Host-session" not in browser.cookies


async def test_an_answer_counts_once_and_for_its_browser_alone(bad: Scene) -> None:
    browser, other = bad.browser(), bad.browser()
    query = await bad.leave(browser)
    await bad.leave(other)
    bad.provider.token = bad.provider.sign(bad.claims(query))
    assert (await bad.come_back(other, query)).status_code == 401
    assert (await bad.come_back(bad.browser(), query)).status_code == 401
    kept = dict(browser.cookies)
    assert (await bad.come_back(browser, query)).status_code == 303
    browser.cookies = kept
    assert (await bad.come_back(browser, query)).status_code == 401


async def test_a_state_is_of_its_account_alone(bad: Scene, scene: Scene) -> None:
    browser = bad.browser()
    query = await bad.leave(browser)
    bad.provider.token = bad.provider.sign(bad.claims(query))
    assert (await scene.come_back(browser, query)).status_code == 401


async def test_keys_are_rotated_and_strange_keys_ask_the_provider_seldom(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = scene.provider
    assert (await scene.sign_in(scene.browser())).status_code == 303
    before = provider.asked.count("/jwks")
    assert (await scene.sign_in(scene.browser())).status_code == 303
    assert provider.asked.count("/jwks") == before, "keys are remembered"
    rotated = new_key("second")
    monkeypatch.setattr(provider, "key", rotated)
    monkeypatch.setattr(provider, "keys", [*provider.keys, rotated])
    assert (await scene.sign_in(scene.browser())).status_code == 303
    assert provider.asked.count("/jwks") == before + 1
    monkeypatch.setattr(provider, "key", new_key("never published"))
    for _ in range(3):
        assert (await scene.sign_in(scene.browser())).status_code == 401
    assert provider.asked.count("/jwks") == before + 1, f"again only after {oidc.REFETCH_AFTER}"


async def test_what_the_token_leaves_out_is_in_the_user_info(scene: Scene) -> None:
    scene.provider.userinfo = {"sub": "ada-1", "email": scene.address(), "name": "Ada"}
    assert (await scene.sign_in(scene.browser(), email=None)).status_code == 303
    scene.provider.userinfo = {"sub": "eve-1", "email": scene.address()}
    answer = await scene.sign_in(scene.browser(), email=None)
    assert answer.status_code == 401 and "somebody else" in answer.text


async def test_a_test_signs_nobody_in(scene: Scene) -> None:
    assert (await scene.put(enabled=False)).status_code == 200
    assert (await scene.browser().send("GET", scene.start)).status_code == 400
    answer = await scene.account.post(f"{PATH}/test")
    assert (answer.status_code, answer.json()["succeeded"]) == (200, True), answer.text
    assert [step["step"] for step in answer.json()["steps"]] == ["metadata", "keys", "domains"]
    scene.provider.metadata = {"issuer": "https://elsewhere.example"}
    answer = await scene.account.post(f"{PATH}/test")
    scene.provider.metadata = {}
    assert answer.json()["succeeded"] is False and "another issuer" in answer.json()["steps"][0]["message"]


async def test_no_answer_and_no_record_holds_a_secret(scene: Scene) -> None:
    shown = await scene.account.get(PATH)
    assert shown.json()["oidc"]["hasClientSecret"] is True
    assert CLIENT_SECRET not in shown.text and "PRIVATE" not in shown.text
    async with scene.platform.app.operation(operator(), account=AccountId(UUID(scene.account.account_id))) as op:
        rows = [str(row[0]) for row in await op.rows("select t::text from single_sign_ons t")]
        rows += [str(row[0]) for row in await op.rows("select t::text from audit_entries t")]
    assert rows and not any(CLIENT_SECRET in row or CLIENT_SECRET.encode().hex() in row for row in rows)
