"""Migrations: numbered SQL files, each applied once, in order, in a transaction of its own.

`NNN_name.before.sql` runs before the new code starts and only adds, so that the old code keeps working beside it;
`NNN_name.after.sql` runs when no old code is left and may take away.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any, Final, Literal

import psycopg

from strongroom.kernel.errors import Broken, Failure

Kind = Literal["directory", "region", "cards"]
Phase = Literal["before", "after"]
_ADVISORY_LOCK: Final = 7_305_808_869_231_650_926


def migrate(
    connection: psycopg.Connection[Any], kind: Kind, phases: tuple[Phase, ...] = ("before", "after")
) -> list[str]:
    """Apply what is missing; returns the names of what was applied.

    Raises errors.Broken (`MIGRATION_CHANGED`) when a migration that was applied earlier reads differently now.
    """
    applied: list[str] = []
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))
        connection.execute(
            "create table if not exists schema_migrations "
            "(name text primary key, checksum bytea not null, applied_at timestamptz not null default now())"
        )
        known: dict[str, bytes] = dict(connection.execute("select name, checksum from schema_migrations").fetchall())
        for name, text in _files(kind, phases):
            checksum = hashlib.sha256(text.encode()).digest()
            if name in known:
                if known[name] != checksum:
                    raise Broken(
                        Failure(
                            "MIGRATION_CHANGED",
                            "The migration {name} was changed after it was applied to this database. Put it back, and "
                            "write a new one instead.",
                            {"name": name},
                        )
                    )
                continue
            connection.execute(text.encode())
            connection.execute("insert into schema_migrations (name, checksum) values (%s, %s)", (name, checksum))
            applied.append(name)
    return applied


def _files(kind: Kind, phases: tuple[Phase, ...]) -> list[tuple[str, str]]:
    folder = resources.files("strongroom.database") / "migrations" / kind
    files = [entry for entry in folder.iterdir() if entry.name.endswith(tuple(f".{phase}.sql" for phase in phases))]
    return [(entry.name, entry.read_text()) for entry in sorted(files, key=lambda entry: entry.name)]
