"""Migrations: each applied once, in order, never changed afterwards; and nothing unclassified comes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest
from psycopg import sql

from strongroom.assembly import Installation
from strongroom.database import migrating
from strongroom.database.databases import provision, url_of
from strongroom.kernel.errors import Broken, Unavailable
from strongroom.kernel.secret import Secret

Connection = psycopg.Connection[Any]


@pytest.fixture
def empty(installation: Installation) -> Iterator[Connection]:
    """A database of its own, with the application's role and nothing in it."""
    url = url_of(installation.admin_url, "eu").reveal()
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("create database strongroom_migrations")
        try:
            with psycopg.connect(psycopg.conninfo.make_conninfo(url, dbname="strongroom_migrations")) as connection:
                connection.autocommit = True
                yield connection
        finally:
            admin.execute("drop database strongroom_migrations with (force)")


def tables(connection: Connection) -> set[str]:
    rows = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
    return {row[0] for row in rows}


@pytest.mark.parametrize("kind", ["region", "directory"])
def test_they_are_applied_once(empty: Connection, kind: Literal["region", "directory"]) -> None:
    first = migrating.migrate(empty, kind)
    assert first == sorted(first)
    assert first
    assert len(tables(empty)) > 4
    assert migrating.migrate(empty, kind) == []
    kept = empty.execute("select name from schema_migrations order by name").fetchall()
    assert [row[0] for row in kept] == first


def test_one_that_was_changed_afterwards_stops_everything(empty: Connection) -> None:
    [name, *_] = migrating.migrate(empty, "directory")
    empty.execute("update schema_migrations set checksum = 'x' where name = %s", (name,))
    with pytest.raises(Broken) as broken:
        migrating.migrate(empty, "directory")
    assert broken.value.code == "MIGRATION_CHANGED"
    assert name in str(broken.value)


def test_before_and_after_are_apart(empty: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "migrations" / "region"
    folder.mkdir(parents=True)
    (folder / "001_a.before.sql").write_text("create table a (x int);")
    (folder / "001_a.after.sql").write_text("alter table a drop column x;")
    (folder / "002_b.before.sql").write_text("create table b (y int); alter table a add column z int;")
    (folder / "notes.txt").write_text("not one")
    monkeypatch.setattr(migrating.resources, "files", lambda _: tmp_path)
    assert migrating.migrate(empty, "region", ("before",)) == ["001_a.before.sql", "002_b.before.sql"]
    assert migrating.migrate(empty, "region", ("before", "after")) == ["001_a.after.sql"]
    assert {"a", "b"} <= tables(empty)
    (folder / "003_wrong.before.sql").write_text("create table c (x int); create table a (x int);")
    with pytest.raises(psycopg.errors.DuplicateTable):
        migrating.migrate(empty, "region")
    assert "c" not in tables(empty), "one that fails leaves nothing"


def test_provisioning_again_changes_nothing(installation: Installation) -> None:
    def state() -> list[Any]:
        with psycopg.connect(url_of(installation.admin_url, "eu").reveal()) as connection:
            return connection.execute(
                sql.SQL("select name, checksum, applied_at from schema_migrations order by name")
            ).fetchall()

    before = state()
    provision(installation.admin_url, installation.config.regions, installation.app_password)
    assert state() == before


def test_a_database_that_is_not_there_is_unavailable() -> None:
    nowhere = Secret("postgresql://nobody@127.0.0.1:1/postgres?connect_timeout=2")
    with pytest.raises(Unavailable) as refused:
        provision(nowhere, ("eu",), Secret("x"))
    assert refused.value.code == "DATABASE_UNAVAILABLE"
    assert "127.0.0.1" in str(refused.value)


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ("host=/run/postgresql user=a", None),
        ("postgresql://a@db.example/x", "verify-full"),
        ("postgresql://a@one.example,two.example/x", "verify-full"),
        ("postgresql://a@db.example/x?sslmode=require", "require"),
    ],
)
def test_over_a_network_certificates_are_verified(given: str, mode: str | None) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(url_of(Secret(given), "eu", user="app", password=Secret("pw")).reveal())
    assert (parts["dbname"], parts["user"], parts["password"]) == ("strongroom_eu", "app", "pw")
    assert parts.get("sslmode") == mode
    if mode:
        assert parts["target_session_attrs"] == "read-write"
