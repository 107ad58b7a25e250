"""Chromium on the pages of a real listener."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from playwright.async_api import Browser, BrowserContext, CDPSession, Page, async_playwright

from strongroom.assembly import Installation
from strongroom.cli.supervisor import choose_port
from strongroom.cli.workbenches import listening
from strongroom.kernel.clock import SystemClock
from tests.fixtures.platform import Platform

AUTHENTICATOR = {
    "protocol": "ctap2",
    "ctap2Version": "ctap2_1",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@dataclass(frozen=True, kw_only=True)
class Served:
    """A process whose pages browsers find at `origin`; `elsewhere` serves the same at another origin."""

    platform: Platform
    origin: str
    elsewhere: str


@pytest.fixture(scope="module")
async def served(installation: Installation) -> AsyncIterator[Served]:
    """The common installation, served by this process."""
    ports = [choose_port("127.0.0.1", 0), 0]
    ports[1] = choose_port("127.0.0.1", 0)
    here = Installation(dataclasses.replace(installation.config, port=ports[0]))
    app = here.app(clock=SystemClock(), connections=4)
    await app.open()
    certificate = here.certificate()
    try:
        async with (
            listening(app.application, ports[0], certificate),
            listening(app.application, ports[1], certificate),
        ):
            platform = Platform(app)
            async with platform.http:
                yield Served(
                    platform=platform,
                    origin=f"https://localhost:{ports[0]}",
                    elsewhere=f"https://localhost:{ports[1]}",
                )
    finally:
        await app.close()


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """The system's Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--host-resolver-rules=MAP localhost 127.0.0.1"],
        )
        try:
            yield browser
        finally:
            await browser.close()


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window of somebody with an authenticator of their own."""

    context: BrowserContext
    page: Page
    devtools: CDPSession
    authenticator: str

    async def credentials(self) -> list[dict[str, object]]:
        """What the authenticator holds."""
        found = await self.devtools.send("WebAuthn.getCredentials", {"authenticatorId": self.authenticator})
        credentials: list[dict[str, object]] = found["credentials"]
        return credentials


@pytest.fixture
async def window(chromium: Browser) -> AsyncIterator[Window]:
    """A fresh window on a small screen."""
    context = await chromium.new_context(ignore_https_errors=True, viewport={"width": 390, "height": 844})
    page = await context.new_page()
    devtools = await context.new_cdp_session(page)
    await devtools.send("WebAuthn.enable")
    made = await devtools.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
    yield Window(context=context, page=page, devtools=devtools, authenticator=made["authenticatorId"])
    await context.close()
