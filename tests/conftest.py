"""Settings for every test."""

from __future__ import annotations

import gc

import pytest
from hypothesis import settings

from strongroom.kernel.telemetry import configure_logs

pytest_plugins = ["tests.fixtures.platform", "tests.fixtures.strict"]

LONG = ("processes", "trust", "cli", "bench", "properties", "vault")
"""Folders with files that take long. They go first, so that the workers end together."""

# The speed of the machine is not what properties are about.
settings.register_profile("strongroom", deadline=None, print_blob=True)
settings.load_profile("strongroom")

# As the product logs: drawing a traceback with frames and colours takes longer than most tests.
configure_logs()


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Async tests run on the event loop that the product runs on."""
    return "asyncio", {"use_uvloop": True}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parent.name not in LONG)


def pytest_collection_finish() -> None:
    """What tests are made of stays to the end: the garbage collector needn't walk through it again and again."""
    gc.collect()
    gc.freeze()
