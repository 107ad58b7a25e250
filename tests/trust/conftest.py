"""One installation for the checks to be right and wrong about; a test that breaks something mends it again."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from strongroom.assembly import Installation
from strongroom.cli.workbenches import throw_away
from strongroom.identity.certificates import write_private
from strongroom.kernel.config import Config, Environment
from strongroom.trust import Workbench
from strongroom.trust.stage import stage
from tests.fixtures.platform import lay_out


def with_plain_root(config: Config) -> Installation:
    """An installation whose root key is in its first form, which has no label, so that it can be tried elsewhere."""
    lay_out(config.data_dir, config.environment)
    installation = Installation(config)
    installation.prepare()
    write_private(config.keys_dir / "master.key", os.urandom(32))
    return installation


@pytest.fixture(scope="session")
async def bench() -> AsyncIterator[Workbench]:
    """A sandbox of its own, served by this process."""
    async with throw_away(Environment.SANDBOX, ("eu", "ch"), with_plain_root) as made:
        async with stage(made):  # so that the accounts of the stage are made with everything in order
            pass
        yield made
