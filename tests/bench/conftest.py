"""A folder that the database's own user can pass through."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def passable() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="strongroom-bench-test-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)
