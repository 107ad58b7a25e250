"""A browser without scripts: keeps cookies, follows redirects, fills forms the way a page asks for it."""

from __future__ import annotations

import base64
import html
import re
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx

from strongroom.kernel.actors import operator
from strongroom.kernel.ids import AccountId, TenantId
from strongroom.kernel.secret import Secret
from strongroom.people import invite
from strongroom.people.totp import STEP_S, code_at
from tests.fixtures.platform import Client, Platform

PASSWORD = "vier Esel tragen Heu"
ORIGIN = "https://strongroom.test"


@dataclass(kw_only=True)
class Browser:
    """Somebody's browser. `step` is the last time-based code's step, so that no code is used twice."""

    platform: Platform
    agent: str = "Lynx/2.9"
    source: str = "192.0.2.7"
    cookies: dict[str, str] = field(default_factory=dict)
    page: str = ""
    url: str = ""
    secret: bytes = b""
    step: int = 0
    codes: list[str] = field(default_factory=list)

    async def send(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **content: Any
    ) -> httpx.Response:
        """One request as it is, with the cookies; those that the answer sets are kept."""
        transport = httpx.ASGITransport(self.platform.app.application, client=(self.source, 40000))
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as http:
            answer = await http.request(
                method, path, headers={"user-agent": self.agent, "cookie": cookie, **(headers or {})}, **content
            )
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            assert name.startswith("__Host-") and "; Path=/; Secure; HttpOnly; SameSite=Lax" in line, line
            if "Max-Age=0" in line:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return answer

    async def open(self, path: str) -> httpx.Response:
        """Go to a page, along its redirects."""
        answer = await self.send(
            "GET", urlsplit(path).path + ("?" + urlsplit(path).query if urlsplit(path).query else "")
        )
        return await self._follow(path, answer)

    async def submit(self, action: str, **fields: str) -> httpx.Response:
        """Send the form of the page with this action, with what it holds and these fields."""
        answer = await self.post(action, **{**self.hidden(action), **fields})
        return await self._follow(action, answer)

    async def post(self, action: str, **fields: str) -> httpx.Response:
        """Send a form from a page of the same origin, and follow nothing."""
        return await self.send("POST", action, data=fields, headers={"sec-fetch-site": "same-origin"})

    def hidden(self, action: str) -> dict[str, str]:
        """The hidden fields of the form with this action."""
        forms = re.findall(r'<form method="post" action="([^"]+)"[^>]*>(.*?)</form>', self.page, re.DOTALL)
        body = next(body for found, body in forms if found == action)
        found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', body)
        return {name: html.unescape(value) for name, value in found}

    async def _follow(self, path: str, answer: httpx.Response) -> httpx.Response:
        for _ in range(5):
            if answer.status_code != 303:
                break
            path = answer.headers["location"]
            answer = await self.send("GET", path)
        self.page, self.url = answer.text, path
        return answer

    def code(self) -> str:
        """The authenticator's next code: of now, or of the step that comes, if that of now was used."""
        now = int(self.platform.app.clock.now().timestamp()) // STEP_S
        self.step = max(now, self.step + 1)
        return code_at(Secret(self.secret), self.step)

    async def accept(self, link: str, *, name: str = "Ada Beispiel", password: str = PASSWORD) -> httpx.Response:
        """Accept an invitation with a password and an authenticator; keeps the recovery codes."""
        answer = await self.open(link)
        assert answer.status_code == 200, answer.text
        shown = re.search(r'id="totp-secret">([A-Z2-7 ]+)<', self.page)
        assert shown is not None
        self.secret, self.step = base64.b32decode(shown[1].replace(" ", "")), 0
        answer = await self.submit("/portal/invitation", name=name, password=password, code=self.code())
        self.codes = re.findall(r'<li class="secret">([a-z2-9-]+)</li>', self.page)
        return answer

    async def sign_in(self, address: str, *, password: str = PASSWORD, code: str | None = None) -> httpx.Response:
        """Both steps of signing in."""
        await self.open("/portal/sign-in")
        answer = await self.submit("/portal/sign-in", address=address, password=password)
        if self.url != "/portal/sign-in/code":
            return answer
        return await self.submit("/portal/sign-in/code", code=code or self.code())

    async def is_signed_in(self) -> bool:
        """Whether the account's page opens."""
        answer = await self.send("GET", "/portal/account")
        assert answer.status_code in {200, 303}
        return answer.status_code == 200


async def new_link(
    platform: Platform, account: Client, address: str, *roles: str, tenant: str | None = None, **options: Any
) -> str:
    """The link of an invitation made by the operator."""
    async with platform.app.operation(operator(), account=AccountId(UUID(account.account_id))) as op:
        _, token = await invite(
            op,
            platform.app.databases,
            platform.app.front_door.keys,
            address=address,
            roles=roles or ("account-admin",),
            tenant=None if tenant is None else TenantId(UUID(tenant)),
            **options,
        )
    assert token is not None
    return platform.app.front_door.invitation_link(token).reveal()


async def new_person(platform: Platform, account: Client, address: str, *roles: str, **options: Any) -> Browser:
    """The browser of somebody who has just come in."""
    browser = Browser(platform=platform, **options)
    answer = await browser.accept(await new_link(platform, account, address, *roles))
    assert answer.status_code == 200, answer.text
    assert len(browser.codes) == 10
    return browser


def unique_address(name: str = "ada") -> str:
    """A made-up address that nobody has yet."""
    return f"{name}.{time.time_ns():x}@example.com"
