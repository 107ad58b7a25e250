"""A process with a holder elsewhere, and a tenant in it whose keys are led through their life."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest

from strongroom.assembly import Installation
from strongroom.kernel.clock import ManualClock
from strongroom.vault.holders import root
from tests.fixtures.platform import Platform
from tests.vault.desk import Owner, process
from tests.vault.holding import Elsewhere


@pytest.fixture(autouse=True, scope="package")
def shipped_cost() -> Iterator[int]:
    """What making a key of a passphrase costs as shipped (log2 of scrypt's N). Here it costs the least that is read."""
    shipped = root.LOG2_N
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(root, "LOG2_N", root.LOG2_N_RANGE[0])
        yield shipped


@pytest.fixture
def elsewhere() -> Elsewhere:
    return Elsewhere()


@pytest.fixture
def allowed() -> set[UUID]:
    """The accounts that may use the holder elsewhere."""
    return set()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.fixture
async def near(
    installation: Installation, elsewhere: Elsewhere, allowed: set[UUID], clock: ManualClock
) -> AsyncIterator[Platform]:
    async with process(installation, elsewhere, allowed, clock) as made:
        yield made


@pytest.fixture
async def far(
    installation: Installation, elsewhere: Elsewhere, allowed: set[UUID], clock: ManualClock
) -> AsyncIterator[Platform]:
    """Another process of the same installation."""
    async with process(installation, elsewhere, allowed, clock) as made:
        yield made


@pytest.fixture
async def owner(near: Platform, elsewhere: Elsewhere, allowed: set[UUID]) -> Owner:
    made = await Owner.make(near.app, await near.new_tenant(), elsewhere)
    allowed.add(made.account)
    return made
