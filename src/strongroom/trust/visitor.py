"""A browser without scripts, for checks that go through pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from strongroom.outbound import Answer
from strongroom.trust.workbench import Workbench

_COOKIE: Final = re.compile(r"(__Host-[a-z-]+)=([^;,]*)")


class Visitor:
    """Keeps cookies, sends forms as pages of the same origin do, and follows nothing."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._cookies: dict[str, str] = {}

    async def send(
        self, method: str, path: str, form: Mapping[str, str] | None = None, *, site: str = "same-origin"
    ) -> Answer:
        """One request with the cookies. `site`: where a form comes from (Fetch Metadata)."""
        headers = {"cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        if form is not None:
            headers |= {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": site}
        url, body = self.bench.api.url + path, urlencode(form or {}).encode()
        answer = await self.bench.outbound.request(method, url, headers=headers, body=body)
        self._cookies |= dict(_COOKIE.findall(answer.headers.get("set-cookie", "")))
        return answer
