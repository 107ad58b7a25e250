"""Judged by npm's `oidc-provider`, a certified OpenID provider: in, and out again by its back channel."""

from __future__ import annotations

import dataclasses
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urljoin

import httpx
import pytest

from strongroom.assembly import Installation
from strongroom.cli.supervisor import choose_port
from strongroom.cli.workbenches import listening
from tests.fixtures.oidc_provider import oidc_provider
from tests.fixtures.platform import opened
from tests.people.browser import Browser
from tests.people.single_sign_on.made import PATH, MadeProvider, NameServer, Scene, verified_domain

DOMAIN = "judged.example"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An account whose provider is the judge."""

    scene: Scene
    issuer: str
    trust: ssl.SSLContext


@pytest.fixture(scope="module", params=["client_secret_basic", "private_key_jwt"])
async def judged(
    installation: Installation, names: NameServer, provider: MadeProvider, request: pytest.FixtureRequest
) -> AsyncIterator[Judged]:
    """The installation served over TLS, so that the judge reaches it, and the judge."""
    port = choose_port("127.0.0.1", 0)
    base = dataclasses.replace(installation.config, port=port, providers_ca=installation.ca_file)
    certificate = installation.certificate()
    async with opened(Installation(base)) as first:
        account = await first.new_account()
    start = f"https://localhost:{port}/portal/single-sign-on/{account.account_id}"
    client = {
        "client_id": "strongroom",
        "redirect_uris": [f"{start}/callback"],
        "token_endpoint_auth_method": request.param,
        "backchannel_logout_uri": f"{start}/back-channel-logout",
        "backchannel_logout_session_required": True,
    }
    if request.param == "private_key_jwt":
        client |= {"jwks_uri": f"{start}/keys", "token_endpoint_auth_signing_alg": "ES256"}
    else:
        client["client_secret"] = "a secret of forty characters, as it says"
    configuration = {
        "clients": [client],
        "claims": {"openid": ["sub", "sid"], "email": ["email", "email_verified"], "profile": ["name", "groups"]},
        "features": {"backchannelLogout": {"enabled": True}},
        "people": {
            "ada": {
                "email": f"ada@{request.param.replace('_', '-')}.{DOMAIN}",
                "email_verified": True,
                "name": "Ada",
                "groups": ["Claims"],
            }
        },
        "tls": {"key": str(certificate.key), "cert": str(certificate.chain)},
    }
    with oidc_provider(configuration, trust=installation.ca_file) as issuer:
        config = dataclasses.replace(
            base, internal_providers=(issuer.removeprefix("https://"),), name_servers=(names.place,)
        )
        async with opened(Installation(config)) as platform, listening(platform.app.application, port, certificate):
            account = dataclasses.replace(account, http=platform.http, token="")
            scene = Scene(platform=platform, account=account, provider=provider, names=names, domain=DOMAIN)
            await verified_domain(account, names, f"{request.param.replace('_', '-')}.{DOMAIN}")
            scene.settings = {
                "kind": "OIDC",
                "name": "The judge",
                "enabled": True,
                "createsUsers": True,
                "groupRoles": [{"group": "Claims", "roles": ["account-tenant-read"]}],
                "oidc": {
                    "issuer": issuer,
                    "clientId": "strongroom",
                    "clientSecret": client.get("client_secret"),
                    "clientAuthentication": request.param,
                },
            }
            assert (await scene.put()).status_code == 200
            trust = ssl.create_default_context(cafile=installation.ca_file)
            yield Judged(scene=scene, issuer=issuer, trust=trust)


async def sign_in_at_the_judge(http: httpx.AsyncClient, url: str) -> str:
    """Fill in the judge's own pages until it sends the browser back; to where."""
    answer = await http.get(url)
    for _ in range(10):
        if answer.is_redirect:
            location = urljoin(str(answer.url), answer.headers["location"])
            if "/callback?" in location:
                return location
            answer = await http.get(location)
            continue
        action = re.search(r'<form[^>]* action="([^"]+)"', answer.text)
        prompt = re.search(r'name="prompt" value="([^"]+)"', answer.text)
        assert action is not None and prompt is not None, answer.text
        form = {"prompt": prompt[1], "login": "ada", "password": "any"}
        answer = await http.post(urljoin(str(answer.url), action[1]), data=form)
    raise AssertionError(answer.text)


async def test_in_by_the_judge_and_out_by_its_back_channel(judged: Judged) -> None:
    scene = judged.scene
    browser = Browser(platform=scene.platform)
    away = await browser.send("GET", scene.start)
    assert away.headers["location"].startswith(judged.issuer), away.text
    async with httpx.AsyncClient(verify=judged.trust) as http:
        back = await sign_in_at_the_judge(http, away.headers["location"])
        assert "iss=" in back
        answer = await browser.open(back)
        assert (answer.status_code, browser.url) == (200, "/portal/account"), answer.text
        assert "account-tenant-read" in answer.text and "Ada" in answer.text

        page = await http.get(f"{judged.issuer}/session/end")
        secret = re.search(r'name="xsrf" value="([^"]+)"', page.text)
        assert secret is not None, page.text
        await http.post(f"{judged.issuer}/session/end/confirm", data={"xsrf": secret[1], "logout": "yes"})
    assert not await browser.is_signed_in()


async def test_the_judge_passes_the_test_button(judged: Judged) -> None:
    answer = await judged.scene.account.post(f"{PATH}/test")
    assert answer.json()["succeeded"] is True, answer.text


async def test_the_judge_refuses_a_code_that_was_used(judged: Judged) -> None:
    scene, browser = judged.scene, Browser(platform=judged.scene.platform)
    away = await browser.send("GET", scene.start)
    async with httpx.AsyncClient(verify=judged.trust) as http:
        back = await sign_in_at_the_judge(http, away.headers["location"])
    code = httpx.URL(back).params["code"]
    assert (await browser.open(back)).status_code == 200
    other = Browser(platform=scene.platform)
    away = await other.send("GET", scene.start)
    state = httpx.URL(away.headers["location"]).params["state"]
    answer = await other.send(
        "GET", f"{scene.start}/callback", params={"code": code, "state": state, "iss": judged.issuer}
    )
    assert answer.status_code == 401 and "invalid_grant" in answer.text
    assert not await other.is_signed_in()
