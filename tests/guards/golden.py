"""Golden files: what the system looks like as a whole, checked in, so that every change of it is seen and meant."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from tests.guards.tree import ROOT, shown

GOLDEN = ROOT / "tests" / "golden"
WRITE = "STRONGROOM_WRITE_GOLDEN"


def differences(path: Path, content: str) -> str:
    """What is different between a golden file and what there is now; empty when nothing is.

    With STRONGROOM_WRITE_GOLDEN=1 in the environment the file is written instead.
    """
    if os.environ.get(WRITE) == "1":
        path.write_text(content, encoding="utf-8")
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    if kept == content:
        return ""
    lines = difflib.unified_diff(kept.splitlines(), content.splitlines(), shown(path), "now", lineterm="", n=1)
    return "\n".join([*list(lines)[:60], f"If that is meant: {WRITE}=1 pytest tests/guards, and commit {shown(path)}."])
