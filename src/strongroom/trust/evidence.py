"""Evidence: what every check found, kept in the directory and never changed. The last one of each promise counts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from strongroom.database import Databases
from strongroom.trust.promises import PROMISES
from strongroom.trust.verdicts import Colour, Verdict

NOT_CHECKED = "No check of this promise has run on this installation."
NOT_BUILT = "Nothing checks this promise yet, so nothing is claimed."


async def keep(databases: Databases, verdicts: Sequence[Verdict]) -> None:
    """Write down how checks went. What no check decided leaves no evidence."""
    async with databases.directory() as directory:
        for verdict in verdicts:
            if verdict.colour is not Colour.UNBUILT:
                await directory.execute(
                    "insert into evidence (control_id, checked_at, verdict, figure) values (%s, %s, %s, %s) "
                    "on conflict do nothing",
                    (verdict.id, verdict.checked_at, verdict.colour.value, verdict.figure),
                )


async def last_verdicts(databases: Databases, checkable: Collection[str]) -> Sequence[Verdict]:
    """How every promise stood when it was last checked. `checkable` are the ids of promises that have a check."""
    async with databases.directory() as directory:
        cursor = await directory.execute(
            "select distinct on (control_id) control_id, checked_at, verdict, figure from evidence "
            "order by control_id, checked_at desc"
        )
        rows: dict[str, tuple[datetime, str, str]] = {row[0]: row[1:] for row in await cursor.fetchall()}
    verdicts = []
    for promise in PROMISES:
        checked_at, colour, figure = rows.get(
            promise.id, (None, Colour.UNBUILT, NOT_CHECKED if promise.id in checkable else NOT_BUILT)
        )
        verdicts.append(
            Verdict(
                id=promise.id, promise=promise.sentence, colour=Colour(colour), figure=figure, checked_at=checked_at
            )
        )
    return verdicts
