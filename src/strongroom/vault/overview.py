"""What an owner may know of its keys beside the keys themselves: rotations, and how much there is under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from strongroom.access import Permission, require
from strongroom.database import Operation
from strongroom.database.catalogue import SENSITIVE
from strongroom.kernel.errors import Failure, NotFound
from strongroom.vault import _walking
from strongroom.vault.envelopes import Layer
from strongroom.vault.work import ONCE, Work, list_work


async def list_rotations(op: Operation) -> Sequence[Work]:
    """The rotations of the operation's scope, newest first. Raises errors.Forbidden."""
    require(op, Permission.ENCRYPTION_KEYS_READ)
    return [work for work in await list_work(op) if work.kind not in ONCE]


async def get_rotation(op: Operation, work_id: UUID | None) -> Work:
    """One of them. Raises errors.NotFound (`KEY_WORK_NOT_FOUND`), errors.Forbidden."""
    found = next((work for work in await list_rotations(op) if work.work_id == work_id), None)
    if found is None:
        raise NotFound(Failure("KEY_WORK_NOT_FOUND", "There is no such rotation of these keys."))
    return found


async def count_sealed(op: Operation, layer: Layer) -> Mapping[str, int]:
    """How many fields of each table are sealed under a layer of the operation's scope, of those that have some.

    Reads the tables through: seconds, where there are millions of rows. Raises errors.Forbidden.
    """
    require(op, Permission.ENCRYPTION_KEYS_READ)
    counts: dict[str, int] = {}
    for (table, column), count in (await _walking.count_by_column(op)).items():
        if count and (layer is Layer.PLATFORM or (table, column) in SENSITIVE):
            counts[table] = counts.get(table, 0) + count
    return counts
