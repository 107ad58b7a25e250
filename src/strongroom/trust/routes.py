"""Paths for probing: a route's path with something in place of every parameter."""

from __future__ import annotations

import re
from typing import Final

from strongroom.kernel.ids import new_scheme_id, new_uuid
from strongroom.trust.workbench import Endpoint

_PARAMETER: Final = re.compile(r"\{(\w+)[^}]*\}", re.ASCII)


def path_of(endpoint: Endpoint, **known: str) -> str:
    """The path with what is known of its parameters, and something plausible for the rest."""

    def fill(parameter: re.Match[str]) -> str:
        name = parameter[1]
        if name in known:
            return known[name]
        if name == "schemeId":
            return new_scheme_id()
        return str(new_uuid()) if name.lower().endswith(("id", "key")) else "prove-none"

    return _PARAMETER.sub(fill, endpoint.path)
