"""What pages are made up with: one stylesheet, which begins as that of the page of promises, and one script."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Final

from strongroom.api.trust import STYLE
from strongroom.portals.web import Answer, Entrance, Page, Visit

_FILES: Final = resources.files("strongroom.portals") / "assets"
_KEPT: Final = b"public, max-age=300"


async def _style(_: Visit) -> Answer:
    return Answer(content=_STYLESHEET, media=b"text/css; charset=utf-8", cache=_KEPT)


async def _script(_: Visit) -> Answer:
    return Answer(content=_SCRIPT, media=b"text/javascript; charset=utf-8", cache=_KEPT)


_SCRIPT: Final = (_FILES / "passkeys.js").read_bytes()
_STYLESHEET: Final = (STYLE + (_FILES / "portal.css").read_text("utf-8")).encode()

PAGES: Final[Sequence[Page]] = (
    Page(method="GET", path="/portal/assets/portal.css", entrance=Entrance.EVERYBODY, handler=_style),
    Page(method="GET", path="/portal/assets/passkeys.js", entrance=Entrance.EVERYBODY, handler=_script),
)
