"""One installation for the checks to be right and wrong about; a test that breaks something mends it again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from strongroom.cli.workbenches import throw_away
from strongroom.kernel.config import Environment
from strongroom.trust import Workbench
from strongroom.trust.stage import stage


@pytest.fixture(scope="session")
async def bench() -> AsyncIterator[Workbench]:
    """A sandbox of its own, served by this process."""
    async with throw_away(Environment.SANDBOX, ("eu", "ch")) as made:
        async with stage(made):  # so that the accounts of the stage are made with everything in order
            pass
        yield made
