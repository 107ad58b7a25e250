"""Cells that a spreadsheet would take for formulas, and the way to write them so that it doesn't.

Files of refused lines repeat what strangers wrote, and people open them in spreadsheets. Following OWASP ("CSV
injection"), a cell that begins with one of `=`, `+`, `-`, `@`, tab or a line end gets an apostrophe in front; so does
every place inside a cell after what some spreadsheet takes for the end of one. Plain numbers stay as they are.

Nothing is lost: `plain` gives back what `harmless` was given, whatever that was.
"""

from __future__ import annotations

import re
from typing import Final

_PLACE: Final = r"(^|[,;|\t\r\n\"])"
_FORMULA: Final = r"(?=[=+\-@\t\r\n])"
_HARMFUL: Final = re.compile(rf"{_PLACE}('*){_FORMULA}")
_MARKED: Final = re.compile(rf"{_PLACE}'('*){_FORMULA}")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)*", re.ASCII)


def harmless(cell: str) -> str:
    """The cell as it is written."""
    return cell if _NUMBER.fullmatch(cell) else _HARMFUL.sub(r"\1'\2", cell)


def plain(cell: str) -> str:
    """The cell as it was, from how `harmless` wrote it."""
    return _MARKED.sub(r"\1\2", cell)
