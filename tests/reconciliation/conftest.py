"""A tenant that pays by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from strongroom.assembly import App
from tests.fixtures.platform import Client
from tests.reconciliation.bank import BankWorld


@pytest.fixture
async def bank(app: App, tenant: Client, tmp_path: Path) -> BankWorld:
    """A new tenant with a file rail and folders of its own."""
    return await BankWorld.open(app, tenant, tmp_path)
