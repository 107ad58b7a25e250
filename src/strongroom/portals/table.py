"""The table of all pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from strongroom.portals import account, assets, entrance, passkeys
from strongroom.portals.web import Page

PAGES: Final[Sequence[Page]] = (*account.PAGES, *entrance.PAGES, *passkeys.PAGES, *assets.PAGES)
