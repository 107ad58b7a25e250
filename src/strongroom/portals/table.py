"""The table of all pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from strongroom.portals import account, assets, entrance, passkeys, provider_settings, single_sign_on
from strongroom.portals.web import Page

PAGES: Final[Sequence[Page]] = (
    *account.PAGES,
    *entrance.PAGES,
    *passkeys.PAGES,
    *single_sign_on.PAGES,
    *provider_settings.PAGES,
    *assets.PAGES,
)
