"""Passwords are hashed in a hurry here: what a hash costs is looked at where passwords are tested."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher

from strongroom.people import passwords


@pytest.fixture(autouse=True, scope="package")
def quick_hashes() -> Iterator[None]:
    """The same function with the least memory it takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        yield
